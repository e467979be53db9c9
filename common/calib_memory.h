/* What a calibrated compression needs of a rank's memory at its peak, and which of its ways fits a
 * limit (docs/compression.md, section "Memory"): activations in memory or on disk, second moments
 * full or in blocks of columns. A pure function of shapes; where the worker's allocations change,
 * this does too. Knows nothing of ranks, hosts and files. */
#ifndef SBIT_COMMON_CALIB_MEMORY_H
#define SBIT_COMMON_CALIB_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/model.h"

/* Blocks of columns are whole multiples of this (but for a product's last one). */
enum { CALIB_COLUMNS_STEP = 256 };

struct calib_job {
    const struct model_config *config;
    uint32_t context;     /* tokens of a window */
    uint64_t text_tokens; /* of all windows */
    uint64_t rank_tokens; /* of this rank's */
    uint32_t threads;
    bool cross;            /* moments between the streams (recipe.qep) */
    bool feedback;         /* the factor U */
    bool measure;          /* a measuring pass comes first, and goes back through some windows */
    uint32_t distill;      /* windows of a step of distillation; 0: there is none */
    double recode;         /* as in struct recipe */
    uint64_t source_bytes; /* of the matrices of a step in the source, the most */
    uint64_t student_bytes; /* of the compressed blocks that are kept: one, all to distil */
    uint64_t sent_bytes;    /* messages with the source's bytes, and embeddings of the rank's tokens, where
                             * rank 0 alone has the source */
    uint64_t back_bytes;    /* of the source while going back: a block; where it is sent, or the head */
};

struct calib_memory { /* bytes */
    uint64_t program; /* libraries, tokenizer, messages on their way */
    uint64_t source, student;
    uint64_t sent;    /* for or from ranks that have no copy of the source */
    uint64_t activations; /* both streams, all windows: in memory or on disk */
    bool on_disk;
    uint64_t work;    /* of the windows in work */
    uint64_t moments; /* second moments, correction, curvature: the most at one time */
    uint64_t threads; /* of the searches */
    uint64_t sampled; /* windows kept to go back through */
    uint64_t back;    /* going back and distilling, when moments are gone, back_bytes included */
    uint64_t total;   /* in memory at the peak */
    uint32_t columns; /* of the largest block of moments that are not full; 0: all are */
};

/* Whether distillation chooses codes anew at that rate (recipe.recode): for models of up to
 * CALIB_RECODE_MOST weights in the blocks, since rank 0 keeps 3 + batch floats for each of them, and the
 * others, which send all gradients of a window in one message, one. Known by the shapes alone. */
#define CALIB_RECODE_MOST ((uint64_t)1 << 26)
bool calib_recodes(const struct model_config *c, double recode);
/* Those weights, rows filled up to whole bands. */
uint64_t calib_recode_weights(const struct model_config *c);
/* How many other parameters it tunes: scales of all rows, weights of norms. */
uint64_t calib_parameters(const struct model_config *c);

/* What the measuring pass goes back through: of so many lanes (1, 2, 4, 8 or 16) the first rows of one window. So
 * many that what is kept of them stays small on all ranks together, and fewer where moments are not full, by
 * floats as below. The same for any number of ranks. */
struct calib_samples {
    uint32_t lanes, rows;
};
struct calib_samples calib_samples(const struct model_config *c, uint32_t context, uint64_t floats);

/* The columns of the blocks that moments of n columns have when all blocks together may have so
 * many floats (0: any number): the fewest equal blocks, but for the last. A multiple of
 * CALIB_COLUMNS_STEP, or n; at least the former, whatever floats says. */
uint32_t calib_block_columns(uint32_t n, uint64_t floats);

/* *m = what the job needs when the moments of a product may have so many floats (0: they are
 * full). */
void calib_memory_need(struct calib_memory *m, const struct calib_job *job, uint64_t floats,
                       bool on_disk);

/* The most floats with which the job fits ram, activations on disk, for CALIB_USUAL_THREADS
 * threads: 0 when full moments fit. A function of model, options and ram alone, so that ranks and
 * hosts do not change the result. False when not even the smallest blocks fit: *floats is then
 * theirs. */
enum { CALIB_USUAL_THREADS = 4 };
bool calib_memory_fit(const struct calib_job *job, uint64_t ram, uint64_t *floats);

#endif
