/* See tune_model.h. */
#include "tests/unit/tune_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/codebook.h"
#include "common/mapfile.h"
#include "common/mem.h"
#include "common/tokenizer.h"
#include "worker/quantise_code.h"
#include "worker/tune_product.h"

enum status tune_text_read(struct tune_text *out, const char *model_path, const char *path,
                           uint32_t context, uint32_t windows, struct error *e)
{
    struct tokenizer *tokenizer;
    struct mapfile file;
    uint32_t *ids;
    size_t n;
    TRY(tokenizer_open(&tokenizer, model_path, e));
    TRY(mapfile_open(&file, path, e));
    TRY(tokenizer_encode(tokenizer, (const char *)file.data, file.size, false, false, &ids, &n, e));
    uint32_t bos = tokenizer_adds_bos(tokenizer) ? tokenizer_bos(tokenizer) : UINT32_MAX;
    uint32_t first = bos != UINT32_MAX, each = context - first;
    out->windows = n / each < windows ? (uint32_t)(n / each) : windows;
    out->context = context;
    TRY(mem_array(&out->tokens, (size_t)out->windows * context, sizeof *ids, "text", e));
    for (uint32_t w = 0; w < out->windows; w++) {
        out->tokens[w * context] = bos;
        memcpy(out->tokens + w * context + first, ids + w * each, each * sizeof *ids);
    }
    free(ids);
    mapfile_close(&file);
    tokenizer_free(tokenizer);
    return OK;
}

static enum status open_side(struct tune_side *s, const char *path, struct error *e)
{
    TRY(weights_open(&s->weights, path, e));
    s->binder.weights = s->weights;
    uint32_t blocks = s->weights->config.block_count;
    TRY(mem_array(&s->blocks, blocks, sizeof *s->blocks, "blocks", e));
    for (uint32_t b = 0; b < blocks; b++)
        TRY(bind_block(&s->binder, b, &s->blocks[b], e));
    TRY(bind_head(&s->binder, &s->head, e));
    s->output = (struct tune_output){s->head.output_norm, &s->head.output};
    return OK;
}

static enum status open_work(struct tune_side *s, uint32_t context, int threads, struct error *e)
{
    size_t room[PRODUCT_MAX] = {0};
    for (uint32_t b = 0; b < s->weights->config.block_count; b++) {
        product_room(&s->blocks[b].qkv, room);
        product_room(&s->blocks[b].o, room);
        product_room(&s->blocks[b].gate_up, room);
        product_room(&s->blocks[b].down, room);
    }
    return tune_block_create(&s->work, &s->weights->config, s->weights->rope_factors, context, room,
                             threads, e);
}

/* *m becomes a code of the bytes *codes and the scales *out, both the caller's. */
static enum status encode(struct matrix *m, uint32_t d, uint8_t **codes, uint16_t **out,
                          struct error *e)
{
    struct code_encoder *encoder;
    const struct codebook *book = codebook_for(d);
    size_t groups = ((size_t)m->cols + d - 1) / d, bands = ((size_t)m->rows + 63) / 64;
    float *row, *scratch;
    TRY(code_encoder_create(&encoder, book, m->cols, NULL, e));
    TRY(mem_array(codes, bands * groups, 64, "codes", e));
    TRY(mem_array(out, (size_t)m->rows, sizeof **out, "scales", e));
    TRY(mem_array(&row, (size_t)m->cols, sizeof *row, "a row", e));
    TRY(mem_array(&scratch, code_encoder_scratch(encoder), sizeof *scratch, "scratch", e));
    for (int r = 0; r < m->rows; r++) {
        struct row_error error;
        kernels.row[m->type](m, r, row);
        code_encode_row(encoder, row, scratch, *codes + (size_t)(r / 64) * groups * 64 + r % 64, 64,
                        &(*out)[r], &error);
    }
    *m = (struct matrix){.type = MATRIX_CODE,
                         .rows = m->rows,
                         .cols = m->cols,
                         .data = *codes,
                         .d = (int)d,
                         .codebook = book->vector,
                         .out = *out};
    free(row);
    free(scratch);
    code_encoder_free(encoder);
    return OK;
}

/* Writable scales of m, and their first values. */
static enum status own_scales(struct matrix *m, void **stored, uint16_t **base, struct error *e)
{
    size_t n = tune_matrix_scales(m), bytes = n * sizeof **base;
    const void *from = m->out;
    if (m->type != MATRIX_CODE) {
        const int weights[MATRIX_TYPES] = {1, 1, 1, 32, 32, 128, 64, 1};
        const size_t size[MATRIX_TYPES] = {4, 2, 2, 34, 18, 18, 18, 0};
        bytes = (size_t)m->rows * (size_t)(m->cols / weights[m->type]) * size[m->type];
        from = m->data;
    }
    TRY(mem_array(base, n, sizeof **base, "scales", e));
    TRY(mem_array(stored, bytes, 1, "a matrix", e));
    memcpy(*stored, from, bytes);
    if (m->type == MATRIX_CODE)
        m->out = *stored;
    else
        m->data = *stored;
    tune_matrix_base(m, *base);
    return OK;
}

