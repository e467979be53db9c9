/* Everything but products, on the rows of a prompt's micro-batch. Knows no clock. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/random_weights.h"
#include "worker/bench_case.h"

enum { ROWS = 64, KV_HEADS = 8 };

/* A run function that calls statement for each of this thread's rows r of n elements, and the
 * function that says which kernel that was. */
#define OPERATION(name, member, statement)                                                         \
    static void run_##name(const struct bench_case *c, const struct bench_part *part)              \
    {                                                                                              \
        int from = product_share(c->rows, 0), to = product_share(c->rows, 1);                      \
        size_t n = (size_t)c->n;                                                                   \
        (void)part;                                                                                \
        for (size_t r = (size_t)from; r < (size_t)to; r++)                                         \
            statement;                                                                             \
        _Pragma("omp barrier")                                                                     \
    }                                                                                              \
    static bench_function *name##_kernel(const struct bench_case *c)                               \
    {                                                                                              \
        (void)c;                                                                                   \
        return (bench_function *)kernels.member;                                                   \
    }

#define FLOATS(c) ((float *)(c)->out)
#define MATRIX(c) (&(c)->product.m[0])

OPERATION(rms_norm, rms_norm,
          kernels.rms_norm(FLOATS(c) + r * n, c->x + r * n, c->weight, c->n, 1e-5f))
OPERATION(rope, rope,
          kernels.rope(FLOATS(c) + r * n, c->n / c->head_dim, c->head_dim, c->head_dim / 2,
                       c->group == 0, c->weight, c->weight + c->head_dim / 2))
OPERATION(swiglu, swiglu, kernels.swiglu(FLOATS(c) + r * n, c->y + r * n, c->n))
OPERATION(add, add, kernels.add(FLOATS(c) + r * n, c->y + r * n, c->n))
OPERATION(to_f16, to_f16, kernels.to_f16((uint16_t *)c->out + r * n, c->x + r * n, c->n))
OPERATION(to_q8, to_q8,
          kernels.to_q8((int8_t *)c->out + r * (n + 2 * (size_t)kv_scales(c->n)),
                        (uint16_t *)(void *)((int8_t *)c->out +
                                             r * (n + 2 * (size_t)kv_scales(c->n)) + n),
                        c->x + r * n, c->n))
OPERATION(prepare, prepare[MATRIX(c)->type],
          kernels.prepare[MATRIX(c)->type](MATRIX(c), c->x + r * n,
                                           (char *)c->out + r * act_bytes(MATRIX(c))))
OPERATION(row, row[MATRIX(c)->type],
          kernels.row[MATRIX(c)->type](MATRIX(c), (int)(r * 31 % (size_t)MATRIX(c)->rows),
                                       FLOATS(c) + r * n))

static struct kv kv_head(const struct bench_case *c, size_t head)
{
    size_t values = (size_t)c->kv.n * (size_t)c->kv.head_dim;
    size_t bytes = values * (c->kv.type == KV_F16 ? sizeof(uint16_t) : 1);
    size_t scales = (size_t)c->kv.n * (size_t)kv_scales(c->kv.head_dim);
    struct kv kv = c->kv;
    kv.keys = (const char *)kv.keys + head * bytes;
    kv.values = (const char *)kv.values + head * bytes;
    kv.key_scale += head * scales;
    kv.value_scale += head * scales;
    return kv;
}

static void run_attention(const struct bench_case *c, const struct bench_part *part)
{
    int from = product_share(KV_HEADS, 0), to = product_share(KV_HEADS, 1);
    size_t size = (size_t)c->group * (size_t)c->head_dim;
    float *scores =
        (float *)c->scores + (size_t)omp_get_thread_num() * (size_t)c->group * (size_t)c->kv.n;
    (void)part;
    for (size_t h = (size_t)from; h < (size_t)to; h++) {
        struct kv kv = kv_head(c, h);
        kernels.attention(FLOATS(c) + h * size, c->x + h * size, c->group, &kv, 0.125f, scores);
    }
#pragma omp barrier
}

static bench_function *attention_kernel(const struct bench_case *c)
{
    (void)c;
    return (bench_function *)kernels.attention;
}

struct operation {
    const char *name, *kind;
    int rows, n;
    size_t out_bytes; /* a row */
    bool in_place;    /* on floats */
    void (*run)(const struct bench_case *c, const struct bench_part *part);
    bench_function *(*kernel)(const struct bench_case *c);
    int head_dim, half; /* rope */
};

