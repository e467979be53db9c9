/* y = W x for byte codes, the specification. The integers are exact, so any order gives these bits:
 * here a table of codeword . activations is built for some groups at a time and each index byte is
 * one look-up. */
#include "kernels/code.h"
#include "kernels/correction.h"
#include "kernels/variants.h"

#define CHUNK 32 /* groups per table: 16 KiB */

/* table[index] = +-codeword . q for all 256 indices; |table| <= 257 * 127 fits int16. */
static void build_table(const struct matrix *m, const int8_t *q, int16_t table[2 * CODE_WORDS])
{
    for (int word = 0; word < CODE_WORDS; word++) {
        int dot = 0;
        for (int k = 0; k < m->d; k++)
            dot += m->codebook[word * m->d + k] * q[k];
        table[word] = (int16_t)dot;
        table[word + CODE_WORDS] = (int16_t)-dot;
    }
}

static void add_groups(const uint8_t *index, int groups, int16_t (*table)[2 * CODE_WORDS], int rows,
                       int32_t *sums)
{
    for (int g = 0; g < groups; g++, index += MATRIX_BAND)
        for (int i = 0; i < rows; i++)
            sums[i] += table[g][index[i]];
}

/* y[0..rows), so far integer sums, become results; row is its first row. */
static void finish_band(const struct matrix *m, const struct code_act *act, int row, int rows,
                        float *y)
{
    float apart[MATRIX_BAND];
    code_apart(m, act, row, rows, apart);
    for (int i = 0; i < rows; i++) {
        int32_t sum;
        memcpy(&sum, y + i, sizeof sum);
        float out = half_to_float(half_load(m->out, (size_t)(row + i)));
        y[i] = out * fmaf(act->scale, (float)sum, apart[i]);
    }
}

static int band_rows(int count, int r)
{
    return count - r < MATRIX_BAND ? count - r : MATRIX_BAND;
}

/* Rows [first, first + count) for one token. So that each table is built once, the sums of all rows
 * wait in y, as int32 bits, from one set of tables to the next. */
static void token(const struct matrix *m, const uint8_t *prepared, int first, int count, float *y)
{
    int16_t table[CHUNK][2 * CODE_WORDS];
    const int8_t *q = blocks_code_q(prepared);
    int groups = blocks_groups(m);
    memset(y, 0, (size_t)count * sizeof *y);
    for (int g = 0; g < groups; g += CHUNK) {
        int part = groups - g < CHUNK ? groups - g : CHUNK;
        for (int i = 0; i < part; i++)
            build_table(m, q + (size_t)(g + i) * (size_t)m->d, table[i]);
        for (int r = 0; r < count; r += MATRIX_BAND) {
            int32_t sums[MATRIX_BAND];
            size_t bytes = (size_t)band_rows(count, r) * sizeof *sums;
            memcpy(sums, y + r, bytes);
            add_groups(blocks_band(m, first + r, g), part, table, band_rows(count, r), sums);
            memcpy(y + r, sums, bytes);
        }
    }
    for (int r = 0; r < count; r += MATRIX_BAND)
        finish_band(m, (const struct code_act *)prepared, first + r, band_rows(count, r), y + r);
}

KERNELS_PRODUCT(kernels_product_code_scalar)
{
    size_t stride = act_bytes(m);
    for (int t = 0; t < tokens; t++)
        token(m, (const uint8_t *)prepared + (size_t)t * stride, row_first, row_count,
              y + (size_t)t * y_stride + row_first);
    correction_add(m, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_BY_TABLES(kernels_code_by_tables_scalar)
{
    (void)m;
    (void)tokens;
    return true;
}
