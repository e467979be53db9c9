/* 16 float lanes in two AVX2 registers. For *_avx2.c files only. The lanes_ functions are the
 * interface that the templates (product_float.inc, vector.inc, attention.inc, prepare_simd.inc)
 * expect; x86/avx512.h has the same ones. */
#ifndef SBIT_KERNELS_X86_AVX2_H
#define SBIT_KERNELS_X86_AVX2_H

#include <immintrin.h>

#include "kernels/reduce.h"

struct lanes { /* lanes 0-7 and 8-15 */
    __m256 low, high;
};

static inline struct lanes lanes_set1(float x)
{
    return (struct lanes){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}

static inline struct lanes lanes_load(const void *p)
{
    const float *f = p;
    return (struct lanes){_mm256_loadu_ps(f), _mm256_loadu_ps(f + 8)};
}

static inline void lanes_store(float *p, struct lanes a)
{
    _mm256_storeu_ps(p, a.low);
    _mm256_storeu_ps(p + 8, a.high);
}

static inline struct lanes lanes_load_f16(const void *p)
{
    const __m128i *h = p;
    return (struct lanes){_mm256_cvtph_ps(_mm_loadu_si128(h)),
                          _mm256_cvtph_ps(_mm_loadu_si128(h + 1))};
}

/* 16 signed bytes */
static inline struct lanes lanes_load_i8(const int8_t *p)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)p);
    return (struct lanes){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
                          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
}

static inline __m256 lanes_bf16_half(const __m128i *h)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(h)), 16));
}

static inline struct lanes lanes_load_bf16(const void *p)
{
    const __m128i *h = p;
    return (struct lanes){lanes_bf16_half(h), lanes_bf16_half(h + 1)};
}

static inline void lanes_store_f16(uint16_t *h, struct lanes a)
{
    _mm_storeu_si128((__m128i *)h, _mm256_cvtps_ph(a.low, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i *)h + 1, _mm256_cvtps_ph(a.high, _MM_FROUND_TO_NEAREST_INT));
}

#include "kernels/lanes_part.inc"

/* a * b + c */
static inline struct lanes lanes_fma(struct lanes a, struct lanes b, struct lanes c)
{
    return (struct lanes){_mm256_fmadd_ps(a.low, b.low, c.low),
                          _mm256_fmadd_ps(a.high, b.high, c.high)};
}

static inline struct lanes lanes_add(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}

static inline struct lanes lanes_sub(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}

static inline struct lanes lanes_mul(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}

static inline struct lanes lanes_div(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}

/* a > b ? a : b, thus b when either is NaN */
static inline struct lanes lanes_max(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}

static inline struct lanes lanes_abs(struct lanes a)
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (struct lanes){_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
}

static inline float lanes_fold(struct lanes a)
{
    __m256 eight = _mm256_add_ps(a.low, a.high);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* The larger of two non-negative lanes by bit pattern: NaN beats infinity. */
static inline struct lanes lanes_max_bits(struct lanes a, struct lanes b)
{
    __m256i low = _mm256_max_epu32(_mm256_castps_si256(a.low), _mm256_castps_si256(b.low));
    __m256i high = _mm256_max_epu32(_mm256_castps_si256(a.high), _mm256_castps_si256(b.high));
    return (struct lanes){_mm256_castsi256_ps(low), _mm256_castsi256_ps(high)};
}

static inline uint32_t lanes_reduce_max_bits(struct lanes a)
{
    __m256i eight = _mm256_max_epu32(_mm256_castps_si256(a.low), _mm256_castps_si256(a.high));
    __m128i four = _mm_max_epu32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4e));
    four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(four);
}

/* Bit j: a's lane j > b's. */
static inline unsigned lanes_above(struct lanes a, struct lanes b)
{
    int low = _mm256_movemask_ps(_mm256_cmp_ps(a.low, b.low, _CMP_GT_OQ));
    int high = _mm256_movemask_ps(_mm256_cmp_ps(a.high, b.high, _CMP_GT_OQ));
    return (unsigned)(low | high << 8);
}

