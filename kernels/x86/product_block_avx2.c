/* Q8_0, Q4_0 and Q1_0 products with AVX2: tiles of 8 rows. Q8_0 weights stay signed in the tile;
 * Q4_0 and Q1_0 become 0..15 and 0 or 2, whose products with a block of activations fit 16 bits (8
 * steps x 2 x 15 x 127), so that one widening per block is enough. */
#include "kernels/x86/transpose_avx2.h"

#define BLOCK_ROWS  8
#define TILE_BLOCKS 16 /* 4 KiB of weights */
#include "kernels/block_tile.inc"

struct block_sums {
    __m256 v;
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

static inline float block_scale(const uint8_t *block)
{
    return _cvtsh_ss(half_load(block, 0));
}

/* The 32 weights of part p of a block. */
static inline __m256i block_bytes(enum matrix_type type, const uint8_t *block, int p)
{
    if (type == MATRIX_Q8_0)
        return _mm256_loadu_si256((const __m256i *)(block + 2));
    if (type == MATRIX_Q4_0) {
        __m128i q = _mm_loadu_si128((const __m128i *)(block + 2));
        return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(q, 4), q), _mm256_set1_epi8(15));
    }
    int32_t bits;
    memcpy(&bits, block + 2 + 4 * p, sizeof bits);
    const __m256i spread =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201);
    __m256i byte = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread);
    __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(byte, bit), bit);
    return _mm256_and_si256(set, _mm256_set1_epi8(2));
}

ALWAYS_INLINE void block_pack(enum matrix_type type, const uint8_t *const *rows, int p,
                              uint8_t steps[8][BLOCK_ROWS][4])
{
    __m256i row[BLOCK_ROWS];
    for (int i = 0; i < BLOCK_ROWS; i++)
        row[i] = block_bytes(type, rows[i], p);
    transpose_store(row, steps);
}

/* Unrolled, gcc would regroup the integer sums and run out of registers. */
#define UNROLL_NOT _Pragma("GCC unroll 1")

/* dots[t] = the integer sums of one block for 8 rows, weights signed. */
ALWAYS_INLINE void dot_signed(const uint8_t w[8][BLOCK_ROWS][4], const struct block_act *act, int b,
                              int tokens, __m256i *dots)
{
    for (int t = 0; t < tokens; t++)
        dots[t] = _mm256_setzero_si256();
    UNROLL_NOT
    for (int k = 0; k < 8; k++) {
        __m256i weights = _mm256_load_si256((const __m256i *)w[k]);
        __m256i magnitude = _mm256_abs_epi8(weights);
        for (int t = 0; t < tokens; t++) {
            __m256i x = transpose_broadcast(act[t].q + b * BLOCK_WEIGHTS + 4 * k);
            dots[t] = transpose_dot(dots[t], weights, magnitude, x);
        }
    }
}

/* The same for small unsigned weights from which offset is to be taken. */
ALWAYS_INLINE void dot_unsigned(const uint8_t w[8][BLOCK_ROWS][4], const struct block_act *act,
                                int b, int tokens, int offset, __m256i *dots)
{
    for (int t = 0; t < tokens; t++)
        dots[t] = _mm256_setzero_si256();
    UNROLL_NOT
    for (int k = 0; k < 8; k++) {
        __m256i weights = _mm256_load_si256((const __m256i *)w[k]);
        for (int t = 0; t < tokens; t++) {
            __m256i x = transpose_broadcast(act[t].q + b * BLOCK_WEIGHTS + 4 * k);
            dots[t] = _mm256_add_epi16(dots[t], _mm256_maddubs_epi16(weights, x));
        }
    }
    for (int t = 0; t < tokens; t++) {
        dots[t] = _mm256_madd_epi16(dots[t], _mm256_set1_epi16(1));
        dots[t] = _mm256_sub_epi32(dots[t], _mm256_set1_epi32(offset * act[t].sum[b]));
    }
}

ALWAYS_INLINE void block_dot(enum matrix_type type, const struct block_tile *tile, int blocks,
                             struct block_act *act, int tokens, struct block_sums *sums)
{
    int parts = blocks_weights(type) / BLOCK_WEIGHTS;
    for (int i = 0; i < blocks / parts; i++) {
        __m256 part[BLOCK_TOKENS] = {_mm256_setzero_ps()}, d = _mm256_load_ps(tile->d[i]);
        for (int p = 0; p < parts; p++) {
            int b = i * parts + p;
            __m256i dots[BLOCK_TOKENS];
            if (type == MATRIX_Q8_0)
                dot_signed(tile->w[b], act, b, tokens, dots);
            else
                dot_unsigned(tile->w[b], act, b, tokens, type == MATRIX_Q4_0 ? 8 : 1, dots);
            for (int t = 0; t < tokens; t++) {
                __m256 dot = _mm256_cvtepi32_ps(dots[t]), scale = _mm256_set1_ps(act[t].scale[b]);
                part[t] = p ? _mm256_fmadd_ps(dot, scale, part[t]) : _mm256_mul_ps(dot, scale);
            }
        }
        for (int t = 0; t < tokens; t++)
            sums[t].v = _mm256_fmadd_ps(d, part[t], sums[t].v);
    }
}

#include "kernels/product_block.inc"

KERNELS_PRODUCT(kernels_product_q8_0_avx2)
{
    product(MATRIX_Q8_0, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_q4_0_avx2)
{
    product(MATRIX_Q4_0, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_q1_0_avx2)
{
    product(MATRIX_Q1_0, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}
