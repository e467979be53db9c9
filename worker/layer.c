/* The arithmetic of one block as the papers write it. All functions except the public ones are
 * called by every thread of the parallel region and share their loops; each loop ends with a
 * barrier. Must never know where rows come from. */
#include "worker/layer.h"

#include <math.h>
#include <omp.h>

#define PARALLEL_COST ((size_t)1 << 19) /* multiply-adds, some ten microseconds */

/* normed = RMSNorm(x), and prepared for the products of p. */
static void norm(const struct model_config *c, const float *weight, const struct product *p,
                 const float *x, int rows, struct scratch *s)
{
    size_t hidden = c->hidden;
#pragma omp for schedule(static)
    for (int r = 0; r < rows; r++) {
        float *n = s->normed + (size_t)r * hidden;
        kernels.rms_norm(n, x + (size_t)r * hidden, weight, (int)hidden, c->rms_eps);
        product_prepare(p, s->prepared, r, n);
    }
}

/* Bias, norm per head and rotation of one row's queries or keys v[heads][head_dim]. */
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

/* Puts row r's keys and values into the cache. */
static void store(const struct layer *l, const struct scratch *s, int r)
{
    const struct model_config *c = l->config;
    const struct row *row = &s->row[r];
    for (uint32_t h = 0; h < c->kv_heads; h++) {
        size_t at = kvcache_at(l->cache, l->cache_block, row->sequence, h) +
                    (size_t)row->position * c->head_dim;
        size_t from = ((size_t)r * c->kv_heads + h) * c->head_dim;
        kernels.to_f16(l->cache->keys + at, s->k + from, (int)c->head_dim);
        kernels.to_f16(l->cache->values + at, s->v + from, (int)c->head_dim);
    }
}

static void rotate_and_store(const struct layer *l, struct scratch *s)
{
    const struct model_config *c = l->config;
    const struct block_weights *w = l->weights;
    size_t q_row = (size_t)c->heads * c->head_dim, kv_row = (size_t)c->kv_heads * c->head_dim;
    size_t pairs = c->rope_dim / 2;
#pragma omp for schedule(static)
    for (int r = 0; r < s->rows; r++) {
        const float *cosine = s->cosine + (size_t)r * pairs, *sine = s->sine + (size_t)r * pairs;
        float *q = s->q + (size_t)r * q_row, *k = s->k + (size_t)r * kv_row;
        finish_heads(c, q, c->heads, w->q_bias, w->q_norm, cosine, sine);
        finish_heads(c, k, c->kv_heads, w->k_bias, w->k_norm, cosine, sine);
        if (w->v_bias)
            kernels.add(s->v + (size_t)r * kv_row, w->v_bias, (int)kv_row);
        store(l, s, r);
    }
}

/* attended = softmax(q K^T / sqrt(head_dim)) V of one row and head. */
static void attend_head(const struct layer *l, struct scratch *s, int r, uint32_t head)
{
    const struct model_config *c = l->config;
    const struct row *row = &s->row[r];
    uint32_t seen = row->position + 1;
    uint32_t n = c->sliding_window > 0 && c->sliding_window < seen ? c->sliding_window : seen;
    uint32_t kv_head = head / (c->heads / c->kv_heads);
    size_t at = kvcache_at(l->cache, l->cache_block, row->sequence, kv_head) +
                (size_t)(seen - n) * c->head_dim;
    size_t q = ((size_t)r * c->heads + head) * c->head_dim;
    float *scores = s->scores + (size_t)omp_get_thread_num() * s->positions;
    kernels.attention(s->attended + q, s->q + q, l->cache->keys + at, l->cache->values + at, (int)n,
                      (int)c->head_dim, 1.0f / sqrtf((float)c->head_dim), scores);
}

static void attend(const struct layer *l, struct scratch *s)
{
    uint32_t heads = l->config->heads;
#pragma omp for collapse(2) schedule(static)
    for (int r = 0; r < s->rows; r++)
        for (uint32_t h = 0; h < heads; h++)
            attend_head(l, s, r, h);
}

static void attention_half(const struct layer *l, struct scratch *s)
{
    const struct model_config *c = l->config;
    const struct block_weights *w = l->weights;
    norm(c, w->attn_norm, &w->qkv, s->x, s->rows, s);
    product_multiply(&w->qkv, s->prepared, s->normed, s->rows, (float *[]){s->q, s->k, s->v});
    rotate_and_store(l, s);
    attend(l, s);
#pragma omp for schedule(static)
    for (int r = 0; r < s->rows; r++)
        product_prepare(&w->o, s->prepared, r, s->attended + (size_t)r * c->heads * c->head_dim);
    product_multiply(&w->o, s->prepared, s->attended, s->rows, (float *[]){s->delta});
}

static void ffn_half(const struct layer *l, struct scratch *s)
{
    const struct block_weights *w = l->weights;
    size_t ffn = l->config->ffn;
    norm(l->config, w->ffn_norm, &w->gate_up, s->x, s->rows, s);
    product_multiply(&w->gate_up, s->prepared, s->normed, s->rows, (float *[]){s->gate, s->up});
#pragma omp for schedule(static)
    for (int r = 0; r < s->rows; r++) {
        float *gate = s->gate + (size_t)r * ffn;
        kernels.swiglu(gate, s->up + (size_t)r * ffn, (int)ffn);
        product_prepare(&w->down, s->prepared, r, gate);
    }
    product_multiply(&w->down, s->prepared, s->gate, s->rows, (float *[]){s->delta});
}

/* x += delta */
static void add_residual(const struct layer *l, struct scratch *s)
{
    size_t hidden = l->config->hidden;
#pragma omp for schedule(static)
    for (int r = 0; r < s->rows; r++)
        kernels.add(s->x + (size_t)r * hidden, s->delta + (size_t)r * hidden, (int)hidden);
}

/* All threads, or one where waking the others would take longer than the work. Nothing between: a team
 * that shrinks ends its threads. */
static int team(const struct scratch *s, size_t cost)
{
    return cost < PARALLEL_COST ? 1 : s->threads;
}

void layer_forward(const struct layer *l, struct scratch *s)
{
    const struct block_weights *w = l->weights;
    size_t cost = product_cost(&w->qkv) + product_cost(&w->o) + product_cost(&w->gate_up) +
                  product_cost(&w->down);
    int threads = team(s, cost * (size_t)s->rows);
#pragma omp parallel num_threads(threads)
    {
        attention_half(l, s);
        add_residual(l, s);
        ffn_half(l, s);
        add_residual(l, s);
    }
}

void layer_norm_product(const struct model_config *c, const float *norm_weight,
                        const struct product *p, const float *x, int n_rows, struct scratch *s,
                        float *y)
{
    int threads = team(s, product_cost(p) * (size_t)n_rows);
#pragma omp parallel num_threads(threads)
    {
        norm(c, norm_weight, p, x, n_rows, s);
        product_multiply(p, s->prepared, s->normed, n_rows, (float *[]){y});
    }
}
