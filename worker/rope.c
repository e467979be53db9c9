/* RoPE frequencies and angles. Must never know what is rotated. */
#include "worker/rope.h"

#include <stdlib.h>
#include <string.h>

#include "common/exactmath.h"
#include "common/mem.h"

enum status rope_create(struct rope *r, const struct model_config *c, const float *factors,
                        struct error *e)
{
    memset(r, 0, sizeof *r);
    r->pairs = (int)(c->rope_dim / 2);
    TRY(mem_array(&r->frequency, (size_t)r->pairs, sizeof *r->frequency, "RoPE frequencies", e));
    double divisor = c->rope_scaling == ROPE_LINEAR ? (double)c->rope_factor : 1.0;
    for (int i = 0; i < r->pairs; i++) {
        double exponent = -2.0 * i / (double)c->rope_dim;
        r->frequency[i] = exact_pow((double)c->rope_base, exponent) / divisor;
        if (factors)
            r->frequency[i] /= (double)factors[i];
    }
    return OK;
}

void rope_free(struct rope *r)
{
    free(r->frequency);
    memset(r, 0, sizeof *r);
}

void rope_angles(const struct rope *r, uint32_t position, float *cosine, float *sine)
{
    for (int i = 0; i < r->pairs; i++) {
        double s, c;
        exact_sincos((double)position * r->frequency[i], &s, &c);
        cosine[i] = (float)c;
        sine[i] = (float)s;
    }
}
