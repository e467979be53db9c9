/* Products with matrices of every type. Knows no clock. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/codebook.h"
#include "common/mem.h"
#include "common/random_weights.h"
#include "common/sysinfo.h"
#include "worker/bench_case.h"

/* Multiply-adds that scalar code is asked for where a run would take it seconds. */
#define PART_WORK    ((size_t)1 << 23)
#define SPARSE_SHARE 50 /* one weight in so many */

static const struct bench_type {
    const char *name;
    enum matrix_type type;
    enum dtype dtype;
    int d;
    bool sparse;
} types[] = {
    {"f32", MATRIX_F32, DTYPE_F32, 0, false},    {"f16", MATRIX_F16, DTYPE_F16, 0, false},
    {"bf16", MATRIX_BF16, DTYPE_BF16, 0, false}, {"q8_0", MATRIX_Q8_0, DTYPE_Q8_0, 0, false},
    {"q4_0", MATRIX_Q4_0, DTYPE_Q4_0, 0, false}, {"q2_0", MATRIX_Q2_0, DTYPE_Q2_0, 0, false},
    {"q1_0", MATRIX_Q1_0, DTYPE_Q1_0, 0, false}, {"q1_0 sparse", MATRIX_Q1_0, DTYPE_Q1_0, 0, true},
    {"code2", MATRIX_CODE, DTYPE_I8, 2, false},  {"code4", MATRIX_CODE, DTYPE_I8, 4, false},
    {"code8", MATRIX_CODE, DTYPE_I8, 8, false},  {"code16", MATRIX_CODE, DTYPE_I8, 16, false},
};

enum { N_TYPES = sizeof types / sizeof types[0] };

enum status bench_alloc(struct bench_case *c, void *out, size_t bytes, struct error *e)
{
    FAIL_IF(c->n_buffers == BENCH_BUFFERS, e, ERR_LIMIT, "a case of the bench has %d buffers",
            BENCH_BUFFERS);
    TRY(mem_array(out, bytes, 1, "the bench's data", e));
    memcpy(&c->buffers[c->n_buffers++], out, sizeof(void *));
    return OK;
}

enum status bench_floats(struct bench_case *c, const float **out, size_t n, struct error *e)
{
    struct random_weights random = {n + 1};
    float *x;
    TRY(bench_alloc(c, &x, n * sizeof *x, e));
    random_weights_fill(&random, DTYPE_F32, 1, x, n * sizeof *x);
    *out = x;
    return OK;
}

void bench_free(struct bench_case *c)
{
    for (int i = 0; i < c->n_buffers; i++)
        free(c->buffers[i]);
    c->n_buffers = 0;
}

static size_t stored_bytes(const struct bench_type *t, size_t rows, size_t cols)
{
    const struct dtype_info *info = dtype_info(t->dtype);
    if (t->type == MATRIX_CODE)
        return (rows + MATRIX_BAND - 1) / MATRIX_BAND * MATRIX_BAND *
               ((cols + (size_t)t->d - 1) / (size_t)t->d);
    return rows * (cols / info->block) * info->block_bytes;
}

static enum status add_scales(struct bench_case *c, struct matrix *m, struct error *e)
{
    uint16_t *out;
    TRY(bench_alloc(c, &out, (size_t)m->rows * sizeof *out, e));
    for (int r = 0; r < m->rows; r++)
        out[r] = random_weights_code_scale((uint32_t)m->d, (uint64_t)m->cols);
    m->out = out;
    m->codebook = codebook_for((uint32_t)m->d)->vector;
    return OK;
}

/* The same number in every row, evenly spread. */
static enum status add_sparse(struct bench_case *c, struct matrix *m, struct error *e)
{
    uint32_t each = (uint32_t)m->cols / SPARSE_SHARE, n = each * (uint32_t)m->rows;
    uint32_t *start;
    int16_t *column;
    uint16_t *value;
    struct random_weights random = {1};
    TRY(bench_alloc(c, &start, ((size_t)m->rows + 1) * sizeof *start, e));
    TRY(bench_alloc(c, &column, n * sizeof *column, e));
    TRY(bench_alloc(c, &value, n * sizeof *value, e));
    for (int r = 0; r <= m->rows; r++)
        start[r] = each * (uint32_t)r;
    for (uint32_t i = 0; i < n; i++)
        column[i] = (int16_t)(i % each * SPARSE_SHARE + i / each % SPARSE_SHARE);
    random_weights_fill(&random, DTYPE_F16, (uint64_t)m->cols, value, n * sizeof *value);
    m->outlier_start = start;
    m->outlier_column = column;
    m->outlier_column_bytes = sizeof *column;
    m->outlier_value = value;
    return OK;
}

enum status bench_matrix(struct bench_case *c, const char *name, int rows, int cols,
                         struct matrix *m, struct error *e)
{
    const struct bench_type *t = types;
    while (strcmp(t->name, name))
        t++;
    size_t bytes = stored_bytes(t, (size_t)rows, (size_t)cols);
    struct random_weights random = {1};
    uint8_t *data;
    TRY(bench_alloc(c, &data, bytes, e));
    random_weights_fill(&random, t->dtype, (uint64_t)cols, data, bytes);
    *m = (struct matrix){.type = t->type, .rows = rows, .cols = cols, .data = data, .d = t->d};
    if (t->type == MATRIX_CODE)
        TRY(add_scales(c, m, e));
    return t->sparse ? add_sparse(c, m, e) : OK;
}

