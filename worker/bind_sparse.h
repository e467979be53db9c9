/* Checks of a sparse correction's indices. Knows nothing of whose correction it is. */
#ifndef SBIT_WORKER_BIND_SPARSE_H
#define SBIT_WORKER_BIND_SPARSE_H

#include <stdint.h>

#include "common/error.h"
#include "common/weights.h"

/* start[rows + 1] = where each row's entries begin, from the I32 row indices of t (at most
 * UINT32_MAX). path for messages. Errors: ERR_FORMAT when they are not sorted or not below rows. */
enum status sparse_starts(const struct tensor *t, const char *path, uint32_t rows, uint32_t *start,
                          struct error *e);

/* Errors: ERR_FORMAT when an I16 or I32 column index of t is negative or not below cols. */
enum status sparse_check_columns(const struct tensor *t, const char *path, uint32_t cols,
                                 struct error *e);

#endif
