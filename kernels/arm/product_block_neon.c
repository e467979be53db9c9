/* Q8_0, Q4_0, Q1_0 and Q2_0 products with plain NEON: products of bytes in 16-bit lanes, of which two
 * always fit (2 * 128 * 127 < 2^15), of small weights all that a block needs. */
#include "kernels/arm/block_sums.h"

/* sums[i] + w[i] x[i] + w[i + 8] x[i + 8] */
ALWAYS_INLINE int16x8_t add16(int16x8_t sums, int8x16_t w, int8x16_t x)
{
    sums = vmlal_s8(sums, vget_low_s8(w), vget_low_s8(x));
    return vmlal_high_s8(sums, w, x);
}

ALWAYS_INLINE int16x8_t start16(int8x16_t w, int8x16_t x)
{
    return vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(x)), w, x);
}

ALWAYS_INLINE int32x4_t dot32(const int8x16_t w[2], const int8x16_t x[2])
{
    return vpadalq_s16(vpaddlq_s16(start16(w[0], x[0])), start16(w[1], x[1]));
}

ALWAYS_INLINE int32x4_t dot_nibbles(const int8x16_t w[2], const int8x16_t x[2])
{
    return vpaddlq_s16(add16(start16(w[0], x[0]), w[1], x[1]));
}

/* Bytes 0 to 7 and 8 to 15 stay apart here: they belong to different blocks of activations. */
ALWAYS_INLINE int32x4_t dot_quarters(const int8x16_t w[4], const int8x16_t x[4])
{
    int16x8_t low = vmull_s8(vget_low_s8(w[0]), vget_low_s8(x[0]));
    int16x8_t high = vmull_high_s8(w[0], x[0]);
    for (int k = 1; k < 4; k++) {
        low = vmlal_s8(low, vget_low_s8(w[k]), vget_low_s8(x[k]));
        high = vmlal_high_s8(high, w[k], x[k]);
    }
    return vpaddlq_s16(vpaddq_s16(low, high));
}

ALWAYS_INLINE int32x4_t dot_bits(uint8x16_t bits, const int8x16_t x[8])
{
    int16x8_t sums = vdupq_n_s16(0);
    for (int k = 0; k < 8; k++) {
        uint8x16_t set = vtstq_u8(bits, vdupq_n_u8((uint8_t)(1 << k)));
        sums = vpadalq_s8(sums, vandq_s8(vreinterpretq_s8_u8(set), x[k]));
    }
    return vpaddlq_s16(sums);
}

ALWAYS_INLINE void quad_store(const int8_t (*rows)[BLOCK_MAX_WEIGHTS], int c, int8_t *to)
{
    for (int i = 0; i < 4; i++)
        memcpy(to + i * BLOCK_WEIGHTS, rows[i] + c, BLOCK_WEIGHTS);
}

ALWAYS_INLINE int32x4_t quad_dot(const int8x16_t w[8], const int8x16_t x[2])
{
    int32x4_t sum[4] = {dot32(w, x), dot32(w + 2, x), dot32(w + 4, x), dot32(w + 6, x)};
    return add_lanes(sum);
}

#include "kernels/arm/block_rows.inc"

KERNELS_PRODUCT(kernels_product_q8_0_neon)
{
    product(MATRIX_Q8_0, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_q4_0_neon)
{
    product(MATRIX_Q4_0, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_q1_0_neon)
{
    product(MATRIX_Q1_0, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_q2_0_neon)
{
    product(MATRIX_Q2_0, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}
