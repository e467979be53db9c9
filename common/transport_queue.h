/* A queue of frames inside one process: mailboxes of the local transport, and what a rank sends
 * to itself under MPI. Not thread-safe by itself. Private to common/transport*.c. */
#ifndef SBIT_COMMON_TRANSPORT_QUEUE_H
#define SBIT_COMMON_TRANSPORT_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/transport.h"

struct queued_frame {
    struct queued_frame *next;
    struct frame frame;
    uint64_t due_ns; /* not given out before */
};

struct frame_queue {
    struct queued_frame *first, *last;
};

/* Appends; takes bytes when it returns true. False: out of memory. */
bool frame_queue_push(struct frame_queue *q, uint8_t *bytes, size_t size, int peer,
                      uint64_t due_ns);
/* Takes the first frame that is due at now_ns; false, with out->bytes NULL, when there is none. */
bool frame_queue_pop(struct frame_queue *q, uint64_t now_ns, struct frame *out);
/* Frees everything. */
void frame_queue_clear(struct frame_queue *q);

/* Monotonic nanoseconds. */
uint64_t transport_now_ns(void);

#endif
