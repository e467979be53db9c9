/* Q8_0, Q4_0, Q2_0 and Q1_0 products with AVX2: 8 rows together. Q8_0 weights stay signed; the
 * others become 0..15, 0..3 and 0 or 2, whose products with a block of activations fit 16 bits
 * (Q4_0: 8 steps x 2 x 15 x 127), so that one widening per block is enough. */
#include <immintrin.h>

#define BLOCK_ROWS  8
#define MANY_TOKENS 4
#define FEW_TOKENS  3
#include "kernels/block_many.inc"
#include "kernels/x86/transpose_avx2.h"

struct block_sums {
    __m256 v;
};

struct block_dots { /* integer sums, one per row, or parts of them */
    __m256i v;
};

static inline struct block_sums block_sums_zero(void)
{
    return (struct block_sums){_mm256_setzero_ps()};
}

static inline struct block_sums block_sums_load(const float *y, int rows)
{
    float buffer[BLOCK_ROWS] = {0};
    memcpy(buffer, y, (size_t)rows * sizeof *y);
    return (struct block_sums){_mm256_loadu_ps(buffer)};
}

static inline void block_sums_store(float *y, struct block_sums sums, int rows)
{
    float buffer[BLOCK_ROWS];
    if (rows == BLOCK_ROWS) {
        _mm256_storeu_ps(y, sums.v);
        return;
    }
    _mm256_storeu_ps(buffer, sums.v);
    memcpy(y, buffer, (size_t)rows * sizeof *y);
}

/* sums + d * part */
static inline struct block_sums block_sums_add(struct block_sums sums, struct block_sums d,
                                               struct block_sums part)
{
    return (struct block_sums){_mm256_fmadd_ps(d.v, part.v, sums.v)};
}

/* dot * scale, added to part unless it is the first. */
static inline struct block_sums block_part(struct block_sums part, struct block_dots dot,
                                           float scale, bool first)
{
    __m256 exact = _mm256_cvtepi32_ps(dot.v), s = _mm256_set1_ps(scale);
    return (struct block_sums){first ? _mm256_mul_ps(exact, s) : _mm256_fmadd_ps(exact, s, part.v)};
}

/* 16 bytes each of rows i and i + 4. */
ALWAYS_INLINE __m256i rows_load(const uint8_t *const *rows, int i, int at)
{
    return _mm256_set_m128i(_mm_loadu_si128((const __m128i *)(rows[i + 4] + at)),
                            _mm_loadu_si128((const __m128i *)(rows[i] + at)));
}

/* The scales of a block of 8 rows. */
ALWAYS_INLINE struct block_sums rows_scales(const uint8_t *const *rows)
{
    __m128i d = _mm_cvtsi32_si128(half_load(rows[0], 0));
    d = _mm_insert_epi16(d, half_load(rows[1], 0), 1);
    d = _mm_insert_epi16(d, half_load(rows[2], 0), 2);
    d = _mm_insert_epi16(d, half_load(rows[3], 0), 3);
    d = _mm_insert_epi16(d, half_load(rows[4], 0), 4);
    d = _mm_insert_epi16(d, half_load(rows[5], 0), 5);
    d = _mm_insert_epi16(d, half_load(rows[6], 0), 6);
    d = _mm_insert_epi16(d, half_load(rows[7], 0), 7);
    return (struct block_sums){_mm256_cvtph_ps(d)};
}

/* out[k] = 32-bit elements k, of rows 4 j + i each in lane 4 j + i, from what rows_load gave. */
ALWAYS_INLINE void rows_transpose(const __m256i w[4], __m256i out[4])
{
    __m256i a = _mm256_unpacklo_epi32(w[0], w[1]), b = _mm256_unpackhi_epi32(w[0], w[1]);
    __m256i c = _mm256_unpacklo_epi32(w[2], w[3]), d = _mm256_unpackhi_epi32(w[2], w[3]);
    out[0] = _mm256_unpacklo_epi64(a, c);
    out[1] = _mm256_unpackhi_epi64(a, c);
    out[2] = _mm256_unpacklo_epi64(b, d);
    out[3] = _mm256_unpackhi_epi64(b, d);
}

