/* Byte-code product with AVX2.
 *
 * By tables: for each group a table of the 128 possible integers v = codeword . activations, split
 * in base 255: v + 128 * 255 = 255 high + low, both in [0, 255]. The one's complement of both
 * bytes stands for -v. vpshufb looks up among 16 entries and answers 0 for negative indices; so
 * part k of half a plane holds entry xor entry - 16, and the exclusive-or of all look-ups while
 * the index goes down by 16 is the entry; bit 6 of the code then chooses the half. Byte sums are
 * kept in 16-bit lanes. Zen 4 needs 15 cycles per 32 codes for 43 instructions, 18 of them for the
 * two pipes that shuffle and shift.
 *
 * By tiles, for short codewords and many tokens: the codewords of 8 rows are spread out to bytes
 * once, then multiplied for all tokens.
 *
 * The sums of a row wait in y, as int32 bits, until its last group has been added. */
#include "kernels/x86/transpose_avx2.h"

#include "kernels/code.h"
#include "kernels/correction.h"
#include "kernels/variants.h"

#define CHUNK        64   /* groups whose tables are kept at a time: 16 KiB; sums_finish: <= 128 */
#define BLOCK_ROWS   6144 /* rows that share the tables of a chunk: 384 KiB of codes, for L2 */
#define TILE_ROWS    8
#define TILE_COLUMNS 256 /* of 8 rows: 2 KiB */
#define TILE_TOKENS  4
#define MAX_D        16

#define ALWAYS_INLINE static inline __attribute__((always_inline))

struct table { /* entry xor the entry 16 before, from entry 64 on anew */
    _Alignas(32) uint8_t low[CODE_WORDS], high[CODE_WORDS];
};

struct book { /* elements 2k and 2k + 1 of every codeword; zeros past d */
    _Alignas(32) int8_t pair[MAX_D / 2][CODE_WORDS][2];
};

static void book_fill(const struct matrix *m, struct book *book)
{
    for (int k = 0; k < m->d; k += 2)
        for (int w = 0; w < CODE_WORDS; w++) {
            const int8_t *word = m->codebook + w * m->d + k;
            book->pair[k / 2][w][0] = word[0];
            book->pair[k / 2][w][1] = k + 1 < m->d ? word[1] : 0;
        }
}

/* 64 entries, half a plane: bytes[i] xor bytes[i - 16], the first 16 as they are. */
ALWAYS_INLINE void delta_store(__m256i front, __m256i back, uint8_t *plane)
{
    __m256i before = _mm256_permute2x128_si256(front, front, 0x08); /* zeros, lower part */
    __m256i middle = _mm256_permute2x128_si256(front, back, 0x21);
    _mm256_store_si256((__m256i *)plane, _mm256_xor_si256(front, before));
    _mm256_store_si256((__m256i *)(plane + 32), _mm256_xor_si256(back, middle));
}

/* Low bytes of 32 16-bit integers, in order. */
ALWAYS_INLINE __m256i bytes_pack(__m256i a, __m256i b)
{
    __m256i byte = _mm256_set1_epi16(255);
    __m256i packed = _mm256_packus_epi16(_mm256_and_si256(a, byte), _mm256_and_si256(b, byte));
    return _mm256_permute4x64_epi64(packed, 0xd8);
}

/* vpmaddubsw does not saturate: the magnitudes of a codeword sum to 257 at most. Partial sums may
 * wrap, the last one fits. */
static void build_table(const struct book *book, const int8_t *q, int d, struct table *table)
{
    const __m256i by_255 = _mm256_set1_epi16(257); /* 257 / 65536 is 1 / 255.004 */
    __m256i v[8], high[8], low[8];
    for (int i = 0; i < 8; i++)
        v[i] = _mm256_set1_epi16((int16_t)(128 * 255));
    for (int k = 0; k < d; k += 2) {
        int16_t two;
        memcpy(&two, q + k, sizeof two);
        __m256i x = _mm256_set1_epi16(two), magnitude = _mm256_abs_epi8(x);
        for (int i = 0; i < 8; i++) {
            __m256i pair = _mm256_load_si256((const __m256i *)book->pair[k / 2][16 * i]);
            __m256i dot = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(pair, x));
            v[i] = _mm256_add_epi16(v[i], dot);
        }
    }
    for (int i = 0; i < 8; i++) {
        high[i] = _mm256_mulhi_epu16(v[i], by_255);
        low[i] = _mm256_add_epi16(v[i], high[i]); /* v - 255 high modulo 256 */
    }
    for (int i = 0; i < 8; i += 4) {
        delta_store(bytes_pack(low[i], low[i + 1]), bytes_pack(low[i + 2], low[i + 3]),
                    table->low + 16 * i);
        delta_store(bytes_pack(high[i], high[i + 1]), bytes_pack(high[i + 2], high[i + 3]),
                    table->high + 16 * i);
    }
}

