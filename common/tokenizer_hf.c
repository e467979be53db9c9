/* Hugging Face's tokenizer.json and what tokenizer_config.json adds to it. The file describes a
 * chain of normaliser, pre-tokenizer and model; each link is recognised by its type, and one that
 * is not known is refused by name, because skipping it would give other tokens. Knows nothing of
 * encoding. */
#include "common/tokenizer_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/json_file.h"

#define MAX_JSON (128u << 20)

static const char *text_at(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static bool flag_at(const json_t *o, const char *key, bool missing)
{
    const json_t *v = json_object_get(o, key);
    return json_is_boolean(v) ? json_is_true(v) : missing;
}

static enum status unsupported(const struct tokenizer *t, const char *what, const char *type,
                               struct error *e)
{
    return error_set(e, ERR_UNSUPPORTED, "%s: its %s \"%s\" is not supported", t->source, what,
                     type);
}

/* The parts of a link that may be a single one or a "Sequence" of them under the key list. */
static const json_t *part(const json_t *link, const char *list, size_t i)
{
    if (!json_is_object(link))
        return NULL;
    if (strcmp(text_at(link, "type"), "Sequence") != 0)
        return i == 0 ? link : NULL;
    return json_array_get(json_object_get(link, list), i);
}

static enum status read_normaliser(struct tokenizer *t, const json_t *link, struct error *e)
{
    const json_t *p;
    if (t->spm)
        t->dummy_prefix = false;
    for (size_t i = 0; (p = part(link, "normalizers", i)) != NULL; i++) {
        const char *type = text_at(p, "type");
        const json_t *pattern = json_object_get(p, "pattern");
        if (!t->spm && strcmp(type, "NFC") == 0)
            t->nfc = true;
        else if (t->spm && strcmp(type, "Prepend") == 0 &&
                 !strcmp(text_at(p, "prepend"), TOK_SPACE))
            t->dummy_prefix = t->prefix_after_user = true;
        else if (!t->spm || strcmp(type, "Replace") != 0 ||
                 strcmp(text_at(pattern, "String"), " ") != 0 ||
                 strcmp(text_at(p, "content"), TOK_SPACE) != 0)
            return unsupported(t, "text normaliser", type, e);
    }
    return OK;
}

static enum status read_metaspace(struct tokenizer *t, const json_t *p, struct error *e)
{
    const char *scheme = text_at(p, "prepend_scheme");
    if (!*scheme)
        scheme = flag_at(p, "add_prefix_space", true) ? "always" : "never";
    if (flag_at(p, "split", true) || strcmp(text_at(p, "replacement"), TOK_SPACE) != 0)
        return unsupported(t, "pre-tokenizer", "Metaspace that splits words", e);
    t->dummy_prefix = strcmp(scheme, "never") != 0;
    t->prefix_first_only = strcmp(scheme, "first") == 0;
    t->prefix_after_user = t->prefix_unless_space = true;
    return OK;
}

static enum status read_split(struct tokenizer *t, const json_t *p, struct error *e)
{
    const char *regex = text_at(json_object_get(p, "pattern"), "Regex");
    if (!*regex || strcmp(text_at(p, "behavior"), "Isolated") != 0 || flag_at(p, "invert", false))
        return unsupported(t, "pre-tokenizer", "Split other than by an isolated expression", e);
    return bpe_add_split(t, regex, e);
}

static enum status read_pre_tokenizer(struct tokenizer *t, const json_t *link, struct error *e)
{
    const json_t *p;
    for (size_t i = 0; (p = part(link, "pretokenizers", i)) != NULL; i++) {
        const char *type = text_at(p, "type");
        if (t->spm && strcmp(type, "Metaspace") == 0) {
            TRY(read_metaspace(t, p, e));
        } else if (!t->spm && strcmp(type, "Split") == 0) {
            TRY(read_split(t, p, e));
        } else if (!t->spm && strcmp(type, "Digits") == 0) {
            bool single = flag_at(p, "individual_digits", false);
            TRY(bpe_add_split(t, single ? "\\p{N}" : "\\p{N}+", e));
        } else if (!t->spm && strcmp(type, "ByteLevel") == 0) {
            if (flag_at(p, "add_prefix_space", true))
                return unsupported(t, "pre-tokenizer", "ByteLevel with add_prefix_space", e);
            if (flag_at(p, "use_regex", true))
                TRY(bpe_add_split(t, bpe_gpt2_pattern(), e));
        } else {
            return unsupported(t, "pre-tokenizer", type, e);
        }
    }
    return OK;
}

/* A template that begins with a special token puts it before every text. */
static void read_post_processor(struct tokenizer *t, const json_t *link)
{
    const json_t *p;
    for (size_t i = 0; (p = part(link, "processors", i)) != NULL; i++) {
        const json_t *first = json_array_get(json_object_get(p, "single"), 0);
        const char *name = text_at(json_object_get(first, "SpecialToken"), "id");
        uint32_t id = tok_find(t, name, strlen(name));
        if (strcmp(text_at(p, "type"), "TemplateProcessing") == 0 && id != TOK_NONE) {
            t->bos = id;
            t->add_bos = true;
        }
    }
}

static enum status read_vocabulary(struct tokenizer *t, const json_t *model, struct error *e)
{
    const char *key;
    json_t *id;
    bool fallback = flag_at(model, "byte_fallback", false);
    const char *unk = text_at(model, "unk_token");
    json_object_foreach((json_t *)json_object_get(model, "vocab"), key, id)
    {
        size_t size = strlen(key);
        int type = TOK_NORMAL;
        if (*unk && strcmp(key, unk) == 0)
            type = TOK_UNKNOWN;
        else if (fallback && tok_byte_of(key, size) >= 0)
            type = TOK_BYTE;
        TRY(tok_set(t, (uint64_t)json_integer_value(id), key, size, type, 0, e));
    }
    return OK;
}

static enum status read_added(struct tokenizer *t, const json_t *added, struct error *e)
{
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *a = json_array_get(added, i), *text = json_object_get(a, "content");
        uint64_t id = (uint64_t)json_integer_value(json_object_get(a, "id"));
        size_t size = json_string_length(text);
        FAIL_IF(!json_is_string(text), e, ERR_FORMAT, "%s: added token %zu has no content",
                t->source, i);
        if (id >= t->n || !t->pieces[id].type)
            TRY(tok_set(t, id, json_string_value(text), size, TOK_CONTROL, 0, e));
        struct tok_piece *p = &t->pieces[id];
        FAIL_IF(
            p->text_size != size || memcmp(t->texts.data + p->text, json_string_value(text), size),
            e, ERR_FORMAT, "%s: two tokens have the id %llu", t->source, (unsigned long long)id);
        if (p->type != TOK_UNKNOWN)
            p->type = flag_at(a, "special", false) ? TOK_CONTROL : TOK_USER;
        p->strip_left = flag_at(a, "lstrip", false);
        p->strip_right = flag_at(a, "rstrip", false);
    }
    return OK;
}

