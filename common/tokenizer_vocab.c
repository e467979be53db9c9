/* The tables of a tokenizer: tokens, texts, merges, and what is derived from them. Every loader
 * fills them through here, so this is where a hostile vocabulary is refused. Knows no file format
 * and no algorithm. */
#include "common/tokenizer_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/mem.h"

#define MAX_TEXT_BYTES (1u << 30) /* all token texts together: offsets stay within 32 bits */

enum status tok_append(struct tok_bytes *b, const char *data, size_t size, struct error *e)
{
    FAIL_IF(size > MAX_TEXT_BYTES || b->size + size > MAX_TEXT_BYTES, e, ERR_LIMIT,
            "the texts of all tokens together exceed 1 GiB");
    if (b->size + size + 1 > b->capacity) {
        size_t capacity = (b->size + size + 1) * 2;
        char *grown = realloc(b->data, capacity);
        FAIL_IF(!grown, e, ERR_MEMORY, "out of memory: %zu bytes of text", capacity);
        b->data = grown;
        b->capacity = capacity;
    }
    if (size > 0)
        memcpy(b->data + b->size, data, size);
    b->size += size;
    b->data[b->size] = '\0';
    return OK;
}

enum status tok_push(struct tok_ids *ids, uint32_t id, struct error *e)
{
    if (ids->count == ids->capacity) {
        size_t capacity = ids->capacity ? ids->capacity * 2 : 64;
        uint32_t *grown = realloc(ids->id, capacity * sizeof *grown);
        FAIL_IF(!grown, e, ERR_MEMORY, "out of memory: %zu token ids", capacity);
        ids->id = grown;
        ids->capacity = capacity;
    }
    ids->id[ids->count++] = id;
    return OK;
}

