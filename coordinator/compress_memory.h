/* What a calibrated compression may use of each rank's memory: decided and told before any work
 * (docs/compression.md, section "Memory"). */
#ifndef SBIT_COORDINATOR_COMPRESS_MEMORY_H
#define SBIT_COORDINATOR_COMPRESS_MEMORY_H

#include "common/calib_memory.h"
#include "common/recipe.h"
#include "common/weights.h"
#include "coordinator/calibration.h"
#include "coordinator/cluster.h"
#include "coordinator/compress_plan.h"

struct rank_memory {
    struct calib_memory need; /* as chosen: on_disk, columns */
    uint32_t threads;
    uint64_t moment_floats; /* as MSG_CALIB has it */
    uint64_t limit;         /* bytes; 0: not known */
};

struct memory_job { /* borrowed */
    const struct weights *source;
    const struct plan_unit *units; /* [n], planned */
    uint32_t n;
    bool measure; /* the bits of matrices are still to be chosen */
    const struct recipe *recipe;
    const struct calibration *text;
    double bits; /* --bits: what they are chosen for */
    const bool *missing; /* [size] ranks that get the source from rank 0, or NULL: none */
};

/* *ranks (the caller's, free) [c->size]. With options->ram: moments as full as fit, then as many
 * threads, then activations in memory where they fit. Without: full moments, activations in memory
 * where they fit four fifths of what the rank's host has available, shared by its ranks. Errors:
 * ERR_LIMIT when ram is too little, with the amount that is missing; ERR_MEMORY. */
enum status compress_memory(struct rank_memory **ranks, const struct cluster *c,
                            const struct memory_job *job, struct error *e);
/* A line for each rank on stderr, one for all where they are alike. */
void compress_memory_print(const struct rank_memory *ranks, const struct cluster *c);
/* That line, without the ranks. Returns out. */
const char *compress_memory_text(const struct rank_memory *m, char out[512]);

#endif
