/* Byte-code product with AVX-512 VBMI and VNNI. The 64 rows of a band are the 64 byte lanes.
 *
 * By tables (code_avx512.inc): a plane of 128 low bytes and one of high bytes, of which one vpermi2b
 * each looks up 64 rows.
 *
 * By tiles, for short codewords and many tokens: the codewords of a band are spread out to bytes +
 * 128 once, then vpdpbusd per token. */
#include "kernels/x86/code_avx512.inc"

#include "kernels/correction.h"
#include "kernels/variants.h"

#define TILE_COLUMNS 256 /* of 64 rows: 16 KiB */
#define TILE_TOKENS  4
#define MAX_D        16

struct book {
    _Alignas(64) int8_t plane[MAX_D][CODE_WORDS];      /* element k of every codeword, negated */
    _Alignas(64) uint32_t four[MAX_D / 4][CODE_WORDS]; /* 4 negated elements */
    _Alignas(64) int32_t start[CODE_WORDS];            /* 128 * 255 less 128 times their sum */
};

/* four[k / 4][w] = elements k.. of codeword w, not negated yet; zeros past d. */
static void book_gather(const struct matrix *m, struct book *book)
{
    int8_t words[CODE_WORDS * MAX_D + 4];
    memcpy(words, m->codebook, (size_t)(CODE_WORDS * m->d));
    for (int k = 0; k < m->d; k += 4) {
        uint32_t used = m->d - k < 4 ? (1u << 8 * (m->d - k)) - 1 : UINT32_MAX;
        for (int w = 0; w < CODE_WORDS; w++) {
            uint32_t four;
            memcpy(&four, words + w * m->d + k, sizeof four);
            book->four[k / 4][w] = four & used;
        }
    }
}

static void book_fill(const struct matrix *m, struct book *book)
{
    const __m512i offset = _mm512_set1_epi8(-128);
    book_gather(m, book);
    for (int w = 0; w < CODE_WORDS; w += 16) {
        __m512i start = _mm512_set1_epi32(128 * 255);
        for (int k = 0; k < m->d; k += 4) {
            __m512i four = _mm512_load_si512(book->four[k / 4] + w);
            start = _mm512_dpbusd_epi32(start, offset, four);
            _mm512_store_si512(book->four[k / 4] + w,
                               _mm512_sub_epi8(_mm512_setzero_si512(), four));
        }
        _mm512_store_si512(book->start + w, start);
    }
}

/* The planes, which only tiles and channels kept apart need. */
static void planes_fill(struct book *book, int d)
{
    for (int k = 0; k < d; k++)
        for (int w = 0; w < CODE_WORDS; w += 16) {
            __m512i four = _mm512_load_si512(book->four[k / 4] + w);
            __m512i element = _mm512_srli_epi32(four, (unsigned)(8 * (k % 4)));
            _mm_store_si128((__m128i *)(book->plane[k] + w), _mm512_cvtepi32_epi8(element));
        }
}

/* v[i]: 64 integers + 128 * 255, 16 each, to low and high bytes. */
ALWAYS_INLINE void planes_store(const __m512i v[4], uint8_t *low, uint8_t *high)
{
    const __m512i by_255 = _mm512_set1_epi16(257); /* 257 / 65536 is 1 / 255.004 */
    const __m512i bytes = _mm512_setr_epi64(
        0x1614121006040200, 0x3634323026242220, 0x1e1c1a180e0c0a08, 0x3e3c3a382e2c2a28,
        0x5654525046444240, 0x7674727066646260, 0x5e5c5a584e4c4a48, 0x7e7c7a786e6c6a68);
    __m512i a = _mm512_packus_epi32(v[0], v[1]), b = _mm512_packus_epi32(v[2], v[3]);
    __m512i high_a = _mm512_mulhi_epu16(a, by_255), high_b = _mm512_mulhi_epu16(b, by_255);
    __m512i low_a = _mm512_add_epi16(a, high_a), low_b = _mm512_add_epi16(b, high_b);
    _mm512_store_si512(low, _mm512_permutex2var_epi8(low_a, bytes, low_b));
    _mm512_store_si512(high, _mm512_permutex2var_epi8(high_a, bytes, high_b));
}

/* Activations of 4 groups, q + 128 to be unsigned, which book->start takes out again. */
ALWAYS_INLINE void quad_build(const struct book *book, const uint8_t *q, int d, int fours,
                              struct table *table)
{
    for (int half = 0; half < 2; half++) {
        __m512i v[QUAD][4];
        for (int i = 0; i < 4; i++)
            v[0][i] = v[1][i] = v[2][i] = v[3][i] =
                _mm512_load_si512(book->start + 64 * half + 16 * i);
        for (int k = 0; k < fours; k++)
            for (int g = 0; g < QUAD; g++) {
                int32_t four;
                memcpy(&four, q + g * d + 4 * k, sizeof four);
                for (int i = 0; i < 4; i++)
                    v[g][i] =
                        _mm512_dpbusd_epi32(v[g][i], _mm512_set1_epi32(four),
                                            _mm512_load_si512(book->four[k] + 64 * half + 16 * i));
            }
        for (int g = 0; g < QUAD; g++)
            planes_store(v[g], table[g].part[half], table[g].part[2 + half]);
    }
}

