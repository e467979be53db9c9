/* Bodies of the control messages: plain structs to protobuf and back, with every check that a
 * body needs by itself. Whether a message makes sense at this moment is for its receiver. */
#include <math.h>
#include <string.h>

#include "common/wire_internal.h"

const char wire_too_long[] = "a text in it is too long";
const char wire_not_finite[] = "a number in it is not finite";

char *wire_pack_text(struct wire_scratch *s, const char *text, size_t size)
{
    if (!memchr(text, 0, size)) {
        s->bad_text = true;
        return (char *)protobuf_c_empty_string;
    }
    return (char *)text;
}

bool wire_take_name(char *out, size_t size, const char *in)
{
    size_t length = strlen(in);
    if (length >= size)
        return false;
    memcpy(out, in, length + 1);
    return true;
}

/* The same for text that people will read: control characters become spaces, so that no rank can
 * play with another's terminal. */
static bool take_text(char *out, size_t size, const char *in)
{
    if (!wire_take_name(out, size, in))
        return false;
    for (char *c = out; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
    return true;
}

void wire_pack_hello(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    const struct msg_hello *x = &m->hello;
    sbit__hello__init(&s->hello);
    s->hello.protocol = x->protocol;
    s->hello.version = wire_pack_text(s, x->version, sizeof x->version);
    s->hello.host = wire_pack_text(s, x->host, sizeof x->host);
    s->hello.cpu = wire_pack_text(s, x->cpu, sizeof x->cpu);
    s->hello.cores = x->cores;
    s->hello.ram_bytes = x->ram_bytes;
    s->hello.available_bytes = x->available_bytes;
    h->hello = &s->hello;
}

const char *wire_unpack_hello(struct message *m, const Sbit__Header *h)
{
    struct msg_hello *x = &m->hello;
    x->protocol = h->hello->protocol;
    x->cores = h->hello->cores;
    x->ram_bytes = h->hello->ram_bytes;
    x->available_bytes = h->hello->available_bytes;
    if (!take_text(x->version, sizeof x->version, h->hello->version) ||
        !take_text(x->host, sizeof x->host, h->hello->host) ||
        !take_text(x->cpu, sizeof x->cpu, h->hello->cpu))
        return wire_too_long;
    return NULL;
}

void wire_pack_assign(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    const struct msg_assign *x = &m->assign;
    sbit__assign__init(&s->assign);
    s->assign.job = x->job;
    s->assign.path = wire_pack_text(s, x->path, sizeof x->path);
    s->assign.model_hash = x->model_hash;
    s->assign.first_block = x->first_block;
    s->assign.block_count = x->block_count;
    s->assign.stage = x->stage;
    s->assign.stages = x->stages;
    s->assign.next_rank = x->next_rank;
    s->assign.has_head = x->has_head;
    s->assign.context = x->context;
    s->assign.sequences = x->sequences;
    s->assign.batch = x->batch;
    s->assign.threads = x->threads;
    s->assign.wire = x->wire;
    s->assign.verify = x->verify;
    s->assign.cache = x->cache;
    h->assign = &s->assign;
}

const char *wire_unpack_assign(struct message *m, const Sbit__Header *h)
{
    struct msg_assign *x = &m->assign;
    const Sbit__Assign *b = h->assign;
    x->job = b->job;
    x->model_hash = b->model_hash;
    x->first_block = b->first_block;
    x->block_count = b->block_count;
    x->stage = b->stage;
    x->stages = b->stages;
    x->next_rank = b->next_rank;
    x->has_head = b->has_head;
    x->context = b->context;
    x->sequences = b->sequences;
    x->batch = b->batch;
    x->threads = b->threads;
    x->verify = b->verify;
    if (b->wire > WIRE_Q8)
        return "its element type is unknown";
    x->wire = (enum wire_type)b->wire;
    if (b->cache > CACHE_Q8)
        return "its type of cache is unknown";
    x->cache = (enum cache_type)b->cache;
    if (b->block_count > UINT32_MAX - b->first_block)
        return "its blocks end beyond 32 bits";
    if (b->next_rank > INT32_MAX)
        return "its next rank does not exist";
    return wire_take_name(x->path, sizeof x->path, b->path) ? NULL : wire_too_long;
}

void wire_pack_ready(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    sbit__ready__init(&s->ready);
    s->ready.job = m->ready.job;
    h->ready = &s->ready;
}

const char *wire_unpack_ready(struct message *m, const Sbit__Header *h)
{
    m->ready.job = h->ready->job;
    return NULL;
}

void wire_pack_pong(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    sbit__pong__init(&s->pong);
    s->pong.doing = wire_pack_text(s, m->pong.doing, sizeof m->pong.doing);
    h->pong = &s->pong;
}

const char *wire_unpack_pong(struct message *m, const Sbit__Header *h)
{
    return take_text(m->pong.doing, sizeof m->pong.doing, h->pong->doing) ? NULL : wire_too_long;
}

void wire_pack_stats(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    const struct msg_stats *x = &m->stats;
    sbit__stats__init(&s->stats);
    s->stats.host = wire_pack_text(s, x->host, sizeof x->host);
    s->stats.first_block = x->first_block;
    s->stats.block_count = x->block_count;
    s->stats.peak_rss_bytes = x->peak_rss_bytes;
    s->stats.compute_s = x->compute_s;
    s->stats.wait_s = x->wait_s;
    s->stats.messages = x->messages;
    s->stats.sent_bytes = x->sent_bytes;
    s->stats.sent_raw_bytes = x->sent_raw_bytes;
    h->stats = &s->stats;
}

const char *wire_unpack_stats(struct message *m, const Sbit__Header *h)
{
    struct msg_stats *x = &m->stats;
    const Sbit__Stats *b = h->stats;
    x->first_block = b->first_block;
    x->block_count = b->block_count;
    x->peak_rss_bytes = b->peak_rss_bytes;
    x->compute_s = b->compute_s;
    x->wait_s = b->wait_s;
    x->messages = b->messages;
    x->sent_bytes = b->sent_bytes;
    x->sent_raw_bytes = b->sent_raw_bytes;
    if (!isfinite(b->compute_s) || !isfinite(b->wait_s))
        return wire_not_finite;
    return take_text(x->host, sizeof x->host, b->host) ? NULL : wire_too_long;
}

void wire_pack_compress(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    const struct msg_compress *x = &m->compress;
    sbit__compress__init(&s->compress);
    s->compress.outliers = x->outliers;
    s->compress.threads = x->threads;
    s->compress.last = x->last;
    for (uint32_t i = 0; i < x->n_units; i++) {
        const struct compress_unit *unit = &x->units[i];
        sbit__unit__init(&s->unit[i]);
        s->unit[i].name = wire_pack_text(s, unit->name, sizeof unit->name);
        s->unit[i].method = unit->method;
        s->unit[i].d = unit->d;
        s->unit[i].index = unit->index;
        s->unit[i].shared = unit->shared;
        s->unit[i].columns = unit->columns;
        s->unit[i].done = unit->done;
        s->unit_list[i] = &s->unit[i];
    }
    s->compress.n_units = x->n_units;
    s->compress.units = s->unit_list;
    h->compress = &s->compress;
}

static const char *unpack_unit(struct compress_unit *x, const Sbit__Unit *b)
{
    x->method = b->method;
    x->d = b->d;
    x->index = b->index;
    x->shared = b->shared;
    x->columns = b->columns;
    x->done = b->done;
    if (b->method > UNIT_Q1_0)
        return "it asks for an unknown method";
    if (b->method == UNIT_CODE && (b->d < 1 || b->d > 16))
        return "it asks for codes of an unknown length";
    if (b->columns && b->method != UNIT_CODE)
        return "it asks for column scales beside no codes";
    if (b->done && !b->shared)
        return "it asks for what is done";
    return wire_take_name(x->name, sizeof x->name, b->name) ? NULL : wire_too_long;
}

const char *wire_unpack_compress(struct message *m, const Sbit__Header *h)
{
    struct msg_compress *x = &m->compress;
    const Sbit__Compress *b = h->compress;
    x->outliers = b->outliers;
    x->threads = b->threads;
    x->last = b->last;
    if (!(b->outliers >= 0 && b->outliers <= 1))
        return "its share of outliers is not between 0 and 1";
    if (b->n_units > WIRE_UNITS_MAX)
        return "it lists too many units";
    x->n_units = (uint32_t)b->n_units;
    for (uint32_t i = 0; i < x->n_units; i++) {
        const char *wrong = unpack_unit(&x->units[i], b->units[i]);
        if (wrong)
            return wrong;
    }
    return NULL;
}

/* TENSOR and PART, whose bodies lie at the same place of their unions. */
void wire_pack_part(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    sbit__part__init(&s->part);
    s->part.unit = m->part.unit;
    s->part.suffix = wire_pack_text(s, m->part.suffix, sizeof m->part.suffix);
    s->part.offset = m->part.offset;
    h->part = &s->part;
}

const char *wire_unpack_part(struct message *m, const Sbit__Header *h)
{
    m->part.unit = h->part->unit;
    m->part.offset = h->part->offset;
    if (h->part->offset > (uint64_t)INT64_MAX - m->payload_bytes)
        return "its bytes end beyond any file";
    return wire_take_name(m->part.suffix, sizeof m->part.suffix, h->part->suffix) ? NULL
                                                                                  : wire_too_long;
}

void wire_pack_unit_done(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    const struct msg_unit_done *x = &m->unit_done;
    sbit__unit_done__init(&s->unit_done);
    s->unit_done.unit = x->unit;
    s->unit_done.error2 = x->error2;
    s->unit_done.weight2 = x->weight2;
    s->unit_done.seconds = x->seconds;
    s->unit_done.signal = x->signal;
    s->unit_done.rounded = x->rounded;
    s->unit_done.fed = x->fed;
    s->unit_done.final = x->final;
    h->unit_done = &s->unit_done;
}

const char *wire_unpack_unit_done(struct message *m, const Sbit__Header *h)
{
    const Sbit__UnitDone *b = h->unit_done;
    struct msg_unit_done *x = &m->unit_done;
    x->unit = b->unit;
    x->error2 = b->error2;
    x->weight2 = b->weight2;
    x->seconds = b->seconds;
    x->signal = b->signal;
    x->rounded = b->rounded;
    x->fed = b->fed;
    x->final = b->final;
    bool finite = isfinite(b->error2) && isfinite(b->weight2) && isfinite(b->seconds) &&
                  isfinite(b->signal) && isfinite(b->rounded) && isfinite(b->fed) &&
                  isfinite(b->final);
    return finite ? NULL : wire_not_finite;
}

void wire_pack_error(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    sbit__error__init(&s->error);
    s->error.status = m->error.status;
    s->error.text = wire_pack_text(s, m->error.text, sizeof m->error.text);
    h->error = &s->error;
}

const char *wire_unpack_error(struct message *m, const Sbit__Header *h)
{
    m->error.status = h->error->status;
    return take_text(m->error.text, sizeof m->error.text, h->error->text) ? NULL : wire_too_long;
}

void wire_pack_stop(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    sbit__stop__init(&s->stop);
    s->stop.failed = m->stop.failed;
    h->stop = &s->stop;
}

const char *wire_unpack_stop(struct message *m, const Sbit__Header *h)
{
    m->stop.failed = h->stop->failed;
    return NULL;
}
