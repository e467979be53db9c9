/* Byte-level BPE (Radford et al. 2019): regular expressions cut the text into words, the bytes of
 * a word are merged by rank. The expressions are facts of the models, published in their
 * tokenizer.json files; PCRE2 runs them with Unicode properties. Knows nothing of files. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "common/tokenizer_internal.h"

#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "common/mem.h"
#include "common/utf8.h"

#define SPLIT_GPT2                                                                                 \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define SPLIT_LLAMA3                                                                               \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"                      \
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define SPLIT_QWEN2                                                                                \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"                           \
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* What a GGUF name stands for; the first name of several with the same meaning is the one
 * written. */
struct pre_tokenizer {
    const char *name;
    const char *split[2];
    bool nfc, ignore_merges, add_bos;
};

static const struct pre_tokenizer known[] = {
    {"gpt-2", {SPLIT_GPT2}, false, false, false},
    {"llama-bpe", {SPLIT_LLAMA3}, false, true, true},
    {"qwen2", {SPLIT_QWEN2}, true, false, false},
    {"smollm", {"\\p{N}", SPLIT_GPT2}, false, false, false},
    {"dbrx", {SPLIT_LLAMA3}, false, false, false},
    {"llama3", {SPLIT_LLAMA3}, false, true, true},
    {"llama-v3", {SPLIT_LLAMA3}, false, true, true},
    {"deepseek-r1-qwen", {SPLIT_QWEN2}, true, false, false},
    {"olmo", {SPLIT_GPT2}, false, false, false},
    {"starcoder", {"\\p{N}", SPLIT_GPT2}, false, false, false},
};
enum { KNOWN = sizeof known / sizeof known[0] };

const char *bpe_gpt2_pattern(void)
{
    return SPLIT_GPT2;
}

static const struct pre_tokenizer *find_known(const char *name)
{
    for (int i = 0; i < KNOWN; i++)
        if (strcmp(known[i].name, name) == 0)
            return &known[i];
    return NULL;
}

enum status bpe_use_named(struct tokenizer *t, const char *name, struct error *e)
{
    const struct pre_tokenizer *pre = find_known(name);
    FAIL_IF(!pre, e, ERR_UNSUPPORTED,
            "%s: its pre-tokenizer \"%s\" is not known; gpt-2, llama-bpe, qwen2 and smollm are",
            t->source, name);
    snprintf(t->pre, sizeof t->pre, "%s", name);
    t->nfc = pre->nfc;
    t->ignore_merges = pre->ignore_merges;
    for (int i = 0; i < 2 && pre->split[i]; i++)
        TRY(bpe_add_split(t, pre->split[i], e));
    return OK;
}

bool bpe_default_add_bos(const struct tokenizer *t)
{
    const struct pre_tokenizer *pre = find_known(t->pre);
    return pre && pre->add_bos;
}

static bool has_splits(const struct tokenizer *t, const struct pre_tokenizer *pre)
{
    uint32_t n = pre->split[1] ? 2 : 1;
    if (t->n_split != n || t->ignore_merges != pre->ignore_merges)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(t->pattern[i], pre->split[i]) != 0)
            return false;
    return true;
}

void bpe_name_splits(struct tokenizer *t)
{
    const char *name = "singularbit-custom";
    for (int i = KNOWN - 1; i >= 0; i--)
        if (has_splits(t, &known[i]))
            name = known[i].name;
    snprintf(t->pre, sizeof t->pre, "%s", name);
}

