/* Byte-code product with AVX-512 VBMI and VNNI. The 64 rows of a band are the 64 byte lanes.
 *
 * Few tokens: for each group a table of the 128 possible integers codeword . activations, as two
 * planes of 128 bytes (low; high + 128), of which one vpermi2b each looks up 64 rows. Negation: the
 * one's complement of both planes, and the number of negated codes added at the end. Byte sums are
 * kept in 16-bit lanes.
 *
 * Many tokens: the codewords of a band are spread out to bytes + 128 once, then vpdpbusd per token.
 *
 * The sums of a row wait in y, as int32 bits, until its last group has been added. */
#include <immintrin.h>

#include "kernels/code.h"
#include "kernels/correction.h"
#include "kernels/variants.h"

#define CHUNK        64  /* groups per table: 16 KiB; the 16-bit lanes would hold 256 */
#define TILE_COLUMNS 256 /* of 64 rows: 16 KiB */
#define TILE_TOKENS  4
#define MAX_D        16

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* What a call derives from the codebook. */
struct book {
    _Alignas(64) int8_t plane[MAX_D][CODE_WORDS];      /* element k of every codeword */
    _Alignas(64) uint32_t four[MAX_D / 4][CODE_WORDS]; /* 4 elements, words in table order */
    _Alignas(64) int32_t start[CODE_WORDS];            /* -128 * sum of the codeword, same order */
};

struct table {
    _Alignas(64) uint8_t low[CODE_WORDS], high[CODE_WORDS];
};

/* Where the packing in build_table expects word w: it interleaves 4 vectors of 16 in runs of 4. */
static int table_place(int w)
{
    return (w & 64) | (w >> 2 & 3) << 4 | (w >> 4 & 3) << 2 | (w & 3);
}

static void book_fill(const struct matrix *m, struct book *book)
{
    memset(book->four, 0, sizeof book->four);
    for (int w = 0; w < CODE_WORDS; w++) {
        int sum = 0, place = table_place(w);
        for (int k = 0; k < m->d; k++) {
            int8_t element = m->codebook[w * m->d + k];
            book->plane[k][w] = element;
            book->four[k / 4][place] |= (uint32_t)(uint8_t)element << 8 * (k % 4);
            sum += element;
        }
        book->start[place] = -128 * sum;
    }
}

/* Low bytes, then high bytes, of 64 integers in 4 vectors. */
ALWAYS_INLINE void pack_planes(const __m512i v[4], uint8_t *low, uint8_t *high)
{
    __m512i a = _mm512_packs_epi32(v[0], v[1]), b = _mm512_packs_epi32(v[2], v[3]);
    __m512i byte = _mm512_set1_epi16(255);
    __m512i lows = _mm512_packus_epi16(_mm512_and_si512(a, byte), _mm512_and_si512(b, byte));
    __m512i highs = _mm512_packs_epi16(_mm512_srai_epi16(a, 8), _mm512_srai_epi16(b, 8));
    _mm512_store_si512(low, lows);
    _mm512_store_si512(high, _mm512_xor_si512(highs, _mm512_set1_epi8(-128)));
}

/* The activations of the group are made unsigned, q + 128; start takes the offset out. */
ALWAYS_INLINE void build_table(const struct book *book, const int8_t *q, int d, struct table *table)
{
    __m512i v[8];
    for (int i = 0; i < 8; i++)
        v[i] = _mm512_load_si512(book->start + 16 * i);
    for (int k = 0; k < d; k += 4) {
        uint32_t four;
        memcpy(&four, q + k, sizeof four);
        __m512i x = _mm512_set1_epi32((int32_t)(four ^ 0x80808080));
        for (int i = 0; i < 8; i++)
            v[i] = _mm512_dpbusd_epi32(v[i], x, _mm512_load_si512(book->four[k / 4] + 16 * i));
    }
    pack_planes(v, table->low, table->high);
    pack_planes(v + 4, table->low + 64, table->high + 64);
}

/* Byte sums of 64 rows: all[p] adds the bytes of even rows plus 256 times those of odd ones, modulo
 * 2^16; odd[p] those of odd rows alone. p: plane. */
struct byte_sums {
    __m512i all[2], odd[2], negated;
};

