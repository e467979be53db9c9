/* Attention with NEON. */
#include "kernels/arm/neon.h"

#include "kernels/attention.inc"

KERNELS_ATTENTION(kernels_attention_neon)
{
    attention(out, q, heads, kv, scale, scores);
}
