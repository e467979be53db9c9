/* 8 rows of 32 bytes to 8 steps of 4 columns, for the AVX2 files that multiply tiles of 8 rows. */
#ifndef SBIT_KERNELS_X86_TRANSPOSE_AVX2_H
#define SBIT_KERNELS_X86_TRANSPOSE_AVX2_H

#include <immintrin.h>
#include <stdint.h>

/* steps[k] = bytes 4k..4k+3 of row 0, of row 1, ... of row 7: an 8 x 8 transposition of 32-bit
 * elements. */
static inline void transpose_store(const __m256i row[8], uint8_t steps[8][8][4])
{
    __m256i pair[8], quad[8];
    for (int i = 0; i < 4; i++) { /* 32-bit elements of rows 2i and 2i + 1 */
        pair[2 * i] = _mm256_unpacklo_epi32(row[2 * i], row[2 * i + 1]);
        pair[2 * i + 1] = _mm256_unpackhi_epi32(row[2 * i], row[2 * i + 1]);
    }
    for (int i = 0; i < 2;
         i++) { /* of rows 4i to 4i + 3; element k and, in the upper half, k + 4 */
        quad[4 * i] = _mm256_unpacklo_epi64(pair[4 * i], pair[4 * i + 2]);
        quad[4 * i + 1] = _mm256_unpackhi_epi64(pair[4 * i], pair[4 * i + 2]);
        quad[4 * i + 2] = _mm256_unpacklo_epi64(pair[4 * i + 1], pair[4 * i + 3]);
        quad[4 * i + 3] = _mm256_unpackhi_epi64(pair[4 * i + 1], pair[4 * i + 3]);
    }
    for (int k = 0; k < 4; k++) {
        __m256i low = _mm256_permute2x128_si256(quad[k], quad[k + 4], 0x20);
        __m256i high = _mm256_permute2x128_si256(quad[k], quad[k + 4], 0x31);
        _mm256_store_si256((__m256i *)steps[k], low);
        _mm256_store_si256((__m256i *)steps[k + 4], high);
    }
}

/* Four consecutive activations in every 32-bit lane. */
static inline __m256i transpose_broadcast(const int8_t *q)
{
    int32_t four;
    __builtin_memcpy(&four, q, sizeof four);
    return _mm256_set1_epi32(four);
}

/* sums[lane] += the 4 products of w and x, exact for |x| <= 127 and any w, -128 included: |w| as an
 * unsigned byte times x with w's sign, in pairs of at most 2 * 128 * 127 < 2^15. */
static inline __m256i transpose_dot(__m256i sums, __m256i w, __m256i magnitude, __m256i x)
{
    __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(x, w));
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

#endif
