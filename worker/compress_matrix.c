#include "worker/compress_matrix.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/forms.h"
#include "common/mem.h"
#include "worker/quantise_blocks.h"
#include "worker/quantise_code.h"
#include "worker/quantise_sign.h"

enum { CHUNK_FLOATS = 1 << 20 };

enum phase { SELECT, NARROWED, ENCODE }; /* the first two for sign with outliers only */

struct compress_matrix {
    const struct tensor *tensor;
    struct compress_unit unit;
    struct form form;
    int threads, rows, cols;
    int chunk_rows; /* a multiple of FORM_BAND */
    int next;       /* first row of the next chunk */
    enum phase phase;
    double error2, weight2;
    float *chunk;             /* [chunk_rows][cols] */
    struct row_error *errors; /* [chunk_rows] */
    uint8_t *parts;           /* chunk_rows rows of the main tensor */
    uint16_t *scales;         /* code: [chunk_rows] */
    struct code_encoder *encoder;
    float *scratch; /* [threads][code_encoder_scratch] */
    struct sign_selector *selector;
    struct sign_threshold threshold;
    uint64_t entries_done;
    uint32_t *above, *equal; /* sign: [chunk_rows] outliers of each row */
};

/* Bytes of the main tensor that count rows from a band's start take. */
static size_t part_bytes(const struct compress_matrix *m, int count)
{
    const struct form_tensor *t = &m->form.tensor[0];
    if (m->unit.method == UNIT_CODE)
        return (size_t)(count + FORM_BAND - 1) / FORM_BAND * FORM_BAND * t->dim[1];
    return (size_t)(t->bytes / (uint64_t)m->rows) * (size_t)count;
}

static enum status allocate_code(struct compress_matrix *m, struct error *e)
{
    /* No calibration yet: every column counts alike. */
    TRY(code_encoder_create(&m->encoder, codebook_for(m->unit.d), m->cols, NULL, e));
    TRY(mem_array(&m->scratch, (size_t)m->threads * code_encoder_scratch(m->encoder), sizeof(float),
                  "rows being coded", e));
    return mem_array(&m->scales, (size_t)m->chunk_rows, sizeof(uint16_t), "row scales", e);
}

static enum status allocate_sign(struct compress_matrix *m, struct error *e)
{
    TRY(mem_array(&m->above, (size_t)m->chunk_rows, sizeof(uint32_t), "outlier counts", e));
    TRY(mem_array(&m->equal, (size_t)m->chunk_rows, sizeof(uint32_t), "outlier counts", e));
    m->threshold.bits = UINT32_MAX;
    if (m->form.outliers == 0)
        return OK;
    m->phase = SELECT;
    return sign_selector_create(&m->selector, m->form.outliers, e);
}

static enum status allocate(struct compress_matrix *m, struct error *e)
{
    size_t rows = (size_t)m->chunk_rows;
    TRY(mem_array(&m->chunk, rows * (size_t)m->cols, sizeof(float), "rows of a matrix", e));
    TRY(mem_array(&m->errors, rows, sizeof *m->errors, "errors of rows", e));
    TRY(mem_array(&m->parts, part_bytes(m, m->chunk_rows), 1, "compressed rows", e));
    if (m->unit.method == UNIT_CODE)
        return allocate_code(m, e);
    return m->unit.method == UNIT_SIGN ? allocate_sign(m, e) : OK;
}

enum status compress_matrix_create(struct compress_matrix **out, const struct tensor *t,
                                   const struct compress_unit *u, double outliers, uint32_t threads,
                                   struct error *e)
{
    struct form form;
    struct compress_matrix *m;
    TRY(form_of(&form, (enum unit_method)u->method, u->d, outliers, t->rows, t->cols, t->dims == 1,
                e));
    TRY(mem_array(&m, 1, sizeof *m, "a matrix to compress", e));
    m->tensor = t;
    m->unit = *u;
    m->form = form;
    m->threads = threads > 0 && threads < 4096 ? (int)threads : 1;
    m->rows = (int)t->rows;
    m->cols = (int)t->cols;
    int bands = CHUNK_FLOATS / FORM_BAND / m->cols, needed = (m->rows - 1) / FORM_BAND + 1;
    bands = bands < needed ? bands : needed;
    m->chunk_rows = FORM_BAND * (bands > 1 ? bands : 1);
    m->phase = ENCODE;
    enum status status = allocate(m, e);
    if (status != OK) {
        compress_matrix_free(m);
        return status;
    }
    *out = m;
    return OK;
}

void compress_matrix_free(struct compress_matrix *m)
{
    if (!m)
        return;
    code_encoder_free(m->encoder);
    sign_selector_free(m->selector);
    free(m->chunk);
    free(m->errors);
    free(m->parts);
    free(m->scales);
    free(m->scratch);
    free(m->above);
    free(m->equal);
    free(m);
}