int tok_byte_of(const char *text, size_t size)
{
    static const char digits[] = "0123456789ABCDEF";
    if (size != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>' || !text[3] || !text[4])
        return -1;
    const char *high = strchr(digits, text[3]), *low = strchr(digits, text[4]);
    return high && low ? (int)((high - digits) * 16 + (low - digits)) : -1;
}

/* A hash table of 32-bit numbers with room for count of them at half load. */
static enum status make_table(uint32_t **table, uint32_t *mask, uint32_t count, struct error *e)
{
    uint32_t size = 16;
    while (size < 2 * count) /* count is at most 2^24 */
        size *= 2;
    free(*table);
    *table = NULL;
    TRY(mem_array(table, size, sizeof **table, "a tokenizer's hash table", e));
    memset(*table, 0xFF, size * sizeof **table);
    *mask = size - 1;
    return OK;
}

enum status tok_create(struct tokenizer **out, const char *source, uint64_t n, bool spm,
                       struct error *e)
{
    *out = NULL;
    FAIL_IF(n == 0, e, ERR_FORMAT, "%s: its tokenizer has no tokens", source);
    FAIL_IF(n > TOK_MAX_VOCAB, e, ERR_LIMIT,
            "%s: a vocabulary of %llu tokens; at most %u are accepted", source,
            (unsigned long long)n, TOK_MAX_VOCAB);
    struct tokenizer *t;
    TRY(mem_array(&t, 1, sizeof *t, "a tokenizer", e));
    *out = t;
    t->spm = spm;
    t->n = (uint32_t)n;
    t->bos = t->eos = t->eot = t->unk = t->pad = TOK_NONE;
    memset(t->byte_id, 0xFF, sizeof t->byte_id);
    t->dummy_prefix = t->fuse_unk = spm;
    enum status status = mem_string(&t->source, source, e);
    if (status == OK)
        status = mem_array(&t->pieces, n, sizeof *t->pieces, "a vocabulary", e);
    if (status == OK)
        status = tok_append(&t->shown, "", 0, e);
    return status == OK ? OK : tok_drop(out, status);
}

enum status tok_drop(struct tokenizer **out, enum status status)
{
    tokenizer_free(*out);
    *out = NULL;
    return status;
}

enum status tok_set(struct tokenizer *t, uint64_t id, const char *text, size_t size, int type,
                    float score, struct error *e)
{
    FAIL_IF(id >= t->n, e, ERR_FORMAT, "%s: token id %llu lies outside the vocabulary of %u tokens",
            t->source, (unsigned long long)id, t->n);
    FAIL_IF(t->pieces[id].type, e, ERR_FORMAT, "%s: two tokens have the id %llu", t->source,
            (unsigned long long)id);
    FAIL_IF(size > TOK_MAX_PIECE, e, ERR_LIMIT,
            "%s: token %llu has %zu bytes; at most %d are accepted", t->source,
            (unsigned long long)id, size, TOK_MAX_PIECE);
    FAIL_IF(type < TOK_NORMAL || type > TOK_BYTE, e, ERR_FORMAT,
            "%s: token %llu has the unknown type %d; types are 1 to 6", t->source,
            (unsigned long long)id, type);
    FAIL_IF(!isfinite(score), e, ERR_FORMAT, "%s: the score of token %llu is not a number",
            t->source, (unsigned long long)id);
    struct tok_piece *p = &t->pieces[id];
    p->text = (uint32_t)t->texts.size;
    p->text_size = (uint32_t)size;
    p->type = (uint8_t)type;
    p->score = score;
    return tok_append(&t->texts, text, size, e);
}

static const char *text_of(const struct tokenizer *t, uint32_t id)
{
    return t->texts.data + t->pieces[id].text;
}

static uint32_t *text_slot(const struct tokenizer *t, const char *text, size_t size)
{
    uint32_t at = (uint32_t)XXH3_64bits(text, size) & t->text_mask;
    for (;; at = (at + 1) & t->text_mask) {
        uint32_t id = t->by_text[at];
        if (id == TOK_NONE ||
            (t->pieces[id].text_size == size && !memcmp(text_of(t, id), text, size)))
            return &t->by_text[at];
    }
}

static bool is_plain(const struct tok_piece *p)
{
    return p->type == TOK_NORMAL || p->type == TOK_USER;
}

/* Some vocabularies hold a text twice: the later one counts, as in other runtimes, unless plain
 * text could not become it. */
static void index_token(struct tokenizer *t, uint32_t id)
{
    const struct tok_piece *p = &t->pieces[id];
    if (p->text_size == 0 || p->type == TOK_UNUSED || p->type == TOK_BYTE)
        return;
    uint32_t *slot = text_slot(t, text_of(t, id), p->text_size);
    if (*slot == TOK_NONE || is_plain(p) || !is_plain(&t->pieces[*slot]))
        *slot = id;
}

static enum status fill_hole(struct tokenizer *t, uint32_t id, struct error *e)
{
    char name[24];
    int size = snprintf(name, sizeof name, "[PAD%u]", id);
    return tok_set(t, id, name, (size_t)size, TOK_UNUSED, 0, e);
}

enum status tok_index(struct tokenizer *t, struct error *e)
{
    for (uint32_t id = 0; id < t->n; id++)
        if (!t->pieces[id].type)
            TRY(fill_hole(t, id, e));
    TRY(make_table(&t->by_text, &t->text_mask, t->n, e));
    for (uint32_t id = 0; id < t->n; id++)
        index_token(t, id);
    return OK;
}

uint32_t tok_find(const struct tokenizer *t, const char *text, size_t size)
{
    return *text_slot(t, text, size);
}

uint32_t tok_find_plain(const struct tokenizer *t, const char *text, size_t size)
{
    uint32_t id = *text_slot(t, text, size);
    return id != TOK_NONE && is_plain(&t->pieces[id]) ? id : TOK_NONE;
}

enum status tok_merges(struct tokenizer *t, uint64_t count, struct error *e)
{
    FAIL_IF(count > TOK_MAX_VOCAB, e, ERR_LIMIT, "%s: %llu merges; at most %u are accepted",
            t->source, (unsigned long long)count, TOK_MAX_VOCAB);
    TRY(mem_array(&t->merges, count, sizeof *t->merges, "a tokenizer's merges", e));
    return make_table(&t->by_pair, &t->pair_mask, (uint32_t)count, e);
}

static uint32_t *pair_slot(const struct tokenizer *t, uint32_t left, uint32_t right)
{
    uint64_t key = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u; /* 2^64 / golden ratio */
    uint32_t at = (uint32_t)(key >> 32) & t->pair_mask;
    for (;; at = (at + 1) & t->pair_mask) {
        uint32_t rank = t->by_pair[at];
        if (rank == TOK_NONE || (t->merges[rank].left == left && t->merges[rank].right == right))
            return &t->by_pair[at];
    }
}

uint32_t tok_rank(const struct tokenizer *t, uint32_t left, uint32_t right)
{
    return t->by_pair && left != TOK_NONE && right != TOK_NONE ? *pair_slot(t, left, right)
                                                               : TOK_NONE;
}

/* Bytes of a text that a message shows. */
static int shorten(size_t size)
{
    return size < 64 ? (int)size : 64;
}

enum status tok_merge(struct tokenizer *t, const char *left, size_t left_size, const char *right,
                      size_t right_size, struct error *e)
{
    char joined[2 * TOK_MAX_PIECE];
    uint32_t rank = t->n_merges;
    struct tok_merge m = {TOK_NONE, TOK_NONE, TOK_NONE};
    if (left_size <= TOK_MAX_PIECE && right_size <= TOK_MAX_PIECE) {
        memcpy(joined, left, left_size);
        memcpy(joined + left_size, right, right_size);
        m.left = tok_find(t, left, left_size);
        m.right = tok_find(t, right, right_size);
        m.result = tok_find(t, joined, left_size + right_size);
    }
    FAIL_IF(m.left == TOK_NONE || m.right == TOK_NONE, e, ERR_FORMAT,
            "%s: merge %u joins \"%.*s\", which is not a token", t->source, rank,
            shorten(m.left == TOK_NONE ? left_size : right_size),
            m.left == TOK_NONE ? left : right);
    FAIL_IF(m.result == TOK_NONE, e, ERR_FORMAT,
            "%s: merge %u makes \"%.*s\", which is not a token", t->source, rank,
            shorten(left_size + right_size), joined);
    t->merges[rank] = m;
    uint32_t *slot = pair_slot(t, m.left, m.right);
    if (*slot == TOK_NONE) /* a repeated pair keeps its first rank */
        *slot = rank;
    t->n_merges++;
    return OK;
}

enum status tok_merge_line(struct tokenizer *t, const char *line, size_t size, struct error *e)
{
    const char *space = size > 1 ? memchr(line + 1, ' ', size - 1) : NULL;
    FAIL_IF(!space, e, ERR_FORMAT,
            "%s: merge %u, \"%.*s\", is not two parts with a space between them", t->source,
            t->n_merges, shorten(size), line);
    size_t left = (size_t)(space - line);
    return tok_merge(t, line, left, space + 1, size - left - 1, e);
}

/* "▁a" -> " a", into out of at least size bytes. */
static size_t unescape(char *out, const char *text, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < size;) {
        bool space = size - i >= 3 && memcmp(text + i, TOK_SPACE, 3) == 0;
        out[n++] = space ? ' ' : text[i];
        i += space ? 3 : 1;
    }
    return n;
}

