/* From tensors to struct matrix and float vectors. Trusts a tensor's bytes to lie inside the file
 * (common/weights.c), and nothing else. Must never know what a block computes. */
#include "worker/bind.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/codebook.h"
#include "common/mem.h"
#include "worker/bind_sparse.h"

enum { CODE_GROUPS_MAX = 65536 }; /* of a row, whose integer sums fit 32 bits (kernels.h) */

/* *out = array as by mem_array, freed with the binder. */
static enum status keep(struct binder *b, void *out, size_t count, size_t size, const char *what,
                        struct error *e)
{
    if (b->n_owned == b->room) {
        size_t room = b->room ? 2 * b->room : 64;
        void **owned = realloc(b->owned, room * sizeof *owned);
        FAIL_IF(!owned, e, ERR_MEMORY, "out of memory while loading %s", b->weights->path);
        b->owned = owned;
        b->room = room;
    }
    TRY(mem_array(out, count, size, what, e));
    memcpy(&b->owned[b->n_owned++], out, sizeof(void *));
    return OK;
}

static enum status check_shape(const struct binder *b, const struct tensor *t, uint64_t rows,
                               uint64_t cols, struct error *e)
{
    FAIL_IF(t->rows != rows || t->cols != cols, e, ERR_FORMAT,
            "tensor %s of %s is %llu x %llu, the model needs %llu x %llu", t->name,
            b->weights->path, (unsigned long long)t->rows, (unsigned long long)t->cols,
            (unsigned long long)rows, (unsigned long long)cols);
    return b->verify ? weights_verify(b->weights, t, b->alive, b->alive_self, e) : OK;
}

/* *out = the tensor base+suffix, which must exist with that type, rows and cols. */
static enum status require(const struct binder *b, const char *base, const char *suffix,
                           enum dtype dtype, uint64_t rows, uint64_t cols,
                           const struct tensor **out, struct error *e)
{
    const struct tensor *t = weights_find2(b->weights, base, suffix);
    FAIL_IF(!t, e, ERR_FORMAT, "%s has no tensor %s%s", b->weights->path, base, suffix);
    FAIL_IF(t->dtype != dtype, e, ERR_FORMAT, "tensor %s of %s has the type %s, not %s", t->name,
            b->weights->path, dtype_info(t->dtype)->name, dtype_info(dtype)->name);
    TRY(check_shape(b, t, rows, cols, e));
    *out = t;
    return OK;
}

static enum status bind_vector(struct binder *b, enum tensor_kind kind, uint32_t block, float **out,
                               struct error *e)
{
    uint64_t rows, cols;
    char base[64];
    *out = NULL;
    if (!model_shape(&b->weights->config, kind, &rows, &cols))
        return OK;
    model_base_name(base, kind, block);
    const struct tensor *t = weights_find2(b->weights, base, model_rule(kind)->suffix);
    FAIL_IF(!t, e, ERR_FORMAT, "%s has no tensor %s%s", b->weights->path, base,
            model_rule(kind)->suffix);
    FAIL_IF(t->dtype != DTYPE_F32 && t->dtype != DTYPE_F16 && t->dtype != DTYPE_BF16, e,
            ERR_UNSUPPORTED, "tensor %s of %s is a vector of type %s: F32, F16 and BF16 are known",
            t->name, b->weights->path, dtype_info(t->dtype)->name);
    TRY(check_shape(b, t, rows, cols, e));
    TRY(keep(b, out, (size_t)(rows * cols), sizeof **out, "a vector of weights", e));
    dtype_to_f32(t->dtype, t->data, rows * cols, *out);
    for (uint64_t i = 0; i < rows * cols; i++)
        FAIL_IF(!isfinite((*out)[i]), e, ERR_FORMAT,
                "tensor %s of %s holds a value that is not finite", t->name, b->weights->path);
    return OK;
}

static bool matrix_type_of(enum dtype dtype, enum matrix_type *type)
{
    static const struct {
        enum dtype dtype;
        enum matrix_type type;
    } map[] = {
        {DTYPE_F32, MATRIX_F32},   {DTYPE_F16, MATRIX_F16},   {DTYPE_BF16, MATRIX_BF16},
        {DTYPE_Q8_0, MATRIX_Q8_0}, {DTYPE_Q4_0, MATRIX_Q4_0}, {DTYPE_Q1_0, MATRIX_Q1_0},
        {DTYPE_Q2_0, MATRIX_Q2_0},
    };
    for (size_t i = 0; i < sizeof map / sizeof *map; i++) {
        if (map[i].dtype == dtype) {
            *type = map[i].type;
            return true;
        }
    }
    return false;
}

