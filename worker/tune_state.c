/* A stream over scattered memory. */
#include "worker/tune_state.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

enum status tune_state_create(struct tune_state *s, size_t room, struct error *e)
{
    *s = (struct tune_state){.room = room};
    return mem_array(&s->piece, room, sizeof *s->piece, "a list of what is tuned", e);
}

void tune_state_free(struct tune_state *s)
{
    free(s->piece);
    *s = (struct tune_state){0};
}

void tune_state_add(struct tune_state *s, void *at, size_t bytes)
{
    s->piece[s->n++] = (struct tune_piece){at, bytes};
    s->bytes += bytes;
}

/* Copies to out or, where that is NULL, from in. */
static void copy(const struct tune_state *s, uint64_t offset, size_t size, uint8_t *out,
                 const uint8_t *in)
{
    for (size_t i = 0, done = 0; i < s->n && done < size; i++) {
        const struct tune_piece *p = &s->piece[i];
        if (offset >= p->bytes) {
            offset -= p->bytes;
            continue;
        }
        size_t n = p->bytes - offset < size - done ? p->bytes - offset : size - done;
        if (out)
            memcpy(out + done, p->at + offset, n);
        else
            memcpy(p->at + offset, in + done, n);
        done += n;
        offset = 0;
    }
}

void tune_state_get(const struct tune_state *s, uint64_t offset, size_t size, void *out)
{
    copy(s, offset, size, out, NULL);
}

void tune_state_set(const struct tune_state *s, uint64_t offset, size_t size, const void *in)
{
    copy(s, offset, size, NULL, in);
}
