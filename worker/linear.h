/* Dense algebra on row-major float matrices, shared among threads in tiles of fixed size: every
 * tile is one call of OpenBLAS by one thread, so that results depend on the CPU and the shapes
 * alone, never on the number of threads. Knows nothing of models, moments or quantisers.
 *
 * Below, n is the order and the row length of square matrices; threads are OpenMP's, at least 1. */
#ifndef SBIT_WORKER_LINEAR_H
#define SBIT_WORKER_LINEAR_H

#include <stdbool.h>
#include <stddef.h>

/* Rows and columns of the tiles of the factorisations, and the rows of linear_invert's work. */
enum { LINEAR_TILE = 256 };

/* OpenBLAS with one thread a call, for its builds with threads of their own; its builds on
 * OpenMP are held to it at each call. Once, before all other calls. */
void linear_init(void);

/* h[n][n] += x'x for x[rows][n], its rows ld apart: the upper triangle; what lies below the
 * diagonal stays. */
void linear_gram(float *h, const float *x, int ld, int n, int rows, int threads);

/* c[n][n] += d'x for d[rows][n], x[rows][n], their rows ld apart. */
void linear_cross(float *c, const float *d, const float *x, int ld, int n, int rows, int threads);

/* The upper triangle of a[n][n], symmetric, becomes R upper triangular with a = R R' (Cholesky's
 * factorisation from the last row up); what lies below the diagonal stays. False when a is not
 * positive definite as far as floats can tell; a is then spoilt. */
bool linear_factor(float *a, int n, int threads);

/* The upper triangular a[n][n], with zeros below the diagonal, becomes its inverse. work:
 * LINEAR_TILE * n floats. */
void linear_invert(float *a, int n, float *work, int threads);

/* p[rows][n] becomes p (R R')^-1, for R upper triangular r[n][n] as linear_factor leaves it. */
void linear_solve(float *p, int rows, const float *r, int n, int threads);

/* Copies the upper triangle of a[n][n] below its diagonal. */
void linear_mirror(float *a, int n, int threads);

/* y[rows][n] += x[rows][n] p[n][n], rows of y and x ld apart, in the calling thread alone, which
 * may be one of a parallel region. The bits of a row may depend on rows. */
void linear_add_product(float *y, const float *x, int ld, const float *p, int rows, int n);

#endif
