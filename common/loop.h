/* The event loop of a rank: the only place that waits. One turn polls the transport, hands each
 * message to the worker or the coordinator, lets each do one bounded step, and when nothing
 * happened waits adaptively, because a blocking MPI receive burns a core: spins 200 us, then sleeps
 * 20 us growing to 1 ms, and less again around the time at which the wait before ended.
 *
 * Who gets what: the worker handles ASSIGN, TOKENS, HIDDEN, COMPRESS, CALIB, MOMENTS, PART, SOURCE, FETCHED; the
 * coordinator (rank 0) the answers HELLO, READY, LOGITS, PONG, STATS, TENSOR, UNIT_DONE, MEASURED, TUNED, WANT, PROBED,
 * OPENED, FETCH;
 * the loop itself PING, ASK_STATS, STOP and ERROR. */
#ifndef SBIT_COMMON_LOOP_H
#define SBIT_COMMON_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/transport.h"
#include "common/wire.h"

struct endpoint {
    void *self; /* NULL: nobody here */
    /* Handles m (may take payload ownership by clearing m->bytes). */
    enum status (*handle)(void *self, struct message *m, struct error *e);
    /* Does one bounded piece of work, if there is any; sets *busy then. May be NULL. */
    enum status (*step)(void *self, bool *busy, struct error *e);
    /* What self is doing, for PONG; at most 127 bytes. May be NULL. */
    void (*doing)(void *self, char out[128]);
};

struct loop {
    struct transport *transport;
    struct endpoint worker, coordinator;
    char host[128];
    bool stopped;     /* MSG_STOP came */
    bool stop_failed; /* ... and asked to leave with a non-zero exit code */
    bool worked;      /* a step did something since the last PONG */
    bool failed;      /* this rank's worker failed: it is not stepped any more */
    bool reported;    /* the failure of this rank was sent to rank 0: no need to print it here */
    bool peer_lost;   /* a rank missed its deadline: no orderly end is possible, loop_close aborts */
    struct msg_stats stats; /* what this rank reports: wait_s by the loop, the rest by the worker */
    double timeout_s;  /* silence that ends the job; 60 until loop_until or loop_serve sets it */
    double turned;     /* loop_now at the start of the last turn */
    double alive;      /* when loop_alive last sent something */
    double idle_since; /* 0: busy in the last turn */
    double waited;     /* how long the last wait lasted; 0: unknown, or long */
    double progress;   /* rank 0: when something other than PINGs and "waiting" last happened */
    /* What is known of each rank, [size]; ranks other than 0 look at entry 0 only. */
    double *last_heard;   /* loop_now when a message of it came last; time in which this rank itself
                           * did not turn is added, because nobody can be blamed for it */
    double *last_pinged;  /* when it was last asked */
    char (*host_of)[128]; /* from its HELLO; empty before */
    char (*doing)[128];   /* newest sign of what it does: its last PONG, or kind of message */
};

/* *loop takes the transport (loop_close closes it), also on failure. */
enum status loop_open(struct loop **loop, struct transport *t, struct error *e);
/* Closes the transport in an orderly way and frees; NULL is fine. After a missed deadline
 * (peer_lost) it ends all ranks at once instead and under MPI does not return: print what is to
 * be printed before. */
void loop_close(struct loop *loop);

/* Sends m to a rank (its own included); the payload is copied. */
enum status loop_send(struct loop *loop, int to, const struct message *m, struct error *e);

/* One turn as above. At rank 0 an incoming MSG_ERROR becomes ERR_PEER: "rank 2 (host pi3):
 * TEXT", and every rank is pinged once in a tenth of timeout_s: rank 0 must keep
 * turning as long as the job lasts, also while it waits for a person. Also ERR_INTERRUPTED after
 * SIGINT or SIGTERM (loop_catch_signals). */
enum status loop_turn(struct loop *loop, struct error *e);

/* Rank 0: turns until done(self) or until a rank is silent for timeout_s: then ERR_PEER, "rank 2
 * (host pi3) has not answered for 60 s; it was: computing block 3 of micro-batch 12". ERR_PEER
 * too when for so long no rank did anything (their doing is "waiting") and done is still false:
 * something was lost. To wait for a person use loop_turn. */
enum status loop_until(struct loop *loop, bool (*done)(void *self), void *self, double timeout_s,
                       struct error *e);

/* Ranks other than 0: turns until MSG_STOP. A failure of the worker is sent to rank 0 as
 * MSG_ERROR, then the rank waits (at most 30 s) for MSG_STOP; the failure is what it returns.
 * Rank 0 silent for timeout_s: ERR_PEER. A signal: ERR_INTERRUPTED at once; rank 0 is told and
 * gets ERR_INTERRUPTED too. */
enum status loop_serve(struct loop *loop, double timeout_s, struct error *e);

/* A sign of life from inside long work that cannot return to the loop (loading a slice): at most
 * once in a tenth of timeout_s a rank other than 0 sends rank 0 what its worker is doing, and
 * rank 0 pings all others. Cheap. */
enum status loop_alive(struct loop *loop, struct error *e);

/* Rank 0: tells all other ranks to stop and waits (at most 5 s) until that is sent. Messages
 * that come meanwhile are thrown away. Does nothing the second time. */
void loop_stop(struct loop *loop, bool failed);

/* SIGINT and SIGTERM are noted instead of killing; loop_interrupted tells. A second SIGINT
 * kills. */
void loop_catch_signals(void);
bool loop_interrupted(void);
void loop_clear_interrupt(void);

/* Monotonic seconds. */
double loop_now(void);

#endif
