/* Which tokens travel together next: a pure function from the sequences and the number of
 * micro-batches on their way to the next micro-batch. Knows positions and counts only, no tokens
 * and no time. */
#ifndef SBIT_COORDINATOR_SCHEDULER_H
#define SBIT_COORDINATOR_SCHEDULER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/wire.h"

struct sched_sequence {
    uint32_t slot;        /* KV slot, goes into run.sequence */
    uint32_t position;    /* tokens already submitted */
    uint32_t end;         /* tokens known: [position, end) can be submitted */
    uint32_t logits_from; /* rows at this position and later want logits */
    bool decoding;        /* past its prompt: one token at a time, by the last one's logits */
};

struct sched_limits {
    uint32_t batch;  /* most tokens in a micro-batch, at least 1 */
    uint32_t stages; /* of the pipeline, at least 1 */
    uint32_t flying; /* most on their way: stages + 1 keeps one queued before the first stage */
};

/* Fills runs[WIRE_RUNS_MAX] with the next micro-batch of the n sequences and returns how many runs
 * it has; 0 when nothing can be submitted now (in_flight at its limit, or every sequence waits for
 * logits).
 *
 * Decoding sequences come first, but at most ceil(decoding sequences / stages) of them travel
 * together, so that every stage has a group to work on; prompts fill the rest, the earliest
 * sequence in the array first. */
uint32_t scheduler_next(const struct sched_sequence *sequences, uint32_t n,
                        const struct sched_limits *limits, uint32_t in_flight, struct run *runs);

/* Notes that runs (as scheduler_next returned them) have been submitted. */
void scheduler_submitted(struct sched_sequence *sequences, uint32_t n, const struct run *runs,
                         uint32_t n_runs);

#endif
