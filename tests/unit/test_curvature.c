/* The dense algebra against naive algebra in double, at orders around the sizes of tiles and
 * blocks. */
#include <dirent.h>
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/random.h"
#include "worker/curvature.h"

enum { SEED = 815 };

static const int orders[] = {1, 2, 5, 37, 300, 600}; /* up to three tiles a side */

static void *room(size_t count, size_t size)
{
    void *p = calloc(count, size);
    assert_non_null(p);
    return p;
}

/* Moments of rows inputs whose columns have very different sizes and hang together; every
 * seventh is zero where zeros says so. Below the diagonal of h there is what must not be read. */
static struct moments_node make_node(int n, int rows, bool zeros)
{
    size_t order = (size_t)n;
    struct moments_node node = {0, MOMENT_LANES, n, n, (uint64_t)rows, NULL, NULL};
    float *x = room(order, sizeof *x), *d = room(order, sizeof *d);
    node.h = room(order * order, sizeof *node.h);
    node.c = room(order * order, sizeof *node.c);
    for (int row = 0; row < rows; row++) {
        float common = random_uniform();
        for (size_t i = 0; i < order; i++) {
            x[i] = zeros && i % 7 == 3 ? 0 : (common + random_uniform()) * (i % 11 == 5 ? 30.0f : 1.0f);
            d[i] = 0.1f * (random_uniform() + x[i] / 30);
        }
        for (size_t i = 0; i < order; i++)
            for (size_t j = 0; j < order; j++) {
                node.c[i * order + j] += d[i] * x[j];
                node.h[i * order + j] = j < i ? NAN : node.h[i * order + j] + x[i] * x[j];
            }
    }
    free(x);
    free(d);
    return node;
}

static void free_node(struct moments_node *node)
{
    free(node->h);
    free(node->c);
}

/* The level as curvature.h says: the middle is the element that as many stand below as above. */
static double reference_level(const struct moments_node *node)
{
    size_t n = (size_t)node->n, all = 0;
    double middle = 0, sum = 0;
    for (size_t i = 0; i < n; i++)
        all += node->h[i * n + i] > 0;
    for (size_t i = 0; i < n; i++) {
        size_t below = 0, same = 0;
        for (size_t j = 0; j < n; j++) {
            below += node->h[j * n + j] > 0 && node->h[j * n + j] < node->h[i * n + i];
            same += node->h[j * n + j] == node->h[i * n + i];
        }
        if (node->h[i * n + i] > 0 && below <= all / 2 && all / 2 < below + same)
            middle = (double)node->h[i * n + i];
    }
    for (size_t i = 0; i < n; i++)
        sum += fmin((double)node->h[i * n + i], 16 * middle);
    return sum / (double)n / (double)node->tokens;
}

/* Damped as curvature.h says, in double. */
static double *reference_h(const struct moments_node *node, double shrink, double damp)
{
    size_t n = (size_t)node->n;
    double *h = room(n * n, sizeof *h), level = reference_level(node);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            double value = (double)node->h[i < j ? i * n + j : j * n + i] / (double)node->tokens;
            h[i * n + j] = i == j ? value + damp * level : (1 - shrink) * value;
        }
    return h;
}

static struct curvature *create(const struct moments_node *node, double shrink, double damp,
                                bool with_u, int threads)
{
    struct curvature *k = NULL;
    struct error e = {0};
    if (curvature_create(&k, node, shrink, damp, with_u, threads, "blk.0.attn_q", &e) != OK)
        print_error("%s\n", e.text);
    assert_int_equal(e.status, OK);
    return k;
}

static void assert_near(double got, double want, double tolerance, const char *what, int n)
{
    if (!(fabs(got - want) <= tolerance)) {
        print_error("order %d: %s is %g instead of %g (+- %g)\n", n, what, got, want, tolerance);
        fail();
    }
}

/* U'U H = I, as U H U' = I, whose elements are all of one size; and H itself. */
static void assert_inverse(const struct curvature *k, const double *h, double tolerance)
{
    size_t n = (size_t)k->n;
    double *uh = room(n, sizeof *uh);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            double size = sqrt(h[i * n + i] * h[j * n + j]);
            assert_near((double)k->h[i * n + j], h[i * n + j], 1e-6 * size, "H", k->n);
            uh[j] = 0;
        }
        for (size_t l = i; l < n; l++)
            for (size_t j = 0; j < n; j++)
                uh[j] += (double)k->u[i * n + l] * h[l * n + j];
        for (size_t j = 0; j < n; j++) {
            double product = 0;
            for (size_t l = j; l < n; l++)
                product += uh[l] * (double)k->u[j * n + l];
            assert_near(product, i == j, tolerance, "U H U'", k->n);
            if (j < i)
                assert_true(k->u[i * n + j] == 0);
        }
    }
    free(uh);
}

