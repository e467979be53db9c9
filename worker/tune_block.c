/* Forward and backward of one block for one window. The forward pass takes the steps of layer.c
 * row by row and keeps what the backward pass needs. Must never know where gradients come from. */
#include "worker/tune_block.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "kernels/half.h"
#include "worker/kvcache.h"
#include "worker/rope.h"
#include "worker/tune_attention.h"
#include "worker/tune_codes.h"
#include "worker/tune_product.h"

struct tune_block {
    const struct model_config *config; /* a copy, owned */
    int threads, context;
    int rows; /* of the window in work */
    struct kvcache cache;
    struct tune_tile tile;
    float *cosine, *sine, *minus_sine; /* [context][rope_dim / 2] */
    float *scores;                     /* [threads][heads / kv_heads][context] */
    void *prepared[PRODUCT_MAX];

    /* Forward. [context][hidden]: */
    float *attn_normed, *attn_out, *middle, *ffn_normed, *ffn_out;
    float *q, *k, *v; /* as the products gave them; [context][heads or kv_heads * head_dim] */
    float *q_turned, *k_turned, *v_biased; /* as attention saw them */
    float *attended;
    float *gate, *up, *active; /* [context][ffn], active = silu(gate) up */

    /* Backward: gradients. */
    float *d_normed, *d_x;                       /* [context][hidden] */
    float *d_q, *d_attended, *head_dk, *head_dv; /* [context][heads * head_dim] */
    float *d_k, *d_v;                            /* [context][kv_heads * head_dim] */
    float *d_gate; /* [context][ffn]; that of up takes the place of active */
    float *attention_room;
    size_t attention_room_size;
};

/* Parameters */

struct matrix *tune_block_matrix(struct block_weights *w, enum tune_matrix i)
{
    switch (i) {
    case TUNE_Q:
    case TUNE_K:
    case TUNE_V:
        return &w->qkv.m[i - TUNE_Q];
    case TUNE_O:
        return &w->o.m[0];
    case TUNE_GATE:
    case TUNE_UP:
        return &w->gate_up.m[i - TUNE_GATE];
    default:
        return &w->down.m[0];
    }
}

struct widths {
    size_t q, kv, hidden, ffn, pairs;
};

static struct widths widths_of(const struct model_config *c)
{
    return (struct widths){(size_t)c->heads * c->head_dim, (size_t)c->kv_heads * c->head_dim,
                           c->hidden, c->ffn, c->rope_dim / 2};
}

size_t tune_block_size(const struct model_config *c)
{
    const struct widths n = widths_of(c);
    return n.q + 2 * n.kv + 2 * n.hidden + 2 * n.ffn + 2 * n.hidden;
}

struct tune_vector tune_block_vector(const struct model_config *c, float *flat)
{
    const struct widths n = widths_of(c);
    const size_t rows[TUNE_MATRICES] = {n.q, n.kv, n.kv, n.hidden, n.ffn, n.ffn, n.hidden};
    struct tune_vector v = {.latents = {0}};
    for (int i = 0; i < TUNE_MATRICES; i++) {
        v.row[i] = flat;
        flat += rows[i];
    }
    v.attn_norm = flat;
    v.ffn_norm = flat + n.hidden;
    return v;
}

/* Memory */

static enum status allocate(struct tune_block *t, const size_t room[PRODUCT_MAX], struct error *e)
{
    const struct model_config *c = t->config;
    const struct widths n = widths_of(c);
    size_t rows = (size_t)t->context, group = c->heads / c->kv_heads;
    const char *what = "working memory of tuning a block";
    const struct {
        float **array;
        size_t cols;
    } arrays[] = {
        {&t->cosine, n.pairs},
        {&t->sine, n.pairs},
        {&t->minus_sine, n.pairs},
        {&t->attn_normed, n.hidden},
        {&t->attn_out, n.hidden},
        {&t->middle, n.hidden},
        {&t->ffn_normed, n.hidden},
        {&t->ffn_out, n.hidden},
        {&t->q, n.q},
        {&t->k, n.kv},
        {&t->v, n.kv},
        {&t->q_turned, n.q},
        {&t->k_turned, n.kv},
        {&t->v_biased, n.kv},
        {&t->attended, n.q},
        {&t->gate, n.ffn},
        {&t->up, n.ffn},
        {&t->active, n.ffn},
        {&t->d_normed, n.hidden},
        {&t->d_x, n.hidden},
        {&t->d_q, n.q},
        {&t->d_attended, n.q},
        {&t->head_dk, n.q},
        {&t->head_dv, n.q},
        {&t->d_k, n.kv},
        {&t->d_v, n.kv},
        {&t->d_gate, n.ffn},
        {&t->scores, (size_t)t->threads * group},
        {&t->attention_room, (size_t)t->threads * (t->attention_room_size / rows)},
    };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        TRY(mem_array(arrays[i].array, rows, arrays[i].cols * sizeof(float), what, e));
    for (int i = 0; i < PRODUCT_MAX; i++)
        TRY(mem_array(&t->prepared[i], rows, room[i], what, e));
    return OK;
}

