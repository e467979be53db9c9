#include "worker/nearest.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/mem.h"

struct variant {
    void (*groups)(const float *words, const float *norm, const float *x, size_t stride, int d,
                   float half, int32_t *best);
    void (*rows)(const float *words, const float *norm, const float *x, int d, int32_t *best);
    void (*two)(const float *words, const float *norm, const float *x, int d, int32_t *best,
                float *score);
    void (*spread)(const float *h, size_t stride, int cols, const float *x, int count, float *y);
};

struct nearest {
    int d;
    float *words; /* [CODEBOOK_WORDS][d] */
    const struct variant *variant;
};

#define NEAREST_NAME  base
#define NEAREST_WIDTH 4
#define NEAREST_TARGET
#include "worker/nearest.inc"

#if defined(__x86_64__)
#define NEAREST_NAME   avx2
#define NEAREST_WIDTH  8
#define NEAREST_TARGET __attribute__((target("avx2")))
#include "worker/nearest.inc"

#define NEAREST_NAME   avx512
#define NEAREST_WIDTH  16
#define NEAREST_TARGET __attribute__((target("avx512f,avx512dq")))
#include "worker/nearest.inc"
#endif

/* The variants that this CPU has, the slowest first; returns how many. */
static int variants(const struct variant **out)
{
    int n = 0;
    out[n++] = &base_variant;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        out[n++] = &avx2_variant;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"))
        out[n++] = &avx512_variant;
#endif
    return n;
}

int nearest_variants(void)
{
    const struct variant *all[3];
    return variants(all);
}

void nearest_use(struct nearest *n, int variant)
{
    const struct variant *all[3];
    if (variant >= 0 && variant < variants(all))
        n->variant = all[variant];
}

enum status nearest_create(struct nearest **out, const struct codebook *book, struct error *e)
{
    struct nearest *n;
    size_t words = (size_t)CODEBOOK_WORDS * book->d;
    TRY(mem_array(&n, 1, sizeof *n, "a codeword search", e));
    enum status status = mem_array(&n->words, words, sizeof(float), "a codebook", e);
    if (status != OK) {
        free(n);
        return status;
    }
    n->d = (int)book->d;
    for (size_t i = 0; i < words; i++)
        n->words[i] = book->vector[i];
    nearest_use(n, nearest_variants() - 1);
    *out = n;
    return OK;
}

void nearest_free(struct nearest *n)
{
    if (!n)
        return;
    free(n->words);
    free(n);
}

const float *nearest_words(const struct nearest *n)
{
    return n->words;
}

void nearest_groups(const struct nearest *n, const float *norm, const float *x, size_t stride,
                    float half, int32_t best[NEAREST_LANES])
{
    n->variant->groups(n->words, norm, x, stride, n->d, half, best);
}

void nearest_rows(const struct nearest *n, const float *norm, const float *x,
                  int32_t best[NEAREST_ROWS])
{
    n->variant->rows(n->words, norm, x, n->d, best);
}

void nearest_two(const struct nearest *n, const float *norm, const float *x,
                 int32_t best[2][NEAREST_ROWS], float score[2][NEAREST_ROWS])
{
    n->variant->two(n->words, norm, x, n->d, best[0], score[0]);
}

void nearest_spread(const struct nearest *n, const float *h, size_t stride, int cols,
                    const float *x, int count, float *y)
{
    n->variant->spread(h, stride, cols, x, count, y);
}
