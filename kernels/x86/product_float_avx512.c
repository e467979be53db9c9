/* F32, F16 and BF16 products with AVX-512: the template does the work. */
#include "kernels/x86/avx512.h"

/* Registers in the inner loop: 24 sums, 6 of weights, 1 of activations. */
#define TILE_ROWS   6
#define TILE_TOKENS 4
#define ROWS_ALONE  8
#include "kernels/product_float.inc"

KERNELS_PRODUCT(kernels_product_f32_avx512)
{
    product(MATRIX_F32, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_f16_avx512)
{
    product(MATRIX_F16, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}

KERNELS_PRODUCT(kernels_product_bf16_avx512)
{
    product(MATRIX_BF16, m, prepared, x, tokens, row_first, row_count, y, y_stride);
}