static enum status fill_angles(struct tune_block *t, const float *factors, struct error *e)
{
    struct rope rope = {0};
    size_t pairs = t->config->rope_dim / 2;
    enum status status = rope_create(&rope, t->config, factors, e);
    for (int r = 0; r < t->context && status == OK; r++)
        rope_angles(&rope, (uint32_t)r, t->cosine + (size_t)r * pairs, t->sine + (size_t)r * pairs);
    for (size_t i = 0; i < (size_t)t->context * pairs; i++)
        t->minus_sine[i] = -t->sine[i];
    rope_free(&rope);
    return status;
}

static enum status create(struct tune_block *t, const struct model_config *c,
                          const float *rope_factors, const size_t room[PRODUCT_MAX],
                          struct error *e)
{
    const struct widths n = widths_of(c);
    size_t widest = n.q > n.ffn ? n.q : n.ffn;
    struct model_config *copy;
    TRY(mem_array(&copy, 1, sizeof *copy, "a model's shape", e));
    *copy = *c;
    t->config = copy;
    t->attention_room_size = tune_attention_room((size_t)t->context);
    TRY(allocate(t, room, e));
    TRY(tune_tile_create(&t->tile, widest > n.hidden ? widest : n.hidden, e));
    TRY(kvcache_create(&t->cache, KV_F16, 1, 1, c->kv_heads, (uint32_t)t->context, c->head_dim, e));
    return fill_angles(t, rope_factors, e);
}

enum status tune_block_create(struct tune_block **out, const struct model_config *c,
                              const float *rope_factors, uint32_t context,
                              const size_t room[PRODUCT_MAX], int threads, struct error *e)
{
    struct tune_block *t;
    *out = NULL;
    TRY(mem_array(&t, 1, sizeof *t, "working memory of tuning a block", e));
    t->threads = threads;
    t->context = (int)context;
    enum status status = create(t, c, rope_factors, room, e);
    if (status == OK)
        *out = t;
    else
        tune_block_free(t);
    return status;
}

void tune_block_free(struct tune_block *t)
{
    if (!t)
        return;
    float *const arrays[] = {t->cosine, t->sine,       t->minus_sine, t->attn_normed,   t->attn_out,
                             t->middle, t->ffn_out,    t->q,          t->ffn_normed,    t->k,
                             t->v,      t->q_turned,   t->k_turned,   t->v_biased,      t->attended,
                             t->gate,   t->up,         t->active,     t->d_normed,      t->d_x,
                             t->d_q,    t->d_attended, t->head_dk,    t->head_dv,       t->d_k,
                             t->d_v,    t->d_gate,     t->scores,     t->attention_room};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        free(arrays[i]);
    for (int i = 0; i < PRODUCT_MAX; i++)
        free(t->prepared[i]);
    tune_tile_free(&t->tile);
    kvcache_free(&t->cache);
    free((void *)(uintptr_t)t->config);
    free(t);
}

/* Forward. From here on to the public functions: called by all threads of a parallel region. */

/* The rows of this thread are [*first, *end). */
static void own_rows(const struct tune_block *t, int *first, int *end)
{
    *first = product_share(t->rows, 0);
    *end = product_share(t->rows, 1);
}