enum status bpe_add_split(struct tokenizer *t, const char *pattern, struct error *e)
{
    FAIL_IF(t->n_split == TOK_MAX_SPLIT, e, ERR_LIMIT,
            "%s: its pre-tokenizer has more than %d regular expressions", t->source, TOK_MAX_SPLIT);
    FAIL_IF(strlen(pattern) > 8192, e, ERR_LIMIT,
            "%s: a regular expression of its pre-tokenizer is longer than 8192 bytes", t->source);
    int number;
    PCRE2_SIZE offset;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &number, &offset, NULL);
    if (!code) {
        PCRE2_UCHAR reason[128] = "";
        pcre2_get_error_message(number, reason, sizeof reason);
        return error_set(e, ERR_FORMAT,
                         "%s: PCRE2 refuses the pre-tokenizer's expression at byte %zu: %s",
                         t->source, (size_t)offset, (const char *)reason);
    }
    /* Without a compiler for this machine the interpreter gives the same matches, slower. */
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    t->split[t->n_split] = code;
    return mem_string(&t->pattern[t->n_split++], pattern, e);
}

void bpe_free(struct tokenizer *t)
{
    for (uint32_t i = 0; i < t->n_split; i++) {
        pcre2_code_free(t->split[i]);
        free(t->pattern[i]);
    }
}

/* GPT-2's printable stand-ins: printable Latin-1 stands for itself, the 68 others follow from
 * U+0100. */
static uint32_t byte_code_point(uint8_t b)
{
    if (b <= 32)
        return 256u + b;
    if (b >= 127 && b <= 160)
        return 289u + b - 127;
    return b == 173 ? 323u : b;
}

size_t bpe_byte_text(char out[4], uint8_t byte)
{
    return utf8_put(out, byte_code_point(byte));
}

static int code_point_byte(uint32_t cp)
{
    if (cp >= 256 && cp <= 288)
        return (int)cp - 256;
    if (cp >= 289 && cp <= 322)
        return (int)cp - 289 + 127;
    if (cp == 323)
        return 173;
    return cp < 256 && byte_code_point((uint8_t)cp) == cp ? (int)cp : -1;
}

long bpe_decode(char *out, const char *text, size_t size)
{
    long n = 0;
    for (size_t at = 0; at < size;) {
        int step = utf8_step(text + at, size - at);
        int byte = step > 0 ? code_point_byte(utf8_code_point(text + at, step)) : -1;
        if (byte < 0)
            return -1;
        out[n++] = (char)byte;
        at += (size_t)step;
    }
    return n;
}

struct bpe_run {
    const struct tokenizer *t;
    struct merger *merger;
    struct tok_ids *ids;
    pcre2_match_data *match[TOK_MAX_SPLIT];
    struct error *e;
};

static bool whole_word(const struct bpe_run *r, const char *word, size_t n, uint32_t *id)
{
    char text[TOK_MAX_PIECE + 4];
    size_t size = 0;
    for (size_t i = 0; i < n && size <= TOK_MAX_PIECE; i++)
        size += bpe_byte_text(text + size, (uint8_t)word[i]);
    *id = size <= TOK_MAX_PIECE ? tok_find_plain(r->t, text, size) : TOK_NONE;
    return *id != TOK_NONE;
}

static enum status encode_word(struct bpe_run *r, const char *word, size_t n)
{
    uint32_t id;
    if (r->t->ignore_merges && whole_word(r, word, n, &id))
        return tok_push(r->ids, id, r->e);
    struct merger *m = r->merger;
    TRY(merger_reset(m, n, r->e));
    for (size_t i = 0; i < n; i++)
        merger_add(m, (uint32_t)i, 1, r->t->byte_id[(uint8_t)word[i]]);
    TRY(merger_run(m, r->t, word, r->e));
    for (uint32_t i = 0; i != TOK_NONE; i = m->symbols[i].next) {
        /* A byte without a token is unknown; where there is no unknown token, it is lost. */
        id = m->symbols[i].id != TOK_NONE ? m->symbols[i].id : r->t->unk;
        if (id != TOK_NONE)
            TRY(tok_push(r->ids, id, r->e));
    }
    return OK;
}

/* Cuts valid UTF-8 by expression number level: matches and what lies between them both go on to
 * the next expression, which sees each part as a text of its own. */
