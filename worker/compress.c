#include "worker/compress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/transport.h"
#include "common/weights.h"
#include "worker/compress_matrix.h"

#define UNSENT_MAX ((size_t)16 << 20)

struct compress_job {
    struct loop *loop; /* borrowed */
    struct source *source;       /* borrowed, and its weights */
    const struct weights *weights;
    double outliers;
    uint32_t threads;
    struct compress_unit *units; /* [n], in order of arrival */
    size_t n, next;              /* units[next - 1] is current's */
    struct compress_matrix *current;
    double current_since;
    enum tensor_kind kind; /* of the unit in work or waited for */
    uint32_t block;
    bool wanted;           /* the next unit's tensor was asked for */
};

static enum status append(struct compress_job *job, const struct msg_compress *m, struct error *e)
{
    size_t most = job->n + m->n_units;
    struct compress_unit *units = realloc(job->units, (most ? most : 1) * sizeof *units);
    FAIL_IF(!units, e, ERR_MEMORY, "out of memory: a list of %zu units", most);
    job->units = units;
    for (uint32_t i = 0; i < m->n_units; i++) {
        FAIL_IF(!weights_find(job->weights, m->units[i].name), e, ERR_PEER,
                "%s has no tensor %s, which rank 0 asks for", job->weights->path,
                m->units[i].name);
        if (!m->units[i].shared)
            units[job->n++] = m->units[i];
    }
    return OK;
}

/* Which blocks this rank works on, for the statistics. */
static void note_blocks(struct compress_job *job)
{
    uint32_t low = UINT32_MAX, high = 0, block;
    enum tensor_kind kind;
    for (size_t i = 0; i < job->n; i++) {
        if (!model_kind_of(job->units[i].name, &kind, &block) || !model_rule(kind)->per_block)
            continue;
        low = block < low ? block : low;
        high = block > high ? block : high;
    }
    if (low > high)
        return;
    job->loop->stats.first_block = low;
    job->loop->stats.block_count = high - low + 1;
}

enum status compress_add(struct compress_job **job, struct loop *loop, struct source *source,
                         const struct msg_compress *m, struct error *e)
{
    if (!*job) {
        TRY(mem_array(job, 1, sizeof **job, "a compression job", e));
        (*job)->loop = loop;
        (*job)->source = source;
        (*job)->weights = source_weights(source);
        (*job)->outliers = m->outliers;
        (*job)->threads = m->threads;
    }
    TRY(append(*job, m, e));
    note_blocks(*job);
    return OK;
}

static enum status send_part(void *self, uint32_t unit, const char *suffix, uint64_t offset,
                             const void *data, size_t size, struct error *e)
{
    struct compress_job *job = self;
    struct message m = {.kind = MSG_TENSOR, .payload = data, .payload_bytes = size};
    m.tensor.unit = unit;
    m.tensor.offset = offset;
    snprintf(m.tensor.suffix, sizeof m.tensor.suffix, "%s", suffix);
    if (job->loop->transport->rank != 0) { /* else nothing travels */
        job->loop->stats.messages++;
        job->loop->stats.sent_bytes += size;
        job->loop->stats.sent_raw_bytes += size;
    }
    return loop_send(job->loop, 0, &m, e);
}

static enum status finish_unit(struct compress_job *job, struct error *e)
{
    struct message m = {.kind = MSG_UNIT_DONE};
    m.unit_done.unit = job->units[job->next - 1].index;
    m.unit_done.seconds = loop_now() - job->current_since;
    compress_matrix_errors(job->current, &m.unit_done.error2, &m.unit_done.weight2);
    compress_matrix_free(job->current);
    job->current = NULL;
    source_give_back(job->source, job->kind, job->block);
    return loop_send(job->loop, 0, &m, e);
}

/* Whether the tensor of the next unit is here; it is sent for the first time that it is asked for. */
static enum status prepare_unit(struct compress_job *job, bool *there, struct error *e)
{
    const char *name = job->units[job->next].name;
    *there = true;
    if (!model_kind_of(name, &job->kind, &job->block))
        return OK; /* nothing that could be sent for */
    if (!job->wanted)
        TRY(source_want(job->source, job->kind, job->block, e));
    job->wanted = true;
    *there = source_has(job->source, job->kind, job->block);
    return OK;
}

static enum status start_unit(struct compress_job *job, struct error *e)
{
    const struct compress_unit *u = &job->units[job->next++];
    job->current_since = loop_now();
    job->wanted = false;
    return compress_matrix_create(&job->current, weights_find(job->weights, u->name), u,
                                  job->outliers, job->threads, e);
}

enum status compress_step(struct compress_job *job, bool *busy, struct error *e)
{
    struct part_sink sink = {job, send_part};
    bool done, there = true;
    if (!job->current && job->next == job->n)
        return OK;
    if (transport_pending(job->loop->transport) > UNSENT_MAX)
        return OK;
    if (!job->current)
        TRY(prepare_unit(job, &there, e));
    if (!there)
        return OK;
    *busy = true;
    double start = loop_now();
    if (!job->current)
        TRY(start_unit(job, e));
    TRY(compress_matrix_step(job->current, &sink, &done, e));
    if (done)
        TRY(finish_unit(job, e));
    job->loop->stats.compute_s += loop_now() - start;
    return OK;
}

void compress_doing(const struct compress_job *job, char out[128])
{
    if (job->current)
        compress_matrix_doing(job->current, out);
    else
        snprintf(out, 128, job->next < job->n && !job->wanted ? "about to compress a matrix" : "waiting");
}

void compress_free(struct compress_job *job)
{
    if (!job)
        return;
    compress_matrix_free(job->current);
    free(job->units);
    free(job);
}
