/* Activations to int8 with AVX-512. */
#include "kernels/x86/avx512.h"

#include "kernels/prepare_simd.inc"

KERNELS_PREPARE(kernels_prepare_block_avx512)
{
    prepare_blocks(m, x, prepared);
}

KERNELS_PREPARE(kernels_prepare_code_avx512)
{
    prepare_code(m, x, prepared);
}
