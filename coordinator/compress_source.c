#include "coordinator/compress_source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/weights_remote.h"

/* *payload (the caller's, free): the tensors, then the RoPE factors. */
static enum status describe(const struct weights *w, struct message *m, void **payload,
                            struct error *e)
{
    struct msg_source *a = &m->source;
    struct weights_entry *list;
    *payload = NULL;
    snprintf(a->path, sizeof a->path, "%s", w->path);
    a->model_hash = w->header_hash;
    a->config = w->config;
    a->rope_factors = w->rope_factors != NULL;
    TRY(weights_list(w, &list, &a->tensors, e));
    size_t entries = a->tensors * sizeof *list;
    size_t factors = w->rope_factors ? w->config.rope_dim / 2 * sizeof *w->rope_factors : 0;
    enum status status = mem_array((char **)payload, entries + factors, 1, "a list of tensors", e);
    if (status == OK) {
        memcpy(*payload, list, entries);
        if (factors)
            memcpy((char *)*payload + entries, w->rope_factors, factors);
        m->payload = *payload;
        m->payload_bytes = entries + factors;
    }
    free(list);
    return status;
}

static enum status take(void *self, struct message *m, struct error *e)
{
    struct compress_source *s = self;
    FAIL_IF(m->kind != MSG_OPENED, e, ERR_PEER, "rank %d sent %s while opening the source", m->peer,
            message_name(m->kind));
    s->missing[m->peer] = m->opened.missing;
    s->opened++;
    return OK;
}

static bool all_opened(void *self)
{
    const struct compress_source *s = self;
    return s->opened == (uint32_t)s->cluster->size;
}

static void report(const struct compress_source *s)
{
    for (int r = 0; r < s->cluster->size; r++)
        if (s->missing[r])
            fprintf(stderr, "sbit: rank %d (host %s) has no %s: rank 0 sends it what it needs\n", r,
                    s->cluster->hello[r].host, s->weights->path);
}

enum status compress_source_open(struct compress_source *s, struct error *e)
{
    struct message m = {.kind = MSG_SOURCE};
    void *payload;
    TRY(mem_array(&s->missing, (size_t)s->cluster->size, sizeof *s->missing, "the ranks", e));
    TRY(describe(s->weights, &m, &payload, e));
    s->cluster->inner = (struct endpoint){.self = s, .handle = take};
    enum status status = OK;
    for (int r = 0; r < s->cluster->size && status == OK; r++)
        status = loop_send(s->cluster->loop, r, &m, e);
    free(payload);
    if (status == OK)
        status = cluster_wait(s->cluster, all_opened, s, e);
    s->cluster->inner = (struct endpoint){0};
    if (status == OK)
        report(s);
    return status;
}

void compress_source_free(struct compress_source *s)
{
    free(s->missing);
    s->missing = NULL;
}

/* out = the bytes of the ranges, each of offset and size. */
static enum status gather(const struct tensor *t, const struct message *m, uint8_t *out,
                          struct error *e)
{
    const uint64_t *range = m->payload;
    for (size_t i = 0; i < m->payload_bytes / sizeof *range; i += 2) {
        FAIL_IF(range[i] > t->bytes || range[i + 1] > t->bytes - range[i], e, ERR_PEER,
                "rank %d asks for bytes beyond the end of %s", m->peer, t->name);
        memcpy(out, t->data + range[i], range[i + 1]);
        out += range[i + 1];
    }
    return OK;
}

enum status compress_source_answer(struct compress_source *s, const struct message *m,
                                   struct error *e)
{
    const uint64_t *range = m->payload;
    struct message answer = {.kind = MSG_FETCHED, .fetched = m->fetch};
    char base[64];
    uint8_t *bytes;
    const struct tensor *t = NULL;
    if (m->fetch.kind < KIND_COUNT) {
        model_base_name(base, (enum tensor_kind)m->fetch.kind, m->fetch.block);
        t = weights_find2(s->weights, base, model_rule((enum tensor_kind)m->fetch.kind)->suffix);
    }
    FAIL_IF(!t, e, ERR_PEER, "rank %d asks for a tensor of kind %u in block %u: there is none",
            m->peer, m->fetch.kind, m->fetch.block);
    for (size_t i = 0; i < m->payload_bytes / sizeof *range; i += 2)
        answer.payload_bytes += range[i + 1];
    TRY(mem_array(&bytes, answer.payload_bytes, 1, "a piece of the source", e));
    enum status status = gather(t, m, bytes, e);
    answer.payload = bytes;
    if (status == OK)
        status = loop_send(s->cluster->loop, m->peer, &answer, e);
    free(bytes);
    s->sent += answer.payload_bytes;
    s->cluster->loop->stats.messages++;
    s->cluster->loop->stats.sent_bytes += answer.payload_bytes;
    s->cluster->loop->stats.sent_raw_bytes += answer.payload_bytes;
    return status;
}

void compress_source_report(const struct compress_source *s)
{
    if (s->sent > 0)
        fprintf(stderr, "sbit: rank 0 sent %.1f MiB of %s to ranks that have no copy of it\n",
                (double)s->sent / 1048576, s->weights->path);
}
