/* RMS norm, SwiGLU and conversion to F16 with AVX2. */
#include "kernels/x86/avx2.h"

#include "kernels/vector.inc"

KERNELS_RMS_NORM(kernels_rms_norm_avx2)
{
    vector_rms_norm(y, x, weight, n, eps);
}

KERNELS_SWIGLU(kernels_swiglu_avx2)
{
    vector_swiglu(gate, up, n);
}

KERNELS_TO_F16(kernels_to_f16_avx2)
{
    vector_to_f16(h, x, n);
}
