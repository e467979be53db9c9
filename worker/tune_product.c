/* Row multipliers, and gradients through products and what stands between them. Must never know
 * what a matrix is for. */
#include "worker/tune_product.h"

#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "common/exactmath.h"
#include "common/mem.h"
#include "kernels/blocks.h"

enum {
    TILE_ROWS = 256, /* of a matrix that are floats at a time */
    TILE_COLS = 256, /* and TILE_TOKENS: what one call of sgemm makes */
    TILE_TOKENS = 128,
    TILE_GAP = 16, /* floats between rows: a codeword may overhang, and rows must not lie 4096 bytes
                       * apart, where they would share a set of the cache */
    SUM_COLS = 64  /* columns whose sums one thread keeps */
};

_Static_assert(TILE_GAP >= 16, "a codeword has up to 16 weights");

/* Row multipliers */

/* Where F16 scales stand: each bytes apart, so many a row. */
struct scales {
    size_t stride, per_row;
};

static struct scales scales_of(const struct matrix *m)
{
    if (m->type == MATRIX_CODE)
        return (struct scales){sizeof(uint16_t), 1};
    if (m->type == MATRIX_F32 || m->type == MATRIX_BF16)
        return (struct scales){0, 0};
    return (struct scales){blocks_bytes(m->type), (size_t)(m->cols / blocks_weights(m->type))};
}

size_t tune_matrix_scales(const struct matrix *m)
{
    return scales_of(m).per_row * (size_t)m->rows;
}

void tune_matrix_base(const struct matrix *m, uint16_t *base)
{
    const struct scales s = scales_of(m);
    const uint8_t *stored = m->type == MATRIX_CODE ? (const uint8_t *)m->out : m->data;
    for (size_t i = 0; i < s.per_row * (size_t)m->rows; i++)
        base[i] = half_load(stored + i * s.stride, 0);
}

static uint16_t multiplied(uint16_t base, double factor)
{
    const double most = 65504;
    double scale = (double)half_to_float(base) * factor;
    return half_from_float((float)(scale > most ? most : scale < -most ? -most : scale));
}

void tune_matrix_apply(const struct matrix *m, void *stored, const uint16_t *base, const float *log)
{
    const struct scales s = scales_of(m);
    uint8_t *to = stored;
    for (size_t r = 0; s.per_row > 0 && r < (size_t)m->rows; r++) {
        double factor = exact_exp((double)log[r]);
        for (size_t i = r * s.per_row; i < (r + 1) * s.per_row; i++) {
            uint16_t scale = multiplied(base[i], factor);
            memcpy(to + i * s.stride, &scale, sizeof scale);
        }
    }
}

void tune_norm_apply(float *weight, const float *base, const float *log, size_t n)
{
    for (size_t i = 0; i < n; i++)
        weight[i] = (float)((double)base[i] * exact_exp((double)log[i]));
}

/* Products */

enum status tune_tile_create(struct tune_tile *t, size_t cols, struct error *e)
{
    const char *what = "weights as floats";
    memset(t, 0, sizeof *t);
    t->cols = cols;
    TRY(mem_array(&t->columns, cols, sizeof *t->columns, what, e));
    return mem_array(&t->weights, TILE_ROWS * (cols + TILE_GAP), sizeof *t->weights, what, e);
}

void tune_tile_free(struct tune_tile *t)
{
    free(t->weights);
    free(t->columns);
    memset(t, 0, sizeof *t);
}

/* Row r of a CODE matrix. words: codewords as floats, whose unused elements are written over by
 * the next group's, and after the last one lie in the gap. */
static void decode_row(const struct matrix *m, int r, const float (*words)[16],
                       const float *columns, float *out)
{
    float scale = half_to_float(half_load(m->out, (size_t)r));
    const uint8_t *index = blocks_band(m, r, 0) + r % MATRIX_BAND;
    int groups = blocks_groups(m), d = m->d;
    for (int g = 0; g < groups; g++, index += MATRIX_BAND) {
        const float *word = words[*index & 127];
        float s = *index & 128 ? -scale : scale, *to = out + (size_t)g * (size_t)d;
        for (int k = 0; k < 16; k++)
            to[k] = word[k] * s;
    }
    for (int c = 0; m->in && c < m->cols; c++)
        out[c] *= columns[c];
}

