/* The MPI transport between real processes: small frames, frames of 8 MB, floods in all
 * directions at once, frames to oneself. Run under mpirun with any number of ranks; every rank
 * checks what it receives and the exit code says whether all was well. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/loop.h"
#include "common/transport.h"

enum { MAX_RANKS = 64, HEAD = 16 };

struct plan { /* what each rank sends to each rank */
    const char *name;
    uint32_t frames;
    size_t smallest, largest; /* bytes, at least HEAD */
};

static const struct plan plans[] = {
    {"small frames", 3000, HEAD, 200},
    {"around the eager limits", 60, 2000, 140000},
    {"large frames", 4, 1 << 20, 8 << 20},
    {"mixed sizes", 40, HEAD, 2 << 20},
};

/* Size and contents follow from sender, receiver and number, so that the receiver can check
 * both. */
static uint64_t mix(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t z = a * 0x9e3779b97f4a7c15u ^ b * 0xbf58476d1ce4e5b9u ^ c * 0x94d049bb133111ebu;
    z = (z ^ (z >> 31)) * 0xd6e8feb86659fd93u;
    return z ^ (z >> 32);
}

static size_t size_of(const struct plan *p, int from, int to, uint32_t number)
{
    /* Every third frame is as small as allowed: it must not overtake a large one. */
    if (number % 3 == 2)
        return p->smallest;
    return p->smallest + mix((uint64_t)from, (uint64_t)to, number) % (p->largest - p->smallest + 1);
}

static void die(const struct transport *t, const char *what)
{
    fprintf(stderr, "rank %d: %s\n", t->rank, what);
    abort();
}

static void send_one(struct transport *t, const struct plan *p, int to, uint32_t number)
{
    struct error e = {0};
    size_t size = size_of(p, t->rank, to, number);
    uint8_t *bytes = malloc(size);
    if (!bytes)
        die(t, "out of memory");
    memset(bytes, (int)(number * 31 + (uint32_t)t->rank), size);
    memcpy(bytes, &number, sizeof number);
    if (transport_send(t, to, bytes, size, &e) != OK)
        die(t, e.text);
}

static void check_one(struct transport *t, const struct plan *p, const struct frame *f,
                      uint32_t expected)
{
    uint32_t number;
    if (f->size < HEAD || f->size != size_of(p, f->peer, t->rank, expected))
        die(t, "a frame has the wrong size or came out of order");
    memcpy(&number, f->bytes, sizeof number);
    uint8_t fill = (uint8_t)(number * 31 + (uint32_t)f->peer);
    if (number != expected)
        die(t, "a frame came out of order");
    for (size_t i = sizeof number; i<f->size; i += f->size> 100000 ? 997 : 1)
        if (f->bytes[i] != fill)
            die(t, "a frame has the wrong contents");
    if (f->bytes[f->size - 1] != fill)
        die(t, "a frame ends wrongly");
}

struct progress { /* of what one rank sends to this one */
    size_t plan;
    uint32_t frames;
};

/* Takes one frame if there is one and checks it against its sender's plan: a sender may be a
 * plan ahead. */
static void take_one(struct transport *t, struct progress *all)
{
    struct error e = {0};
    struct frame f;
    if (transport_poll(t, &f, &e) != OK)
        die(t, e.text);
    if (!f.bytes)
        return;
    struct progress *from = &all[f.peer];
    if (from->plan >= sizeof plans / sizeof plans[0])
        die(t, "a frame too many came");
    check_one(t, &plans[from->plan], &f, from->frames++);
    if (from->frames == plans[from->plan].frames)
        *from = (struct progress){from->plan + 1, 0};
    free(f.bytes);
}

static bool all_received(const struct transport *t, const struct progress *all, size_t plan)
{
    for (int i = 0; i < t->size; i++)
        if (all[i].plan <= plan)
            return false;
    return true;
}

/* Everybody sends everything at once, as fast as possible, and only then looks at what came. */
static void run(struct transport *t, size_t plan, struct progress *all)
{
    for (uint32_t number = 0; number < plans[plan].frames; number++)
        for (int to = 0; to < t->size; to++)
            send_one(t, &plans[plan], to, number);
    while (!all_received(t, all, plan) || transport_pending(t))
        take_one(t, all);
}

int main(void)
{
    struct transport *t;
    struct error e = {0};
    static struct progress all[MAX_RANKS];
    if (!transport_mpi_launched()) {
        fprintf(stderr, "not started by mpirun\n");
        return 1;
    }
    if (transport_mpi_open(&t, &e) != OK) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    if (t->size > MAX_RANKS)
        die(t, "too many ranks");
    for (size_t i = 0; i < sizeof plans / sizeof plans[0]; i++) {
        double start = loop_now();
        run(t, i, all);
        if (t->rank == 0)
            printf("%s: %.2f s\n", plans[i].name, loop_now() - start);
    }
    transport_close(t);
    return 0;
}
