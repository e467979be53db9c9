/* Bodies of the messages of a calibrated compression: the text, moments, measurements. Checks what
 * a message can be checked for by itself; blocks, steps and lanes are for those who know the
 * model. */
#include <endian.h>
#include <math.h>
#include <string.h>

#include "common/wire_internal.h"

void wire_pack_calib(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    const struct msg_calib *x = &m->calib;
    sbit__calib__init(&s->calib);
    s->calib.recipe = wire_pack_text(s, x->recipe, sizeof x->recipe);
    s->calib.context = x->context;
    s->calib.windows = x->windows;
    s->calib.threads = x->threads;
    s->calib.embeddings = x->embeddings;
    s->calib.embeddings_d = x->embeddings_d;
    s->calib.measure = x->measure;
    s->calib.probe = x->probe;
    s->calib.method = x->method;
    s->calib.d = x->d;
    s->calib.spill = x->spill;
    s->calib.moment_floats = x->moment_floats;
    h->calib = &s->calib;
}

/* Whether the payload is the lengths of the windows and then as many tokens. */
static const char *check_windows(const struct message *m)
{
    const struct msg_calib *x = &m->calib;
    uint64_t words = m->payload_bytes / sizeof(uint32_t), tokens = 0;
    if (x->windows < 1 || x->windows > words || m->payload_bytes % sizeof(uint32_t) != 0)
        return "its windows do not fit its payload";
    for (uint32_t i = 0; i < x->windows; i++) {
        uint32_t length;
        memcpy(&length, (const uint8_t *)m->payload + i * sizeof length, sizeof length);
        length = le32toh(length);
        if (length < 1 || length > x->context)
            return "a window in it is empty or too long";
        tokens += length;
    }
    return tokens == words - x->windows ? NULL : "its windows do not add up to its tokens";
}

const char *wire_unpack_calib(struct message *m, const Sbit__Header *h)
{
    struct msg_calib *x = &m->calib;
    const Sbit__Calib *b = h->calib;
    x->context = b->context;
    x->windows = b->windows;
    x->threads = b->threads;
    x->embeddings = b->embeddings;
    x->embeddings_d = b->embeddings_d;
    x->measure = b->measure;
    x->probe = b->probe;
    x->method = b->method;
    x->d = b->d;
    x->spill = b->spill;
    x->moment_floats = b->moment_floats;
    if (b->embeddings > UNIT_Q1_0 || b->method > UNIT_Q1_0)
        return "it asks for an unknown method";
    if (!wire_take_name(x->recipe, sizeof x->recipe, b->recipe))
        return wire_too_long;
    return check_windows(m);
}

void wire_pack_moments(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    const struct msg_moments *x = &m->moments;
    sbit__moments__init(&s->moments);
    s->moments.block = x->block;
    s->moments.step = x->step;
    s->moments.measuring = x->measuring;
    s->moments.first = x->first;
    s->moments.count = x->count;
    s->moments.tokens = x->tokens;
    s->moments.cross = x->cross;
    s->moments.offset = x->offset;
    h->moments = &s->moments;
}

const char *wire_unpack_moments(struct message *m, const Sbit__Header *h)
{
    struct msg_moments *x = &m->moments;
    const Sbit__Moments *b = h->moments;
    x->block = b->block;
    x->step = b->step;
    x->measuring = b->measuring;
    x->first = b->first;
    x->count = b->count;
    x->tokens = b->tokens;
    x->cross = b->cross;
    x->offset = b->offset;
    if (b->count < 1 || b->count > INT32_MAX || b->first > INT32_MAX - b->count)
        return "its lanes do not exist";
    if (m->payload_bytes % sizeof(float) != 0)
        return "its payload is not of floats";
    if (b->offset > INT64_MAX / sizeof(float) - m->payload_bytes / sizeof(float))
        return "its floats end beyond any matrix";
    return NULL;
}

