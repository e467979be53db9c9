/* One transformer block in double precision as the papers write it, with the multipliers that
 * tuning changes: what gradients are compared with, by differences. Nothing is rounded, nothing
 * is clever. */
#ifndef SBIT_TESTS_TUNE_REFERENCE_H
#define SBIT_TESTS_TUNE_REFERENCE_H

#include "worker/bind.h"

/* out[rows][hidden] = the block w (F32 matrices) over x[rows][hidden], with logarithms of
 * multipliers in log, flat in the order of tune_block_vector. */
void tune_reference(const struct model_config *c, const struct block_weights *w, const double *log,
                    int rows, const double *x, double *out);

/* y[n] = RMSNorm of x with weights weight[i] exp(log[i]); weight, log NULL: ones, zeros. */
void tune_reference_norm(const double *x, const float *weight, const double *log, int n, double eps,
                         double *y);

#endif
