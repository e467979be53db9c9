/* Attention over cached positions, the specification: scores in 16 partial sums over head_dim, exact
 * maximum, exponentials summed in 16 partial sums over positions, values summed position by
 * position. */
#include <math.h>

#include "kernels/reduce.h"
#include "kernels/variants.h"

/* Element d of position i of keys or values. */
static float element(const struct kv *kv, const void *data, const uint16_t *scales, int i, int d)
{
    size_t at = (size_t)i * (size_t)kv->head_dim + (size_t)d;
    if (kv->type == KV_F16)
        return half_to_float(((const uint16_t *)data)[at]);
    size_t scale = (size_t)i * (size_t)kv_scales(kv->head_dim) + (size_t)(d / 32);
    return half_to_float(scales[scale]) * (float)((const int8_t *)data)[at];
}

static float score(const float *q, const struct kv *kv, int position)
{
    float acc[LANES] = {0};
    for (int i = 0; i < kv->head_dim; i += LANES)
        for (int j = 0; j < LANES; j++) {
            bool inside = i + j < kv->head_dim;
            float k = inside ? element(kv, kv->keys, kv->key_scale, position, i + j) : 0.0f;
            acc[j] = fmaf(inside ? q[i + j] : 0.0f, k, acc[j]);
        }
    return reduce_fold(acc);
}

/* scores become exponentials; returns 1 / their sum. */
static float softmax(float *scores, int n)
{
    float max = -INFINITY, acc[LANES] = {0};
    for (int i = 0; i < n; i++)
        max = scores[i] > max ? scores[i] : max;
    for (int i = 0; i < n; i++) {
        scores[i] = reduce_expf(scores[i] - max);
        acc[i % LANES] += scores[i];
    }
    return 1.0f / reduce_fold(acc);
}

static void head(float *out, const float *q, const struct kv *kv, float scale, float *scores)
{
    for (int i = 0; i < kv->n; i++)
        scores[i] = score(q, kv, i) * scale;
    float inverse = softmax(scores, kv->n);
    for (int d = 0; d < kv->head_dim; d++)
        out[d] = 0.0f;
    for (int i = 0; i < kv->n; i++)
        for (int d = 0; d < kv->head_dim; d++)
            out[d] = fmaf(scores[i], element(kv, kv->values, kv->value_scale, i, d), out[d]);
    for (int d = 0; d < kv->head_dim; d++)
        out[d] *= inverse;
}

KERNELS_ATTENTION(kernels_attention_scalar)
{
    for (int h = 0; h < heads; h++)
        head(out + (size_t)h * (size_t)kv->head_dim, q + (size_t)h * (size_t)kv->head_dim, kv,
             scale, scores);
}
