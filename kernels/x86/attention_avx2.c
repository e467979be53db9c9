/* Attention of one query head with AVX2. */
#include "kernels/x86/avx2.h"

#include "kernels/attention.inc"

KERNELS_ATTENTION(kernels_attention_avx2)
{
    attention_head(out, q, keys, values, n, head_dim, scale, scores);
}
