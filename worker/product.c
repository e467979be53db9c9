/* Preparation of activations and sharing of rows among threads. Must never know what a matrix is
 * for. */
#include "worker/product.h"

#include <omp.h>
#include <stdint.h>

#define SHARE_TOKENS 4 /* for each thread, to be shared instead of rows */

void product_plan(struct product *p)
{
    for (int i = 0; i < p->count; i++) {
        p->slot[i] = i;
        for (int j = i - 1; j >= 0; j--)
            if (act_same(&p->m[j], &p->m[i]))
                p->slot[i] = j;
    }
}

size_t product_cost(const struct product *p)
{
    size_t cost = 0;
    for (int i = 0; i < p->count; i++)
        cost += (size_t)p->m[i].rows * (size_t)p->m[i].cols;
    return cost;
}

void product_room(const struct product *p, size_t bytes[PRODUCT_MAX])
{
    for (int i = 0; i < p->count; i++) {
        size_t need = act_bytes(&p->m[i]);
        if (need > bytes[p->slot[i]])
            bytes[p->slot[i]] = need;
    }
}

void product_prepare(const struct product *p, void *const prepared[PRODUCT_MAX], int row,
                     const float *x)
{
    for (int i = 0; i < p->count; i++) {
        const struct matrix *m = &p->m[i];
        if (p->slot[i] == i)
            kernels.prepare[m->type](m, x, (char *)prepared[i] + (size_t)row * act_bytes(m));
    }
}

void product_row(const struct product *p, void *const prepared[PRODUCT_MAX], int row,
                 void *out[PRODUCT_MAX])
{
    for (int i = 0; i < p->count; i++)
        out[i] = (char *)prepared[i] + (size_t)row * act_bytes(&p->m[i]);
}

static int bands_of(const struct matrix *m)
{
    return (m->rows - 1) / MATRIX_BAND + 1;
}

/* Whether threads share the tokens of a product instead of its rows. Each token's tables are then
 * built by one thread, not by all; with fewer tokens the threads that have one more would be waited
 * for longer than that saves. */
static bool shares_tokens(const struct matrix *m, int tokens)
{
    return m->type == MATRIX_CODE && tokens >= SHARE_TOKENS * omp_get_num_threads() &&
           kernels.code_by_tables(m, tokens);
}

static void multiply_tokens(const struct matrix *m, const void *prepared, const float *x,
                            int tokens, float *y)
{
    int first = product_share(tokens, 0), end = product_share(tokens, 1);
    kernels.product[m->type](m, (const char *)prepared + (size_t)first * act_bytes(m),
                             x + (size_t)first * (size_t)m->cols, end - first, 0, m->rows,
                             y + (size_t)first * (size_t)m->rows, (size_t)m->rows);
}

/* One call for a whole run of bands: look-up tables of codes are built once a call. */
static void multiply_bands(const struct matrix *m, const void *prepared, const float *x, int tokens,
                           int from, int to, float *y)
{
    int first = from * MATRIX_BAND;
    int last = to == bands_of(m) ? m->rows : to * MATRIX_BAND;
    kernels.product[m->type](m, prepared, x, tokens, first, last - first, y, (size_t)m->rows);
}

int product_share(int n, int next)
{
    return (int)((int64_t)n * (omp_get_thread_num() + next) / omp_get_num_threads());
}

void product_multiply(const struct product *p, void *const prepared[PRODUCT_MAX], const float *x,
                      int tokens, float *const *y)
{
    int bands_shared[PRODUCT_MAX], total = 0;
    for (int i = 0; i < p->count; i++) {
        bands_shared[i] = shares_tokens(&p->m[i], tokens) ? 0 : bands_of(&p->m[i]);
        total += bands_shared[i];
    }
    /* This thread's part of the bands of all matrices in a row. */
    int from = product_share(total, 0), to = product_share(total, 1);
    for (int i = 0; i < p->count; i++) {
        const struct matrix *m = &p->m[i];
        int bands = bands_shared[i], last = to < bands ? to : bands;
        if (!bands)
            multiply_tokens(m, prepared[p->slot[i]], x, tokens, y[i]);
        if (from < last)
            multiply_bands(m, prepared[p->slot[i]], x, tokens, from, last, y[i]);
        from = from > bands ? from - bands : 0;
        to = to > bands ? to - bands : 0;
    }
#pragma omp barrier
}