static enum status split(struct bpe_run *r, uint32_t level, const char *text, size_t n)
{
    if (level == r->t->n_split)
        return encode_word(r, text, n);
    size_t done = 0;
    while (done < n) {
        uint32_t options = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
        int found = pcre2_match(r->t->split[level], (PCRE2_SPTR)text, n, done, options,
                                r->match[level], NULL);
        if (found == PCRE2_ERROR_JIT_STACKLIMIT)
            found = pcre2_match(r->t->split[level], (PCRE2_SPTR)text, n, done,
                                options | PCRE2_NO_JIT, r->match[level], NULL);
        FAIL_IF(found < 0 && found != PCRE2_ERROR_NOMATCH, r->e, ERR_LIMIT,
                "%s: the pre-tokenizer's expression %u gives up on a text (PCRE2 error %d)",
                r->t->source, level, found);
        const PCRE2_SIZE *range = pcre2_get_ovector_pointer(r->match[level]);
        size_t start = found >= 0 ? range[0] : n, end = found >= 0 ? range[1] : n;
        FAIL_IF(start < done || end < start, r->e, ERR_FORMAT,
                "%s: the pre-tokenizer's expression %u matches backwards", r->t->source, level);
        if (start > done)
            TRY(split(r, level + 1, text + done, start - done));
        if (end > start)
            TRY(split(r, level + 1, text + start, end - start));
        done = end;
    }
    return OK;
}

/* Invalid bytes are words of their own: no expression sees them, and they keep their byte
 * tokens. */
static enum status encode_any(struct bpe_run *r, const char *text, size_t n)
{
    size_t start = 0, at = 0;
    while (at < n) {
        int step = utf8_step(text + at, n - at);
        if (step > 0) {
            at += (size_t)step;
            continue;
        }
        size_t bad = step == 0 ? n - at : (size_t)-step;
        if (at > start)
            TRY(split(r, 0, text + start, at - start));
        TRY(encode_word(r, text + at, bad));
        at += bad;
        start = at;
    }
    return at > start ? split(r, 0, text + start, at - start) : OK;
}

/* Whether bringing the text to form C is needed (nothing below U+0300 changes) and possible: a
 * text that is not UTF-8 has no normal form, and sorting a run of marks takes the square of its
 * length, so that a text with a run that no language has stays as it is. */
static bool wants_nfc(const char *text, size_t n)
{
    enum { LONGEST_RUN = 256 };
    bool wanted = false;
    int run = 0;
    for (size_t at = 0; at < n;) {
        int step = utf8_step(text + at, n - at);
        if (step <= 0)
            return false;
        uint32_t cp = utf8_code_point(text + at, step);
        wanted |= cp >= 0x300;
        run = cp >= 0x300 && utf8proc_get_property((utf8proc_int32_t)cp)->combining_class ? run + 1
                                                                                          : 0;
        if (run > LONGEST_RUN)
            return false;
        at += (size_t)step;
    }
    return wanted;
}

enum status bpe_encode(const struct tokenizer *t, struct merger *m, const char *text, size_t n,
                       struct tok_ids *ids, struct error *e)
{
    struct bpe_run r = {.t = t, .merger = m, .ids = ids, .e = e};
    utf8proc_uint8_t *normal = NULL;
    if (t->nfc && wants_nfc(text, n)) {
        utf8proc_ssize_t size = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n,
                                             &normal, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        FAIL_IF(size < 0, e, ERR_MEMORY, "cannot normalise a text of %zu bytes: %s", n,
                utf8proc_errmsg(size));
        text = (const char *)normal;
        n = (size_t)size;
    }
    enum status status = OK;
    for (uint32_t i = 0; i < t->n_split && status == OK; i++) {
        r.match[i] = pcre2_match_data_create_from_pattern(t->split[i], NULL);
        if (!r.match[i])
            status = error_set(e, ERR_MEMORY, "out of memory: matching a regular expression");
    }
    if (status == OK)
        status = encode_any(&r, text, n);
    for (uint32_t i = 0; i < t->n_split; i++)
        pcre2_match_data_free(r.match[i]);
    free(normal);
    return status;
}
