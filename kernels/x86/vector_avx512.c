/* RMS norm, SwiGLU and conversion to F16 with AVX-512. */
#include "kernels/x86/avx512.h"

#include "kernels/vector.inc"

KERNELS_RMS_NORM(kernels_rms_norm_avx512)
{
    vector_rms_norm(y, x, weight, n, eps);
}

KERNELS_SWIGLU(kernels_swiglu_avx512)
{
    vector_swiglu(gate, up, n);
}

KERNELS_TO_F16(kernels_to_f16_avx512)
{
    vector_to_f16(h, x, n);
}
