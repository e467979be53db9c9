/* Streaming decode: bytes of tokens in, whole UTF-8 characters out. Knows nothing of how a
 * tokenizer works beyond the bytes of a token. */
#include "common/tokenizer.h"

#include <string.h>

#include "common/tokenizer_internal.h"
#include "common/utf8.h"

/* The held bytes, a token of TOK_MAX_PIECE bytes, each of them replaced by three, and the NUL. */
_Static_assert((TOK_MAX_PIECE + 8) * 3 + 1 <= sizeof(((struct text_stream *)0)->out),
               "out holds the longest token");

static size_t put_replacement(char *out)
{
    memcpy(out, "\xEF\xBF\xBD", 3);
    return 3;
}

void text_stream_init(struct text_stream *s, const struct tokenizer *t, bool at_start)
{
    s->tokenizer = t;
    s->n_held = 0;
    s->at_start = at_start;
    s->out[0] = '\0';
}

const char *text_stream_push(struct text_stream *s, uint32_t id)
{
    size_t size;
    const char *piece = tokenizer_piece(s->tokenizer, id, false, &size);
    if (size > 0 && s->at_start) {
        s->at_start = false;
        if (s->tokenizer->spm && s->tokenizer->dummy_prefix && piece[0] == ' ') {
            piece++;
            size--;
        }
    }
    char in[TOK_MAX_PIECE + sizeof s->held];
    memcpy(in, s->held, s->n_held);
    memcpy(in + s->n_held, piece, size);
    size += s->n_held;
    s->n_held = 0;
    size_t out = 0, at = 0;
    while (at < size) {
        int step = utf8_step(in + at, size - at);
        if (step == 0)
            break;
        if (step > 0)
            memcpy(s->out + out, in + at, (size_t)step);
        out += step > 0 ? (size_t)step : put_replacement(s->out + out);
        at += (size_t)(step > 0 ? step : -step);
    }
    s->n_held = size - at;
    memcpy(s->held, in + at, s->n_held);
    s->out[out] = '\0';
    return s->out;
}

const char *text_stream_finish(struct text_stream *s)
{
    size_t out = s->n_held > 0 ? put_replacement(s->out) : 0;
    s->out[out] = '\0';
    s->n_held = 0;
    return s->out;
}
