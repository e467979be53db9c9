/* Q8_0, Q4_0 and Q1_0 products with AVX-512 VNNI: tiles of 16 rows. vpdpbusd wants one side
 * unsigned, so the tile holds Q8_0 weights + 128, Q4_0 weights + 8 and Q1_0 weights + 1, and the
 * offset times the sum of the block's activations is taken out. */
#include <immintrin.h>

#define BLOCK_ROWS  16
#define TILE_BLOCKS 16 /* 8 KiB of weights */
#include "kernels/block_tile.inc"

struct block_sums {
    __m512 v;
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

static inline float block_scale(const uint8_t *block)
{
    return _cvtsh_ss(half_load(block, 0));
}

/* The 32 weights of part p of a block, offset included. */
static inline __m256i block_bytes(enum matrix_type type, const uint8_t *block, int p)
{
    if (type == MATRIX_Q8_0)
        return _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(block + 2)),
                                _mm256_set1_epi8(-128));
    if (type == MATRIX_Q4_0) {
        __m128i q = _mm_loadu_si128((const __m128i *)(block + 2));
        return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(q, 4), q), _mm256_set1_epi8(15));
    }
    uint32_t bits;
    memcpy(&bits, block + 2 + 4 * p, sizeof bits);
    return _mm256_maskz_set1_epi8(bits, 2);
}

/* Two 8 x 8 transpositions of 32-bit elements at once: rows 0-7 in the lower halves, 8-15 in the
 * upper. */
ALWAYS_INLINE void block_pack(enum matrix_type type, const uint8_t *const *rows, int p,
                              uint8_t steps[8][BLOCK_ROWS][4])
{
    const __m512i even = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    const __m512i odd = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    __m512i row[8], pair[8], quad[8];
    for (int i = 0; i < 8; i++)
        row[i] = _mm512_inserti64x4(_mm512_castsi256_si512(block_bytes(type, rows[i], p)),
                                    block_bytes(type, rows[i + 8], p), 1);
    for (int i = 0; i < 4; i++) {
        pair[2 * i] = _mm512_unpacklo_epi32(row[2 * i], row[2 * i + 1]);
        pair[2 * i + 1] = _mm512_unpackhi_epi32(row[2 * i], row[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        quad[4 * i] = _mm512_unpacklo_epi64(pair[4 * i], pair[4 * i + 2]);
        quad[4 * i + 1] = _mm512_unpackhi_epi64(pair[4 * i], pair[4 * i + 2]);
        quad[4 * i + 2] = _mm512_unpacklo_epi64(pair[4 * i + 1], pair[4 * i + 3]);
        quad[4 * i + 3] = _mm512_unpackhi_epi64(pair[4 * i + 1], pair[4 * i + 3]);
    }
    for (int k = 0; k < 4; k++) {
        __m512i low = _mm512_permutex2var_epi64(quad[k], even, quad[k + 4]);
        __m512i high = _mm512_permutex2var_epi64(quad[k], odd, quad[k + 4]);
        _mm512_store_si512(steps[k], low);
        _mm512_store_si512(steps[k + 4], high);
    }
}

/* dots[t] = the integer sums of one block for 16 rows. */
ALWAYS_INLINE void dot(const uint8_t w[8][BLOCK_ROWS][4], const struct block_act *act, int b,
                       int tokens, int offset, __m512i *dots)
{
    for (int t = 0; t < tokens; t++)
        dots[t] = _mm512_set1_epi32(-offset * act[t].sum[b]);
    for (int k = 0; k < 8; k++) {
        __m512i weights = _mm512_load_si512(w[k]);
        for (int t = 0; t < tokens; t++) {
            int32_t four;
            memcpy(&four, act[t].q + b * BLOCK_WEIGHTS + 4 * k, sizeof four);
            dots[t] = _mm512_dpbusd_epi32(dots[t], weights, _mm512_set1_epi32(four));
        }
    }
}

ALWAYS_INLINE void block_dot(enum matrix_type type, const struct block_tile *tile, int blocks,
                             struct block_act *act, int tokens, struct block_sums *sums)
{
    int parts = blocks_weights(type) / BLOCK_WEIGHTS;
    int offset = type == MATRIX_Q8_0 ? 128 : type == MATRIX_Q4_0 ? 8 : 1;
    for (int i = 0; i < blocks / parts; i++) {
        __m512 part[BLOCK_TOKENS] = {_mm512_setzero_ps()}, d = _mm512_load_ps(tile->d[i]);
        for (int p = 0; p < parts; p++) {
            int b = i * parts + p;
            __m512i dots[BLOCK_TOKENS];
            dot(tile->w[b], act, b, tokens, offset, dots);
            for (int t = 0; t < tokens; t++) {
                __m512 sum = _mm512_cvtepi32_ps(dots[t]), scale = _mm512_set1_ps(act[t].scale[b]);
                part[t] = p ? _mm512_fmadd_ps(sum, scale, part[t]) : _mm512_mul_ps(sum, scale);
            }
        }
        for (int t = 0; t < tokens; t++)
            sums[t].v = _mm512_fmadd_ps(d, part[t], sums[t].v);
    }
}

#include "kernels/product_block.inc"

KERNELS_PRODUCT(kernels_product_q8_0_avx512)
{
    product(MATRIX_Q8_0, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_q4_0_avx512)
{
    product(MATRIX_Q4_0, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_q1_0_avx512)
{
    product(MATRIX_Q1_0, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}
