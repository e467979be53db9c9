/* The scalar kernels, which are the specification of all others, against plain arithmetic in
 * double. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/blocks.h"
#include "kernels/half.h"
#include "kernels/reduce.h"
#include "tests/kernels/cases.h"

static int failures;

static void check(double got, double want, double tolerance, const char *what, int i)
{
    if (fabs(got - want) <= tolerance)
        return;
    if (failures++ < 20)
        printf("FAIL %s [%d]: %.9g, expected %.9g +- %.3g\n", what, i, got, want, tolerance);
}

/* Column scale c: what stands between an element of the row and the activation it meets. */
static double column_scale(const struct matrix *m, int c)
{
    return m->in ? half_to_float(half_load(m->in, (size_t)c)) : 1;
}

/* y[r] within what the form of the activations allows: rounding for the float types; for the int8 forms
 * an error of up to half a step in each activation, 0.29 steps in the mean square, six times that over the
 * row. The step of codes is the scale that was chosen; that of blocks is below 6 / 127 of a unit normal
 * input. */
static void check_product(const struct matrix *m, const void *prepared, const float *x,
                          const float *y)
{
    float *row = malloc((size_t)m->cols * sizeof *row);
    double step = m->type < MATRIX_Q8_0 ? 0 : 6.0 / 127;
    if (m->type == MATRIX_CODE)
        step = (double)((const struct code_act *)prepared)->scale;
    for (int r = 0; r < m->rows; r++) {
        double sum = 0, size = 0, squares = 0;
        kernels.row[m->type](m, r, row);
        for (int c = 0; c < m->cols; c++) {
            double weight = row[c] / column_scale(m, c);
            sum += (double)row[c] * x[c];
            size += fabs((double)row[c] * x[c]);
            squares += weight * weight;
        }
        check(y[r], sum, size * 1e-6 + 6 * 0.29 * step * sqrt(squares) + 1e-9,
              case_type_names[m->type], r);
    }
    free(row);
}

static void test_products(struct random *r)
{
    for (int type = 0; type < MATRIX_TYPES; type++)
        for (int round = 0; round < 18; round++) {
            int d = case_code_d[round % 9], rows = 1 + random_below(r, 150);
            int cols = case_cols((enum matrix_type)type, 100 + random_below(r, 500));
            struct case_matrix c = case_matrix_make(r, (enum matrix_type)type, rows, cols, d,
                                                    WEIGHT_NORMAL, round % 2, round % 3);
            float *x = malloc((size_t)cols * sizeof *x), *y = malloc((size_t)rows * sizeof *y);
            void *prepared = aligned_alloc(64, act_bytes(&c.m));
            case_fill(r, round % 4 == 3 ? INPUT_MASSIVE : INPUT_NORMAL, x, cols);
            case_prepare(&c.m, x, 1, prepared);
            kernels.product[type](&c.m, prepared, x, 1, 0, rows, y, (size_t)rows);
            if (type == MATRIX_CODE || type < MATRIX_Q8_0 || round % 4 != 3)
                check_product(&c.m, prepared, x, y);
            free(x);
            free(y);
            free(prepared);
            case_matrix_free(&c);
        }
}

static void fill_ramp(float *x, int n)
{
    for (int i = 0; i < n; i++)
        x[i] = (float)(i % 7) - 3.0f;
}

/* Which channels are kept apart: above 16 means of the rest; of too many the largest, of equals the
 * lower. */
static void test_apart(void)
{
    enum { N = 2000 };
    static float x[N];
    struct matrix m = {.type = MATRIX_CODE, .rows = 1, .cols = N, .d = 8};
    struct code_act *act = aligned_alloc(64, act_bytes(&m));
    fill_ramp(x, N);
    for (int i = 0; i < 70; i++)
        x[10 + 25 * i] = i % 2 ? 100.0f : -100.0f;
    x[1500] = 200.0f;
    kernels.prepare[MATRIX_CODE](&m, x, act);
    check(act->count, CODE_OUTLIERS, 0, "channels apart", 0);
    for (int i = 0; i < CODE_OUTLIERS; i++) {
        int want = i < 60 ? 10 + 25 * i : i == 60 ? 1500 : 10 + 25 * (i - 1);
        check(act->channel[i], want, 0, "channel", i);
        check(act->value[i], x[want], 0, "value", i);
        check(blocks_code_q(act)[want], 0, 0, "its q", i);
    }
    check(blocks_code_q(act)[10 + 25 * 65], 127, 0, "largest q left", 0);
    fill_ramp(x, N);
    x[77] = 27.0f; /* 16 means are 27.6 */
    kernels.prepare[MATRIX_CODE](&m, x, act);
    check(act->count, 0, 0, "none apart", 0);
    x[77] = 40.0f;
    x[500] = 10000.0f; /* 16 means are 107, and 27.4 without this one */
    kernels.prepare[MATRIX_CODE](&m, x, act);
    check(act->count, 2, 0, "one beside a massive one", 0);
    fill_ramp(x, N);
    x[77] = 28.0f;
    kernels.prepare[MATRIX_CODE](&m, x, act);
    check(act->count, 1, 0, "one apart", 0);
    check(act->scale, 3.0f / 127.0f, 0, "scale of the rest", 0);
    free(act);
}

