/* Activations to int8 with NEON. */
#include "kernels/arm/neon.h"

#include "kernels/prepare_simd.inc"

KERNELS_PREPARE(kernels_prepare_block_neon)
{
    prepare_blocks(m, x, prepared);
}

KERNELS_PREPARE(kernels_prepare_code_neon)
{
    prepare_code(m, x, prepared);
}
