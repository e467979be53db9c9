/* Operations on single vectors, the specification. */
#include <math.h>

#include "kernels/prepare.h"
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

KERNELS_TO_Q8(kernels_to_q8)
{
    for (int i = 0; i < n; i += 32) {
        int count = n - i < 32 ? n - i : 32;
        uint32_t max = 0;
        for (int j = i; j < i + count; j++) {
            uint32_t magnitude = half_float_bits(x[j]) & 0x7fffffff;
            max = magnitude > max ? magnitude : max;
        }
        uint16_t scale = half_from_float(half_bits_float(max) / 127.0f);
        bool usable = scale >= 0x400 && scale < 0x7c00; /* neither subnormal nor infinite nor NaN */
        d[i / 32] = scale < 0x400 ? 0 : scale;
        float inverse = usable ? 1.0f / half_to_float(scale) : 0.0f;
        for (int j = i; j < i + count; j++)
            q[j] = prepare_int8(usable ? x[j] : 0.0f, inverse);
    }
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
