/* The search for block types: every decision against slow sums in double that are given the bytes,
 * the stated losses against those of the bytes, and what must hold of any result: each step gains
 * much on correlated inputs, no pass raises the loss, nothing is left to gain in the end, and
 * neither threads nor other rows change a row's bytes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/blocks.h"
#include "tests/random.h"
#include "tests/unit/search_code_reference.h"
#include "worker/search_blocks.h"

enum { SEED = 2026, N = 384, ROWS = 64, TYPES = 4 }; /* N: more than the search's tile of 256 */

static const struct type {
    const char *name;
    enum dtype dtype;
    enum matrix_type matrix;
    int low, step, high; /* the integers of blocks_decode */
} types[TYPES] = {{"Q8_0", DTYPE_Q8_0, MATRIX_Q8_0, -127, 1, 127},
                  {"Q4_0", DTYPE_Q4_0, MATRIX_Q4_0, -8, 1, 7},
                  {"Q2_0", DTYPE_Q2_0, MATRIX_Q2_0, -1, 1, 2},
                  {"Q1_0", DTYPE_Q1_0, MATRIX_Q1_0, -1, 2, 1}};

static struct curvature *inputs; /* N wide, with an input that is always zero */
static float target[ROWS * N];

static struct recipe recipe_of(bool feedback, uint32_t rounds, uint32_t descent)
{
    struct recipe r = recipe_default;
    r.feedback = feedback;
    r.rounds = rounds;
    r.descent = descent;
    return r;
}

struct result {
    size_t row_bytes;
    uint8_t *bytes;
    struct band_loss loss;
    bool fits;
};

/* Rows of t[rows][k->n] in bands of at most band rows, several threads at once; the loss is the
 * last band's. */
static struct result run(const struct type *type, const struct curvature *k,
                         const struct recipe *recipe, const float *t, int rows, int band)
{
    struct error e = {0};
    struct block_search *s;
    uint64_t row_bytes;
    struct result out = {.fits = true};
    assert_int_equal(dtype_row_bytes(type->dtype, (uint64_t)k->n, &row_bytes, &e), OK);
    assert_int_equal(block_search_create(&s, type->dtype, k, recipe, &e), OK);
    out.row_bytes = (size_t)row_bytes;
    out.bytes = malloc(out.row_bytes * (size_t)rows);
#pragma omp parallel for num_threads(3) schedule(dynamic)
    for (int first = 0; first < rows; first += band) {
        size_t floats = block_search_scratch(s);
        float *scratch = malloc(floats * sizeof *scratch);
        memset(scratch, 0xff, floats * sizeof *scratch); /* NaNs: nothing of it may be read */
        struct band_loss loss;
        int count = rows - first < band ? rows - first : band;
        bool fits = block_search_band(s, t + (size_t)first * (size_t)k->n, count, scratch,
                                      out.bytes + (size_t)first * out.row_bytes, &loss);
        free(scratch);
#pragma omp critical
        {
            out.fits = out.fits && fits;
            out.loss = loss;
        }
    }
    block_search_free(s);
    return out;
}

/* q[n] and a scale per block of row r, as the kernels read them. */
static void decode(const struct type *type, const struct result *result, int r, int n, int *q,
                   double *scale)
{
    int block = blocks_weights(type->matrix);
    for (int first = 0; first < n; first += block) {
        int8_t w[BLOCK_MAX_WEIGHTS];
        scale[first / block] =
            (double)blocks_decode(type->matrix,
                                  result->bytes + (size_t)r * result->row_bytes +
                                      (size_t)(first / block) * blocks_bytes(type->matrix),
                                  w);
        for (int j = 0; j < block; j++)
            q[first + j] = w[j];
    }
}

/* What row r's bytes leave of its target. */
static void rest_of(const struct type *type, const struct result *result, const float *t, int r,
                    int n, double *rest)
{
    int q[N], block = blocks_weights(type->matrix);
    double scale[N];
    decode(type, result, r, n, q, scale);
    for (int j = 0; j < n; j++)
        rest[j] = (double)t[r * n + j] - scale[j / block] * q[j];
}

/* g[n] = x H; returns x H x'. */
static double gradient(const struct curvature *k, const double *x, double *g)
{
    double sum = 0;
    for (int i = 0; i < k->n; i++) {
        g[i] = 0;
        for (int j = 0; j < k->n; j++)
            g[i] += (double)k->h[i * k->n + j] * x[j];
        sum += g[i] * x[i];
    }
    return sum;
}

static double loss_of(const struct type *type, const struct result *result,
                      const struct curvature *k, const float *t, int rows)
{
    double rest[N], g[N], sum = 0;
    for (int r = 0; r < rows; r++) {
        rest_of(type, result, t, r, k->n, rest);
        sum += gradient(k, rest, g);
    }
    return sum;
}

