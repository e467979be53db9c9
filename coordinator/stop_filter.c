/* Stop strings in a stream of text. */
#include "coordinator/stop_filter.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

void stop_filter_init(struct stop_filter *f, const char *const *stops, uint32_t n)
{
    *f = (struct stop_filter){.stops = stops, .n = n};
}

void stop_filter_free(struct stop_filter *f)
{
    free(f->held);
    f->held = NULL;
}

/* Removes what the last call gave out. */
static void forget_ready(struct stop_filter *f)
{
    f->size -= f->ready;
    if (f->size > 0)
        memmove(f->held, f->held + f->ready, f->size);
    f->ready = 0;
}

static enum status append(struct stop_filter *f, const char *text, size_t n, struct error *e)
{
    if (f->size + n > f->room) {
        size_t room = 2 * (f->size + n);
        char *grown = realloc(f->held, room);
        FAIL_IF(!grown, e, ERR_MEMORY, "out of memory: %zu bytes of text", room);
        f->held = grown;
        f->room = room;
    }
    if (n > 0)
        memcpy(f->held + f->size, text, n);
    f->size += n;
    return OK;
}

/* Whether a stop string matches the held text from place at to its own end, or to the end of the
 * text: complete, then, is false. */
static bool begins_at(const struct stop_filter *f, size_t at, bool *complete)
{
    bool begins = false;
    *complete = false;
    for (uint32_t i = 0; i < f->n; i++) {
        size_t length = strlen(f->stops[i]), there = f->size - at;
        if (memcmp(f->held + at, f->stops[i], length < there ? length : there) == 0) {
            begins = true;
            *complete = *complete || length <= there;
        }
    }
    return begins;
}

enum status stop_filter_push(struct stop_filter *f, const char *text, const char **out,
                             size_t *size, bool *stopped, struct error *e)
{
    *stopped = false;
    forget_ready(f);
    TRY(append(f, text, strlen(text), e));
    size_t at = 0, certain = SIZE_MAX;
    for (; at < f->size && !*stopped; at++) {
        bool complete;
        if (begins_at(f, at, &complete) && (complete || certain == SIZE_MAX)) {
            *stopped = complete;
            certain = at;
        }
    }
    if (certain == SIZE_MAX)
        certain = f->size;
    if (*stopped)
        f->size = certain;
    f->ready = certain;
    *out = f->held;
    *size = certain;
    return OK;
}

void stop_filter_finish(struct stop_filter *f, const char **out, size_t *size)
{
    forget_ready(f);
    f->ready = f->size;
    *out = f->held;
    *size = f->size;
}
