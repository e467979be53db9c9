/* The search for byte codes: against the slow reference in double, and for what must hold of any
 * result: no pass raises the loss, the stated losses are those of the codes, scales are the closed form, and each
 * step gains much on correlated inputs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <omp.h>

#include "common/dtype.h"
#include "tests/random.h"
#include "tests/unit/search_code_reference.h"
#include "worker/nearest.h"
#include "worker/search_code.h"

enum { SEED = 4711, ROWS = 64 };

struct result {
    int rows, groups;
    uint8_t *codes; /* [groups][64] */
    uint16_t scale[ROWS];
    struct band_loss loss;
    bool fits;
};

static void run(const struct curvature *k, uint32_t d, const struct recipe *recipe,
                const float *target, int rows, struct result *out)
{
    struct error e = {0};
    struct code_search *s;
    assert_int_equal(code_search_create(&s, codebook_for(d), k, recipe, &e), OK);
    float *scratch = malloc(code_search_scratch(s) * sizeof *scratch);
    memset(scratch, 0xff, code_search_scratch(s) * sizeof *scratch); /* NaNs: nothing may be read */
    out->rows = rows;
    out->groups = (k->n + (int)d - 1) / (int)d;
    out->codes = malloc((size_t)out->groups * ROWS);
    memset(out->codes, 0xa5, (size_t)out->groups * ROWS);
    out->fits = code_search_band(s, target, rows, scratch, out->codes, out->scale, &out->loss);
    free(scratch);
    code_search_free(s);
}

static void row_codes(const struct result *r, int row, uint8_t *out)
{
    for (int g = 0; g < r->groups; g++)
        out[g] = r->codes[g * ROWS + row];
}

static float *random_target(int rows, int n)
{
    float *t = malloc((size_t)rows * (size_t)n * sizeof *t);
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < n; j++)
            t[r * n + j] = 0.02f * (float)(1 + r % 3) * random_gaussian();
    return t;
}

static struct recipe recipe_of(bool feedback, uint32_t rounds, uint32_t descent)
{
    struct recipe r = recipe_default;
    r.feedback = feedback;
    r.rounds = rounds;
    r.descent = descent;
    r.joint = 0;
    return r;
}

static double loss_of(const struct result *r, uint32_t d, const struct curvature *k,
                      const float *target)
{
    double sum = 0;
    uint8_t *codes = malloc((size_t)r->groups);
    for (int row = 0; row < r->rows; row++) {
        row_codes(r, row, codes);
        sum += reference_loss(codebook_for(d), k, target + row * k->n, codes,
                              (double)f16_to_f32(r->scale[row]));
    }
    free(codes);
    return sum;
}

struct shape {
    uint32_t d;
    int n, rows;
};

/* Whether two codes mean the same in all columns that exist: in a cut group several words do. */
static bool same_words(const struct codebook *book, int n, const uint8_t *a, const uint8_t *b)
{
    int d = (int)book->d;
    for (int j = 0; j < n; j++) {
        uint8_t x = a[j / d], y = b[j / d];
        int cx = book->vector[(x & 127) * d + j % d], cy = book->vector[(y & 127) * d + j % d];
        if ((x & 128 ? -cx : cx) != (y & 128 ? -cy : cy))
            return false;
    }
    return true;
}

static void assert_near(double x, double y, double signal)
{
    assert_true(fabs(x - y) <= 0.02 * x + 1e-4 * signal);
}

/* Rows whose codes are the reference's, all codes of them; the losses in any case. A row may differ where two
 * words are equally near but for rounding. */
static int equal_rows(const struct shape *shape, const struct recipe *recipe)
{
    struct curvature *k = reference_curvature(shape->n, 1, 0.05, 0.003, -1, random_gaussian);
    float *target = random_target(shape->rows, shape->n);
    struct result r;
    struct reference_row row, sum = {0};
    run(k, shape->d, recipe, target, shape->rows, &r);
    uint8_t *codes = malloc((size_t)r.groups), *mine = malloc((size_t)r.groups);
    int equal = 0;
    for (int i = 0; i < shape->rows; i++) {
        reference_search(codebook_for(shape->d), k, recipe, target + i * shape->n, codes, &row);
        row_codes(&r, i, mine);
        equal += same_words(codebook_for(shape->d), shape->n, codes, mine) &&
                 row.scale == (double)f16_to_f32(r.scale[i]);
        sum.signal += row.signal;
        sum.rounded += row.rounded;
        sum.fed += row.fed;
        sum.final += row.final;
    }
    assert_true(fabs(sum.signal - r.loss.signal) <= 1e-5 * sum.signal);
    assert_near(sum.rounded, r.loss.rounded, sum.signal);
    assert_near(sum.fed, r.loss.fed, sum.signal);
    assert_near(sum.final, r.loss.final, sum.signal);
    free(codes);
    free(mine);
    free(r.codes);
    free(target);
    reference_free(k);
    return equal;
}

