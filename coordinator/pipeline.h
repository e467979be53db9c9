/* Tokens in, logits out: keeps the ring busy with micro-batches and hands their logits to a
 * command in the order in which they were submitted. With two jobs (eval --against) the same
 * micro-batches go through both models and come out together. Knows nothing of sampling or
 * scores. */
#ifndef SBIT_COORDINATOR_PIPELINE_H
#define SBIT_COORDINATOR_PIPELINE_H

#include <stdint.h>

#include "common/error.h"
#include "coordinator/cluster.h"
#include "coordinator/scheduler.h"

#define PIPELINE_JOBS 2

/* logits[job] holds [run->logits][vocab] floats, the last row being that of position run->position
 * + run->count - 1; valid during the call. run->logits may be 0. May call pipeline_feed. */
typedef enum status pipeline_logits_fn(void *self, const struct run *run,
                                       const float *const logits[PIPELINE_JOBS], struct error *e);

struct pipeline_setup {
    struct cluster
        *cluster;  /* borrowed; its inner endpoint belongs to the pipeline until it is closed */
    uint32_t jobs; /* 1, or 2: jobs 0 and 1 have been assigned */
    uint32_t sequences; /* KV slots */
    uint32_t stages;    /* of the longer ring */
    uint32_t batch;     /* most tokens in a micro-batch, as assigned */
    uint32_t vocab;     /* columns of the logits */
    pipeline_logits_fn *logits;
    void *self; /* handed to logits */
};

struct pipeline;

/* *out is the caller's, pipeline_close, which leaves the cluster. Errors: ERR_MEMORY. */
enum status pipeline_open(struct pipeline **out, const struct pipeline_setup *setup,
                          struct error *e);
void pipeline_close(struct pipeline *p);

/* Sequence slot now consists of tokens[0..end), of which [0, position) have gone through before;
 * rows from logits_from on want logits. tokens is borrowed until the slot is fed again or its last
 * row came back. */
void pipeline_feed(struct pipeline *p, uint32_t slot, const uint32_t *tokens, uint32_t position,
                   uint32_t end, uint32_t logits_from, bool decoding);
/* Submits nothing more of a sequence; returns how many of its tokens have been submitted. */
uint32_t pipeline_halt(struct pipeline *p, uint32_t slot);
/* Submits as many micro-batches as may fly. Called by itself whenever logits come back. Errors:
 * ERR_PEER. */
enum status pipeline_pump(struct pipeline *p, struct error *e);
/* Micro-batches on their way. */
uint32_t pipeline_flying(const struct pipeline *p);

#endif
