/* The tokenizer.ggml.* keys of a GGUF file, read and written. Defaults where a key is missing are
 * those of the common GGUF runtimes. What the standard keys cannot say stands in keys
 * singularbit.tokenizer.*, which other programs skip. Knows nothing of encoding. */
#include "common/tokenizer_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

#define KEY "tokenizer.ggml."
#define OWN "singularbit.tokenizer."

struct flag_key {
    const char *key;
    size_t offset; /* of a bool in struct tokenizer */
};

#define FLAG(key, field)                                                                           \
    {                                                                                              \
        key, offsetof(struct tokenizer, field)                                                     \
    }

static const struct flag_key standard_flags[] = {
    FLAG(KEY "add_bos_token", add_bos),
    FLAG(KEY "add_eos_token", add_eos),
};
static const struct flag_key spm_flags[] = {
    FLAG(KEY "add_space_prefix", dummy_prefix),
    FLAG(KEY "remove_extra_whitespaces", remove_extra_spaces),
    FLAG(OWN "fuse_unknown", fuse_unk),
    FLAG(OWN "prefix_first_only", prefix_first_only),
    FLAG(OWN "prefix_after_user", prefix_after_user),
    FLAG(OWN "prefix_unless_space", prefix_unless_space),
};
static const struct flag_key bpe_flags[] = {
    FLAG(OWN "nfc", nfc),
    FLAG(OWN "ignore_merges", ignore_merges),
};

struct id_key {
    const char *key;
    size_t offset; /* of an id in struct tokenizer */
};

static const struct id_key id_keys[] = {
    {KEY "bos_token_id", offsetof(struct tokenizer, bos)},
    {KEY "eos_token_id", offsetof(struct tokenizer, eos)},
    {KEY "eot_token_id", offsetof(struct tokenizer, eot)},
    {KEY "unknown_token_id", offsetof(struct tokenizer, unk)},
    {KEY "padding_token_id", offsetof(struct tokenizer, pad)},
};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static void read_flags(struct tokenizer *t, const struct gguf *g, const struct flag_key *flags,
                       size_t n)
{
    for (size_t i = 0; i < n; i++)
        (void)gguf_get_bool(g, flags[i].key, (bool *)((char *)t + flags[i].offset));
}

static enum status write_flags(const struct tokenizer *t, struct gguf_writer *w,
                               const struct flag_key *flags, size_t n, struct error *e)
{
    for (size_t i = 0; i < n; i++) {
        const bool *flag = (const bool *)((const char *)t + flags[i].offset);
        TRY(gguf_set_bool(w, flags[i].key, *flag, e));
    }
    return OK;
}

static enum status read_ids(struct tokenizer *t, const struct gguf *g, struct error *e)
{
    for (size_t i = 0; i < COUNT(id_keys); i++) {
        uint64_t id;
        if (!gguf_get_u64(g, id_keys[i].key, &id) || id == TOK_NONE)
            continue;
        FAIL_IF(id >= t->n, e, ERR_FORMAT, "%s: %s is %llu, outside the vocabulary of %u tokens",
                t->source, id_keys[i].key, (unsigned long long)id, t->n);
        *(uint32_t *)((char *)t + id_keys[i].offset) = (uint32_t)id;
    }
    return OK;
}

/* An array key of n elements, or any number when n is 0; NULL in *out when it is missing. */
static enum status find_array(const struct gguf *g, const char *name, uint64_t n,
                              const struct gguf_key **out, struct error *e)
{
    const struct gguf_key *k = gguf_find_key(g, name);
    *out = k;
    FAIL_IF(k && k->type != GGUF_ARRAY, e, ERR_FORMAT, "%s: %s is not an array", g->file.path,
            name);
    FAIL_IF(k && n && k->count != n, e, ERR_FORMAT, "%s: %s has %llu entries for %llu tokens",
            g->file.path, name, (unsigned long long)k->count, (unsigned long long)n);
    return OK;
}

/* Files without token types tell byte tokens by their text. */
static int default_type(const struct tokenizer *t, struct gguf_string text)
{
    return t->spm && tok_byte_of(text.data, text.size) >= 0 ? TOK_BYTE : TOK_NORMAL;
}

static enum status read_tokens(struct tokenizer *t, const struct gguf *g,
                               const struct gguf_key *tokens, struct error *e)
{
    const struct gguf_key *scores, *types;
    struct gguf_string text;
    TRY(find_array(g, KEY "scores", t->n, &scores, e));
    TRY(find_array(g, KEY "token_type", t->n, &types, e));
    FAIL_IF(t->spm && !scores, e, ERR_FORMAT,
            "%s: its tokenizer needs " KEY "scores, which is missing", t->source);
    uint64_t id = 0, type, state = 0;
    while (id < t->n && gguf_next_string(tokens, &state, &text)) {
        double score = 0;
        FAIL_IF(scores && !gguf_array_f64(scores, id, &score), e, ERR_FORMAT,
                "%s: " KEY "scores does not hold numbers", t->source);
        FAIL_IF(types && !gguf_array_u64(types, id, &type), e, ERR_FORMAT,
                "%s: " KEY "token_type does not hold numbers", t->source);
        if (!types || type == 0) /* 0: undefined */
            type = (uint64_t)default_type(t, text);
        TRY(tok_set(t, id, text.data, text.size, type > 100 ? 100 : (int)type, (float)score, e));
        id++;
    }
    FAIL_IF(id < t->n, e, ERR_FORMAT, "%s: " KEY "tokens does not hold strings", t->source);
    return tok_index(t, e);
}

