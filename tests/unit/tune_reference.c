/* See tune_reference.h. */
#include "tests/unit/tune_reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct reference {
    const struct model_config *c;
    int rows;
    double *attention; /* [rows] of one query */
};

void tune_reference_norm(const double *x, const float *weight, const double *log, int n, double eps,
                         double *y)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += x[i] * x[i];
    double r = 1 / sqrt(sum / n + eps);
    for (int i = 0; i < n; i++)
        y[i] = x[i] * r * (weight ? (double)weight[i] : 1) * (log ? exp(log[i]) : 1);
}

/* [rows][m->rows], the caller's. */
static double *product(const struct reference *p, const struct matrix *m, const double *log,
                       const float *bias, const double *x)
{
    const float *w = m->data;
    double *y = calloc((size_t)(p->rows * m->rows), sizeof *y);
    for (int i = 0; i < p->rows * m->rows; i++) {
        int t = i / m->rows, r = i % m->rows;
        for (int c = 0; c < m->cols; c++)
            y[i] += (double)w[r * m->cols + c] * x[t * m->cols + c];
        y[i] = y[i] * exp(log[r]) + (bias ? (double)bias[r] : 0);
    }
    return y;
}

/* Norm per head and rotation; the angle of pair i at position t is t base^(-2i / rope_dim). */
static void turn(const struct reference *p, double *v, int heads, const float *norm)
{
    const struct model_config *c = p->c;
    int dim = (int)c->head_dim, pairs = (int)c->rope_dim / 2;
    for (int h = 0; h < p->rows * heads; h++, v += dim) {
        if (norm)
            tune_reference_norm(v, norm, NULL, dim, (double)c->rms_eps, v);
        for (int i = 0; i < pairs; i++) {
            int a = c->rope_interleaved ? 2 * i : i, b = c->rope_interleaved ? a + 1 : i + pairs;
            double angle = h / heads * pow((double)c->rope_base, -2.0 * i / (int)c->rope_dim);
            double first = v[a] * cos(angle) - v[b] * sin(angle);
            v[b] = v[a] * sin(angle) + v[b] * cos(angle);
            v[a] = first;
        }
    }
}

/* out[dim] of query q at position t, given all keys and values of its head, stride apart. */
static void attend(const struct reference *p, const double *q, const double *k, const double *v,
                   int stride, int t, double *out)
{
    int dim = (int)p->c->head_dim, window = (int)p->c->sliding_window;
    int first = window > 0 && t + 1 > window ? t + 1 - window : 0;
    double sum = 0;
    for (int j = first; j <= t; j++) {
        double score = 0;
        for (int i = 0; i < dim; i++)
            score += q[i] * k[j * stride + i];
        p->attention[j] = exp(score / sqrt(dim));
        sum += p->attention[j];
    }
    memset(out, 0, (size_t)dim * sizeof *out);
    for (int j = first; j <= t; j++)
        for (int i = 0; i < dim; i++)
            out[i] += p->attention[j] / sum * v[j * stride + i];
}

static double *norms(const struct reference *p, const float *weight, const double *log,
                     const double *x)
{
    int hidden = (int)p->c->hidden;
    double *y = calloc((size_t)(p->rows * hidden), sizeof *y);
    for (int t = 0; t < p->rows; t++)
        tune_reference_norm(x + t * hidden, weight, log, hidden, (double)p->c->rms_eps,
                            y + t * hidden);
    return y;
}

/* out = x + delta; frees delta. */
static void add(const struct reference *p, const double *x, double *delta, double *out)
{
    for (int i = 0; i < p->rows * (int)p->c->hidden; i++)
        out[i] = x[i] + delta[i];
    free(delta);
}

static void attention_half(const struct reference *p, const struct block_weights *w,
                           const double *log, const double *norm_log, const double *x, double *out)
{
    const struct model_config *c = p->c;
    int heads = (int)c->heads, kv_heads = (int)c->kv_heads, dim = (int)c->head_dim;
    double *n = norms(p, w->attn_norm, norm_log, x);
    double *q = product(p, &w->qkv.m[0], log, w->q_bias, n);
    double *k = product(p, &w->qkv.m[1], log + heads * dim, w->k_bias, n);
    double *v = product(p, &w->qkv.m[2], log + (heads + kv_heads) * dim, w->v_bias, n);
    double *attended = calloc((size_t)(p->rows * heads * dim), sizeof *attended);
    turn(p, q, heads, w->q_norm);
    turn(p, k, kv_heads, w->k_norm);
    for (int i = 0; i < p->rows * heads; i++) {
        int kv = i % heads / (heads / kv_heads) * dim;
        attend(p, q + i * dim, k + kv, v + kv, kv_heads * dim, i / heads, attended + i * dim);
    }
    add(p, x, product(p, &w->o.m[0], log + (heads + 2 * kv_heads) * dim, NULL, attended), out);
    free(n);
    free(q);
    free(k);
    free(v);
    free(attended);
}

static void ffn_half(const struct reference *p, const struct block_weights *w, const double *log,
                     const double *norm_log, double *x)
{
    int ffn = (int)p->c->ffn;
    double *n = norms(p, w->ffn_norm, norm_log, x);
    double *gate = product(p, &w->gate_up.m[0], log, NULL, n);
    double *up = product(p, &w->gate_up.m[1], log + ffn, NULL, n);
    for (int i = 0; i < p->rows * ffn; i++)
        gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
    add(p, x, product(p, &w->down.m[0], log + 2 * ffn, NULL, gate), x);
    free(n);
    free(gate);
    free(up);
}

void tune_reference(const struct model_config *c, const struct block_weights *w, const double *log,
                    int rows, const double *x, double *out)
{
    struct reference p = {c, rows, calloc((size_t)rows, sizeof(double))};
    const double *ffn_log = log + (c->heads + 2 * c->kv_heads) * c->head_dim + c->hidden;
    const double *norm_log = ffn_log + 2 * c->ffn + c->hidden;
    attention_half(&p, w, log, norm_log, x, out);
    ffn_half(&p, w, ffn_log, norm_log + c->hidden, out);
    free(p.attention);
}
