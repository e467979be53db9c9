/* Q8_0, Q4_0, Q2_0 and Q1_0 products with AVX-512 VNNI: 16 rows together. vpdpbusd wants one side
 * unsigned, so weights are taken with an offset, and the offset times the sum of the block's
 * activations is taken out of the integer sums. */
#include <immintrin.h>

#define BLOCK_ROWS  16
#define MANY_TOKENS 8 /* 8 sums that do not wait for each other keep vpdpbusd busy */
#define FEW_TOKENS  4
#include "kernels/block_many.inc"

struct block_sums {
    __m512 v;
};

struct block_dots { /* integer sums, one per row, or parts of them */
    __m512i v;
};

static inline __mmask16 rows_mask(int rows)
{
    return (__mmask16)((1u << rows) - 1);
}

static inline struct block_sums block_sums_zero(void)
{
    return (struct block_sums){_mm512_setzero_ps()};
}

static inline struct block_sums block_sums_load(const float *y, int rows)
{
    return (struct block_sums){_mm512_maskz_loadu_ps(rows_mask(rows), y)};
}

static inline void block_sums_store(float *y, struct block_sums sums, int rows)
{
    _mm512_mask_storeu_ps(y, rows_mask(rows), sums.v);
}

/* sums + d * part */
static inline struct block_sums block_sums_add(struct block_sums sums, struct block_sums d,
                                               struct block_sums part)
{
    return (struct block_sums){_mm512_fmadd_ps(d.v, part.v, sums.v)};
}

/* dot * scale, added to part unless it is the first. */
static inline struct block_sums block_part(struct block_sums part, struct block_dots dot,
                                           float scale, bool first)
{
    __m512 exact = _mm512_cvtepi32_ps(dot.v), s = _mm512_set1_ps(scale);
    return (struct block_sums){first ? _mm512_mul_ps(exact, s) : _mm512_fmadd_ps(exact, s, part.v)};
}

static inline __m512i broadcast4(const void *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}

/* 16 bytes each of rows i, i + 4, i + 8 and i + 12. */
ALWAYS_INLINE __m512i rows_load(const uint8_t *const *rows, int i, int at)
{
    __m128i w[4];
    for (int k = 0; k < 4; k++)
        w[k] = _mm_loadu_si128((const __m128i *)(rows[4 * k + i] + at));
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_set_m128i(w[1], w[0])),
                              _mm256_set_m128i(w[3], w[2]), 1);
}

/* The scales of a block of 16 rows. A masked broadcast costs no more than its load. */
ALWAYS_INLINE struct block_sums rows_scales(const uint8_t *const *rows)
{
    __m256i half[2];
    for (int h = 0; h < 2; h++) {
        int32_t d;
        memcpy(&d, rows[8 * h], sizeof d);
        half[h] = _mm256_castsi128_si256(_mm_cvtsi32_si128(d));
        for (int i = 1; i < 8; i++) {
            memcpy(&d, rows[8 * h + i], sizeof d);
            half[h] = _mm256_mask_set1_epi32(half[h], (__mmask8)(1 << i), d);
        }
    }
    __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(half[0]), half[1], 1);
    return (struct block_sums){_mm512_cvtph_ps(_mm512_cvtepi32_epi16(both))};
}

/* out[k] = 32-bit elements k, of rows 4 j + i each in lane 4 j + i, from what rows_load gave. */
ALWAYS_INLINE void rows_transpose(const __m512i w[4], __m512i out[4])
{
    __m512i a = _mm512_unpacklo_epi32(w[0], w[1]), b = _mm512_unpackhi_epi32(w[0], w[1]);
    __m512i c = _mm512_unpacklo_epi32(w[2], w[3]), d = _mm512_unpackhi_epi32(w[2], w[3]);
    out[0] = _mm512_unpacklo_epi64(a, c);
    out[1] = _mm512_unpackhi_epi64(a, c);
    out[2] = _mm512_unpacklo_epi64(b, d);
    out[3] = _mm512_unpackhi_epi64(b, d);
}

