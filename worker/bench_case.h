/* One thing that sbit bench kernels measures: an operation of kernels.h on data of one shape. Cases
 * know how to run themselves and what they cost; bench_kernels.c measures and compares them. */
#ifndef SBIT_WORKER_BENCH_CASE_H
#define SBIT_WORKER_BENCH_CASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "worker/product.h"

typedef void bench_function(void); /* any kernel, only to be compared with others */

enum { BENCH_BUFFERS = 8 };

struct bench_part { /* of a product, for scalar code, which would take seconds for all of it */
    int tokens, rows;
};

struct bench_case {
    char op[24];    /* "product", "rms_norm" */
    char kind[16];  /* "q4_0", "interleaved"; may be empty */
    char shape[32]; /* "2048x2048" */
    int rows;       /* tokens, or vectors, or heads */
    double work;    /* weights times tokens, or elements, of one run */
    double bytes;   /* of weights, or of keys and values, that one run reads; 0: not told */
    struct bench_part compared, timed; /* products only: what scalar does for the two purposes */
    double timed_share;                /* of work; 1 for what is no product */
    /* Runs the kernel; all threads of a parallel region call it and share the work as a slice does;
     * ends with a barrier. part: only this part, on one thread; NULL: all. */
    void (*run)(const struct bench_case *c, const struct bench_part *part);
    /* The kernel that run would call now. */
    bench_function *(*kernel)(const struct bench_case *c);
    /* What is compared: check_rows rows of check_bytes bytes, result_stride apart. */
    void *result;
    size_t check_rows, check_bytes, result_stride;
    /* Copied to result before every run by those that work in place; NULL: not needed. */
    const void *original;
    size_t original_bytes;
    /* The operation's own. */
    struct product product;
    int tokens, n, head_dim, group;
    const float *x, *y, *weight;
    void *prepared[PRODUCT_MAX], *out, *scores;
    struct kv kv;
    void *buffers[BENCH_BUFFERS]; /* owned: bench_alloc */
    int n_buffers;
};

/* Measures a case at all levels. */
typedef enum status bench_visit_fn(void *self, const struct bench_case *c, struct error *e);

/* *out = zeroed memory of the case's own, 64-byte aligned. Errors: ERR_MEMORY. */
enum status bench_alloc(struct bench_case *c, void *out, size_t bytes, struct error *e);
/* n floats of magnitudes about one and random signs, the same every time. */
enum status bench_floats(struct bench_case *c, const float **out, size_t n, struct error *e);
void bench_free(struct bench_case *c);

/* Products with matrices of the type of that name (NULL: of every type), of some sizes or, quick,
 * of few. */
enum status bench_products(const char *type, bool quick, bench_visit_fn *visit, void *self,
                           struct error *e);
/* A matrix of random weights for a case. name: "q4_0" and so on, "code8" for codes of 8 weights,
 * "q1_0 sparse" for one with a correction. Errors: ERR_MEMORY. */
enum status bench_matrix(struct bench_case *c, const char *name, int rows, int cols,
                         struct matrix *m, struct error *e);
/* All other operations. */
enum status bench_operations(bool quick, bench_visit_fn *visit, void *self, struct error *e);

#endif
