/* Square matrices of which only blocks on the diagonal exist: of order width each, but for the
 * last, which has the rest; width n is one block, the whole matrix. The blocks lie one after the
 * other, rows of each one after the other. */
#ifndef SBIT_WORKER_DIAGONAL_H
#define SBIT_WORKER_DIAGONAL_H

#include <stddef.h>

struct diagonal {
    int n, width; /* width 1 to n */
};

static inline int diagonal_blocks(struct diagonal d)
{
    return (d.n + d.width - 1) / d.width;
}

static inline int diagonal_order(struct diagonal d, int block)
{
    int left = d.n - block * d.width;
    return left < d.width ? left : d.width;
}

/* Floats before a block. */
static inline size_t diagonal_start(struct diagonal d, int block)
{
    return (size_t)block * (size_t)d.width * (size_t)d.width;
}

static inline size_t diagonal_floats(struct diagonal d)
{
    int last = diagonal_blocks(d) - 1;
    size_t order = (size_t)diagonal_order(d, last);
    return diagonal_start(d, last) + order * order;
}

/* Floats of a row, and before it; row n is the end. */
static inline size_t diagonal_row_floats(struct diagonal d, int row)
{
    return (size_t)diagonal_order(d, row / d.width);
}

static inline size_t diagonal_row(struct diagonal d, int row)
{
    int block = row / d.width;
    return row == d.n ? diagonal_floats(d)
                      : diagonal_start(d, block) +
                            (size_t)(row % d.width) * (size_t)diagonal_order(d, block);
}

#endif