/* Byte j of each 32-bit element of w, 4 weights of 2 bits, to 4 bytes. */
ALWAYS_INLINE __m256i step_expand_2(__m256i w, int j)
{
    const __m256i spread = _mm256_setr_epi64x(0x0404040400000000, 0x0c0c0c0c08080808,
                                              0x0404040400000000, 0x0c0c0c0c08080808);
    __m256i bytes = _mm256_shuffle_epi8(w, _mm256_add_epi8(spread, _mm256_set1_epi8((char)j)));
    __m256i low = _mm256_blend_epi16(bytes, _mm256_srli_epi32(bytes, 4), 0xaa);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi16(low, 2), _mm256_set1_epi16(0x0300));
    return _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi16(3)), odd);
}

/* Bits 4 j to 4 j + 3 of each 32-bit element of w to 4 bytes of 0 or 2. */
ALWAYS_INLINE __m256i step_expand_1(__m256i w, int j)
{
    const __m256i spread = _mm256_setr_epi64x(0x0404040400000000, 0x0c0c0c0c08080808,
                                              0x0404040400000000, 0x0c0c0c0c08080808);
    __m256i bit = _mm256_set1_epi32(j % 2 ? (int)0x80402010 : 0x08040201);
    __m256i bytes =
        _mm256_shuffle_epi8(w, _mm256_add_epi8(spread, _mm256_set1_epi8((char)(j / 2))));
    __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
    return _mm256_and_si256(set, _mm256_set1_epi8(2));
}

ALWAYS_INLINE int many_offset(enum matrix_type type)
{
    return type == MATRIX_Q8_0 ? 0 : type == MATRIX_Q4_0 ? 8 : 1;
}

ALWAYS_INLINE void many_pack(enum matrix_type type, const uint8_t *const *rows,
                             uint8_t (*tile)[8][BLOCK_ROWS][4])
{
    __m256i *step = (__m256i *)tile;
    for (int piece = 0; piece < (type == MATRIX_Q8_0 ? 2 : 1); piece++) {
        __m256i w[4], out[4];
        for (int i = 0; i < 4; i++)
            w[i] = rows_load(rows, i, 2 + 16 * piece);
        rows_transpose(w, out);
        for (int k = 0; k < 4; k++) {
            if (type == MATRIX_Q8_0)
                step[4 * piece + k] = out[k];
            if (type == MATRIX_Q4_0) {
                const __m256i mask = _mm256_set1_epi8(15);
                step[k] = _mm256_and_si256(out[k], mask);
                step[4 + k] = _mm256_and_si256(_mm256_srli_epi16(out[k], 4), mask);
            }
            for (int j = 0; type == MATRIX_Q2_0 && j < 4; j++)
                step[4 * k + j] = step_expand_2(out[k], j);
            for (int j = 0; type == MATRIX_Q1_0 && j < 8; j++)
                step[8 * k + j] = step_expand_1(out[k], j);
        }
    }
}

/* dots[t] = the integer sums of block b for 8 rows. */
ALWAYS_INLINE void many_dots(enum matrix_type type, const struct many_tile *tile,
                             const struct many_panel *panel, int b, struct block_dots *dots)
{
    for (int t = 0; t < MANY_TOKENS; t++)
        dots[t].v = _mm256_setzero_si256();
#pragma GCC unroll 2 /* in full, gcc would regroup the sums and run out of registers */
    for (int k = 0; k < 8; k++) {
        __m256i w = _mm256_load_si256((const __m256i *)tile->w[b][k]);
        __m256i magnitude = _mm256_abs_epi8(w);
        for (int t = 0; t < MANY_TOKENS; t++) {
            __m256i x = transpose_broadcast(panel->q[b][k][t]);
            dots[t].v = type == MATRIX_Q8_0
                            ? transpose_dot(dots[t].v, w, magnitude, x)
                            : _mm256_add_epi16(dots[t].v, _mm256_maddubs_epi16(w, x));
        }
    }
    for (int t = 0; t < MANY_TOKENS && type != MATRIX_Q8_0; t++)
        dots[t].v = _mm256_add_epi32(_mm256_madd_epi16(dots[t].v, _mm256_set1_epi16(1)),
                                     _mm256_set1_epi32(panel->offset[b][t]));
}