static enum status own_all(struct tune_model *m, uint32_t d, struct error *e)
{
    struct tune_side *s = &m->student;
    uint32_t blocks = s->weights->config.block_count, hidden = s->weights->config.hidden;
    TRY(mem_array(&m->base, blocks * TUNE_MATRICES, sizeof *m->base, "bases", e));
    TRY(mem_array(&m->stored, blocks * TUNE_MATRICES, sizeof *m->stored, "bytes", e));
    TRY(mem_array(&m->codes, blocks * TUNE_MATRICES, sizeof *m->codes, "codes", e));
    TRY(mem_array(&m->norm_base, 2 * blocks + 1, hidden * sizeof *m->norm_base, "norms", e));
    for (uint32_t i = 0; i < blocks * TUNE_MATRICES; i++) {
        struct block_weights *w = &s->blocks[i / TUNE_MATRICES];
        struct matrix *matrix = tune_block_matrix(w, (enum tune_matrix)(i % TUNE_MATRICES));
        uint16_t *out = NULL;
        if (d > 0)
            TRY(encode(matrix, d, &m->codes[i], &out, e));
        TRY(own_scales(matrix, &m->stored[i], &m->base[i], e));
        free(out);
    }
    for (uint32_t b = 0; b < blocks; b++) {
        struct block_weights *w = &s->blocks[b];
        product_plan(&w->qkv);
        product_plan(&w->o);
        product_plan(&w->gate_up);
        product_plan(&w->down);
        memcpy(m->norm_base + 2 * b * hidden, w->attn_norm, hidden * sizeof(float));
        memcpy(m->norm_base + (2 * b + 1) * hidden, w->ffn_norm, hidden * sizeof(float));
    }
    memcpy(m->norm_base + 2 * blocks * hidden, s->head.output_norm, hidden * sizeof(float));
    return OK;
}

enum status tune_model_open(struct tune_model *m, const char *teacher, const char *student,
                            uint32_t d, uint32_t context, int threads, struct error *e)
{
    memset(m, 0, sizeof *m);
    m->context = context;
    TRY(open_side(&m->teacher, teacher, e));
    TRY(open_side(&m->student, student ? student : teacher, e));
    TRY(own_all(m, student ? 0 : d, e));
    TRY(open_work(&m->teacher, context, threads, e));
    TRY(open_work(&m->student, context, threads, e));
    const struct model_config *c = &m->student.weights->config;
    TRY(tune_head_create(&m->head, c, &m->teacher.output, &m->student.output, threads, e));
    m->n_block = tune_block_size(c);
    m->n = m->n_block * c->block_count + c->hidden;
    TRY(mem_array(&m->log, m->n, sizeof *m->log, "parameters", e));
    TRY(mem_array(&m->gradient, m->n, sizeof *m->gradient, "gradients", e));
    TRY(mem_array(&m->stream, (size_t)(c->block_count + 1) * context, c->hidden * sizeof(float),
                  "stream", e));
    TRY(mem_array(&m->dx, context, c->hidden * sizeof(float), "gradient", e));
    return tune_adam_create(&m->adam, m->n, e);
}

static void close_side(struct tune_side *s)
{
    tune_block_free(s->work);
    bind_free(&s->binder);
    weights_close(s->weights);
    free(s->blocks);
}

void tune_model_close(struct tune_model *m)
{
    uint32_t matrices = m->student.weights->config.block_count * TUNE_MATRICES;
    for (uint32_t i = 0; i < matrices; i++) {
        free(m->base[i]);
        free(m->stored[i]);
        free(m->codes[i]);
    }
    close_side(&m->teacher);
    close_side(&m->student);
    tune_head_free(m->head);
    tune_adam_free(&m->adam);
    free(m->base);
    free(m->stored);
    free(m->codes);
    free(m->norm_base);
    free(m->log);
    free(m->gradient);
    free(m->stream);
    free(m->dx);
    free(m->teacher_x);
}

static void embed(const struct tune_side *s, const uint32_t *tokens, uint32_t n, float *x)
{
    const struct matrix *e = &s->head.embedding;
    for (uint32_t t = 0; t < n; t++)
        kernels.row[e->type](e, (int)tokens[t], x + (size_t)t * (size_t)e->cols);
}