static void test_reference(void **state)
{
    static const struct shape shapes[] = {{2, 33, 5},  {3, 40, 64}, {8, 40, 33},
                                          {16, 50, 7}, {8, 5, 3},   {4, 1, 2},
                                          {5, 129, 4}, {8, 140, 3}, {2, 129, 2}};
    int equal = 0, rows = 0;
    (void)state;
    random_state = SEED;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        static const struct {
            bool feedback;
            uint32_t rounds, descent, joint;
        } steps[] = {{false, 2, 0, 0}, {true, 1, 0, 0}, {true, 2, 0, 0}, {true, 1, 2, 0},
                     {false, 1, 1, 0}, {true, 1, 0, 1}, {true, 1, 3, 2}, {false, 1, 0, 1}};
        for (size_t j = 0; j < sizeof steps / sizeof *steps; j++) {
            struct recipe recipe = recipe_of(steps[j].feedback, steps[j].rounds, steps[j].descent);
            recipe.joint = steps[j].joint;
            int same = equal_rows(&shapes[i], &recipe);
            if (same < shapes[i].rows)
                printf("d %u n %d step %zu: %d of %d rows equal\n", shapes[i].d, shapes[i].n, j,
                       same, shapes[i].rows);
            equal += same;
            rows += shapes[i].rows;
        }
    }
    printf("%d of %d rows equal, seed %d\n", equal, rows, SEED);
    assert_true(equal * 100 >= rows * 98);
}

/* Of passes of descent: the stated loss is that of the codes, and never rises; scales are the closed form. */
static void check_descent(uint32_t d, int n, int rows)
{
    static const uint32_t passes[] = {0, 1, 2, 4, 100};
    struct curvature *k = reference_curvature(n, 1, 0.05, 0.003, n / 2, random_gaussian);
    float *target = random_target(rows, n);
    double last = INFINITY;
    for (size_t i = 0; i < sizeof passes / sizeof *passes; i++) {
        struct recipe recipe = recipe_of(true, 2, passes[i]);
        struct result r;
        run(k, d, &recipe, target, rows, &r);
        double loss = loss_of(&r, d, k, target);
        assert_true(fabs(loss - r.loss.final) <= 1e-4 * loss);
        assert_true(loss <= last * (1 + 1e-6));
        last = loss;
        uint8_t *codes = malloc((size_t)r.groups);
        for (int row = 0; row < rows; row++) {
            row_codes(&r, row, codes);
            double best = reference_scale(codebook_for(d), k, target + row * n, codes),
                   used = (double)f16_to_f32(r.scale[row]);
            assert_true(fabs(used - best) <= 0x1p-11 * 1.01 * best);
            if (passes[i] == 100) /* nothing is left to gain */
                assert_true(reference_gain(codebook_for(d), k, target + row * n, codes, used) <
                            1e-4);
        }
        free(codes);
        free(r.codes);
    }
    free(target);
    reference_free(k);
}

static void test_descent(void **state)
{
    (void)state;
    random_state = SEED + 1;
    check_descent(2, 41, 2);
    check_descent(3, 130, 1);
    check_descent(8, 60, 5);
    check_descent(8, 131, 2);
    check_descent(16, 135, 1);
}

/* Joint passes: the stated loss is that of the codes, and does not rise from pass to pass; one gains
 * what descent to its end does not. */
