/* Activations to int8 with AVX2. */
#include "kernels/x86/avx2.h"

#include "kernels/prepare_simd.inc"

KERNELS_PREPARE(kernels_prepare_block_avx2)
{
    prepare_blocks(m, x, prepared);
}

KERNELS_PREPARE(kernels_prepare_code_avx2)
{
    prepare_code(m, x, prepared);
}