static void label(struct bench_case *c, const char *op, const char *kind)
{
    snprintf(c->op, sizeof c->op, "%s", op);
    snprintf(c->kind, sizeof c->kind, "%s", kind);
    c->timed_share = 1;
    c->check_rows = 1;
}

static enum status make_operation(struct bench_case *c, const struct operation *o, struct error *e)
{
    size_t n = (size_t)o->rows * (size_t)o->n;
    label(c, o->name, o->kind);
    snprintf(c->shape, sizeof c->shape, "%d", o->n);
    c->rows = o->rows;
    c->n = o->n;
    c->head_dim = o->head_dim;
    c->group = o->half;
    TRY(bench_floats(c, &c->x, n, e));
    TRY(bench_floats(c, &c->y, n, e));
    TRY(bench_floats(c, &c->weight, (size_t)o->n, e));
    c->check_bytes = (size_t)o->rows * o->out_bytes;
    TRY(bench_alloc(c, &c->out, c->check_bytes, e));
    c->result = c->out;
    c->original = o->in_place ? c->x : NULL;
    c->original_bytes = n * sizeof(float);
    c->run = o->run;
    c->kernel = o->kernel;
    c->work = (double)n;
    return OK;
}

/* Visits a finished case, or passes on why it is not finished; frees it. */
static enum status finish(struct bench_case *c, enum status status, bench_visit_fn *visit,
                          void *self, struct error *e)
{
    if (status == OK)
        status = visit(self, c, e);
    bench_free(c);
    return status;
}

static enum status bench_vectors(bool quick, bench_visit_fn *visit, void *self, struct error *e)
{
    enum { F = sizeof(float), H = sizeof(uint16_t) };
    const struct operation operations[] = {
        {"rms_norm", "", ROWS, 2048, 2048 * F, false, run_rms_norm, rms_norm_kernel, 0, 0},
        {"rms_norm", "", ROWS, 4096, 4096 * F, false, run_rms_norm, rms_norm_kernel, 0, 0},
        {"rope", "interleaved", ROWS, 2048, 2048 * F, true, run_rope, rope_kernel, 64, 0},
        {"rope", "interleaved", ROWS, 4096, 4096 * F, true, run_rope, rope_kernel, 128, 0},
        {"rope", "halves", ROWS, 2048, 2048 * F, true, run_rope, rope_kernel, 64, 1},
        {"rope", "halves", ROWS, 4096, 4096 * F, true, run_rope, rope_kernel, 128, 1},
        {"swiglu", "", ROWS, 5632, 5632 * F, true, run_swiglu, swiglu_kernel, 0, 0},
        {"swiglu", "", ROWS, 14336, 14336 * F, true, run_swiglu, swiglu_kernel, 0, 0},
        {"add", "", ROWS, 2048, 2048 * F, true, run_add, add_kernel, 0, 0},
        {"add", "", ROWS, 4096, 4096 * F, true, run_add, add_kernel, 0, 0},
        {"to_f16", "", 8 * ROWS, 64, 64 * H, false, run_to_f16, to_f16_kernel, 0, 0},
        {"to_f16", "", 8 * ROWS, 128, 128 * H, false, run_to_f16, to_f16_kernel, 0, 0},
        {"to_q8", "", 8 * ROWS, 64, 64 + 2 * H, false, run_to_q8, to_q8_kernel, 0, 0},
        {"to_q8", "", 8 * ROWS, 128, 128 + 4 * H, false, run_to_q8, to_q8_kernel, 0, 0},
    };
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++) {
        struct bench_case c = {0};
        if (quick && i % 2 == 1)
            continue;
        TRY(finish(&c, make_operation(&c, &operations[i], e), visit, self, e));
    }
    return OK;
}

/* Quantising a vector for products, and reading a row of embeddings. */
static enum status make_matrix_case(struct bench_case *c, const char *op, const char *type, int n,
                                    struct error *e)
{
    bool prepare = !strcmp(op, "prepare");
    struct operation o = {.name = op, .kind = type, .rows = ROWS, .n = n};
    o.run = prepare ? run_prepare : run_row;
    o.kernel = prepare ? prepare_kernel : row_kernel;
    TRY(bench_matrix(c, type, prepare ? MATRIX_BAND : 2048, n, MATRIX(c), e));
    o.out_bytes = prepare ? act_bytes(MATRIX(c)) : (size_t)n * sizeof(float);
    return make_operation(c, &o, e);
}

