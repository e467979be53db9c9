/* The transport over MPI: the only file that knows it. Nothing here blocks: frames leave by
 * MPI_Isend and are tested in polls, and arrive by MPI_Improbe and MPI_Imrecv, tested in polls
 * too, because a frame of some megabytes is not there yet when its envelope is. All calls come
 * from one thread (FUNNELED). Errors of MPI become ERR_PEER, but a lost process is noticed by
 * mpirun, not here: it ends the whole job. */
#include <limits.h>
#include <mpi.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/transport.h"
#include "common/transport_queue.h"

#define TAG           1
#define RECEIVES_MAX  16 /* frames being received at once */
#define CLOSE_WAIT_S  10
#define POLL_SLEEP_NS 50000

struct receive {
    struct frame frame;
    MPI_Request request;
    int done;
};

struct mpi {
    struct transport base;
    struct frame_queue self; /* frames to this rank itself */
    size_t self_bytes, send_bytes;
    int sends, sends_room; /* frames on their way */
    MPI_Request *requests; /* [sends] */
    struct frame *frames;  /* [sends] */
    int *finished;         /* [sends] scratch for MPI_Testsome */
    int receives;
    struct receive receive[RECEIVES_MAX]; /* in order of their arrival */
    bool self_next;                       /* whose turn it is when both have frames */
};

static enum status fail(const struct mpi *t, int code, const char *doing, struct error *e)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    return error_set(e, ERR_PEER,
                     "rank %d: MPI failed while %s (%s): look whether all machines are up",
                     t->base.rank, doing, text);
}

static enum status make_room(struct mpi *t, struct error *e)
{
    if (t->sends < t->sends_room)
        return OK;
    int room = t->sends_room ? 2 * t->sends_room : 64;
    MPI_Request *requests = realloc(t->requests, (size_t)room * sizeof *requests);
    if (requests)
        t->requests = requests;
    struct frame *frames = realloc(t->frames, (size_t)room * sizeof *frames);
    if (frames)
        t->frames = frames;
    int *finished = realloc(t->finished, (size_t)room * sizeof *finished);
    if (finished)
        t->finished = finished;
    FAIL_IF(!requests || !frames || !finished, e, ERR_MEMORY,
            "out of memory: %d messages on their way", room);
    t->sends_room = room;
    return OK;
}

static enum status send_self(struct mpi *t, uint8_t *bytes, size_t size, struct error *e)
{
    if (!frame_queue_push(&t->self, bytes, size, t->base.rank, 0)) {
        free(bytes);
        return error_set(e, ERR_MEMORY, "out of memory: a message of %zu bytes", size);
    }
    t->self_bytes += size;
    return OK;
}

static enum status mpi_send(struct transport *base, int to, uint8_t *bytes, size_t size,
                            struct error *e)
{
    struct mpi *t = (struct mpi *)base;
    if (to == base->rank)
        return send_self(t, bytes, size, e);
    if (make_room(t, e) != OK) {
        free(bytes);
        return e->status;
    }
    /* The caller keeps size under WIRE_FRAME_MAX, which fits MPI's int. */
    int code =
        MPI_Isend(bytes, (int)size, MPI_BYTE, to, TAG, MPI_COMM_WORLD, &t->requests[t->sends]);
    if (code != MPI_SUCCESS) {
        free(bytes);
        return fail(t, code, "sending", e);
    }
    t->frames[t->sends++] = (struct frame){bytes, size, to};
    t->send_bytes += size;
    return OK;
}

/* Frees the frames that are gone and closes the gaps. */
static enum status test_sends(struct mpi *t, struct error *e)
{
    int count = 0, kept = 0;
    if (!t->sends)
        return OK;
    int code = MPI_Testsome(t->sends, t->requests, &count, t->finished, MPI_STATUSES_IGNORE);
    if (code != MPI_SUCCESS)
        return fail(t, code, "sending", e);
    if (count <= 0)
        return OK;
    for (int i = 0; i < t->sends; i++) {
        if (t->requests[i] == MPI_REQUEST_NULL) {
            t->send_bytes -= t->frames[i].size;
            free(t->frames[i].bytes);
            continue;
        }
        t->requests[kept] = t->requests[i];
        t->frames[kept++] = t->frames[i];
    }
    t->sends = kept;
    return OK;
}

