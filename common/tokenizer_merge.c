/* Merging of neighbouring symbols, best first. A priority queue of pairs over a linked list of
 * symbols: a pair whose symbols have changed since it was queued is recognised by its size and
 * skipped. What a pair costs is the vocabulary's business (ranks of listed pairs, or scores of
 * the joined text). */
#include "common/tokenizer_internal.h"

#include <stdlib.h>

static enum status reserve(void *array, size_t *capacity, size_t n, size_t size, struct error *e)
{
    void **block = array;
    if (n <= *capacity)
        return OK;
    size_t wanted = n + n / 2 + 64;
    void *grown = realloc(*block, wanted * size);
    FAIL_IF(!grown, e, ERR_MEMORY, "out of memory: merging %zu symbols", n);
    *block = grown;
    *capacity = wanted;
    return OK;
}

enum status merger_reset(struct merger *m, size_t n, struct error *e)
{
    FAIL_IF(n > INT32_MAX, e, ERR_LIMIT, "a text of %zu symbols in one piece is too long; cut it",
            n);
    size_t capacity = m->capacity;
    void *symbols = m->symbols;
    TRY(reserve(&symbols, &capacity, n, sizeof *m->symbols, e));
    m->symbols = symbols;
    m->capacity = (uint32_t)capacity;
    m->n = 0;
    m->heap_n = 0;
    return OK;
}

void merger_add(struct merger *m, uint32_t start, uint32_t size, uint32_t id)
{
    uint32_t i = m->n++;
    m->symbols[i] = (struct merge_symbol){start, size, i == 0 ? TOK_NONE : i - 1, TOK_NONE, id};
    if (i > 0)
        m->symbols[i - 1].next = i;
}

void merger_free(struct merger *m)
{
    free(m->symbols);
    free(m->heap);
    *m = (struct merger){0};
}

static bool before(const struct merge_entry *a, const struct merge_entry *b)
{
    return a->cost != b->cost ? a->cost < b->cost : a->left < b->left;
}

static enum status heap_push(struct merger *m, struct merge_entry entry, struct error *e)
{
    void *heap = m->heap;
    TRY(reserve(&heap, &m->heap_capacity, m->heap_n + 1, sizeof *m->heap, e));
    m->heap = heap;
    size_t at = m->heap_n++;
    while (at > 0 && before(&entry, &m->heap[(at - 1) / 2])) {
        m->heap[at] = m->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    m->heap[at] = entry;
    return OK;
}

static struct merge_entry heap_pop(struct merger *m)
{
    struct merge_entry top = m->heap[0], last = m->heap[--m->heap_n];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= m->heap_n)
            break;
        if (child + 1 < m->heap_n && before(&m->heap[child + 1], &m->heap[child]))
            child++;
        if (!before(&m->heap[child], &last))
            break;
        m->heap[at] = m->heap[child];
        at = child;
    }
    m->heap[at] = last;
    return top;
}

static enum status consider(struct merger *m, const struct tokenizer *t, const char *text,
                            uint32_t left, uint32_t right, struct error *e)
{
    if (left == TOK_NONE || right == TOK_NONE)
        return OK;
    const struct merge_symbol *l = &m->symbols[left], *r = &m->symbols[right];
    struct merge_entry entry = {0, left, right, l->size + r->size, TOK_NONE};
    if (t->spm && !t->rank_pairs) {
        if (entry.size <= TOK_MAX_PIECE)
            entry.id = tok_find_plain(t, text + l->start, entry.size);
        if (entry.id != TOK_NONE)
            entry.cost = -t->pieces[entry.id].score;
    } else {
        uint32_t rank = tok_rank(t, l->id, r->id);
        entry.cost = (float)rank;
        entry.id = rank == TOK_NONE ? TOK_NONE : t->merges[rank].result;
    }
    return entry.id == TOK_NONE ? OK : heap_push(m, entry, e);
}

enum status merger_run(struct merger *m, const struct tokenizer *t, const char *text,
                       struct error *e)
{
    for (uint32_t i = 1; i < m->n; i++)
        TRY(consider(m, t, text, i - 1, i, e));
    while (m->heap_n > 0) {
        struct merge_entry top = heap_pop(m);
        struct merge_symbol *l = &m->symbols[top.left], *r = &m->symbols[top.right];
        if (l->size == 0 || r->size == 0 || l->size + r->size != top.size)
            continue;
        l->size = top.size;
        l->id = top.id;
        l->next = r->next;
        if (r->next != TOK_NONE)
            m->symbols[r->next].prev = top.left;
        r->size = 0;
        TRY(consider(m, t, text, l->prev, top.left, e));
        TRY(consider(m, t, text, top.left, l->next, e));
    }
    return OK;
}
