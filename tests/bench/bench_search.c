/* Times the search for byte codes on one band of 64 rows, one thread, beside what bounds it: the rate of
 * SGEMM on a large square, on the search's own shapes, and of the codeword search alone. No test: it prints.
 *
 *     bench_search [COLUMNS...]       default: 2048 4096 */
#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/mem.h"
#include "tests/random.h"
#include "worker/curvature.h"
#include "worker/nearest.h"
#include "worker/search_code.h"

enum { ROWS = 64, TRIES = 3, SQUARE = 1024, BLOCK = 128 };

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float *floats(size_t count)
{
    struct error e = {0};
    float *x;
    if (mem_array(&x, count, sizeof *x, "a benchmark", &e) == OK)
        return x;
    fprintf(stderr, "%s\n", e.text);
    exit(1);
}

/* Inputs that follow each other with correlation rho: H_ij = rho^|i - j|, whose u has two diagonals. */
static struct curvature chain(int n, double rho)
{
    size_t cols = (size_t)n;
    struct curvature k = {.n = n, .width = n, .h = floats(cols * cols), .u = floats(cols * cols)};
    double left = 1 / sqrt(1 - rho * rho);
    for (size_t i = 0; i < cols; i++) {
        for (size_t j = 0; j < cols; j++) {
            double power = pow(rho, (double)(i > j ? i - j : j - i));
            k.h[i * cols + j] = power > 1e-20 ? (float)power : 0;
        }
        k.u[i * cols + i] = (float)(i + 1 < cols ? left : 1);
        if (i + 1 < cols)
            k.u[i * cols + i + 1] = (float)(-rho * left);
    }
    return k;
}

/* Least seconds of TRIES products [rows x inner] x [inner x cols]. */
static double time_product(int rows, int cols, int inner, const float *a, const float *b, float *c)
{
    double least = INFINITY;
    for (int i = 0; i < TRIES; i++) {
        double start = seconds();
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, cols, inner, 1, a, inner, b,
                    cols, 0, c, cols);
        least = fmin(least, seconds() - start);
    }
    return least;
}

static void print_products(const float *h, int n)
{
    float *x = floats((size_t)n * ROWS), *y = floats((size_t)SQUARE * SQUARE);
    for (size_t i = 0; i < (size_t)n * ROWS; i++)
        x[i] = random_gaussian();
    double square = time_product(SQUARE, SQUARE, SQUARE, h, h, y);
    double own = time_product(BLOCK, ROWS, n, h, x, y);
    printf("n %d: SGEMM %.1f GFLOP/s at %d cubed, %.1f at %d x %d x %d\n", n,
           2e-9 * SQUARE * SQUARE * SQUARE / square, SQUARE, 2e-9 * BLOCK * ROWS * n / own, BLOCK,
           ROWS, n);
    free(x);
    free(y);
}

static void print_nearest(const struct codebook *book)
{
    enum { TIMES = 1000 };
    struct error e = {0};
    struct nearest *n;
    float x[CODEBOOK_MAX_D * ROWS], norm[CODEBOOK_WORDS];
    int32_t best[ROWS];
    if (nearest_create(&n, book, &e) != OK)
        return;
    for (int i = 0; i < CODEBOOK_MAX_D * ROWS; i++)
        x[i] = random_gaussian();
    for (int i = 0; i < CODEBOOK_WORDS; i++)
        norm[i] = 1 + (float)i;
    double start = seconds();
    for (int i = 0; i < TIMES; i++)
        nearest_rows(n, norm, x, best);
    printf("d %u: search alone %.2f Gcodewords/s\n", book->d,
           1e-9 * TIMES * ROWS * 2 * CODEBOOK_WORDS / (seconds() - start));
    nearest_free(n);
}

/* Least seconds for a band. */
static double time_band(const struct curvature *k, const struct codebook *book, uint32_t rounds,
                        uint32_t descent, const float *target, double *loss)
{
    struct recipe recipe = recipe_default;
    struct error e = {0};
    struct code_search *s;
    double least = INFINITY;
    recipe.rounds = rounds;
    recipe.descent = descent;
    if (code_search_create(&s, book, k, &recipe, &e) != OK)
        return least;
    float *scratch = floats(code_search_scratch(s));
    uint8_t *codes = malloc((size_t)k->n * ROWS);
    for (int i = 0; i < TRIES; i++) {
        struct band_loss sums;
        uint16_t scale[ROWS];
        double start = seconds();
        code_search_band(s, target, ROWS, scratch, codes, scale, &sums);
        least = fmin(least, seconds() - start);
        *loss = sums.final / sums.signal;
    }
    free(scratch);
    free(codes);
    code_search_free(s);
    return least;
}

static void print_band(const struct curvature *k, uint32_t d, const float *target)
{
    enum { PASSES = 6 };
    const struct codebook *book = codebook_for(d);
    double loss, fed, n = k->n, product = 2 * n * n * ROWS;
    double two = time_band(k, book, 2, 0, target, &fed),
           one = time_band(k, book, 1, 0, target, &fed);
    double all = time_band(k, book, 2, PASSES, target, &loss), pass = (all - two) / PASSES;
    printf("n %.0f d %u: band %.4f s (a matrix of %.0f rows: %.1f s); round %.4f s, pass %.4f s = "
           "%.1f GFLOP/s of products, %.2f Gcodewords/s; loss fed %.4f final %.4f\n",
           n, d, all, n, all * n / ROWS, two - one, pass, 1e-9 * product / pass,
           1e-9 * n / d * ROWS * 2 * CODEBOOK_WORDS / pass, fed, loss);
}

static void print_width(int n)
{
    struct curvature k = chain(n, 0.9);
    float *target = floats((size_t)n * ROWS);
    for (size_t i = 0; i < (size_t)n * ROWS; i++)
        target[i] = random_gaussian();
    print_products(k.h, n);
    print_band(&k, 8, target);
    print_band(&k, 4, target);
    free(target);
    free(k.h);
    free(k.u);
}

int main(int argc, char **argv)
{
    random_state = 1;
    curvature_init();
    omp_set_num_threads(1); /* which OpenBLAS on OpenMP asks at each call */
    print_nearest(codebook_for(8));
    print_nearest(codebook_for(4));
    for (int i = 1; i < argc; i++)
        print_width(atoi(argv[i]) < SQUARE ? SQUARE : atoi(argv[i]));
    if (argc == 1) {
        print_width(2048);
        print_width(4096);
    }
    return 0;
}