enum status tune_model_teach(struct tune_model *m, const struct tune_text *text, struct error *e)
{
    struct tune_side *s = &m->teacher;
    size_t window = (size_t)text->context * s->weights->config.hidden;
    TRY(mem_array(&m->teacher_x, text->windows, window * sizeof(float), "teacher", e));
    for (uint32_t w = 0; w < text->windows; w++) {
        float *x = m->teacher_x + w * window;
        embed(s, text->tokens + (size_t)w * text->context, text->context, x);
        for (uint32_t b = 0; b < s->weights->config.block_count; b++)
            tune_block_forward(s->work, &s->blocks[b], x, text->context);
    }
    return OK;
}

/* The student's stream of a window, before each block and after the last, which is returned. */
static const float *run(struct tune_model *m, const struct tune_text *text, uint32_t w)
{
    struct tune_side *s = &m->student;
    size_t n = (size_t)text->context * s->weights->config.hidden;
    float *x = m->stream;
    embed(s, text->tokens + (size_t)w * text->context, text->context, x);
    for (uint32_t b = 0; b < s->weights->config.block_count; b++, x += n) {
        memcpy(x + n, x, n * sizeof *x);
        tune_block_forward(s->work, &s->blocks[b], x + n, text->context);
    }
    return x;
}

double tune_model_kl(struct tune_model *m, const struct tune_text *text, uint32_t first,
                     uint32_t count)
{
    size_t n = (size_t)text->context * m->student.weights->config.hidden;
    double kl = 0;
    for (uint32_t w = first; w < first + count; w++)
        if (!tune_head_backward(m->head, m->teacher_x + w * n, run(m, text, w), text->context, 0,
                                &kl, NULL, NULL))
            return NAN;
    return kl / ((double)count * text->context);
}

static void apply(struct tune_model *m)
{
    const struct model_config *c = &m->student.weights->config;
    size_t hidden = c->hidden;
    for (uint32_t b = 0; b < c->block_count; b++) {
        struct block_weights *w = &m->student.blocks[b];
        struct tune_vector v = tune_block_vector(c, m->log + b * m->n_block);
        for (uint32_t i = 0; i < TUNE_MATRICES; i++)
            tune_matrix_apply(tune_block_matrix(w, (enum tune_matrix)i),
                              m->stored[b * TUNE_MATRICES + i], m->base[b * TUNE_MATRICES + i],
                              v.row[i]);
        tune_norm_apply(w->attn_norm, m->norm_base + 2 * b * hidden, v.attn_norm, hidden);
        tune_norm_apply(w->ffn_norm, m->norm_base + (2 * b + 1) * hidden, v.ffn_norm, hidden);
    }
    tune_norm_apply(m->student.head.output_norm, m->norm_base + 2 * c->block_count * hidden,
                    m->log + m->n_block * c->block_count, hidden);
}

static bool update(struct tune_model *m, float rate, float norm_rate)
{
    const struct model_config *c = &m->student.weights->config;
    size_t norms = 2 * (size_t)c->hidden, rows = m->n_block - norms;
    bool fine = true;
    tune_adam_begin(&m->adam);
    for (uint32_t b = 0; b < c->block_count; b++) {
        size_t at = b * m->n_block;
        fine = fine && tune_adam_update(&m->adam, m->log, m->gradient, at, rows, rate) &&
               tune_adam_update(&m->adam, m->log, m->gradient, at + rows, norms, norm_rate);
    }
    return fine &&
           tune_adam_update(&m->adam, m->log, m->gradient, m->n - c->hidden, c->hidden, norm_rate);
}

double tune_model_step(struct tune_model *m, const struct tune_text *text, const uint32_t *window,
                       uint32_t count, float rate, float norm_rate)
{
    const struct model_config *c = &m->student.weights->config;
    size_t n = (size_t)text->context * c->hidden;
    double kl = 0, tokens = (double)count * text->context;
    bool fine = true;
    memset(m->gradient, 0, m->n * sizeof *m->gradient);
    for (uint32_t i = 0; i < count; i++) {
        const float *x = run(m, text, window[i]);
        fine = fine && tune_head_backward(m->head, m->teacher_x + window[i] * n, x, text->context,
                                          1 / tokens, &kl, m->dx, m->gradient + m->n - c->hidden);
        for (uint32_t b = c->block_count; b-- > 0;) {
            struct tune_vector g = tune_block_vector(c, m->gradient + b * m->n_block);
            tune_block_backward(m->student.work, &m->student.blocks[b], m->stream + b * n,
                                text->context, m->dx, &g, NULL);
        }
    }
    if (!fine || !update(m, rate, norm_rate))
        return NAN;
    apply(m);
    return kl / tokens;
}
