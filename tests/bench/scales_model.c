/* See scales_model.h. */
#include "tests/bench/scales_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/quantise_code.h"

const int lab_first_matrix[INPUTS] = {0, 3, 4, 6};
static const enum tensor_kind kinds[MATRICES] = {KIND_Q,    KIND_K,  KIND_V,   KIND_O,
                                                 KIND_GATE, KIND_UP, KIND_DOWN};

enum status lab_array(struct lab *l, void *out, size_t count, size_t size, struct error *e)
{
    FAIL_IF(l->n_owned == LAB_MAX_OWNED, e, ERR_LIMIT, "the model has too many blocks");
    TRY(mem_array(out, count, size, "an experiment", e));
    memcpy(&l->owned[l->n_owned++], out, sizeof(void *));
    return OK;
}

static enum status floats(struct lab *l, float **out, size_t rows, size_t cols, struct error *e)
{
    return lab_array(l, out, rows * cols, sizeof(float), e);
}

static enum status load(struct lab *l, enum tensor_kind kind, uint32_t b, struct matrix *m,
                        struct error *e)
{
    char base[64];
    float *data;
    model_base_name(base, kind, b);
    const struct tensor *t = weights_find2(l->weights, base, ".weight");
    FAIL_IF(!t, e, ERR_UNSUPPORTED, "the model has no tensor %s.weight", base);
    TRY(floats(l, &data, t->rows, t->cols, e));
    TRY(weights_rows_f32(t, 0, t->rows, data, e));
    *m = (struct matrix){MATRIX_F32, .rows = (int)t->rows, .cols = (int)t->cols, .data = data};
    return OK;
}

enum status lab_encode(struct lab *l, const struct matrix *w, const struct input_stats *stats,
                       struct matrix *code, struct matrix *coded, struct error *e)
{
    struct code_encoder *encoder;
    size_t rows = (size_t)w->rows, cols = (size_t)w->cols, d = l->book->d;
    size_t groups = (cols + d - 1) / d;
    uint8_t *data;
    uint16_t *out;
    float *scratch, *values;
    TRY(lab_array(l, &data, (rows + 63) / 64 * 64 * groups, 1, e));
    TRY(lab_array(l, &out, rows, sizeof *out, e));
    TRY(floats(l, &values, rows, cols, e));
    TRY(code_encoder_create(&encoder, l->book, w->cols, stats, e));
    enum status status = floats(l, &scratch, code_encoder_scratch(encoder), 1, e);
    *code = (struct matrix){MATRIX_CODE,  .rows = w->rows, .cols = w->cols,
                            .data = data, .d = (int)d,     .codebook = l->book->vector,
                            .out = out};
    for (size_t r = 0; status == OK && r < rows; r++) {
        struct row_error ignored;
        code_encode_row(encoder, (const float *)w->data + r * cols, scratch,
                        data + r / 64 * groups * 64 + r % 64, 64, &out[r], &ignored);
        kernels.row[MATRIX_CODE](code, (int)r, values + r * cols);
    }
    *coded = *w;
    coded->data = values;
    code_encoder_free(encoder);
    return status;
}

static enum status load_block(struct lab *l, uint32_t b, struct error *e)
{
    struct block *block = &l->block[b];
    struct matrix norm[2];
    TRY(load(l, KIND_ATTN_NORM, b, &norm[0], e));
    TRY(load(l, KIND_FFN_NORM, b, &norm[1], e));
    for (int i = 0; i < 2; i++)
        block->norm[i] = (float *)norm[i].data;
    for (int i = 0; i < MATRICES; i++) {
        TRY(load(l, kinds[i], b, &block->m[ORIGINAL][i], e));
        TRY(lab_encode(l, &block->m[ORIGINAL][i], NULL, &block->code[i], &block->m[CODED][i], e));
    }
    return OK;
}