static void check_joint(uint32_t d, int n, int rows)
{
    struct curvature *k = reference_curvature(n, 1, 0.05, 0.003, n / 2, random_gaussian);
    float *target = random_target(rows, n);
    struct recipe recipe = recipe_of(true, 1, 100);
    struct result r;
    run(k, d, &recipe, target, rows, &r);
    double end = r.loss.final, last = INFINITY;
    free(r.codes);
    recipe.descent = 0;
    for (recipe.joint = 0; recipe.joint < 4; recipe.joint++) {
        run(k, d, &recipe, target, rows, &r);
        double loss = loss_of(&r, d, k, target);
        assert_true(fabs(loss - r.loss.final) <= 1e-4 * loss);
        assert_true(loss <= last * (1 + 1e-6));
        last = loss;
        free(r.codes);
    }
    recipe.descent = 3;
    recipe.joint = 1;
    run(k, d, &recipe, target, rows, &r);
    printf("d %u n %d: descent to its end %.6g, with a joint pass %.6g\n", d, n, end, r.loss.final);
    assert_true(rows < ROWS || r.loss.final < 0.995 * end);
    free(r.codes);
    free(target);
    reference_free(k);
}

static void test_joint(void **state)
{
    (void)state;
    random_state = SEED + 7;
    check_joint(2, 41, 2);
    check_joint(3, 130, 3);
    check_joint(8, 384, ROWS);
    check_joint(4, 384, ROWS);
    check_joint(16, 135, 1);
}

/* On correlated inputs feedback gains much, and descent again where groups are long. */
static void test_quality(void **state)
{
    static const struct {
        uint32_t d;
        double fed, final; /* at most these parts of the loss before */
    } bounds[] = {{2, 0.6, 0.99}, {4, 0.6, 0.99}, {8, 0.65, 0.97}, {16, 0.72, 0.96}};
    enum { N = 256 };
    (void)state;
    random_state = SEED + 2;
    struct curvature *k = reference_curvature(N, 1, 0.05, 0.003, -1, random_gaussian);
    float *target = random_target(ROWS, N);
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
        struct recipe recipe = recipe_of(true, 2, 6);
        struct result r;
        run(k, bounds[i].d, &recipe, target, ROWS, &r);
        printf("d %2u: rounded %.4f fed %.4f final %.4f\n", bounds[i].d,
               r.loss.rounded / r.loss.signal, r.loss.fed / r.loss.signal,
               r.loss.final / r.loss.signal);
        assert_true(r.loss.fed < bounds[i].fed * r.loss.rounded);
        assert_true(r.loss.final < bounds[i].final * r.loss.fed);
        assert_true(r.loss.weight2 > 0 && r.loss.error2 < r.loss.weight2);
        free(r.codes);
    }
    free(target);
    reference_free(k);
}

/* Each row's result is its own: rows of zeros, absent rows, other rows beside it. */
static void test_rows(void **state)
{
    enum { N = 70, D = 8 };
    struct recipe recipe = recipe_of(true, 2, 3);
    struct result all, some;
    (void)state;
    recipe.joint = 1;
    random_state = SEED + 3;
    struct curvature *k = reference_curvature(N, 1, 0.05, 0.003, 9, random_gaussian);
    float *target = random_target(ROWS, N);
    memset(target + 3 * N, 0, N * sizeof *target);
    for (int r = 0; r < ROWS; r++)
        target[r * N + 20] = 0;
    run(k, D, &recipe, target, ROWS, &all);
    run(k, D, &recipe, target, 5, &some);
    assert_true(all.fits && some.fits);
    assert_int_equal(all.scale[3], 0);
    assert_memory_equal(all.scale, some.scale, 5 * sizeof *all.scale);
    for (int g = 0; g < all.groups; g++) {
        assert_int_equal(all.codes[g * ROWS + 3], 0);
        assert_memory_equal(all.codes + g * ROWS, some.codes + g * ROWS, 5);
        for (int r = 5; r < ROWS; r++)
            assert_int_equal(some.codes[g * ROWS + r], 0);
    }
    free(all.codes);
    free(some.codes);
    memset(target, 0, ROWS * N * sizeof *target);
    run(k, D, &recipe, target, ROWS, &all);
    assert_true(all.fits && all.loss.signal == 0 && all.loss.final == 0 && all.loss.error2 == 0);
    free(all.codes);
    free(target);
    reference_free(k);
}

