/* Rows of the embeddings as the compressed file will hold them, one at a time: what the student's stream
 * begins with. Knows nothing of files and of who asks. */
#ifndef SBIT_WORKER_ROUND_ROW_H
#define SBIT_WORKER_ROUND_ROW_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/wire.h"

struct row_form {
    enum unit_method method; /* UNIT_CODE, F32, F16, BF16, Q8_0 or Q4_0 */
    uint32_t d;              /* UNIT_CODE: weights a byte */
};

struct row_rounder;

/* For rows of cols weights. *out is the caller's, row_rounder_free. Errors: ERR_UNSUPPORTED for another
 * method and for a d without codebook; ERR_MEMORY. */
enum status row_rounder_create(struct row_rounder **out, struct row_form form, uint32_t cols,
                               struct error *e);
void row_rounder_free(struct row_rounder *r);
/* x[cols] = row[cols], which may be x, encoded as compress_matrix.h does and read back as the kernels do.
 * False for values beyond what the form can hold. */
bool row_rounder_round(struct row_rounder *r, const float *row, float *x);

#endif
