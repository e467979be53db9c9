/* Speed of the dense algebra of the compression, as a share of the machine's SGEMM rate in one
 * thread: prints JSON.
 *
 *   bench_linear [THREADS [ORDER...]]      1 thread; orders 512, 2048 and 4096
 *
 * Operations are counted as the mathematics needs them (a symmetric product, or a triangular
 * one, half). The best of several runs counts, by CPU time, so that others may use the machine;
 * with several threads set OMP_WAIT_POLICY=passive, lest waiting counts as work. */
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cblas.h>

#include "worker/curvature.h"

enum { RUNS = 3, TOKENS = 1024, BAND = 64, SGEMM_ORDER = 2048 };

struct bench {
    int n, threads;
    double sgemm; /* operations a second, one thread */
    bool first;   /* of the list that is printed */
    float *x, *t;
};

static void check(enum status status, const struct error *e)
{
    if (status == OK)
        return;
    fprintf(stderr, "bench_linear: %s\n", e->text);
    exit(1);
}

static double cpu_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float *random_floats(size_t count)
{
    float *x = malloc(count * sizeof *x);
    uint32_t state = 1;
    if (!x)
        exit(1);
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525 + 1013904223;
        x[i] = (float)(int32_t)state * 0x1p-31f;
    }
    return x;
}

static double sgemm_rate(void)
{
    int n = SGEMM_ORDER, before = omp_get_max_threads();
    float *a = random_floats((size_t)n * (size_t)n), *b = random_floats((size_t)n * (size_t)n),
          *c = random_floats((size_t)n * (size_t)n);
    double best = INFINITY;
    omp_set_num_threads(1); /* what OpenBLAS goes by */
    for (int i = 0; i <= RUNS; i++) {
        double start = cpu_time();
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, n, n, 1, a, n, b, n, 0, c, n);
        best = fmin(best, cpu_time() - start);
    }
    omp_set_num_threads(before);
    free(a);
    free(b);
    free(c);
    return 2 * pow(n, 3) / best;
}

static void print_rate(struct bench *b, const char *what, double operations, double seconds)
{
    double rate = operations / seconds;
    printf("%s\n    {\"what\": \"%s\", \"n\": %d, \"cpu_seconds\": %.4f, \"gflops\": %.1f, "
           "\"share_of_sgemm\": %.2f}",
           b->first ? "" : ",", what, b->n, seconds, rate * 1e-9, rate / b->sgemm);
    b->first = false;
    fflush(stdout);
}

static struct moments *bench_add(struct bench *b, bool cross)
{
    struct moments *m;
    struct error e = {0};
    double best = INFINITY;
    check(moments_create(&m, b->n, b->n, cross, b->threads, &e), &e);
    for (int i = 0; i <= RUNS; i++) {
        double start = cpu_time();
        check(moments_add(m, 0, b->x, cross ? b->t : NULL, TOKENS, &e), &e);
        best = fmin(best, cpu_time() - start);
    }
    double square = (double)b->n * b->n;
    print_rate(b, cross ? "moments_add cross" : "moments_add", (cross ? 3 : 1) * square * TOKENS,
               best);
    return m;
}

static void bench_create(struct bench *b, const struct moments_node *node)
{
    struct error e = {0};
    double best = INFINITY;
    for (int i = 0; i < RUNS; i++) {
        struct curvature *k;
        double start = cpu_time();
        check(curvature_create(&k, node, 0.05, 0.003, true, b->threads, "bench", &e), &e);
        best = fmin(best, cpu_time() - start);
        curvature_free(k);
    }
    print_rate(b, "curvature_create", 2 * pow(b->n, 3) / 3, best);
}

static float *bench_qep(struct bench *b, const struct moments_node *node)
{
    struct error e = {0};
    float *p = NULL;
    double best = INFINITY;
    for (int i = 0; i < RUNS; i++) {
        free(p);
        double start = cpu_time();
        check(curvature_qep(&p, node, 0.5, 0.01, b->threads, "bench", &e), &e);
        best = fmin(best, cpu_time() - start);
    }
    print_rate(b, "curvature_qep", 7 * pow(b->n, 3) / 3, best);
    return p;
}

/* As many bands of rows as there are tokens. */
static void bench_apply(struct bench *b, const float *p)
{
    double best = INFINITY;
    for (int i = 0; i <= RUNS; i++) {
        double start = cpu_time();
#pragma omp parallel for num_threads(b->threads) schedule(dynamic)
        for (int row = 0; row < TOKENS; row += BAND) {
            size_t at = (size_t)row * (size_t)b->n;
            curvature_apply(p, (struct diagonal){b->n, b->n}, b->x + at, BAND, b->t + at);
        }
        best = fmin(best, cpu_time() - start);
    }
    print_rate(b, "curvature_apply", 2.0 * TOKENS * b->n * b->n, best);
}

static void bench_order(struct bench *b, int n)
{
    b->n = n;
    b->x = random_floats(TOKENS * (size_t)n);
    b->t = random_floats(TOKENS * (size_t)n);
    moments_free(bench_add(b, false));
    struct moments *m = bench_add(b, true);
    struct moments_node nodes[MOMENT_NODES_MAX];
    moments_nodes(m, nodes);
    bench_create(b, &nodes[0]);
    float *p = bench_qep(b, &nodes[0]);
    bench_apply(b, p);
    free(p);
    moments_free(m);
    free(b->x);
    free(b->t);
}

int main(int argc, char **argv)
{
    static const int usual[] = {512, 2048, 4096};
    struct bench b = {.threads = argc > 1 ? atoi(argv[1]) : 1, .first = true};
    if (b.threads < 1) {
        fprintf(stderr, "usage: bench_linear [THREADS [ORDER...]]\n");
        return 1;
    }
    curvature_init();
    b.sgemm = sgemm_rate();
    printf("{\"openblas\": \"%s\", \"threads\": %d, \"sgemm_gflops\": %.1f, \"results\": [",
           openblas_get_corename(), b.threads, b.sgemm * 1e-9);
    for (int i = 0; argc <= 2 && i < 3; i++)
        bench_order(&b, usual[i]);
    for (int i = 2; i < argc; i++)
        bench_order(&b, atoi(argv[i]) > 0 ? atoi(argv[i]) : 1);
    printf("\n]}\n");
    return 0;
}