/* y = p x, x[rows][cols] and its rows prepared. */
static void multiply(struct tune_block *t, const struct product *p, const float *x, float *const *y)
{
#pragma omp barrier
    product_multiply(p, t->prepared, x, t->rows, y);
}

/* normed = RMSNorm(x), y = p normed. */
static void norm_product(struct tune_block *t, const float *weight, const struct product *p,
                         const float *x, float *normed, float *const *y)
{
    int first, end;
    size_t hidden = t->config->hidden;
    own_rows(t, &first, &end);
    for (int r = first; r < end; r++) {
        float *n = normed + (size_t)r * hidden;
        kernels.rms_norm(n, x + (size_t)r * hidden, weight, (int)hidden, t->config->rms_eps);
        product_prepare(p, t->prepared, r, n);
    }
    multiply(t, p, normed, y);
}

/* sum = x + p from[rows][cols], the product itself in y. */
static void out_product(struct tune_block *t, const struct product *p, const float *from,
                        const float *x, float *y, float *sum)
{
    int first, end;
    size_t hidden = t->config->hidden, cols = (size_t)p->m[0].cols;
    own_rows(t, &first, &end);
    for (int r = first; r < end; r++)
        product_prepare(p, t->prepared, r, from + (size_t)r * cols);
    multiply(t, p, from, (float *[]){y});
    for (int r = first; r < end; r++) {
        if (sum != x)
            memcpy(sum + (size_t)r * hidden, x + (size_t)r * hidden, hidden * sizeof *x);
        kernels.add(sum + (size_t)r * hidden, y + (size_t)r * hidden, (int)hidden);
    }
}

/* to[heads][head_dim] = from with bias, norm per head and rotation by row r's angles. */
static void turn_heads(const struct tune_block *t, const float *from, int heads, const float *bias,
                       const float *norm, int r, float *to)
{
    const struct model_config *c = t->config;
    int dim = (int)c->head_dim, pairs = (int)c->rope_dim / 2;
    memcpy(to, from, (size_t)(heads * dim) * sizeof *to);
    if (bias)
        kernels.add(to, bias, heads * dim);
    for (int h = 0; norm && h < heads; h++)
        kernels.rms_norm(to + h * dim, to + h * dim, norm, dim, c->rms_eps);
    kernels.rope(to, heads, dim, pairs, c->rope_interleaved, t->cosine + (size_t)r * (size_t)pairs,
                 t->sine + (size_t)r * (size_t)pairs);
}

/* x[n] as the cache holds it. */
static void round_half(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = half_to_float(half_from_float(x[i]));
}

static void store_row(struct tune_block *t, const struct block_weights *w, int r)
{
    const struct model_config *c = t->config;
    const struct widths n = widths_of(c);
    size_t row = (size_t)r, dim = c->head_dim;
    float *k = t->k_turned + row * n.kv, *v = t->v_biased + row * n.kv;
    turn_heads(t, t->q + row * n.q, (int)c->heads, w->q_bias, w->q_norm, r,
               t->q_turned + row * n.q);
    turn_heads(t, t->k + row * n.kv, (int)c->kv_heads, w->k_bias, w->k_norm, r, k);
    memcpy(v, t->v + row * n.kv, n.kv * sizeof *v);
    if (w->v_bias)
        kernels.add(v, w->v_bias, (int)n.kv);
    for (uint32_t h = 0; h < c->kv_heads; h++)
        kvcache_store(&t->cache, 0, 0, h, (uint32_t)r, k + h * dim, v + h * dim);
    round_half(k, n.kv);
    round_half(v, n.kv);
}

/* All heads of one group of row r. */
static void attend(struct tune_block *t, int r, uint32_t kv_head)
{
    const struct model_config *c = t->config;
    uint32_t group = c->heads / c->kv_heads, seen = (uint32_t)r + 1;
    uint32_t n = c->sliding_window > 0 && c->sliding_window < seen ? c->sliding_window : seen;
    struct kv kv = kvcache_view(&t->cache, 0, 0, kv_head, seen - n, n);
    size_t q = ((size_t)r * c->heads + kv_head * group) * c->head_dim;
    float *scores = t->scores + (size_t)omp_get_thread_num() * group * (size_t)t->context;
    kernels.attention(t->attended + q, t->q_turned + q, (int)group, &kv,
                      1.0f / sqrtf((float)c->head_dim), scores);
}