static enum status read_merges(struct tokenizer *t, const struct gguf *g, struct error *e)
{
    const struct gguf_key *k;
    struct gguf_string line;
    uint64_t state = 0;
    TRY(find_array(g, KEY "merges", 0, &k, e));
    FAIL_IF(!k, e, ERR_FORMAT, "%s: its tokenizer needs " KEY "merges, which is missing",
            t->source);
    FAIL_IF(k->element != GGUF_STRING, e, ERR_FORMAT, "%s: " KEY "merges does not hold strings",
            t->source);
    TRY(tok_merges(t, k->count, e));
    while (gguf_next_string(k, &state, &line))
        TRY(tok_merge_line(t, line.data, line.size, e));
    return OK;
}

static enum status copy_name(char *out, size_t capacity, struct gguf_string s, const char *key,
                             const char *file, struct error *e)
{
    FAIL_IF(s.size >= capacity, e, ERR_UNSUPPORTED,
            "%s: %s is a name of %llu bytes; none known is so long", file, key,
            (unsigned long long)s.size);
    memcpy(out, s.data, s.size);
    out[s.size] = '\0';
    return OK;
}

static enum status read_custom_splits(struct tokenizer *t, const struct gguf_key *k,
                                      struct error *e)
{
    struct gguf_string s;
    uint64_t state = 0;
    while (gguf_next_string(k, &state, &s)) {
        char pattern[8193];
        FAIL_IF(memchr(s.data, '\0', s.size), e, ERR_FORMAT, "%s: " OWN "split holds a NUL",
                t->source);
        TRY(copy_name(pattern, sizeof pattern, s, OWN "split", t->source, e));
        TRY(bpe_add_split(t, pattern, e));
    }
    bpe_name_splits(t);
    return OK;
}

static enum status read_pre(struct tokenizer *t, const struct gguf *g, struct error *e)
{
    struct gguf_string s;
    char name[64];
    const struct gguf_key *custom;
    TRY(find_array(g, OWN "split", 0, &custom, e));
    if (custom)
        return read_custom_splits(t, custom, e);
    FAIL_IF(!gguf_get_string(g, KEY "pre", &s), e, ERR_UNSUPPORTED,
            "%s: it does not name its pre-tokenizer (" KEY "pre); convert the model again",
            t->source);
    TRY(copy_name(name, sizeof name, s, KEY "pre", t->source, e));
    return bpe_use_named(t, name, e);
}

static enum status read_all(struct tokenizer *t, const struct gguf *g,
                            const struct gguf_key *tokens, struct error *e)
{
    TRY(read_tokens(t, g, tokens, e));
    if (t->spm) {
        t->unk = 0;
        t->bos = 1;
        t->eos = 2;
        t->add_bos = true;
        t->prefix_after_user = true;
        read_flags(t, g, spm_flags, COUNT(spm_flags));
    } else {
        TRY(read_pre(t, g, e));
        read_flags(t, g, bpe_flags, COUNT(bpe_flags));
        t->add_bos = bpe_default_add_bos(t);
        TRY(read_merges(t, g, e));
    }
    TRY(read_ids(t, g, e));
    read_flags(t, g, standard_flags, COUNT(standard_flags));
    return tok_finish(t, e);
}

enum status tokenizer_from_gguf(struct tokenizer **out, const struct gguf *g, struct error *e)
{
    struct gguf_string s;
    char model[32];
    const struct gguf_key *tokens;
    const char *path = g->file.path;
    *out = NULL;
    FAIL_IF(!gguf_get_string(g, KEY "model", &s), e, ERR_FORMAT,
            "%s has no tokenizer (no key " KEY "model)", path);
    TRY(copy_name(model, sizeof model, s, KEY "model", path, e));
    bool spm = strcmp(model, "llama") == 0;
    FAIL_IF(!spm && strcmp(model, "gpt2") != 0, e, ERR_UNSUPPORTED,
            "%s: its tokenizer is of the kind \"%s\"; only gpt2 (byte-level BPE) and llama "
            "(SentencePiece "
            "BPE) are supported",
            path, model);
    TRY(find_array(g, KEY "tokens", 0, &tokens, e));
    FAIL_IF(!tokens, e, ERR_FORMAT, "%s: its tokenizer needs " KEY "tokens, which is missing",
            path);
    TRY(tok_create(out, path, tokens->count, spm, e));
    enum status status = read_all(*out, g, tokens, e);
    return status == OK ? OK : tok_drop(out, status);
}

