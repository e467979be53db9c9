/* Frames between ranks: a small interface with two implementations, MPI (transport_mpi.c, the
 * only file that knows MPI) and ranks as threads of one process (transport_local.c: one rank
 * when sbit is started without mpirun; several, with delay, drop and kill injection, in tests).
 *
 * One frame is one message of docs/wire.md. Sending never blocks: the transport keeps the bytes
 * until they are gone. A frame to oneself goes through a queue. Frames between two ranks arrive
 * in order. All calls on one transport come from one thread. */
#ifndef SBIT_COMMON_TRANSPORT_H
#define SBIT_COMMON_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct frame {
    uint8_t *bytes; /* malloc'd; NULL: no frame */
    size_t size;
    int peer;       /* whom it came from */
};

struct transport {
    int rank, size;
    const struct transport_ops *ops;
};

struct transport_ops {
    enum status (*send)(struct transport *t, int to, uint8_t *bytes, size_t size, struct error *e);
    enum status (*poll)(struct transport *t, struct frame *out, struct error *e);
    size_t (*pending)(struct transport *t);
    void (*close)(struct transport *t);
    void (*abort)(struct transport *t, int exit_code);
};

/* Starts sending size bytes to rank to; takes bytes (malloc'd) in any case. Errors: ERR_PEER. */
enum status transport_send(struct transport *t, int to, uint8_t *bytes, size_t size,
                           struct error *e);
/* One received frame into *out (the caller's, free(out->bytes)), or out->bytes NULL when there
 * is none. Also moves pending sends along. Errors: ERR_PEER, ERR_MEMORY. */
enum status transport_poll(struct transport *t, struct frame *out, struct error *e);
/* Bytes of frames handed to transport_send and not yet gone. */
size_t transport_pending(struct transport *t);
/* Orderly end: waits (at most 10 s) for pending sends, finalises MPI, frees t. NULL is fine. */
void transport_close(struct transport *t);
/* Ends all ranks at once, for when a rank does not answer. Does not return under MPI. */
void transport_abort(struct transport *t, int exit_code);

/* Whether this process was started by mpirun or srun (environment of Open MPI, PMIx, PMI). */
bool transport_mpi_launched(void);
/* Joins the MPI job. *out is the caller's, transport_close. */
enum status transport_mpi_open(struct transport **out, struct error *e);

struct transport_faults { /* for tests; zero: none */
    uint32_t delay_us;    /* each frame waits a random time up to this */
    int kill_rank;        /* this rank ... */
    uint64_t kill_after;  /* ... vanishes after sending so many frames (0: never): what it sends and
                           * what is sent to it is lost */
    int drop_from;        /* frames of this rank ... */
    uint64_t drop_number; /* ... number so many (from 1; 0: none) is lost */
    uint64_t seed;
};
/* n transports out[0..n) that talk to each other inside one process; each may live in its own
 * thread. Each is closed by itself. faults may be NULL. */
enum status transport_local_open(struct transport **out, int n,
                                 const struct transport_faults *faults, struct error *e);

#endif
