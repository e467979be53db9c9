/* See ring.h. Ranks are turned round robin in one thread, which makes every run the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/ring.h"

#define CHECK(expr, e)                                                                             \
    do {                                                                                           \
        if ((expr) != OK)                                                                          \
            fail_msg("%s", (e).text);                                                              \
    } while (0)

static enum status handle(void *self, struct message *m, struct error *e)
{
    struct ring *r = self;
    (void)e;
    if (m->kind == MSG_READY)
        r->ready++;
    if (m->kind != MSG_LOGITS)
        return OK;
    assert_int_equal(m->logits.cols, r->vocab);
    assert_int_equal(m->logits.batch, r->answers);
    assert_int_equal(m->payload_bytes, (size_t)m->logits.rows * r->vocab * sizeof(float));
    while (r->rows + m->logits.rows > r->room) {
        r->room = r->room ? 2 * r->room : 64;
        r->logits = realloc(r->logits, r->room * r->vocab * sizeof(float));
        assert_non_null(r->logits);
    }
    if (m->payload_bytes)
        memcpy(r->logits + r->rows * r->vocab, m->payload, m->payload_bytes);
    r->rows += m->logits.rows;
    r->answers++;
    return OK;
}

static void open_loops(struct ring *r)
{
    struct transport *t[RING_MAX];
    struct error e = {0};
    CHECK(transport_local_open(t, r->ranks, NULL, &e), e);
    for (int i = 0; i < r->ranks; i++) {
        CHECK(loop_open(&r->loop[i], t[i], &e), e);
        CHECK(worker_create(&r->worker[i], r->loop[i], &e), e);
    }
    r->loop[0]->coordinator = (struct endpoint){r, handle, NULL, NULL};
}

/* Sends each rank its assignment. */
static void assign(struct ring *r, const struct ring_setup *s, const struct weights *w)
{
    uint32_t total = w->config.block_count, first = 0, asked = 0;
    struct error e = {0};
    for (int i = 0; i < r->ranks; i++)
        asked += s->blocks[i];
    for (int i = 0; i < r->ranks; i++) {
        uint32_t even = total * (uint32_t)(i + 1) / (uint32_t)r->ranks - first;
        struct message m = {.kind = MSG_ASSIGN};
        struct msg_assign *a = &m.assign;
        snprintf(a->path, sizeof a->path, "%s", s->path);
        a->model_hash = w->header_hash;
        a->first_block = first;
        a->block_count = asked ? s->blocks[i] : even;
        a->stage = (uint32_t)i;
        a->stages = (uint32_t)r->ranks;
        a->next_rank = (uint32_t)((i + 1) % r->ranks);
        a->has_head = i == 0;
        a->context = s->context;
        a->sequences = s->sequences;
        a->batch = s->batch;
        a->threads = s->threads;
        a->wire = WIRE_F32;
        a->verify = true;
        first += a->block_count;
        CHECK(loop_send(r->loop[0], i, &m, &e), e);
    }
}

static enum status turn_all(struct ring *r, struct error *e)
{
    for (int i = 0; i < r->ranks; i++)
        TRY(loop_turn(r->loop[i], e));
    return OK;
}

enum status ring_try_open(struct ring *r, const struct ring_setup *s, struct error *e)
{
    struct weights *w;
    struct error unexpected = {0};
    memset(r, 0, sizeof *r);
    r->ranks = s->ranks;
    CHECK(weights_open(&w, s->path, &unexpected), unexpected);
    r->vocab = w->config.vocab;
    open_loops(r);
    assign(r, s, w);
    weights_close(w);
    while (r->ready < r->ranks)
        TRY(turn_all(r, e));
    return OK;
}

void ring_open(struct ring *r, const struct ring_setup *s)
{
    struct error e = {0};
    CHECK(ring_try_open(r, s, &e), e);
}

void ring_close(struct ring *r)
{
    for (int i = 0; i < r->ranks; i++) {
        worker_free(r->worker[i]);
        loop_close(r->loop[i]);
    }
    free(r->logits);
    memset(r, 0, sizeof *r);
}

void ring_feed(struct ring *r, const struct run *runs, uint32_t n_runs, const uint32_t *tokens)
{
    struct error e = {0};
    struct message m = {.kind = MSG_TOKENS, .payload = tokens};
    m.tokens.batch = r->sent++;
    m.tokens.n_runs = n_runs;
    memcpy(m.tokens.runs, runs, n_runs * sizeof *runs);
    for (uint32_t i = 0; i < n_runs; i++)
        m.payload_bytes += runs[i].count * sizeof *tokens;
    CHECK(loop_send(r->loop[0], 0, &m, &e), e);
}

void ring_wait(struct ring *r)
{
    struct error e = {0};
    while (r->answers < r->sent)
        CHECK(turn_all(r, &e), e);
}

enum status ring_turns(struct ring *r, struct error *e)
{
    for (int i = 0; i < 1000; i++)
        TRY(turn_all(r, e));
    return OK;
}

const float *ring_logits(struct ring *r, const uint32_t *tokens, uint32_t n, uint32_t cut)
{
    r->rows = 0;
    for (uint32_t at = 0; at < n; at += cut) {
        uint32_t count = n - at < cut ? n - at : cut;
        ring_feed(r, &(struct run){0, at, count, count}, 1, tokens + at);
    }
    ring_wait(r);
    assert_int_equal(r->rows, n);
    return r->logits;
}
