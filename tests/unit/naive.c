/* See naive.h. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/naive.h"

struct naive {
    const struct weights *w;
    const struct model_config *c;
    int n;
    bool interleaved;
    double *x; /* [n][hidden] */
};

static double *zeros(size_t n)
{
    double *p = calloc(n, sizeof *p);
    assert_non_null(p);
    return p;
}

static float f16_at(const struct tensor *t, uint64_t i)
{
    float v;
    dtype_to_f32(DTYPE_F16, t->data + 2 * i, 1, &v);
    return v;
}

/* A byte code as DESIGN section 5 defines it. */
static void decode_code(const struct weights *w, const char *base, uint64_t rows, uint64_t cols,
                        float *values)
{
    char name[64];
    uint32_t d = 0;
    const struct tensor *code = weights_find2(w, base, ".code");
    const struct tensor *out = weights_find2(w, base, ".code_out");
    const struct tensor *in = weights_find2(w, base, ".code_in");
    assert_true(weights_code_d(w, base, &d));
    snprintf(name, sizeof name, "singularbit.codebook.%u", d);
    const int8_t *book = (const int8_t *)weights_find(w, name)->data;
    uint64_t groups = (cols + d - 1) / d;
    for (uint64_t i = 0; i < rows * cols; i++) {
        uint64_t r = i / cols, c = i % cols;
        uint8_t byte = code->data[(r / 64 * groups + c / d) * 64 + r % 64];
        int v = book[(byte & 127) * d + c % d];
        values[i] = f16_at(out, r) * (float)(byte & 128 ? -v : v) * (in ? f16_at(in, c) : 1.0f);
    }
}

static void add_outliers(const struct weights *w, const char *base, uint64_t cols, float *values)
{
    const struct tensor *row = weights_find2(w, base, ".outlier_row");
    const struct tensor *column = weights_find2(w, base, ".outlier_column");
    const struct tensor *value = weights_find2(w, base, ".outlier_value");
    for (uint64_t i = 0; row && i < row->cols; i++) {
        int32_t r, c = 0;
        size_t size = column->dtype == DTYPE_I16 ? 2 : 4;
        memcpy(&r, row->data + 4 * i, 4);
        memcpy(&c, column->data + size * i, size); /* little-endian, not negative */
        values[(uint64_t)r * cols + (uint64_t)c] += f16_at(value, i);
    }
}

/* All values of a matrix or vector, or NULL when the model has none of that kind. */
static float *load(const struct naive *m, enum tensor_kind kind, uint32_t block)
{
    uint64_t rows, cols;
    char base[64];
    struct error e = {0};
    if (!model_shape(m->c, kind, &rows, &cols))
        return NULL;
    model_base_name(base, kind, block);
    float *values = malloc(rows * cols * sizeof *values);
    assert_non_null(values);
    const struct tensor *t = weights_find2(m->w, base, model_rule(kind)->suffix);
    if (t)
        assert_int_equal(weights_rows_f32(t, 0, t->rows, values, &e), OK);
    else
        decode_code(m->w, base, rows, cols, values);
    if (model_rule(kind)->matrix)
        add_outliers(m->w, base, cols, values);
    return values;
}

static void rms_norm(double *y, const double *x, const float *weight, size_t n, double eps)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    double scale = 1 / sqrt(sum / (double)n + eps);
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * scale * (double)weight[i];
}

/* [n][rows of kind] = x[n][cols] W^T (+ bias) */
static double *multiply(const struct naive *m, enum tensor_kind kind, enum tensor_kind bias_kind,
                        uint32_t block, const double *x)
{
    uint64_t rows, cols;
    bool tied = kind == KIND_OUTPUT && m->c->tied;
    enum tensor_kind stored = tied ? KIND_EMBEDDING : kind;
    float *w = load(m, stored, block);
    float *bias = bias_kind == KIND_COUNT ? NULL : load(m, bias_kind, block);
    assert_true(model_shape(m->c, stored, &rows, &cols));
    double *y = zeros((size_t)m->n * rows);
    for (size_t t = 0; t < (size_t)m->n; t++)
        for (size_t r = 0; r < rows; r++) {
            double sum = bias ? (double)bias[r] : 0;
            for (size_t i = 0; i < cols; i++)
                sum += (double)w[r * cols + i] * x[t * cols + i];
            y[t * rows + r] = sum;
        }
    free(w);
    free(bias);
    return y;
}

static double *norm_rows(const struct naive *m, enum tensor_kind kind, uint32_t block)
{
    size_t hidden = m->c->hidden;
    float *weight = load(m, kind, block);
    double *y = zeros((size_t)m->n * hidden);
    for (size_t t = 0; t < (size_t)m->n; t++)
        rms_norm(y + t * hidden, m->x + t * hidden, weight, hidden, (double)m->c->rms_eps);
    free(weight);
    return y;
}

static void rotate(const struct naive *m, double *head, int position)
{
    int pairs = (int)m->c->rope_dim / 2;
    for (int i = 0; i < pairs; i++) {
        double frequency = pow((double)m->c->rope_base, -2.0 * i / m->c->rope_dim);
        if (m->w->rope_factors)
            frequency /= (double)m->w->rope_factors[i];
        if (m->c->rope_scaling == ROPE_LINEAR)
            frequency /= (double)m->c->rope_factor;
        double *a = head + (m->interleaved ? 2 * i : i), *b = m->interleaved ? a + 1 : a + pairs;
        double cosine = cos(position * frequency), sine = sin(position * frequency), old = *a;
        *a = old * cosine - *b * sine;
        *b = old * sine + *b * cosine;
    }
}

