/* Latents of byte codes, their gradients and the choice of codewords. Must never know what a
 * matrix is for. */
#include "worker/tune_codes.h"

#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/blocks.h"
#include "worker/product.h"

enum { BAND = MATRIX_BAND, TILE_COLS = 512 };

_Static_assert(MATRIX_BAND == NEAREST_ROWS, "a group of a band is searched at once");

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

static int bands_of(const struct matrix *m)
{
    return m->type == MATRIX_CODE ? (m->rows - 1) / BAND + 1 : 0;
}

/* Where column col of a band stands. */
static size_t place(const struct matrix *m, int band, int col)
{
    return ((size_t)band * (size_t)m->cols + (size_t)col) * BAND;
}

size_t tune_codes_size(const struct matrix *m)
{
    return place(m, bands_of(m), 0);
}

size_t tune_codes_bytes(const struct matrix *m)
{
    return m->type == MATRIX_CODE ? (size_t)bands_of(m) * (size_t)blocks_groups(m) * BAND : 0;
}

float tune_codes_unit(const struct matrix *m)
{
    const struct codebook *book = m->type == MATRIX_CODE ? codebook_for((uint32_t)m->d) : NULL;
    return book ? (float)(sqrt(book->error) / (double)book->unit) : 0.0f;
}

/* z[width][64] = the first elements of a group's codewords. */
static void start_group(const struct matrix *m, const uint8_t *codes, int width, float *z)
{
    for (int k = 0; k < width; k++)
        for (int r = 0; r < BAND; r++) {
            int v = m->codebook[(codes[r] & 127) * m->d + k];
            z[k * BAND + r] = (float)(codes[r] & 128 ? -v : v);
        }
}

void tune_codes_start(const struct matrix *m, float *z)
{
    const uint8_t *codes = m->data;
    for (int b = 0; b < bands_of(m); b++)
        for (int c = 0; c < m->cols; c += m->d, codes += BAND)
            start_group(m, codes, smaller(m->d, m->cols - c), z + place(m, b, c));
}

void tune_codes_gradient(const struct matrix *m, const float *dy, const float *x, int tokens,
                         float *g)
{
    int wide = (m->cols - 1) / TILE_COLS + 1, tiles = bands_of(m) * wide;
    omp_set_num_threads(1); /* of this region's BLAS, see linear.c */
    for (int i = product_share(tiles, 0); i < product_share(tiles, 1); i++) {
        int r = i / wide * BAND, c = i % wide * TILE_COLS;
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, smaller(TILE_COLS, m->cols - c),
                    smaller(BAND, m->rows - r), tokens, 1.0f, x + c, m->cols, dy + r, m->rows, 1.0f,
                    g + place(m, i / wide, c), BAND);
    }
}

void tune_codes_to_latents(const struct matrix *m, float *g)
{
    for (int b = 0; b < bands_of(m); b++) {
        float out[BAND] = {0};
        for (int r = 0; r < smaller(BAND, m->rows - b * BAND); r++)
            out[r] = half_to_float(half_load(m->out, (size_t)(b * BAND + r)));
        for (int c = 0; c < m->cols; c++, g += BAND) {
            float in = m->in ? half_to_float(half_load(m->in, (size_t)c)) : 1.0f;
            for (int r = 0; r < BAND; r++)
                g[r] *= out[r] * in;
        }
    }
}

/* norm[word] = half the square of its first elements. */
static void half_squares(const struct matrix *m, int elements, float norm[CODEBOOK_WORDS])
{
    for (int w = 0; w < CODEBOOK_WORDS; w++) {
        const int8_t *word = m->codebook + w * m->d;
        int sum = 0;
        for (int k = 0; k < elements; k++)
            sum += word[k] * word[k];
        norm[w] = 0.5f * (float)sum;
    }
}

/* The bytes of one group, whose latents are z[d][64]. */
static void choose_group(const struct matrix *m, const struct nearest *nearest,
                         const float norm[CODEBOOK_WORDS], const float *z, uint8_t *codes)
{
    int32_t best[BAND];
    nearest_rows(nearest, norm, z, best);
    for (int r = 0; r < BAND; r++) {
        const int8_t *word = m->codebook + best[r] * m->d;
        float dot = 0;
        for (int k = 0; k < m->d; k++)
            dot += z[k * BAND + r] * (float)word[k];
        codes[r] = (uint8_t)(best[r] | (dot < 0 ? 128 : 0));
    }
}

void tune_codes_choose(const struct matrix *m, const struct nearest *nearest, const float *z,
                       uint8_t *codes)
{
    int bands = bands_of(m), groups = bands > 0 ? blocks_groups(m) : 0;
    int rest = m->cols - (groups - 1) * m->d; /* columns of the last group */
    float norm[CODEBOOK_WORDS], last_norm[CODEBOOK_WORDS], last[CODEBOOK_MAX_D * BAND] = {0};
    if (bands == 0)
        return;
    half_squares(m, m->d, norm);
    half_squares(m, rest, last_norm);
    for (int b = 0; b < bands; b++, codes += BAND) {
        for (int g = 0; g < groups - 1; g++, codes += BAND)
            choose_group(m, nearest, norm, z + place(m, b, g * m->d), codes);
        memcpy(last, z + place(m, b, m->cols - rest), (size_t)rest * BAND * sizeof *z);
        choose_group(m, nearest, last_norm, last, codes);
    }
}
