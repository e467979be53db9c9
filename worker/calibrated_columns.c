/* What the weights and moments of one product say before anything is quantised: whether its columns
 * need scales of their own, and what codes of each length and standard types would lose in each of
 * its matrices. Must never know of bits. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/calibrated_private.h"
#include "worker/median.h"

enum { CHUNK_ROWS = 64, ACT_BLOCK = 32, ACT_TOP = 127 };

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
    if (status == OK && !powers_of_two(square, n, median_positive(square, n, square + n), *scale)) {
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

enum status calibrated_unscale(struct curvature *k, const float *scale, struct error *e)
{
    float *inverse;
    TRY(mem_array(&inverse, (size_t)k->n, sizeof *inverse, "column scales", e));
    for (int i = 0; i < k->n; i++)
        inverse[i] = 1 / scale[i];
    curvature_scale(k, inverse);
    free(inverse);
    return OK;
}

/* A search that is tried on some rows: of codes, or of a standard type. */
struct trial {
    struct code_search *code; /* one of these */
    struct block_search *blocks;
    float *scratch;
    uint8_t *bytes;
};

static enum status open_trial(struct trial *t, int choice, const struct curvature *k,
                              const struct recipe *recipe, struct error *e)
{
    uint32_t d;
    enum unit_method method = form_choice(choice, &d);
    if (method == UNIT_CODE)
        TRY(code_search_create(&t->code, codebook_for(d), k, recipe, e));
    else
        TRY(block_search_create(&t->blocks, form_dtype(method), k, recipe, e));
    TRY(mem_array(&t->scratch,
                  t->code ? code_search_scratch(t->code) : block_search_scratch(t->blocks),
                  sizeof *t->scratch, "a trial of a form", e));
    size_t row = (size_t)k->n + (size_t)k->n / 16 + 1; /* bytes of Q8_0 */
    return mem_array(&t->bytes, FORM_BAND * row, 1, "a trial of a form", e);
}

/* *loss = what a choice loses per weight of the rows. A row beyond what it can hold counts nothing
 * here: the search itself will refuse it. */
static enum status try_choice(int choice, const struct curvature *k, const struct recipe *recipe,
                              const float *rows, int count, double *loss, struct error *e)
{
    struct trial t = {0};
    struct band_loss sums = {0};
    uint16_t scale[FORM_BAND];
    enum status status = open_trial(&t, choice, k, recipe, e);
    bool fits = status == OK &&
                (t.code ? code_search_band(t.code, rows, count, t.scratch, t.bytes, scale, &sums)
                        : block_search_band(t.blocks, rows, count, t.scratch, t.bytes, &sums));
    if (fits)
        *loss = sums.final / ((double)count * k->n);
    free(t.bytes);
    free(t.scratch);
    code_search_free(t.code);
    block_search_free(t.blocks);
    return status;
}

/* Whether this rank tries a choice of matrix i: all ranks take turns. */
static bool is_mine(const struct calibrated *c, int i, int choice)
{
    const struct transport *t = c->loop->transport;
    return (i * UNIT_CHOICES + choice) % t->size == t->rank;
}

/* loss[from] to loss[to - 1] of the sampled rows of matrix m, those of this rank, by the very searches that the
 * matrix will meet. */
static enum status try_choices(const struct calibrated *c, const struct curvature *k, int m,
                               int from, int to, const float *rows, int count, double *loss,
                               struct error *e)
{
    enum status status = OK;
#pragma omp parallel for num_threads(c->threads) schedule(dynamic)
    for (int i = from; i < to; i++) {
        struct error mine = {0};
        if (!is_mine(c, m, i) || try_choice(i, k, &c->recipe, rows, count, &loss[i], &mine) == OK)
            continue;
#pragma omp critical(try_choices)
        if (status == OK) {
            status = mine.status;
            *e = mine;
        }
    }
    return status;
}

/* Standard types meet activations as integers up to 127 with one scale for 32 columns, so that small ones
 * drown beside a large one. The mean square of that rounding is the step's square / 12, and the step
 * at least the root mean square of the block's largest column / 127. What the rows lose by it, per
 * weight. */
