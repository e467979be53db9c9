/* What the weights and moments of one product say before anything is quantised: whether its columns
 * need scales of their own, and what codes of each length would lose in each of its matrices. Must
 * never know of bits. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/calibrated_private.h"

enum { CHUNK_ROWS = 64 };

/* square[n] += the squares of all rows of t, in the order of rows. chunk: CHUNK_ROWS rows. */
static enum status add_squares(const struct tensor *t, float *chunk, double *square,
                               struct error *e)
{
    for (uint64_t r = 0; r < t->rows; r += CHUNK_ROWS) {
        uint64_t count = t->rows - r < CHUNK_ROWS ? t->rows - r : CHUNK_ROWS;
        TRY(weights_rows_f32(t, r, count, chunk, e));
        for (uint64_t i = 0; i < count * t->cols; i++)
            square[i % t->cols] += (double)chunk[i] * chunk[i];
    }
    return OK;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The middle of the squares that are not 0; 0 when there are none. sorted: room for n. */
static double median(const double *square, size_t n, double *sorted)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        if (square[i] > 0)
            sorted[count++] = square[i];
    qsort(sorted, count, sizeof *sorted, by_size);
    return count ? sorted[count / 2] : 0;
}

/* Powers of two, so that scaling a weight or an activation rounds nothing; within F16's normal
 * range. */
static bool powers_of_two(const double *square, size_t n, double middle, float *scale)
{
    bool wanted = false;
    for (size_t i = 0; i < n; i++) {
        double exponent = square[i] > 0 ? round(log2(square[i] / middle) / 2) : 0;
        exponent = exponent < -12 ? -12 : exponent > 12 ? 12 : exponent;
        wanted = wanted || fabs(exponent) >= 2;
        scale[i] = (float)ldexp(1, (int)exponent);
    }
    return wanted;
}

static enum status column_squares(struct calibrated *c, double *square, struct error *e)
{
    const struct tensor *first = calibrated_tensor(c, 0);
    float *chunk;
    TRY(mem_array(&chunk, CHUNK_ROWS * first->cols, sizeof *chunk, "rows of a matrix", e));
    enum status status = OK;
    for (int i = 0; i < calibrated_count(c) && status == OK; i++)
        status = add_squares(calibrated_tensor(c, i), chunk, square, e);
    free(chunk);
    return status;
}

enum status calibrated_column_scale(struct calibrated *c, float **scale, struct error *e)
{
    size_t n = calibrated_tensor(c, 0)->cols;
    double *square;
    *scale = NULL;
    TRY(mem_array(&square, 2 * n, sizeof *square, "squares of columns", e));
    enum status status = column_squares(c, square, e);
    if (status == OK)
        status = mem_array(scale, n, sizeof **scale, "column scales", e);
    if (status == OK && !powers_of_two(square, n, median(square, n, square + n), *scale)) {
        free(*scale);
        *scale = NULL;
    }
    free(square);
    return status;
}

/* rows[count][cols] = rows of t, evenly over the matrix, as the search will see them. */
static enum status sample(const struct tensor *t, const float *scale, float *rows, int count,
                          struct error *e)
{
    for (int r = 0; r < count; r++) {
        float *w = rows + (size_t)r * t->cols;
        TRY(weights_rows_f32(t, (uint64_t)r * t->rows / (uint64_t)count, 1, w, e));
        for (uint64_t i = 0; scale && i < t->cols; i++)
            w[i] /= scale[i];
    }
    return OK;
}

/* *loss = what codes of this book lose per weight of the rows. A row beyond what codes can hold
 * counts nothing here: the search itself will refuse it. */
static enum status try_codes(const struct codebook *book, const struct curvature *k,
                             const struct recipe *recipe, const float *rows, int count,
                             double *loss, struct error *e)
{
    struct code_search *search = NULL;
    struct band_loss sums = {0};
    uint16_t scale[FORM_BAND];
    uint8_t *codes = NULL;
    float *scratch = NULL;
    size_t groups = ((size_t)k->n + book->d - 1) / book->d;
    enum status status = code_search_create(&search, book, k, recipe, e);
    if (status == OK)
        status = mem_array(&scratch, code_search_scratch(search), sizeof *scratch,
                           "a trial of codes", e);
    if (status == OK)
        status = mem_array(&codes, groups * FORM_BAND, 1, "a trial of codes", e);
    if (status == OK && code_search_band(search, rows, count, scratch, codes, scale, &sums))
        *loss = sums.final / ((double)count * k->n);
    free(codes);
    free(scratch);
    code_search_free(search);
    return status;
}

/* loss [CODEBOOK_COUNT] of the sampled rows, by the very search that the matrix will meet. */
static enum status try_all(const struct calibrated *c, const struct curvature *k, const float *rows,
                           int count, double *loss, struct error *e)
{
    enum status status = OK;
#pragma omp parallel for num_threads(c->threads) schedule(dynamic)
    for (int d = 0; d < CODEBOOK_COUNT; d++) {
        struct error mine = {0};
        if (try_codes(&codebook_table[d], k, &c->recipe, rows, count, &loss[d], &mine) == OK)
            continue;
#pragma omp critical(try_all)
        if (status == OK) {
            status = mine.status;
            *e = mine;
        }
    }
    return status;
}

static enum status send_measured(struct calibrated *c, const struct curvature *k, int i,
                                 const float *scale, struct error *e)
{
    enum tensor_kind kinds[PRODUCT_MAX];
    const struct tensor *t = calibrated_tensor(c, i);
    int count = t->rows < FORM_BAND ? (int)t->rows : FORM_BAND;
    struct message m = {.kind = MSG_MEASURED};
    float *rows;
    calib_kinds(c->step, kinds);
    m.measured.block = c->block;
    m.measured.kind = (uint32_t)kinds[i];
    m.measured.columns = scale != NULL;
    TRY(mem_array(&rows, (size_t)count * t->cols, sizeof *rows, "rows of a matrix", e));
    enum status status = sample(t, scale, rows, count, e);
    if (status == OK)
        status = try_all(c, k, rows, count, m.measured.loss, e);
    free(rows);
    TRY(status);
    TRY(loop_alive(c->loop, e));
    return loop_send(c->loop, 0, &m, e);
}

enum status calibrated_measure(struct calibrated *c, struct error *e)
{
    struct moments_node sum;
    struct curvature *k = NULL;
    float *scale = NULL;
    TRY(calibrated_node(c, &sum, e));
    TRY(loop_alive(c->loop, e));
    TRY(curvature_create(&k, &sum, c->recipe.shrink, c->recipe.damp, true, c->threads,
                         calibrated_tensor(c, 0)->name, e));
    enum status status = OK;
    if (c->recipe.columns)
        status = calibrated_column_scale(c, &scale, e);
    if (scale)
        curvature_scale(k, scale);
    for (int i = 0; i < calibrated_count(c) && status == OK; i++)
        status = send_measured(c, k, i, scale, e);
    curvature_free(k);
    free(scale);
    return status;
}
