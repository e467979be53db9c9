/* Attention of a group of query heads with AVX2. */
#include "kernels/x86/avx2.h"

#include "kernels/attention.inc"

KERNELS_ATTENTION(kernels_attention_avx2)
{
    attention(out, q, heads, kv, scale, scores);
}