void wire_pack_measured(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    sbit__measured__init(&s->measured);
    s->measured.block = m->measured.block;
    s->measured.kind = m->measured.kind;
    s->measured.energy = m->measured.energy;
    s->measured.columns = m->measured.columns;
    s->measured.importance = m->measured.importance;
    s->measured.n_loss = UNIT_CHOICES;
    s->measured.loss = (double *)m->measured.loss; /* only read */
    h->measured = &s->measured;
}

const char *wire_unpack_measured(struct message *m, const Sbit__Header *h)
{
    const Sbit__Measured *b = h->measured;
    struct msg_measured *x = &m->measured;
    x->block = b->block;
    x->kind = b->kind;
    x->energy = b->energy;
    x->columns = b->columns;
    x->importance = b->importance;
    if (b->n_loss != UNIT_CHOICES)
        return "it holds another number of losses than a matrix has choices";
    for (int i = 0; i < UNIT_CHOICES; i++) {
        x->loss[i] = b->loss[i];
        if (!isfinite(x->loss[i]))
            return wire_not_finite;
    }
    if (!isfinite(b->energy))
        return wire_not_finite;
    return b->energy >= 0 ? NULL : "its energy is negative";
}

void wire_pack_gradient(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    sbit__gradient__init(&s->gradient);
    s->gradient.step = m->gradient.step;
    s->gradient.lane = m->gradient.lane;
    s->gradient.kl = m->gradient.kl;
    h->gradient = &s->gradient;
}

const char *wire_unpack_gradient(struct message *m, const Sbit__Header *h)
{
    const Sbit__Gradient *b = h->gradient;
    m->gradient = (struct msg_gradient){b->step, b->lane, b->kl};
    if (m->payload_bytes % sizeof(float) != 0)
        return "its payload is not of floats";
    return isfinite(b->kl) ? NULL : wire_not_finite;
}

void wire_pack_tuned(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    sbit__tuned__init(&s->tuned);
    s->tuned.step = m->tuned.step;
    s->tuned.steps = m->tuned.steps;
    s->tuned.kl = m->tuned.kl;
    h->tuned = &s->tuned;
}

const char *wire_unpack_tuned(struct message *m, const Sbit__Header *h)
{
    m->tuned = (struct msg_tuned){h->tuned->step, h->tuned->steps, h->tuned->kl};
    return isfinite(h->tuned->kl) ? NULL : wire_not_finite;
}

void wire_pack_want(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    sbit__want__init(&s->want);
    s->want.block = m->want.block;
    s->want.state = m->want.state;
    s->want.offset = m->want.offset;
    h->want = &s->want;
}

const char *wire_unpack_want(struct message *m, const Sbit__Header *h)
{
    m->want = (struct msg_want){h->want->block, h->want->state != 0, h->want->offset};
    return NULL;
}

void wire_pack_state(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    sbit__state__init(&s->state);
    s->state.step = m->state.step;
    s->state.offset = m->state.offset;
    h->state = &s->state; /* or keep, in the same place */
}

const char *wire_unpack_state(struct message *m, const Sbit__Header *h)
{
    m->state = (struct msg_state){h->state->step, h->state->offset};
    return m->payload_bytes <= WIRE_PIECE_MAX ? NULL : "it brings more bytes than a piece has";
}

void wire_pack_probed(const struct message *m, Sbit__Header *h, struct wire_scratch *s)
{
    sbit__probed__init(&s->probed);
    s->probed.forward = m->probed.forward;
    s->probed.moments = m->probed.moments;
    s->probed.factor = m->probed.factor;
    s->probed.search = m->probed.search;
    h->probed = &s->probed;
}

const char *wire_unpack_probed(struct message *m, const Sbit__Header *h)
{
    const Sbit__Probed *b = h->probed;
    m->probed = (struct msg_probed){b->forward, b->moments, b->factor, b->search};
    bool finite =
        isfinite(b->forward) && isfinite(b->moments) && isfinite(b->factor) && isfinite(b->search);
    return finite ? NULL : wire_not_finite;
}