/* The sparse correction of a sign matrix: base.outlier_row, .outlier_column, .outlier_value. */
static enum status bind_outliers(struct binder *b, const char *base, struct matrix *m,
                                 struct error *e)
{
    const struct tensor *row = weights_find2(b->weights, base, ".outlier_row");
    if (!row)
        return OK;
    const struct tensor *column = weights_find2(b->weights, base, ".outlier_column");
    const struct tensor *value;
    uint64_t n = row->cols;
    FAIL_IF(n > UINT32_MAX, e, ERR_FORMAT, "tensor %s of %s has too many entries", row->name,
            b->weights->path);
    TRY(require(b, base, ".outlier_row", DTYPE_I32, 1, n, &row, e));
    TRY(require(b, base, ".outlier_value", DTYPE_F16, 1, n, &value, e));
    enum dtype narrow = column && column->dtype == DTYPE_I16 ? DTYPE_I16 : DTYPE_I32;
    TRY(require(b, base, ".outlier_column", narrow, 1, n, &column, e));

    uint32_t *start;
    TRY(keep(b, &start, (size_t)m->rows + 1, sizeof *start, "starts of outlier rows", e));
    TRY(sparse_starts(row, b->weights->path, (uint32_t)m->rows, start, e));
    TRY(sparse_check_columns(column, b->weights->path, (uint32_t)m->cols, e));
    m->outlier_start = start;
    m->outlier_column = column->data;
    m->outlier_column_bytes = narrow == DTYPE_I16 ? 2 : 4;
    m->outlier_value = (const uint16_t *)(const void *)value->data;
    return OK;
}

static enum status bind_codebook(struct binder *b, int d, const int8_t **out, struct error *e)
{
    char number[16];
    const struct tensor *t;
    snprintf(number, sizeof number, "%d", d);
    TRY(require(b, "singularbit.codebook.", number, DTYPE_I8, CODEBOOK_WORDS, (uint64_t)d, &t, e));
    *out = (const int8_t *)t->data;
    for (int i = 0; i < CODEBOOK_WORDS; i++) {
        int sum = 0, least = 0;
        for (int k = 0; k < d; k++) {
            int w = (*out)[i * d + k];
            sum += abs(w);
            least = w < least ? w : least;
        }
        FAIL_IF(sum > CODEBOOK_MAX_SUM, e, ERR_FORMAT,
                "tensor %s of %s: the magnitudes of codeword %d add up to %d, more than %d",
                t->name, b->weights->path, i, sum, CODEBOOK_MAX_SUM);
        FAIL_IF(least < -127, e, ERR_FORMAT,
                "tensor %s of %s: codeword %d has an entry %d, less than -127", t->name,
                b->weights->path, i, least);
    }
    return OK;
}

/* A byte code: base.code with its scales and codebook (DESIGN section 5). */
static enum status bind_code(struct binder *b, const char *base, struct matrix *m, struct error *e)
{
    const struct tensor *code = weights_find2(b->weights, base, ".code"), *out, *in;
    FAIL_IF(!code, e, ERR_FORMAT, "%s has neither a tensor %s.weight nor %s.code", b->weights->path,
            base, base);
    m->type = MATRIX_CODE;
    uint32_t d = 0;
    FAIL_IF(!weights_code_d(b->weights, base, &d) || !codebook_for(d), e, ERR_FORMAT,
            "%s gives no valid number of weights per byte for %s", b->weights->path, code->name);
    m->d = (int)d;
    uint64_t bands = ((uint64_t)m->rows + MATRIX_BAND - 1) / MATRIX_BAND;
    uint64_t groups = ((uint64_t)m->cols + (uint64_t)m->d - 1) / (uint64_t)m->d;
    FAIL_IF(groups > CODE_GROUPS_MAX, e, ERR_UNSUPPORTED,
            "tensor %s of %s has %llu codes a row, more than %d", code->name, b->weights->path,
            (unsigned long long)groups, CODE_GROUPS_MAX);
    TRY(require(b, base, ".code", DTYPE_I8, bands * groups, MATRIX_BAND, &code, e));
    TRY(require(b, base, ".code_out", DTYPE_F16, 1, (uint64_t)m->rows, &out, e));
    m->data = code->data;
    m->out = (const uint16_t *)(const void *)out->data;
    if (weights_find2(b->weights, base, ".code_in")) {
        TRY(require(b, base, ".code_in", DTYPE_F16, 1, (uint64_t)m->cols, &in, e));
        m->in = (const uint16_t *)(const void *)in->data;
    }
    return bind_codebook(b, m->d, &m->codebook, e);
}

