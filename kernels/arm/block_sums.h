/* Small parts of product_block_*.c. */
#ifndef SBIT_KERNELS_ARM_BLOCK_SUMS_H
#define SBIT_KERNELS_ARM_BLOCK_SUMS_H

#include <arm_neon.h>

#include "kernels/blocks.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Lane i: the sum of the lanes of dots[i]. */
ALWAYS_INLINE int32x4_t add_lanes(const int32x4_t dots[4])
{
    return vpaddq_s32(vpaddq_s32(dots[0], dots[1]), vpaddq_s32(dots[2], dots[3]));
}

#endif
