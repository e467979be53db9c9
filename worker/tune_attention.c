/* Attention's gradient by tiles of queries. Must never know where its inputs come from. */
#include "worker/tune_attention.h"

#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "worker/product.h"

enum { TILE_QUERIES = 64 };

size_t tune_attention_room(size_t context)
{
    return 2 * TILE_QUERIES * context;
}

/* Some queries of one head and the keys that any of them sees: positions [key, key + keys). */
struct tile {
    const float *q, *dout, *k, *v; /* first query's and first key's */
    float *dq, *dk, *dv;
    int first, queries, key, keys;
    int dim, q_stride, kv_stride;
    float scale;
};

static struct tile tile_of(const struct model_config *c, const struct tune_attention *a, int head,
                           int first)
{
    int dim = (int)c->head_dim, window = (int)c->sliding_window;
    int end = first + TILE_QUERIES < a->rows ? first + TILE_QUERIES : a->rows;
    int key = window > 0 && first + 1 > window ? first + 1 - window : 0;
    size_t q_stride = (size_t)c->heads * c->head_dim, kv_stride = (size_t)c->kv_heads * c->head_dim;
    size_t q = (size_t)first * q_stride + (size_t)head * c->head_dim;
    size_t own_key = (size_t)key * q_stride + (size_t)head * c->head_dim;
    size_t kv_head = (size_t)head / (c->heads / c->kv_heads);
    size_t kv = (size_t)key * kv_stride + kv_head * c->head_dim;
    return (struct tile){.q = a->q + q,
                         .dout = a->dout + q,
                         .k = a->k + kv,
                         .v = a->v + kv,
                         .dq = a->dq + q,
                         .dk = a->head_dk + own_key,
                         .dv = a->head_dv + own_key,
                         .first = first,
                         .queries = end - first,
                         .key = key,
                         .keys = end - key,
                         .dim = dim,
                         .q_stride = (int)q_stride,
                         .kv_stride = (int)kv_stride,
                         .scale = 1.0f / sqrtf((float)dim)};
}

/* p[keys] = softmax of the scores p of those keys [from, to) that the query sees, 0 for the
 * others. */
static void softmax(float *p, int from, int to, int keys)
{
    float top = p[from], sum = 0;
    for (int i = from + 1; i < to; i++)
        top = p[i] > top ? p[i] : top;
    for (int i = from; i < to; i++) {
        p[i] = expf(p[i] - top);
        sum += p[i];
    }
    float inverse = 1.0f / sum;
    for (int i = from; i < to; i++)
        p[i] *= inverse;
    memset(p, 0, (size_t)from * sizeof *p);
    memset(p + to, 0, (size_t)(keys - to) * sizeof *p);
}

/* ds = p (dp - sum of p dp) in place of dp. */
static void softmax_backward(const float *p, float *dp, int keys)
{
    float dot = 0;
    for (int i = 0; i < keys; i++)
        dot += p[i] * dp[i];
    for (int i = 0; i < keys; i++)
        dp[i] = p[i] * (dp[i] - dot);
}

static void tile_backward(const struct model_config *c, const struct tile *t, float *p, float *dp)
{
    int n = t->keys, window = (int)c->sliding_window;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, t->queries, n, t->dim, t->scale, t->q,
                t->q_stride, t->k, t->kv_stride, 0.0f, p, n);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, t->queries, n, t->dim, 1.0f, t->dout,
                t->q_stride, t->v, t->kv_stride, 0.0f, dp, n);
    for (int i = 0; i < t->queries; i++) {
        int to = t->first + i + 1 - t->key;
        softmax(p + (size_t)i * (size_t)n, window > 0 && to > window ? to - window : 0, to, n);
        softmax_backward(p + (size_t)i * (size_t)n, dp + (size_t)i * (size_t)n, n);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, t->queries, t->dim, n, t->scale, dp, n,
                t->k, t->kv_stride, 0.0f, t->dq, t->q_stride);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, n, t->dim, t->queries, t->scale, dp, n,
                t->q, t->q_stride, 1.0f, t->dk, t->q_stride);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, n, t->dim, t->queries, 1.0f, p, n, t->dout,
                t->q_stride, 1.0f, t->dv, t->q_stride);
}

static void head_backward(const struct model_config *c, const struct tune_attention *a, int head)
{
    size_t dim = c->head_dim, stride = c->heads * dim, at = (size_t)head * dim;
    float *p = a->room + (size_t)omp_get_thread_num() * a->room_size;
    for (size_t r = 0; r < (size_t)a->rows; r++) {
        memset(a->head_dk + r * stride + at, 0, dim * sizeof(float));
        memset(a->head_dv + r * stride + at, 0, dim * sizeof(float));
    }
    for (int first = 0; first < a->rows; first += TILE_QUERIES) {
        struct tile t = tile_of(c, a, head, first);
        tile_backward(c, &t, p, p + (size_t)t.queries * (size_t)t.keys);
    }
}

/* to[kv_heads][dim] = the sum of from[heads][dim] over each group, in order. */
static void add_groups(const struct model_config *c, const float *from, float *to)
{
    size_t dim = c->head_dim, group = c->heads / c->kv_heads;
    for (size_t h = 0; h < c->kv_heads; h++) {
        memcpy(to + h * dim, from + h * group * dim, dim * sizeof *to);
        for (size_t i = 1; i < group; i++)
            kernels.add(to + h * dim, from + (h * group + i) * dim, (int)dim);
    }
}

void tune_attention_backward(const struct model_config *c, const struct tune_attention *a)
{
    int heads = (int)c->heads;
    size_t q_row = (size_t)c->heads * c->head_dim, kv_row = (size_t)c->kv_heads * c->head_dim;
    omp_set_num_threads(1); /* of this region's BLAS, see linear.c */
    for (int h = product_share(heads, 0); h < product_share(heads, 1); h++)
        head_backward(c, a, h);
#pragma omp barrier
    for (int r = product_share(a->rows, 0); r < product_share(a->rows, 1); r++) {
        add_groups(c, a->head_dk + (size_t)r * q_row, a->dk + (size_t)r * kv_row);
        add_groups(c, a->head_dv + (size_t)r * q_row, a->dv + (size_t)r * kv_row);
    }
#pragma omp barrier
}
