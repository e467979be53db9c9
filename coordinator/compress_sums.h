/* What a compression did to groups of matrices: a kind, a block, all of them. Arithmetic only, for
 * the reports. */
#ifndef SBIT_COORDINATOR_COMPRESS_SUMS_H
#define SBIT_COORDINATOR_COMPRESS_SUMS_H

#include "coordinator/compress_file.h"
#include "coordinator/compress_plan.h"

struct compress_sums {
    uint32_t matrices;
    uint64_t bytes, weights;
    uint32_t d_low, d_high;     /* of codes; 0: none */
    uint32_t of[UNIT_Q1_0 + 1]; /* how many matrices have each method */
    double error;               /* relative squared error: of all weights together */
    double seconds;
    /* Calibrated: the mean over the weights of their matrices' relative losses, after rounding to
     * nearest, after error feedback, and of what was stored. */
    double rounded, fed, loss;
};

enum { SUMS_ALL = -1 };

/* Of the matrices of one kind (or, SUMS_ALL, of all kinds inside the blocks) and of one block (or
 * all). results NULL-free [n]. */
struct compress_sums compress_sums_of(const struct plan_unit *units,
                                      const struct compress_result *results, uint32_t n, int kind,
                                      int64_t block);
double compress_sums_bits(const struct compress_sums *s);

/* final / signal of one matrix, and the same of the others; 0 when it was not calibrated. */
double compress_relative(const struct compress_result *r, double loss);

#endif
