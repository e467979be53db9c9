/* Byte-code product with SDOT: the templates do the work. */
#include "kernels/arm/code_tile.h"

#define ROWS 16 /* of a band, whose sums stay in registers */

ALWAYS_INLINE int32x4_t add16(int32x4_t sums, int8x16_t w, int8x16_t x)
{
    return vdotq_s32(sums, w, x);
}

static __attribute__((noinline)) void add_narrow(const int8_t *words, const uint8_t *index,
                                                 int groups, const int8_t *q, int d,
                                                 int32_t sums[ROWS])
{
    int32x2_t acc[ROWS];
    for (int r = 0; r < ROWS; r++)
        acc[r] = vdup_n_s32(0);
    for (int g = 0; g < groups; g++, index += MATRIX_BAND, q += d) {
        uint64_t low = index_load(index), high = index_load(index + 8);
        int8x8_t x = vld1_s8(q);
        for (int r = 0; r < 8; r++) {
            acc[r] = vdot_s32(acc[r], word_narrow(words, low, r), x);
            acc[r + 8] = vdot_s32(acc[r + 8], word_narrow(words, high, r), x);
        }
    }
    for (int r = 0; r < ROWS; r += 2)
        vst1_s32(sums + r, vadd_s32(vld1_s32(sums + r), vpadd_s32(acc[r], acc[r + 1])));
}

#include "kernels/arm/code_quads.inc"

#include "kernels/arm/code_tile.inc"

#include "kernels/arm/code_alone.inc"

KERNELS_PRODUCT(kernels_product_code_dotprod)
{
    product(m, prepared, x, tokens, row_first, row_count, y, y_stride);
}
