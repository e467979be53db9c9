/* One row of a matrix as floats (embedding gather). One variant: a row is read once per token. */
#include "kernels/code.h"
#include "kernels/correction.h"
#include "kernels/variants.h"

static void row_float(const struct matrix *m, int r, float *out)
{
    const uint8_t *row = blocks_row(m, r);
    if (m->type == MATRIX_F32)
        memcpy(out, row, (size_t)m->cols * sizeof *out);
    for (int c = 0; m->type == MATRIX_F16 && c < m->cols; c++)
        out[c] = half_to_float(half_load(row, (size_t)c));
    for (int c = 0; m->type == MATRIX_BF16 && c < m->cols; c++)
        out[c] = half_from_bfloat(half_load(row, (size_t)c));
}

static void row_block(const struct matrix *m, int r, float *out)
{
    const uint8_t *block = blocks_row(m, r);
    int weights = blocks_weights(m->type);
    for (int c = 0; c < m->cols; c += weights, block += blocks_bytes(m->type)) {
        int8_t w[BLOCK_MAX_WEIGHTS];
        float d = blocks_decode(m->type, block, w);
        for (int j = 0; j < weights; j++)
            out[c + j] = d * (float)w[j];
    }
}

static void row_code(const struct matrix *m, int r, float *out)
{
    float scale = half_to_float(half_load(m->out, (size_t)r));
    for (int c = 0; c < m->cols; c++) {
        uint8_t index = blocks_band(m, r, c / m->d)[r % MATRIX_BAND];
        float in = m->in ? half_to_float(half_load(m->in, (size_t)c)) : 1.0f;
        out[c] = scale * (float)code_weight(m, index, c % m->d) * in;
    }
}

void kernels_matrix_row(const struct matrix *m, int r, float *out)
{
    if (m->type == MATRIX_CODE)
        row_code(m, r, out);
    else if (m->type >= MATRIX_Q8_0)
        row_block(m, r, out);
    else
        row_float(m, r, out);
    if (!m->outlier_start)
        return;
    for (size_t entry = m->outlier_start[r]; entry < m->outlier_start[r + 1]; entry++)
        out[correction_column(m, entry)] += half_to_float(half_load(m->outlier_value, entry));
}
