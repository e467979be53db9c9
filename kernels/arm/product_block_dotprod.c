/* Q8_0, Q4_0, Q1_0 and Q2_0 products with SDOT. */
#include "kernels/arm/block_sums.h"

ALWAYS_INLINE int32x4_t dot32(const int8x16_t w[2], const int8x16_t x[2])
{
    return vdotq_s32(vdotq_s32(vdupq_n_s32(0), w[0], x[0]), w[1], x[1]);
}

ALWAYS_INLINE int32x4_t dot_nibbles(const int8x16_t w[2], const int8x16_t x[2])
{
    return dot32(w, x);
}

ALWAYS_INLINE int32x4_t dot_quarters(const int8x16_t w[4], const int8x16_t x[4])
{
    int32x4_t sums = vdupq_n_s32(0);
    for (int k = 0; k < 4; k++)
        sums = vdotq_s32(sums, w[k], x[k]);
    return sums;
}

/* A set bit is compared to -1. */
ALWAYS_INLINE int32x4_t dot_bits(uint8x16_t bits, const int8x16_t x[8])
{
    int32x4_t sums = vdupq_n_s32(0);
    for (int k = 0; k < 8; k++) {
        uint8x16_t set = vtstq_u8(bits, vdupq_n_u8((uint8_t)(1 << k)));
        sums = vdotq_s32(sums, vreinterpretq_s8_u8(set), x[k]);
    }
    return vnegq_s32(sums);
}

/* Steps of four columns: those of row 0, of row 1, 2 and 3. */
ALWAYS_INLINE void quad_store(const int8_t (*rows)[BLOCK_MAX_WEIGHTS], int c, int8_t *to)
{
    for (int half = 0; half < 2; half++, c += 16, to += 64) {
        int32x4_t row[4];
        for (int i = 0; i < 4; i++)
            row[i] = vreinterpretq_s32_s8(vld1q_s8(rows[i] + c));
        int64x2_t low01 = vreinterpretq_s64_s32(vzip1q_s32(row[0], row[1]));
        int64x2_t low23 = vreinterpretq_s64_s32(vzip1q_s32(row[2], row[3]));
        int64x2_t high01 = vreinterpretq_s64_s32(vzip2q_s32(row[0], row[1]));
        int64x2_t high23 = vreinterpretq_s64_s32(vzip2q_s32(row[2], row[3]));
        vst1q_s8(to, vreinterpretq_s8_s64(vzip1q_s64(low01, low23)));
        vst1q_s8(to + 16, vreinterpretq_s8_s64(vzip2q_s64(low01, low23)));
        vst1q_s8(to + 32, vreinterpretq_s8_s64(vzip1q_s64(high01, high23)));
        vst1q_s8(to + 48, vreinterpretq_s8_s64(vzip2q_s64(high01, high23)));
    }
}

ALWAYS_INLINE int32x4_t quad_dot(const int8x16_t w[8], const int8x16_t x[2])
{
    int32x4_t sums = vdupq_n_s32(0);
    for (int half = 0; half < 2; half++) {
        sums = vdotq_laneq_s32(sums, w[4 * half], x[half], 0);
        sums = vdotq_laneq_s32(sums, w[4 * half + 1], x[half], 1);
        sums = vdotq_laneq_s32(sums, w[4 * half + 2], x[half], 2);
        sums = vdotq_laneq_s32(sums, w[4 * half + 3], x[half], 3);
    }
    return sums;
}

#include "kernels/arm/block_rows.inc"

KERNELS_PRODUCT(kernels_product_q8_0_dotprod)
{
    product(MATRIX_Q8_0, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_q4_0_dotprod)
{
    product(MATRIX_Q4_0, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_q1_0_dotprod)
{
    product(MATRIX_Q1_0, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_q2_0_dotprod)
{
    product(MATRIX_Q2_0, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}
