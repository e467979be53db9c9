/* How long the parts of a calibrated compression take on this rank, from one window in one block and a few
 * rows: for an estimate before the work. Makes nothing that is kept. */
#ifndef SBIT_WORKER_PROBE_H
#define SBIT_WORKER_PROBE_H

#include "common/error.h"
#include "common/loop.h"
#include "common/wire.h"
#include "worker/source.h"

/* Asks for what a MSG_CALIB that wants measurements needs of the source. */
enum status probe_want(struct source *source, const struct message *m, struct error *e);
/* When it is there: measures with the first window, and sends MSG_PROBED. Takes some seconds for
 * a large model. Errors: as computing. */
enum status probe_run(struct loop *loop, const struct source *source, const struct message *m,
                      struct error *e);

#endif
