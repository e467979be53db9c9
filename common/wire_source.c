/* Bodies of the messages by which a rank gets the source from rank 0: its description, and pieces
 * of its tensors. Whether the description is one of a model is for common/weights_remote.c. */
#include <endian.h>
#include <math.h>
#include <string.h>

#include "common/wire_internal.h"

void wire_pack_source(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    const struct msg_source *x = &m->source;
    const struct model_config *c = &x->config;
    sbit__source__init(&s->source);
    s->source.path = wire_pack_text(s, x->path, sizeof x->path);
    s->source.model_hash = x->model_hash;
    s->source.tensors = x->tensors;
    s->source.rope_factors = x->rope_factors;
    s->source.arch = wire_pack_text(s, c->arch, sizeof c->arch);
    s->source.block_count = c->block_count;
    s->source.hidden = c->hidden;
    s->source.ffn = c->ffn;
    s->source.heads = c->heads;
    s->source.kv_heads = c->kv_heads;
    s->source.head_dim = c->head_dim;
    s->source.vocab = c->vocab;
    s->source.context = c->context;
    s->source.rms_eps = c->rms_eps;
    s->source.rope_base = c->rope_base;
    s->source.rope_dim = c->rope_dim;
    s->source.rope_scaling = c->rope_scaling;
    s->source.rope_factor = c->rope_factor;
    s->source.rope_low_freq = c->rope_low_freq;
    s->source.rope_high_freq = c->rope_high_freq;
    s->source.rope_original_context = c->rope_original_context;
    s->source.rope_interleaved = c->rope_interleaved;
    s->source.qkv_bias = c->qkv_bias;
    s->source.qk_norm = c->qk_norm;
    s->source.tied = c->tied;
    s->source.sliding_window = c->sliding_window;
    h->source = &s->source;
}

static bool all_finite(const struct model_config *c)
{
    return isfinite(c->rms_eps) && isfinite(c->rope_base) && isfinite(c->rope_factor) &&
           isfinite(c->rope_low_freq) && isfinite(c->rope_high_freq);
}

static void take_config(struct model_config *c, const Sbit__Source *b)
{
    c->block_count = b->block_count;
    c->hidden = b->hidden;
    c->ffn = b->ffn;
    c->heads = b->heads;
    c->kv_heads = b->kv_heads;
    c->head_dim = b->head_dim;
    c->vocab = b->vocab;
    c->context = b->context;
    c->rms_eps = b->rms_eps;
    c->rope_base = b->rope_base;
    c->rope_dim = b->rope_dim;
    c->rope_factor = b->rope_factor;
    c->rope_low_freq = b->rope_low_freq;
    c->rope_high_freq = b->rope_high_freq;
    c->rope_original_context = b->rope_original_context;
    c->rope_interleaved = b->rope_interleaved;
    c->qkv_bias = b->qkv_bias;
    c->qk_norm = b->qk_norm;
    c->tied = b->tied;
    c->sliding_window = b->sliding_window;
}

const char *wire_unpack_source(struct message *m, const Sbit__Header *h)
{
    struct msg_source *x = &m->source;
    const Sbit__Source *b = h->source;
    x->model_hash = b->model_hash;
    x->tensors = b->tensors;
    x->rope_factors = b->rope_factors;
    take_config(&x->config, b);
    if (b->rope_scaling > ROPE_LLAMA3)
        return "its RoPE scaling is unknown";
    x->config.rope_scaling = (enum rope_scaling)b->rope_scaling;
    if (!all_finite(&x->config))
        return wire_not_finite;
    uint64_t factors = b->rope_factors ? b->rope_dim / 2 : 0;
    if (m->payload_bytes != 4 * sizeof(uint32_t) * (uint64_t)b->tensors + sizeof(float) * factors)
        return "its tensors do not fit its payload";
    if (!wire_take_name(x->path, sizeof x->path, b->path) ||
        !wire_take_name(x->config.arch, sizeof x->config.arch, b->arch))
        return wire_too_long;
    return NULL;
}

void wire_pack_opened(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    sbit__opened__init(&s->opened);
    s->opened.missing = m->opened.missing;
    h->opened = &s->opened;
}

const char *wire_unpack_opened(struct message *m, const Sbit__Header *h)
{
    m->opened.missing = h->opened->missing;
    return NULL;
}

/* FETCH and FETCHED, whose bodies lie at the same place of their unions. */
void wire_pack_fetch(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    sbit__fetch__init(&s->fetch);
    s->fetch.kind = m->fetch.kind;
    s->fetch.block = m->fetch.block;
    h->fetch = &s->fetch;
}

/* Whether the payload is pairs of offset and size, not more than a piece. */
static const char *check_ranges(const struct message *m)
{
    uint64_t sum = 0;
    if (m->payload_bytes == 0 || m->payload_bytes % (2 * sizeof(uint64_t)) != 0)
        return "its payload is not of ranges";
    for (size_t at = 0; at < m->payload_bytes; at += 2 * sizeof(uint64_t)) {
        uint64_t range[2];
        memcpy(range, (const uint8_t *)m->payload + at, sizeof range);
        uint64_t offset = le64toh(range[0]), size = le64toh(range[1]);
        if (size < 1 || size > WIRE_PIECE_MAX || offset > (uint64_t)INT64_MAX)
            return "it asks for nothing, or for too much";
        sum += size;
        if (sum > WIRE_PIECE_MAX)
            return "it asks for too much at once";
    }
    return NULL;
}

const char *wire_unpack_fetch(struct message *m, const Sbit__Header *h)
{
    m->fetch.kind = h->fetch->kind;
    m->fetch.block = h->fetch->block;
    if (m->kind == MSG_FETCHED)
        return m->payload_bytes <= WIRE_PIECE_MAX ? NULL : "it brings too much at once";
    return check_ranges(m);
}