/* Byte sums of 32 rows: all[p] adds the bytes of even rows plus 256 times those of odd ones,
 * modulo 2^16; odd[p] those of odd rows alone. p: plane. */
struct byte_sums {
    __m256i all[2], odd[2];
};

/* b where mask is negative, else a. As an instruction of its own, since compilers put a comparison
 * before the intrinsic. */
ALWAYS_INLINE __m256i select_bytes(__m256i a, __m256i b, __m256i mask)
{
    __m256i chosen;
    __asm__("vpblendvb %3, %2, %1, %0" : "=x"(chosen) : "x"(a), "x"(b), "x"(mask));
    return chosen;
}

/* Keeps compilers from regrouping the look-ups, which would take more registers than there are. */
ALWAYS_INLINE __m256i in_this_order(__m256i x)
{
    __asm__("" : "+x"(x));
    return x;
}

ALWAYS_INLINE __m256i part_find(const uint8_t *part, __m256i at)
{
    __m128i entries = _mm_load_si128((const __m128i *)part);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(entries), at);
}

/* Entries of half a plane: at[k] is the low 6 bits of the codes less 16 k. */
ALWAYS_INLINE __m256i half_find(const uint8_t *half, const __m256i at[4])
{
    __m256i found = part_find(half, at[0]);
    for (int k = 1; k < 4; k++)
        found = in_this_order(_mm256_xor_si256(found, part_find(half + 16 * k, at[k])));
    return found;
}

ALWAYS_INLINE void sums_add(struct byte_sums *s, __m256i index, const struct table *table)
{
    const __m256i zero = _mm256_setzero_si256();
    __m256i at[4], second = _mm256_add_epi8(index, index); /* bit 6 on top */
    at[0] = _mm256_and_si256(index, _mm256_set1_epi8(63));
    for (int k = 1; k < 4; k++)
        at[k] = _mm256_sub_epi8(at[0], _mm256_set1_epi8((int8_t)(16 * k)));
    for (int p = 0; p < 2; p++) {
        const uint8_t *plane = p ? table->high : table->low;
        __m256i value =
            select_bytes(half_find(plane, at), half_find(plane + CODE_WORDS / 2, at), second);
        value = _mm256_xor_si256(value, _mm256_cmpgt_epi8(zero, index));
        s->all[p] = _mm256_add_epi16(s->all[p], value);
        s->odd[p] = _mm256_add_epi16(s->odd[p], _mm256_srli_epi16(value, 8));
    }
}

/* y[0..rows) as int32 += the sums of at most 32 rows of groups groups, whose high bytes carry 128
 * each. 255 high + low by vpmaddwd, which wants the 16-bit sums signed. */
static void sums_finish(const struct byte_sums *s, int groups, int rows, float *y)
{
    const __m256i weight = _mm256_set1_epi32(255 << 16 | 1);
    const __m256i offset = _mm256_set1_epi32(-128 * 255 * groups);
    __m256i even[2], odd[2];
    int32_t sums[32], before[32] = {0};
    for (int p = 0; p < 2; p++) { /* rows 0 1 2 3 4 5 6 7 16 .. 23, then 8 .. 15 24 .. 31 */
        __m256i e = _mm256_sub_epi16(s->all[p], _mm256_slli_epi16(s->odd[p], 8));
        even[p] = _mm256_unpacklo_epi16(e, s->odd[p]);
        odd[p] = _mm256_unpackhi_epi16(e, s->odd[p]);
    }
    for (int i = 0; i < 4; i++) {
        const __m256i *half = i < 2 ? even : odd;
        __m256i pair = i % 2 ? _mm256_unpackhi_epi16(half[0], half[1])
                             : _mm256_unpacklo_epi16(half[0], half[1]);
        __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(pair, weight), offset);
        _mm_storeu_si128((__m128i *)(sums + 4 * i), _mm256_castsi256_si128(sum));
        _mm_storeu_si128((__m128i *)(sums + 16 + 4 * i), _mm256_extracti128_si256(sum, 1));
    }
    rows = rows < 32 ? rows : 32;
    memcpy(before, y, (size_t)rows * sizeof *before);
    for (int i = 0; i < 32; i++)
        sums[i] += before[i];
    memcpy(y, sums, (size_t)rows * sizeof *sums);
}