/* Step j of the 32 / bits / 4 steps that the 32-bit elements of w hold: 4 weights of bits bits in
 * bytes of their own. vpmultishiftqb takes 8 bits from any place of a 64-bit element. */
ALWAYS_INLINE __m512i step_expand(int bits, __m512i w, int j)
{
    const long long even = bits == 1 ? 0x03020100 : 0x06040200, odd = even + 0x20202020;
    __m512i at = _mm512_set1_epi64(odd << 32 | even);
    at = _mm512_add_epi8(at, _mm512_set1_epi8((char)(4 * bits * j)));
    return _mm512_and_si512(_mm512_multishift_epi64_epi8(at, w),
                            _mm512_set1_epi8((char)((1 << bits) - 1)));
}

ALWAYS_INLINE int many_offset(enum matrix_type type)
{
    return type == MATRIX_Q8_0 ? 128 : type == MATRIX_Q4_0 ? 8 : 1;
}

ALWAYS_INLINE void many_pack(enum matrix_type type, const uint8_t *const *rows,
                             uint8_t (*tile)[8][BLOCK_ROWS][4])
{
    __m512i *step = (__m512i *)tile;
    for (int piece = 0; piece < (type == MATRIX_Q8_0 ? 2 : 1); piece++) {
        __m512i w[4], out[4];
        for (int i = 0; i < 4; i++)
            w[i] = rows_load(rows, i, 2 + 16 * piece);
        rows_transpose(w, out);
        for (int k = 0; k < 4; k++) {
            if (type == MATRIX_Q8_0)
                step[4 * piece + k] = _mm512_xor_si512(out[k], _mm512_set1_epi8(-128));
            if (type == MATRIX_Q4_0) {
                const __m512i mask = _mm512_set1_epi8(15);
                step[k] = _mm512_and_si512(out[k], mask);
                step[4 + k] = _mm512_and_si512(_mm512_srli_epi16(out[k], 4), mask);
            }
            for (int j = 0; type == MATRIX_Q2_0 && j < 4; j++)
                step[4 * k + j] = step_expand(2, out[k], j);
            for (int j = 0; type == MATRIX_Q1_0 && j < 8; j++) {
                __m512i bit = step_expand(1, out[k], j);
                step[8 * k + j] = _mm512_add_epi8(bit, bit);
            }
        }
    }
}

/* dots[t] = the integer sums of block b. */
ALWAYS_INLINE void many_dots(enum matrix_type type, const struct many_tile *tile,
                             const struct many_panel *panel, int b, struct block_dots *dots)
{
    (void)type;
    for (int t = 0; t < MANY_TOKENS; t++)
        dots[t].v = _mm512_set1_epi32(panel->offset[b][t]);
    for (int k = 0; k < 8; k++) {
        __m512i w = _mm512_load_si512(tile->w[b][k]);
        for (int t = 0; t < MANY_TOKENS; t++)
            dots[t].v = _mm512_dpbusd_epi32(dots[t].v, w, broadcast4(panel->q[b][k][t]));
    }
}

/* lanes[t][i], lane 4 j + k: the sum over bytes 4 k to 4 k + 3 of row 4 j + i. */
ALWAYS_INLINE void few_lanes_small(enum matrix_type type, const uint8_t *const *rows,
                                   const struct block_act *act, int tokens,
                                   struct block_dots (*lanes)[4])
{
    const int bits = type == MATRIX_Q4_0 ? 4 : type == MATRIX_Q2_0 ? 2 : 1;
    __m512i w[4], mask = _mm512_set1_epi8((char)((1 << bits) - 1));
    for (int i = 0; i < 4; i++) {
        w[i] = rows_load(rows, i, 2);
        for (int t = 0; t < tokens; t++)
            lanes[t][i].v = _mm512_setzero_si512();
    }
    for (int field = 0; field < 8 / bits; field++) {
        __m512i u[4];
        for (int i = 0; i < 4; i++) {
            u[i] = _mm512_and_si512(w[i], mask);
            w[i] = _mm512_srli_epi16(w[i], (unsigned)bits);
        }
        for (int t = 0; t < tokens; t++) {
            const __m128i *q = (const __m128i *)act[t].q + field;
            __m512i x = _mm512_broadcast_i32x4(_mm_load_si128(q));
            for (int i = 0; i < 4; i++)
                lanes[t][i].v = _mm512_dpbusd_epi32(lanes[t][i].v, u[i], x);
        }
    }
}

