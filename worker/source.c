/* Opening, and the questions to rank 0: a list of ranges of tensors still to be asked for, of which
 * at most two pieces of 4 MiB are on their way, so that neither side keeps more. Answers come in
 * the order of questions. Must never know which tensors a step needs. */
#include "worker/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/mapfile.h"
#include "common/mem.h"
#include "common/weights_remote.h"

enum {
    AHEAD = 2,           /* questions on their way */
    RANGES_MAX = 1 << 16 /* of a question: its own size stays small */
};

struct range { /* of a tensor's bytes; as it travels */
    uint64_t offset, size;
};

/* What is still to be asked for of a tensor. */
struct want {
    struct want *next;
    uint32_t tensor;
    size_t at, n; /* ranges before at have been asked for */
    struct range range[];
};

struct question {
    uint32_t tensor;
    size_t n;
    uint64_t bytes;
    struct range *range; /* [n] */
};

struct holding {      /* of a tensor */
    uint32_t wants;   /* how often it was asked for and not given back */
    uint64_t missing; /* bytes that are still to come */
    uint8_t *data;    /* NULL: it has no memory */
    uint8_t *rows;    /* [(rows + 7) / 8] which are kept for good, or NULL */
};

struct source {
    struct loop *loop; /* borrowed */
    struct weights *weights;
    bool remote;
    struct holding *held; /* [n_tensors] */
    struct want *first, *last;
    struct question asked[AHEAD]; /* the oldest first */
    int n_asked;
    uint64_t missing; /* of all tensors */
};

/* Opening */

/* Whether there is nothing of that name: a model that is there and broken is no reason to send for another. */
static bool is_missing(const char *path)
{
    struct stat st;
    return stat(path, &st) != 0;
}

static enum status open_remote(struct source *s, const struct message *m, struct error *e)
{
    const struct msg_source *a = &m->source;
    const struct weights_entry *list = m->payload;
    const float *factors = (const float *)(list + a->tensors);
    s->remote = true;
    TRY(weights_from_list(&s->weights, a->path, &a->config, list, a->tensors,
                          a->rope_factors ? factors : NULL, a->model_hash, e));
    return mem_array(&s->held, s->weights->n_tensors, sizeof *s->held, "the tensors of the model",
                     e);
}

static enum status open_files(struct source *s, const struct msg_source *a, struct error *e)
{
    TRY(weights_open(&s->weights, a->path, e));
    FAIL_IF(s->weights->header_hash != a->model_hash, e, ERR_PEER,
            "host %s sees another model at %s than rank 0 does: give all hosts the same files, or "
            "remove them there to get the weights from rank 0",
            s->loop->host, a->path);
    return OK;
}

enum status source_open(struct source **out, struct loop *loop, const struct message *m,
                        struct error *e)
{
    struct source *s;
    TRY(mem_array(&s, 1, sizeof *s, "the model", e));
    s->loop = loop;
    struct message answer = {.kind = MSG_OPENED};
    answer.opened.missing = is_missing(m->source.path);
    enum status status =
        answer.opened.missing ? open_remote(s, m, e) : open_files(s, &m->source, e);
    if (status == OK)
        status = loop_send(loop, 0, &answer, e);
    if (status != OK) {
        source_close(s);
        return status;
    }
    *out = s;
    return OK;
}

void source_close(struct source *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->n_asked; i++)
        free(s->asked[i].range);
    for (struct want *w = s->first, *next; w; w = next) {
        next = w->next;
        free(w);
    }
    for (uint64_t i = 0; s->held && i < s->weights->n_tensors; i++)
        free(s->held[i].rows);
    free(s->held);
    weights_close(s->weights);
    free(s);
}

const struct weights *source_weights(const struct source *s)
{
    return s->weights;
}

/* Wanting */

static const struct tensor *find(const struct source *s, enum tensor_kind kind, uint32_t block)
{
    char base[64];
    model_base_name(base, kind, block);
    return weights_find2(s->weights, base, model_rule(kind)->suffix);
}