static void attend_all(struct tune_block *t, const struct block_weights *w)
{
    int first, end, units = t->rows * (int)t->config->kv_heads;
    own_rows(t, &first, &end);
    for (int r = first; r < end; r++)
        store_row(t, w, r);
#pragma omp barrier
    /* Later rows see more: they go round the threads. */
    for (int i = omp_get_thread_num(); i < units; i += omp_get_num_threads())
        attend(t, i % t->rows, (uint32_t)(i / t->rows));
#pragma omp barrier
}

static void swiglu(struct tune_block *t)
{
    int first, end;
    size_t ffn = t->config->ffn;
    own_rows(t, &first, &end);
    for (int r = first; r < end; r++) {
        float *active = t->active + (size_t)r * ffn;
        memcpy(active, t->gate + (size_t)r * ffn, ffn * sizeof *active);
        kernels.swiglu(active, t->up + (size_t)r * ffn, (int)ffn);
    }
}

/* out may be x. */
static void forward(struct tune_block *t, const struct block_weights *w, const float *x, float *out)
{
    norm_product(t, w->attn_norm, &w->qkv, x, t->attn_normed, (float *[]){t->q, t->k, t->v});
    attend_all(t, w);
    out_product(t, &w->o, t->attended, x, t->attn_out, t->middle);
    norm_product(t, w->ffn_norm, &w->gate_up, t->middle, t->ffn_normed,
                 (float *[]){t->gate, t->up});
    swiglu(t);
    out_product(t, &w->down, t->active, t->middle, t->ffn_out, out);
}

/* Backward */

/* Gradients of matrix i, y = m x. Nothing written to x, y or dy before the next barrier. */
static void add_rows(const struct tune_block *t, enum tune_matrix i, const struct matrix *m,
                     const float *x, const float *dy, const float *y,
                     const struct tune_vector *gradient, const struct tune_vector *energy)
{
    tune_row_gradient(dy, y, t->rows, m->rows, gradient->row[i], energy ? energy->row[i] : NULL);
    if (gradient->latents[i])
        tune_codes_gradient(m, dy, x, t->rows, gradient->latents[i]);
}

/* dx += the gradient of x from that of RMSNorm(x), t->d_normed, which is complete. Ends with a
 * barrier. */
static void norm_backward(struct tune_block *t, const float *weight, const float *x, float *dx)
{
    int first, end;
    size_t hidden = t->config->hidden;
    own_rows(t, &first, &end);
    for (int r = first; r < end; r++) {
        size_t at = (size_t)r * hidden;
        tune_norm_backward(x + at, weight, (int)hidden, t->config->rms_eps, t->d_normed + at,
                           t->d_x + at);
        kernels.add(dx + at, t->d_x + at, (int)hidden);
    }
#pragma omp barrier
}

static void ffn_backward(struct tune_block *t, const struct block_weights *w, float *dx,
                         const struct tune_vector *g, const struct tune_vector *energy)
{
    int first, end;
    size_t hidden = t->config->hidden, ffn = t->config->ffn;
    float *d_up = t->active;
    own_rows(t, &first, &end);
    add_rows(t, TUNE_DOWN, &w->down.m[0], t->active, dx, t->ffn_out, g, energy);
    tune_product_backward(&w->down, (float *[]){dx}, t->rows, &t->tile, t->d_gate);
    for (int r = first; r < end; r++) {
        size_t at = (size_t)r * ffn;
        tune_swiglu_backward(t->gate + at, t->up + at, (int)ffn, t->d_gate + at, t->d_gate + at,
                             d_up + at);
    }
#pragma omp barrier
    add_rows(t, TUNE_GATE, &w->gate_up.m[0], t->ffn_normed, t->d_gate, t->gate, g, energy);
    add_rows(t, TUNE_UP, &w->gate_up.m[1], t->ffn_normed, d_up, t->up, g, energy);
    tune_product_backward(&w->gate_up, (float *[]){t->d_gate, d_up}, t->rows, &t->tile,
                          t->d_normed);
    tune_row_gradient(t->d_normed, t->ffn_normed, t->rows, (int)hidden, g->ffn_norm, NULL);
    norm_backward(t, w->ffn_norm, t->middle, dx);
}

