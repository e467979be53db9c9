/* The arithmetic of one block as the papers write it. All functions except the public ones are
 * called by every thread of the parallel region and share their loops. Must never know where rows
 * come from. */
#include "worker/layer.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#define PARALLEL_COST ((size_t)1 << 19) /* multiply-adds, some ten microseconds */

/* The rows of x, normed and prepared that this thread works on: its share, or, of a single row, its
 * own copy, in the place of row number thread. A copy costs the time that the others would wait for
 * one thread, and saves the barrier. */
struct own {
    bool copy;
    int first, end;
};

static struct own own_rows(const struct scratch *s, int rows)
{
    int thread = omp_get_thread_num();
    if (rows == 1 && omp_get_num_threads() <= s->batch)
        return (struct own){true, thread, thread + 1};
    return (struct own){false, product_share(rows, 0), product_share(rows, 1)};
}

/* Ends steps that others read: without copies all rows must be there. */
static void finish_rows(const struct own *own)
{
    if (!own->copy) {
#pragma omp barrier
    }
}

/* y = p times the rows x, row being what own says of s->prepared. Ends with a barrier. */
static void multiply(const struct product *p, const struct scratch *s, const struct own *own,
                     const float *x, int rows, float *const *y)
{
    void *prepared[PRODUCT_MAX];
    product_row(p, s->prepared, own->copy ? own->first : 0, prepared);
    product_multiply(p, prepared, x, rows, y);
}

/* Row r of normed = RMSNorm(x), prepared for the products of p. */
static void norm_row(const struct model_config *c, const float *weight, const struct product *p,
                     const float *x, int r, struct scratch *s)
{
    float *n = s->normed + (size_t)r * c->hidden;
    kernels.rms_norm(n, x, weight, (int)c->hidden, c->rms_eps);
    product_prepare(p, s->prepared, r, n);
}

/* y = p RMSNorm(x) of rows rows; a thread that works on a copy finds its row at x. */
static void norm_product(const struct model_config *c, const float *weight, const struct product *p,
                         const struct own *own, const float *x, int rows, struct scratch *s,
                         float *const *y)
{
    size_t hidden = c->hidden;
    for (int r = own->first; r < own->end; r++)
        norm_row(c, weight, p, x + (own->copy ? 0 : (size_t)r * hidden), r, s);
    finish_rows(own);
    multiply(p, s, own, s->normed + (own->copy ? (size_t)own->first * hidden : 0), rows, y);
}

/* Bias, norm per head and rotation of heads of one row's queries or keys, v[heads][head_dim]. */
static void finish_heads(const struct model_config *c, float *v, uint32_t heads, const float *bias,
                         const float *head_norm, const float *cosine, const float *sine)
{
    int dim = (int)c->head_dim;
    if (bias)
        kernels.add(v, bias, (int)heads * dim);
    if (head_norm)
        for (uint32_t h = 0; h < heads; h++)
            kernels.rms_norm(v + h * c->head_dim, v + h * c->head_dim, head_norm, dim, c->rms_eps);
    kernels.rope(v, (int)heads, dim, (int)c->rope_dim / 2, c->rope_interleaved, cosine, sine);
}

static const float *from(const float *bias, size_t at)
{
    return bias ? bias + at : NULL;
}

/* Finishes one row's queries of a group and their key and value, and stores the latter. */
static void finish_group(const struct layer *l, struct scratch *s, int r, uint32_t kv_head)
{
    const struct model_config *c = l->config;
    const struct block_weights *w = l->weights;
    uint32_t group = c->heads / c->kv_heads;
    size_t dim = c->head_dim, at = kv_head * dim, row = (size_t)r, pairs = c->rope_dim / 2;
    const float *cosine = s->cosine + row * pairs, *sine = s->sine + row * pairs;
    float *q = s->q + (row * c->heads + kv_head * group) * dim;
    float *k = s->k + row * c->kv_heads * dim + at, *v = s->v + row * c->kv_heads * dim + at;
    finish_heads(c, q, group, from(w->q_bias, at * group), w->q_norm, cosine, sine);
    finish_heads(c, k, 1, from(w->k_bias, at), w->k_norm, cosine, sine);
    if (w->v_bias)
        kernels.add(v, w->v_bias + at, (int)dim);
    kvcache_store(l->cache, l->cache_block, s->row[r].sequence, kv_head, s->row[r].position, k, v);
}

/* attended = softmax(q K^T / sqrt(head_dim)) V of one row and heads of one group. */
static void attend(const struct layer *l, struct scratch *s, int r, uint32_t first, uint32_t heads)
{
    const struct model_config *c = l->config;
    const struct row *row = &s->row[r];
    uint32_t group = c->heads / c->kv_heads, seen = row->position + 1;
    uint32_t n = c->sliding_window > 0 && c->sliding_window < seen ? c->sliding_window : seen;
    struct kv kv =
        kvcache_view(l->cache, l->cache_block, row->sequence, first / group, seen - n, n);
    size_t q = ((size_t)r * c->heads + first) * c->head_dim;
    float *scores = s->scores + (size_t)omp_get_thread_num() * group * s->positions;
    kernels.attention(s->attended + q, s->q + q, (int)heads, &kv, 1.0f / sqrtf((float)c->head_dim),
                      scores);
}

/* Into how many parts each group is cut so that n of them occupy all threads; a part reads all of
 * the cache. */
static int group_parts(int n, int group)
{
    int threads = omp_get_num_threads(), parts = 1;
    while (parts < group && n * parts % threads != 0 && n * parts < 4 * threads)
        parts++;
    return parts;
}