static inline __m256i lanes_round_half(__m256 x, float inverse)
{
    __m256 scaled = _mm256_mul_ps(x, _mm256_set1_ps(inverse));
    scaled = _mm256_max_ps(scaled, _mm256_set1_ps(-127.0f));
    scaled = _mm256_min_ps(scaled, _mm256_set1_ps(127.0f));
    return _mm256_cvtps_epi32(scaled);
}

/* q[0..16) = round to nearest even of a * inverse, kept within +-127; NaN becomes -127. */
static inline void lanes_store_int8(int8_t *q, struct lanes a, float inverse)
{
    __m256i low = lanes_round_half(a.low, inverse), high = lanes_round_half(a.high, inverse);
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
    __m128i bytes =
        _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128((__m128i *)q, bytes);
}

/* Sum of 16 signed bytes. */
static inline int32_t lanes_sum_int8(const int8_t *q)
{
    __m128i flipped = _mm_xor_si128(_mm_loadu_si128((const __m128i *)q), _mm_set1_epi8(-128));
    __m128i sums = _mm_sad_epu8(flipped, _mm_setzero_si128());
    return _mm_cvtsi128_si32(sums) + _mm_extract_epi16(sums, 4) - 16 * 128;
}

static inline __m256 lanes_exp_half(__m256 x)
{
    __m256 magic = _mm256_set1_ps(EXP_MAGIC);
    __m256 shifted = _mm256_add_ps(_mm256_mul_ps(x, _mm256_set1_ps(EXP_LOG2E)), magic);
    __m256 n = _mm256_sub_ps(shifted, magic), one = _mm256_set1_ps(1.0f);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(EXP_LN2_HI), x);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(EXP_LN2_LO), r);
    __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(EXP_C6), r, _mm256_set1_ps(EXP_C5));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP_C4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP_C3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP_C2));
    p = _mm256_fmadd_ps(_mm256_fmadd_ps(p, r, one), r, one);
    __m256i exponent = _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_castps_si256(magic));
    __m256i first = _mm256_srai_epi32(exponent, 1), bias = _mm256_set1_epi32(127);
    __m256i second = _mm256_sub_epi32(exponent, first);
    first = _mm256_slli_epi32(_mm256_add_epi32(first, bias), 23);
    second = _mm256_slli_epi32(_mm256_add_epi32(second, bias), 23);
    p = _mm256_mul_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
    __m256 low = _mm256_cmp_ps(x, _mm256_set1_ps(EXP_LOW), _CMP_LT_OQ);
    __m256 high = _mm256_cmp_ps(x, _mm256_set1_ps(EXP_HIGH), _CMP_GT_OQ);
    return _mm256_blendv_ps(_mm256_andnot_ps(low, p), _mm256_set1_ps(INFINITY), high);
}

/* reduce_expf of every lane. */
static inline struct lanes lanes_exp(struct lanes a)
{
    return (struct lanes){lanes_exp_half(a.low), lanes_exp_half(a.high)};
}

/* Sums that fit the registers of attention: LANES_TILE^2 sets of lanes, and operands. */
#define LANES_TILE 2

/* sums[i] = the fold of a[i]. */
static inline void lanes_fold_tile(const struct lanes a[LANES_TILE * LANES_TILE], float *sums)
{
    __m128 four[4];
    for (int i = 0; i < 4; i++) {
        __m256 eight = _mm256_add_ps(a[i].low, a[i].high);
        four[i] = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    }
    _MM_TRANSPOSE4_PS(four[0], four[1], four[2], four[3]);
    __m128 even = _mm_add_ps(four[0], four[2]), odd = _mm_add_ps(four[1], four[3]);
    _mm_storeu_ps(sums, _mm_add_ps(even, odd));
}

#endif
