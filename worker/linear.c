/* The loops over tiles. OpenBLAS on OpenMP takes as many threads as OpenMP would give a parallel
 * region at that point, whatever openblas_set_num_threads said before, unless it is called by a
 * team of several: hence each region here sets its own number to one, which ends with the
 * region. */
#include "worker/linear.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include <cblas.h>

enum {
    GRAM_TILE = 512, /* of sums over tokens: the longer, the less is packed for OpenBLAS' kernels */
    SOLVE_ROWS = 128,
    SMALL = 32, /* order of the blocks that plain loops factor */
    MIRROR_TILE = 64,
};

static int least(int a, int b)
{
    return a < b ? a : b;
}

static size_t at(int row, int column, int ld)
{
    return (size_t)row * (size_t)ld + (size_t)column;
}

void linear_init(void)
{
    int before = omp_get_max_threads();
    openblas_set_num_threads(1);
    omp_set_num_threads(before); /* which OpenBLAS on OpenMP changes for the whole program */
}

void linear_gram(float *h, const float *x, int ld, int n, int rows, int threads)
{
#pragma omp parallel num_threads(threads)
    {
        omp_set_num_threads(1);
#pragma omp for collapse(2) schedule(dynamic)
        for (int i = 0; i < n; i += GRAM_TILE)
            for (int j = 0; j < n; j += GRAM_TILE) {
                int height = least(GRAM_TILE, n - i), width = least(GRAM_TILE, n - j);
                if (i == j)
                    cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, height, rows, 1, x + i, ld,
                                1, h + at(i, i, n), n);
                else if (i < j)
                    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, height, width, rows, 1,
                                x + i, ld, x + j, ld, 1, h + at(i, j, n), n);
            }
    }
}

void linear_cross(float *c, const float *d, const float *x, int ld, int n, int rows, int threads)
{
#pragma omp parallel num_threads(threads)
    {
        omp_set_num_threads(1);
#pragma omp for collapse(2) schedule(dynamic)
        for (int i = 0; i < n; i += GRAM_TILE)
            for (int j = 0; j < n; j += GRAM_TILE)
                cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, least(GRAM_TILE, n - i),
                            least(GRAM_TILE, n - j), rows, 1, d + i, ld, x + j, ld, 1,
                            c + at(i, j, n), n);
    }
}

/* The sum over k of a[k] b[k], in double. */
static double dot(const float *a, const float *b, int n)
{
    double sum = 0;
    for (int k = 0; k < n; k++)
        sum += (double)a[k] * (double)b[k];
    return sum;
}

static bool factor_small(float *a, int n, int ld)
{
    for (int j = n - 1; j >= 0; j--) {
        const float *right = a + at(j, j + 1, ld);
        int later = n - 1 - j;
        double square = (double)a[at(j, j, ld)] - dot(right, right, later);
        if (!(square > 0))
            return false;
        double root = sqrt(square);
        a[at(j, j, ld)] = (float)root;
        for (int i = 0; i < j; i++) {
            float *element = a + at(i, j, ld);
            *element = (float)(((double)*element - dot(element + 1, right, later)) / root);
        }
    }
    return true;
}

/* A diagonal tile, by halves. */
static bool factor_tile(float *a, int n, int ld)
{
    if (n <= SMALL)
        return factor_small(a, n, ld);
    int half = n / 2, rest = n - half;
    float *above = a + half, *last = a + at(half, half, ld);
    if (!factor_tile(last, rest, ld))
        return false;
    cblas_strsm(CblasRowMajor, CblasRight, CblasUpper, CblasTrans, CblasNonUnit, half, rest, 1,
                last, ld, above, ld);
    cblas_ssyrk(CblasRowMajor, CblasUpper, CblasNoTrans, half, rest, -1, above, ld, 1, a, ld);
    return factor_tile(a, half, ld);
}

/* The tiles left of and above a factored tile at (k, k) of order width: a_ij -= R_ik R_jk'. By
 * all threads of a team, which it leaves in step. */
static void factor_trailing(float *a, int n, int k, int width)
{
#pragma omp for collapse(2) schedule(dynamic)
    for (int i = 0; i < k; i += LINEAR_TILE)
        for (int j = 0; j < k; j += LINEAR_TILE) {
            if (i == j)
                cblas_ssyrk(CblasRowMajor, CblasUpper, CblasNoTrans, LINEAR_TILE, width, -1,
                            a + at(i, k, n), n, 1, a + at(i, i, n), n);
            else if (i < j)
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, LINEAR_TILE, LINEAR_TILE,
                            width, -1, a + at(i, k, n), n, a + at(j, k, n), n, 1, a + at(i, j, n),
                            n);
        }
}

bool linear_factor(float *a, int n, int threads)
{
    bool positive = true;
#pragma omp parallel num_threads(threads)
    {
        omp_set_num_threads(1);
        for (int k = (n - 1) / LINEAR_TILE * LINEAR_TILE; k >= 0; k -= LINEAR_TILE) {
            int width = least(LINEAR_TILE, n - k);
            float *tile = a + at(k, k, n);
#pragma omp single
            positive = factor_tile(tile, width, n);
            if (!positive) /* not written again before all threads have met in the next loops */
                break;
#pragma omp for schedule(dynamic)
            for (int i = 0; i < k; i += LINEAR_TILE)
                cblas_strsm(CblasRowMajor, CblasRight, CblasUpper, CblasTrans, CblasNonUnit,
                            LINEAR_TILE, width, 1, tile, n, a + at(i, k, n), n);
            factor_trailing(a, n, k, width);
        }
    }
    return positive;
}

