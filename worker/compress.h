/* Compression of this rank's units, one matrix at a time: reads rows from the source, quantises,
 * sends the bytes to rank 0 as they are finished. The result of a unit depends on the source and
 * the settings only. */
#ifndef SBIT_WORKER_COMPRESS_H
#define SBIT_WORKER_COMPRESS_H

#include <stdbool.h>

#include "common/error.h"
#include "common/loop.h"
#include "common/wire.h"
#include "worker/source.h"

struct compress_job;

/* Starts or extends the job (*job NULL: create) with the units of a MSG_COMPRESS that are not shared. source is
 * borrowed. *job is the caller's, compress_free. */
enum status compress_add(struct compress_job **job, struct loop *loop, struct source *source,
                         const struct msg_compress *m, struct error *e);
/* Works on a bounded piece (a range of rows of one matrix); sets *busy when there was any. Waits
 * with new pieces while more than 16 MiB of its frames are unsent. */
enum status compress_step(struct compress_job *job, bool *busy, struct error *e);
void compress_doing(const struct compress_job *job, char out[128]);
void compress_free(struct compress_job *job);

#endif
