/* The search of this rank's bands of a product: target, codes, and what is sent of them. Must never know where the
 * moments come from. */
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/calibrated_private.h"
#include "worker/quantise_blocks.h"

enum { DELIVER_BYTES = 4 << 20 };

#define QEP_DAMP 0.01 /* as published (Arai & Ichikawa 2025) */

/* The column scales as F16, into the student's .code_in. */
static enum status store_columns(struct calibrated *c, struct shared_unit *u, struct error *e)
{
    size_t n = (size_t)u->student.cols;
    uint16_t *half;
    TRY(mem_array(&half, n, sizeof *half, "column scales", e));
    for (size_t i = 0; i < n; i++)
        half[i] = f32_to_f16(c->column_scale[i]);
    enum status status = student_part(&u->student, ".code_in", 0, half, n * sizeof *half, e);
    free(half);
    return status;
}

static enum status prepare_columns(struct calibrated *c, struct error *e)
{
    bool wanted = false;
    for (int i = 0; i < calibrated_count(c); i++)
        wanted = wanted || calibrated_unit(c, i)->unit.columns;
    if (!wanted)
        return OK;
    TRY(calibrated_column_scale(c, &c->column_scale, e));
    FAIL_IF(!c->column_scale, e, ERR_PEER, "asked for column scales where columns are alike");
    for (int i = 0; i < calibrated_count(c); i++)
        if (calibrated_unit(c, i)->unit.columns && !calibrated_unit(c, i)->unit.done)
            TRY(store_columns(c, calibrated_unit(c, i), e));
    return OK;
}

enum status calibrated_prepare(struct calibrated *c, struct error *e)
{
    const char *name = calibrated_tensor(c, 0)->name;
    struct moments_node sum;
    TRY(calibrated_node(c, &sum, e));
    TRY(loop_alive(c->loop, e));
    if (calibrated_cross(c))
        TRY(curvature_qep(&c->correction, &sum, c->recipe.qep, QEP_DAMP, c->threads, name, e));
    moments_drop_cross(c->moments);
    TRY(loop_alive(c->loop, e));
    TRY(curvature_create(&c->curvature, &sum, c->recipe.shrink, c->recipe.damp, c->recipe.feedback,
                         c->threads, name, e));
    return prepare_columns(c, e);
}

void calibrated_forget(struct calibrated *c)
{
    curvature_free(c->curvature);
    free(c->correction);
    free(c->column_scale);
    c->curvature = NULL;
    c->correction = c->column_scale = NULL;
    c->scaled = false;
}

static bool searched(enum unit_method method)
{
    return method != UNIT_F16 && method != UNIT_F32 && method != UNIT_BF16;
}

int calibrated_bands(const struct shared_unit *u)
{
    return (u->student.rows + FORM_BAND - 1) / FORM_BAND;
}

/* Codes see scaled columns where these pay, standard types of the same product never. */
static enum status scale_curvature(struct calibrated *c, bool scaled, struct error *e)
{
    if (scaled && !c->scaled)
        curvature_scale(c->curvature, c->column_scale);
    if (!scaled && c->scaled)
        TRY(calibrated_unscale(c->curvature, c->column_scale, e));
    c->scaled = scaled;
    return OK;
}

enum status calibrated_open_search(struct calibrated *c, struct error *e)
{
    const struct transport *t = c->loop->transport;
    const struct shared_unit *u = calibrated_unit(c, c->matrix);
    struct matrix_search *s = &c->search;
    int64_t bands = calibrated_bands(u);
    *s = (struct matrix_search){.next = (int)(bands * t->rank / t->size),
                                .end = (int)(bands * (t->rank + 1) / t->size)};
    c->since = loop_now();
    TRY(scale_curvature(c, u->unit.columns, e));
    if (u->student.method == UNIT_CODE) {
        TRY(code_search_create(&s->code, codebook_for(u->student.d), c->curvature, &c->recipe, e));
        s->scratch_floats = code_search_scratch(s->code);
    } else if (searched(u->student.method)) {
        TRY(block_search_create(&s->blocks, form_dtype(u->student.method), c->curvature, &c->recipe,
                                e));
        s->scratch_floats = block_search_scratch(s->blocks);
    }
    return mem_array(&s->scratch, s->scratch_floats * (size_t)c->threads, sizeof *s->scratch,
                     "the search of a matrix", e);
}

void calibrated_close_search(struct calibrated *c)
{
    code_search_free(c->search.code);
    block_search_free(c->search.blocks);
    free(c->search.scratch);
    c->search = (struct matrix_search){0};
}

/* A band on its way; each thread works on one. */
struct band {
    int number, rows;
    float *weights, *target; /* [64][cols] */
    uint8_t *bytes;          /* of the main tensor */
    uint16_t scale[FORM_BAND];
    struct band_loss loss;
    enum status status;
    struct error error;
};

