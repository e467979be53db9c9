/* y = W x for Q8_0, Q4_0 and Q1_0, the specification: an exact integer sum per 32 weights, folded
 * into one float sum in block order. */
#include <math.h>

#include "kernels/blocks.h"
#include "kernels/correction.h"
#include "kernels/variants.h"

/* Adds weight block b, decoded as w and d, times one row of activations to sum. */
static float add_block(float sum, const int8_t *w, float d, struct block_act act, int b, int parts)
{
    float part = 0.0f;
    for (int p = 0; p < parts; p++) {
        int block = b * parts + p;
        const int8_t *q = act.q + (size_t)block * BLOCK_WEIGHTS;
        int32_t dot = 0;
        for (int j = 0; j < BLOCK_WEIGHTS; j++)
            dot += w[p * BLOCK_WEIGHTS + j] * q[j];
        part = p ? fmaf((float)dot, act.scale[block], part) : (float)dot * act.scale[block];
    }
    return fmaf(d, part, sum);
}

static void product(const struct matrix *m, const void *prepared, const float *x, int tokens,
                    int row_first, int row_count, float *y, size_t y_stride)
{
    size_t stride = act_bytes(m);
    int weights = blocks_weights(m->type);
    for (int r = row_first; r < row_first + row_count; r++) {
        for (int t = 0; t < tokens; t++)
            y[(size_t)t * y_stride + (size_t)r] = 0.0f;
        const uint8_t *block = blocks_row(m, r);
        for (int b = 0; b < m->cols / weights; b++, block += blocks_bytes(m->type)) {
            int8_t w[BLOCK_MAX_WEIGHTS];
            float d = blocks_decode(m->type, block, w);
            for (int t = 0; t < tokens; t++) {
                const uint8_t *row = (const uint8_t *)prepared + (size_t)t * stride;
                float *sum = &y[(size_t)t * y_stride + (size_t)r];
                *sum = add_block(*sum, w, d, blocks_act(row, m->cols), b, weights / BLOCK_WEIGHTS);
            }
        }
    }
    correction_add(m, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_q8_0_scalar)
{
    product(m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_q4_0_scalar)
{
    product(m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_q1_0_scalar)
{
    product(m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_q2_0_scalar)
{
    product(m, prepared, x, tokens, row_first, row_count, y, y_stride);
}
