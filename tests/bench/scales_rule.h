/* Rules by which a row of activations becomes int8: which channels stay in float and which share a scale.
 * For bench_scales.c; the rule in force is kernels/README.md's, and this must agree with it. */
#ifndef SBIT_TESTS_BENCH_SCALES_RULE_H
#define SBIT_TESTS_BENCH_SCALES_RULE_H

#include <stdbool.h>
#include <stdint.h>

#define RULE_APART_MAX 64

struct rule {
    const char *name;
    int apart;   /* most channels kept in float, RULE_APART_MAX at most; 0: none */
    float times; /* those above so many means of |z| */
    bool rest;   /* the mean over those that are not above so many means of all */
    int group;   /* columns that share a scale, a multiple of 16; 0: the row */
    bool whole;  /* run the whole model with it */
};

/* z[from..to) = what the product sees of it, the row being z[n]. Returns how many of these channels
 * are kept apart. peak: room for n / 16 + 1. */
int rule_quantise(const struct rule *r, float *z, int n, int from, int to, uint32_t *peak);

#endif
