/* Keys and values of past positions, in F16. Memory is reserved at once and costs nothing until it
 * is written. Knows nothing of how keys are made. */
#ifndef SBIT_WORKER_KVCACHE_H
#define SBIT_WORKER_KVCACHE_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct kvcache {
    uint16_t *keys, *values; /* [blocks][sequences][kv_heads][positions][head_dim] */
    size_t bytes;            /* of each of the two */
    uint32_t sequences, kv_heads, positions, head_dim;
};

/* Reserves a cache of that shape; blocks may be 0. *c is released by kvcache_free. Errors:
 * ERR_MEMORY with the bytes asked for. */
enum status kvcache_create(struct kvcache *c, uint32_t blocks, uint32_t sequences, uint32_t kv_heads,
                           uint32_t positions, uint32_t head_dim, struct error *e);
/* A zeroed *c is fine. */
void kvcache_free(struct kvcache *c);

/* Elements before position 0 of one head: the same in keys and values. Position p stands p *
 * head_dim further. */
static inline size_t kvcache_at(const struct kvcache *c, uint32_t block, uint32_t sequence,
                                uint32_t kv_head)
{
    size_t head = ((size_t)block * c->sequences + sequence) * c->kv_heads + kv_head;
    return head * c->positions * c->head_dim;
}

#endif