static int nearest(const struct type *type, double x)
{
    int q = type->low + type->step * (int)rint((x - type->low) / type->step);
    return q < type->low ? type->low : q > type->high ? type->high : q;
}

/* sum of weight (z - scale q)^2 over a block with its nearest integers. */
static double block_error(const struct type *type, const double *weight, const double *z,
                          double scale)
{
    double sum = 0;
    for (int j = 0; j < blocks_weights(type->matrix); j++) {
        double off = z[j] - (scale != 0 ? scale * nearest(type, z[j] / scale) : 0);
        sum += weight[j] * off * off;
    }
    return sum;
}

/* The least that any scale of a fine grid gives. */
static double best_error(const struct type *type, const double *weight, const double *z)
{
    double most = 0, least = INFINITY;
    for (int j = 0; j < blocks_weights(type->matrix); j++)
        most = fmax(most, fabs(z[j]));
    for (int i = 1; i <= 600; i++)
        for (int sign = -1; sign <= 1; sign += 2) {
            double scale = sign * most * i / (500.0 * (type->high > 2 ? type->high : 1));
            least = fmin(least, block_error(type, weight, z, scale));
        }
    return least;
}

struct fit {
    double excess; /* of the scales' errors above those of the fine grid, summed, as parts */
    double worst;  /* of a block */
    int blocks, ties;
};

/* One block of a row: its scale is about as good as any for z as it comes, and each integer the
 * nearest to what the earlier ones leave. u NULL: without feedback. Moves z on. */
static void check_block(const struct type *type, const double *weight, const float *u, int n,
                        int first, const int *q, double scale, double *z, struct fit *fit)
{
    int block = blocks_weights(type->matrix);
    double best = best_error(type, weight + first, z + first);
    double excess = block_error(type, weight + first, z + first, scale) / best - 1;
    fit->worst = fmax(fit->worst, excess);
    fit->excess += excess;
    fit->blocks++;
    for (int j = first; j < first + block; j++) {
        double x = z[j] / scale, off = z[j] - scale * q[j];
        if (q[j] != nearest(type, x)) { /* only where two are equally near but for rounding */
            assert_true(fabs(x - q[j]) < fabs(x - nearest(type, x)) + 2e-4 * (1 + fabs(x)));
            fit->ties++;
        }
        for (int c = j + 1; u && c < n; c++)
            z[c] -= off / (double)u[j * n + j] * (double)u[j * n + c];
    }
}

static struct fit check_rows(const struct type *type, const struct result *result, bool feedback)
{
    double weight[N], z[N], scale[N];
    int q[N], block = blocks_weights(type->matrix);
    struct fit fit = {0};
    for (int j = 0; j < N; j++) {
        double u = (double)inputs->u[j * N + j];
        weight[j] = feedback ? 1 / (u * u) : (double)inputs->h[j * N + j];
    }
    for (int r = 0; r < ROWS; r++) {
        decode(type, result, r, N, q, scale);
        for (int j = 0; j < N; j++)
            z[j] = (double)target[r * N + j];
        for (int first = 0; first < N; first += block)
            check_block(type, weight, feedback ? inputs->u : NULL, N, first, q,
                        scale[first / block], z, &fit);
    }
    return fit;
}

/* Plain rounding with searched scales, and feedback, decision by decision. */
static void test_decisions(void **state)
{
    /* Q8_0's error jumps with the scale, so that the finest grid finds luck that a coarse one
     * misses. */
    static const double excess[TYPES] = {.03, .02, .01, 1e-5};
    (void)state;
    for (int i = 0; i < TYPES; i++)
        for (int feedback = 0; feedback < 2; feedback++) {
            struct recipe recipe = recipe_of(feedback, 2, 0);
            struct result r = run(&types[i], inputs, &recipe, target, ROWS, ROWS);
            struct fit fit = check_rows(&types[i], &r, feedback);
            printf("%s feedback %d: scales cost %.2f %% more than the best, at most %.0f %%, %d "
                   "ties\n",
                   types[i].name, feedback, 100 * fit.excess / fit.blocks, 100 * fit.worst,
                   fit.ties);
            assert_true(r.fits);
            assert_true(fit.excess < excess[i] * fit.blocks);
            assert_true(fit.ties < ROWS * N / 200);
            if (!feedback)
                assert_true(r.loss.fed == r.loss.rounded && r.loss.final == r.loss.fed);
            free(r.bytes);
        }
}

static void assert_near(double a, double b, double part)
{
    assert_true(fabs(a - b) <= part * b);
}

