/* The tensors and keys of a compressed model's file (docs/format.md): between the plan and
 * gguf_output, which knows files but not models. */
#ifndef SBIT_COORDINATOR_COMPRESS_FILE_H
#define SBIT_COORDINATOR_COMPRESS_FILE_H

#include "common/error.h"
#include "common/loop.h"
#include "common/tokenizer.h"
#include "common/weights.h"
#include "coordinator/compress_plan.h"
#include "coordinator/gguf_output.h"

struct compress_result { /* of one unit */
    bool done;
    double error2, weight2, seconds;
    double signal, rounded, fed, final; /* struct msg_unit_done; zeros when not calibrated */
    bool searched; /* to be distilled: its bytes as searched are there, and the numbers above */
};

struct compress_calibration { /* what the file says of it */
    uint64_t hash, tokens; /* struct calibration */
    uint32_t context;
    const char *recipe; /* recipe_text */
};

struct compress_file {
    struct gguf_output *out;
    const struct weights *source;
    const struct plan_settings *settings;
    const struct plan_totals *totals;
    const struct plan_unit *units; /* [n] */
    uint32_t n;
    const struct compress_calibration *calibration; /* NULL: none */
    bool sealed;               /* an earlier run has written all of it */
    uint32_t *first_tensor;    /* [n] number in out of a unit's first tensor */
    uint32_t codebook[16 + 1]; /* by d: number in out plus 1; 0: not in use */
    uint32_t state;            /* number in out of the first of two states of distilling, in a file aside */
    uint64_t state_bytes;      /* of each */
    uint32_t rope;             /* the same for RoPE factors that the source has no tensor for */
};

/* Sets all keys (results still zero), adds all tensors, opens the files, and writes what needs
 * no worker: codebooks and computed RoPE factors. All members but first_tensor, codebook and
 * rope are set by the caller; first_tensor is allocated here and the caller's, free. */
enum status compress_file_begin(struct compress_file *f, const struct tokenizer *t,
                                uint64_t shard_bytes, struct error *e);
/* Instead of begin, for a file beside the output at target that holds the matrices of the blocks as they were before
 * distillation and two states of it of state_bytes, TARGET.distill.part: sets out, state and first_tensor; units, n and
 * state_bytes are set by the caller, whose out and first_tensor are. Such a file is never finished. */
enum status compress_file_begin_aside(struct compress_file *f, const char *target,
                                      enum gguf_parts parts, struct error *e);
/* *path (the caller's, free) = TARGET.distill, the name that it would have. */
enum status compress_file_aside_path(char **path, const char *target, struct error *e);
/* Instead of begin: *bytes = what all files together would have, headers included. Nothing is written. */
enum status compress_file_size(struct compress_file *f, const struct tokenizer *t,
                               uint64_t shard_bytes, uint64_t *bytes, struct error *e);
/* Writes a part that a worker sent for unit. Errors: ERR_PEER for a unit or suffix that is not
 * expected. */
enum status compress_file_part(struct compress_file *f, uint32_t unit, const char *suffix,
                               uint64_t offset, const void *data, uint64_t size, struct error *e);
/* Sends rank's worker the bytes of a unit that are in the file, as PART. Errors: ERR_IO. */
enum status compress_file_send(const struct compress_file *f, uint32_t unit, struct loop *loop,
                               int rank, struct error *e);
/* Puts the results into the header and closes the files, which keep their names for gguf_output_publish. */
enum status compress_file_finish(struct compress_file *f, const struct compress_result *results,
                                 struct error *e);

#endif
