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

/* Which channels are kept apart: above 8 mean magnitudes; of too many the largest, of equals the
 * lower. */
static void test_apart(void)
{
    enum { N = 2000 };
    static float x[N];
    struct matrix m = {.type = MATRIX_CODE, .rows = 1, .cols = N, .d = 8};
    struct code_act *act = aligned_alloc(64, act_bytes(&m));
    fill_ramp(x, N);
    for (int i = 0; i < 20; i++)
        x[10 + 50 * i] = i % 2 ? 100.0f : -100.0f;
    x[1500] = 200.0f;
    kernels.prepare[MATRIX_CODE](&m, x, act);
    check(act->count, CODE_OUTLIERS, 0, "channels apart", 0);
    for (int i = 0; i < CODE_OUTLIERS; i++) {
        int want = i < 15 ? 10 + 50 * i : 1500;
        check(act->channel[i], want, 0, "channel", i);
        check(act->value[i], x[want], 0, "value", i);
        check(blocks_code_q(act)[want], 0, 0, "its q", i);
    }
    check(blocks_code_q(act)[10 + 50 * 17], 127, 0, "largest q left", 0);
    fill_ramp(x, N);
    x[77] = 13.0f; /* 8 means are 13.7 */
    kernels.prepare[MATRIX_CODE](&m, x, act);
    check(act->count, 0, 0, "none apart", 0);
    x[77] = 14.0f;
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

static void test_attention(struct random *r, int n, int head_dim)
{
    size_t cache = (size_t)n * (size_t)head_dim;
    uint16_t *keys = malloc(cache * 2), *values = malloc(cache * 2);
    float q[1024], out[1024], *scores = malloc((size_t)n * sizeof *scores);
    double sums[1024] = {0}, total = 0, scale = 1 / sqrt(head_dim);
    for (size_t i = 0; i < cache; i++) {
        keys[i] = half_from_float(random_normal(r));
        values[i] = half_from_float(random_normal(r));
    }
    case_fill(r, INPUT_NORMAL, q, head_dim);
    kernels.attention(out, q, keys, values, n, head_dim, (float)scale, scores);
    for (int i = 0; i < n; i++) {
        double dot = 0;
        for (int d = 0; d < head_dim; d++)
            dot += (double)q[d] * half_to_float(keys[i * head_dim + d]);
        double e = exp(dot * scale);
        total += e;
        for (int d = 0; d < head_dim; d++)
            sums[d] += e * half_to_float(values[i * head_dim + d]);
    }
    for (int d = 0; d < head_dim; d++)
        check(out[d], sums[d] / total, 1e-5, "attention", d);
    free(keys);
    free(values);
    free(scores);
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
    for (int n = 1; n < 40; n += 6)
        test_attention(&r, n, 1 + random_below(&r, 1024));
    test_vectors(&r);
    printf("%d failures\n", failures);
    return failures != 0;
}