static enum status read_merges(struct tokenizer *t, const json_t *merges, struct error *e)
{
    size_t n = json_array_size(merges);
    TRY(tok_merges(t, n, e));
    for (size_t i = 0; i < n; i++) {
        const json_t *m = json_array_get(merges, i);
        const json_t *l = json_array_get(m, 0), *r = json_array_get(m, 1);
        if (json_is_string(m)) {
            TRY(tok_merge_line(t, json_string_value(m), json_string_length(m), e));
            continue;
        }
        FAIL_IF(!json_is_string(l) || !json_is_string(r) || json_array_size(m) != 2, e, ERR_FORMAT,
                "%s: merge %zu is not two strings", t->source, i);
        TRY(tok_merge(t, json_string_value(l), json_string_length(l), json_string_value(r),
                      json_string_length(r), e));
    }
    return OK;
}

static enum status read_document(struct tokenizer *t, const json_t *root, const char *folder,
                                 struct error *e)
{
    const json_t *model = json_object_get(root, "model");
    TRY(read_vocabulary(t, model, e));
    TRY(read_added(t, json_object_get(root, "added_tokens"), e));
    TRY(tok_index(t, e));
    TRY(read_merges(t, json_object_get(model, "merges"), e));
    TRY(read_normaliser(t, json_object_get(root, "normalizer"), e));
    TRY(read_pre_tokenizer(t, json_object_get(root, "pre_tokenizer"), e));
    const char *unk = text_at(model, "unk_token");
    t->unk = tok_find(t, unk, strlen(unk));
    t->fuse_unk = flag_at(model, "fuse_unk", false);
    t->ignore_merges = flag_at(model, "ignore_merges", false);
    if (t->spm)
        spm_use_merges(t);
    else
        bpe_name_splits(t);
    read_post_processor(t, json_object_get(root, "post_processor"));
    TRY(tok_read_config(t, folder, e));
    return tok_finish(t, e);
}

