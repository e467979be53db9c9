#include "coordinator/calibration.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/mem.h"
#include "coordinator/calibration_text.h"
#include "coordinator/text_input.h"

#define USUAL_CONTEXT 512

enum { WINDOW_MIN = 2 };

/* Goes through the windows in their order; with words, writes them. Returns the number of tokens.
 * */
static uint64_t walk(const struct windows *texts, uint32_t n, uint64_t limit, uint32_t *lengths,
                     uint32_t *tokens, uint32_t *spare, uint32_t *windows)
{
    uint64_t sum = 0, most = 0;
    *windows = 0;
    for (uint32_t i = 0; i < n; i++)
        most = windows_count(&texts[i]) > most ? windows_count(&texts[i]) : most;
    for (uint64_t number = 0; number < most; number++) {
        for (uint32_t i = 0; i < n; i++) {
            if (number >= windows_count(&texts[i]))
                continue;
            uint64_t size = windows_tokens(&texts[i], number, spare);
            size = size < limit - sum ? size : limit - sum;
            if (size < WINDOW_MIN)
                continue;
            if (lengths) {
                lengths[*windows] = (uint32_t)size;
                memcpy(tokens + sum, spare, size * sizeof *tokens);
            }
            ++*windows;
            sum += size;
        }
    }
    return sum;
}

enum status calibration_mix(struct calibration *c, const struct windows *texts, uint32_t n,
                            uint64_t limit, struct error *e)
{
    uint32_t *spare;
    c->context = texts[0].context;
    TRY(mem_array(&spare, c->context, sizeof *spare, "a window of the calibration text", e));
    c->tokens = walk(texts, n, limit, NULL, NULL, spare, &c->windows);
    c->n_words = c->windows + (size_t)c->tokens;
    enum status status = mem_array(&c->words, c->n_words ? c->n_words : 1, sizeof *c->words,
                                   "the calibration text", e);
    if (status == OK) {
        uint32_t *tokens = c->words + c->windows;
        walk(texts, n, limit, c->words, tokens, spare, &c->windows);
        c->hash = XXH3_64bits(tokens, (size_t)c->tokens * sizeof *tokens);
    }
    free(spare);
    return status;
}

void calibration_free(struct calibration *c)
{
    free(c->words);
    *c = (struct calibration){0};
}

static enum status check_ids(const uint32_t *ids, size_t n, uint32_t vocab, struct error *e)
{
    for (size_t i = 0; i < n; i++)
        FAIL_IF(ids[i] >= vocab, e, ERR_FORMAT,
                "the tokenizer knows token %u but the model has only %u: they do not belong "
                "together",
                ids[i], vocab);
    return OK;
}

/* *w and its ids (the caller's, free) from a text; name for messages. */
static enum status tokenise(struct windows *w, uint32_t **ids, const char *text, size_t size,
                            const char *name, const struct tokenizer *t, uint32_t vocab,
                            struct error *e)
{
    size_t n;
    TRY(tokenizer_encode(t, text, size, false, false, ids, &n, e));
    FAIL_IF(n < WINDOW_MIN, e, ERR_USAGE,
            "%s holds %zu token%s: give a text of some thousand words as --calib, or leave --calib "
            "out for the text inside the program",
            name, n, n == 1 ? "" : "s");
    w->ids = *ids;
    w->n_ids = n;
    return check_ids(*ids, n, vocab, e);
}

static enum status read_one(struct windows *w, uint32_t **ids, const struct options *o, uint32_t i,
                            const struct tokenizer *t, uint32_t vocab, struct cluster *cluster,
                            struct error *e)
{
    struct text text;
    if (o->calib.n == 0) {
        struct calibration_text own = calibration_text(i);
        return tokenise(w, ids, own.begin, (size_t)(own.end - own.begin), own.name, t, vocab, e);
    }
    const char *path = o->calib.at[i];
    const char *name = strcmp(path, "-") ? path : "standard input";
    TRY(text_read(&text, path, cluster, e));
    enum status status = OK;
    if (text.size > 0 && memchr(text.bytes, 0, text.size))
        status = error_set(e, ERR_USAGE, "%s holds NUL bytes, so it is no text to calibrate on", name);
    if (status == OK) {
        text_note_foreign(&text, name);
        status = tokenise(w, ids, text.bytes, text.size, name, t, vocab, e);
    }
    text_free(&text);
    return status;
}

static enum status choose_context(uint32_t *context, const struct options *o,
                                  const struct model_config *config, struct error *e)
{
    FAIL_IF(o->calib_context > config->context, e, ERR_USAGE,
            "--calib-ctx %u is more than the %u positions that the model was trained for",
            o->calib_context, config->context);
    *context = o->calib_context                  ? o->calib_context
               : config->context < USUAL_CONTEXT ? config->context
                                                 : USUAL_CONTEXT;
    FAIL_IF(*context < WINDOW_MIN, e, ERR_UNSUPPORTED,
            "a model of %u position%s cannot be calibrated: take --calib none", config->context,
            config->context == 1 ? "" : "s");
    return OK;
}

static void report_size(const struct calibration *c, const struct options *o)
{
    bool asked = o->calib.n > 0 || o->has_calib_tokens;
    if (asked && c->tokens < o->calib_tokens)
        fprintf(stderr,
                "sbit: the calibration text has %" PRIu64 " tokens, fewer than the %u asked for: "
                "all of them are used\n",
                c->tokens, o->calib_tokens);
    if (c->tokens < CALIBRATION_FEW)
        fprintf(stderr,
                "sbit: %" PRIu64 " tokens say little about what a model computes with: %s\n",
                c->tokens,
                c->tokens >= o->calib_tokens
                    ? "give a larger --calib-tokens"
                    : "give more text, or leave --calib out for the text inside the program");
}

enum status calibration_read(struct calibration *c, const struct options *o,
                             const struct tokenizer *t, const struct model_config *config,
                             struct cluster *cluster, struct error *e)
{
    enum { MOST = sizeof o->calib.at / sizeof o->calib.at[0] };
    struct windows texts[MOST] = {{0}};
    uint32_t *ids[MOST] = {0}, context = 0, n = o->calib.n ? o->calib.n : CALIBRATION_TEXTS;
    _Static_assert((int)CALIBRATION_TEXTS <= (int)MOST, "the program's own texts fit the list");
    TRY(choose_context(&context, o, config, e));
    enum status status = OK;
    for (uint32_t i = 0; i < n && status == OK; i++) {
        texts[i].context = context;
        texts[i].bos = tokenizer_adds_bos(t) ? tokenizer_bos(t) : UINT32_MAX;
        status = read_one(&texts[i], &ids[i], o, i, t, config->vocab, cluster, e);
    }
    if (status == OK)
        status = calibration_mix(c, texts, n, o->calib_tokens, e);
    if (status == OK)
        report_size(c, o);
    for (uint32_t i = 0; i < n; i++)
        free(ids[i]);
    return status;
}
