/* One rank's work: runs its slice of a model, or compresses its units. Knows nothing of prompts,
 * sampling or files to be written; everything it does is asked for by messages. */
#ifndef SBIT_WORKER_WORKER_H
#define SBIT_WORKER_WORKER_H

#include "common/error.h"
#include "common/loop.h"

struct worker;

/* *out is the caller's, worker_free. Attaches itself to the loop as its worker endpoint; loop is
 * borrowed and outlives the worker. kernels_init must have been called. */
enum status worker_create(struct worker **out, struct loop *loop, struct error *e);
void worker_free(struct worker *w);

#endif
