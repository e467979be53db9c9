/* Attention of a group of query heads with AVX-512. */
#include "kernels/x86/avx512.h"

#include "kernels/attention.inc"

KERNELS_ATTENTION(kernels_attention_avx512)
{
    attention(out, q, heads, kv, scale, scores);
}