/* Scale, rounding and extreme blocks of the int8 form. */
static void test_blocks(void)
{
    float x[128];
    struct matrix m = {.type = MATRIX_Q8_0, .rows = 1, .cols = 128};
    void *prepared = aligned_alloc(64, act_bytes(&m));
    struct block_act act = blocks_act(prepared, 128);
    memset(x, 0, sizeof x);
    for (int i = 0; i < 32; i++)
        x[i] = (float)i * 0.5f - 4.0f;
    x[31] = -127.0f; /* scale 1, so that halves are ties */
    x[64] = 1e-39f;
    x[96] = NAN;
    kernels.prepare[MATRIX_Q8_0](&m, x, prepared);
    check(act.scale[0], 1, 0, "scale", 0);
    int sum = 0;
    for (int i = 0; i < 32; i++) {
        check(act.q[i], nearbyint(x[i]), 0, "q", i);
        sum += act.q[i];
    }
    check(act.sum[0], sum, 0, "sum", 0);
    check(act.scale[1], 0, 0, "scale of zeros", 1);
    check(act.scale[2], 0, 0, "scale of subnormals", 2);
    check(act.q[64], 0, 0, "q of a subnormal", 2);
    check(isnan(act.scale[3]), 1, 0, "NaN reaches the scale", 3);
    free(prepared);
}

static void test_exp(void)
{
    for (float x = -90; x < 90; x += 0.00137f) {
        double want = x < EXP_LOW ? 0 : exp((double)x);
        if (want <= 3.4e38)
            check(reduce_expf(x), want, 2e-7 * want, "exp", (int)x);
    }
    check(reduce_expf(0.0f), 1, 0, "exp 0", 0);
    check(reduce_expf(-INFINITY), 0, 0, "exp -inf", 0);
    check(reduce_expf(-1e30f), 0, 0, "exp -1e30", 0);
    check(isinf(reduce_expf(1e30f)) && isinf(reduce_expf(INFINITY)), 1, 0, "exp inf", 0);
    check(isnan(reduce_expf(NAN)), 1, 0, "exp NaN", 0);
}

/* Keys or values of a cache, and what they mean in double. */
struct cache {
    uint16_t *half, *scale;
    int8_t *q;
    double *value;
};

static void cache_make(struct random *r, struct cache *c, int n, int head_dim)
{
    size_t count = (size_t)n * (size_t)head_dim, per = (size_t)kv_scales(head_dim);
    *c = (struct cache){malloc(count * 2), malloc((size_t)n * per * 2), malloc(count),
                        malloc(count * sizeof *c->value)};
    for (size_t i = 0; i < count; i++) {
        c->half[i] = half_from_float(random_normal(r));
        c->q[i] = (int8_t)(random_below(r, 255) - 127);
    }
    for (size_t i = 0; i < (size_t)n * per; i++)
        c->scale[i] = half_from_float(0.01f + 0.01f * fabsf(random_normal(r)));
}

static void cache_value(struct cache *c, enum kv_type type, int n, int head_dim)
{
    for (int i = 0; i < n; i++)
        for (int d = 0; d < head_dim; d++) {
            size_t at = (size_t)i * (size_t)head_dim + (size_t)d;
            double scale = half_to_float(c->scale[i * kv_scales(head_dim) + d / 32]);
            c->value[at] = type == KV_F16 ? half_to_float(c->half[at]) : scale * c->q[at];
        }
}

static void cache_free(struct cache *c)
{
    free(c->half);
    free(c->scale);
    free(c->q);
    free(c->value);
}

static void check_attention(const float *out, const float *q, const struct cache *keys,
                            const struct cache *values, int n, int head_dim)
{
    double sums[1024] = {0}, total = 0, scale = 1 / sqrt(head_dim);
    for (int i = 0; i < n; i++) {
        double dot = 0;
        for (int d = 0; d < head_dim; d++)
            dot += (double)q[d] * keys->value[i * head_dim + d];
        double e = exp(dot * scale);
        total += e;
        for (int d = 0; d < head_dim; d++)
            sums[d] += e * values->value[i * head_dim + d];
    }
    for (int d = 0; d < head_dim; d++)
        check(out[d], sums[d] / total, 1e-5, "attention", d);
}

static void test_attention(struct random *r, enum kv_type type, int heads, int n, int head_dim)
{
    struct cache keys, values;
    size_t count = (size_t)heads * (size_t)head_dim;
    float *q = malloc(count * sizeof *q), *out = malloc(count * sizeof *out);
    float *scores = malloc((size_t)heads * (size_t)n * sizeof *scores);
    cache_make(r, &keys, n, head_dim);
    cache_make(r, &values, n, head_dim);
    cache_value(&keys, type, n, head_dim);
    cache_value(&values, type, n, head_dim);
    case_fill(r, INPUT_NORMAL, q, (int)count);
    bool q8 = type == KV_Q8;
    const struct kv kv = {.type = type,
                          .n = n,
                          .head_dim = head_dim,
                          .keys = q8 ? (const void *)keys.q : keys.half,
                          .values = q8 ? (const void *)values.q : values.half,
                          .key_scale = keys.scale,
                          .value_scale = values.scale};
    kernels.attention(out, q, heads, &kv, (float)(1 / sqrt(head_dim)), scores);
    for (int h = 0; h < heads; h++)
        check_attention(out + h * head_dim, q + h * head_dim, &keys, &values, n, head_dim);
    cache_free(&keys);
    cache_free(&values);
    free(q);
    free(out);
    free(scores);
}

