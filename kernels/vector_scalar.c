/* Operations on single vectors, the specification. */
#include <math.h>

#include "kernels/reduce.h"
#include "kernels/variants.h"

KERNELS_RMS_NORM(kernels_rms_norm_scalar)
{
    float acc[LANES] = {0};
    for (int i = 0; i < n; i++)
        acc[i % LANES] = fmaf(x[i], x[i], acc[i % LANES]);
    float inverse = 1.0f / sqrtf(reduce_fold(acc) / (float)n + eps);
    for (int i = 0; i < n; i++)
        y[i] = x[i] * inverse * weight[i];
}

KERNELS_SWIGLU(kernels_swiglu_scalar)
{
    for (int i = 0; i < n; i++)
        gate[i] = gate[i] / (1.0f + reduce_expf(-gate[i])) * up[i];
}

KERNELS_TO_F16(kernels_to_f16_scalar)
{
    for (int i = 0; i < n; i++)
        h[i] = half_from_float(x[i]);
}

void kernels_add(float *y, const float *x, int n)
{
    for (int i = 0; i < n; i++)
        y[i] += x[i];
}

void kernels_rope(float *x, int heads, int head_dim, int pairs, bool interleaved,
                  const float *cosine, const float *sine)
{
    int step = interleaved ? 2 : 1, distance = interleaved ? 1 : pairs;
    for (int head = 0; head < heads; head++, x += head_dim)
        for (int i = 0; i < pairs; i++) {
            float *a = x + i * step, *b = a + distance;
            float first = *a * cosine[i] - *b * sine[i];
            *b = *a * sine[i] + *b * cosine[i];
            *a = first;
        }
}
