/* Small parts of product_code_*.c. */
#ifndef SBIT_KERNELS_ARM_CODE_SUMS_H
#define SBIT_KERNELS_ARM_CODE_SUMS_H

#include <arm_neon.h>

#include "kernels/code.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* 8 index bytes at once: taking them apart is cheaper than loading each. */
ALWAYS_INLINE uint64_t index_load(const uint8_t *index)
{
    uint64_t eight;
    memcpy(&eight, index, sizeof eight);
    return eight;
}

/* The word that byte r of eight indices chooses. */
ALWAYS_INLINE int8x8_t word_narrow(const int8_t *words, uint64_t eight, int r)
{
    return vld1_s8(words + 8 * (eight >> 8 * r & 255));
}

ALWAYS_INLINE int8x16_t word_wide(const int8_t *words, uint64_t eight, int r)
{
    return vld1q_s8(words + 16 * (eight >> 8 * r & 255));
}

/* sums[i] += the lanes of acc[i] for rows, a multiple of 4. */
ALWAYS_INLINE void sums_add(const int32x4_t *acc, int rows, int32_t *sums)
{
    for (int r = 0; r < rows; r += 4) {
        int32x4_t low = vpaddq_s32(acc[r], acc[r + 1]), high = vpaddq_s32(acc[r + 2], acc[r + 3]);
        vst1q_s32(sums + r, vaddq_s32(vld1q_s32(sums + r), vpaddq_s32(low, high)));
    }
}

#endif
