/* The ranks as rank 0 sees them: collects their greetings, opens the ring for a model, asks for
 * their numbers. Passes on to the running command what is not its own; never looks inside a
 * model. */
#include "coordinator/cluster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

static bool no_one_awaited(void *self)
{
    return ((struct cluster *)self)->awaited == 0;
}

/* Starts waiting for an answer of every rank; those without a part are then marked as answered. */
static void await(struct cluster *c, enum message_kind kind)
{
    memset(c->answered, 0, (size_t)c->size * sizeof *c->answered);
    c->awaited = (uint32_t)c->size;
    c->waiting = kind;
}

static void mark_answered(struct cluster *c, int rank)
{
    if (!c->answered[rank]) {
        c->answered[rank] = true;
        c->awaited--;
    }
}

static void take_answer(struct cluster *c, const struct message *m)
{
    if (m->kind == MSG_HELLO)
        c->hello[m->peer] = m->hello;
    if (m->kind == MSG_STATS)
        c->stats[m->peer] = m->stats;
    if (m->kind == c->waiting && (m->kind != MSG_READY || m->ready.job == c->ready_job))
        mark_answered(c, m->peer);
}

static enum status cluster_handle(void *self, struct message *m, struct error *e)
{
    struct cluster *c = self;
    FAIL_IF(m->peer < 0 || m->peer >= c->size, e, ERR_PEER, "a message came from rank %d of %d",
            m->peer, c->size);
    switch (m->kind) {
    case MSG_HELLO:
    case MSG_READY:
    case MSG_STATS:
        take_answer(c, m);
        return OK;
    case MSG_PONG: /* the loop has noted it */
        return OK;
    default:
        FAIL_IF(!c->inner.handle, e, ERR_PEER, "rank %d sent a %s message that nobody asked for",
                m->peer, message_name(m->kind));
        return c->inner.handle(c->inner.self, m, e);
    }
}

static enum status cluster_step(void *self, bool *busy, struct error *e)
{
    struct cluster *c = self;
    return c->inner.step ? c->inner.step(c->inner.self, busy, e) : OK;
}

enum status cluster_wait(struct cluster *c, bool (*done)(void *self), void *self, struct error *e)
{
    return loop_until(c->loop, done, self, c->options->timeout, e);
}

static enum status check_versions(const struct cluster *c, struct error *e)
{
    const struct msg_hello *mine = &c->hello[0];
    for (int r = 1; r < c->size; r++) {
        const struct msg_hello *h = &c->hello[r];
        FAIL_IF(h->protocol != mine->protocol || strcmp(h->version, mine->version), e, ERR_PEER,
                "rank 0 (host %s) runs sbit %s, protocol %u, but rank %d (host %s) runs sbit %s, "
                "protocol %u: install the same version on every host",
                mine->host, mine->version, mine->protocol, r, h->host, h->version, h->protocol);
    }
    return OK;
}

/* A deadline passed while starting: says which ranks have not been heard of at all. */
static enum status name_missing(const struct cluster *c, struct error *e)
{
    char list[256] = "";
    for (int r = 0; r < c->size; r++) {
        size_t used = strlen(list);
        if (!c->answered[r])
            snprintf(list + used, sizeof list - used, "%s%d", used ? ", " : "", r);
    }
    *e = (struct error){0};
    return error_set(e, ERR_PEER,
                     "no greeting within %g s from rank %s of %d: does sbit start there?",
                     c->options->timeout, list, c->size);
}

static enum status collect_hellos(struct cluster *c, struct error *e)
{
    double started = loop_now();
    await(c, MSG_HELLO);
    enum status status = cluster_wait(c, no_one_awaited, c, e);
    if (status == ERR_PEER && loop_now() - started >= c->options->timeout)
        return name_missing(c, e);
    TRY(status);
    return check_versions(c, e);
}

static enum status allocate(struct cluster *c, struct error *e)
{
    size_t n = (size_t)c->size;
    TRY(mem_array(&c->hello, n, sizeof *c->hello, "greetings of the ranks", e));
    TRY(mem_array(&c->stats, n, sizeof *c->stats, "numbers of the ranks", e));
    return mem_array(&c->answered, n, sizeof *c->answered, "answers of the ranks", e);
}

enum status cluster_open(struct cluster **out, struct loop *loop, const struct options *options,
                         struct error *e)
{
    struct cluster *c;
    TRY(mem_array(&c, 1, sizeof *c, "the cluster", e));
    *out = c;
    c->loop = loop;
    c->options = options;
    c->size = loop->transport->size;
    c->stages = 1;
    enum status status = allocate(c, e);
    if (status == OK) {
        loop->coordinator =
            (struct endpoint){.self = c, .handle = cluster_handle, .step = cluster_step};
        status = collect_hellos(c, e);
    }
    if (status != OK) {
        cluster_close(c);
        *out = NULL;
    }
    return status;
}