static enum status load_model(struct lab *l, struct error *e)
{
    const struct model_config *c = l->c;
    struct matrix norm;
    size_t n = POSITIONS, q = (size_t)c->heads * c->head_dim,
           kv = (size_t)c->kv_heads * c->head_dim;
    size_t widest = c->ffn > c->hidden ? c->ffn : c->hidden;
    FAIL_IF(c->qkv_bias || c->qk_norm || c->context < POSITIONS, e, ERR_UNSUPPORTED,
            "a Llama without biases and with a context of %d is needed", POSITIONS);
    TRY(lab_array(l, &l->block, c->block_count, sizeof *l->block, e));
    for (uint32_t b = 0; b < c->block_count; b++)
        TRY(load_block(l, b, e));
    TRY(load(l, KIND_EMBEDDING, 0, &l->embedding, e));
    TRY(load(l, KIND_OUTPUT_NORM, 0, &norm, e));
    l->output_norm = (float *)norm.data;
    l->interleaved =
        c->rope_interleaved || weights_find(l->weights, "blk.0.attn_q.weight")->rope_heads > 0;
    l->head = l->embedding;
    if (!c->tied)
        TRY(load(l, KIND_OUTPUT, 0, &l->head, e));
    TRY(floats(l, &l->logits, n, c->vocab, e));
    TRY(floats(l, &l->x, n, c->hidden, e));
    TRY(floats(l, &l->normed, n, c->hidden, e));
    TRY(floats(l, &l->delta, n, widest, e));
    TRY(floats(l, &l->q, n, q, e));
    TRY(floats(l, &l->k, n, kv, e));
    TRY(floats(l, &l->v, n, kv, e));
    TRY(floats(l, &l->attended, n, q, e));
    TRY(floats(l, &l->gate, n, c->ffn, e));
    TRY(floats(l, &l->up, n, c->ffn, e));
    return lab_array(l, &l->prepared, n, widest * sizeof(float) + q * sizeof(float) + 64, e);
}

enum status lab_open(struct lab *l, const char *path, uint32_t d, struct error *e)
{
    l->book = codebook_for(d);
    FAIL_IF(!l->book, e, ERR_USAGE, "there is no code of %u weights a byte", d);
    TRY(weights_open(&l->weights, path, e));
    l->c = &l->weights->config;
    return load_model(l, e);
}

void lab_close(struct lab *l)
{
    weights_close(l->weights);
    for (int i = 0; i < l->n_owned; i++)
        free(l->owned[i]);
}

/* The forward pass */

void lab_multiply(struct lab *l, const struct matrix *m, const float *x, int tokens, float *y)
{
    for (int t = 0; t < tokens; t++)
        kernels.prepare[m->type](m, x + (size_t)t * (size_t)m->cols,
                                 (char *)l->prepared + (size_t)t * act_bytes(m));
    kernels.product[m->type](m, l->prepared, x, tokens, 0, m->rows, y, (size_t)m->rows);
}

static void rotate(const struct lab *l)
{
    int dim = (int)l->c->head_dim, pairs = (int)l->c->rope_dim / 2;
    for (int p = 0; p < POSITIONS; p++) {
        float cosine[512], sine[512];
        for (int i = 0; i < pairs; i++) {
            float angle = (float)p * powf(l->c->rope_base, -(float)i / (float)pairs);
            cosine[i] = cosf(angle);
            sine[i] = sinf(angle);
        }
        kernels.rope(l->q + (size_t)p * l->c->heads * l->c->head_dim, (int)l->c->heads, dim, pairs,
                     l->interleaved, cosine, sine);
        kernels.rope(l->k + (size_t)p * l->c->kv_heads * l->c->head_dim, (int)l->c->kv_heads, dim,
                     pairs, l->interleaved, cosine, sine);
    }
}

