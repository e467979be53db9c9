/* What a compression would be, before it is done: units, bytes, floating-point operations and time
 * (--dry-run). Counts and prints; the measurements are the workers'. */
#ifndef SBIT_COORDINATOR_COMPRESS_ESTIMATE_H
#define SBIT_COORDINATOR_COMPRESS_ESTIMATE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/recipe.h"
#include "common/weights.h"
#include "common/wire.h"
#include "coordinator/compress_plan.h"

struct estimate_job {
    const struct weights *source;
    const struct plan_unit *units; /* [n], planned */
    uint32_t n;
    const struct plan_totals *totals;
    const struct recipe *recipe;
    uint64_t tokens;  /* of the calibration text; 0: none */
    uint32_t context; /* of its windows */
    uint32_t ranks;
    bool measure; /* a measuring pass comes first */
    uint64_t file_bytes; /* of the whole output */
    uint64_t aside_bytes; /* of the file beside it that distillation needs until it is done; 0: none */
    uint64_t moment_floats; /* calib_memory.h: second moments in blocks of columns; 0: full */
};

/* One part of the work, over all blocks and ranks. */
struct estimate_part {
    const char *name;
    double flops;
    double seconds; /* on all ranks together, as long as the slowest takes */
};
enum { ESTIMATE_PARTS = 6 };

/* part [ESTIMATE_PARTS], a name of NULL after the last. slowest: what the rank with the longest times said. A
 * product of n columns and m rows for t tokens takes 2 m n t operations. Moments in blocks of w columns (w = n: full)
 * take n w t, three times that with cross moments; curvature 4/3 n w^2 and correction 7/3 n w^2 (Cholesky 1/3, inverse
 * 2/3, solution 2); a search 256 operations per weight and look at the codebook, of which rounding, a round of feedback
 * and a pass of descent take one, the last round of feedback and a pass of the joint search one for each of their
 * paths; and w per weight for error feedback, 2 w for the correction and for each pass. The measuring pass besides
 * searches 64 rows of each matrix of codes for every length. */
void estimate_parts(const struct estimate_job *job, const struct msg_probed *slowest,
                    struct estimate_part part[ESTIMATE_PARTS]);
/* The tables, on stdout. slowest NULL: nothing was measured. */
void estimate_print(const struct estimate_job *job, const struct msg_probed *slowest);

#endif