/* Without feedback u is not needed, and fed is rounded; a scale beyond F16 is told. */
static void test_limits(void **state)
{
    enum { N = 24, D = 8 };
    struct recipe recipe = recipe_of(false, 1, 0);
    struct result r;
    (void)state;
    random_state = SEED + 4;
    struct curvature *k = reference_curvature(N, 1, 0.05, 0.003, -1, random_gaussian);
    float *u = k->u, *target = random_target(2, N);
    k->u = NULL;
    run(k, D, &recipe, target, 2, &r);
    assert_true(r.fits && r.loss.fed == r.loss.rounded && r.loss.final == r.loss.fed);
    free(r.codes);
    recipe.joint = 1;
    run(k, D, &recipe, target, 2, &r);
    assert_true(r.fits && r.loss.final < r.loss.fed);
    free(r.codes);
    k->u = u;
    recipe = recipe_of(true, 2, 2);
    recipe.joint = 1;
    for (int j = 0; j < N; j++)
        target[N + j] *= 1e9f;
    run(k, D, &recipe, target, 2, &r);
    assert_false(r.fits);
    free(r.codes);
    for (int j = 0; j < 2 * N; j++)
        target[j] = 1e-30f; /* no scale so small exists: the row becomes zero */
    run(k, D, &recipe, target, 2, &r);
    assert_true(r.fits && r.scale[0] == 0 && r.codes[0] == 0);
    free(r.codes);
    free(target);
    reference_free(k);
}

/* The same bits from every variant of the inner loops; and spread against its definition. */
static void test_variants(void **state)
{
    enum { COLS = 11, STRIDE = 13 };
    struct error e = {0};
    (void)state;
    random_state = SEED + 5;
    for (int i = 0; i < CODEBOOK_COUNT; i++) {
        int d = (int)codebook_table[i].d;
        float norm[CODEBOOK_WORDS], x[CODEBOOK_MAX_D * ROWS], h[CODEBOOK_MAX_D * STRIDE];
        float y[2][COLS * ROWS];
        int32_t best[2][ROWS];
        struct nearest *n;
        assert_int_equal(nearest_create(&n, &codebook_table[i], &e), OK);
        for (int j = 0; j < CODEBOOK_WORDS; j++)
            norm[j] = fabsf(random_gaussian());
        for (int j = 0; j < d * ROWS; j++)
            x[j] = random_gaussian();
        for (int j = 0; j < d * STRIDE; j++)
            h[j] = random_gaussian();
        for (int v = 0; v < nearest_variants(); v++) {
            nearest_use(n, v);
            memset(y[v > 0], 0, sizeof y[0]);
            nearest_rows(n, norm, x, best[v > 0]);
            nearest_spread(n, h, STRIDE, COLS, x, d, y[v > 0]);
            assert_memory_equal(best[0], best[v > 0], sizeof best[0]);
            assert_memory_equal(y[0], y[v > 0], sizeof y[0]);
        }
        for (int c = 0; c < COLS; c++)
            for (int r = 0; r < ROWS; r++) {
                double sum = 0;
                for (int j = 0; j < d; j++)
                    sum += (double)h[j * STRIDE + c] * (double)x[j * ROWS + r];
                assert_true(fabs(sum - (double)y[0][c * ROWS + r]) < 1e-4);
            }
        nearest_free(n);
    }
}

/* The same bits whether a thread of several calls, or one for which OpenMP would start several. */
static void test_threads(void **state)
{
    enum { N = 384, D = 8, THREADS = 3 };
    struct recipe recipe = recipe_of(true, 2, 2);
    struct result alone, together[THREADS];
    (void)state;
    recipe.joint = 1;
    random_state = SEED + 6;
    struct curvature *k = reference_curvature(N, 1, 0.05, 0.003, -1, random_gaussian);
    float *target = random_target(ROWS, N);
    int before = omp_get_max_threads();
    omp_set_num_threads(THREADS);
    run(k, D, &recipe, target, ROWS, &alone);
    assert_int_equal(omp_get_max_threads(), THREADS);
#pragma omp parallel for schedule(static, 1)
    for (int i = 0; i < THREADS; i++)
        run(k, D, &recipe, target, ROWS, &together[i]);
    omp_set_num_threads(before);
    for (int i = 0; i < THREADS; i++) {
        assert_memory_equal(alone.codes, together[i].codes, (size_t)alone.groups * ROWS);
        assert_memory_equal(alone.scale, together[i].scale, sizeof alone.scale);
        assert_memory_equal(&alone.loss, &together[i].loss, sizeof alone.loss);
        free(together[i].codes);
    }
    free(alone.codes);
    free(target);
    reference_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_variants), cmocka_unit_test(test_reference),
        cmocka_unit_test(test_descent),  cmocka_unit_test(test_quality),
        cmocka_unit_test(test_rows),     cmocka_unit_test(test_limits),
        cmocka_unit_test(test_threads),  cmocka_unit_test(test_joint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