ALWAYS_INLINE __m256i few_activations(struct block_act act, int at)
{
    return _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)act.q + at));
}

/* lanes[t][i], lane 4 j + k: the sum over bytes 4 k to 4 k + 3 of row 4 j + i. */
ALWAYS_INLINE void few_lanes_small(enum matrix_type type, const uint8_t *const *rows,
                                   const struct block_act *act, int tokens,
                                   struct block_dots (*lanes)[4])
{
    const int bits = type == MATRIX_Q4_0 ? 4 : type == MATRIX_Q2_0 ? 2 : 1;
    const __m256i mask = _mm256_set1_epi8((char)((1 << bits) - 1));
    for (int i = 0; i < 4; i++) {
        __m256i w = rows_load(rows, i, 2), sums[FEW_TOKENS];
        for (int field = 0; field < 8 / bits; field++) {
            __m256i u = _mm256_and_si256(w, mask);
            for (int t = 0; t < tokens; t++) {
                __m256i pairs = _mm256_maddubs_epi16(u, few_activations(act[t], field));
                sums[t] = field ? _mm256_add_epi16(sums[t], pairs) : pairs;
            }
            w = _mm256_srli_epi16(w, bits);
        }
        for (int t = 0; t < tokens; t++)
            lanes[t][i].v = _mm256_madd_epi16(sums[t], _mm256_set1_epi16(1));
    }
}

/* The same for the 32 bytes of Q8_0. */
ALWAYS_INLINE void few_lanes_q8_0(const uint8_t *const *rows, const struct block_act *act,
                                  int tokens, struct block_dots (*lanes)[4])
{
    for (int i = 0; i < 4; i++)
        for (int piece = 0; piece < 2; piece++) {
            __m256i w = rows_load(rows, i, 2 + 16 * piece), magnitude = _mm256_abs_epi8(w);
            for (int t = 0; t < tokens; t++)
                lanes[t][i].v = transpose_dot(piece ? lanes[t][i].v : _mm256_setzero_si256(), w,
                                              magnitude, few_activations(act[t], piece));
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

/* The integer sums of the parts of 8 rows from their lanes, offset taken out. */
ALWAYS_INLINE void few_dots(enum matrix_type type, const struct block_dots lanes[4],
                            const int32_t *sum, struct block_dots *dots)
{
    const int parts = blocks_weights(type) / BLOCK_WEIGHTS;
    const __m256i four_lanes[4] = {lanes[0].v, lanes[1].v, lanes[2].v, lanes[3].v};
    __m256i four[4];
    rows_transpose(four_lanes, four);
    for (int p = 0; p < parts; p++) {
        dots[p].v = four[p];
        if (parts == 1)
            dots[p].v = _mm256_add_epi32(_mm256_add_epi32(four[0], four[1]),
                                         _mm256_add_epi32(four[2], four[3]));
        if (parts == 2)
            dots[p].v = _mm256_add_epi32(four[2 * p], four[2 * p + 1]);
        if (type == MATRIX_Q1_0)
            dots[p].v = _mm256_add_epi32(dots[p].v, dots[p].v);
        if (type != MATRIX_Q8_0)
            dots[p].v = _mm256_sub_epi32(dots[p].v, _mm256_slli_epi32(_mm256_set1_epi32(sum[p]),
                                                                      type == MATRIX_Q4_0 ? 3 : 0));
    }
}

#include "kernels/product_many.inc"

#include "kernels/product_few.inc"

KERNELS_PRODUCT(kernels_product_q8_0_avx2)
{
    product(MATRIX_Q8_0, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_q4_0_avx2)
{
    product(MATRIX_Q4_0, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_q2_0_avx2)
{
    product(MATRIX_Q2_0, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_q1_0_avx2)
{
    product(MATRIX_Q1_0, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}