/* Losses are those of the bytes, whatever the steps; and each step gains much. */
static void test_losses(void **state)
{
    static const double fed[TYPES] = {.7, .7, .75, .85}, final[TYPES] = {.97, .97, .94, .88};
    (void)state;
    for (int i = 0; i < TYPES; i++) {
        double rest[N], g[N], signal = 0, error2 = 0, weight2 = 0;
        struct recipe plain = recipe_of(false, 2, 0), feedback = recipe_of(true, 2, 0),
                      all = recipe_of(true, 2, 4);
        struct result p = run(&types[i], inputs, &plain, target, ROWS, ROWS),
                      f = run(&types[i], inputs, &feedback, target, ROWS, ROWS),
                      a = run(&types[i], inputs, &all, target, ROWS, ROWS);
        for (int r = 0; r < ROWS; r++) {
            for (int j = 0; j < N; j++)
                rest[j] = (double)target[r * N + j];
            signal += gradient(inputs, rest, g);
            rest_of(&types[i], &a, target, r, N, rest);
            for (int j = 0; j < N; j++) {
                error2 += rest[j] * rest[j];
                weight2 += (double)target[r * N + j] * (double)target[r * N + j];
            }
        }
        assert_near(a.loss.signal, signal, 1e-5);
        assert_near(a.loss.rounded, loss_of(&types[i], &p, inputs, target, ROWS), 1e-4);
        assert_near(a.loss.fed, loss_of(&types[i], &f, inputs, target, ROWS), 1e-4);
        assert_near(a.loss.final, loss_of(&types[i], &a, inputs, target, ROWS), 1e-4);
        assert_near(a.loss.error2, error2, 1e-6);
        assert_near(a.loss.weight2, weight2, 1e-9);
        printf("%s: rounded %.3e of the signal, fed %.3f of that, final %.3f\n", types[i].name,
               a.loss.rounded / signal, a.loss.fed / a.loss.rounded, a.loss.final / a.loss.rounded);
        assert_true(a.loss.fed < fed[i] * a.loss.rounded);
        assert_true(a.loss.final < final[i] * a.loss.fed);
        free(p.bytes);
        free(f.bytes);
        free(a.bytes);
    }
}

/* The largest part of a row's loss that one other integer, or a neighbouring scale, would save. */
static double left_to_gain(const struct type *type, const struct result *result, int r)
{
    int q[N], block = blocks_weights(type->matrix);
    double scale[N], rest[N], g[N], most = 0;
    decode(type, result, r, N, q, scale);
    rest_of(type, result, target, r, N, rest);
    double loss = gradient(inputs, rest, g);
    for (int j = 0; j < N; j++)
        for (int way = -type->step; way <= type->step; way += 2 * type->step) {
            double by = scale[j / block] * way;
            if (q[j] + way >= type->low && q[j] + way <= type->high)
                most = fmax(most, by * (2 * g[j] - by * (double)inputs->h[j * N + j]));
        }
    for (int b = 0; b < N / block; b++) {
        double words[N] = {0}, h[N], up = 0;
        for (int j = b * block; j < (b + 1) * block; j++) {
            words[j] = q[j];
            up += g[j] * q[j];
        }
        double curve = gradient(inputs, words, h);
        for (int way = -1; way <= 1; way += 2) {
            uint16_t bits = (uint16_t)(f32_to_f16((float)scale[b]) + way);
            double by = (double)f16_to_f32(bits) - scale[b];
            most = fmax(most, by * (2 * up - by * curve));
        }
    }
    return most / loss;
}

/* No pass raises the loss, and after many no single change would lower it. */
static void test_descent(void **state)
{
    enum { MANY = 80 };
    static const uint32_t passes[] = {0, 1, 2, 4, MANY};
    (void)state;
    for (int i = 0; i < TYPES; i++) {
        double last = INFINITY, first = 0, most = 0;
        for (size_t p = 0; p < sizeof passes / sizeof *passes; p++) {
            struct recipe recipe = recipe_of(true, 1, passes[p]);
            struct result r = run(&types[i], inputs, &recipe, target, ROWS, ROWS);
            double loss = loss_of(&types[i], &r, inputs, target, ROWS);
            assert_true(loss <= last * (1 + 1e-6));
            last = loss;
            for (int row = 0; row < ROWS; row++) {
                double left = left_to_gain(&types[i], &r, row);
                first = passes[p] == 0 ? fmax(first, left) : first;
                most = passes[p] == MANY ? fmax(most, left) : most;
            }
            free(r.bytes);
        }
        printf("%s: one change saves up to %.1e of a row's loss before, %.1e after\n",
               types[i].name, first, most);
        assert_true(first > 1e-3 && most < 1e-4);
    }
}

