/* The list of what a source holds, in the order in which the output will hold it. */
#ifndef SBIT_COORDINATOR_COMPRESS_UNITS_H
#define SBIT_COORDINATOR_COMPRESS_UNITS_H

#include "common/error.h"
#include "common/weights.h"
#include "coordinator/compress_plan.h"

/* *units [*n] (the caller's, free) = the in members for every tensor of w: first what lies
 * outside the blocks, then the blocks. Errors: ERR_UNSUPPORTED when w is already compressed. */
enum status compress_units(const struct weights *w, struct plan_unit **units, uint32_t *n,
                           struct error *e);

/* rank_of [n] = which rank works on which unit: whole blocks by plan_slices, the rest rank 0. */
enum status compress_deal(const struct plan_unit *units, uint32_t n, uint32_t blocks,
                          uint32_t ranks, uint32_t *rank_of, struct error *e);

/* Takes what the measuring pass says of a matrix into its unit: losses of some choices, whose other losses are
 * zeros, or, when all of them are there, what they are to be multiplied by. Errors: ERR_PEER for a matrix that is
 * none, and for a choice that is known already. */
enum status compress_take_measured(struct plan_unit *units, uint32_t n,
                                   const struct msg_measured *m, struct error *e);

/* Bytes of a state of distilling (MSG_STATE) of planned units, at the rate recipe.recode. */
uint64_t compress_state_bytes(const struct plan_unit *units, uint32_t n,
                              const struct model_config *config, double recode);

/* Whether all ranks work on the unit together: calibrated matrices of the blocks, and with
 * distilled the norms that are tuned with them. The rest is dealt. */
bool compress_is_shared(const struct plan_unit *u, bool calibrated, bool distilled);

/* "q, k, v" for the kinds that are computed in one step, by any of them. */
const char *compress_step_name(enum tensor_kind kind);

/* What a unit costs in time, in arbitrary units that can be added. */
uint64_t compress_work(const struct plan_unit *u);

#endif