ALWAYS_INLINE void sums_add(struct byte_sums *s, __m512i index, __m512i l0, __m512i l1, __m512i h0,
                            __m512i h1)
{
    __m512i ones = _mm512_set1_epi8(-1);
    __mmask64 negative = _mm512_movepi8_mask(index);
    __m512i low = _mm512_permutex2var_epi8(l0, index, l1);
    __m512i high = _mm512_permutex2var_epi8(h0, index, h1);
    low = _mm512_mask_sub_epi8(low, negative, ones, low);
    high = _mm512_mask_sub_epi8(high, negative, ones, high);
    s->negated = _mm512_mask_sub_epi8(s->negated, negative, s->negated, ones);
    s->all[0] = _mm512_add_epi16(s->all[0], low);
    s->odd[0] = _mm512_add_epi16(s->odd[0], _mm512_srli_epi16(low, 8));
    s->all[1] = _mm512_add_epi16(s->all[1], high);
    s->odd[1] = _mm512_add_epi16(s->odd[1], _mm512_srli_epi16(high, 8));
}

/* 32 sums from 16-bit lanes of both planes, plus counts. */
ALWAYS_INLINE void widen(__m512i low, __m512i high, __m512i negated, __m512i out[2])
{
    for (int i = 0; i < 2; i++) {
        __m256i l = i ? _mm512_extracti64x4_epi64(low, 1) : _mm512_castsi512_si256(low);
        __m256i h = i ? _mm512_extracti64x4_epi64(high, 1) : _mm512_castsi512_si256(high);
        __m256i n = i ? _mm512_extracti64x4_epi64(negated, 1) : _mm512_castsi512_si256(negated);
        __m512i high32 = _mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 8);
        __m512i low32 = _mm512_add_epi32(_mm512_cvtepu16_epi32(l), _mm512_cvtepu16_epi32(n));
        out[i] = _mm512_add_epi32(high32, low32);
    }
}

/* y[0..rows) as int32 += the sums of groups groups, whose high bytes carry 128 each. */
static void sums_finish(const struct byte_sums *s, int groups, int rows, float *y)
{
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    __m512i even_low = _mm512_sub_epi16(s->all[0], _mm512_slli_epi16(s->odd[0], 8));
    __m512i even_high = _mm512_sub_epi16(s->all[1], _mm512_slli_epi16(s->odd[1], 8));
    __m512i even[2], odd[2], offset = _mm512_set1_epi32(-128 * 256 * groups);
    widen(even_low, even_high, _mm512_and_si512(s->negated, _mm512_set1_epi16(255)), even);
    widen(s->odd[0], s->odd[1], _mm512_srli_epi16(s->negated, 8), odd);
    for (int i = 0; i < 4 && 16 * i < rows; i++) {
        int left = rows - 16 * i;
        __mmask16 mask = (__mmask16)(left < 16 ? (1u << left) - 1 : 0xffff);
        __m512i sum = _mm512_permutex2var_epi32(even[i / 2], i % 2 ? second : first, odd[i / 2]);
        sum = _mm512_add_epi32(sum, _mm512_maskz_loadu_epi32(mask, y + 16 * i));
        _mm512_mask_storeu_epi32(y + 16 * i, mask, _mm512_add_epi32(sum, offset));
    }
}

/* Look-ups of one or two bands; band_bytes apart, rows counted from the first. */
ALWAYS_INLINE void look_up(const struct table *table, int groups, const uint8_t *index,
                           size_t band_bytes, int bands, int rows, float *y)
{
    struct byte_sums sums[2];
    for (int b = 0; b < bands; b++)
        sums[b] = (struct byte_sums){{_mm512_setzero_si512(), _mm512_setzero_si512()},
                                     {_mm512_setzero_si512(), _mm512_setzero_si512()},
                                     _mm512_setzero_si512()};
    for (int g = 0; g < groups; g++) {
        __m512i l0 = _mm512_load_si512(table[g].low), l1 = _mm512_load_si512(table[g].low + 64);
        __m512i h0 = _mm512_load_si512(table[g].high), h1 = _mm512_load_si512(table[g].high + 64);
        for (int b = 0; b < bands; b++) {
            const uint8_t *codes = index + (size_t)b * band_bytes + (size_t)g * MATRIX_BAND;
            sums_add(&sums[b], _mm512_loadu_si512(codes), l0, l1, h0, h1);
        }
    }
    for (int b = 0; b < bands; b++)
        sums_finish(&sums[b], groups, rows - b * MATRIX_BAND, y + b * MATRIX_BAND);
}

/* The 64 looked-up weights of element k, as signed bytes. */
ALWAYS_INLINE __m512i spread(const struct book *book, __m512i index, int k)
{
    __m512i first = _mm512_load_si512(book->plane[k]),
            second = _mm512_load_si512(book->plane[k] + 64);
    __m512i w = _mm512_permutex2var_epi8(first, index, second);
    return _mm512_mask_sub_epi8(w, _mm512_movepi8_mask(index), _mm512_setzero_si512(), w);
}

/* Channels kept apart, folded in their order, then y = out * (scale * sum + apart). offset is taken
 * from the integer sums first. */
