/* Pieces of memory that are together one state, as one stream of bytes that can be copied out and in from any place.
 * Knows nothing of what they mean. */
#ifndef SBIT_WORKER_TUNE_STATE_H
#define SBIT_WORKER_TUNE_STATE_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct tune_piece {
    uint8_t *at; /* borrowed */
    size_t bytes;
};

struct tune_state {
    struct tune_piece *piece; /* [n] of at most room */
    size_t n, room;
    uint64_t bytes; /* of all of them */
};

/* For up to room pieces. *s is released by tune_state_free, also after a failure. Errors: ERR_MEMORY. */
enum status tune_state_create(struct tune_state *s, size_t room, struct error *e);
/* A zeroed *s is fine. */
void tune_state_free(struct tune_state *s);

/* Appends bytes of memory at at, which must stay there; no more often than room says. */
void tune_state_add(struct tune_state *s, void *at, size_t bytes);

/* out[size], or in[size], are the bytes of the stream from offset on: all within it. */
void tune_state_get(const struct tune_state *s, uint64_t offset, size_t size, void *out);
void tune_state_set(const struct tune_state *s, uint64_t offset, size_t size, const void *in);

#endif
