/* How keys and values of past positions are kept: a choice that all ranks of a job share, because
 * results depend on it. Knows nothing of the memory itself (worker/kvcache.h). */
#ifndef SBIT_COMMON_CACHE_H
#define SBIT_COMMON_CACHE_H

#include <stdint.h>

enum cache_type {
    CACHE_F16, /* binary16 */
    CACHE_Q8   /* int8 and a binary16 scale for 32 of them */
};

/* What one position takes in one block: kv_heads keys and as many values of head_dim elements. */
static inline uint64_t cache_bytes(enum cache_type type, uint32_t kv_heads, uint32_t head_dim)
{
    uint64_t scales = ((uint64_t)head_dim + 31) / 32;
    uint64_t one = type == CACHE_Q8 ? head_dim + 2 * scales : 2 * (uint64_t)head_dim;
    return 2 * kv_heads * one;
}

#endif
