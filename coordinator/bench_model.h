/* A model of random weights in a given shape and form, for measuring speed: written once, directly
 * as it will be read, and kept. Nothing is compressed and nothing it says makes sense; every value
 * is finite, and sizes and layouts are those of a real one. */
#ifndef SBIT_COORDINATOR_BENCH_MODEL_H
#define SBIT_COORDINATOR_BENCH_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/dtype.h"
#include "common/error.h"
#include "common/loop.h"
#include "common/model.h"

struct bench_model {
    const char *shape; /* its name, for the file's */
    struct model_config config;
    const char *type;       /* of the matrices in the blocks: "code", "q8_0", ... */
    uint32_t d;             /* type code: weights a byte, one that has a codebook; else 0 */
    const char *embeddings; /* type of embeddings and head, as --embeddings has it */
    uint32_t embeddings_d;  /* of codes: weights a byte; else 0 */
};

/* The number of weights a byte that comes nearest to so many bits per weight. */
uint32_t bench_model_d(double bits);

/* *path = where the model is kept: in folder, or, where that is NULL, in singularbit under
 * $XDG_CACHE_HOME or ~/.cache; the folder is made. The caller's, free(). Errors: ERR_USAGE, ERR_IO.
 */
enum status bench_model_path(char **path, const struct bench_model *m, const char *folder,
                             struct error *e);
/* Writes the model to path, where it appears when it is complete; says so on stderr. The loop's
 * ranks get signs of life meanwhile. Errors: ERR_UNSUPPORTED for rows that are no multiple of the
 * type's block, ERR_IO, also where there is not enough room. */
enum status bench_model_write(const struct bench_model *m, const char *path, struct loop *loop,
                              struct error *e);

#endif
