/* What quantisers know of a matrix's inputs: the damped second moments, and the triangular
 * factor that carries errors from one column to the later ones (GPTQ, Frantar et al. 2023; LDLQ,
 * Chee et al. 2023). All dense algebra of the compression outside the quantisers: OpenBLAS, one
 * thread a call, tiles of fixed size shared among threads, so that results depend on neither
 * threads nor ranks. */
#ifndef SBIT_WORKER_CURVATURE_H
#define SBIT_WORKER_CURVATURE_H

#include <stdint.h>

#include "common/error.h"
#include "worker/diagonal.h"
#include "worker/moments.h"

/* level(H), in proportion to which H is damped, is the mean of its diagonal, no element of it counted as more
 * than CURVATURE_MASSIVE times the middle one: one massive channel, as large models have them, would
 * otherwise bury all others under its damping. */
enum { CURVATURE_MASSIVE = 16 };

/* Must be called once before anything else here and in moments.h: OpenBLAS then uses one thread a
 * call. */
void curvature_init(void);

struct curvature {
    int n, width; /* columns, and those of a block of the moments it was made from */
    float *h; /* [n][n] symmetric: (1 - shrink) H + shrink diag(H) + damp level(H) I, H per
               * token; zeros outside the blocks */
    float *u; /* [n][n] upper triangular with H^-1 = U'U, zeros below the diagonal; NULL when not
               * asked for */
};

/* The columns from begin to end of the block in which a column stands: h and u have nothing else in its row and
 * column. */
static inline int curvature_begin(const struct curvature *k, int column)
{
    return column / k->width * k->width;
}

static inline int curvature_end(const struct curvature *k, int column)
{
    int begin = curvature_begin(k, column);
    return k->n - begin < k->width ? k->n : begin + k->width;
}

/* From a merged node: *out is the caller's, curvature_free. with_u: the factor too. A channel
 * that never was anything but zero gets the damping alone (where all are zeros, the level
 * counts as 1). Damping too small for floats to factor H is raised tenfold, three times at most,
 * in h as in u. Memory: the outputs, and for a moment 256 * n floats. Errors: ERR_MEMORY;
 * ERR_LIMIT when the moments are not finite ("the calibration text drives the inputs of %s out
 * of range", what names them), are of no token, or cannot be factored. */
enum status curvature_create(struct curvature **out, const struct moments_node *node, double shrink,
                             double damp, bool with_u, int threads, const char *what,
                             struct error *e);
void curvature_free(struct curvature *k);

/* For matrices whose columns have been divided by scale[n] and whose inputs are therefore
 * multiplied by it: W = W' diag(scale), x' = diag(scale) x, H' = diag(scale) H diag(scale), U' =
 * U diag(1 / scale). In place. */
void curvature_scale(struct curvature *k, const float *scale);

/* *p, in blocks as node (the caller's, free) = fraction * C (H + damp level(H) I)^-1, both over
 * tokens: the correction of the target for the compressed prefix, T = W + W P (QEP, Arai & Ichikawa
 * 2025). node needs c. damp as published: 0.01; raised like curvature_create's. Memory: *p and
 * another n * n floats. Errors as above. */
enum status curvature_qep(float **p, const struct moments_node *node, double fraction, double damp,
                          int threads, const char *what, struct error *e);

/* y[rows][n] += x[rows][n] P, P in blocks of that shape, by the calling thread alone, several of
 * which may be at it. The bits of a row may depend on rows: the same bands of rows in each call
 * (64, as everywhere) give the same bits whoever takes them. */
void curvature_apply(const float *p, struct diagonal shape, const float *x, int rows, float *y);

#endif
