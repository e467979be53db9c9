/* Byte-code product with AVX2.
 *
 * Few tokens: for each group a table of the 128 possible integers codeword . activations, as two
 * planes of 128 bytes (low; high + 128). vpshufb looks up among 16 entries and answers 0 for
 * negative indices; so part k of a plane holds entry xor entry - 16, and the exclusive-or of all
 * look-ups while the index goes down by 16 is the entry. Negation: the one's complement of both
 * planes, and the number of negated codes added at the end. Byte sums are kept in 16-bit lanes.
 *
 * Many tokens: the codewords of 8 rows are spread out to bytes once, then multiplied for all
 * tokens.
 *
 * The sums of a row wait in y, as int32 bits, until its last group has been added. */
#include "kernels/x86/transpose_avx2.h"

#include "kernels/code.h"
#include "kernels/correction.h"
#include "kernels/variants.h"

#define CHUNK        64 /* groups per table: 16 KiB; the 16-bit lanes would hold 256 */
#define TILE_ROWS    8
#define TILE_COLUMNS 256 /* of 8 rows: 2 KiB */
#define TILE_TOKENS  4
#define MAX_D        16

#define ALWAYS_INLINE static inline __attribute__((always_inline))

struct table { /* entry xor the entry 16 before */
    _Alignas(32) uint8_t low[CODE_WORDS], high[CODE_WORDS];
};

struct plane16 { /* element k of every codeword */
    _Alignas(32) int16_t element[MAX_D][CODE_WORDS];
};

static void plane_fill(const struct matrix *m, struct plane16 *plane)
{
    for (int w = 0; w < CODE_WORDS; w++)
        for (int k = 0; k < m->d; k++)
            plane->element[k][w] = m->codebook[w * m->d + k];
}

/* bytes[i] becomes bytes[i] xor bytes[i - 16]; 32 at a time from the end. */
ALWAYS_INLINE void delta_store(const uint8_t *padded, uint8_t *plane)
{
    for (int i = 0; i < CODE_WORDS; i += 32) {
        __m256i entry = _mm256_loadu_si256((const __m256i *)(padded + 16 + i));
        __m256i before = _mm256_loadu_si256((const __m256i *)(padded + i));
        _mm256_store_si256((__m256i *)(plane + i), _mm256_xor_si256(entry, before));
    }
}

static void build_table(const struct plane16 *plane, const int8_t *q, int d, struct table *table)
{
    uint8_t low[16 + CODE_WORDS], high[16 + CODE_WORDS];
    __m256i v[8];
    memset(low, 0, 16);
    memset(high, 0, 16);
    for (int i = 0; i < 8; i++)
        v[i] = _mm256_setzero_si256();
    for (int k = 0; k < d; k++) { /* partial sums may wrap, the last one fits */
        __m256i x = _mm256_set1_epi16(q[k]);
        for (int i = 0; i < 8; i++) {
            __m256i words = _mm256_load_si256((const __m256i *)(plane->element[k] + 16 * i));
            v[i] = _mm256_add_epi16(v[i], _mm256_mullo_epi16(words, x));
        }
    }
    for (int i = 0; i < 8; i += 2) {
        __m256i byte = _mm256_set1_epi16(255), flip = _mm256_set1_epi8(-128);
        __m256i l =
            _mm256_packus_epi16(_mm256_and_si256(v[i], byte), _mm256_and_si256(v[i + 1], byte));
        __m256i h = _mm256_packs_epi16(_mm256_srai_epi16(v[i], 8), _mm256_srai_epi16(v[i + 1], 8));
        l = _mm256_permute4x64_epi64(l, 0xd8);
        h = _mm256_xor_si256(_mm256_permute4x64_epi64(h, 0xd8), flip);
        _mm256_storeu_si256((__m256i *)(low + 16 + 16 * i), l);
        _mm256_storeu_si256((__m256i *)(high + 16 + 16 * i), h);
    }
    delta_store(low, table->low);
    delta_store(high, table->high);
}