/* Bytes of the main tensor that a band of rows rows takes. */
static size_t band_bytes(const struct student_matrix *s, int rows)
{
    const struct form_tensor *t = &s->form.tensor[0];
    return s->method == UNIT_CODE ? FORM_BAND * t->dim[1]
                                  : (size_t)(t->bytes / (uint64_t)s->rows) * (size_t)rows;
}

/* target = (w + w P) / column scales, if it has them */
static enum status make_target(const struct calibrated *c, struct band *b, struct error *e)
{
    const struct shared_unit *u = calibrated_unit(c, c->matrix);
    size_t n = (size_t)u->student.cols, count = n * (size_t)b->rows;
    TRY(weights_rows_f32(calibrated_tensor(c, c->matrix), (uint64_t)b->number * FORM_BAND,
                         (uint64_t)b->rows, b->weights, e));
    memcpy(b->target, b->weights, count * sizeof *b->target);
    if (c->correction)
        curvature_apply(c->correction, calibrated_shape(c), b->weights, b->rows, b->target);
    for (size_t i = 0; c->scaled && i < count; i++)
        b->target[i] /= c->column_scale[i % n];
    return OK;
}

static bool round_rows(const struct student_matrix *s, struct band *b)
{
    enum dtype dtype = form_dtype(s->method);
    bool fits = true;
    memset(&b->loss, 0, sizeof b->loss);
    for (int r = 0; r < b->rows; r++) {
        struct row_error error;
        fits = blocks_encode_row(dtype, b->target + (size_t)r * (size_t)s->cols, s->cols,
                                 b->bytes + (size_t)r * band_bytes(s, 1), &error) &&
               fits;
        b->loss.error2 += error.error2;
        b->loss.weight2 += error.weight2;
    }
    return fits;
}

static enum status search_band(const struct calibrated *c, struct band *b, float *scratch,
                               struct error *e)
{
    const struct student_matrix *s = &calibrated_unit(c, c->matrix)->student;
    const struct tensor *t = calibrated_tensor(c, c->matrix);
    TRY(make_target(c, b, e));
    bool fits = c->search.code     ? code_search_band(c->search.code, b->target, b->rows, scratch,
                                                      b->bytes, b->scale, &b->loss)
                : c->search.blocks ? block_search_band(c->search.blocks, b->target, b->rows,
                                                       scratch, b->bytes, &b->loss)
                                   : round_rows(s, b);
    FAIL_IF(!fits, e, ERR_LIMIT,
            "%s: tensor %s has weights beyond what %s can hold: a sound model has none so large, "
            "so get or make that file again",
            t->file, t->name, form_name(s->method));
    return OK;
}

/* To all other ranks and to this rank's own student. */
static enum status publish(struct calibrated *c, struct shared_unit *u, const char *suffix,
                           uint64_t offset, const void *data, size_t size, struct error *e)
{
    struct message m = {.kind = MSG_PART, .payload = data, .payload_bytes = size};
    m.part.unit = u->unit.index;
    m.part.offset = offset;
    snprintf(m.part.suffix, sizeof m.part.suffix, "%s", suffix);
    for (int r = 0; r < c->loop->transport->size; r++)
        if (r != c->loop->transport->rank) {
            TRY(loop_send(c->loop, r, &m, e));
            c->loop->stats.messages++;
            c->loop->stats.sent_bytes += size;
            c->loop->stats.sent_raw_bytes += size;
        }
    return student_part(&u->student, suffix, offset, data, size, e);
}

/* Losses are for rank 0 alone. */
static enum status publish_loss(struct calibrated *c, struct shared_unit *u, const struct band *b,
                                struct error *e)
{
    struct message m = {.kind = MSG_PART, .payload = &b->loss, .payload_bytes = sizeof b->loss};
    if (c->loop->transport->rank == 0) {
        u->loss[b->number] = b->loss;
        u->losses++;
        return OK;
    }
    m.part.unit = u->unit.index;
    m.part.offset = (uint64_t)b->number * sizeof b->loss;
    snprintf(m.part.suffix, sizeof m.part.suffix, ".loss");
    return loop_send(c->loop, 0, &m, e);
}

static enum status publish_band(struct calibrated *c, const struct band *b, struct error *e)
{
    struct shared_unit *u = calibrated_unit(c, c->matrix);
    uint64_t first = (uint64_t)b->number * FORM_BAND;
    TRY(publish(c, u, u->student.form.tensor[0].suffix,
                (uint64_t)b->number * band_bytes(&u->student, FORM_BAND), b->bytes,
                band_bytes(&u->student, b->rows), e));
    if (u->student.method == UNIT_CODE)
        TRY(publish(c, u, ".code_out", first * sizeof *b->scale, b->scale,
                    (size_t)b->rows * sizeof *b->scale, e));
    return publish_loss(c, u, b, e);
}

