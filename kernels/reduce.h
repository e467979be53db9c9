/* The two float building blocks on which all variants agree: the fold of 16 partial sums and the
 * exponential. Portable C; the vector versions in x86/ perform the same operations in the same
 * order. */
#ifndef SBIT_KERNELS_REDUCE_H
#define SBIT_KERNELS_REDUCE_H

#include <math.h>
#include <stdint.h>

#include "kernels/half.h"

#define LANES 16 /* partial sums of every float reduction */

/* Sum of 16 partial sums: acc[j] += acc[j + 8], then + 4, + 2, + 1. Destroys acc. */
static inline float reduce_fold(float acc[LANES])
{
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++)
            acc[j] += acc[j + half];
    return acc[0];
}

/* exp(x): x = n ln 2 + r, n the nearest integer (by adding 1.5 * 2^23), |r| <= 0.35, ln 2 in two
 * parts (Cody & Waite 1980), then a minimax polynomial of degree 6, then times 2^n in two steps so
 * that n = 128 is reached. Error below 2 ulp. Below EXP_LOW the result is 0 (no subnormals), above
 * EXP_HIGH infinity; NaN stays NaN. */
#define EXP_LOW    -87.33654f
#define EXP_HIGH   88.72283f
#define EXP_LOG2E  1.44269504f
#define EXP_MAGIC  12582912.0f
#define EXP_LN2_HI -0.693145752f
#define EXP_LN2_LO -1.42860677e-6f
#define EXP_C6     1.3930748e-3f
#define EXP_C5     8.3607464e-3f
#define EXP_C4     4.1666307e-2f
#define EXP_C3     0.16666574f
#define EXP_C2     0.5f

static inline float reduce_expf(float x)
{
    float shifted = x * EXP_LOG2E + EXP_MAGIC;
    float n = shifted - EXP_MAGIC;
    float r = fmaf(n, EXP_LN2_HI, x);
    r = fmaf(n, EXP_LN2_LO, r);
    float p = fmaf(EXP_C6, r, EXP_C5);
    p = fmaf(p, r, EXP_C4);
    p = fmaf(p, r, EXP_C3);
    p = fmaf(p, r, EXP_C2);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    int32_t exponent = (int32_t)(half_float_bits(shifted) - half_float_bits(EXP_MAGIC));
    int32_t first = exponent >> 1;
    uint32_t second = (uint32_t)exponent - (uint32_t)first;
    float scaled = p * half_bits_float(((uint32_t)first + 127) << 23);
    scaled *= half_bits_float((second + 127) << 23);
    if (x < EXP_LOW)
        return 0.0f;
    return x > EXP_HIGH ? INFINITY : scaled;
}

#endif
