/* Rotary position embedding's angles (RoPE, Su et al. 2021, arXiv 2104.09864): the cosines and
 * sines that kernels.rope applies. The same bits on every machine, from common/exactmath.h. */
#ifndef SBIT_WORKER_ROPE_H
#define SBIT_WORKER_ROPE_H

#include <stdint.h>

#include "common/error.h"
#include "common/model.h"

struct rope {
    int pairs;         /* rope_dim / 2 */
    double *frequency; /* [pairs] radians per position */
};

/* Pair i turns by position * base^(-2i / rope_dim) / factors[i], divided by the factor of linear
 * scaling too. factors: [rope_dim / 2], or NULL for ones. *r is released by rope_free. Errors:
 * ERR_MEMORY. */
enum status rope_create(struct rope *r, const struct model_config *c, const float *factors,
                        struct error *e);
/* A zeroed *r is fine. */
void rope_free(struct rope *r);

/* cosine[pairs], sine[pairs] of one position's angles. */
void rope_angles(const struct rope *r, uint32_t position, float *cosine, float *sine);

#endif
