/* The model that is compressed, as this rank has it: its files, or, where it has none, what rank 0
 * sends of them when it is asked for. Owns the tensors' memory in that case; knows nothing of what
 * is done with them. Where there are files, asking does nothing, and what is given back leaves the
 * resident set until it is touched again. */
#ifndef SBIT_WORKER_SOURCE_H
#define SBIT_WORKER_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/loop.h"
#include "common/weights.h"

struct source;

/* Opens the model of a MSG_SOURCE and tells rank 0 with MSG_OPENED. loop is borrowed. *out is the
 * caller's, source_close. Errors: ERR_PEER for another model under that name, or a description of
 * none; those of weights_open for files that are there and cannot be used; ERR_MEMORY. */
enum status source_open(struct source **out, struct loop *loop, const struct message *m,
                        struct error *e);
void source_close(struct source *s);
const struct weights *source_weights(const struct source *s);

/* Asks for a tensor that the model may lack (then nothing happens). What was asked for n times is
 * kept until it was given back n times. Its data may be touched once source_ready or source_has
 * says so. Errors: ERR_MEMORY. */
enum status source_want(struct source *s, enum tensor_kind kind, uint32_t block, struct error *e);
void source_give_back(struct source *s, enum tensor_kind kind, uint32_t block);
/* The same for these rows of the embeddings, to be kept for good. Errors: ERR_USAGE for a token
 * beyond the vocabulary. */
enum status source_want_tokens(struct source *s, const uint32_t *tokens, size_t n, struct error *e);
/* Whether all that was asked for is there. */
bool source_ready(const struct source *s);
/* Whether this tensor is. */
bool source_has(const struct source *s, enum tensor_kind kind, uint32_t block);

/* Sends what may be sent of the questions; called in each step. */
enum status source_step(struct source *s, bool *busy, struct error *e);
/* A MSG_FETCHED. Errors: ERR_PEER for what was not asked for. */
enum status source_take(struct source *s, const struct message *m, struct error *e);

#endif
