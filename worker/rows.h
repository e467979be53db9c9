/* The rows of a micro-batch: where each token stands, and which want logits. Made from a message's
 * runs, which are checked here. Knows nothing of what is computed for a row. */
#ifndef SBIT_WORKER_ROWS_H
#define SBIT_WORKER_ROWS_H

#include <stdint.h>

#include "common/error.h"
#include "common/wire.h"

struct row {
    uint32_t sequence, position;
};

struct rows_limits {
    uint32_t sequences, context, batch;
};

/* *rows = the sum of the runs' counts. Errors: ERR_PEER for an empty run, a sequence, position or
 * number of rows outside the limits, or more logits than rows. */
enum status rows_check(const struct run *runs, uint32_t n_runs, const struct rows_limits *limits,
                       uint32_t *rows, struct error *e);

/* out[rows] of checked runs. */
void rows_expand(const struct run *runs, uint32_t n_runs, struct row *out);

/* Indices of the rows that want logits, in order, into out[batch]; returns their number. */
uint32_t rows_wanted(const struct run *runs, uint32_t n_runs, uint32_t *out);

/* Leaves in *h, and in x[h->rows][h->cols], only the rows that want logits; when none does, one
 * row that wants none, because a micro-batch never has zero rows. */
void rows_trim(struct msg_hidden *h, float *x);

#endif