static void test_inverse(void **state)
{
    (void)state;
    for (size_t o = 0; o < sizeof orders / sizeof *orders; o++) {
        struct moments_node node = make_node(orders[o], 2 * orders[o] + 3, false);
        double *h = reference_h(&node, 0.05, 0.003);
        struct curvature *k = create(&node, 0.05, 0.003, true, 2);
        assert_inverse(k, h, 1e-4);
        struct curvature *without = create(&node, 0.05, 0.003, false, 1);
        assert_null(without->u);
        assert_memory_equal(without->h, k->h, (size_t)k->n * (size_t)k->n * sizeof *k->h);
        curvature_free(without);
        curvature_free(k);
        free(h);
        free_node(&node);
    }
}

/* Fewer inputs than channels, and channels that never were anything: the damping makes up for
 * it. */
static void test_deficient(void **state)
{
    (void)state;
    for (size_t o = 0; o < sizeof orders / sizeof *orders; o++) {
        struct moments_node node = make_node(orders[o], 1 + orders[o] / 8, true);
        double *h = reference_h(&node, 0, 0.01);
        struct curvature *k = create(&node, 0, 0.01, true, 1);
        assert_inverse(k, h, 2e-3);
        curvature_free(k);
        free(h);
        free_node(&node);
    }
}

/* Damping below what floats can tell is raised; none at all cannot be. */
static void test_damping(void **state)
{
    (void)state;
    struct moments_node node = {0, MOMENT_LANES, 2, 2, 1, (float[]){1, 1, NAN, 1}, NULL};
    struct curvature *k = create(&node, 0, 2e-8, true, 1);
    double lift = (double)k->h[0] - 1;
    assert_true(lift > 5e-8 && lift < 1e-5);
    assert_true(k->h[1] == 1 && k->h[2] == 1 && isfinite(k->u[0]) && k->u[2] == 0);
    curvature_free(k);
    struct error e = {0};
    assert_int_equal(curvature_create(&k, &node, 0, 0, true, 1, "blk.7.ffn_up", &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "blk.7.ffn_up"));
    struct moments_node zeros = {0, MOMENT_LANES, 2, 2, 5, (float[]){0, 0, 0, 0}, NULL};
    k = create(&zeros, 0.05, 0.003, true, 1);
    assert_near((double)k->h[3], 0.003, 1e-8, "damping alone", 2);
    curvature_free(k);
}

static void test_scale(void **state)
{
    (void)state;
    for (size_t o = 0; o < sizeof orders / sizeof *orders; o++) {
        int n = orders[o];
        struct moments_node node = make_node(n, 2 * n + 3, false);
        struct curvature *k = create(&node, 0.05, 0.003, true, 1);
        double *h = reference_h(&node, 0.05, 0.003);
        float *scale = room((size_t)n, sizeof *scale);
        for (int i = 0; i < n; i++)
            scale[i] = (float)(1 << i % 5);
        for (int i = 0; i < n * n; i++)
            h[i] *= (double)scale[i / n] * (double)scale[i % n];
        curvature_scale(k, scale);
        assert_inverse(k, h, 1e-4);
        curvature_free(k);
        free(scale);
        free(h);
        free_node(&node);
    }
}

static float *make_qep(const struct moments_node *node, double fraction, double damp, int threads)
{
    float *p = NULL;
    struct error e = {0};
    assert_int_equal(curvature_qep(&p, node, fraction, damp, threads, "blk.0.attn_q", &e), OK);
    return p;
}

/* P (H + damp level(H) I) = fraction C, and what is applied. */
static void test_qep(void **state)
{
    (void)state;
    for (size_t o = 0; o < sizeof orders / sizeof *orders; o++) {
        size_t n = (size_t)orders[o];
        struct moments_node node = make_node(orders[o], 2 * orders[o] + 3, o % 2 == 0);
        double *h = reference_h(&node, 0, 0.01);
        float *p = make_qep(&node, 0.5, 0.01, 2);
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++) {
                double product = 0, size = 0;
                for (size_t l = 0; l < n; l++) {
                    product += (double)p[i * n + l] * h[l * n + j];
                    size += fabs((double)p[i * n + l] * h[l * n + j]);
                }
                double c = (double)node.c[i * n + j] / (double)node.tokens;
                assert_near(product, 0.5 * c, 3e-6 * (size + fabs(c)), "P H", orders[o]);
            }
        free(p);
        free(h);
        free_node(&node);
    }
}

