/* binary16 and bfloat16 as the CPU's own conversions see them, in portable C. Owns nothing but
 * these formulas; results equal F16C and AArch64 FCVT bit for bit, quietened NaNs included (IEEE
 * 754-2019; all 65536 values are tested against common/dtype.h). */
#ifndef SBIT_KERNELS_HALF_H
#define SBIT_KERNELS_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t half_float_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float half_bits_float(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, magnitude = h & 0x7fff;
    if (magnitude < 0x400) /* subnormal: a multiple of 2^-24, exact in binary32 */
        return half_bits_float(sign | half_float_bits((float)magnitude * 0x1p-24f));
    if (magnitude < 0x7c00)
        return half_bits_float(sign | ((magnitude << 13) + (112u << 23)));
    uint32_t quiet = magnitude > 0x7c00 ? 0x400000 : 0;
    return half_bits_float(sign | 0x7f800000 | quiet | (magnitude & 0x3ff) << 13);
}

/* Rounds to nearest even; 65520 and more become infinity. */
static inline uint16_t half_from_float(float f)
{
    uint32_t bits = half_float_bits(f), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) /* NaN: quiet, upper payload bits kept */
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 0x47800000) /* 65536 */
        return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x38800000) { /* below 2^-14: the addition to 0.5 rounds at 2^-24 */
        float shifted = half_bits_float(magnitude) + 0.5f;
        return (uint16_t)(sign | (half_float_bits(shifted) - 0x3f000000));
    }
    uint32_t odd = magnitude >> 13 & 1;
    return (uint16_t)(sign | (magnitude - (112u << 23) + 0xfff + odd) >> 13);
}

static inline float half_from_bfloat(uint16_t h)
{
    return half_bits_float((uint32_t)h << 16);
}

/* The i-th 16-bit element of an array that may lie at an odd address (file data). */
static inline uint16_t half_load(const void *array, size_t i)
{
    uint16_t h;
    memcpy(&h, (const uint8_t *)array + 2 * i, sizeof h);
    return h;
}

#endif