/* Whether any part of a link has that type. */
static bool has_type(const json_t *link, const char *list, const char *type)
{
    const json_t *p;
    for (size_t i = 0; (p = part(link, list, i)) != NULL; i++)
        if (strcmp(text_at(p, "type"), type) == 0)
            return true;
    return false;
}

/* Raises *n to one more than the id v of the token called text. */
static enum status count_id(uint64_t *n, const json_t *v, const char *text, const char *file,
                            struct error *e)
{
    json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
    FAIL_IF(id < 0 || id >= TOK_MAX_VOCAB, e, ERR_FORMAT,
            "%s: the token \"%.64s\" has no id from 0 to %u", file, text, TOK_MAX_VOCAB - 1);
    *n = (uint64_t)id >= *n ? (uint64_t)id + 1 : *n;
    return OK;
}

/* One more than the largest id; holes may not outnumber the tokens by far, else a small file could
 * ask for gigabytes. */
static enum status count_ids(const json_t *root, const char *file, uint64_t *n, struct error *e)
{
    const json_t *added = json_object_get(root, "added_tokens"), *a;
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab"), *id;
    const char *key;
    uint64_t tokens = json_object_size(vocab) + json_array_size(added);
    *n = 0;
    FAIL_IF(!json_is_object(vocab), e, ERR_FORMAT, "%s: it has no vocabulary (model.vocab)", file);
    json_object_foreach(vocab, key, id) TRY(count_id(n, id, key, file, e));
    for (size_t i = 0; (a = json_array_get(added, i)) != NULL; i++)
        TRY(count_id(n, json_object_get(a, "id"), text_at(a, "content"), file, e));
    FAIL_IF(*n > 4 * tokens + 65536, e, ERR_LIMIT, "%s: %llu tokens use ids up to %llu", file,
            (unsigned long long)tokens, (unsigned long long)(*n - 1));
    return OK;
}

static enum status from_document(struct tokenizer **out, const json_t *root, const char *name,
                                 const char *folder, struct error *e)
{
    const json_t *model = json_object_get(root, "model");
    const json_t *pre = json_object_get(root, "pre_tokenizer");
    const char *type = text_at(model, "type");
    uint64_t n;
    FAIL_IF(!json_is_object(model), e, ERR_FORMAT, "%s is not a tokenizer (no object \"model\")",
            name);
    FAIL_IF(*type && strcmp(type, "BPE") != 0, e, ERR_UNSUPPORTED,
            "%s: its model type \"%s\" is not supported, only BPE is", name, type);
    bool bytes = has_type(pre, "pretokenizers", "ByteLevel");
    bool spm = !bytes && (has_type(json_object_get(root, "normalizer"), "normalizers", "Replace") ||
                          has_type(pre, "pretokenizers", "Metaspace"));
    FAIL_IF(!bytes && !spm, e, ERR_UNSUPPORTED,
            "%s: its BPE is neither byte-level (pre-tokenizer ByteLevel) nor SentencePiece's "
            "(spaces become U+2581)",
            name);
    TRY(count_ids(root, name, &n, e));
    TRY(tok_create(out, name, n, spm, e));
    enum status status = read_document(*out, root, folder, e);
    return status == OK ? OK : tok_drop(out, status);
}

enum status tokenizer_from_json(struct tokenizer **out, const char *path, const char *folder,
                                struct error *e)
{
    json_t *root;
    *out = NULL;
    TRY(json_file_load(&root, path, MAX_JSON, JSON_FILE_INTEGERS, e));
    enum status status = from_document(out, root, path, folder, e);
    json_decref(root);
    return status;
}

enum status tokenizer_from_json_text(struct tokenizer **out, const char *name, const char *text,
                                     size_t size, struct error *e)
{
    json_t *root;
    *out = NULL;
    TRY(json_file_parse(&root, text, size, name, JSON_FILE_INTEGERS, e));
    enum status status = from_document(out, root, name, NULL, e);
    json_decref(root);
    return status;
}