/* ahead: the codes of the next band, fetched meanwhile. */
static __attribute__((noinline)) void look_up(const struct table *table, int groups,
                                              const uint8_t *index, const uint8_t *ahead, int rows,
                                              float *y)
{
    struct byte_sums sums;
    for (int p = 0; p < 2; p++)
        sums.all[p] = sums.odd[p] = _mm256_setzero_si256();
    for (int g = 0; g < groups; g++, index += MATRIX_BAND, ahead += MATRIX_BAND) {
        _mm_prefetch((const char *)ahead, _MM_HINT_T1);
        sums_add(&sums, _mm256_loadu_si256((const __m256i *)index), &table[g]);
    }
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

/* At most BLOCK_ROWS rows for all tokens: a chunk of codes is read from memory once and then met
 * by every token's tables. y: token 0 at the first row. */
static void block_by_table(const struct matrix *m, const struct book *book, const uint8_t *prepared,
                           int tokens, int first, int count, float *y, size_t y_stride)
{
    struct table table[CHUNK];
    size_t stride = act_bytes(m);
    int groups = blocks_groups(m);
    for (int t = 0; t < tokens; t++)
        memset(y + (size_t)t * y_stride, 0, (size_t)count * sizeof *y);
    for (int g = 0; g < groups; g += CHUNK) {
        int part = groups - g < CHUNK ? groups - g : CHUNK;
        for (int t = 0; t < tokens; t++) {
            const int8_t *q = blocks_code_q(prepared + (size_t)t * stride);
            float *sums = y + (size_t)t * y_stride;
            for (int i = 0; i < part; i++)
                build_table(book, q + (size_t)(g + i) * (size_t)m->d, m->d, &table[i]);
            for (int r = 0; r < count; r += 32) {
                int next = r + MATRIX_BAND < count ? r + MATRIX_BAND : 0; /* of the next chunk */
                int next_g = next || g + CHUNK >= groups ? g : g + CHUNK;
                look_up(table, part, blocks_band(m, first + r, g) + r % MATRIX_BAND,
                        blocks_band(m, first + next, next_g), count - r, sums + r);
            }
        }
    }
    for (int t = 0; t < tokens; t++)
        finish_rows(m, (const struct code_act *)(prepared + (size_t)t * stride), first, count,
                    y + (size_t)t * y_stride);
}

static void by_table(const struct matrix *m, const uint8_t *prepared, int tokens, int first,
                     int count, float *y, size_t y_stride)
{
    struct book book;
    book_fill(m, &book);
    for (int r = 0; r < count; r += BLOCK_ROWS)
        block_by_table(m, &book, prepared, tokens, first + r,
                       count - r < BLOCK_ROWS ? count - r : BLOCK_ROWS, y + r, y_stride);
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

/* Whether spreading codewords out pays, in tenths of cycles per 32 codes on Zen 4: 680 once and 16
 * d per token, against 170 per token of looking up. */
static bool tile_pays(int d, int tokens)
{
    return 680 + 16 * d * tokens < 170 * tokens;
}

KERNELS_PRODUCT(kernels_product_code_avx2)
{
    if (tile_pays(m->d, tokens))
        by_tile(m, prepared, tokens, row_first, row_count, y + row_first, y_stride);
    else
        by_table(m, prepared, tokens, row_first, row_count, y + row_first, y_stride);
    correction_add(m, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_BY_TABLES(kernels_code_by_tables_avx2)
{
    return !tile_pays(m->d, tokens);
}
