/* Products of matrices with the rows of a micro-batch, shared among the threads of a parallel
 * region. Knows which matrices read the same vector, and nothing of what the vectors mean. */
#ifndef SBIT_WORKER_PRODUCT_H
#define SBIT_WORKER_PRODUCT_H

#include <stddef.h>

#include "kernels/kernels.h"

#define PRODUCT_MAX 3

/* Matrices that multiply the same vectors (q, k and v; gate and up; one alone). All have the same
 * cols. */
struct product {
    int count;
    struct matrix m[PRODUCT_MAX];
    int slot[PRODUCT_MAX]; /* matrix i reads prepared[slot[i]]; shared where act_same allows */
};

/* Fills slot once the matrices stand. */
void product_plan(struct product *p);

/* Multiply-adds that one row takes. */
size_t product_cost(const struct product *p);

/* Raises bytes[s] to what slot s needs for one row. */
void product_room(const struct product *p, size_t bytes[PRODUCT_MAX]);

/* Prepares row number row, x[cols], in every slot in use; prepared[s] has room for all rows. One
 * thread's work: callers share rows among threads. */
void product_prepare(const struct product *p, void *const prepared[PRODUCT_MAX], int row,
                     const float *x);

/* out[s] = where row number row begins in prepared[s], for a multiplication of that row alone. */
void product_row(const struct product *p, void *const prepared[PRODUCT_MAX], int row,
                 void *out[PRODUCT_MAX]);

/* [product_share(n, 0), product_share(n, 1)) are this thread's of n things that the threads of a
 * parallel region share. */
int product_share(int n, int next);

/* y[i][t][r] = matrix i times x[t], for all tokens t. prepared: made of x by product_prepare.
 * Called by all threads of a parallel region, which share the bands of all matrices, each thread a
 * contiguous part, or the tokens where a kernel says that this is better; ends with a barrier. */
void product_multiply(const struct product *p, void *const prepared[PRODUCT_MAX], const float *x,
                      int tokens, float *const *y);

#endif