/* chunk = rows [next, next + count). The first bad row's error wins, whichever thread met it. */
static enum status load(struct compress_matrix *m, int count, struct error *e)
{
    int bad = count;
#pragma omp parallel for num_threads(m->threads) schedule(static)
    for (int r = 0; r < count; r++) {
        struct error mine;
        mine.status = OK;
        float *to = m->chunk + (size_t)r * (size_t)m->cols;
        if (weights_rows_f32(m->tensor, (uint64_t)(m->next + r), 1, to, &mine) == OK)
            continue;
#pragma omp critical(compress_load)
        if (r < bad) {
            bad = r;
            *e = mine;
        }
    }
    /* rows of rope_heads lie apart in the source: all are dropped at the end */
    if (!m->tensor->rope_heads) {
        uint64_t bytes = m->tensor->bytes / m->tensor->rows;
        weights_drop(m->tensor, (uint64_t)m->next * bytes, (uint64_t)count * bytes);
    }
    return bad < count ? e->status : OK;
}

static const float *chunk_row(const struct compress_matrix *m, int r)
{
    return m->chunk + (size_t)r * (size_t)m->cols;
}

/* The weights are too large for what the form has to say about them. */
static enum status say_too_large(const struct compress_matrix *m, struct error *e)
{
    enum tensor_kind kind;
    uint32_t block;
    bool outside = model_kind_of(m->tensor->name, &kind, &block) && !model_rule(kind)->per_block;
    bool plain = m->unit.method == UNIT_F16 || m->unit.method == UNIT_SIGN;
    return error_set(e, ERR_LIMIT, "%s: tensor %s has weights beyond what %s can hold: %s",
                     m->tensor->file, m->tensor->name, form_name((enum unit_method)m->unit.method),
                     outside ? "use --embeddings f32"
                     : plain ? "--method code reaches further"
                             : "a sound model has none so large, so get or make that file again");
}

/* A matrix of nothing but rounding would run, and say nonsense. */
static enum status check_errors(const struct compress_matrix *m, struct error *e)
{
    FAIL_IF(m->weight2 > 0 && m->error2 >= m->weight2, e, ERR_LIMIT,
            "%s: tensor %s has weights so small that all are lost when stored as %s: a sound model "
            "has none such, so get or make that file again",
            m->tensor->file, m->tensor->name, form_name((enum unit_method)m->unit.method));
    return OK;
}

static enum status code_rows(struct compress_matrix *m, int count, const struct part_sink *sink,
                             struct error *e)
{
    size_t groups = (size_t)m->form.tensor[0].dim[1], band = groups * FORM_BAND;
    size_t scratch = code_encoder_scratch(m->encoder);
    int unfit = 0;
    memset(m->parts, 0, part_bytes(m, count));
#pragma omp parallel for num_threads(m->threads) schedule(dynamic, 4) reduction(+ : unfit)
    for (int r = 0; r < count; r++)
        unfit += !code_encode_row(m->encoder, chunk_row(m, r),
                                  m->scratch + (size_t)omp_get_thread_num() * scratch,
                                  m->parts + (size_t)(r / FORM_BAND) * band + r % FORM_BAND,
                                  FORM_BAND, &m->scales[r], &m->errors[r]);
    if (unfit)
        return say_too_large(m, e);
    TRY(sink->put(sink->self, m->unit.index, ".code", (uint64_t)(m->next / FORM_BAND) * band,
                  m->parts, part_bytes(m, count), e));
    return sink->put(sink->self, m->unit.index, ".code_out", (uint64_t)m->next * sizeof(uint16_t),
                     m->scales, (size_t)count * sizeof(uint16_t), e);
}

static enum status block_rows(struct compress_matrix *m, int count, const struct part_sink *sink,
                              struct error *e)
{
    enum dtype dtype = m->form.tensor[0].dtype;
    size_t row_bytes = part_bytes(m, 1);
    int unfit = 0;
#pragma omp parallel for num_threads(m->threads) schedule(static) reduction(+ : unfit)
    for (int r = 0; r < count; r++)
        unfit += !blocks_encode_row(dtype, chunk_row(m, r), m->cols,
                                    m->parts + (size_t)r * row_bytes, &m->errors[r]);
    if (unfit)
        return say_too_large(m, e);
    return sink->put(sink->self, m->unit.index, ".weight", (uint64_t)m->next * row_bytes, m->parts,
                     part_bytes(m, count), e);
}

/* Counts each row's outliers and turns the counts into places: above[r] becomes where row r's
 * entries start in this chunk, equal[r] how many of its ties are taken. Returns the chunk's
 * entries. */
static uint32_t place_outliers(struct compress_matrix *m, int count)
{
    uint32_t start = 0;
#pragma omp parallel for num_threads(m->threads) schedule(static)
    for (int r = 0; r < count; r++)
        sign_count(chunk_row(m, r), m->cols, m->threshold.bits, &m->above[r], &m->equal[r]);
    for (int r = 0; r < count; r++) {
        uint32_t own = m->above[r];
        m->equal[r] = m->equal[r] < m->threshold.ties ? m->equal[r] : (uint32_t)m->threshold.ties;
        m->threshold.ties -= m->equal[r];
        m->above[r] = start;
        start += own + m->equal[r];
    }
    return start;
}

