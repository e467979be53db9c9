/* Stop strings in a stream of text: lets text through as soon as it is certain that no stop string
 * begins in it, so that a stop string is never half printed. */
#ifndef SBIT_COORDINATOR_STOP_FILTER_H
#define SBIT_COORDINATOR_STOP_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct stop_filter {
    const char *const *stops; /* [n], not empty, borrowed */
    uint32_t n;
    char *held; /* text that is not certain yet, owned */
    size_t size, room;
    size_t ready; /* so much of held has been given out and goes at the next call */
};

void stop_filter_init(struct stop_filter *f, const char *const *stops, uint32_t n);
void stop_filter_free(struct stop_filter *f);
/* Adds text; *out (not terminated, valid until the next call) and *size are what may be printed
 * now. True in *stopped when a stop string is complete: the text before it is given out, the rest
 * dropped. */
enum status stop_filter_push(struct stop_filter *f, const char *text, const char **out,
                             size_t *size, bool *stopped, struct error *e);
/* What is still held at the end. */
void stop_filter_finish(struct stop_filter *f, const char **out, size_t *size);

#endif
