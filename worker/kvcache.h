/* Keys and values of past positions, in F16 or as int8 with scales. Memory is reserved at once and
 * costs nothing until it is written. Knows nothing of how keys are made. */
#ifndef SBIT_WORKER_KVCACHE_H
#define SBIT_WORKER_KVCACHE_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "kernels/kernels.h"

struct kvcache_half { /* keys or values */
    void *data;       /* [blocks][sequences][kv_heads][positions][head_dim] F16 or int8 */
    uint16_t *scale;  /* [blocks][sequences][kv_heads][positions][kv_scales(head_dim)] for KV_Q8 */
};

struct kvcache {
    enum kv_type type;
    struct kvcache_half keys, values;
    size_t data_bytes, scale_bytes; /* of each half */
    uint32_t sequences, kv_heads, positions, head_dim;
};

/* Reserves a cache of that shape; blocks may be 0. *c is released by kvcache_free. Errors:
 * ERR_MEMORY with the bytes asked for. */
enum status kvcache_create(struct kvcache *c, enum kv_type type, uint32_t blocks,
                           uint32_t sequences, uint32_t kv_heads, uint32_t positions,
                           uint32_t head_dim, struct error *e);
/* A zeroed *c is fine. */
void kvcache_free(struct kvcache *c);

/* Puts key[head_dim] and value[head_dim] at a position, rounded to the type of the cache. */
void kvcache_store(const struct kvcache *c, uint32_t block, uint32_t sequence, uint32_t kv_head,
                   uint32_t position, const float *key, const float *value);

/* Positions [first, first + n) of one head. */
struct kv kvcache_view(const struct kvcache *c, uint32_t block, uint32_t sequence, uint32_t kv_head,
                       uint32_t first, uint32_t n);

#endif
