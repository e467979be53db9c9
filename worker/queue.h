/* Messages that wait for their turn, first in, first out. Knows nothing of their content. */
#ifndef SBIT_WORKER_QUEUE_H
#define SBIT_WORKER_QUEUE_H

#include <stdbool.h>

#include "common/error.h"
#include "common/wire.h"

struct queue_entry;

struct queue { /* zeroed: empty */
    struct queue_entry *first, *last;
};

/* Appends m and takes its bytes. On failure (ERR_MEMORY) they stay the caller's. */
enum status queue_put(struct queue *q, struct message *m, struct error *e);
static inline bool queue_empty(const struct queue *q)
{
    return !q->first;
}
/* The oldest message, the caller's (queue_release), or NULL. */
struct message *queue_take(struct queue *q);
/* Frees a taken message and its bytes. NULL is fine. */
void queue_release(struct message *m);
/* Releases all. */
void queue_clear(struct queue *q);

#endif