static double activation_loss(const struct curvature *k, const float *rows, int count)
{
    double loss = 0;
    for (int first = 0; first < k->n; first += ACT_BLOCK) {
        double largest = 0, squares = 0;
        for (int j = first; j < first + ACT_BLOCK; j++) {
            largest = fmax(largest, (double)k->h[(size_t)j * (size_t)k->n + (size_t)j]);
            for (int r = 0; r < count; r++) {
                double w = rows[(size_t)r * (size_t)k->n + (size_t)j];
                squares += w * w;
            }
        }
        loss += squares * largest / (12.0 * ACT_TOP * ACT_TOP);
    }
    return loss / ((double)count * k->n);
}

/* The choices from to to of matrix i, in columns scaled or not, as k is. */
static enum status measure_matrix(const struct calibrated *c, const struct curvature *k, int i,
                                  int from, int to, const float *scale, double *loss,
                                  struct error *e)
{
    const struct tensor *t = calibrated_tensor(c, i);
    int count = t->rows < FORM_BAND ? (int)t->rows : FORM_BAND;
    float *rows;
    TRY(mem_array(&rows, (size_t)count * t->cols, sizeof *rows, "rows of a matrix", e));
    enum status status = sample(t, scale, rows, count, e);
    if (status == OK)
        status = try_choices(c, k, i, from, to, rows, count, loss, e);
    for (int choice = CODEBOOK_COUNT; choice < to; choice++)
        if (is_mine(c, i, choice))
            loss[choice] += activation_loss(k, rows, count);
    free(rows);
    return status;
}

/* Codes have column scales where they pay; standard types never. */
static enum status measure_all(struct calibrated *c, struct curvature *k, const float *scale,
                               double loss[][UNIT_CHOICES], struct error *e)
{
    bool whole = k->n % (int)dtype_info(DTYPE_Q8_0)->block == 0; /* Q4_0's block is the same */
    if (scale)
        curvature_scale(k, scale);
    for (int i = 0; i < calibrated_count(c); i++) {
        TRY(measure_matrix(c, k, i, 0, CODEBOOK_COUNT, scale, loss[i], e));
        TRY(loop_alive(c->loop, e));
    }
    if (scale)
        TRY(calibrated_unscale(k, scale, e));
    for (int i = 0; i < calibrated_count(c) && whole; i++) {
        TRY(measure_matrix(c, k, i, CODEBOOK_COUNT, UNIT_CHOICES, NULL, loss[i], e));
        TRY(loop_alive(c->loop, e));
    }
    return OK;
}

static enum status send_measured(struct calibrated *c, bool columns, double loss[][UNIT_CHOICES],
                                 struct error *e)
{
    enum tensor_kind kinds[PRODUCT_MAX];
    calib_kinds(c->step, kinds);
    for (int i = 0; i < calibrated_count(c); i++) {
        struct message m = {.kind = MSG_MEASURED};
        m.measured.block = c->block;
        m.measured.kind = (uint32_t)kinds[i];
        m.measured.columns = columns;
        memcpy(m.measured.loss, loss[i], sizeof m.measured.loss);
        TRY(loop_send(c->loop, 0, &m, e));
    }
    return OK;
}

enum status calibrated_measure(struct calibrated *c, struct error *e)
{
    struct moments_node sum;
    struct curvature *k = NULL;
    float *scale = NULL;
    double loss[PRODUCT_MAX][UNIT_CHOICES] = {0};
    TRY(calibrated_node(c, &sum, e));
    TRY(loop_alive(c->loop, e));
    TRY(curvature_create(&k, &sum, c->recipe.shrink, c->recipe.damp, true, c->threads,
                         calibrated_tensor(c, 0)->name, e));
    enum status status = OK;
    if (c->recipe.columns)
        status = calibrated_column_scale(c, &scale, e);
    if (status == OK)
        status = measure_all(c, k, scale, loss, e);
    if (status == OK)
        status = send_measured(c, scale != NULL, loss, e);
    curvature_free(k);
    free(scale);
    return status;
}
