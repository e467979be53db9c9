/* Windows over a tokenised text: arithmetic only. */
#include "coordinator/windows.h"

#include <string.h>

/* Tokens of the text in a full window. */
static uint32_t per_window(const struct windows *w)
{
    return w->context - (w->bos != UINT32_MAX);
}

uint64_t windows_count(const struct windows *w)
{
    return (w->n_ids + per_window(w) - 1) / per_window(w);
}

uint32_t windows_tokens(const struct windows *w, uint64_t number, uint32_t *out)
{
    uint64_t first = number * per_window(w), left = w->n_ids - first;
    uint32_t n = left < per_window(w) ? (uint32_t)left : per_window(w), bos = 0;
    if (w->bos != UINT32_MAX)
        out[bos++] = w->bos;
    memcpy(out + bos, w->ids + first, n * sizeof *out);
    return bos + n;
}

uint64_t windows_scored(const struct windows *w)
{
    return w->bos != UINT32_MAX ? w->n_ids : w->n_ids - windows_count(w);
}
