/* Rows in standard types without further search: Q8_0 and Q4_0 as llama.cpp's reference rounds
 * them, F16 and BF16 to nearest even, F32 as it is. */
#ifndef SBIT_WORKER_QUANTISE_BLOCKS_H
#define SBIT_WORKER_QUANTISE_BLOCKS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/dtype.h"
#include "worker/quantise.h"

/* out = row[cols] as dtype (DTYPE_Q8_0, Q4_0, F16, BF16 or F32; cols a multiple of its block).
 * False when a weight lies beyond F16 (only F16 rows and block scales can meet that). */
bool blocks_encode_row(enum dtype dtype, const float *row, int cols, uint8_t *out,
                       struct row_error *error);

#endif
