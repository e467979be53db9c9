/* What the implementations of the transport share: checks, dispatch, the queue. Knows neither
 * MPI nor threads. */
#include "common/transport.h"

#include <stdlib.h>
#include <time.h>

#include "common/transport_queue.h"
#include "common/wire.h"

enum status transport_send(struct transport *t, int to, uint8_t *bytes, size_t size,
                           struct error *e)
{
    if (to < 0 || to >= t->size) {
        free(bytes);
        return error_set(e, ERR_PEER, "rank %d cannot send to rank %d: this job has %d ranks",
                         t->rank, to, t->size);
    }
    if (size > WIRE_FRAME_MAX) {
        free(bytes);
        return error_set(e, ERR_LIMIT,
                         "a message of %zu bytes to rank %d is over the limit of 1 GiB: use a "
                         "smaller --batch",
                         size, to);
    }
    return t->ops->send(t, to, bytes, size, e);
}

enum status transport_poll(struct transport *t, struct frame *out, struct error *e)
{
    *out = (struct frame){0};
    return t->ops->poll(t, out, e);
}

size_t transport_pending(struct transport *t)
{
    return t->ops->pending(t);
}

void transport_close(struct transport *t)
{
    if (t)
        t->ops->close(t);
}

void transport_abort(struct transport *t, int exit_code)
{
    t->ops->abort(t, exit_code);
}

bool transport_mpi_launched(void)
{
    /* Open MPI's mpirun (4 and 5), any PMIx launcher, MPICH-like and Slurm's PMI-1/2.
     * SLURM_PROCID alone is not enough: batch scripts have it too. */
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK",
                                        "PMI_SIZE"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (getenv(names[i]))
            return true;
    return getenv("SLURM_PROCID") && getenv("SLURM_MPI_TYPE");
}

uint64_t transport_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

bool frame_queue_push(struct frame_queue *q, uint8_t *bytes, size_t size, int peer, uint64_t due_ns)
{
    struct queued_frame *f = malloc(sizeof *f);
    if (!f)
        return false;
    *f = (struct queued_frame){.frame = {bytes, size, peer}, .due_ns = due_ns};
    if (q->last)
        q->last->next = f;
    else
        q->first = f;
    q->last = f;
    return true;
}

bool frame_queue_pop(struct frame_queue *q, uint64_t now_ns, struct frame *out)
{
    struct queued_frame *previous = NULL;
    for (struct queued_frame *f = q->first; f; previous = f, f = f->next) {
        if (f->due_ns > now_ns)
            continue;
        if (previous)
            previous->next = f->next;
        else
            q->first = f->next;
        if (q->last == f)
            q->last = previous;
        *out = f->frame;
        free(f);
        return true;
    }
    *out = (struct frame){0};
    return false;
}

void frame_queue_clear(struct frame_queue *q)
{
    struct frame f;
    while (frame_queue_pop(q, UINT64_MAX, &f))
        free(f.bytes);
}
