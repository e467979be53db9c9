/* Byte-code product with AVX-512 that lacks VBMI and VNNI (Skylake-X): tables of 16-bit words, low
 * byte and high byte side by side, of which two vpermi2w and a choice by bit 6 look up 32 rows.
 * Tiles are left to AVX2, whose vpmaddubsw these CPUs do no better. */
#include "kernels/x86/code_avx512.inc"

#include "kernels/correction.h"
#include "kernels/variants.h"

#define MAX_D 16

struct book { /* elements 2k and 2k + 1 of the codewords, in the order that packing undoes */
    _Alignas(64) int16_t pair[MAX_D / 2][CODE_WORDS][2];
};

static void book_fill(const struct matrix *m, struct book *book)
{
    memset(book->pair, 0, sizeof book->pair);
    for (int i = 0; i < CODE_WORDS; i++) {
        int word = (i & 0x60) | (i >> 2 & 3) << 3 | (i >> 4 & 1) << 2 | (i & 3);
        for (int k = 0; k < m->d; k++)
            book->pair[k / 2][i][k % 2] = m->codebook[word * m->d + k];
    }
}

/* 32 integers + 128 * 255 to words of low and high byte. */
ALWAYS_INLINE __m512i words_split(__m512i front, __m512i back)
{
    const __m512i by_255 = _mm512_set1_epi16(257); /* 257 / 65536 is 1 / 255.004 */
    __m512i v = _mm512_packus_epi32(front, back);
    __m512i high = _mm512_mulhi_epu16(v, by_255);
    __m512i low = _mm512_add_epi16(v, high); /* v - 255 high modulo 256 */
    return _mm512_mask_blend_epi8(0xaaaaaaaaaaaaaaaa, low, _mm512_slli_epi16(high, 8));
}

ALWAYS_INLINE void table_build(const struct book *book, const int8_t *q, int d, struct table *table)
{
    __m512i v[8];
    for (int i = 0; i < 8; i++)
        v[i] = _mm512_set1_epi32(128 * 255);
    for (int k = 0; k < d; k += 2) {
        __m512i x = _mm512_set1_epi32((int32_t)((uint32_t)q[k + 1] << 16 | (uint16_t)q[k]));
        for (int i = 0; i < 8; i++) {
            __m512i pair = _mm512_load_si512(book->pair[k / 2] + 16 * i);
            v[i] = _mm512_add_epi32(v[i], _mm512_madd_epi16(x, pair));
        }
    }
    for (int i = 0; i < 4; i++)
        _mm512_store_si512(table->part[i], words_split(v[2 * i], v[2 * i + 1]));
}

static void tables_build(const struct book *book, const int8_t *q, int d, int groups,
                         struct table *table)
{
    for (int g = 0; g < groups; g++)
        table_build(book, q + g * d, d, table + g);
}

/* Even rows, then odd ones: 16-bit lanes whose low 6 bits vpermi2w reads. */
ALWAYS_INLINE void entry_find(const __m512i part[4], __m512i index, __m512i ones, __m512i value[2],
                              __m512i flip[2])
{
    (void)ones;
    for (int p = 0; p < 2; p++) {
        __m512i at = p ? _mm512_srli_epi16(index, 8) : index;
        __m512i sign = p ? index : _mm512_slli_epi16(index, 8);
        __mmask32 second = _mm512_test_epi16_mask(at, _mm512_set1_epi16(64));
        value[p] = _mm512_mask_blend_epi16(second, _mm512_permutex2var_epi16(part[0], at, part[1]),
                                           _mm512_permutex2var_epi16(part[2], at, part[3]));
        flip[p] = _mm512_srai_epi16(sign, 15);
    }
}

ALWAYS_INLINE void row_pairs(const __m512i even[2], const __m512i odd[2], __m512i low[2],
                             __m512i high[2])
{
    for (int p = 0; p < 2; p++) {
        low[p] = even[p];
        high[p] = odd[p];
    }
}

static void apart_add(const struct matrix *m, const struct book *book, const struct code_act *act,
                      int row, int rows, __m512 apart[4])
{
    float sums[MATRIX_BAND] = {0};
    (void)book;
    code_apart(m, act, row, rows, sums);
    for (int i = 0; i < 4; i++)
        apart[i] = _mm512_loadu_ps(sums + 16 * i);
}

static bool tile_pays(int d, int tokens)
{
    return d <= 3 && tokens >= 8;
}

KERNELS_PRODUCT(kernels_product_code_avx512)
{
    struct book book;
    if (tile_pays(m->d, tokens)) {
        kernels_product_code_avx2(m, prepared, x, tokens, row_first, row_count, y, y_stride);
        return;
    }
    book_fill(m, &book);
    by_table(m, &book, prepared, tokens, row_first, row_count, y + row_first, y_stride);
    correction_add(m, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_BY_TABLES(kernels_code_by_tables_avx512)
{
    return !tile_pays(m->d, tokens);
}