/* The holding of a tensor that this rank has no file of, or NULL. */
static struct holding *holding(const struct source *s, enum tensor_kind kind, uint32_t block,
                               const struct tensor **t)
{
    *t = s->remote ? find(s, kind, block) : NULL;
    return *t ? &s->held[*t - s->weights->tensors] : NULL;
}

static enum status new_want(struct want **out, const struct source *s, const struct tensor *t,
                            size_t n, struct error *e)
{
    TRY(mem_array(out, 1, sizeof **out + n * sizeof(*out)->range[0], "questions to rank 0", e));
    (*out)->tensor = (uint32_t)(t - s->weights->tensors);
    return OK;
}

static void append(struct source *s, struct want *w)
{
    for (size_t i = 0; i < w->n; i++) {
        s->held[w->tensor].missing += w->range[i].size;
        s->missing += w->range[i].size;
    }
    *(s->last ? &s->last->next : &s->first) = w;
    s->last = w;
}

enum status source_want(struct source *s, enum tensor_kind kind, uint32_t block, struct error *e)
{
    const struct tensor *t;
    struct holding *h = holding(s, kind, block, &t);
    struct want *w;
    if (!h || h->wants++ > 0)
        return OK;
    TRY(weights_hold(t, &h->data, e));
    TRY(new_want(&w, s, t, 1, e));
    w->n = 1;
    w->range[0] = (struct range){0, t->bytes};
    append(s, w);
    return OK;
}

static bool is_kept(const struct holding *h, uint64_t row)
{
    return h->rows[row / 8] >> row % 8 & 1;
}

/* Gives the memory of all other rows back. */
static void keep_rows(const struct holding *h, const struct tensor *t)
{
    uint64_t bytes = t->bytes / t->rows, first = 0;
    for (uint64_t r = 0; r <= t->rows; r++) {
        if (r < t->rows && !is_kept(h, r))
            continue;
        if (r > first)
            weights_forget_bytes(t, first * bytes, (r - first) * bytes);
        first = r + 1;
    }
}

void source_give_back(struct source *s, enum tensor_kind kind, uint32_t block)
{
    const struct tensor *t;
    struct holding *h = holding(s, kind, block, &t);
    if (!s->remote && (t = find(s, kind, block)))
        mapfile_drop(t->data, t->bytes);
    if (!h || --h->wants > 0)
        return;
    if (h->rows) {
        keep_rows(h, t);
        return;
    }
    weights_forget(t);
    h->data = NULL;
}

/* Marks the rows, and as fresh those that were not marked before. */
static enum status mark(struct holding *h, const struct tensor *t, const uint32_t *tokens, size_t n,
                        uint8_t *fresh, struct error *e)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t r = tokens[i];
        FAIL_IF(r >= t->rows, e, ERR_USAGE,
                "the calibration text has a token %u, but the vocabulary of the model has %llu", r,
                (unsigned long long)t->rows);
        if (!is_kept(h, r))
            fresh[r] = 1;
        h->rows[r / 8] |= (uint8_t)(1 << r % 8);
    }
    return OK;
}

/* Runs of marked rows; with range, written there. */
static size_t runs(const uint8_t *fresh, const struct tensor *t, struct range *range)
{
    uint64_t bytes = t->bytes / t->rows;
    size_t n = 0;
    for (uint64_t r = 0; r < t->rows; r++) {
        if (!fresh[r])
            continue;
        if (r > 0 && fresh[r - 1]) {
            if (range)
                range[n - 1].size += bytes;
            continue;
        }
        if (range)
            range[n] = (struct range){r * bytes, bytes};
        n++;
    }
    return n;
}

static enum status want_marked(struct source *s, struct holding *h, const struct tensor *t,
                               const uint8_t *fresh, struct error *e)
{
    struct want *w;
    size_t n = runs(fresh, t, NULL);
    if (n == 0 || h->wants > 0) /* the whole tensor is here or on its way */
        return OK;
    TRY(weights_hold(t, &h->data, e));
    TRY(new_want(&w, s, t, n, e));
    w->n = runs(fresh, t, w->range);
    append(s, w);
    return OK;
}

