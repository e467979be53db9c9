/* Bodies of the messages that carry a micro-batch: token ids, hidden states, logits. Checks that
 * runs, rows and payload agree; what the payload of hidden states means is the business of
 * activation.c. */
#include "common/wire_internal.h"

static void pack_runs(const struct run *runs, uint32_t n_runs, struct wire_scratch *s)
{
    for (uint32_t i = 0; i < n_runs; i++) {
        sbit__run__init(&s->run[i]);
        s->run[i].sequence = runs[i].sequence;
        s->run[i].position = runs[i].position;
        s->run[i].count = runs[i].count;
        s->run[i].logits = runs[i].logits;
        s->run_list[i] = &s->run[i];
    }
}

/* Fills runs and gives the sum of their counts. */
static const char *unpack_runs(struct run *runs, uint32_t *n_runs, Sbit__Run **list, size_t count,
                               uint64_t *rows)
{
    if (count < 1 || count > WIRE_RUNS_MAX)
        return "it has no runs or too many";
    *n_runs = (uint32_t)count;
    *rows = 0;
    for (size_t i = 0; i < count; i++) {
        const Sbit__Run *b = list[i];
        if (b->count < 1 || b->count > INT32_MAX || b->position > INT32_MAX - b->count)
            return "a run in it is empty or too long";
        if (b->logits > b->count)
            return "a run in it wants more logits than it has rows";
        runs[i] = (struct run){b->sequence, b->position, b->count, b->logits};
        *rows += b->count;
    }
    return NULL;
}

/* Whether rows x cols floats fit a payload. */
static bool shape_fits(uint64_t rows, uint64_t cols)
{
    return cols >= 1 && rows <= WIRE_PAYLOAD_MAX / sizeof(float) / cols;
}

void wire_pack_tokens(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    sbit__tokens__init(&s->tokens);
    s->tokens.job = m->tokens.job;
    s->tokens.batch = m->tokens.batch;
    pack_runs(m->tokens.runs, m->tokens.n_runs, s);
    s->tokens.n_runs = m->tokens.n_runs;
    s->tokens.runs = s->run_list;
    h->tokens = &s->tokens;
}

const char *wire_unpack_tokens(struct message *m, const Sbit__Header *h)
{
    struct msg_tokens *x = &m->tokens;
    uint64_t rows;
    x->job = h->tokens->job;
    x->batch = h->tokens->batch;
    const char *wrong = unpack_runs(x->runs, &x->n_runs, h->tokens->runs, h->tokens->n_runs, &rows);
    if (wrong)
        return wrong;
    return m->payload_bytes == rows * sizeof(uint32_t) ? NULL
                                                       : "its runs do not add up to its tokens";
}

void wire_pack_hidden(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    const struct msg_hidden *x = &m->hidden;
    sbit__hidden__init(&s->hidden);
    s->hidden.job = x->job;
    s->hidden.batch = x->batch;
    s->hidden.stage = x->stage;
    pack_runs(x->runs, x->n_runs, s);
    s->hidden.n_runs = x->n_runs;
    s->hidden.runs = s->run_list;
    s->hidden.rows = x->rows;
    s->hidden.cols = x->cols;
    s->hidden.type = x->type;
    s->hidden.codec = x->codec;
    s->hidden.raw_bytes = x->raw_bytes;
    s->hidden.hash = x->hash;
    h->hidden = &s->hidden;
}

/* Element type, codec and sizes of a payload of hidden states. */
static const char *check_payload(const struct message *m, const Sbit__Hidden *b)
{
    if (b->type > WIRE_Q8)
        return "its element type is unknown";
    if (b->codec > CODEC_LZ4 || (b->codec == CODEC_PLANES_LZ4 && b->type == WIRE_Q8))
        return "its codec is unknown";
    if (b->raw_bytes != activation_raw_bytes((enum wire_type)b->type, b->rows, b->cols))
        return "its size does not fit its shape";
    if (b->codec == CODEC_RAW ? m->payload_bytes != b->raw_bytes : m->payload_bytes >= b->raw_bytes)
        return "its payload does not have the size it states";
    return NULL;
}

const char *wire_unpack_hidden(struct message *m, const Sbit__Header *h)
{
    struct msg_hidden *x = &m->hidden;
    const Sbit__Hidden *b = h->hidden;
    uint64_t rows;
    const char *wrong = unpack_runs(x->runs, &x->n_runs, b->runs, b->n_runs, &rows);
    if (wrong)
        return wrong;
    if (rows != b->rows)
        return "its runs do not add up to its rows";
    if (!shape_fits(b->rows, b->cols))
        return "its activations are empty or over 1 GiB";
    wrong = check_payload(m, b);
    if (wrong)
        return wrong;
    x->job = b->job;
    x->batch = b->batch;
    x->stage = b->stage;
    x->rows = b->rows;
    x->cols = b->cols;
    x->type = (enum wire_type)b->type;
    x->codec = (enum wire_codec)b->codec;
    x->raw_bytes = b->raw_bytes;
    x->hash = b->hash;
    return NULL;
}

void wire_pack_logits(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    sbit__logits__init(&s->logits);
    s->logits.job = m->logits.job;
    s->logits.batch = m->logits.batch;
    s->logits.rows = m->logits.rows;
    s->logits.cols = m->logits.cols;
    h->logits = &s->logits;
}

const char *wire_unpack_logits(struct message *m, const Sbit__Header *h)
{
    struct msg_logits *x = &m->logits;
    x->job = h->logits->job;
    x->batch = h->logits->batch;
    x->rows = h->logits->rows;
    x->cols = h->logits->cols;
    if (!shape_fits(x->rows, x->cols))
        return "its logits are empty or over 1 GiB";
    return m->payload_bytes == sizeof(float) * x->rows * x->cols
               ? NULL
               : "its payload does not have the size of its logits";
}