static enum status show(struct tokenizer *t, struct tok_piece *p, struct error *e)
{
    const char *text = t->texts.data + p->text;
    char out[TOK_MAX_PIECE];
    long size = -1;
    int byte = p->type == TOK_BYTE ? tok_byte_of(text, p->text_size) : -1;
    if (byte >= 0) {
        out[0] = (char)byte;
        size = 1;
    } else if (t->spm && is_plain(p)) {
        size = (long)unescape(out, text, p->text_size);
    } else if (p->type == TOK_NORMAL) {
        size = bpe_decode(out, text, p->text_size);
    }
    p->shown = (uint32_t)t->shown.size;
    p->shown_size = size >= 0 ? (uint32_t)size : p->text_size;
    TRY(tok_append(&t->shown, size >= 0 ? out : text, p->shown_size, e));
    return tok_append(&t->shown, "", 1, e); /* pieces are strings, too */
}

static void find_bytes(struct tokenizer *t)
{
    t->byte_fallback = true;
    for (uint32_t id = 0; id < t->n && t->spm; id++) {
        const struct tok_piece *p = &t->pieces[id];
        int byte = p->type == TOK_BYTE ? tok_byte_of(text_of(t, id), p->text_size) : -1;
        if (byte >= 0)
            t->byte_id[byte] = id;
    }
    for (int byte = 0; byte < 256; byte++) {
        char text[4];
        if (!t->spm)
            t->byte_id[byte] = tok_find_plain(t, text, bpe_byte_text(text, (uint8_t)byte));
        if (t->byte_id[byte] == TOK_NONE)
            t->byte_fallback = false;
    }
}

static bool is_added(const struct tok_piece *p)
{
    return p->shown_size > 0 &&
           (p->type == TOK_CONTROL || p->type == TOK_USER || p->type == TOK_UNKNOWN);
}

struct added_order { /* what the sorting of added tokens looks at */
    uint32_t id, size;
    uint8_t first;
};