static enum status bind_matrix(struct binder *b, enum tensor_kind kind, uint32_t block,
                               struct matrix *m, struct error *e)
{
    uint64_t rows, cols;
    char base[64];
    memset(m, 0, sizeof *m);
    model_base_name(base, kind, block);
    FAIL_IF(!model_shape(&b->weights->config, kind, &rows, &cols) || rows == 0 || cols == 0 ||
                rows > INT_MAX - MATRIX_BAND || cols > INT_MAX - MATRIX_BAND,
            e, ERR_FORMAT, "%s: the model states no usable shape for %s", b->weights->path, base);
    m->rows = (int)rows;
    m->cols = (int)cols;
    const struct tensor *t = weights_find2(b->weights, base, ".weight");
    if (!t)
        return bind_code(b, base, m, e);
    FAIL_IF(!matrix_type_of(t->dtype, &m->type), e, ERR_UNSUPPORTED,
            "tensor %s of %s has the type %s, which no matrix may have", t->name, b->weights->path,
            dtype_info(t->dtype)->name);
    TRY(check_shape(b, t, rows, cols, e));
    m->data = t->data;
    return bind_outliers(b, base, m, e);
}

/* Matrices of the given kinds as one product. */
static enum status bind_product(struct binder *b, uint32_t block, const enum tensor_kind *kinds,
                                int count, struct product *p, struct error *e)
{
    p->count = count;
    for (int i = 0; i < count; i++)
        TRY(bind_matrix(b, kinds[i], block, &p->m[i], e));
    product_plan(p);
    return OK;
}

enum status bind_block(struct binder *b, uint32_t block, struct block_weights *out, struct error *e)
{
    static const enum tensor_kind qkv[] = {KIND_Q, KIND_K, KIND_V}, o[] = {KIND_O};
    static const enum tensor_kind gate_up[] = {KIND_GATE, KIND_UP}, down[] = {KIND_DOWN};
    const struct {
        enum tensor_kind kind;
        float **vector;
    } vectors[] = {
        {KIND_ATTN_NORM, &out->attn_norm}, {KIND_FFN_NORM, &out->ffn_norm},
        {KIND_Q_BIAS, &out->q_bias},       {KIND_K_BIAS, &out->k_bias},
        {KIND_V_BIAS, &out->v_bias},       {KIND_Q_NORM, &out->q_norm},
        {KIND_K_NORM, &out->k_norm},
    };
    memset(out, 0, sizeof *out);
    TRY(bind_product(b, block, qkv, 3, &out->qkv, e));
    TRY(bind_product(b, block, o, 1, &out->o, e));
    TRY(bind_product(b, block, gate_up, 2, &out->gate_up, e));
    TRY(bind_product(b, block, down, 1, &out->down, e));
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        TRY(bind_vector(b, vectors[i].kind, block, vectors[i].vector, e));
    return OK;
}

void bind_drop_embeddings(const struct binder *b)
{
    char base[64];
    if (b->weights->config.tied)
        return;
    model_base_name(base, KIND_EMBEDDING, 0);
    const struct tensor *t = weights_find2(b->weights, base, ".weight");
    t = t ? t : weights_find2(b->weights, base, ".code");
    if (t)
        weights_drop(t, 0, t->bytes);
}

enum status bind_head(struct binder *b, struct head_weights *out, struct error *e)
{
    memset(out, 0, sizeof *out);
    TRY(bind_matrix(b, KIND_EMBEDDING, 0, &out->embedding, e));
    FAIL_IF(!kernels.row[out->embedding.type] || out->embedding.outlier_start, e, ERR_UNSUPPORTED,
            "the embeddings of %s are stored in a form whose rows cannot be read one by one: "
            "compress them to Q8_0",
            b->weights->path);
    TRY(bind_vector(b, KIND_OUTPUT_NORM, 0, &out->output_norm, e));
    if (b->weights->config.tied) {
        out->output.count = 1;
        out->output.m[0] = out->embedding;
        product_plan(&out->output);
        return OK;
    }
    bind_drop_embeddings(b);
    static const enum tensor_kind output[] = {KIND_OUTPUT};
    return bind_product(b, 0, output, 1, &out->output, e);
}

void bind_free(struct binder *b)
{
    for (size_t i = 0; i < b->n_owned; i++)
        free(b->owned[i]);
    free(b->owned);
    memset(b, 0, sizeof *b);
}
