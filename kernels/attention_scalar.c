/* Attention of one query head over cached positions, the specification: scores in 16 partial sums
 * over head_dim, exact maximum, exponentials summed in 16 partial sums over positions, values
 * summed position by position. */
#include <math.h>

#include "kernels/reduce.h"
#include "kernels/variants.h"

static float score(const float *q, const uint16_t *key, int head_dim)
{
    float acc[LANES] = {0};
    for (int i = 0; i < head_dim; i += LANES)
        for (int j = 0; j < LANES; j++) {
            bool inside = i + j < head_dim;
            float k = inside ? half_to_float(key[i + j]) : 0.0f;
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

KERNELS_ATTENTION(kernels_attention_scalar)
{
    for (int i = 0; i < n; i++)
        scores[i] = score(q, keys + (size_t)i * (size_t)head_dim, head_dim) * scale;
    float inverse = softmax(scores, n);
    for (int d = 0; d < head_dim; d++)
        out[d] = 0.0f;
    for (int i = 0; i < n; i++, values += head_dim)
        for (int d = 0; d < head_dim; d++)
            out[d] = fmaf(scores[i], half_to_float(values[d]), out[d]);
    for (int d = 0; d < head_dim; d++)
        out[d] *= inverse;
}
