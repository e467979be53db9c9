/* Prepared activations: their size, when two matrices may share them, and the form of the float
 * types. The quantised forms have variants (prepare_*.c). Layouts: kernels/blocks.h. */
#include <string.h>

#include "kernels/blocks.h"
#include "kernels/variants.h"

size_t act_bytes(const struct matrix *m)
{
    size_t cols = (size_t)m->cols;
    if (m->type == MATRIX_CODE)
        return sizeof(struct code_act) + blocks_align(cols) + 64;
    if (m->type < MATRIX_Q8_0)
        return blocks_align(cols * sizeof(float));
    return 2 * blocks_align(cols / BLOCK_WEIGHTS * 4) + blocks_align(cols);
}

static int form(const struct matrix *m)
{
    return m->type == MATRIX_CODE ? 2 : m->type >= MATRIX_Q8_0;
}

bool act_same(const struct matrix *a, const struct matrix *b)
{
    if (form(a) != form(b) || a->cols != b->cols)
        return false;
    if (a->type != MATRIX_CODE || a->in == b->in)
        return true;
    return a->in && b->in && !memcmp(a->in, b->in, (size_t)a->cols * sizeof *a->in);
}

void kernels_prepare_float(const struct matrix *m, const float *x, void *prepared)
{
    size_t bytes = (size_t)m->cols * sizeof(float);
    memcpy(prepared, x, bytes);
    memset((char *)prepared + bytes, 0, act_bytes(m) - bytes);
}
