/* Micro-batches on their way through the ring, first in first out. */
#include "coordinator/pipeline.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

struct flight {            /* a micro-batch on its way */
    uint32_t n_runs, rows; /* rows: of logits */
    struct run runs[WIRE_RUNS_MAX];
    uint32_t arrived; /* jobs whose logits are here */
    float *logits[PIPELINE_JOBS];
};

struct pipeline {
    struct pipeline_setup setup;
    struct sched_limits limits;
    struct sched_sequence *sequences; /* [setup.sequences] */
    const uint32_t **tokens;          /* [setup.sequences] */
    uint32_t *payload;                /* [batch] scratch for submission */
    struct flight *flights;           /* ring of limits.flying, the oldest at number first */
    uint64_t first, next;             /* numbers of the oldest micro-batch and of the one to come */
};

static struct flight *flight_at(struct pipeline *p, uint64_t number)
{
    return &p->flights[number % p->limits.flying];
}

uint32_t pipeline_flying(const struct pipeline *p)
{
    return (uint32_t)(p->next - p->first);
}

/* Writes the tokens of the runs into the scratch payload; returns how many. */
static uint32_t collect_tokens(struct pipeline *p, const struct flight *f)
{
    uint32_t n = 0;
    for (uint32_t r = 0; r < f->n_runs; r++) {
        const struct run *run = &f->runs[r];
        memcpy(p->payload + n, p->tokens[run->sequence] + run->position,
               run->count * sizeof *p->payload);
        n += run->count;
    }
    return n;
}

static enum status submit(struct pipeline *p, struct flight *f, struct error *e)
{
    struct message m = {.kind = MSG_TOKENS};
    m.payload = p->payload;
    m.payload_bytes = collect_tokens(p, f) * sizeof *p->payload;
    m.tokens.batch = p->next;
    m.tokens.n_runs = f->n_runs;
    memcpy(m.tokens.runs, f->runs, f->n_runs * sizeof *f->runs);
    f->arrived = f->rows = 0;
    for (uint32_t r = 0; r < f->n_runs; r++)
        f->rows += f->runs[r].logits;
    for (uint32_t job = 0; job < p->setup.jobs; job++) {
        m.tokens.job = job;
        TRY(loop_send(p->setup.cluster->loop, 0, &m, e));
    }
    p->next++;
    scheduler_submitted(p->sequences, p->setup.sequences, f->runs, f->n_runs);
    return OK;
}

enum status pipeline_pump(struct pipeline *p, struct error *e)
{
    for (;;) {
        struct flight *f = flight_at(p, p->next);
        uint32_t flying = pipeline_flying(p);
        if (flying == p->limits.flying) /* *f is the oldest one */
            return OK;
        f->n_runs = scheduler_next(p->sequences, p->setup.sequences, &p->limits, flying, f->runs);
        if (f->n_runs == 0)
            return OK;
        TRY(submit(p, f, e));
    }
}

static void drop_logits(struct flight *f)
{
    for (int job = 0; job < PIPELINE_JOBS; job++) {
        free(f->logits[job]);
        f->logits[job] = NULL;
    }
}

/* Hands the logits of the oldest micro-batch to the command, run by run. */
static enum status deliver(struct pipeline *p, struct flight *f, struct error *e)
{
    const float *rows[PIPELINE_JOBS] = {f->logits[0], f->logits[1]};
    enum status status = OK;
    p->first++;
    for (uint32_t r = 0; r < f->n_runs && status == OK; r++) {
        status = p->setup.logits(p->setup.self, &f->runs[r], rows, e);
        for (uint32_t job = 0; job < p->setup.jobs; job++)
            rows[job] += (size_t)f->runs[r].logits * p->setup.vocab;
    }
    drop_logits(f);
    return status;
}

