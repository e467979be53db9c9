/* The calibration text on its way through a model, twice: as the original computes it (teacher) and
 * through what has been compressed so far (student). A block is taken in four steps, one per
 * product, because the inputs of a product depend on the compressed matrices before it:
 *
 *   CALIB_QKV      inputs RMSNorm(x);        then q, k, v, attention
 *   CALIB_O        inputs the attended;      then x += Wo attended
 *   CALIB_GATE_UP  inputs RMSNorm(x);        then silu(gate) up
 *   CALIB_DOWN     inputs silu(gate) up;     then x += Wdown (...)
 *
 * All windows of this rank pass a step before the next begins; in between their activations rest in
 * memory or in temporary files: hidden + max(heads * head_dim, ffn) floats per token and stream.
 * Both streams run by the kernels of inference, so that the student's is what the finished file
 * will compute. Calls work on one window, so that the loop can look at its messages between two.
 * Knows nothing of quantisers, files and messages. */
#ifndef SBIT_WORKER_CALIB_H
#define SBIT_WORKER_CALIB_H

#include <stdbool.h>
#include <stdint.h>

#include "common/dtype.h"
#include "common/error.h"
#include "common/weights.h"
#include "worker/moments.h"
#include "worker/bind.h"
#include "worker/round_row.h"

enum calib_step { CALIB_QKV, CALIB_O, CALIB_GATE_UP, CALIB_DOWN, CALIB_STEPS };

struct calib_text {         /* borrowed */
    const uint32_t *tokens; /* the windows one after the other */
    const uint32_t *length; /* [windows] tokens of each, 1 to context */
    uint32_t windows, context;
};

struct calib;

/* Streams of the windows in lanes [first_lane, end_lane). embeddings: how the student's
 * embeddings will be stored, to which its rows are rounded (round_row.h). student false: the
 * teacher's stream alone (to measure). on_disk: activations rest in temporary files
 * (act_store.h). source and text's arrays are borrowed; blocks are bound one at a time, and a
 * matrix leaves the resident set once all windows have passed it. *out is the caller's,
 * calib_free. Errors: ERR_MEMORY naming the bytes; ERR_IO for no room on the disk; ERR_FORMAT;
 * ERR_UNSUPPORTED; ERR_LIMIT for embeddings beyond what their type can hold; ERR_USAGE for a
 * token beyond the vocabulary or a length beyond the context. */
enum status calib_create(struct calib **out, const struct weights *source,
                         const struct calib_text *text, int first_lane, int end_lane,
                         struct row_form embeddings, bool student, int threads, bool on_disk,
                         struct error *e);
void calib_free(struct calib *c);

/* Both streams stand before block `block` (0 first, then each in turn); its original weights are
 * bound. The student's matrices are unset; its norms and biases are the original's. Errors as
 * bind_block, and ERR_FORMAT naming a tensor with a value that is not finite. */
enum status calib_block(struct calib *c, uint32_t block, struct error *e);

/* How many products step has (3, 1, 2, 1), and their kinds in order. */
int calib_kinds(enum calib_step step, enum tensor_kind kinds[PRODUCT_MAX]);
/* Columns of the inputs of a step. */
int calib_cols(const struct calib *c, enum calib_step step);

/* Adds the inputs of step of the next window to m: the student's, with the teacher's for cross
 * moments if m has such; without a student the teacher's alone, and m has none. *more false: none
 * was left, and the next call begins with the first window again. Errors: ERR_MEMORY; ERR_LIMIT
 * when an activation is not finite, naming block and stream. */
enum status calib_observe(struct calib *c, enum calib_step step, struct moments *m, bool *more,
                          struct error *e);

/* The student computes matrix number i of step by m: a view that stays valid until the next
 * calib_block, rows of q and k in GGUF's order. */
void calib_set(struct calib *c, enum calib_step step, int i, const struct matrix *m);

/* Takes the next window through a step in both streams; *more as above. Before, all products of the
 * step are set (unless there is no student). Errors: ERR_LIMIT as above, for what leaves
 * CALIB_DOWN. */
enum status calib_advance(struct calib *c, enum calib_step step, bool *more, struct error *e);

/* After the last block: (*x)[*rows][hidden] of a window of this rank, number i of calib_windows, in
 * either stream. A view, valid until the next of the same stream. Errors: ERR_IO. */
uint32_t calib_windows(const struct calib *c);
enum status calib_hidden(const struct calib *c, uint32_t i, bool student, const float **x,
                         uint32_t *rows, struct error *e);
/* The tokens of window i of this rank, and its lane. */
const uint32_t *calib_tokens(const struct calib *c, uint32_t i);
int calib_lane(const struct calib *c, uint32_t i);
uint32_t calib_rows(const struct calib *c, uint32_t i);
/* x[rows][hidden] = what stream begins window i with. Errors: ERR_MEMORY, ERR_LIMIT. */
enum status calib_embeddings(struct calib *c, uint32_t i, bool student, float *x, struct error *e);
/* The model as a stream computes it: the student's rows of q and k may stand in another order. */
const struct model_config *calib_config(const struct calib *c, bool student);
/* room = bytes of prepared rows (product_room) for matrices of any form. */
void calib_room(const struct calib *c, size_t room[PRODUCT_MAX]);
/* The original's embeddings, final norm and head. A view. */
const struct head_weights *calib_head(const struct calib *c);

#endif
