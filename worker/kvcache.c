/* The KV cache's memory: anonymous mappings, so that untouched pages are never backed. Must never
 * know what a block computes. */
#define _GNU_SOURCE /* MAP_ANONYMOUS, MAP_NORESERVE */
#include "worker/kvcache.h"

#include <string.h>
#include <sys/mman.h>

#include "common/mem.h"

static enum status reserve(void *out, size_t bytes, struct error *e)
{
    if (bytes == 0)
        return OK;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    FAIL_IF(p == MAP_FAILED, e, ERR_MEMORY,
            "no room for %.1f MiB of keys or values: choose a smaller --ctx",
            (double)bytes / (1024.0 * 1024.0));
    memcpy(out, &p, sizeof p);
    return OK;
}

enum status kvcache_create(struct kvcache *c, enum kv_type type, uint32_t blocks,
                           uint32_t sequences, uint32_t kv_heads, uint32_t positions,
                           uint32_t head_dim, struct error *e)
{
    memset(c, 0, sizeof *c);
    /* The scales are fewer than the elements: what fits for these fits for those. */
    const uint64_t factors[] = {sequences, kv_heads, positions, head_dim, blocks};
    uint64_t bytes = sizeof(uint16_t);
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++)
        FAIL_IF(!mul_fits(bytes, factors[i], &bytes) || bytes > SIZE_MAX / 2, e, ERR_MEMORY,
                "the keys and values of %u sequences of %u positions exceed the address space: "
                "choose a smaller --ctx",
                sequences, positions);
    c->type = type;
    c->sequences = sequences;
    c->kv_heads = kv_heads;
    c->positions = positions;
    c->head_dim = head_dim;
    c->data_bytes = type == KV_Q8 ? (size_t)bytes / 2 : (size_t)bytes;
    if (type == KV_Q8 && bytes > 0)
        c->scale_bytes = (size_t)bytes / head_dim * (size_t)kv_scales((int)head_dim);
    enum status status = reserve(&c->keys.data, c->data_bytes, e);
    if (status == OK)
        status = reserve(&c->values.data, c->data_bytes, e);
    if (status == OK)
        status = reserve(&c->keys.scale, c->scale_bytes, e);
    if (status == OK)
        status = reserve(&c->values.scale, c->scale_bytes, e);
    if (status != OK)
        kvcache_free(c);
    return status;
}

void kvcache_free(struct kvcache *c)
{
    const struct kvcache_half *const halves[] = {&c->keys, &c->values};
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++) {
        if (halves[i]->data)
            munmap(halves[i]->data, c->data_bytes);
        if (halves[i]->scale)
            munmap(halves[i]->scale, c->scale_bytes);
    }
    memset(c, 0, sizeof *c);
}

/* Positions before this one in the cache. */
static size_t index_of(const struct kvcache *c, uint32_t block, uint32_t sequence, uint32_t kv_head,
                       uint32_t position)
{
    size_t head = ((size_t)block * c->sequences + sequence) * c->kv_heads + kv_head;
    return head * c->positions + position;
}

static void store(const struct kvcache *c, const struct kvcache_half *half, size_t index,
                  const float *x)
{
    size_t at = index * c->head_dim, scale = index * (size_t)kv_scales((int)c->head_dim);
    if (c->type == KV_F16)
        kernels.to_f16((uint16_t *)half->data + at, x, (int)c->head_dim);
    else
        kernels.to_q8((int8_t *)half->data + at, half->scale + scale, x, (int)c->head_dim);
}

void kvcache_store(const struct kvcache *c, uint32_t block, uint32_t sequence, uint32_t kv_head,
                   uint32_t position, const float *key, const float *value)
{
    size_t index = index_of(c, block, sequence, kv_head, position);
    store(c, &c->keys, index, key);
    store(c, &c->values, index, value);
}

struct kv kvcache_view(const struct kvcache *c, uint32_t block, uint32_t sequence, uint32_t kv_head,
                       uint32_t first, uint32_t n)
{
    size_t index = index_of(c, block, sequence, kv_head, first);
    size_t at = index * c->head_dim * (c->type == KV_Q8 ? 1 : sizeof(uint16_t));
    struct kv kv = {.type = c->type,
                    .n = (int)n,
                    .head_dim = (int)c->head_dim,
                    .keys = (const char *)c->keys.data + at,
                    .values = (const char *)c->values.data + at};
    if (c->type == KV_Q8) {
        size_t scale = index * (size_t)kv_scales((int)c->head_dim);
        kv.key_scale = c->keys.scale + scale;
        kv.value_scale = c->values.scale + scale;
    }
    return kv;
}