/* Byte sums of 32 rows: all[p] adds the bytes of even rows plus 256 times those of odd ones, modulo
 * 2^16; odd[p] those of odd rows alone. p: plane. */
struct byte_sums {
    __m256i all[2], odd[2], negated;
};

ALWAYS_INLINE void sums_add(struct byte_sums *s, __m256i index, const struct table *table)
{
    __m256i low = _mm256_setzero_si256(), high = low;
    __m256i negative = _mm256_cmpgt_epi8(low, index);
    __m256i at = _mm256_and_si256(index, _mm256_set1_epi8(127));
    for (int k = 0; k < 8; k++) {
        __m256i l = _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)table->low + k));
        __m256i h = _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)table->high + k));
        low = _mm256_xor_si256(low, _mm256_shuffle_epi8(l, at));
        high = _mm256_xor_si256(high, _mm256_shuffle_epi8(h, at));
        at = _mm256_sub_epi8(at, _mm256_set1_epi8(16));
    }
    low = _mm256_xor_si256(low, negative);
    high = _mm256_xor_si256(high, negative);
    s->negated = _mm256_sub_epi8(s->negated, negative);
    s->all[0] = _mm256_add_epi16(s->all[0], low);
    s->odd[0] = _mm256_add_epi16(s->odd[0], _mm256_srli_epi16(low, 8));
    s->all[1] = _mm256_add_epi16(s->all[1], high);
    s->odd[1] = _mm256_add_epi16(s->odd[1], _mm256_srli_epi16(high, 8));
}

/* out[i] += the sum of 16-bit lane i, plus its count. */
static void widen(__m256i low, __m256i high, __m256i negated, int32_t offset, int32_t *sums,
                  int step)
{
    uint16_t l[16], h[16], n[16];
    _mm256_storeu_si256((__m256i *)l, low);
    _mm256_storeu_si256((__m256i *)h, high);
    _mm256_storeu_si256((__m256i *)n, negated);
    for (int i = 0; i < 16; i++)
        sums[step * i] = l[i] + h[i] * 256 + n[i] + offset;
}

/* y[0..rows) as int32 += the sums of groups groups, whose high bytes carry 128 each. */
static void sums_finish(const struct byte_sums *s, int groups, int rows, float *y)
{
    int32_t sums[32], before[32] = {0};
    int32_t offset = -128 * 256 * groups;
    __m256i even_low = _mm256_sub_epi16(s->all[0], _mm256_slli_epi16(s->odd[0], 8));
    __m256i even_high = _mm256_sub_epi16(s->all[1], _mm256_slli_epi16(s->odd[1], 8));
    __m256i even_negated = _mm256_and_si256(s->negated, _mm256_set1_epi16(255));
    rows = rows < 32 ? rows : 32;
    widen(even_low, even_high, even_negated, offset, sums, 2);
    widen(s->odd[0], s->odd[1], _mm256_srli_epi16(s->negated, 8), offset, sums + 1, 2);
    memcpy(before, y, (size_t)rows * sizeof *before);
    for (int i = 0; i < 32; i++)
        sums[i] += before[i];
    memcpy(y, sums, (size_t)rows * sizeof *sums);
}

static void look_up(const struct table *table, int groups, const uint8_t *index, int rows, float *y)
{
    struct byte_sums sums = {{_mm256_setzero_si256(), _mm256_setzero_si256()},
                             {_mm256_setzero_si256(), _mm256_setzero_si256()},
                             _mm256_setzero_si256()};
    for (int g = 0; g < groups; g++, index += MATRIX_BAND)
        sums_add(&sums, _mm256_loadu_si256((const __m256i *)index), &table[g]);
    sums_finish(&sums, groups, rows, y);
}