static void run_product(const struct bench_case *c, const struct bench_part *part)
{
    const struct matrix *m = &c->product.m[0];
    if (part)
        kernels.product[m->type](m, c->prepared[0], c->x, part->tokens, 0, part->rows, c->out,
                                 (size_t)m->rows);
    else
        product_multiply(&c->product, c->prepared, c->x, c->tokens, (float *[]){c->out});
}

static bench_function *product_kernel(const struct bench_case *c)
{
    return (bench_function *)kernels.product[c->product.m[0].type];
}

/* The first rows of the first few tokens, as many as make so much work. */
static struct bench_part part_of(const struct bench_case *c, int tokens, size_t work)
{
    const struct matrix *m = &c->product.m[0];
    struct bench_part part = {c->tokens, m->rows};
    if (c->work <= (double)work)
        return part;
    part.tokens = c->tokens < tokens ? c->tokens : tokens;
    size_t rows = work / ((size_t)m->cols * (size_t)part.tokens) / MATRIX_BAND * MATRIX_BAND;
    if (rows < (size_t)m->rows)
        part.rows = rows > MATRIX_BAND ? (int)rows : MATRIX_BAND;
    return part;
}

/* Comparing wants many tokens; a time wants many rows, for which tables are made once. */
static void choose_parts(struct bench_case *c)
{
    const struct matrix *m = &c->product.m[0];
    c->compared = part_of(c, 16, PART_WORK / 4);
    c->timed = part_of(c, 4, PART_WORK);
    c->timed_share = (double)c->timed.tokens * c->timed.rows / ((double)m->rows * c->tokens);
    c->check_rows = (size_t)c->compared.tokens;
    c->check_bytes = (size_t)c->compared.rows * sizeof(float);
    c->result_stride = (size_t)m->rows * sizeof(float);
}

/* What stands ready for the most tokens serves fewer too. */
static enum status make_product(struct bench_case *c, const struct bench_type *t, int rows,
                                int cols, size_t tokens, struct error *e)
{
    struct product *p = &c->product;
    TRY(bench_matrix(c, t->name, rows, cols, &p->m[0], e));
    p->count = 1;
    product_plan(p);
    TRY(bench_floats(c, &c->x, tokens * (size_t)cols, e));
    TRY(bench_alloc(c, &c->prepared[0], tokens * act_bytes(&p->m[0]), e));
    TRY(bench_alloc(c, &c->out, tokens * (size_t)rows * sizeof(float), e));
    for (size_t i = 0; i < tokens; i++)
        product_prepare(p, c->prepared, (int)i, c->x + i * (size_t)cols);
    snprintf(c->op, sizeof c->op, "product");
    snprintf(c->kind, sizeof c->kind, "%s", t->name);
    snprintf(c->shape, sizeof c->shape, "%dx%d", rows, cols);
    c->run = run_product;
    c->kernel = product_kernel;
    c->result = c->out;
    c->bytes = (double)stored_bytes(t, (size_t)rows, (size_t)cols);
    if (t->sparse)
        c->bytes += 4.0 * (rows + p->m[0].outlier_start[rows]);
    return OK;
}

static enum status visit_tokens(struct bench_case *c, bool quick, bench_visit_fn *visit, void *self,
                                struct error *e)
{
    static const int tokens[] = {1, 8, 64};
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        if (quick && tokens[i] == 8)
            continue;
        c->rows = c->tokens = tokens[i];
        c->work = (double)product_cost(&c->product) * tokens[i];
        choose_parts(c);
        TRY(visit(self, c, e));
    }
    return OK;
}

static enum status bench_type(const struct bench_type *t, bool quick, bench_visit_fn *visit,
                              void *self, struct error *e)
{
    static const struct {
        int rows, cols;
        bool quick;
    } shapes[] = {{64, 64, false},
                  {256, 256, true},
                  {2048, 2048, true},
                  {5632, 2048, false},
                  {4096, 14336, false}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        int rows = shapes[i].rows, cols = shapes[i].cols;
        uint64_t bytes = stored_bytes(t, (size_t)rows, (size_t)cols);
        bool whole = cols % (int)dtype_info(t->dtype)->block == 0;
        bool fits = sysinfo_ram() == 0 || bytes < sysinfo_ram() / 4;
        if (!whole || !fits || (quick && !shapes[i].quick))
            continue;
        struct bench_case c = {0};
        enum status status = make_product(&c, t, rows, cols, 64, e);
        if (status == OK)
            status = visit_tokens(&c, quick, visit, self, e);
        bench_free(&c);
        TRY(status);
    }
    return OK;
}

enum status bench_products(const char *type, bool quick, bench_visit_fn *visit, void *self,
                           struct error *e)
{
    for (int i = 0; i < N_TYPES; i++)
        if (!type || !strncmp(types[i].name, type, strlen(type)))
            TRY(bench_type(&types[i], quick, visit, self, e));
    return OK;
}