static enum status bench_matrix_cases(bool quick, bench_visit_fn *visit, void *self,
                                      struct error *e)
{
    static const struct {
        const char *op, *type;
    } cases[] = {{"prepare", "q8_0"}, {"prepare", "code8"}, {"row", "f32"},  {"row", "f16"},
                 {"row", "bf16"},     {"row", "q8_0"},      {"row", "q4_0"}, {"row", "q2_0"},
                 {"row", "q1_0"},     {"row", "code8"},     {"row", "code2"}};
    static const int sizes[] = {2048, 5632, 14336};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t s = 0; s < (quick || !strcmp(cases[i].op, "row") ? 1 : 3); s++) {
            struct bench_case c = {0};
            enum status made = make_matrix_case(&c, cases[i].op, cases[i].type, sizes[s], e);
            TRY(finish(&c, made, visit, self, e));
        }
    return OK;
}

/* A cache of KV_HEADS heads. */
static enum status make_cache(struct bench_case *c, enum kv_type type, int positions, int head_dim,
                              struct error *e)
{
    struct random_weights random = {1};
    size_t n = (size_t)KV_HEADS * (size_t)positions;
    size_t values = n * (size_t)head_dim, scales = n * (size_t)kv_scales(head_dim);
    size_t bytes = values * (type == KV_F16 ? sizeof(uint16_t) : 1);
    enum dtype dtype = type == KV_F16 ? DTYPE_F16 : DTYPE_I8;
    uint16_t *scale;
    void *keys, *cached;
    TRY(bench_alloc(c, &keys, bytes, e));
    TRY(bench_alloc(c, &cached, bytes, e));
    TRY(bench_alloc(c, &scale, scales * sizeof *scale, e));
    random_weights_fill(&random, dtype, 1, keys, bytes);
    random_weights_fill(&random, dtype, 1, cached, bytes);
    for (size_t i = 0; i < scales; i++)
        scale[i] = f32_to_f16(1.0f / 74); /* the root mean square of an int8 */
    c->kv = (struct kv){type, positions, head_dim, keys, cached, scale, scale};
    c->bytes = 2.0 * (double)bytes + (type == KV_Q8 ? 4.0 * (double)scales : 0);
    return OK;
}

static enum status make_attention(struct bench_case *c, enum kv_type type, int positions,
                                  int head_dim, int group, struct error *e)
{
    size_t size = (size_t)KV_HEADS * (size_t)group * (size_t)head_dim;
    size_t scores = (size_t)omp_get_max_threads() * (size_t)group * (size_t)positions;
    label(c, "attention", type == KV_F16 ? "f16" : "q8");
    snprintf(c->shape, sizeof c->shape, "%d of %d, %d", group, head_dim, positions);
    c->rows = KV_HEADS;
    c->head_dim = head_dim;
    c->group = group;
    TRY(make_cache(c, type, positions, head_dim, e));
    TRY(bench_floats(c, &c->x, size, e));
    TRY(bench_alloc(c, &c->out, size * sizeof(float), e));
    TRY(bench_alloc(c, &c->scores, scores * sizeof(float), e));
    c->result = c->out;
    c->check_bytes = size * sizeof(float);
    c->run = run_attention;
    c->kernel = attention_kernel;
    c->work = 2.0 * (double)size * positions;
    return OK;
}

static enum status bench_attention(bool quick, bench_visit_fn *visit, void *self, struct error *e)
{
    static const int groups[] = {1, 4, 8};
    for (int i = 0; i < 24; i++) {
        int group = groups[i / 8];
        bool large = i & 1;
        if (quick && (group != 4 || large))
            continue;
        struct bench_case c = {0};
        enum status made = make_attention(&c, i & 4 ? KV_Q8 : KV_F16, large ? 8192 : 512,
                                          i & 2 ? 128 : 64, group, e);
        TRY(finish(&c, made, visit, self, e));
    }
    return OK;
}

enum status bench_operations(bool quick, bench_visit_fn *visit, void *self, struct error *e)
{
    TRY(bench_matrix_cases(quick, visit, self, e));
    TRY(bench_vectors(quick, visit, self, e));
    return bench_attention(quick, visit, self, e);
}
