/* SentencePiece BPE as its library does it (Kudo and Richardson 2018): white space becomes
 * U+2581, the text falls into characters, the neighbours whose joined text has the best score are
 * merged until none is left, and what is no token becomes byte tokens or the unknown token. Knows
 * nothing of files. */
#include "common/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"

/* The text as SentencePiece's normalizer leaves it: spaces escaped, and where the model asks for
 * it runs of spaces made one and those at both ends removed. */
static enum status normalise(const struct tokenizer *t, const char *text, size_t n, bool prefix,
                             struct tok_bytes *out, struct error *e)
{
    size_t at = 0;
    bool after_space = t->remove_extra_spaces;
    while (t->remove_extra_spaces && at < n && text[at] == ' ')
        at++;
    if (at == n)
        return OK;
    bool spaced = text[at] == ' ' || (n - at >= 3 && memcmp(text + at, TOK_SPACE, 3) == 0);
    if (prefix && !(t->prefix_unless_space && spaced))
        TRY(tok_append(out, TOK_SPACE, 3, e));
    while (at < n) {
        const char *space = memchr(text + at, ' ', n - at);
        size_t run = space ? (size_t)(space - (text + at)) : n - at;
        TRY(tok_append(out, text + at, run, e));
        at += run;
        if (run > 0)
            after_space = false;
        if (at < n && !after_space)
            TRY(tok_append(out, TOK_SPACE, 3, e));
        after_space = t->remove_extra_spaces;
        at++;
    }
    while (t->remove_extra_spaces && out->size >= 3 &&
           memcmp(out->data + out->size - 3, TOK_SPACE, 3) == 0)
        out->size -= 3;
    return OK;
}

struct spm_output {
    const struct tokenizer *t;
    struct tok_ids *ids;
    bool after_unknown;
};

static enum status put_symbol(struct spm_output *o, const struct merge_symbol *s, const char *text,
                              struct error *e)
{
    const struct tokenizer *t = o->t;
    if (s->id != TOK_NONE) {
        o->after_unknown = false;
        return tok_push(o->ids, s->id, e);
    }
    bool bytes = true;
    for (uint32_t i = 0; i < s->size; i++)
        bytes &= t->byte_id[(uint8_t)text[s->start + i]] != TOK_NONE;
    for (uint32_t i = 0; i < s->size && bytes; i++)
        TRY(tok_push(o->ids, t->byte_id[(uint8_t)text[s->start + i]], e));
    bool skip = bytes || t->unk == TOK_NONE || (o->after_unknown && t->fuse_unk);
    o->after_unknown = !bytes;
    return skip ? OK : tok_push(o->ids, t->unk, e);
}

/* Bytes of text that no merge can leave: up to the next space that follows something else. */
static size_t word_end(const struct tokenizer *t, const char *text, size_t n)
{
    for (size_t i = 3; t->cut_words && i + 3 <= n; i++) {
        if (memcmp(text + i, TOK_SPACE, 3) == 0 && memcmp(text + i - 3, TOK_SPACE, 3) != 0)
            return i;
    }
    return n;
}

static enum status encode_word(struct spm_output *o, struct merger *m, const char *text, size_t n,
                               struct error *e)
{
    TRY(merger_reset(m, n, e));
    for (size_t at = 0; at < n;) {
        int step = utf8_step(text + at, n - at);
        uint32_t size = step > 0 ? (uint32_t)step : 1;
        merger_add(m, (uint32_t)at, size, tok_find_plain(o->t, text + at, size));
        at += size;
    }
    TRY(merger_run(m, o->t, text, e));
    for (uint32_t i = 0; i != TOK_NONE; i = m->symbols[i].next)
        TRY(put_symbol(o, &m->symbols[i], text, e));
    return OK;
}

enum status spm_encode(const struct tokenizer *t, struct merger *m, const char *text, size_t n,
                       bool prefix, struct tok_ids *ids, struct error *e)
{
    struct tok_bytes normal = {0};
    struct spm_output o = {t, ids, false};
    enum status status = normalise(t, text, n, prefix && t->dummy_prefix, &normal, e);
    for (size_t at = 0; status == OK && at < normal.size;) {
        size_t size = word_end(t, normal.data + at, normal.size - at);
        status = encode_word(&o, m, normal.data + at, size, e);
        at += size;
    }
    free(normal.data);
    return status;
}

/* Whether the list of merges holds every pair of tokens whose joined text is token id. */
static bool lists_all_pairs(const struct tokenizer *t, uint32_t id)
{
    const struct tok_piece *p = &t->pieces[id];
    const char *text = t->texts.data + p->text;
    if (p->type != TOK_NORMAL)
        return true;
    for (uint32_t i = 1; i < p->text_size; i++) {
        if (((uint8_t)text[i] & 0xC0) == 0x80)
            continue;
        uint32_t left = tok_find_plain(t, text, i);
        if (left == TOK_NONE)
            continue;
        uint32_t right = tok_find_plain(t, text + i, p->text_size - i);
        if (right != TOK_NONE && tok_rank(t, left, right) == TOK_NONE)
            return false;
    }
    return true;
}

void spm_use_merges(struct tokenizer *t)
{
    t->rank_pairs = false;
    for (uint32_t id = 0; id < t->n && !t->rank_pairs; id++)
        t->rank_pairs = !lists_all_pairs(t, id);
    for (uint32_t id = 0; id < t->n; id++)
        if (t->pieces[id].type == TOK_NORMAL)
            t->pieces[id].score = -(float)(t->n_merges + 1);
    for (uint32_t i = t->n_merges;
         i-- > 0;) /* backwards: the first merge that makes a token counts */
        t->pieces[t->merges[i].result].score = -(float)i;
}