/* Scale, rounding and extreme blocks of the int8 form of keys and values. */
static void test_to_q8(struct random *r)
{
    float x[200];
    int8_t q[200];
    uint16_t d[7];
    for (int n = 1; n <= 200; n++) {
        case_fill(r, INPUT_NORMAL, x, n);
        kernels.to_q8(q, d, x, n);
        for (int i = 0; i < n; i++) {
            int first = i / 32 * 32, end = first + 32 < n ? first + 32 : n;
            double most = 0, step = half_to_float(d[i / 32]);
            for (int j = first; j < end; j++)
                most = fabs((double)x[j]) > most ? fabs((double)x[j]) : most;
            if (most / 127 < 0x1p-14) { /* below the smallest normal binary16 */
                check(step, 0, most / 127 >= 0x1p-14 * (1 - 0x1p-11) ? 0x1p-14 : 0, "no scale", i);
                continue;
            }
            check(step, most / 127, most / 127 * 0x1p-11, "scale of to_q8", i);
            check(q[i] * step, x[i], 0.5001 * step + fabs((double)x[i]) * 0x1p-11, "to_q8", i);
        }
    }
    for (int i = 0; i < 160; i++)
        x[i] = i == 31 ? -127.0f : (float)i * 0.5f - 4.0f; /* scale 1, so that halves are ties */
    for (int i = 32; i < 160; i++)
        x[i] = i < 64 ? 0.0f : i < 96 ? 1e-3f : i == 100 ? NAN : i == 130 ? INFINITY : 1.0f;
    kernels.to_q8(q, d, x, 160);
    for (int i = 0; i < 32; i++)
        check(q[i], nearbyint(x[i]), 0, "ties of to_q8", i);
    for (int i = 32; i < 160; i++)
        check(q[i], 0, 0, "zeros of to_q8", i);
    check(d[1], 0, 0, "scale of zeros", 1);
    check(d[2], 0, 0, "a scale below the normal numbers", 2);
    check(isnan(half_to_float(d[3])), 1, 0, "NaN reaches the scale", 3);
    check(isinf(half_to_float(d[4])), 1, 0, "infinity reaches the scale", 4);
}

static void test_vectors(struct random *r)
{
    enum { N = 301 };
    float x[N], y[N], w[N], gate[N], cosine[8], sine[8];
    double squares = 0;
    case_fill(r, INPUT_NORMAL, x, N);
    case_fill(r, INPUT_NORMAL, w, N);
    for (int i = 0; i < N; i++)
        squares += (double)x[i] * x[i];
    kernels.rms_norm(y, x, w, N, 1e-5f);
    memcpy(gate, x, sizeof gate);
    kernels.swiglu(gate, w, N);
    for (int i = 0; i < N; i++) {
        check(y[i], x[i] / sqrt(squares / N + 1e-5) * w[i], 1e-5, "rms_norm", i);
        check(gate[i], x[i] / (1 + exp(-(double)x[i])) * w[i], 1e-5, "swiglu", i);
    }
    for (int i = 0; i < 8; i++) {
        cosine[i] = cosf((float)i);
        sine[i] = sinf((float)i);
    }
    for (int interleaved = 0; interleaved < 2; interleaved++) {
        memcpy(y, x, sizeof y);
        kernels.rope(y, 2, 20, 8, interleaved, cosine, sine);
        for (int i = 0; i < 40; i++) {
            int j = i % 20, pair = interleaved ? j / 2 : j % 8,
                first = interleaved ? !(j % 2) : j < 8;
            int other = interleaved ? i ^ 1 : first ? i + 8 : i - 8;
            double want = j >= 16 ? x[i]
                          : first ? x[i] * cos(pair) - x[other] * sin(pair)
                                  : x[other] * sin(pair) + x[i] * cos(pair);
            check(y[i], want, 1e-5, "rope", i);
        }
    }
}

int main(int argc, char **argv)
{
    struct random r = random_start(argc, argv);
    if (kernels_init("scalar") || !kernels_init("nonsense")) {
        printf("FAIL kernels_init\n");
        return 1;
    }
    test_products(&r);
    test_apart();
    test_blocks();
    test_exp();
    for (int n = 1; n < 40; n += 6) {
        test_attention(&r, KV_F16, 1 + n % 4, n, 1 + random_below(&r, 1024));
        test_attention(&r, KV_Q8, 1 + n % 4, n, 1 + random_below(&r, 1024));
    }
    test_to_q8(&r);
    test_vectors(&r);
    printf("%d failures\n", failures);
    return failures != 0;
}