static enum status open_band(const struct calibrated *c, struct band *b, int number,
                             struct error *e)
{
    const struct student_matrix *s = &calibrated_unit(c, c->matrix)->student;
    int left = s->rows - number * FORM_BAND;
    b->number = number;
    b->rows = left < FORM_BAND ? left : FORM_BAND;
    TRY(mem_array(&b->weights, 2 * FORM_BAND * (size_t)s->cols, sizeof *b->weights,
                  "rows of a matrix", e));
    b->target = b->weights + FORM_BAND * (size_t)s->cols;
    return mem_array(&b->bytes, band_bytes(s, FORM_BAND), 1, "compressed rows", e);
}

static enum status search_bands(struct calibrated *c, struct band *bands, int n, struct error *e)
{
    for (int i = 0; i < n; i++)
        TRY(open_band(c, &bands[i], c->search.next + i, e));
#pragma omp parallel for num_threads(c->threads) schedule(dynamic, 1)
    for (int i = 0; i < n; i++)
        bands[i].status = search_band(
            c, &bands[i], c->search.scratch + (size_t)omp_get_thread_num() * c->search.scratch_floats,
            &bands[i].error);
    for (int i = 0; i < n; i++) {
        if (bands[i].status != OK) {
            *e = bands[i].error;
            return e->status;
        }
        TRY(publish_band(c, &bands[i], e));
    }
    return OK;
}

enum status calibrated_search(struct calibrated *c, bool *done, struct error *e)
{
    struct matrix_search *s = &c->search;
    int n = s->end - s->next < c->threads ? s->end - s->next : c->threads;
    struct band *bands;
    TRY(mem_array(&bands, (size_t)n, sizeof *bands, "bands of a matrix", e));
    enum status status = search_bands(c, bands, n, e);
    for (int i = 0; i < n; i++) {
        free(bands[i].weights);
        free(bands[i].bytes);
    }
    free(bands);
    s->next += n;
    *done = s->next >= s->end;
    calibrated_unit(c, c->matrix)->seconds = loop_now() - c->since;
    return status;
}

static enum status deliver_tensor(struct calibrated *c, const struct shared_unit *u, uint32_t t,
                                  struct error *e)
{
    const struct form_tensor *tensor = &u->student.form.tensor[t];
    for (uint64_t at = 0; at < tensor->bytes; at += DELIVER_BYTES) {
        uint64_t left = tensor->bytes - at;
        struct message m = {.kind = MSG_TENSOR,
                            .payload = u->student.part[t] + at,
                            .payload_bytes = left < DELIVER_BYTES ? left : DELIVER_BYTES};
        m.tensor.unit = u->unit.index;
        m.tensor.offset = at;
        snprintf(m.tensor.suffix, sizeof m.tensor.suffix, "%s", tensor->suffix);
        TRY(loop_send(c->loop, 0, &m, e));
    }
    return OK;
}

/* Losses are those of the search, and have been told when it is tuned. */
static enum status deliver_result(struct calibrated *c, const struct shared_unit *u, bool tuned,
                                  struct error *e)
{
    struct message m = {.kind = MSG_UNIT_DONE};
    struct msg_unit_done *d = &m.unit_done;
    d->unit = u->unit.index;
    if (tuned)
        return loop_send(c->loop, 0, &m, e);
    for (int b = 0; b < calibrated_bands(u); b++) { /* in order: sums must not depend on ranks */
        d->error2 += u->loss[b].error2;
        d->weight2 += u->loss[b].weight2;
        d->signal += u->loss[b].signal;
        d->rounded += u->loss[b].rounded;
        d->fed += u->loss[b].fed;
        d->final += u->loss[b].final;
    }
    d->seconds = u->seconds;
    return loop_send(c->loop, 0, &m, e);
}

enum status calibrated_deliver(struct calibrated *c, bool tuned, struct error *e)
{
    for (int i = 0; i < calibrated_count(c); i++) {
        const struct shared_unit *u = calibrated_unit(c, i);
        if (u->unit.done && !tuned) /* then the file has it */
            continue;
        for (uint32_t t = 0; t < u->student.form.n; t++)
            TRY(deliver_tensor(c, u, t, e));
        TRY(deliver_result(c, u, tuned, e));
    }
    return OK;
}

enum status calibrated_deliver_vector(struct calibrated *c, uint32_t unit, const float *x, size_t n,
                                      struct error *e)
{
    struct message m = {.kind = MSG_TENSOR, .payload = x, .payload_bytes = n * sizeof *x};
    struct message done = {.kind = MSG_UNIT_DONE, .unit_done = {.unit = unit}};
    m.tensor.unit = unit;
    snprintf(m.tensor.suffix, sizeof m.tensor.suffix, ".weight");
    TRY(loop_send(c->loop, 0, &m, e));
    return loop_send(c->loop, 0, &done, e);
}
