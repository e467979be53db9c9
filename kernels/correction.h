/* The sparse correction, the same code for every variant: each file that includes it compiles it
 * for its own instruction set, which turns fmaf into one instruction. */
#ifndef SBIT_KERNELS_CORRECTION_H
#define SBIT_KERNELS_CORRECTION_H

#include <math.h>

#include "kernels/half.h"
#include "kernels/kernels.h"

#define CORRECTION_TOKENS 8

static inline int32_t correction_column(const struct matrix *m, size_t entry)
{
    if (m->outlier_column_bytes == 2)
        return (int16_t)half_load(m->outlier_column, entry);
    int32_t column;
    memcpy(&column, (const uint8_t *)m->outlier_column + 4 * entry, sizeof column);
    return column;
}

/* Row r of some tokens at a time, whose sums do not wait for each other; tokens is a constant after
 * inlining. y: token 0 of that row. */
static inline __attribute__((always_inline)) void
correction_row(const struct matrix *m, const float *x, int tokens, int r, float *y, size_t y_stride)
{
    size_t first = m->outlier_start[r], end = m->outlier_start[r + 1];
    float sum[CORRECTION_TOKENS] = {0};
    for (size_t entry = first; entry < end; entry++) {
        float value = half_to_float(half_load(m->outlier_value, entry));
        const float *column = x + correction_column(m, entry);
        for (int t = 0; t < tokens; t++)
            sum[t] = fmaf(value, column[(size_t)t * (size_t)m->cols], sum[t]);
    }
    for (int t = 0; t < tokens && first < end; t++)
        y[(size_t)t * y_stride] += sum[t];
}

/* y[t * y_stride + r] += the entries of row r times x, folded in entry order from 0; rows without
 * entries stay as they are. The loader has checked the columns. */
static inline void correction_add(const struct matrix *m, const float *x, int tokens, int row_first,
                                  int row_count, float *y, size_t y_stride)
{
    if (!m->outlier_start)
        return;
    for (int r = row_first; r < row_first + row_count; r++) {
        float *to = y + r;
        int t = 0;
        for (; t + CORRECTION_TOKENS <= tokens; t += CORRECTION_TOKENS)
            correction_row(m, x + (size_t)t * (size_t)m->cols, CORRECTION_TOKENS, r,
                           to + (size_t)t * y_stride, y_stride);
        for (; t < tokens; t++)
            correction_row(m, x + (size_t)t * (size_t)m->cols, 1, r, to + (size_t)t * y_stride,
                           y_stride);
    }
}

#endif
