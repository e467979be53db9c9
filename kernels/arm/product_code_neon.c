/* Byte-code product with plain NEON: the templates do the work. Products of bytes are added up in
 * 16-bit lanes, two of them (2 * 127 * 127 < 2^15), then in 32-bit ones. */
#include "kernels/arm/code_tile.h"

/* Of a band, whose sums stay in registers. Sixteen would not leave any for the indices of two groups. */
#define ROWS 8

ALWAYS_INLINE int32x4_t add16(int32x4_t sums, int8x16_t w, int8x16_t x)
{
    int16x8_t products = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    return vpadalq_s16(sums, vmlal_high_s8(products, w, x));
}

/* Two groups at a time; the second one of the last pair may be missing. */
static __attribute__((noinline)) void add_narrow(const int8_t *words, const uint8_t *index,
                                                 int groups, const int8_t *q, int d,
                                                 int32_t sums[ROWS])
{
    int32x4_t acc[ROWS];
    for (int r = 0; r < ROWS; r++)
        acc[r] = vdupq_n_s32(0);
    for (; groups >= 2; groups -= 2, index += 2 * MATRIX_BAND, q += 2 * d) {
        uint64_t first = index_load(index), second = index_load(index + MATRIX_BAND);
        int8x8_t x = vld1_s8(q), next = vld1_s8(q + d);
        for (int r = 0; r < ROWS; r++) {
            int16x8_t products = vmull_s8(word_narrow(words, first, r), x);
            products = vmlal_s8(products, word_narrow(words, second, r), next);
            acc[r] = vpadalq_s16(acc[r], products);
        }
    }
    for (int r = 0; r < ROWS && groups; r++) {
        int8x8_t word = word_narrow(words, index[r], 0);
        acc[r] = vpadalq_s16(acc[r], vmull_s8(word, vld1_s8(q)));
    }
    sums_add(acc, ROWS, sums);
}

#include "kernels/arm/code_quads.inc"

#include "kernels/arm/code_tile.inc"

#include "kernels/arm/code_alone.inc"

/* Words of 16 bytes are three multiplications each; there a table of all 256 products with a group,
 * whose look-up is a load and an addition, is better once enough rows share it. */
#define TABLE_ROWS   192 /* where building it is paid for, by llvm-mca */
#define TABLE_GROUPS 16  /* 16 KiB of tables, half of the first-level cache */

static void table_fill(const struct words *words, const int8_t *q, int32_t table[2 * CODE_WORDS])
{
    int8x16_t x = vld1q_s8(q);
    for (int w = 0; w < CODE_WORDS; w += 4) {
        int32x4_t sum[4];
        for (int i = 0; i < 4; i++)
            sum[i] = add16(vdupq_n_s32(0), vld1q_s8(words->word + WORD * (w + i)), x);
        int32x4_t four = vpaddq_s32(vpaddq_s32(sum[0], sum[1]), vpaddq_s32(sum[2], sum[3]));
        vst1q_s32(table + w, four);
        vst1q_s32(table + CODE_WORDS + w, vnegq_s32(four));
    }
}

/* In 64 bits, because gcc would collect sums of 32 in a vector register, element by element. */
static __attribute__((noinline)) void look_up(const uint8_t *index, int groups,
                                              int32_t (*table)[2 * CODE_WORDS], int32_t sums[ROWS])
{
    int64_t acc[ROWS];
    for (int r = 0; r < ROWS; r++)
        acc[r] = sums[r];
    for (int g = 0; g < groups; g++, index += MATRIX_BAND) {
        uint64_t eight = index_load(index);
        for (int r = 0; r < ROWS; r++)
            acc[r] += table[g][eight >> 8 * r & 255];
    }
    for (int r = 0; r < ROWS; r++)
        sums[r] = (int32_t)acc[r];
}

/* Rows [first, first + count) for one token, whose sums wait in y, as int32 bits, until the last group
 * has been added. y: the first of them. */
static void token_by_table(const struct matrix *m, const struct words *words,
                           const uint8_t *prepared, int first, int count, float *y)
{
    int32_t table[TABLE_GROUPS][2 * CODE_WORDS], sums[MATRIX_BAND] = {0};
    const int8_t *q = blocks_code_q(prepared);
    int groups = blocks_groups(m);
    memset(y, 0, (size_t)count * sizeof *y);
    for (int g = 0; g < groups; g += TABLE_GROUPS) {
        int part = groups - g < TABLE_GROUPS ? groups - g : TABLE_GROUPS;
        for (int i = 0; i < part; i++)
            table_fill(words, q + (size_t)(g + i) * (size_t)m->d, table[i]);
        for (int r = 0; r < count; r += ROWS) {
            size_t bytes = (size_t)(count - r < ROWS ? count - r : ROWS) * sizeof *y;
            memcpy(sums, y + r, bytes);
            look_up(blocks_band(m, first + r, g) + r % MATRIX_BAND, part, table, sums);
            memcpy(y + r, sums, bytes);
        }
    }
    for (int r = 0; r < count; r += MATRIX_BAND) {
        int rows = count - r < MATRIX_BAND ? count - r : MATRIX_BAND;
        memcpy(sums, y + r, (size_t)rows * sizeof *y);
        finish(m, words, (const struct code_act *)prepared, first + r, rows, sums, y + r);
    }
}

KERNELS_PRODUCT(kernels_product_code_neon)
{
    struct words words;
    if (m->d <= 8 || tokens >= TOKENS_TOGETHER || row_count < TABLE_ROWS) {
        product(m, prepared, x, tokens, row_first, row_count, y, y_stride);
        return;
    }
    words_fill(m, &words);
    for (int t = 0; t < tokens; t++)
        token_by_table(m, &words, (const uint8_t *)prepared + (size_t)t * act_bytes(m), row_first,
                       row_count, y + (size_t)t * y_stride + row_first);
    correction_add(m, x, tokens, row_first, row_count, y, y_stride);
}

/* Never for as many tokens as threads could share. */
KERNELS_BY_TABLES(kernels_code_by_tables_neon)
{
    (void)m;
    (void)tokens;
    return false;
}