/* The same for the 32 bytes of Q8_0, two rows in a register at first. */
ALWAYS_INLINE void few_lanes_q8_0(const uint8_t *const *rows, const struct block_act *act,
                                  int tokens, struct block_dots (*lanes)[4])
{
    for (int i = 0; i < 4; i++) {
        __m512i w[2];
        for (int h = 0; h < 2; h++) {
            const __m256i *low = (const __m256i *)(rows[8 * h + i] + 2);
            const __m256i *high = (const __m256i *)(rows[8 * h + i + 4] + 2);
            w[h] = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256(low)),
                                      _mm256_loadu_si256(high), 1);
            w[h] = _mm512_xor_si512(w[h], _mm512_set1_epi8(-128));
        }
        for (int t = 0; t < tokens; t++) {
            __m512i x = _mm512_broadcast_i64x4(_mm256_load_si256((const __m256i *)act[t].q));
            __m512i a = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w[0], x);
            __m512i b = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w[1], x);
            lanes[t][i].v = _mm512_add_epi32(_mm512_shuffle_i64x2(a, b, 0x88),
                                             _mm512_shuffle_i64x2(a, b, 0xdd));
        }
    }
}

ALWAYS_INLINE void few_lanes(enum matrix_type type, const uint8_t *const *rows,
                             const struct block_act *act, int tokens, struct block_dots (*lanes)[4])
{
    if (type == MATRIX_Q8_0)
        few_lanes_q8_0(rows, act, tokens, lanes);
    else
        few_lanes_small(type, rows, act, tokens, lanes);
}

/* The integer sums of the parts of 16 rows from their lanes, offset taken out. */
ALWAYS_INLINE void few_dots(enum matrix_type type, const struct block_dots lanes[4],
                            const int32_t *sum, struct block_dots *dots)
{
    const int parts = blocks_weights(type) / BLOCK_WEIGHTS;
    const unsigned shift = type == MATRIX_Q8_0 ? 7 : type == MATRIX_Q4_0 ? 3 : 0;
    const __m512i four_lanes[4] = {lanes[0].v, lanes[1].v, lanes[2].v, lanes[3].v};
    __m512i four[4];
    rows_transpose(four_lanes, four);
    for (int p = 0; p < parts; p++) {
        __m512i dot = four[p];
        if (parts == 1)
            dot = _mm512_add_epi32(_mm512_add_epi32(four[0], four[1]),
                                   _mm512_add_epi32(four[2], four[3]));
        if (parts == 2)
            dot = _mm512_add_epi32(four[2 * p], four[2 * p + 1]);
        if (type == MATRIX_Q1_0)
            dot = _mm512_add_epi32(dot, dot);
        dots[p].v = _mm512_sub_epi32(dot, _mm512_slli_epi32(_mm512_set1_epi32(sum[p]), shift));
    }
}

#include "kernels/product_many.inc"

#include "kernels/product_few.inc"

KERNELS_PRODUCT(kernels_product_q8_0_avx512vnni)
{
    product(MATRIX_Q8_0, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_q4_0_avx512vnni)
{
    product(MATRIX_Q4_0, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_q2_0_avx512vnni)
{
    product(MATRIX_Q2_0, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_q1_0_avx512vnni)
{
    product(MATRIX_Q1_0, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}
