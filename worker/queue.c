/* A linked list of messages. Must never look into them. */
#include "worker/queue.h"

#include <stdlib.h>

#include "common/mem.h"

struct queue_entry {
    struct message m; /* first, so that the message's address is the entry's */
    struct queue_entry *next;
};

enum status queue_put(struct queue *q, struct message *m, struct error *e)
{
    struct queue_entry *entry;
    TRY(mem_array(&entry, 1, sizeof *entry, "a message that waits", e));
    entry->m = *m;
    m->bytes = NULL;
    if (q->last)
        q->last->next = entry;
    else
        q->first = entry;
    q->last = entry;
    return OK;
}

struct message *queue_take(struct queue *q)
{
    struct queue_entry *entry = q->first;
    if (!entry)
        return NULL;
    q->first = entry->next;
    if (!q->first)
        q->last = NULL;
    return &entry->m;
}

void queue_release(struct message *m)
{
    if (!m)
        return;
    message_release(m);
    free(m);
}

void queue_clear(struct queue *q)
{
    for (struct message *m = queue_take(q); m; m = queue_take(q))
        queue_release(m);
}
