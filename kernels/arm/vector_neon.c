/* RMS norm, SwiGLU and conversion to F16 with NEON. */
#include "kernels/arm/neon.h"

#include "kernels/vector.inc"

KERNELS_RMS_NORM(kernels_rms_norm_neon)
{
    vector_rms_norm(y, x, weight, n, eps);
}

KERNELS_SWIGLU(kernels_swiglu_neon)
{
    vector_swiglu(gate, up, n);
}

KERNELS_TO_F16(kernels_to_f16_neon)
{
    vector_to_f16(h, x, n);
}
