/* The KV cache's memory: anonymous mappings, so that untouched pages are never backed. Must never
 * know what a block computes. */
#define _GNU_SOURCE /* MAP_ANONYMOUS, MAP_NORESERVE */
#include "worker/kvcache.h"

#include <string.h>
#include <sys/mman.h>

#include "common/mem.h"

static enum status reserve(uint16_t **out, size_t bytes, struct error *e)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    FAIL_IF(p == MAP_FAILED, e, ERR_MEMORY,
            "no room for %.1f MiB of keys or values: choose a smaller --ctx",
            (double)bytes / (1024.0 * 1024.0));
    *out = p;
    return OK;
}

enum status kvcache_create(struct kvcache *c, uint32_t blocks, uint32_t sequences,
                           uint32_t kv_heads, uint32_t positions, uint32_t head_dim,
                           struct error *e)
{
    memset(c, 0, sizeof *c);
    const uint64_t factors[] = {blocks, sequences, kv_heads, positions, head_dim};
    uint64_t bytes = sizeof(uint16_t);
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++)
        FAIL_IF(!mul_fits(bytes, factors[i], &bytes) || bytes > SIZE_MAX / 2, e, ERR_MEMORY,
                "the keys and values of %u sequences of %u positions exceed the address space: "
                "choose a smaller --ctx",
                sequences, positions);
    c->sequences = sequences;
    c->kv_heads = kv_heads;
    c->positions = positions;
    c->head_dim = head_dim;
    if (bytes == 0)
        return OK;
    c->bytes = (size_t)bytes;
    enum status status = reserve(&c->keys, c->bytes, e);
    if (status == OK)
        status = reserve(&c->values, c->bytes, e);
    if (status != OK)
        kvcache_free(c);
    return status;
}

void kvcache_free(struct kvcache *c)
{
    if (c->keys)
        munmap(c->keys, c->bytes);
    if (c->values)
        munmap(c->values, c->bytes);
    memset(c, 0, sizeof *c);
}
