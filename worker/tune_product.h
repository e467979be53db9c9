/* Matrices as what end-to-end tuning changes and differentiates. A tuned matrix has one
 * parameter per row, the logarithm of a multiplier of its stored scales:
 *
 *     W[r][c] = exp(log[r]) * W_0[r][c],   every F16 scale of the row rounded anew
 *
 * so that what is tuned is what is stored and what inference computes with. Activations rounded
 * to int8 count as what they were before ("straight through", Bengio et al. 2013, arXiv
 * 1308.3432). Functions that say so are called by all threads of a parallel region and share its
 * work in tiles of fixed size: the same bits for any number of threads. Knows nothing of blocks,
 * losses and files. */
#ifndef SBIT_WORKER_TUNE_PRODUCT_H
#define SBIT_WORKER_TUNE_PRODUCT_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "kernels/kernels.h"
#include "worker/product.h"

/* How many F16 scales m stores: rows of a CODE matrix, blocks of a block type, and elements of F16,
 * which are their own scales. 0 for F32 and BF16, which are not tuned. */
size_t tune_matrix_scales(const struct matrix *m);

/* base[tune_matrix_scales(m)] = the scales that m has, row by row: to be kept by the caller. */
void tune_matrix_base(const struct matrix *m, uint16_t *base);

/* Writes F16(base * exp(log[row])) for every scale. stored: the caller's writable bytes of what
 * m views, m->out for CODE and m->data for the others. log[rows]. Magnitudes stay finite: at
 * most 65504. Nothing for types without scales. m must have no sparse correction, whose values
 * do not follow. */
void tune_matrix_apply(const struct matrix *m, void *stored, const uint16_t *base,
                       const float *log);

/* weight[n] = base[n] * exp(log[n]): the same for the weights of an RMSNorm. */
void tune_norm_apply(float *weight, const float *base, const float *log, size_t n);

/* Room for tune_product_backward, shared by the threads of a parallel region. */
struct tune_tile {
    float *weights; /* some rows of a matrix as floats */
    float *columns; /* column scales as floats */
    size_t cols;    /* of the widest matrix */
};

/* For matrices of up to cols columns. *t is released by tune_tile_free, also after a failure.
 * Errors: ERR_MEMORY. */
enum status tune_tile_create(struct tune_tile *t, size_t cols, struct error *e);
/* A zeroed *t is fine. */
void tune_tile_free(struct tune_tile *t);

/* dx[tokens][cols] = sum over the matrices i of p of dy[i][tokens][rows of i] W_i: the gradient
 * of the inputs from that of the outputs. W becomes floats some rows at a time. Called by all
 * threads of a parallel region; ends with a barrier. For the rest of that region, regions inside it
 * have one thread, so that OpenBLAS has; curvature_init has been called before. */
void tune_product_backward(const struct product *p, float *const *dy, int tokens,
                           const struct tune_tile *t, float *dx);

/* g[r] += sum over t of dy[t][r] * y[t][r], the gradient of the logarithm of r's multiplier
 * where y = multiplier * something: y[tokens][rows] without bias, or the output of an RMSNorm
 * for its weights. energy[r] += sum over t of dy[t][r]^2 unless NULL (diagonal of the empirical
 * Fisher information of the outputs). Sums of a call run in double, from the first token on.
 * Called by all threads of a parallel region, which share the columns; no barrier. */
void tune_row_gradient(const float *dy, const float *y, int tokens, int rows, float *g,
                       float *energy);

/* dx[n] = gradient of the input of y = x / sqrt(mean(x^2) + eps) * weight from dy[n]:
 * dx = r (weight dy) - x r^3 / n * sum(weight dy x), r = 1 / sqrt(mean(x^2) + eps). dx may be dy.
 * One row; any thread. */
void tune_norm_backward(const float *x, const float *weight, int n, float eps, const float *dy,
                        float *dx);

/* From y = silu(gate) * up: dgate[n] and dup[n] from dy[n]; dgate may be dy, dup not. With s =
 * 1 / (1 + exp(-gate)): dup = dy gate s, dgate = dy up s (1 + gate (1 - s)). */
void tune_swiglu_backward(const float *gate, const float *up, int n, const float *dy, float *dgate,
                          float *dup);

#endif