/* Copies the payload, which stands in its frame at any alignment. */
static enum status take_logits(struct pipeline *p, struct flight *f, const struct message *m,
                               struct error *e)
{
    const struct msg_logits *l = &m->logits;
    size_t count = (size_t)f->rows * p->setup.vocab;
    FAIL_IF(l->rows != f->rows || (l->rows && l->cols != p->setup.vocab) ||
                m->payload_bytes != count * sizeof(float),
            e, ERR_PEER, "micro-batch %llu came back with %u x %u logits instead of %u x %u",
            (unsigned long long)l->batch, l->rows, l->cols, f->rows, p->setup.vocab);
    FAIL_IF(f->logits[l->job], e, ERR_PEER, "the logits of micro-batch %llu came twice",
            (unsigned long long)l->batch);
    TRY(mem_array(&f->logits[l->job], count, sizeof(float), "logits", e));
    if (count)
        memcpy(f->logits[l->job], m->payload, count * sizeof(float));
    f->arrived++;
    return OK;
}

static enum status handle(void *self, struct message *m, struct error *e)
{
    struct pipeline *p = self;
    FAIL_IF(m->kind != MSG_LOGITS, e, ERR_PEER, "rank %d sent a %s message instead of logits",
            m->peer, message_name(m->kind));
    const struct msg_logits *l = &m->logits;
    FAIL_IF(l->job >= p->setup.jobs || l->batch < p->first || l->batch >= p->next, e, ERR_PEER,
            "logits of micro-batch %llu of job %u came, which was not submitted",
            (unsigned long long)l->batch, l->job);
    TRY(take_logits(p, flight_at(p, l->batch), m, e));
    while (p->first < p->next && flight_at(p, p->first)->arrived == p->setup.jobs)
        TRY(deliver(p, flight_at(p, p->first), e));
    return pipeline_pump(p, e);
}

void pipeline_feed(struct pipeline *p, uint32_t slot, const uint32_t *tokens, uint32_t position,
                   uint32_t end, uint32_t logits_from, bool decoding)
{
    p->tokens[slot] = tokens;
    p->sequences[slot] = (struct sched_sequence){.slot = slot,
                                                 .position = position,
                                                 .end = end,
                                                 .logits_from = logits_from,
                                                 .decoding = decoding};
}

uint32_t pipeline_halt(struct pipeline *p, uint32_t slot)
{
    return p->sequences[slot].end = p->sequences[slot].position;
}

static enum status allocate(struct pipeline *p, struct error *e)
{
    uint32_t n = p->setup.sequences;
    TRY(mem_array(&p->sequences, n, sizeof *p->sequences, "sequences", e));
    TRY(mem_array(&p->tokens, n, sizeof *p->tokens, "sequences", e));
    TRY(mem_array(&p->payload, p->setup.batch, sizeof *p->payload, "a micro-batch", e));
    TRY(mem_array(&p->flights, p->limits.flying, sizeof *p->flights, "micro-batches", e));
    for (uint32_t slot = 0; slot < n; slot++)
        p->sequences[slot].slot = slot;
    return OK;
}

enum status pipeline_open(struct pipeline **out, const struct pipeline_setup *setup,
                          struct error *e)
{
    struct pipeline *p;
    TRY(mem_array(&p, 1, sizeof *p, "the pipeline", e));
    p->setup = *setup;
    p->limits = (struct sched_limits){
        .batch = setup->batch, .stages = setup->stages, .flying = setup->stages + 1};
    enum status status = allocate(p, e);
    setup->cluster->inner = (struct endpoint){.self = p, .handle = handle};
    *out = p;
    if (status != OK) {
        pipeline_close(p);
        *out = NULL;
    }
    return status;
}

void pipeline_close(struct pipeline *p)
{
    if (!p)
        return;
    p->setup.cluster->inner = (struct endpoint){0};
    for (uint32_t i = 0; p->flights && i < p->limits.flying; i++)
        drop_logits(&p->flights[i]);
    free(p->sequences);
    free(p->tokens);
    free(p->payload);
    free(p->flights);
    free(p);
}