static void attend(const struct lab *l, int p, size_t head)
{
    size_t dim = l->c->head_dim, row = l->c->kv_heads * dim;
    size_t from = head / (l->c->heads / l->c->kv_heads) * dim;
    const float *q = l->q + ((size_t)p * l->c->heads + head) * dim;
    float *out = l->attended + ((size_t)p * l->c->heads + head) * dim;
    float score[POSITIONS], max = -INFINITY, sum = 0.0f;
    for (int i = 0; i <= p; i++) {
        score[i] = 0.0f;
        for (size_t d = 0; d < dim; d++)
            score[i] += q[d] * l->k[(size_t)i * row + from + d];
        score[i] /= sqrtf((float)dim);
        max = fmaxf(max, score[i]);
    }
    memset(out, 0, dim * sizeof *out);
    for (int i = 0; i <= p; i++)
        sum += score[i] = expf(score[i] - max);
    for (int i = 0; i <= p; i++)
        for (size_t d = 0; d < dim; d++)
            out[d] += score[i] / sum * l->v[(size_t)i * row + from + d];
}

static void norm(const struct lab *l, const float *weight)
{
    size_t hidden = l->c->hidden;
    for (size_t p = 0; p < POSITIONS; p++)
        kernels.rms_norm(l->normed + p * hidden, l->x + p * hidden, weight, (int)hidden,
                         l->c->rms_eps);
}

struct pass {
    enum set set;
    lab_input_fn *input;
    void *self;
};

static void run_block(struct lab *l, const struct pass *pass, int b)
{
    const struct block *block = &l->block[b];
    const struct matrix *m = block->m[pass->set];
    norm(l, block->norm[0]);
    pass->input(pass->self, b, IN_QKV, l->normed);
    lab_multiply(l, &m[0], l->normed, POSITIONS, l->q);
    lab_multiply(l, &m[1], l->normed, POSITIONS, l->k);
    lab_multiply(l, &m[2], l->normed, POSITIONS, l->v);
    rotate(l);
    for (int p = 0; p < POSITIONS; p++)
        for (uint32_t h = 0; h < l->c->heads; h++)
            attend(l, p, h);
    pass->input(pass->self, b, IN_O, l->attended);
    lab_multiply(l, &m[3], l->attended, POSITIONS, l->delta);
    kernels.add(l->x, l->delta, POSITIONS * (int)l->c->hidden);
    norm(l, block->norm[1]);
    pass->input(pass->self, b, IN_GATE_UP, l->normed);
    lab_multiply(l, &m[4], l->normed, POSITIONS, l->gate);
    lab_multiply(l, &m[5], l->normed, POSITIONS, l->up);
    kernels.swiglu(l->gate, l->up, POSITIONS * (int)l->c->ffn);
    pass->input(pass->self, b, IN_DOWN, l->gate);
    lab_multiply(l, &m[6], l->gate, POSITIONS, l->delta);
    kernels.add(l->x, l->delta, POSITIONS * (int)l->c->hidden);
}

static void log_softmax(float *x, size_t n)
{
    float max = x[0], sum = 0.0f;
    for (size_t i = 0; i < n; i++)
        max = fmaxf(max, x[i]);
    for (size_t i = 0; i < n; i++)
        sum += expf(x[i] - max);
    for (size_t i = 0; i < n; i++)
        x[i] -= max + logf(sum);
}

void lab_forward(struct lab *l, enum set set, const uint32_t *ids, lab_input_fn *input, void *self)
{
    struct pass pass = {set, input, self};
    for (size_t p = 0; p < POSITIONS; p++)
        kernels.row[MATRIX_F32](&l->embedding, (int)ids[p], l->x + p * l->c->hidden);
    for (int b = 0; b < (int)l->c->block_count; b++)
        run_block(l, &pass, b);
    norm(l, l->output_norm);
    lab_multiply(l, &l->head, l->normed, POSITIONS, l->logits);
    for (size_t p = 0; p < POSITIONS; p++)
        log_softmax(l->logits + p * l->c->vocab, l->c->vocab);
}
