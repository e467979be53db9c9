/* y = W x for F32, F16 and BF16, the specification: 16 partial sums, rows filled up with zero
 * products to a multiple of 16, one fold. */
#include <math.h>

#include "kernels/blocks.h"
#include "kernels/correction.h"
#include "kernels/reduce.h"
#include "kernels/variants.h"

static float weight(enum matrix_type type, const uint8_t *row, int c)
{
    if (type == MATRIX_F16)
        return half_to_float(half_load(row, (size_t)c));
    if (type == MATRIX_BF16)
        return half_from_bfloat(half_load(row, (size_t)c));
    float w;
    memcpy(&w, row + 4 * (size_t)c, sizeof w);
    return w;
}

static float dot(enum matrix_type type, const uint8_t *row, const float *x, int cols)
{
    float acc[LANES] = {0};
    for (int c = 0; c < cols; c += LANES)
        for (int j = 0; j < LANES; j++)
            acc[j] = fmaf(c + j < cols ? weight(type, row, c + j) : 0.0f, x[c + j], acc[j]);
    return reduce_fold(acc);
}

static void product(const struct matrix *m, const void *prepared, const float *x, int tokens,
                    int row_first, int row_count, float *y, size_t y_stride)
{
    size_t stride = act_bytes(m);
    for (int r = row_first; r < row_first + row_count; r++)
        for (int t = 0; t < tokens; t++) {
            const float *act = (const float *)((const uint8_t *)prepared + (size_t)t * stride);
            y[(size_t)t * y_stride + (size_t)r] = dot(m->type, blocks_row(m, r), act, m->cols);
        }
    correction_add(m, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_f32_scalar)
{
    product(m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_f16_scalar)
{
    product(m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_bf16_scalar)
{
    product(m, prepared, x, tokens, row_first, row_count, y, y_stride);
}