static void invert_small(float *a, int n, int ld)
{
    for (int j = 0; j < n; j++) {
        double inverse = 1 / (double)a[at(j, j, ld)];
        a[at(j, j, ld)] = (float)inverse;
        /* Column j above the diagonal: -U R_j / r_jj with U, the inverse so far; row i needs the
         * rows from i on, which are still R's. */
        for (int i = 0; i < j; i++) {
            double sum = 0;
            for (int k = i; k < j; k++)
                sum += (double)a[at(i, k, ld)] * (double)a[at(k, j, ld)];
            a[at(i, j, ld)] = (float)(-sum * inverse);
        }
    }
}

static void invert_tile(float *a, int n, int ld)
{
    if (n <= SMALL) {
        invert_small(a, n, ld);
        return;
    }
    int half = n / 2, rest = n - half;
    float *above = a + half, *last = a + at(half, half, ld);
    invert_tile(a, half, ld);
    invert_tile(last, rest, ld);
    cblas_strmm(CblasRowMajor, CblasLeft, CblasUpper, CblasNoTrans, CblasNonUnit, half, rest, -1, a,
                ld, above, ld);
    cblas_strmm(CblasRowMajor, CblasRight, CblasUpper, CblasNoTrans, CblasNonUnit, half, rest, 1,
                last, ld, above, ld);
}

/* Step k of the inversion, U R = 1 taken by columns of tiles: U_ik = -(sum over l < k of U_il
 * R_lk) U_kk for i < k. The sums are kept where they belong, in place of the R that is used up;
 * row k of R, which the first terms of row k's sums replace, is read from work. By all threads
 * of a team. */
static void invert_step(float *a, int n, int k, float *work)
{
    int width = least(LINEAR_TILE, n - k), rest = n - k - width;
    float *tile = a + at(k, k, n);
#pragma omp single nowait
    invert_tile(tile, width, n);
#pragma omp for schedule(static)
    for (int i = 0; i < width; i++)
        memcpy(work + at(i, 0, n), tile + at(i, width, n), (size_t)rest * sizeof *work);
#pragma omp for schedule(dynamic)
    for (int i = 0; i < k; i += LINEAR_TILE)
        cblas_strmm(CblasRowMajor, CblasRight, CblasUpper, CblasNoTrans, CblasNonUnit, LINEAR_TILE,
                    width, -1, tile, n, a + at(i, k, n), n);
#pragma omp for collapse(2) schedule(dynamic)
    for (int i = 0; i <= k; i += LINEAR_TILE)
        for (int j = 0; j < rest; j += LINEAR_TILE)
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, LINEAR_TILE,
                        least(LINEAR_TILE, rest - j), LINEAR_TILE, 1, a + at(i, k, n), n, work + j,
                        n, i < k ? 1 : 0, a + at(i, k + width + j, n), n);
}

void linear_invert(float *a, int n, float *work, int threads)
{
#pragma omp parallel num_threads(threads)
    {
        omp_set_num_threads(1);
        for (int k = 0; k < n; k += LINEAR_TILE)
            invert_step(a, n, k, work);
    }
}

/* Some rows of p: first Y R' = P from the last column down, then Q R = Y from the first up. */
static void solve_rows(float *p, int rows, const float *r, int n)
{
    for (int j = (n - 1) / LINEAR_TILE * LINEAR_TILE; j >= 0; j -= LINEAR_TILE) {
        int width = least(LINEAR_TILE, n - j), end = j + width;
        if (end < n)
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, width, n - end, -1, p + end,
                        n, r + at(j, end, n), n, 1, p + j, n);
        cblas_strsm(CblasRowMajor, CblasRight, CblasUpper, CblasTrans, CblasNonUnit, rows, width, 1,
                    r + at(j, j, n), n, p + j, n);
    }
    for (int j = 0; j < n; j += LINEAR_TILE) {
        int width = least(LINEAR_TILE, n - j);
        if (j > 0)
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, width, j, -1, p, n, r + j,
                        n, 1, p + j, n);
        cblas_strsm(CblasRowMajor, CblasRight, CblasUpper, CblasNoTrans, CblasNonUnit, rows, width,
                    1, r + at(j, j, n), n, p + j, n);
    }
}

void linear_solve(float *p, int rows, const float *r, int n, int threads)
{
#pragma omp parallel num_threads(threads)
    {
        omp_set_num_threads(1);
#pragma omp for schedule(dynamic)
        for (int i = 0; i < rows; i += SOLVE_ROWS)
            solve_rows(p + at(i, 0, n), least(SOLVE_ROWS, rows - i), r, n);
    }
}

/* The tile at (i, j) of the lower triangle. */
static void mirror_tile(float *a, int n, int i, int j)
{
    for (int row = i; row < least(i + MIRROR_TILE, n); row++)
        for (int column = j; column < least(j + MIRROR_TILE, row); column++)
            a[at(row, column, n)] = a[at(column, row, n)];
}

void linear_mirror(float *a, int n, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int i = 0; i < n; i += MIRROR_TILE)
        for (int j = 0; j <= i; j += MIRROR_TILE)
            mirror_tile(a, n, i, j);
}

void linear_add_product(float *y, const float *x, int ld, const float *p, int rows, int n)
{
    int before = omp_get_max_threads();
    omp_set_num_threads(1);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, n, n, 1, x, ld, p, n, 1, y, ld);
    omp_set_num_threads(before);
}
