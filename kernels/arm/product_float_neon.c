/* F32, F16 and BF16 products with NEON: the template does the work. */
#include "kernels/arm/neon.h"

/* Registers in the inner loop: 3 sums of four registers, 4 of weights, 4 of activations. One row times
 * three tokens, since F16 weights are dear to convert. For one token two rows are enough sums to
 * hide the latency of FMLA. */
#define TILE_ROWS   1
#define TILE_TOKENS 3
#define ROWS_ALONE  2
#include "kernels/product_float.inc"

KERNELS_PRODUCT(kernels_product_f32_neon)
{
    product(MATRIX_F32, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_f16_neon)
{
    product(MATRIX_F16, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_bf16_neon)
{
    product(MATRIX_BF16, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}