struct entry_buffers {
    int32_t *row;
    uint8_t *column;
    uint16_t *value;
    size_t column_bytes;
};

static enum status encode_sign(struct compress_matrix *m, int count, uint32_t entries,
                               struct entry_buffers *b, struct error *e)
{
    size_t row_bytes = part_bytes(m, 1);
    int unfit = 0;
    b->column_bytes = m->cols <= 32768 ? 2 : 4;
    TRY(mem_array(&b->row, entries, sizeof *b->row, "outliers", e));
    TRY(mem_array(&b->column, entries, b->column_bytes, "outliers", e));
    TRY(mem_array(&b->value, entries, sizeof *b->value, "outliers", e));
#pragma omp parallel for num_threads(m->threads) schedule(static) reduction(+ : unfit)
    for (int r = 0; r < count; r++) {
        struct sign_entries to = {b->row + m->above[r], b->column + m->above[r] * b->column_bytes,
                                  (int)b->column_bytes, b->value + m->above[r]};
        unfit +=
            !sign_encode_row(chunk_row(m, r), m->cols, m->threshold.bits, m->equal[r], m->next + r,
                             NULL, m->parts + (size_t)r * row_bytes, &to, &m->errors[r]);
    }
    return unfit ? say_too_large(m, e) : OK;
}

static enum status send_sign(struct compress_matrix *m, int count, uint32_t entries,
                             const struct entry_buffers *b, const struct part_sink *sink,
                             struct error *e)
{
    uint32_t unit = m->unit.index;
    TRY(sink->put(sink->self, unit, ".weight", (uint64_t)m->next * part_bytes(m, 1), m->parts,
                  part_bytes(m, count), e));
    if (entries == 0)
        return OK;
    TRY(sink->put(sink->self, unit, ".outlier_row", m->entries_done * sizeof *b->row, b->row,
                  entries * sizeof *b->row, e));
    TRY(sink->put(sink->self, unit, ".outlier_column", m->entries_done * b->column_bytes, b->column,
                  entries * b->column_bytes, e));
    return sink->put(sink->self, unit, ".outlier_value", m->entries_done * sizeof *b->value,
                     b->value, entries * sizeof *b->value, e);
}

static enum status sign_rows(struct compress_matrix *m, int count, const struct part_sink *sink,
                             struct error *e)
{
    struct entry_buffers b = {0};
    uint32_t entries = place_outliers(m, count);
    enum status status = encode_sign(m, count, entries, &b, e);
    if (status == OK)
        status = send_sign(m, count, entries, &b, sink, e);
    m->entries_done += entries;
    free(b.row);
    free(b.column);
    free(b.value);
    return status;
}

static enum status encode(struct compress_matrix *m, int count, const struct part_sink *sink,
                          struct error *e)
{
    if (m->unit.method == UNIT_CODE)
        TRY(code_rows(m, count, sink, e));
    else if (m->unit.method == UNIT_SIGN)
        TRY(sign_rows(m, count, sink, e));
    else
        TRY(block_rows(m, count, sink, e));
    for (int r = 0; r < count; r++) { /* in order: the sum must not depend on threads */
        m->error2 += m->errors[r].error2;
        m->weight2 += m->errors[r].weight2;
    }
    return OK;
}

/* All rows have passed in this phase. */
static void end_phase(struct compress_matrix *m, bool *done)
{
    m->next = 0;
    *done = m->phase == ENCODE;
    if (m->phase == SELECT) {
        sign_selector_narrow(m->selector);
        m->phase = NARROWED;
    } else if (m->phase == NARROWED) {
        m->threshold = sign_selector_result(m->selector);
        m->phase = ENCODE;
    } else {
        weights_drop(m->tensor, 0, m->tensor->bytes);
    }
}

enum status compress_matrix_step(struct compress_matrix *m, const struct part_sink *sink,
                                 bool *done, struct error *e)
{
    int count = m->rows - m->next < m->chunk_rows ? m->rows - m->next : m->chunk_rows;
    *done = false;
    TRY(load(m, count, e));
    if (m->phase == ENCODE)
        TRY(encode(m, count, sink, e));
    else
        sign_selector_add(m->selector, m->chunk, (size_t)count * (size_t)m->cols);
    m->next += count;
    if (m->next == m->rows)
        end_phase(m, done);
    return *done ? check_errors(m, e) : OK;
}

void compress_matrix_errors(const struct compress_matrix *m, double *error2, double *weight2)
{
    *error2 = m->error2;
    *weight2 = m->weight2;
}

void compress_matrix_doing(const struct compress_matrix *m, char out[128])
{
    snprintf(out, 128, "quantising %s, row %d of %d", m->tensor->name, m->next, m->rows);
}
