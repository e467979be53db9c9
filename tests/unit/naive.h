/* A Llama-family forward pass in double precision (keys and values rounded to F16) with nothing
 * clever in it: what the worker is compared with. Reads weights row by row in their GGUF form. */
#ifndef SBIT_TESTS_NAIVE_H
#define SBIT_TESTS_NAIVE_H

#include <stdint.h>

#include "common/weights.h"

/* logits[n][vocab] (malloc'd, the caller's) of n tokens of one sequence from position 0. */
double *naive_forward(const struct weights *w, const uint32_t *tokens, int n);

/* The largest |a - b| over the largest |b|. */
double naive_distance(const float *a, const double *b, size_t n);

#endif
