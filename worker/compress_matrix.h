/* One matrix on its way from source rows to finished tensor parts, a bounded range of rows at a
 * time. Owns the buffers of one unit; knows nothing of the list of units, nor who receives the
 * parts. */
#ifndef SBIT_WORKER_COMPRESS_MATRIX_H
#define SBIT_WORKER_COMPRESS_MATRIX_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/weights.h"
#include "common/wire.h"

/* Receives size bytes of the tensor base + suffix of a unit, to stand at offset in it. Parts of one
 * tensor come in order and without gaps. data is borrowed for the call. */
struct part_sink {
    void *self;
    enum status (*put)(void *self, uint32_t unit, const char *suffix, uint64_t offset,
                       const void *data, size_t size, struct error *e);
};

struct compress_matrix;

/* Prepares unit u of the source tensor t (borrowed). The buffers hold about 4 MB of floats, at
 * least 64 rows, and what they become. *out is the caller's, compress_matrix_free. */
enum status compress_matrix_create(struct compress_matrix **out, const struct tensor *t,
                                   const struct compress_unit *u, double outliers, uint32_t threads,
                                   struct error *e);
void compress_matrix_free(struct compress_matrix *m);

/* Works on the next range of rows; *done when it was the last. Errors: ERR_FORMAT for source
 * values that are not finite, ERR_LIMIT for values beyond the target type, those of the sink. */
enum status compress_matrix_step(struct compress_matrix *m, const struct part_sink *sink,
                                 bool *done, struct error *e);

/* Sums over the whole matrix, valid when done. */
void compress_matrix_errors(const struct compress_matrix *m, double *error2, double *weight2);
/* "quantising blk.3.ffn_up.weight, row 640 of 11008" */
void compress_matrix_doing(const struct compress_matrix *m, char out[128]);

#endif