/* Neither threads nor the values and the number of other rows change a byte. */
static void test_rows(void **state)
{
    enum { SOME = 5 };
    struct recipe recipe = recipe_of(true, 2, 2);
    float *many = malloc(3 * sizeof target);
    (void)state;
    for (int i = 0; i < 3 * ROWS * N; i++)
        many[i] = target[i % (ROWS * N)] * (float)(1 + i / (ROWS * N));
    for (int i = 0; i < TYPES; i++) {
        struct result all = run(&types[i], inputs, &recipe, many, 3 * ROWS, ROWS),
                      cut = run(&types[i], inputs, &recipe, many, 2 * ROWS + SOME, ROWS),
                      one = run(&types[i], inputs, &recipe, target, SOME, ROWS);
        assert_memory_equal(all.bytes, cut.bytes, (2 * ROWS + SOME) * all.row_bytes);
        assert_memory_equal(all.bytes, one.bytes, SOME * all.row_bytes);
        free(all.bytes);
        free(cut.bytes);
        free(one.bytes);
    }
    free(many);
}

/* Widths that are no multiple of the search's tiles, and inputs of which most are zero. */
static void test_widths(void **state)
{
    static const struct {
        int type, n;
    } cases[] = {{0, 32}, {1, 160}, {0, 288}, {2, 64}, {2, 320}, {3, 128}};
    struct recipe recipe = recipe_of(true, 2, 3);
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct type *type = &types[cases[i].type];
        struct curvature *k = reference_curvature(cases[i].n, 1, 0.05, 0.003, 5, random_gaussian);
        struct result r = run(type, k, &recipe, target, 9, 9);
        assert_true(r.fits && r.loss.final < r.loss.rounded);
        assert_near(r.loss.final, loss_of(type, &r, k, target, 9), 1e-4);
        free(r.bytes);
        reference_free(k);
    }
}

/* Rows of zeros, weights too small for any scale, and one too large. */
static void test_extremes(void **state)
{
    float *t = malloc(sizeof target);
    (void)state;
    for (int i = 0; i < TYPES; i++) {
        struct recipe recipe = recipe_of(true, 2, 2);
        double rest[N];
        memcpy(t, target, sizeof target);
        memset(t + 3 * N, 0, N * sizeof *t);
        for (int j = 0; j < N; j++)
            t[5 * N + j] = j % 2 ? 1e-12f : -3e-11f;
        struct result r = run(&types[i], inputs, &recipe, t, ROWS, ROWS);
        struct result before = run(&types[i], inputs, &recipe, target, ROWS, ROWS);
        rest_of(&types[i], &r, t, 3, N, rest);
        for (int j = 0; j < N; j++)
            assert_true(rest[j] == 0);
        rest_of(&types[i], &r, t, 5, N, rest);
        for (int j = 0; j < N; j++)
            assert_true(rest[j] == (double)t[5 * N + j]);
        assert_true(r.fits);
        assert_memory_equal(r.bytes + 6 * r.row_bytes, before.bytes + 6 * r.row_bytes,
                            (ROWS - 6) * r.row_bytes);
        free(r.bytes);
        free(before.bytes);
        for (int j = 0; j < N; j++)
            t[7 * N + j] = 2e7f;
        r = run(&types[i], inputs, &recipe, t, ROWS, ROWS);
        assert_false(r.fits);
        free(r.bytes);
        memset(t, 0, sizeof target);
        r = run(&types[i], inputs, &recipe, t, ROWS, ROWS);
        assert_true(r.fits && r.loss.signal == 0 && r.loss.final == 0 && r.loss.error2 == 0);
        free(r.bytes);
    }
    free(t);
}

/* Without feedback u is not needed. */
static void test_without_factor(void **state)
{
    struct curvature k = {.n = inputs->n, .width = inputs->n, .h = inputs->h};
    struct recipe recipe = recipe_of(false, 1, 2);
    (void)state;
    for (int i = 0; i < TYPES; i++) {
        struct result r = run(&types[i], &k, &recipe, target, ROWS, ROWS);
        assert_true(r.fits && r.loss.fed == r.loss.rounded);
        assert_true(r.loss.final < 0.9 * r.loss.fed);
        free(r.bytes);
    }
}

static int set_up(void **state)
{
    (void)state;
    printf("seed %d\n", SEED);
    curvature_init();
    random_state = SEED;
    inputs = reference_curvature(N, 1, 0.05, 0.003, 40, random_gaussian);
    for (int i = 0; i < ROWS * N; i++)
        target[i] = 0.02f * (float)(1 + i / N % 3) * random_gaussian();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    reference_free(inputs);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decisions),      cmocka_unit_test(test_losses),
        cmocka_unit_test(test_descent),        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_widths),         cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_without_factor),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
