/* The face of the tokenizers: which file is what, added tokens in a text, BOS, the bytes of a
 * token. Knows neither the algorithms nor the formats. */
#include "common/tokenizer_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/mapfile.h"
#include "common/mem.h"

void tokenizer_free(struct tokenizer *t)
{
    if (!t)
        return;
    bpe_free(t);
    free(t->source);
    free(t->pieces);
    free(t->texts.data);
    free(t->shown.data);
    free(t->by_text);
    free(t->merges);
    free(t->by_pair);
    free(t->added);
    free(t);
}

enum status tokenizer_from_folder(struct tokenizer **out, const char *folder, struct error *e)
{
    char path[4096];
    *out = NULL;
    FAIL_IF(strlen(folder) + 32 > sizeof path, e, ERR_LIMIT, "the path %.100s... is too long",
            folder);
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    if (access(path, F_OK) == 0)
        return tokenizer_from_json(out, path, folder, e);
    snprintf(path, sizeof path, "%s/tokenizer.model", folder);
    FAIL_IF(access(path, F_OK) != 0, e, ERR_IO,
            "%s has neither a tokenizer.json nor a tokenizer.model", folder);
    return tokenizer_from_model(out, path, folder, e);
}

/* The first of a set of shards has the keys of all. */
static enum status open_gguf(struct tokenizer **out, const char *path, struct error *e)
{
    struct gguf g;
    char *first;
    size_t stem;
    uint32_t no, count;
    TRY(mem_string(&first, path, e));
    if (gguf_shard_name(path, &stem, &no, &count))
        memcpy(first + stem, "-00001", 6);
    enum status opened = gguf_open(&g, first, true, e);
    free(first);
    TRY(opened);
    enum status status = tokenizer_from_gguf(out, &g, e);
    gguf_close(&g);
    return status;
}

/* The files beside a tokenizer file belong to it. */
static enum status open_file(struct tokenizer **out, const char *path, bool json, struct error *e)
{
    char folder[4096] = ".";
    const char *slash = strrchr(path, '/');
    size_t size = slash ? (size_t)(slash - path) : 1;
    FAIL_IF(size >= sizeof folder, e, ERR_LIMIT, "the path %.100s... is too long", path);
    if (slash) {
        memcpy(folder, path, size);
        folder[size] = '\0';
    }
    return json ? tokenizer_from_json(out, path, folder, e)
                : tokenizer_from_model(out, path, folder, e);
}

enum status tokenizer_open(struct tokenizer **out, const char *path, struct error *e)
{
    struct stat st;
    struct mapfile file;
    *out = NULL;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return tokenizer_from_folder(out, path, e);
    TRY(mapfile_open(&file, path, e));
    bool gguf = file.size >= 4 && memcmp(file.data, "GGUF", 4) == 0;
    uint64_t at = 0;
    while (at < file.size && strchr(" \t\r\n", file.data[at]) && file.data[at])
        at++;
    bool json = at < file.size && file.data[at] == '{';
    bool empty = file.size == 0;
    mapfile_close(&file);
    FAIL_IF(empty, e, ERR_FORMAT, "%s is empty", path);
    return gguf ? open_gguf(out, path, e) : open_file(out, path, json, e);
}

/* State of encoding one text. */
struct encoding {
    const struct tokenizer *t;
    struct merger merger;
    struct tok_ids ids;
    bool prefix; /* the next plain text gets the SentencePiece space */
    struct error *e;
};

static enum status encode_plain(struct encoding *c, const char *text, size_t n)
{
    if (n == 0)
        return OK;
    bool prefix = c->prefix;
    c->prefix = false;
    return c->t->spm ? spm_encode(c->t, &c->merger, text, n, prefix, &c->ids, c->e)
                     : bpe_encode(c->t, &c->merger, text, n, &c->ids, c->e);
}

/* The longest added token that begins at text, TOK_NONE. */
static uint32_t added_at(const struct tokenizer *t, const char *text, size_t n, bool parse_special)
{
    uint8_t first = (uint8_t)text[0];
    for (uint32_t i = t->added_start[first]; i < t->added_start[first + 1]; i++) {
        const struct tok_piece *p = &t->pieces[t->added[i]];
        if (p->shown_size <= n && memcmp(t->shown.data + p->shown, text, p->shown_size) == 0 &&
            (parse_special || p->type == TOK_USER))
            return t->added[i];
    }
    return TOK_NONE;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static enum status encode_parts(struct encoding *c, const char *text, size_t n, bool parse_special)
{
    size_t start = 0;
    for (size_t at = 0; at < n;) {
        uint32_t id = added_at(c->t, text + at, n - at, parse_special);
        if (id == TOK_NONE) {
            at++;
            continue;
        }
        const struct tok_piece *p = &c->t->pieces[id];
        size_t end = at;
        while (p->strip_left && end > start && is_space(text[end - 1]))
            end--;
        TRY(encode_plain(c, text + start, end - start));
        TRY(tok_push(&c->ids, id, c->e));
        at += p->shown_size;
        while (p->strip_right && at < n && is_space(text[at]))
            at++;
        start = at;
        c->prefix = p->type == TOK_USER ? c->t->prefix_after_user : !c->t->prefix_first_only;
    }
    return encode_plain(c, text + start, n - start);
}

enum status tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, bool add_bos,
                             bool parse_special, uint32_t **ids, size_t *count, struct error *e)
{
    struct encoding c = {.t = t, .prefix = true, .e = e};
    enum status status = OK;
    *ids = NULL;
    *count = 0;
    FAIL_IF(n > (1u << 30), e, ERR_LIMIT, "a text of %zu bytes; at most 1 GiB is taken at once", n);
    if (add_bos && t->add_bos)
        status = tok_push(&c.ids, t->bos, e);
    if (status == OK)
        status = encode_parts(&c, text, n, parse_special);
    merger_free(&c.merger);
    if (status != OK) {
        free(c.ids.id);
        return status;
    }
    *count = c.ids.count;
    *ids = c.ids.id;
    return *ids ? OK : mem_array(ids, 0, sizeof **ids, "token ids", e);
}

const char *tokenizer_piece(const struct tokenizer *t, uint32_t id, bool special, size_t *size)
{
    *size = 0;
    if (id >= t->n)
        return "";
    const struct tok_piece *p = &t->pieces[id];
    if (!special && (p->type == TOK_CONTROL || p->type == TOK_UNKNOWN || p->type == TOK_UNUSED))
        return "";
    *size = p->shown_size;
    return t->shown.data + p->shown;
}

uint32_t tokenizer_vocab(const struct tokenizer *t)
{
    return t->n;
}

bool tokenizer_adds_bos(const struct tokenizer *t)
{
    return t->add_bos;
}

uint32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

uint32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

bool tokenizer_is_end(const struct tokenizer *t, uint32_t id)
{
    return id < t->n && t->pieces[id].ends;
}

const char *tokenizer_describe(const struct tokenizer *t)
{
    return t->describe;
}
