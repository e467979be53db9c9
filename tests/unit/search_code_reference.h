/* The search for byte codes written down plainly, in double: one row at a time, errors carried to every later
 * column at once, each path with its own copy of the row, every product computed anew. What
 * worker/search_code.c is compared with. */
#ifndef SBIT_TESTS_SEARCH_CODE_REFERENCE_H
#define SBIT_TESTS_SEARCH_CODE_REFERENCE_H

#include <stdint.h>

#include "common/codebook.h"
#include "common/recipe.h"
#include "worker/curvature.h"

/* A curvature of n inputs: eigenvalues i^-power in random directions, n(0, 1) numbers from random(),
 * off-diagonals shrunk by shrink, damp times the mean added to the diagonal; u in double from the
 * rounded h. dead: a column whose inputs are all zero, -1 for none. Freed by reference_free. */
struct curvature *reference_curvature(int n, double power, double shrink, double damp, int dead,
                                      float (*random)(void));
void reference_free(struct curvature *k);

struct reference_row {
    double scale;      /* as F16 stores it */
    double best_scale; /* the closed form for the codes */
    double signal, rounded, fed, final;
};

/* The search on one row; codes[groups]. */
void reference_search(const struct codebook *book, const struct curvature *k,
                      const struct recipe *recipe, const float *target, uint8_t *codes,
                      struct reference_row *out);

/* (t - a q) H (t - a q)' of given codes. */
double reference_loss(const struct codebook *book, const struct curvature *k, const float *target,
                      const uint8_t *codes, double scale);
/* The scale that makes it least: (q H t') / (q H q'). */
double reference_scale(const struct codebook *book, const struct curvature *k, const float *target,
                       const uint8_t *codes);
/* The largest part of the loss that a change of a single code saves. */
double reference_gain(const struct codebook *book, const struct curvature *k, const float *target,
                      const uint8_t *codes, double scale);

#endif
