/* One job: a slice of one model on this rank. Takes micro-batches in, moves the one in work on by
 * one block per step, and sends results to the next rank. Knows nothing of prompts or sampling. */
#ifndef SBIT_WORKER_SLICE_H
#define SBIT_WORKER_SLICE_H

#include <stdbool.h>

#include "common/error.h"
#include "common/loop.h"
#include "common/wire.h"

struct slice_job;

/* Opens the model that a names and compares its hash; loading itself happens in slice_step, one
 * block at a time, and ends with MSG_READY to rank 0. loop is borrowed. *out is the caller's,
 * slice_free. Errors: ERR_PEER for another model or impossible numbers, and those of weights_open.
 */
enum status slice_create(struct slice_job **out, const struct msg_assign *a, struct loop *loop,
                         struct error *e);
/* NULL is fine. */
void slice_free(struct slice_job *job);

/* Queues a MSG_TOKENS or MSG_HIDDEN of this job; takes m's bytes when it returns OK. Errors:
 * ERR_PEER naming the field that does not fit the job. */
enum status slice_accept(struct slice_job *job, struct message *m, struct error *e);

/* One bounded step, if there is work: loads one block, finishes one micro-batch (final norm and
 * head), or computes one block of the micro-batch in work. Sets *busy then. Errors: ERR_PEER for a
 * payload that is not what its header says; those of bind_* while loading. */
enum status slice_step(struct slice_job *job, bool *busy, struct error *e);

/* Writes what the job does now ("computing block 3 of micro-batch 12"); false when it waits. */
bool slice_doing(const struct slice_job *job, char out[128]);

#endif