/* Norm per head and rotation of v[n][heads][head_dim]. */
static void finish(const struct naive *m, double *v, uint32_t heads, enum tensor_kind norm_kind,
                   uint32_t block)
{
    float *weight = load(m, norm_kind, block);
    size_t dim = m->c->head_dim;
    for (size_t i = 0; i < (size_t)m->n * heads; i++) {
        if (weight)
            rms_norm(v + i * dim, v + i * dim, weight, dim, (double)m->c->rms_eps);
        rotate(m, v + i * dim, (int)(i / heads));
    }
    free(weight);
}

/* As the cache stores them. */
static void round_to_f16(double *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        v[i] = (double)f16_to_f32(f32_to_f16((float)v[i]));
}

static void attend(const struct naive *m, const double *q, const double *k, const double *v,
                   size_t t, size_t h, double *out)
{
    size_t dim = m->c->head_dim, heads = m->c->heads, kv_heads = m->c->kv_heads;
    size_t window = m->c->sliding_window, kv = h * kv_heads / heads;
    double *weight = zeros(t + 1), sum = 0;
    for (size_t p = window && t + 1 > window ? t + 1 - window : 0; p <= t; p++) {
        double score = 0;
        for (size_t i = 0; i < dim; i++)
            score += q[(t * heads + h) * dim + i] * k[(p * kv_heads + kv) * dim + i];
        weight[p] = exp(score / sqrt((double)dim));
        sum += weight[p];
    }
    for (size_t p = 0; p <= t; p++)
        for (size_t i = 0; i < dim; i++)
            out[(t * heads + h) * dim + i] += weight[p] / sum * v[(p * kv_heads + kv) * dim + i];
    free(weight);
}

static void add(const struct naive *m, double *delta)
{
    for (size_t i = 0; i < (size_t)m->n * m->c->hidden; i++)
        m->x[i] += delta[i];
    free(delta);
}

static void attention_half(const struct naive *m, uint32_t block)
{
    size_t heads = m->c->heads;
    double *n = norm_rows(m, KIND_ATTN_NORM, block);
    double *q = multiply(m, KIND_Q, KIND_Q_BIAS, block, n);
    double *k = multiply(m, KIND_K, KIND_K_BIAS, block, n);
    double *v = multiply(m, KIND_V, KIND_V_BIAS, block, n);
    double *out = zeros((size_t)m->n * heads * m->c->head_dim);
    finish(m, q, m->c->heads, KIND_Q_NORM, block);
    finish(m, k, m->c->kv_heads, KIND_K_NORM, block);
    size_t kv_row = (size_t)m->c->kv_heads * m->c->head_dim;
    round_to_f16(k, (size_t)m->n * kv_row);
    round_to_f16(v, (size_t)m->n * kv_row);
    for (size_t i = 0; i < (size_t)m->n * heads; i++)
        attend(m, q, k, v, i / heads, i % heads, out);
    add(m, multiply(m, KIND_O, KIND_COUNT, block, out));
    free(n);
    free(q);
    free(k);
    free(v);
    free(out);
}

static void ffn_half(const struct naive *m, uint32_t block)
{
    double *n = norm_rows(m, KIND_FFN_NORM, block);
    double *gate = multiply(m, KIND_GATE, KIND_COUNT, block, n);
    double *up = multiply(m, KIND_UP, KIND_COUNT, block, n);
    for (size_t i = 0; i < (size_t)m->n * m->c->ffn; i++)
        gate[i] *= up[i] / (1 + exp(-gate[i]));
    add(m, multiply(m, KIND_DOWN, KIND_COUNT, block, gate));
    free(n);
    free(gate);
    free(up);
}

double *naive_forward(const struct weights *w, const uint32_t *tokens, int n)
{
    struct naive m = {.w = w, .c = &w->config, .n = n};
    size_t hidden = w->config.hidden;
    const struct tensor *q = weights_find(w, "blk.0.attn_q.weight");
    m.interleaved = w->config.rope_interleaved || (q && q->rope_heads > 0);
    m.x = zeros((size_t)n * hidden);
    float *embedding = load(&m, KIND_EMBEDDING, 0);
    for (size_t i = 0; i < (size_t)n * hidden; i++)
        m.x[i] = (double)embedding[tokens[i / hidden] * hidden + i % hidden];
    free(embedding);
    for (uint32_t b = 0; b < w->config.block_count; b++) {
        attention_half(&m, b);
        ffn_half(&m, b);
    }
    double *last = norm_rows(&m, KIND_OUTPUT_NORM, 0);
    double *logits = multiply(&m, KIND_OUTPUT, KIND_COUNT, 0, last);
    free(last);
    free(m.x);
    return logits;
}

double naive_distance(const float *a, const double *b, size_t n)
{
    double error = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        error = fmax(error, fabs((double)a[i] - b[i]));
        largest = fmax(largest, fabs(b[i]));
        if (!isfinite(a[i]))
            return INFINITY;
    }
    return error / largest;
}