/* From the gradient of turned heads to that of the product that made them, in place. */
static void unturn_heads(const struct tune_block *t, const float *made, int heads,
                         const float *bias, const float *norm, int r, float *d)
{
    const struct model_config *c = t->config;
    int dim = (int)c->head_dim, pairs = (int)c->rope_dim / 2;
    float biased[1024]; /* the kernels' limit of head_dim */
    kernels.rope(d, heads, dim, pairs, c->rope_interleaved, t->cosine + (size_t)r * (size_t)pairs,
                 t->minus_sine + (size_t)r * (size_t)pairs);
    for (int h = 0; norm && h < heads; h++) {
        memcpy(biased, made + h * dim, (size_t)dim * sizeof *biased);
        if (bias)
            kernels.add(biased, bias + h * dim, dim);
        tune_norm_backward(biased, norm, dim, c->rms_eps, d + h * dim, d + h * dim);
    }
}

static void attention_backward(struct tune_block *t, const struct block_weights *w)
{
    const struct tune_attention a = {.q = t->q_turned,
                                     .k = t->k_turned,
                                     .v = t->v_biased,
                                     .dout = t->d_attended,
                                     .dq = t->d_q,
                                     .dk = t->d_k,
                                     .dv = t->d_v,
                                     .head_dk = t->head_dk,
                                     .head_dv = t->head_dv,
                                     .room = t->attention_room,
                                     .room_size = t->attention_room_size,
                                     .rows = t->rows};
    const struct model_config *c = t->config;
    const struct widths n = widths_of(c);
    int first, end;
    own_rows(t, &first, &end);
    tune_attention_backward(c, &a);
    for (int r = first; r < end; r++) {
        size_t q = (size_t)r * n.q, kv = (size_t)r * n.kv;
        unturn_heads(t, t->q + q, (int)c->heads, w->q_bias, w->q_norm, r, t->d_q + q);
        unturn_heads(t, t->k + kv, (int)c->kv_heads, w->k_bias, w->k_norm, r, t->d_k + kv);
    }
#pragma omp barrier
}

static void attention_half_backward(struct tune_block *t, const struct block_weights *w,
                                    const float *x, float *dx, const struct tune_vector *g,
                                    const struct tune_vector *energy)
{
    int hidden = (int)t->config->hidden;
    add_rows(t, TUNE_O, &w->o.m[0], t->attended, dx, t->attn_out, g, energy);
    tune_product_backward(&w->o, (float *[]){dx}, t->rows, &t->tile, t->d_attended);
    attention_backward(t, w);
    add_rows(t, TUNE_Q, &w->qkv.m[0], t->attn_normed, t->d_q, t->q, g, energy);
    add_rows(t, TUNE_K, &w->qkv.m[1], t->attn_normed, t->d_k, t->k, g, energy);
    add_rows(t, TUNE_V, &w->qkv.m[2], t->attn_normed, t->d_v, t->v, g, energy);
    tune_product_backward(&w->qkv, (float *[]){t->d_q, t->d_k, t->d_v}, t->rows, &t->tile,
                          t->d_normed);
    tune_row_gradient(t->d_normed, t->attn_normed, t->rows, hidden, g->attn_norm, NULL);
    norm_backward(t, w->attn_norm, x, dx);
}

void tune_block_forward(struct tune_block *t, const struct block_weights *w, float *x,
                        uint32_t rows)
{
    t->rows = (int)rows;
#pragma omp parallel num_threads(t->threads)
    forward(t, w, x, x);
}

void tune_block_backward(struct tune_block *t, const struct block_weights *w, const float *x,
                         uint32_t rows, float *dx, const struct tune_vector *gradient,
                         const struct tune_vector *energy)
{
    t->rows = (int)rows;
#pragma omp parallel num_threads(t->threads)
    {
        forward(t, w, x, t->d_x);
#pragma omp barrier
        ffn_backward(t, w, dx, gradient, energy);
        attention_half_backward(t, w, x, dx, gradient, energy);
    }
}
