/* Random weights in their stored form, for measuring speed without a model: every bit pattern of
 * the type occurs, and a product with such a row of cols weights keeps the variance of its input,
 * so that activations stay ordinary numbers through any number of layers. They say nothing about
 * quality. Knows types, not models. */
#ifndef SBIT_COMMON_RANDOM_WEIGHTS_H
#define SBIT_COMMON_RANDOM_WEIGHTS_H

#include <stdint.h>

#include "common/dtype.h"

struct random_weights { /* xorshift64* (Vigna 2016, arXiv 1402.6246); state is never 0 */
    uint64_t state;
};

uint64_t random_weights_next(struct random_weights *r);

/* out[0..bytes) = weights of a matrix of cols columns, in any of the types that dtype_to_f32 knows
 * with whole blocks, or indices of codes (I8), which have their scale elsewhere. Mean square of the
 * weights: 1 / cols; of the float types to within a factor of two, because their magnitudes are
 * spread over one power of two. bytes: a multiple of the type's block. out needs no alignment. */
void random_weights_fill(struct random_weights *r, enum dtype dtype, uint64_t cols, void *out,
                         uint64_t bytes);

/* The row scale that gives indices of codes of d weights a byte that mean square, as F16. */
uint16_t random_weights_code_scale(uint32_t d, uint64_t cols);

#endif
