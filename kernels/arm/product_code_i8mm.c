/* Byte-code product for some tokens with SMMLA, which multiplies 2 x 8 weights with 8 x 2 activations: twice
 * what SDOT does, for pairs of rows and pairs of tokens. One token is left to SDOT. */
#include "kernels/arm/code_tile.h"

#define TILE_STEP 8 /* rows that share paired activations */

/* Rows 2i and 2i + 1: bytes 8k to 8k + 7 of one, then of the other, 16 columns in both. */
ALWAYS_INLINE void tile_arrange(struct tile *tile, int rows, int columns)
{
    for (int r = 0; r < rows; r += 2)
        for (int c = 0; c < columns; c += 16) {
            int64x2_t first = vreinterpretq_s64_s8(vld1q_s8(tile->w[r] + c));
            int64x2_t second = vreinterpretq_s64_s8(vld1q_s8(tile->w[r + 1] + c));
            vst1q_s8(tile->w[r] + c, vreinterpretq_s8_s64(vzip1q_s64(first, second)));
            vst1q_s8(tile->w[r + 1] + c, vreinterpretq_s8_s64(vzip2q_s64(first, second)));
        }
}

struct pair { /* columns 0 to 7 of two tokens, and 8 to 15 */
    int8x16_t low, high;
};

ALWAYS_INLINE struct pair pair_load(const int8_t *first, const int8_t *second)
{
    int64x2_t a = vreinterpretq_s64_s8(vld1q_s8(first));
    int64x2_t b = vreinterpretq_s64_s8(vld1q_s8(second));
    return (struct pair){vreinterpretq_s8_s64(vzip1q_s64(a, b)),
                         vreinterpretq_s8_s64(vzip2q_s64(a, b))};
}

/* A single token is its own second one. */
ALWAYS_INLINE void tile_sums(const int8_t (*w)[TILE_BYTES], int columns, const int8_t *q,
                             size_t stride, int tokens, int32x4_t (*sums)[TILE_STEP / 4])
{
    int32x4_t low[TILE_TOKENS / 2][TILE_STEP / 2], high[TILE_TOKENS / 2][TILE_STEP / 2];
    size_t second = tokens > 1 ? stride : 0;
    int pairs = (tokens + 1) / 2;
    for (int p = 0; p < pairs; p++)
        for (int r = 0; r < TILE_STEP / 2; r++)
            low[p][r] = high[p][r] = vdupq_n_s32(0);
    for (int c = 0; c < columns; c += 16)
        for (int p = 0; p < pairs; p++) {
            const int8_t *first = q + 2 * (size_t)p * stride + c;
            struct pair x = pair_load(first, first + second);
            for (int r = 0; r < TILE_STEP / 2; r++) {
                low[p][r] = vmmlaq_s32(low[p][r], vld1q_s8(w[2 * r] + c), x.low);
                high[p][r] = vmmlaq_s32(high[p][r], vld1q_s8(w[2 * r + 1] + c), x.high);
            }
        }
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < TILE_STEP / 2; r += 2) {
            int32x4_t a = vaddq_s32(low[t / 2][r], high[t / 2][r]);
            int32x4_t b = vaddq_s32(low[t / 2][r + 1], high[t / 2][r + 1]);
            sums[t][r / 2] = t % 2 ? vuzp2q_s32(a, b) : vuzp1q_s32(a, b);
        }
}

#include "kernels/arm/code_tile.inc"

KERNELS_PRODUCT(kernels_product_code_i8mm)
{
    struct words words;
    if (tokens == 1) {
        kernels_product_code_dotprod(m, prepared, x, tokens, row_first, row_count, y, y_stride);
        return;
    }
    words_fill(m, &words);
    product_together(m, &words, prepared, tokens, row_first, row_count, y + row_first, y_stride);
    correction_add(m, x, tokens, row_first, row_count, y, y_stride);
}
