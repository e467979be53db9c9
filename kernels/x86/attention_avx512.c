/* Attention of one query head with AVX-512. */
#include "kernels/x86/avx512.h"

#include "kernels/attention.inc"

KERNELS_ATTENTION(kernels_attention_avx512)
{
    attention_head(out, q, keys, values, n, head_dim, scale, scores);
}
