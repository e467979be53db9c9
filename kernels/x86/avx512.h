/* 16 float lanes in one AVX-512 register. For *_avx512.c files only; the same interface as
 * x86/avx2.h. */
#ifndef SBIT_KERNELS_X86_AVX512_H
#define SBIT_KERNELS_X86_AVX512_H

#include <immintrin.h>

#include "kernels/reduce.h"

struct lanes {
    __m512 v;
};

static inline struct lanes lanes_of(__m512 v)
{
    return (struct lanes){v};
}

static inline __mmask16 lanes_mask(int n)
{
    return (__mmask16)((1u << n) - 1);
}

static inline struct lanes lanes_set1(float x)
{
    return lanes_of(_mm512_set1_ps(x));
}

static inline struct lanes lanes_load(const void *p)
{
    return lanes_of(_mm512_loadu_ps(p));
}

static inline void lanes_store(float *p, struct lanes a)
{
    _mm512_storeu_ps(p, a.v);
}

static inline struct lanes lanes_load_f16(const void *p)
{
    return lanes_of(_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)));
}

/* 16 signed bytes */
static inline struct lanes lanes_load_i8(const int8_t *p)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)p);
    return lanes_of(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)));
}

static inline __m512 lanes_from_bf16(__m256i h)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

static inline struct lanes lanes_load_bf16(const void *p)
{
    return lanes_of(lanes_from_bf16(_mm256_loadu_si256((const __m256i *)p)));
}

/* The first n < 16 lanes from memory, zeros in the others. */
static inline struct lanes lanes_load_part(const void *p, int n)
{
    return lanes_of(_mm512_maskz_loadu_ps(lanes_mask(n), p));
}

static inline struct lanes lanes_load_f16_part(const void *p, int n)
{
    return lanes_of(_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes_mask(n), p)));
}

static inline struct lanes lanes_load_bf16_part(const void *p, int n)
{
    return lanes_of(lanes_from_bf16(_mm256_maskz_loadu_epi16(lanes_mask(n), p)));
}

static inline void lanes_store_part(float *p, struct lanes a, int n)
{
    _mm512_mask_storeu_ps(p, lanes_mask(n), a.v);
}

static inline void lanes_store_f16(uint16_t *h, struct lanes a)
{
    _mm256_storeu_si256((__m256i *)h, _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}

static inline void lanes_store_f16_part(uint16_t *h, struct lanes a, int n)
{
    _mm256_mask_storeu_epi16(h, lanes_mask(n), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}

/* a * b + c */
static inline struct lanes lanes_fma(struct lanes a, struct lanes b, struct lanes c)
{
    return lanes_of(_mm512_fmadd_ps(a.v, b.v, c.v));
}

static inline struct lanes lanes_add(struct lanes a, struct lanes b)
{
    return lanes_of(_mm512_add_ps(a.v, b.v));
}

static inline struct lanes lanes_sub(struct lanes a, struct lanes b)
{
    return lanes_of(_mm512_sub_ps(a.v, b.v));
}

static inline struct lanes lanes_mul(struct lanes a, struct lanes b)
{
    return lanes_of(_mm512_mul_ps(a.v, b.v));
}

static inline struct lanes lanes_div(struct lanes a, struct lanes b)
{
    return lanes_of(_mm512_div_ps(a.v, b.v));
}

/* a > b ? a : b, thus b when either is NaN */
static inline struct lanes lanes_max(struct lanes a, struct lanes b)
{
    return lanes_of(_mm512_max_ps(a.v, b.v));
}

static inline struct lanes lanes_abs(struct lanes a)
{
    return lanes_of(_mm512_abs_ps(a.v));
}

static inline float lanes_fold(struct lanes a)
{
    __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* The larger of two non-negative lanes by bit pattern: NaN beats infinity. */
static inline struct lanes lanes_max_bits(struct lanes a, struct lanes b)
{
    __m512i max = _mm512_max_epu32(_mm512_castps_si512(a.v), _mm512_castps_si512(b.v));
    return lanes_of(_mm512_castsi512_ps(max));
}

static inline uint32_t lanes_reduce_max_bits(struct lanes a)
{
    return _mm512_reduce_max_epu32(_mm512_castps_si512(a.v));
}

/* Bit j: a's lane j > b's. */
static inline unsigned lanes_above(struct lanes a, struct lanes b)
{
    return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ);
}

/* q[0..16) = round to nearest even of a * inverse, kept within +-127; NaN becomes -127. */
static inline void lanes_store_int8(int8_t *q, struct lanes a, float inverse)
{
    __m512 scaled = _mm512_mul_ps(a.v, _mm512_set1_ps(inverse));
    scaled = _mm512_max_ps(scaled, _mm512_set1_ps(-127.0f));
    scaled = _mm512_min_ps(scaled, _mm512_set1_ps(127.0f));
    _mm_storeu_si128((__m128i *)q, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(scaled)));
}

/* Sum of 16 signed bytes. */
static inline int32_t lanes_sum_int8(const int8_t *q)
{
    return _mm512_reduce_add_epi32(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)q)));
}