/* y[0..count), so far integer sums, become results; first is its first row. */
static void finish_rows(const struct matrix *m, const struct code_act *act, int first, int count,
                        float *y)
{
    float apart[MATRIX_BAND] = {0}, buffer[8] = {0};
    for (int r = 0; r < count; r += 8) {
        int rows = count - r < 8 ? count - r : 8;
        uint16_t out[8] = {0};
        if (r % MATRIX_BAND == 0)
            code_apart(m, act, first + r, count - r < MATRIX_BAND ? count - r : MATRIX_BAND, apart);
        memcpy(out, (const uint8_t *)m->out + 2 * (size_t)(first + r), (size_t)rows * 2);
        memcpy(buffer, y + r, (size_t)rows * sizeof *y);
        __m256 sum = _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)buffer));
        __m256 rest = _mm256_loadu_ps(apart + r % MATRIX_BAND);
        __m256 value = _mm256_fmadd_ps(_mm256_set1_ps(act->scale), sum, rest);
        __m256 scale = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)out));
        _mm256_storeu_ps(buffer, _mm256_mul_ps(scale, value));
        memcpy(y + r, buffer, (size_t)rows * sizeof *y);
    }
}

/* All rows of the call for one token, by tables. y: its first row. */
static void token_by_table(const struct matrix *m, const struct plane16 *plane,
                           const uint8_t *prepared, int first, int count, float *y)
{
    struct table table[CHUNK];
    const int8_t *q = blocks_code_q(prepared);
    int groups = blocks_groups(m);
    memset(y, 0, (size_t)count * sizeof *y);
    for (int g = 0; g < groups; g += CHUNK) {
        int part = groups - g < CHUNK ? groups - g : CHUNK;
        for (int i = 0; i < part; i++)
            build_table(plane, q + (size_t)(g + i) * (size_t)m->d, m->d, &table[i]);
        for (int r = 0; r < count; r += 32)
            look_up(table, part, blocks_band(m, first + r, g) + r % MATRIX_BAND, count - r, y + r);
    }
    finish_rows(m, (const struct code_act *)prepared, first, count, y);
}

/* The 256 codewords that an index byte can mean, each filled up to 16 bytes. */
struct words {
    _Alignas(16) int8_t word[2 * CODE_WORDS][16];
};

static void words_fill(const struct matrix *m, struct words *words)
{
    memset(words, 0, sizeof *words);
    for (int index = 0; index < 2 * CODE_WORDS; index++)
        for (int k = 0; k < m->d; k++)
            words->word[index][k] = (int8_t)code_weight(m, (uint8_t)index, k);
}

struct tile {
    _Alignas(32) uint8_t w[TILE_COLUMNS / 4][TILE_ROWS][4];
};

/* Groups of rows i..i+7 of a band. Each codeword is stored as 16 bytes over the rest of the one
 * before. */
static void tile_fill(const struct words *words, const uint8_t *index, int groups, int d,
                      struct tile *tile)
{
    _Alignas(32) int8_t rows[TILE_ROWS][TILE_COLUMNS + 32];
    for (int i = 0; i < TILE_ROWS; i++) {
        int8_t *to = rows[i];
        for (int g = 0; g < groups; g++, to += d) {
            const int8_t *word = words->word[index[g * MATRIX_BAND + i]];
            _mm_storeu_si128((__m128i *)to, _mm_load_si128((const __m128i *)word));
        }
        memset(to, 0, 32);
    }
    for (int c = 0; c < groups * d; c += 32) {
        __m256i row[TILE_ROWS];
        for (int i = 0; i < TILE_ROWS; i++)
            row[i] = _mm256_load_si256((const __m256i *)(rows[i] + c));
        transpose_store(row, tile->w + c / 4);
    }
}