/* weights[i] = row first + i, for this thread's of the rows. */
static void decode_rows(const struct matrix *m, int first, int rows, const struct tune_tile *t)
{
    float words[128][16] = {{0}};
    size_t stride = (size_t)m->cols + TILE_GAP;
    int from = product_share(rows, 0), end = product_share(rows, 1);
    for (int i = 0; m->type == MATRIX_CODE && i < 128 * m->d; i++)
        words[i / m->d][i % m->d] = m->codebook[i];
    for (int i = from; i < end; i++) {
        float *out = t->weights + (size_t)i * stride;
        if (m->type == MATRIX_CODE)
            decode_row(m, first + i, words, t->columns, out);
        else
            kernels.row[m->type](m, first + i, out);
    }
}

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

/* dx (+)= dy[tokens][the tile's rows of all] W, tile by tile of dx. */
static void multiply_tile(const struct matrix *m, const float *dy, int tokens, int rows,
                          const struct tune_tile *t, bool add, float *dx)
{
    int wide = (m->cols - 1) / TILE_COLS + 1, tiles = wide * ((tokens - 1) / TILE_TOKENS + 1);
    for (int i = product_share(tiles, 0); i < product_share(tiles, 1); i++) {
        int c = i % wide * TILE_COLS, token = i / wide * TILE_TOKENS;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, smaller(TILE_TOKENS, tokens - token),
                    smaller(TILE_COLS, m->cols - c), rows, 1.0f,
                    dy + (size_t)token * (size_t)m->rows, m->rows, t->weights + c,
                    m->cols + TILE_GAP, add ? 1.0f : 0.0f, dx + (size_t)token * (size_t)m->cols + c,
                    m->cols);
    }
}

static void load_columns(const struct matrix *m, const struct tune_tile *t)
{
    if (!m->in)
        return;
    for (int c = product_share(m->cols, 0); c < product_share(m->cols, 1); c++)
        t->columns[c] = half_to_float(half_load(m->in, (size_t)c));
#pragma omp barrier
}

void tune_product_backward(const struct product *p, float *const *dy, int tokens,
                           const struct tune_tile *t, float *dx)
{
    omp_set_num_threads(1); /* of this region's BLAS, see linear.c */
    for (int i = 0; i < p->count; i++) {
        const struct matrix *m = &p->m[i];
        load_columns(m, t);
        for (int r = 0; r < m->rows; r += TILE_ROWS) {
            int rows = smaller(TILE_ROWS, m->rows - r);
            decode_rows(m, r, rows, t);
#pragma omp barrier
            multiply_tile(m, dy[i] + r, tokens, rows, t, i > 0 || r > 0, dx);
#pragma omp barrier
        }
    }
}

/* Vectors */

static void column_sums(const float *dy, const float *y, int tokens, int rows, int first, float *g,
                        float *energy)
{
    double product[SUM_COLS] = {0}, square[SUM_COLS] = {0};
    int n = smaller(SUM_COLS, rows - first);
    for (int t = 0; t < tokens; t++) {
        const float *a = dy + (size_t)t * (size_t)rows + first;
        const float *b = y + (size_t)t * (size_t)rows + first;
        for (int i = 0; i < n; i++)
            product[i] += (double)a[i] * (double)b[i];
        for (int i = 0; energy && i < n; i++)
            square[i] += (double)a[i] * (double)a[i];
    }
    for (int i = 0; i < n; i++)
        g[first + i] += (float)product[i];
    for (int i = 0; energy && i < n; i++)
        energy[first + i] += (float)square[i];
}

void tune_row_gradient(const float *dy, const float *y, int tokens, int rows, float *g,
                       float *energy)
{
    int parts = (rows - 1) / SUM_COLS + 1;
    for (int i = product_share(parts, 0); i < product_share(parts, 1); i++)
        column_sums(dy, y, tokens, rows, i * SUM_COLS, g, energy);
}

void tune_norm_backward(const float *x, const float *weight, int n, float eps, const float *dy,
                        float *dx)
{
    double square = 0, dot = 0;
    for (int i = 0; i < n; i++) {
        square += (double)x[i] * (double)x[i];
        dot += (double)weight[i] * (double)dy[i] * (double)x[i];
    }
    double r = 1 / sqrt(square / n + (double)eps);
    float scale = (float)r, along = (float)(r * r * r / n * dot);
    for (int i = 0; i < n; i++)
        dx[i] = scale * (weight[i] * dy[i]) - along * x[i];
}

void tune_swiglu_backward(const float *gate, const float *up, int n, const float *dy, float *dgate,
                          float *dup)
{
    for (int i = 0; i < n; i++) {
        float g = gate[i], s = 1.0f / (1.0f + expf(-g)), d = dy[i];
        dup[i] = d * g * s;
        dgate[i] = d * up[i] * s * (1.0f + g * (1.0f - s));
    }
}