static int compare_added(const void *a, const void *b)
{
    const struct added_order *x = a, *y = b;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    if (x->size != y->size)
        return x->size > y->size ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static enum status list_added(struct tokenizer *t, struct error *e)
{
    struct added_order *order;
    uint32_t n = 0;
    for (uint32_t id = 0; id < t->n; id++)
        n += is_added(&t->pieces[id]);
    TRY(mem_array(&t->added, n, sizeof *t->added, "added tokens", e));
    TRY(mem_array(&order, n, sizeof *order, "added tokens", e));
    for (uint32_t id = 0; id < t->n; id++) {
        const struct tok_piece *p = &t->pieces[id];
        if (is_added(p))
            order[t->n_added++] =
                (struct added_order){id, p->shown_size, (uint8_t)t->shown.data[p->shown]};
    }
    qsort(order, n, sizeof *order, compare_added);
    for (uint32_t i = 0; i < n; i++) {
        t->added[i] = order[i].id;
        t->added_start[order[i].first + 1]++;
    }
    for (int i = 0; i < 256; i++)
        t->added_start[i + 1] += t->added_start[i];
    free(order);
    return OK;
}

/* Tokens that end a turn or a text in the families' chat formats, whatever the file calls EOS. */
static void mark_ends(struct tokenizer *t)
{
    static const char *const names[] = {"<|eot_id|>",    "<|im_end|>",      "<|end|>",
                                        "<|endoftext|>", "<|end_of_text|>", "<|eom_id|>",
                                        "<|eot|>",       "<end_of_turn>",   "<EOT>"};
    const uint32_t known[] = {t->eos, t->eot};
    for (size_t i = 0; i < 2; i++) {
        if (known[i] == TOK_NONE)
            continue;
        t->pieces[known[i]].ends = true;
        if (t->pieces[known[i]].type == TOK_NORMAL)
            t->pieces[known[i]].type = TOK_CONTROL;
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        uint32_t id = tok_find(t, names[i], strlen(names[i]));
        if (id != TOK_NONE && t->pieces[id].type != TOK_NORMAL)
            t->pieces[id].ends = true;
    }
}

enum status tok_finish(struct tokenizer *t, struct error *e)
{
    uint32_t *special[] = {&t->bos, &t->eos, &t->eot, &t->unk, &t->pad};
    for (size_t i = 0; i < sizeof special / sizeof special[0]; i++)
        FAIL_IF(*special[i] != TOK_NONE && *special[i] >= t->n, e, ERR_FORMAT,
                "%s: its special token %u lies outside the vocabulary of %u tokens", t->source,
                *special[i], t->n);
    FAIL_IF(t->add_bos && t->bos == TOK_NONE, e, ERR_FORMAT,
            "%s: it asks for a BOS token in front of every text but names none", t->source);
    mark_ends(t);
    for (uint32_t id = 0; id < t->n; id++)
        TRY(show(t, &t->pieces[id], e));
    find_bytes(t);
    if (t->spm) {
        /* The space of a word is its first character in every vocabulary trained word by word. */
        t->cut_words = true;
        for (uint32_t id = 0; id < t->n; id++) {
            const struct tok_piece *p = &t->pieces[id];
            const char *s = t->shown.data + p->shown;
            for (uint32_t i = 1; i < p->shown_size && is_plain(p); i++)
                t->cut_words &= s[i] != ' ' || s[i - 1] == ' ';
        }
        snprintf(t->describe, sizeof t->describe, "SentencePiece BPE%s",
                 t->byte_fallback ? " with byte fallback" : "");
    } else {
        snprintf(t->describe, sizeof t->describe, "byte-level BPE, %s", t->pre);
    }
    return list_added(t, e);
}

enum status tokenizer_pad(struct tokenizer *t, uint32_t vocab, struct error *e)
{
    FAIL_IF(vocab < t->n || vocab > TOK_MAX_VOCAB, e, ERR_FORMAT,
            "%s: its %u tokens do not fit the model's vocabulary of %u", t->source, t->n, vocab);
    struct tok_piece *pieces;
    TRY(mem_array(&pieces, vocab, sizeof *pieces, "a vocabulary", e));
    memcpy(pieces, t->pieces, t->n * sizeof *pieces);
    free(t->pieces);
    t->pieces = pieces;
    while (t->n < vocab) {
        uint32_t id = t->n++;
        TRY(fill_hole(t, id, e));
        TRY(show(t, &t->pieces[id], e));
    }
    return OK;
}