/* y[t][0..rows) as int32 += tile x tokens. */
ALWAYS_INLINE void tile_dot(const struct tile *tile, int steps, const int8_t *q, size_t stride,
                            int tokens, bool start, int rows, float *y, size_t y_stride)
{
    __m256i acc[TILE_TOKENS];
    for (int t = 0; t < tokens; t++) {
        int32_t before[TILE_ROWS] = {0};
        if (!start)
            memcpy(before, y + (size_t)t * y_stride, (size_t)rows * sizeof *y);
        acc[t] = _mm256_loadu_si256((const __m256i *)before);
    }
    for (int s = 0; s < steps; s++) {
        __m256i w = _mm256_load_si256((const __m256i *)tile->w[s]), magnitude = _mm256_abs_epi8(w);
        for (int t = 0; t < tokens; t++) {
            __m256i x = transpose_broadcast(q + (size_t)t * stride + 4 * (size_t)s);
            acc[t] = transpose_dot(acc[t], w, magnitude, x);
        }
    }
    for (int t = 0; t < tokens; t++) {
        int32_t sums[TILE_ROWS];
        _mm256_storeu_si256((__m256i *)sums, acc[t]);
        memcpy(y + (size_t)t * y_stride, sums, (size_t)rows * sizeof *y);
    }
}

/* 8 rows for all tokens. y: token 0 at the first of them. */
static void rows_by_tile(const struct matrix *m, const struct words *words, const uint8_t *prepared,
                         int tokens, int row, int rows, float *y, size_t y_stride)
{
    struct tile tile;
    size_t stride = act_bytes(m);
    int groups = blocks_groups(m), most = TILE_COLUMNS / m->d / 4 * 4;
    for (int g = 0; g < groups; g += most) {
        int part = groups - g < most ? groups - g : most, t = 0;
        int steps = (part * m->d + 3) / 4;
        const int8_t *q = blocks_code_q(prepared) + (size_t)g * (size_t)m->d;
        tile_fill(words, blocks_band(m, row, g) + row % MATRIX_BAND, part, m->d, &tile);
        for (; t + TILE_TOKENS <= tokens; t += TILE_TOKENS)
            tile_dot(&tile, steps, q + (size_t)t * stride, stride, TILE_TOKENS, !g, rows,
                     y + (size_t)t * y_stride, y_stride);
        for (; t < tokens; t++)
            tile_dot(&tile, steps, q + (size_t)t * stride, stride, 1, !g, rows,
                     y + (size_t)t * y_stride, y_stride);
    }
}

static void by_tile(const struct matrix *m, const uint8_t *prepared, int tokens, int first,
                    int count, float *y, size_t y_stride)
{
    struct words words;
    words_fill(m, &words);
    for (int r = 0; r < count; r += TILE_ROWS)
        rows_by_tile(m, &words, prepared, tokens, first + r,
                     count - r < TILE_ROWS ? count - r : TILE_ROWS, y + r, y_stride);
    for (int t = 0; t < tokens; t++) {
        const uint8_t *act = prepared + (size_t)t * act_bytes(m);
        finish_rows(m, (const struct code_act *)act, first, count, y + (size_t)t * y_stride);
    }
}

/* Whether spreading codewords out pays, in cycles per 32 bytes of codes as measured on Zen 4: about
 * 50 once and 2 d per token, against 24 per token of looking up. */
static bool tile_pays(int d, int tokens)
{
    return 50 + 2 * d * tokens < 24 * tokens;
}

KERNELS_PRODUCT(kernels_product_code_avx2)
{
    struct plane16 plane;
    size_t stride = act_bytes(m);
    const uint8_t *act = prepared;
    if (tile_pays(m->d, tokens)) {
        by_tile(m, act, tokens, row_first, row_count, y + row_first, y_stride);
    } else {
        plane_fill(m, &plane);
        for (int t = 0; t < tokens; t++)
            token_by_table(m, &plane, act + (size_t)t * stride, row_first, row_count,
                           y + (size_t)t * y_stride + row_first);
    }
    correction_add(m, x, tokens, row_first, row_count, y, y_stride);
}