static void test_apply(void **state)
{
    (void)state;
    for (int n = 1; n < 400; n = 3 * n + 1)
        for (int rows = 1; rows <= 64; rows += 21) {
            size_t order = (size_t)n, count = (size_t)rows * order;
            float *p = room(order * order, sizeof *p), *x = room(count, sizeof *x),
                  *y = room(count, sizeof *y);
            for (size_t i = 0; i < order * order; i++)
                p[i] = random_uniform();
            for (size_t i = 0; i < count; i++)
                x[i] = random_uniform(), y[i] = (float)(i % 3);
            curvature_apply(p, (struct diagonal){n, n}, x, rows, y);
            for (size_t i = 0; i < count; i++) {
                double sum = (double)(i % 3);
                for (size_t k = 0; k < order; k++)
                    sum += (double)x[i / order * order + k] * (double)p[k * order + i % order];
                assert_near((double)y[i], sum, 1e-5 * sqrt(n), "Y + X P", n);
            }
            free(p);
            free(x);
            free(y);
        }
}

static int process_threads(void)
{
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    for (struct dirent *entry; (entry = readdir(tasks));)
        count += entry->d_name[0] != '.';
    closedir(tasks);
    return count;
}

/* The same bits for any number of threads, of which OpenBLAS takes none of its own: with one
 * thread the process has no more than before. (First of all tests, while there is no team of
 * threads.) */
static void test_threads(void **state)
{
    (void)state;
    enum { N = 1050 }; /* several tiles, and one that is not full */
    struct moments_node node = make_node(N, 40, true);
    omp_set_num_threads(2); /* what OpenBLAS would take */
    int before = process_threads();
    struct curvature *one = create(&node, 0.05, 0.003, true, 1);
    float *p = make_qep(&node, 0.5, 0.01, 1);
    float *y = room(64 * N, sizeof *y);
    curvature_apply(p, (struct diagonal){N, N}, node.c, 64, y);
    struct moments *m;
    struct error e = {0};
    assert_int_equal(moments_create(&m, N, N, true, 1, &e), OK);
    assert_int_equal(moments_add(m, 0, node.c, p, N, &e), OK);
    moments_free(m);
    assert_int_equal(process_threads(), before);
    assert_int_equal(omp_get_max_threads(), 2);
    for (int threads = 2; threads <= 5; threads += 3) {
        struct curvature *k = create(&node, 0.05, 0.003, true, threads);
        float *q = make_qep(&node, 0.5, 0.01, threads);
        assert_memory_equal(k->h, one->h, sizeof(float) * N * N);
        assert_memory_equal(k->u, one->u, sizeof(float) * N * N);
        assert_memory_equal(q, p, sizeof(float) * N * N);
        curvature_free(k);
        free(q);
    }
    curvature_free(one);
    free(p);
    free(y);
    free_node(&node);
}

static void assert_refused(const struct moments_node *node, const char *why)
{
    struct error e[3] = {{0}};
    struct curvature *k;
    float *p;
    assert_int_equal(curvature_create(&k, node, 0.05, 0.003, true, 1, "blk.9.ffn_down", &e[0]),
                     ERR_LIMIT);
    assert_int_equal(curvature_create(&k, node, 0.05, 0.003, false, 2, "blk.9.ffn_down", &e[1]),
                     ERR_LIMIT);
    assert_int_equal(curvature_qep(&p, node, 0.5, 0.01, 1, "blk.9.ffn_down", &e[2]), ERR_LIMIT);
    for (int i = 0; i < 3; i++) {
        assert_non_null(strstr(e[i].text, "blk.9.ffn_down"));
        assert_non_null(strstr(e[i].text, why));
    }
}

static void test_refused(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 6; i++) {
        struct moments_node node = make_node(37, 50, false);
        node.h[i < 3 ? 36 * 37 + 36 : 3 * 37 + 30] = bad[i % 3];
        assert_refused(&node, "out of range");
        free_node(&node);
    }
    struct moments_node node = make_node(37, 50, false);
    node.tokens = 0;
    assert_refused(&node, "no tokens");
    node.tokens = 50;
    node.c[36] = NAN;
    struct error e = {0};
    float *p;
    assert_int_equal(curvature_qep(&p, &node, 0.5, 0.01, 1, "blk.9.ffn_down", &e), ERR_LIMIT);
    free_node(&node);
}

int main(void)
{
    printf("seed %d\n", SEED);
    random_state = SEED;
    curvature_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),     cmocka_unit_test(test_inverse),
        cmocka_unit_test(test_deficient),   cmocka_unit_test(test_damping), cmocka_unit_test(test_scale),
        cmocka_unit_test(test_qep),         cmocka_unit_test(test_apply),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