/* A user-defined token is written as the text it matches, spaces and all; the others as they were
 * read. */
static struct gguf_string text_view(const struct tokenizer *t, uint32_t id)
{
    const struct tok_piece *p = &t->pieces[id];
    if (p->type == TOK_USER)
        return (struct gguf_string){t->shown.data + p->shown, p->shown_size};
    return (struct gguf_string){t->texts.data + p->text, p->text_size};
}

static enum status write_tokens(const struct tokenizer *t, struct gguf_writer *w,
                                struct gguf_string *texts, float *scores, int32_t *types,
                                struct error *e)
{
    for (uint32_t id = 0; id < t->n; id++) {
        texts[id] = text_view(t, id);
        scores[id] = t->pieces[id].score;
        types[id] = t->pieces[id].type;
    }
    TRY(gguf_set_strings(w, KEY "tokens", texts, t->n, e));
    if (t->spm)
        TRY(gguf_set_array(w, KEY "scores", GGUF_F32, scores, t->n, e));
    return gguf_set_array(w, KEY "token_type", GGUF_I32, types, t->n, e);
}

static enum status write_vocabulary(const struct tokenizer *t, struct gguf_writer *w,
                                    struct error *e)
{
    struct gguf_string *texts = NULL;
    float *scores = NULL;
    int32_t *types = NULL;
    enum status status = mem_array(&texts, t->n, sizeof *texts, "token texts", e);
    if (status == OK)
        status = mem_array(&scores, t->n, sizeof *scores, "token scores", e);
    if (status == OK)
        status = mem_array(&types, t->n, sizeof *types, "token types", e);
    if (status == OK)
        status = write_tokens(t, w, texts, scores, types, e);
    free(texts);
    free(scores);
    free(types);
    return status;
}

static enum status write_merge_lines(const struct tokenizer *t, struct gguf_writer *w,
                                     struct gguf_string *lines, struct tok_bytes *all,
                                     struct error *e)
{
    for (uint32_t i = 0; i < t->n_merges; i++) {
        const struct tok_piece *l = &t->pieces[t->merges[i].left];
        const struct tok_piece *r = &t->pieces[t->merges[i].right];
        TRY(tok_append(all, t->texts.data + l->text, l->text_size, e));
        TRY(tok_append(all, " ", 1, e));
        TRY(tok_append(all, t->texts.data + r->text, r->text_size, e));
        lines[i].size = l->text_size + 1 + r->text_size;
    }
    const char *at = all->data;
    for (uint32_t i = 0; i < t->n_merges; i++) {
        lines[i].data = at;
        at += lines[i].size;
    }
    return gguf_set_strings(w, KEY "merges", lines, t->n_merges, e);
}

static enum status write_merges(const struct tokenizer *t, struct gguf_writer *w, struct error *e)
{
    struct gguf_string *lines;
    struct tok_bytes all = {0};
    TRY(mem_array(&lines, t->n_merges, sizeof *lines, "merge texts", e));
    enum status status = write_merge_lines(t, w, lines, &all, e);
    free(lines);
    free(all.data);
    return status;
}

static enum status write_bpe(const struct tokenizer *t, struct gguf_writer *w, struct error *e)
{
    struct gguf_string patterns[TOK_MAX_SPLIT];
    TRY(gguf_set_string(w, KEY "model", "gpt2", e));
    TRY(gguf_set_string(w, KEY "pre", t->pre, e));
    for (uint32_t i = 0; i < t->n_split; i++)
        patterns[i] = (struct gguf_string){t->pattern[i], strlen(t->pattern[i])};
    if (strcmp(t->pre, "singularbit-custom") == 0)
        TRY(gguf_set_strings(w, OWN "split", patterns, t->n_split, e));
    TRY(write_flags(t, w, bpe_flags, COUNT(bpe_flags), e));
    return write_merges(t, w, e);
}

enum status tokenizer_to_gguf(const struct tokenizer *t, struct gguf_writer *w, struct error *e)
{
    FAIL_IF(t->spm && t->rank_pairs, e, ERR_UNSUPPORTED,
            "%s: its SentencePiece merges do not follow from scores, so no GGUF file can hold "
            "them; put "
            "the model's tokenizer.model in place of its tokenizer.json",
            t->source);
    if (t->spm) {
        TRY(gguf_set_string(w, KEY "model", "llama", e));
        TRY(gguf_set_string(w, KEY "pre", "default", e));
        TRY(write_flags(t, w, spm_flags, COUNT(spm_flags), e));
    } else {
        TRY(write_bpe(t, w, e));
    }
    TRY(write_vocabulary(t, w, e));
    for (size_t i = 0; i < COUNT(id_keys); i++) {
        uint32_t id = *(const uint32_t *)((const char *)t + id_keys[i].offset);
        if (id != TOK_NONE)
            TRY(gguf_set_u32(w, id_keys[i].key, id, e));
    }
    return write_flags(t, w, standard_flags, COUNT(standard_flags), e);
}
