/* Products of codes and floats side by side: the same bits as from one call, for any number of
 * threads and tokens and every level of instructions, whether threads share rows or tokens. */
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/mem.h"
#include "worker/product.h"

enum { TOKENS = 45, ROWS = 200, COLS = 130, CORRECTED = 3 };

struct case_data {
    struct product p;
    void *prepared[PRODUCT_MAX];
    float *x, *want[PRODUCT_MAX], *got[PRODUCT_MAX];
    void *owned[64];
    int n_owned;
};

static void *keep(struct case_data *c, size_t size)
{
    struct error e = {0};
    void *p;
    if (mem_array(&p, (size + 63) / 64 * 64, 1, "test", &e) != OK)
        fail_msg("%s", e.text);
    return c->owned[c->n_owned++] = p;
}

static uint32_t next(void)
{
    static uint32_t state = 11;
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

/* n binary16 numbers around 0.02. */
static uint16_t *halves(struct case_data *c, size_t n)
{
    uint16_t *h = keep(c, n * sizeof *h);
    for (size_t i = 0; i < n; i++)
        h[i] = (uint16_t)(0x2400 | (next() & 0x3ff));
    return h;
}

/* CORRECTED entries in every row. */
static void add_correction(struct case_data *c, struct matrix *m)
{
    uint32_t *start = keep(c, ((size_t)m->rows + 1) * sizeof *start);
    int16_t *column = keep(c, (size_t)m->rows * CORRECTED * sizeof *column);
    for (int r = 0; r <= m->rows; r++)
        start[r] = (uint32_t)(CORRECTED * r);
    for (int i = 0; i < CORRECTED * m->rows; i++)
        column[i] = (int16_t)(next() % (uint32_t)m->cols);
    m->outlier_start = start;
    m->outlier_column = column;
    m->outlier_column_bytes = sizeof *column;
    m->outlier_value = halves(c, (size_t)m->rows * CORRECTED);
}

static struct matrix code_matrix(struct case_data *c, int rows, int d)
{
    size_t bytes = (size_t)((rows + 63) / 64) * (size_t)((COLS + d - 1) / d) * 64;
    uint8_t *data = keep(c, bytes);
    int8_t *codebook = keep(c, (size_t)(128 * d));
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)next();
    for (int i = 0; i < 128 * d; i++)
        codebook[i] = (int8_t)(next() % 31 - 15);
    struct matrix m = {.type = MATRIX_CODE, .rows = rows, .cols = COLS, .data = data, .d = d};
    m.codebook = codebook;
    m.out = halves(c, (size_t)rows);
    return m;
}

/* Codes, floats and codes with a correction, of which the first and the last share activations. */
static void case_make(struct case_data *c, int d)
{
    memset(c, 0, sizeof *c);
    c->p.count = PRODUCT_MAX;
    c->p.m[0] = code_matrix(c, ROWS, d);
    c->p.m[1] = (struct matrix){.type = MATRIX_F16, .rows = ROWS - 50, .cols = COLS};
    c->p.m[1].data = halves(c, (size_t)c->p.m[1].rows * COLS);
    c->p.m[2] = code_matrix(c, ROWS + 90, d);
    add_correction(c, &c->p.m[2]);
    product_plan(&c->p);
    c->x = keep(c, TOKENS * COLS * sizeof *c->x);
    for (int i = 0; i < TOKENS * COLS; i++)
        c->x[i] = (float)next() * 0x1p-24f - 0.5f;
    for (int i = 0; i < PRODUCT_MAX; i++) {
        size_t bytes = TOKENS * (size_t)c->p.m[i].rows * sizeof **c->want;
        c->prepared[i] = keep(c, TOKENS * act_bytes(&c->p.m[i]));
        c->want[i] = keep(c, bytes);
        c->got[i] = keep(c, bytes);
    }
    for (int t = 0; t < TOKENS; t++)
        product_prepare(&c->p, c->prepared, t, c->x + t * COLS);
    for (int i = 0; i < PRODUCT_MAX; i++) {
        const struct matrix *m = &c->p.m[i];
        kernels.product[m->type](m, c->prepared[c->p.slot[i]], c->x, TOKENS, 0, m->rows, c->want[i],
                                 (size_t)m->rows);
    }
}

static void case_free(struct case_data *c)
{
    for (int i = 0; i < c->n_owned; i++)
        free(c->owned[i]);
}

static void compare(struct case_data *c, int threads, int tokens)
{
    for (int i = 0; i < PRODUCT_MAX; i++)
        memset(c->got[i], 0xff, TOKENS * (size_t)c->p.m[i].rows * sizeof **c->got);
#pragma omp parallel num_threads(threads)
    product_multiply(&c->p, c->prepared, c->x, tokens, c->got);
    for (int i = 0; i < PRODUCT_MAX; i++) {
        size_t bytes = (size_t)tokens * (size_t)c->p.m[i].rows * sizeof **c->got;
        const unsigned char *past = (const unsigned char *)c->got[i] + bytes;
        if (memcmp(c->got[i], c->want[i], bytes))
            fail_msg("%s, d %d, matrix %d, %d threads, %d tokens: other bits", kernels.variant,
                     c->p.m[i].d, i, threads, tokens);
        assert_true(tokens == TOKENS || *past == 0xff);
    }
}

static void same_bits(void **state)
{
    static const int d[] = {2, 4, 8, 16}, threads[] = {1, 2, 3, 7, 12},
                     tokens[] = {1, 5, 8, 28, TOKENS};
    (void)state;
    omp_set_dynamic(0);
    for (const char *const *level = kernels_levels(); *level; level++) {
        assert_null(kernels_init(*level));
        for (int i = 0; i < 4; i++) {
            struct case_data c;
            case_make(&c, d[i]);
            for (int j = 0; j < 5; j++)
                for (int k = 0; k < 5; k++)
                    compare(&c, threads[j], tokens[k]);
            case_free(&c);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_bits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
