/* A ring of ranks inside one process for tests: loops over transport_local, turned one after the
 * other, and a coordinator that only collects logits. Failures of the ring fail the test. */
#ifndef SBIT_TESTS_RING_H
#define SBIT_TESTS_RING_H

#include <stdint.h>

#include "common/loop.h"
#include "common/weights.h"
#include "worker/worker.h"

#define RING_MAX 4

struct ring_setup {
    const char *path;
    int ranks;
    uint32_t blocks[RING_MAX]; /* per rank; all 0: shared evenly */
    uint32_t threads, batch, context, sequences;
};

struct ring {
    int ranks;
    struct loop *loop[RING_MAX];
    struct worker *worker[RING_MAX];
    uint32_t vocab;
    int ready;        /* READY messages so far */
    uint64_t sent;    /* micro-batches */
    uint64_t answers; /* MSG_LOGITS so far */
    float *logits;    /* [rows][vocab] of all answers in order */
    size_t rows, room;
};

/* Starts the ranks and waits until all have loaded their slices. */
void ring_open(struct ring *r, const struct ring_setup *setup);
void ring_close(struct ring *r);

/* The same without the test failing: gives the first error of any rank, or OK when all are ready.
 */
enum status ring_try_open(struct ring *r, const struct ring_setup *setup, struct error *e);

/* Sends one micro-batch: tokens of all runs, one after the other. */
void ring_feed(struct ring *r, const struct run *runs, uint32_t n_runs, const uint32_t *tokens);
/* Turns until all answers are there. */
void ring_wait(struct ring *r);
/* Turns until something fails or 1000 turns are over, for messages that must be refused. */
enum status ring_turns(struct ring *r, struct error *e);

/* Logits of every token of sequence 0, cut into micro-batches of cut tokens: [n][vocab], the
 * ring's. Starts at position 0. */
const float *ring_logits(struct ring *r, const uint32_t *tokens, uint32_t n, uint32_t cut);

#endif