static void finish_band(const struct matrix *m, const struct book *book, const struct code_act *act,
                        int row, int rows, int32_t offset, float *y)
{
    __m512 apart[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(),
                       _mm512_setzero_ps()};
    for (int o = 0; o < act->count; o++) {
        int group = act->channel[o] / m->d;
        __m512i index = _mm512_loadu_si512(blocks_band(m, row, group));
        _Alignas(64) int8_t w[MATRIX_BAND];
        _mm512_store_si512(w, spread(book, index, act->channel[o] - group * m->d));
        for (int i = 0; i < 4; i++) {
            __m512i wide = _mm512_cvtepi8_epi32(_mm_load_si128((const __m128i *)(w + 16 * i)));
            apart[i] =
                _mm512_fmadd_ps(_mm512_cvtepi32_ps(wide), _mm512_set1_ps(act->value[o]), apart[i]);
        }
    }
    for (int i = 0; i < 4 && 16 * i < rows; i++) {
        int left = rows - 16 * i;
        __mmask16 mask = (__mmask16)(left < 16 ? (1u << left) - 1 : 0xffff);
        __m512i sum = _mm512_maskz_loadu_epi32(mask, y + 16 * i);
        sum = _mm512_sub_epi32(sum, _mm512_set1_epi32(offset));
        const uint8_t *out = (const uint8_t *)m->out + 2 * (size_t)(row + 16 * i);
        __m512 scale = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, out));
        __m512 value =
            _mm512_fmadd_ps(_mm512_set1_ps(act->scale), _mm512_cvtepi32_ps(sum), apart[i]);
        _mm512_mask_storeu_ps(y + 16 * i, mask, _mm512_mul_ps(scale, value));
    }
}

static void finish_rows(const struct matrix *m, const struct book *book, const struct code_act *act,
                        int first, int count, int32_t offset, float *y)
{
    for (int r = 0; r < count; r += MATRIX_BAND) {
        int rows = count - r < MATRIX_BAND ? count - r : MATRIX_BAND;
        finish_band(m, book, act, first + r, rows, offset, y + r);
    }
}

/* All rows of the call for one token, by tables. y: its first row. */
static void token_by_table(const struct matrix *m, const struct book *book, const uint8_t *prepared,
                           int first, int count, float *y)
{
    struct table table[CHUNK];
    const int8_t *q = blocks_code_q(prepared);
    int groups = blocks_groups(m);
    size_t band_bytes = (size_t)groups * MATRIX_BAND;
    memset(y, 0, (size_t)count * sizeof *y);
    for (int g = 0; g < groups; g += CHUNK) {
        int part = groups - g < CHUNK ? groups - g : CHUNK, r = 0;
        for (int i = 0; i < part; i++)
            build_table(book, q + (size_t)(g + i) * (size_t)m->d, m->d, &table[i]);
        for (; r + MATRIX_BAND < count; r += 2 * MATRIX_BAND)
            look_up(table, part, blocks_band(m, first + r, g), band_bytes, 2, count - r, y + r);
        if (r < count)
            look_up(table, part, blocks_band(m, first + r, g), band_bytes, 1, count - r, y + r);
    }
    finish_rows(m, book, (const struct code_act *)prepared, first, count, 0, y);
}

/* Weights + 128 of 64 rows: step s holds columns 4s..4s+3, row by row. */
struct tile {
    _Alignas(64) uint8_t w[TILE_COLUMNS / 4][MATRIX_BAND][4];
};

/* Four byte vectors of 64 rows to 4 bytes per row. The unpacking takes rows in another order, which
 * tile_fill has allowed for in the indices. */
ALWAYS_INLINE void interleave(const __m512i v[4], uint8_t w[MATRIX_BAND][4])
{
    __m512i a = _mm512_unpacklo_epi8(v[0], v[1]), b = _mm512_unpackhi_epi8(v[0], v[1]);
    __m512i c = _mm512_unpacklo_epi8(v[2], v[3]), d = _mm512_unpackhi_epi8(v[2], v[3]);
    _mm512_store_si512(w[0], _mm512_unpacklo_epi16(a, c));
    _mm512_store_si512(w[16], _mm512_unpackhi_epi16(a, c));
    _mm512_store_si512(w[32], _mm512_unpacklo_epi16(b, d));
    _mm512_store_si512(w[48], _mm512_unpackhi_epi16(b, d));
}

/* groups from index on, filled up with group 0's codes to a multiple of 4 (they meet zero
 * activations). */