/* With fours = d / 4 rounded up known to the compiler. */
ALWAYS_INLINE void quads_build(const struct book *book, const uint8_t *q, int d, int fours,
                               int groups, struct table *table)
{
    for (int g = 0; g < groups; g += QUAD)
        quad_build(book, q + g * d, d, fours, table + g);
}

static void tables_build(const struct book *book, const int8_t *q, int d, int groups,
                         struct table *table)
{
    uint8_t unsigned_q[CHUNK * MAX_D + 64];
    for (int i = 0; i < groups * d; i += 64) {
        int left = groups * d - i;
        __mmask64 mask = left >= 64 ? UINT64_MAX : (1ull << left) - 1;
        __m512i x = _mm512_maskz_loadu_epi8(mask, q + i);
        _mm512_storeu_si512(unsigned_q + i, _mm512_xor_si512(x, _mm512_set1_epi8(-128)));
    }
    if (d <= 4)
        quads_build(book, unsigned_q, d, 1, groups, table);
    else if (d <= 8)
        quads_build(book, unsigned_q, d, 2, groups, table);
    else if (d <= 12)
        quads_build(book, unsigned_q, d, 3, groups, table);
    else
        quads_build(book, unsigned_q, d, 4, groups, table);
}

/* vpshufb gives the mask of the codes that are not negated in one instruction, so the tables are
 * those of the negated integers. */
ALWAYS_INLINE void entry_find(const __m512i part[4], __m512i index, __m512i ones, __m512i value[2],
                              __m512i flip[2])
{
    value[0] = _mm512_permutex2var_epi8(part[0], index, part[1]);
    value[1] = _mm512_permutex2var_epi8(part[2], index, part[3]);
    flip[0] = flip[1] = _mm512_shuffle_epi8(ones, index); /* 0 where bit 7 is set */
}

ALWAYS_INLINE void row_pairs(const __m512i even[2], const __m512i odd[2], __m512i low[2],
                             __m512i high[2])
{
    low[0] = even[0];
    high[0] = even[1];
    low[1] = odd[0];
    high[1] = odd[1];
}

/* The 64 looked-up weights of element k, as signed bytes; the planes hold them negated. */
ALWAYS_INLINE __m512i spread(const struct book *book, __m512i index, int k)
{
    __m512i first = _mm512_load_si512(book->plane[k]),
            second = _mm512_load_si512(book->plane[k] + 64);
    __m512i w = _mm512_permutex2var_epi8(first, index, second);
    __mmask64 keep = _knot_mask64(_mm512_movepi8_mask(index));
    return _mm512_mask_sub_epi8(w, keep, _mm512_setzero_si512(), w);
}

static void apart_add(const struct matrix *m, const struct book *book, const struct code_act *act,
                      int row, int rows, __m512 apart[4])
{
    (void)rows;
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
}

/* Weights + 128 of 64 rows: step s holds columns 4s..4s+3, row by row. */
struct tile {
    _Alignas(64) uint8_t w[TILE_COLUMNS / 4][MATRIX_BAND][4];
};

/* Four byte vectors of 64 rows to 4 bytes per row. The unpacking takes rows in another order,
 * which tile_fill has allowed for in the indices. */
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
        float *band = y + (size_t)t * y_stride;
        __m512i sum[4];
        for (int i = 0; i < 4; i++)
            sum[i] = _mm512_maskz_loadu_epi32(row_mask(rows, i), band + 16 * i);
        band_finish(m, book, act, row, rows, sum, (int32_t)(128u * (uint32_t)act->sum), band);
    }
}

static void by_tile(const struct matrix *m, const struct book *book, const uint8_t *prepared,
                    int tokens, int first, int count, float *y, size_t y_stride)
{
    for (int r = 0; r < count; r += MATRIX_BAND)
        band_by_tile(m, book, prepared, tokens, first + r,
                     count - r < MATRIX_BAND ? count - r : MATRIX_BAND, y + r, y_stride);
}

/* Whether spreading codewords out pays, in halves of cycles per 64 codes on Zen 4: 8 d once and 2
 * d per token (one vpdpbusd a cycle), against 13 per token of looking up. */
static bool tile_pays(int d, int tokens)
{
    return 2 * d * (4 + tokens) < 13 * tokens;
}

static bool any_apart(const uint8_t *prepared, size_t stride, int tokens)
{
    for (int t = 0; t < tokens; t++)
        if (((const struct code_act *)(prepared + (size_t)t * stride))->count)
            return true;
    return false;
}

KERNELS_PRODUCT(kernels_product_code_avx512vnni)
{
    struct book book;
    bool tile = tile_pays(m->d, tokens);
    book_fill(m, &book);
    if (tile || any_apart(prepared, act_bytes(m), tokens))
        planes_fill(&book, m->d);
    if (tile)
        by_tile(m, &book, prepared, tokens, row_first, row_count, y + row_first, y_stride);
    else
        by_table(m, &book, prepared, tokens, row_first, row_count, y + row_first, y_stride);
    correction_add(m, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_BY_TABLES(kernels_code_by_tables_avx512vnni)
{
    return !tile_pays(m->d, tokens);
}