void cluster_close(struct cluster *c)
{
    if (!c)
        return;
    c->loop->coordinator = (struct endpoint){0};
    free(c->hello);
    free(c->stats);
    free(c->answered);
    free(c);
}

uint32_t cluster_threads(const struct cluster *c, int rank)
{
    const struct msg_hello *mine = &c->hello[rank];
    uint32_t here = 0;
    if (c->options->threads)
        return c->options->threads;
    for (int r = 0; r < c->size; r++)
        here += !strcmp(c->hello[r].host, mine->host);
    return mine->cores > here ? mine->cores / here : 1;
}

uint32_t cluster_stages(const struct cluster *c)
{
    return c->stages;
}

/* The slices by the sizes of the blocks as stored. */
static enum status plan(const struct cluster *c, const struct weights *w, struct slice *slices,
                        struct error *e)
{
    uint32_t n = w->config.block_count;
    uint64_t *bytes;
    TRY(mem_array(&bytes, n, sizeof *bytes, "sizes of the blocks", e));
    for (uint32_t b = 0; b < n; b++)
        bytes[b] = weights_block_bytes(w, b);
    enum status status =
        plan_slices(bytes, n, weights_block_bytes(w, UINT32_MAX), (uint32_t)c->size, slices, e);
    free(bytes);
    return status;
}

/* What may surprise a reader of the results. */
static void say_unusual(const struct cluster *c, const struct weights *w)
{
    uint32_t idle = (uint32_t)c->size - c->stages;
    if (idle > 0)
        fprintf(stderr, "sbit: %s has %u blocks for %d ranks: %u rank%s stay%s idle\n", w->path,
                w->config.block_count, c->size, idle, idle == 1 ? "" : "s", idle == 1 ? "s" : "");
    if (c->stages > 1 && c->options->wire != WIRE_F32)
        fprintf(stderr,
                "sbit: --wire %s rounds what travels between ranks: results depend a little "
                "on how many there are\n",
                c->options->wire == WIRE_F16 ? "f16" : "q8");
}

static enum status send_assign(struct cluster *c, int rank, const struct slice *slices,
                               struct message *m, struct error *e)
{
    struct msg_assign *a = &m->assign;
    int next = rank + 1;
    while (next < c->size && slices[next].block_count == 0)
        next++;
    a->first_block = slices[rank].first_block;
    a->block_count = slices[rank].block_count;
    a->next_rank = next < c->size ? (uint32_t)next : 0;
    a->has_head = rank == 0;
    a->threads = cluster_threads(c, rank);
    return loop_send(c->loop, rank, m, e);
}

static enum status assign_all(struct cluster *c, const struct slice *slices, struct message *m,
                              struct error *e)
{
    c->stages = 1;
    for (int r = 1; r < c->size; r++)
        c->stages += slices[r].block_count > 0;
    await(c, MSG_READY);
    c->ready_job = m->assign.job;
    m->assign.stages = c->stages;
    for (int r = 0; r < c->size; r++) {
        if (r > 0 && slices[r].block_count == 0) {
            mark_answered(c, r);
            continue;
        }
        TRY(send_assign(c, r, slices, m, e));
        m->assign.stage++;
    }
    return cluster_wait(c, no_one_awaited, c, e);
}

enum status cluster_assign(struct cluster *c, uint32_t job, const struct weights *w,
                           uint32_t context, uint32_t sequences, uint32_t batch, struct error *e)
{
    struct message m = {.kind = MSG_ASSIGN};
    struct msg_assign *a = &m.assign;
    struct slice *slices;
    FAIL_IF(strlen(w->path) >= sizeof a->path, e, ERR_LIMIT,
            "%s: the path is longer than %zu bytes; use a shorter one", w->path,
            sizeof a->path - 1);
    strcpy(a->path, w->path);
    a->job = job;
    a->model_hash = w->header_hash;
    a->context = context;
    a->sequences = sequences;
    a->batch = batch;
    a->wire = c->options->wire;
    a->cache = c->options->kv;
    a->verify = !c->options->no_verify;
    TRY(mem_array(&slices, (size_t)c->size, sizeof *slices, "the plan", e));
    enum status status = plan(c, w, slices, e);
    if (status == OK)
        status = assign_all(c, slices, &m, e);
    free(slices);
    if (status == OK)
        say_unusual(c, w);
    return status;
}

enum status cluster_gather_stats(struct cluster *c, struct error *e)
{
    struct message m = {.kind = MSG_ASK_STATS};
    await(c, MSG_STATS);
    for (int r = 0; r < c->size; r++)
        TRY(loop_send(c->loop, r, &m, e));
    return cluster_wait(c, no_one_awaited, c, e);
}
