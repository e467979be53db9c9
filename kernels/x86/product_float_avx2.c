/* F32, F16 and BF16 products with AVX2: the template does the work. */
#include "kernels/x86/avx2.h"

/* Registers in the inner loop: 8 sums of two registers, 4 of weights, 2 of activations. */
#define TILE_ROWS   2
#define TILE_TOKENS 2
#define ROWS_ALONE  4
#include "kernels/product_float.inc"

KERNELS_PRODUCT(kernels_product_f32_avx2)
{
    product(MATRIX_F32, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_f16_avx2)
{
    product(MATRIX_F16, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_bf16_avx2)
{
    product(MATRIX_BF16, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}