enum status source_want_tokens(struct source *s, const uint32_t *tokens, size_t n, struct error *e)
{
    const struct tensor *t;
    struct holding *h = holding(s, KIND_EMBEDDING, 0, &t);
    uint8_t *fresh;
    if (!h)
        return OK;
    if (!h->rows)
        TRY(mem_array(&h->rows, (size_t)(t->rows + 7) / 8, 1, "marks of tokens", e));
    TRY(mem_array(&fresh, (size_t)t->rows, 1, "marks of tokens", e));
    enum status status = mark(h, t, tokens, n, fresh, e);
    if (status == OK)
        status = want_marked(s, h, t, fresh, e);
    free(fresh);
    return status;
}

bool source_ready(const struct source *s)
{
    return s->missing == 0;
}

bool source_has(const struct source *s, enum tensor_kind kind, uint32_t block)
{
    const struct tensor *t;
    const struct holding *h = holding(s, kind, block, &t);
    return !h || h->missing == 0;
}

/* Questions and answers */

/* Moves what fits one question from the list of wants to it. */
static void fill_question(struct question *q, struct want *w)
{
    while (w->at < w->n && q->n < RANGES_MAX && q->bytes < WIRE_PIECE_MAX) {
        struct range *from = &w->range[w->at], *to = &q->range[q->n++];
        *to = *from;
        if (to->size > WIRE_PIECE_MAX - q->bytes)
            to->size = WIRE_PIECE_MAX - q->bytes;
        q->bytes += to->size;
        from->offset += to->size;
        from->size -= to->size;
        w->at += from->size == 0;
    }
}

static enum status ask(struct source *s, struct error *e)
{
    struct want *w = s->first;
    struct question q = {.tensor = w->tensor};
    size_t most = w->n - w->at < RANGES_MAX ? w->n - w->at : RANGES_MAX;
    struct message m = {.kind = MSG_FETCH};
    enum tensor_kind kind;
    TRY(mem_array(&q.range, most, sizeof *q.range, "a question to rank 0", e));
    fill_question(&q, w);
    s->asked[s->n_asked++] = q;
    FAIL_IF(!model_kind_of(s->weights->tensors[q.tensor].name, &kind, &m.fetch.block), e, ERR_PEER,
            "tensor %s has no kind", s->weights->tensors[q.tensor].name);
    m.fetch.kind = kind;
    m.payload = q.range;
    m.payload_bytes = q.n * sizeof *q.range;
    if (w->at == w->n) {
        s->first = w->next;
        s->last = w->next ? s->last : NULL;
        free(w);
    }
    return loop_send(s->loop, 0, &m, e);
}

enum status source_step(struct source *s, bool *busy, struct error *e)
{
    while (s->first && s->n_asked < AHEAD) {
        *busy = true;
        TRY(ask(s, e));
    }
    return OK;
}

enum status source_take(struct source *s, const struct message *m, struct error *e)
{
    struct question q = s->asked[0];
    const struct tensor *t;
    struct holding *h = m->fetched.kind < KIND_COUNT
                            ? holding(s, (enum tensor_kind)m->fetched.kind, m->fetched.block, &t)
                            : NULL;
    const uint8_t *from = m->payload;
    FAIL_IF(m->peer != 0 || !h || s->n_asked == 0 || q.tensor != h - s->held ||
                q.bytes != m->payload_bytes,
            e, ERR_PEER, "rank %d sent a piece of the source that was not asked for", m->peer);
    for (size_t i = 0; i < q.n; i++) {
        if (h->data) /* else it was given back meanwhile */
            memcpy(h->data + q.range[i].offset, from, q.range[i].size);
        from += q.range[i].size;
    }
    h->missing -= q.bytes;
    s->missing -= q.bytes;
    free(q.range);
    s->n_asked--;
    memmove(s->asked, s->asked + 1, (size_t)s->n_asked * sizeof *s->asked);
    return OK;
}
