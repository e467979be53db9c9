/* Dispatch of messages to this rank's jobs: up to two slices (the model, and the reference of an
 * evaluation), and the two halves of a compression: what this rank does alone, and what all do
 * together. Owns the jobs; must never know what they compute. */
#include "worker/worker.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/mem.h"
#include "worker/affinity.h"
#include "worker/calibrated.h"
#include "worker/compress.h"
#include "worker/probe.h"
#include "worker/queue.h"
#include "worker/slice.h"
#include "worker/source.h"

#define JOBS 2

struct worker {
    struct loop *loop;
    struct slice_job *slices[JOBS];
    struct source *source; /* of a compression */
    struct queue probe;    /* a MSG_CALIB that asks for measurements, until the source is there */
    struct compress_job *compress;
    struct calibrated *calibrated;
    int turn; /* which slice is asked first */
};

static enum status handle_assign(struct worker *w, const struct msg_assign *a, struct error *e)
{
    FAIL_IF(a->job >= JOBS, e, ERR_PEER, "asked to run job %u: there are 0 and 1", a->job);
    slice_free(w->slices[a->job]);
    w->slices[a->job] = NULL;
    affinity_widen((int)a->threads);
    return slice_create(&w->slices[a->job], a, w->loop, e);
}

static enum status handle_compress(struct worker *w, const struct msg_compress *m, struct error *e)
{
    FAIL_IF(!w->source, e, ERR_PEER, "asked to compress before a model was named");
    affinity_widen((int)m->threads);
    if (w->calibrated)
        TRY(calibrated_units(w->calibrated, m, e));
    return compress_add(&w->compress, w->loop, w->source, m, e);
}

static enum status accept_probe(struct worker *w, struct message *m, struct error *e)
{
    TRY(probe_want(w->source, m, e));
    return queue_put(&w->probe, m, e);
}

static enum status step_probe(struct worker *w, bool *busy, struct error *e)
{
    if (queue_empty(&w->probe) || !source_ready(w->source))
        return OK;
    struct message *m = queue_take(&w->probe);
    enum status status = probe_run(w->loop, w->source, m, e);
    queue_release(m);
    *busy = true;
    return status;
}

static enum status handle_source(struct worker *w, const struct message *m, struct error *e)
{
    if (m->kind == MSG_SOURCE) {
        FAIL_IF(w->source, e, ERR_PEER, "a second model was named");
        return source_open(&w->source, w->loop, m, e);
    }
    FAIL_IF(!w->source, e, ERR_PEER, "a piece of a model came before it was named");
    return source_take(w->source, m, e);
}

static enum status handle_calibrated(struct worker *w, struct message *m, struct error *e)
{
    if (m->kind == MSG_CALIB) {
        FAIL_IF(w->calibrated || !w->source, e, ERR_PEER,
                "a calibration text came twice, or before a model was named");
        affinity_widen((int)m->calib.threads);
        if (m->calib.probe)
            return accept_probe(w, m, e);
        return calibrated_create(&w->calibrated, w->loop, w->source, m, e);
    }
    FAIL_IF(!w->calibrated, e, ERR_PEER, "rank %d sent a message of kind %d before any text",
            m->peer, (int)m->kind);
    return calibrated_accept(w->calibrated, m, e);
}

static enum status handle(void *self, struct message *m, struct error *e)
{
    struct worker *w = self;
    if (m->kind == MSG_ASSIGN)
        return handle_assign(w, &m->assign, e);
    if (m->kind == MSG_SOURCE || m->kind == MSG_FETCHED)
        return handle_source(w, m, e);
    if (m->kind == MSG_COMPRESS)
        return handle_compress(w, &m->compress, e);
    if (m->kind == MSG_CALIB || m->kind == MSG_MOMENTS || m->kind == MSG_PART ||
        m->kind == MSG_GRADIENT || m->kind == MSG_STATE)
        return handle_calibrated(w, m, e);
    FAIL_IF(m->kind != MSG_TOKENS && m->kind != MSG_HIDDEN, e, ERR_PEER,
            "a message of kind %d is not for a worker", (int)m->kind);
    uint32_t job = m->kind == MSG_TOKENS ? m->tokens.job : m->hidden.job;
    FAIL_IF(job >= JOBS || !w->slices[job], e, ERR_PEER,
            "a micro-batch came for job %u, which was not assigned", job);
    return slice_accept(w->slices[job], m, e);
}

static enum status step(void *self, bool *busy, struct error *e)
{
    struct worker *w = self;
    /* One slice at a time, in turns: the loop must look at its messages between two blocks. */
    for (int i = 0; i < JOBS && !*busy; i++) {
        struct slice_job *slice = w->slices[(w->turn + i) % JOBS];
        if (slice)
            TRY(slice_step(slice, busy, e));
        if (*busy)
            w->turn = (w->turn + i + 1) % JOBS;
    }
    if (w->source)
        TRY(source_step(w->source, busy, e));
    TRY(step_probe(w, busy, e));
    if (!*busy && w->compress)
        TRY(compress_step(w->compress, busy, e));
    return !*busy && w->calibrated ? calibrated_step(w->calibrated, busy, e) : OK;
}

static void doing(void *self, char out[128])
{
    const struct worker *w = self;
    for (int i = 0; i < JOBS; i++)
        if (w->slices[i] && slice_doing(w->slices[i], out))
            return;
    if (w->calibrated && calibrated_doing(w->calibrated, out))
        return;
    if (w->compress)
        compress_doing(w->compress, out);
    else
        snprintf(out, 128, "waiting");
}

enum status worker_create(struct worker **out, struct loop *loop, struct error *e)
{
    struct worker *w;
    TRY(mem_array(&w, 1, sizeof *w, "a worker", e));
    w->loop = loop;
    loop->worker = (struct endpoint){w, handle, step, doing};
    *out = w;
    return OK;
}

void worker_free(struct worker *w)
{
    if (!w)
        return;
    for (int i = 0; i < JOBS; i++)
        slice_free(w->slices[i]);
    compress_free(w->compress);
    calibrated_free(w->calibrated);
    queue_clear(&w->probe);
    source_close(w->source);
    w->loop->worker = (struct endpoint){0};
    free(w);
}
