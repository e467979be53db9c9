/* What run and eval need of a model before any rank loads it: headers, tokenizer and the context
 * to be used. */
#ifndef SBIT_COORDINATOR_OPEN_MODEL_H
#define SBIT_COORDINATOR_OPEN_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/tokenizer.h"
#include "common/weights.h"

struct open_model {
    struct weights *weights;
    struct tokenizer *tokenizer;
    uint32_t context; /* positions to be used */
};

/* Opens the model at path with its tokenizer. wanted: the context asked for, 0: the model's, at
 * most usual; more than the model was trained for is allowed with a warning on stderr. On failure
 * *m is zeroed. open_model_close otherwise. */
enum status open_model(struct open_model *m, const char *path, uint32_t wanted, uint32_t usual,
                       struct error *e);
void open_model_close(struct open_model *m);
/* Errors: ERR_FORMAT when an id lies outside the model's vocabulary. */
enum status open_model_check_ids(const struct open_model *m, const uint32_t *ids, size_t n,
                                 struct error *e);

#endif
