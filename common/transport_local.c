/* Ranks as threads of one process: a hub of mailboxes, one per rank. With one rank it is what
 * sbit uses without mpirun; with several, and with delay, loss and death injected, it serves the
 * tests. Knows nothing of what frames mean. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "common/mem.h"
#include "common/transport.h"
#include "common/transport_queue.h"

struct mailbox {
    pthread_mutex_t lock;
    struct frame_queue queue;
    uint64_t *last_due;   /* [n] when the newest frame of each sender is due: keeps their order */
    bool closed;          /* nobody will read it: frames to it are lost */
    atomic_size_t unread; /* bytes sent by this rank and not yet taken by their receivers */
};

struct hub {
    int n;
    atomic_int open; /* transports not yet closed; the last one frees the hub */
    struct transport_faults faults;
    struct mailbox *mailboxes; /* [n] */
};

struct local {
    struct transport base;
    struct hub *hub;
    uint64_t sent;   /* frames to other ranks */
    uint64_t random; /* state of the delays */
    bool dead;       /* the kill fault struck */
};

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Counts the frame and decides by the faults whether it gets through. */
static bool survives(struct local *l)
{
    const struct transport_faults *f = &l->hub->faults;
    if (l->dead)
        return false;
    l->sent++;
    if (f->kill_after && f->kill_rank == l->base.rank && l->sent >= f->kill_after)
        l->dead = true;
    return !(f->drop_number && f->drop_from == l->base.rank && l->sent == f->drop_number);
}

/* Puts the frame into the mailbox; false when memory is short. */
static bool deliver(struct local *l, int to, uint8_t *bytes, size_t size)
{
    struct mailbox *box = &l->hub->mailboxes[to];
    int from = l->base.rank;
    uint64_t due = 0;
    bool ok = true;
    if (to != from && l->hub->faults.delay_us)
        due = transport_now_ns() +
              random_next(&l->random) % ((uint64_t)l->hub->faults.delay_us * 1000 + 1);
    pthread_mutex_lock(&box->lock);
    if (due < box->last_due[from])
        due = box->last_due[from];
    box->last_due[from] = due;
    if (box->closed) {
        free(bytes);
    } else {
        ok = frame_queue_push(&box->queue, bytes, size, from, due);
        if (ok)
            atomic_fetch_add(&l->hub->mailboxes[from].unread, size);
    }
    pthread_mutex_unlock(&box->lock);
    return ok;
}

static enum status local_send(struct transport *t, int to, uint8_t *bytes, size_t size,
                              struct error *e)
{
    struct local *l = (struct local *)t;
    if (l->dead || (to != t->rank && !survives(l))) {
        free(bytes);
        return OK;
    }
    if (!deliver(l, to, bytes, size)) {
        free(bytes);
        return error_set(e, ERR_MEMORY, "out of memory: a message of %zu bytes", size);
    }
    return OK;
}

static enum status local_poll(struct transport *t, struct frame *out, struct error *e)
{
    struct local *l = (struct local *)t;
    struct mailbox *box = &l->hub->mailboxes[t->rank];
    (void)e;
    if (l->dead)
        return OK;
    pthread_mutex_lock(&box->lock);
    /* The clock is asked only where frames can be late. */
    uint64_t now = l->hub->faults.delay_us ? transport_now_ns() : UINT64_MAX;
    bool found = frame_queue_pop(&box->queue, now, out);
    pthread_mutex_unlock(&box->lock);
    if (found)
        atomic_fetch_sub(&l->hub->mailboxes[out->peer].unread, out->size);
    return OK;
}

static size_t local_pending(struct transport *t)
{
    struct local *l = (struct local *)t;
    return l->dead ? 0 : atomic_load(&l->hub->mailboxes[t->rank].unread);
}

static void hub_free(struct hub *hub)
{
    for (int i = 0; hub->mailboxes && i < hub->n; i++) {
        frame_queue_clear(&hub->mailboxes[i].queue);
        pthread_mutex_destroy(&hub->mailboxes[i].lock);
        free(hub->mailboxes[i].last_due);
    }
    free(hub->mailboxes);
    free(hub);
}

/* Frames on their way to others stay in their mailboxes; there is nothing to wait for. */
static void local_close(struct transport *t)
{
    struct local *l = (struct local *)t;
    struct hub *hub = l->hub;
    struct mailbox *box = &hub->mailboxes[t->rank];
    struct frame f;
    pthread_mutex_lock(&box->lock);
    box->closed = true;
    while (frame_queue_pop(&box->queue, UINT64_MAX, &f)) {
        atomic_fetch_sub(&hub->mailboxes[f.peer].unread, f.size);
        free(f.bytes);
    }
    pthread_mutex_unlock(&box->lock);
    free(l);
    if (atomic_fetch_sub(&hub->open, 1) == 1)
        hub_free(hub);
}

/* There is no process to end: the rank merely falls silent. */
static void local_abort(struct transport *t, int exit_code)
{
    (void)exit_code;
    ((struct local *)t)->dead = true;
}

static const struct transport_ops local_ops = {local_send, local_poll, local_pending, local_close,
                                               local_abort};

static enum status hub_create(struct hub **out, int n, const struct transport_faults *faults,
                              struct error *e)
{
    struct hub *hub = calloc(1, sizeof *hub);
    *out = hub;
    FAIL_IF(!hub, e, ERR_MEMORY, "out of memory: the transport between %d ranks", n);
    if (faults)
        hub->faults = *faults;
    TRY(mem_array(&hub->mailboxes, (size_t)n, sizeof *hub->mailboxes, "mailboxes", e));
    for (; hub->n < n; hub->n++) {
        struct mailbox *box = &hub->mailboxes[hub->n];
        TRY(mem_array(&box->last_due, (size_t)n, sizeof *box->last_due, "mailboxes", e));
        pthread_mutex_init(&box->lock, NULL);
    }
    atomic_init(&hub->open, n);
    return OK;
}

enum status transport_local_open(struct transport **out, int n,
                                 const struct transport_faults *faults, struct error *e)
{
    struct hub *hub = NULL;
    FAIL_IF(n < 1 || n > 4096, e, ERR_USAGE, "a job has 1 to 4096 ranks, not %d", n);
    for (int i = 0; i < n; i++)
        out[i] = NULL;
    if (hub_create(&hub, n, faults, e) == OK)
        for (int i = 0; i < n; i++) {
            struct local *l = calloc(1, sizeof *l);
            if (!l) {
                error_set(e, ERR_MEMORY, "out of memory: rank %d", i);
                break;
            }
            l->base = (struct transport){i, n, &local_ops};
            l->hub = hub;
            l->random = hub->faults.seed + (uint64_t)i * 1000003;
            out[i] = &l->base;
        }
    if (e->status == OK)
        return OK;
    for (int i = 0; i < n; i++) {
        free(out[i]);
        out[i] = NULL;
    }
    if (hub)
        hub_free(hub);
    return e->status;
}