/* Begins receiving one frame if there is one; *found tells. */
static enum status begin_receive(struct mpi *t, bool *found, struct error *e)
{
    MPI_Message message;
    MPI_Status status;
    int flag = 0, size = 0;
    *found = false;
    int code = MPI_Improbe(MPI_ANY_SOURCE, TAG, MPI_COMM_WORLD, &flag, &message, &status);
    if (code != MPI_SUCCESS)
        return fail(t, code, "looking for messages", e);
    if (!flag)
        return OK;
    MPI_Get_count(&status, MPI_BYTE, &size);
    FAIL_IF(size < 0, e, ERR_PEER, "rank %d sent a message of more than 2 GiB", status.MPI_SOURCE);
    struct receive *r = &t->receive[t->receives];
    *r = (struct receive){
        .frame = {malloc(size ? (size_t)size : 1), (size_t)size, status.MPI_SOURCE}};
    FAIL_IF(!r->frame.bytes, e, ERR_MEMORY, "out of memory: a message of %d bytes from rank %d",
            size, status.MPI_SOURCE);
    code = MPI_Imrecv(r->frame.bytes, size, MPI_BYTE, &message, &r->request);
    if (code != MPI_SUCCESS) {
        free(r->frame.bytes);
        return fail(t, code, "receiving", e);
    }
    t->receives++;
    *found = true;
    return OK;
}

static bool earlier_from(const struct mpi *t, int before, int peer)
{
    for (int i = 0; i < before; i++)
        if (t->receive[i].frame.peer == peer)
            return true;
    return false;
}

/* Gives out the oldest frame that is complete and has no older one of the same sender before it. */
static enum status take_received(struct mpi *t, struct frame *out, struct error *e)
{
    for (int i = 0; i < t->receives; i++) {
        struct receive *r = &t->receive[i];
        if (!r->done) {
            int code = MPI_Test(&r->request, &r->done, MPI_STATUS_IGNORE);
            if (code != MPI_SUCCESS)
                return fail(t, code, "receiving", e);
        }
        if (!r->done || earlier_from(t, i, r->frame.peer))
            continue;
        *out = r->frame;
        t->receives--;
        memmove(r, r + 1, (size_t)(t->receives - i) * sizeof *r);
        return OK;
    }
    return OK;
}

static enum status poll_network(struct mpi *t, struct frame *out, struct error *e)
{
    bool found = true;
    TRY(test_sends(t, e));
    while (found && t->receives < RECEIVES_MAX)
        TRY(begin_receive(t, &found, e));
    return take_received(t, out, e);
}

static enum status mpi_poll(struct transport *base, struct frame *out, struct error *e)
{
    struct mpi *t = (struct mpi *)base;
    bool self_first = t->self_next;
    t->self_next = !self_first;
    /* Turns are taken so that neither a flood from outside nor one from within starves the
     * other. */
    if (!self_first || !frame_queue_pop(&t->self, 0, out)) {
        TRY(poll_network(t, out, e));
        if (out->bytes)
            return OK;
        frame_queue_pop(&t->self, 0, out);
    }
    t->self_bytes -= out->size;
    return OK;
}

static size_t mpi_pending(struct transport *base)
{
    const struct mpi *t = (const struct mpi *)base;
    return t->send_bytes + t->self_bytes;
}

static void mpi_abort(struct transport *base, int exit_code)
{
    (void)base;
    MPI_Abort(MPI_COMM_WORLD, exit_code); /* does not return */
}

static void release(struct mpi *t)
{
    frame_queue_clear(&t->self);
    for (int i = 0; i < t->sends; i++)
        free(t->frames[i].bytes);
    free(t->requests);
    free(t->frames);
    free(t->finished);
    free(t);
}

/* Lets own frames leave and throws away what comes: a peer may need that to get rid of its own. */
static void mpi_close(struct transport *base)
{
    struct mpi *t = (struct mpi *)base;
    struct error ignored = {0};
    struct frame f = {0};
    uint64_t start = transport_now_ns();
    while (t->sends || t->receives) {
        enum status status = poll_network(t, &f, &ignored);
        free(f.bytes);
        f = (struct frame){0};
        /* Somebody does not take its messages, so that MPI_Finalize would wait for it forever. */
        if (status != OK || transport_now_ns() - start > (uint64_t)CLOSE_WAIT_S * 1000000000u)
            mpi_abort(base, 1);
        nanosleep(&(struct timespec){.tv_nsec = POLL_SLEEP_NS}, NULL);
    }
    release(t);
    MPI_Finalize();
}

static const struct transport_ops mpi_ops = {mpi_send, mpi_poll, mpi_pending, mpi_close, mpi_abort};

enum status transport_mpi_open(struct transport **out, struct error *e)
{
    int provided = 0;
    struct mpi *t = calloc(1, sizeof *t);
    *out = NULL;
    FAIL_IF(!t, e, ERR_MEMORY, "out of memory: the transport");
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS ||
        provided < MPI_THREAD_FUNNELED) {
        free(t);
        return error_set(e, ERR_PEER,
                         "MPI does not start with threads: use an MPI library built with "
                         "MPI_THREAD_FUNNELED, or run sbit without mpirun");
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &t->base.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &t->base.size);
    t->base.ops = &mpi_ops;
    *out = &t->base;
    return OK;
}