/* reduce_expf of every lane. */
static inline struct lanes lanes_exp(struct lanes a)
{
    __m512 magic = _mm512_set1_ps(EXP_MAGIC), one = _mm512_set1_ps(1.0f);
    __m512 shifted = _mm512_add_ps(_mm512_mul_ps(a.v, _mm512_set1_ps(EXP_LOG2E)), magic);
    __m512 n = _mm512_sub_ps(shifted, magic);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(EXP_LN2_HI), a.v);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(EXP_LN2_LO), r);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(EXP_C6), r, _mm512_set1_ps(EXP_C5));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C2));
    p = _mm512_fmadd_ps(_mm512_fmadd_ps(p, r, one), r, one);
    __m512i exponent = _mm512_sub_epi32(_mm512_castps_si512(shifted), _mm512_castps_si512(magic));
    __m512i first = _mm512_srai_epi32(exponent, 1), bias = _mm512_set1_epi32(127);
    __m512i second = _mm512_sub_epi32(exponent, first);
    first = _mm512_slli_epi32(_mm512_add_epi32(first, bias), 23);
    second = _mm512_slli_epi32(_mm512_add_epi32(second, bias), 23);
    p = _mm512_mul_ps(_mm512_mul_ps(p, _mm512_castsi512_ps(first)), _mm512_castsi512_ps(second));
    __mmask16 low = _mm512_cmp_ps_mask(a.v, _mm512_set1_ps(EXP_LOW), _CMP_LT_OQ);
    __mmask16 high = _mm512_cmp_ps_mask(a.v, _mm512_set1_ps(EXP_HIGH), _CMP_GT_OQ);
    p = _mm512_mask_mov_ps(p, low, _mm512_setzero_ps());
    return lanes_of(_mm512_mask_mov_ps(p, high, _mm512_set1_ps(INFINITY)));
}

/* Sums that fit the registers of attention: LANES_TILE^2 sets of lanes, and operands. */
#define LANES_TILE 4

/* Halves of a fold: of each two registers one half of a's and the other of b's come from a blend,
 * the remaining halves from one shuffle, because shuffles have one port and blends all. */
static inline __m512 lanes_fold_to8(__m512 a, __m512 b) /* parts of 128 bits: a, a, b, b */
{
    return _mm512_add_ps(_mm512_mask_blend_ps(0xff00, a, b), _mm512_shuffle_f32x4(a, b, 0x4e));
}

static inline __m512 lanes_fold_to4(__m512 a, __m512 b) /* parts of a, b, a, b */
{
    __m512 rest = _mm512_mask_blend_ps(0x0f0f, a, b);
    return _mm512_add_ps(_mm512_mask_blend_ps(0xf0f0, a, b),
                         _mm512_shuffle_f32x4(rest, rest, 0xb1));
}

static inline __m512 lanes_fold_to2(__m512 a, __m512 b) /* lanes of a part: a, a, b, b */
{
    __m512d rest = _mm512_shuffle_pd(_mm512_castps_pd(a), _mm512_castps_pd(b), 0x55);
    return _mm512_add_ps(_mm512_mask_blend_ps(0xcccc, a, b), _mm512_castpd_ps(rest));
}

static inline __m512 lanes_fold_to1(__m512 a, __m512 b) /* lanes of a part: a, b, a, b */
{
    __m512 rest = _mm512_mask_blend_ps(0x5555, a, b);
    return _mm512_add_ps(_mm512_mask_blend_ps(0xaaaa, a, b), _mm512_permute_ps(rest, 0xb1));
}

/* Partial folds of a[0], a[4], a[8], a[12], one in each part. */
static inline __m512 lanes_fold_column(const struct lanes *a)
{
    return lanes_fold_to4(lanes_fold_to8(a[0].v, a[8].v), lanes_fold_to8(a[4].v, a[12].v));
}

/* sums[i] = the fold of a[i]. */
static inline void lanes_fold_tile(const struct lanes a[LANES_TILE * LANES_TILE], float *sums)
{
    __m512 even = lanes_fold_to2(lanes_fold_column(a), lanes_fold_column(a + 2));
    __m512 odd = lanes_fold_to2(lanes_fold_column(a + 1), lanes_fold_column(a + 3));
    _mm512_storeu_ps(sums, lanes_fold_to1(even, odd));
}

#endif
