/* The sparse correction, the same code for every variant: each file that includes it compiles it
 * for its own instruction set, which turns fmaf into one instruction. */
#ifndef SBIT_KERNELS_CORRECTION_H
#define SBIT_KERNELS_CORRECTION_H

#include <math.h>

#include "kernels/half.h"
#include "kernels/kernels.h"

static inline int32_t correction_column(const struct matrix *m, size_t entry)
{
    if (m->outlier_column_bytes == 2)
        return (int16_t)half_load(m->outlier_column, entry);
    int32_t column;
    memcpy(&column, (const uint8_t *)m->outlier_column + 4 * entry, sizeof column);
    return column;
}

/* y[t * y_stride + r] += the entries of row r times x, folded in entry order from 0; rows without
 * entries stay as they are. The loader has checked the columns. */
static inline void correction_add(const struct matrix *m, const float *x, int tokens, int row_first,
                                  int row_count, float *y, size_t y_stride)
{
    if (!m->outlier_start)
        return;
    for (int r = row_first; r < row_first + row_count; r++) {
        size_t first = m->outlier_start[r], end = m->outlier_start[r + 1];
        for (int t = 0; t < tokens && first < end; t++) {
            const float *row = x + (size_t)t * (size_t)m->cols;
            float sum = 0.0f;
            for (size_t entry = first; entry < end; entry++)
                sum = fmaf(half_to_float(half_load(m->outlier_value, entry)),
                           row[correction_column(m, entry)], sum);
            y[(size_t)t * y_stride + (size_t)r] += sum;
        }
    }
}

#endif