static void tile_fill(const struct book *book, const uint8_t *index, int groups, int d,
                      struct tile *tile)
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i flip = _mm512_set1_epi8(-128);
    for (int g = 0; g < groups; g += 4) {
        __m512i codes[4], v[4];
        for (int i = 0; i < 4; i++) {
            const uint8_t *group = index + (g + i < groups ? (size_t)(g + i) : 0) * MATRIX_BAND;
            codes[i] = _mm512_permutexvar_epi32(order, _mm512_loadu_si512(group));
        }
        for (int i = 0, k = 0, step = 0; step < d; step++) {
            for (int c = 0; c < 4; c++) {
                v[c] = _mm512_xor_si512(spread(book, codes[i], k), flip);
                i += ++k == d;
                k = k == d ? 0 : k;
            }
            interleave(v, tile->w[g / 4 * d + step]);
        }
    }
}

/* y[t][0..rows) as int32 += tile x tokens. */
ALWAYS_INLINE void tile_dot(const struct tile *tile, int steps, const int8_t *q, size_t stride,
                            int tokens, bool start, int rows, float *y, size_t y_stride)
{
    __m512i acc[TILE_TOKENS][4];
    __mmask16 mask[4];
    for (int i = 0; i < 4; i++) {
        int left = rows - 16 * i;
        mask[i] = (__mmask16)(left >= 16 ? 0xffff : left > 0 ? (1u << left) - 1 : 0);
        for (int t = 0; t < tokens; t++)
            acc[t][i] = start
                            ? _mm512_setzero_si512()
                            : _mm512_maskz_loadu_epi32(mask[i], y + (size_t)t * y_stride + 16 * i);
    }
    for (int s = 0; s < steps; s++) {
        __m512i w[4];
        for (int i = 0; i < 4; i++)
            w[i] = _mm512_load_si512(tile->w[s][16 * i]);
        for (int t = 0; t < tokens; t++) {
            int32_t four;
            memcpy(&four, q + (size_t)t * stride + 4 * (size_t)s, sizeof four);
            __m512i x = _mm512_set1_epi32(four);
            for (int i = 0; i < 4; i++)
                acc[t][i] = _mm512_dpbusd_epi32(acc[t][i], w[i], x);
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int i = 0; i < 4; i++)
            _mm512_mask_storeu_epi32(y + (size_t)t * y_stride + 16 * i, mask[i], acc[t][i]);
}

/* One band for all tokens. y: token 0 at the band's first row. */
static void band_by_tile(const struct matrix *m, const struct book *book, const uint8_t *prepared,
                         int tokens, int row, int rows, float *y, size_t y_stride)
{
    struct tile tile;
    size_t stride = act_bytes(m);
    int groups = blocks_groups(m), most = TILE_COLUMNS / m->d / 4 * 4;
    for (int g = 0; g < groups; g += most) {
        int part = groups - g < most ? groups - g : most, t = 0;
        int steps = (part + 3) / 4 * m->d;
        const int8_t *q = blocks_code_q(prepared) + (size_t)g * (size_t)m->d;
        tile_fill(book, blocks_band(m, row, g), part, m->d, &tile);
        for (; t + TILE_TOKENS <= tokens; t += TILE_TOKENS)
            tile_dot(&tile, steps, q + (size_t)t * stride, stride, TILE_TOKENS, !g, rows,
                     y + (size_t)t * y_stride, y_stride);
        for (; t < tokens; t++)
            tile_dot(&tile, steps, q + (size_t)t * stride, stride, 1, !g, rows,
                     y + (size_t)t * y_stride, y_stride);
    }
    for (int t = 0; t < tokens; t++) {
        const struct code_act *act = (const struct code_act *)(prepared + (size_t)t * stride);
        finish_band(m, book, act, row, rows, (int32_t)(128u * (uint32_t)act->sum),
                    y + (size_t)t * y_stride);
    }
}

/* Whether spreading codewords out pays: about 5 instructions per 64 weights once and 1 per token,
 * against about 13 per 64 bytes and token of looking up. */
static bool tile_pays(int d, int tokens)
{
    return d * (5 + tokens) < 13 * tokens;
}

KERNELS_PRODUCT(kernels_product_code_avx512)
{
    struct book book;
    size_t stride = act_bytes(m);
    const uint8_t *act = prepared;
    book_fill(m, &book);
    if (tile_pays(m->d, tokens))
        for (int r = row_first; r < row_first + row_count; r += MATRIX_BAND) {
            int left = row_first + row_count - r;
            band_by_tile(m, &book, act, tokens, r, left < MATRIX_BAND ? left : MATRIX_BAND, y + r,
                         y_stride);
        }
    else
        for (int t = 0; t < tokens; t++)
            token_by_table(m, &book, act + (size_t)t * stride, row_first, row_count,
                           y + (size_t)t * y_stride + row_first);
    correction_add(m, x, tokens, row_first, row_count, y, y_stride);
}