/* Units of work go round the threads, heads of the cache first: rows are of different length, and what
 * a thread reads for one row it reads again for the next. */
static void attend_all(const struct layer *l, struct scratch *s)
{
    int kv_heads = (int)l->config->kv_heads, group = (int)l->config->heads / kv_heads;
    int rows = s->rows, n = rows * kv_heads, parts = group_parts(n, group);
    int thread = omp_get_thread_num(), threads = omp_get_num_threads();
    for (int i = thread; i < n; i += threads)
        finish_group(l, s, i % rows, (uint32_t)(i / rows));
    /* A single row's group needs the keys and values of its own thread only, unless it is cut. */
    if (rows > 1 || parts > 1) {
#pragma omp barrier
    }
    for (int i = thread; i < n * parts; i += threads) {
        int part = i % parts, head = i / parts / rows * group;
        int first = group * part / parts, end = group * (part + 1) / parts;
        attend(l, s, i / parts % rows, (uint32_t)(head + first), (uint32_t)(end - first));
    }
#pragma omp barrier
}

/* delta = p times from[rows][cols], which is complete. */
static void out_product(const struct product *p, const struct own *own, struct scratch *s,
                        const float *x, size_t cols)
{
    for (int r = own->first; r < own->end; r++)
        product_prepare(p, s->prepared, r, x + (own->copy ? 0 : (size_t)r * cols));
    finish_rows(own);
    multiply(p, s, own, x, s->rows, (float *[]){s->delta});
}

/* gate = silu(gate) up, a single row by columns. */
static void swiglu(const struct layer *l, const struct own *own, struct scratch *s)
{
    size_t ffn = l->config->ffn;
    if (own->copy) {
        int first = product_share((int)ffn / 16, 0) * 16;
        int end = product_share((int)ffn / 16, 1) * 16;
        if (omp_get_thread_num() + 1 == omp_get_num_threads())
            end = (int)ffn;
        kernels.swiglu(s->gate + first, s->up + first, end - first);
#pragma omp barrier
        return;
    }
    for (int r = own->first; r < own->end; r++)
        kernels.swiglu(s->gate + (size_t)r * ffn, s->up + (size_t)r * ffn, (int)ffn);
}

/* x += delta */
static void add_residual(const struct layer *l, const struct own *own, struct scratch *s)
{
    size_t hidden = l->config->hidden;
    for (int r = own->first; r < own->end; r++)
        kernels.add(s->x + (size_t)r * hidden, s->delta + (own->copy ? 0 : (size_t)r * hidden),
                    (int)hidden);
}

/* Every thread's copy of a single row. */
static void copy_row(const struct layer *l, const struct own *own, struct scratch *s)
{
    size_t hidden = l->config->hidden;
    if (own->copy && own->first > 0)
        memcpy(s->x + (size_t)own->first * hidden, s->x, hidden * sizeof *s->x);
}

static void take_step(const struct layer *l, const struct own *own, enum layer_step step,
                      struct scratch *s)
{
    const struct model_config *c = l->config;
    const struct block_weights *w = l->weights;
    const float *x = s->x + (own->copy ? (size_t)own->first * c->hidden : 0);
    switch (step) {
    case LAYER_ATTEND:
        norm_product(c, w->attn_norm, &w->qkv, own, x, s->rows, s, (float *[]){s->q, s->k, s->v});
        attend_all(l, s);
        break;
    case LAYER_OUT:
        out_product(&w->o, own, s, s->attended, (size_t)c->heads * c->head_dim);
        add_residual(l, own, s);
        break;
    case LAYER_GATE:
        norm_product(c, w->ffn_norm, &w->gate_up, own, x, s->rows, s, (float *[]){s->gate, s->up});
        swiglu(l, own, s);
        break;
    default:
        out_product(&w->down, own, s, s->gate, c->ffn);
        add_residual(l, own, s);
    }
}

/* Steps [first, end) by every thread of a parallel region. */
static void forward(const struct layer *l, int first, int end, struct scratch *s)
{
    const struct own own = own_rows(s, s->rows);
    copy_row(l, &own, s); /* before the first barrier; row 0 changes after it */
    for (int step = first; step < end; step++)
        take_step(l, &own, (enum layer_step)step, s);
}

/* All threads, or one where waking the others would take longer than the work. Nothing between: a
 * team that shrinks ends its threads. */
static int team(const struct scratch *s, size_t cost)
{
    return cost < PARALLEL_COST ? 1 : s->threads;
}

static void run_steps(const struct layer *l, int first, int end, struct scratch *s)
{
    const struct block_weights *w = l->weights;
    const struct product *const product[LAYER_STEPS] = {&w->qkv, &w->o, &w->gate_up, &w->down};
    size_t cost = 0;
    for (int step = first; step < end; step++)
        cost += product_cost(product[step]);
    int threads = team(s, cost * (size_t)s->rows);
#pragma omp parallel num_threads(threads)
    forward(l, first, end, s);
}

void layer_forward(const struct layer *l, struct scratch *s)
{
    run_steps(l, 0, LAYER_STEPS, s);
}

void layer_step(const struct layer *l, enum layer_step step, struct scratch *s)
{
    run_steps(l, step, step + 1, s);
}

void layer_norm_product(const struct model_config *c, const float *norm_weight,
                        const struct product *p, const float *x, int n_rows, struct scratch *s,
                        float *y)
{
    int threads = team(s, product_cost(p) * (size_t)n_rows);
#pragma omp parallel num_threads(threads)
    {
        const struct own own = own_rows(s, n_rows);
        norm_product(c, norm_weight, p, &own, x, n_rows, s, (float *[]){y});
    }
}
