/* A calibrated compression on this rank. All ranks go through the same steps together: each takes its lanes of
 * the calibration text through the model (worker/calib.h) and its share of every matrix's rows through
 * the search; second moments are added up at rank 0 and come back to all; finished rows go to all. So the
 * result does not depend on the number of ranks, and no rank waits for the block before.
 *
 * With recipe.measure the teacher's stream passes once alone first, and rank 0 tells the coordinator what an error in
 * each matrix costs (MSG_MEASURED), from which it chooses the units' forms. */
#ifndef SBIT_WORKER_CALIBRATED_H
#define SBIT_WORKER_CALIBRATED_H

#include <stdbool.h>

#include "common/error.h"
#include "common/loop.h"
#include "common/wire.h"
#include "worker/source.h"

struct calibrated;

/* Takes the windows of a MSG_CALIB; source is borrowed. *out is the caller's, calibrated_free. Errors:
 * ERR_PEER for a message that does not hold together. */
enum status calibrated_create(struct calibrated **out, struct loop *loop, struct source *source,
                              const struct message *m, struct error *e);
void calibrated_free(struct calibrated *c);

/* The shared units of a MSG_COMPRESS; after the last of these messages the work begins. Errors: ERR_PEER. */
enum status calibrated_units(struct calibrated *c, const struct msg_compress *m, struct error *e);
/* A MSG_MOMENTS, MSG_PART, MSG_GRADIENT or MSG_STATE; takes m's bytes when it has to wait. Errors: ERR_PEER. */
enum status calibrated_accept(struct calibrated *c, struct message *m, struct error *e);
/* One bounded piece of work, if there is any; sets *busy then. */
enum status calibrated_step(struct calibrated *c, bool *busy, struct error *e);
/* False when nothing is under way. */
bool calibrated_doing(const struct calibrated *c, char out[128]);

#endif
