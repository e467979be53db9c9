/* A job's life: open, load block by block, then micro-batches in and out. Owns the weights' views,
 * the KV cache and the queue of waiting messages; must never know who asked or why. */
#include "worker/slice.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/bind.h"
#include "worker/kvcache.h"
#include "worker/layer.h"
#include "worker/queue.h"
#include "worker/rope.h"
#include "worker/scratch.h"

#define THREADS_MAX 1024u
#define BATCH_MAX   65536u

struct slice_job {
    struct msg_assign assign;
    struct loop *loop; /* borrowed */
    struct weights *weights;
    struct binder binder;
    struct block_weights *blocks; /* [assign.block_count] */
    struct head_weights head;
    struct kvcache cache;
    struct rope rope;
    struct scratch scratch;
    float *head_x;         /* [batch][hidden], with the head: rows on which it works */
    uint32_t *wanted;      /* [batch], with the head */
    uint32_t loaded;       /* blocks bound so far */
    bool ready;            /* all is bound */
    struct queue entering; /* TOKENS and HIDDEN for the blocks */
    struct queue leaving;  /* HIDDEN for the head */
    struct message *work;  /* the micro-batch whose rows are in scratch.x, or NULL */
    uint32_t next_block;   /* of work: 0 .. block_count */
};

static enum status check_assign(const struct msg_assign *a, const struct model_config *c,
                                const struct loop *loop, struct error *e)
{
    FAIL_IF((uint64_t)a->first_block + a->block_count > c->block_count, e, ERR_PEER,
            "asked to run blocks %u to %llu of %s, which has %u", a->first_block,
            (unsigned long long)a->first_block + a->block_count, a->path, c->block_count);
    FAIL_IF(a->stage >= a->stages, e, ERR_PEER, "asked to be stage %u of %u", a->stage, a->stages);
    FAIL_IF(a->next_rank >= (uint32_t)loop->transport->size, e, ERR_PEER,
            "asked to send to rank %u of %d", a->next_rank, loop->transport->size);
    FAIL_IF(a->threads == 0 || a->threads > THREADS_MAX, e, ERR_PEER,
            "asked to use %u threads: 1 to %u are possible", a->threads, THREADS_MAX);
    FAIL_IF(a->batch == 0 || a->batch > BATCH_MAX, e, ERR_PEER,
            "asked to take micro-batches of %u rows: 1 to %u are possible", a->batch, BATCH_MAX);
    FAIL_IF(a->context == 0 || a->sequences == 0, e, ERR_PEER,
            "asked to keep %u sequences of %u positions", a->sequences, a->context);
    return OK;
}

static enum status alive(void *loop, struct error *e)
{
    return loop_alive(loop, e);
}

static enum status open_model(struct slice_job *job, struct error *e)
{
    const struct msg_assign *a = &job->assign;
    TRY(weights_open(&job->weights, a->path, e));
    FAIL_IF(job->weights->header_hash != a->model_hash, e, ERR_PEER,
            "sees another model at %s than rank 0: copy the same file to every machine", a->path);
    const struct model_config *c = &job->weights->config;
    TRY(check_assign(a, c, job->loop, e));
    job->binder.weights = job->weights;
    job->binder.verify = a->verify;
    job->binder.alive = alive;
    job->binder.alive_self = job->loop;
    TRY(mem_array(&job->blocks, a->block_count, sizeof *job->blocks, "blocks of a slice", e));
    TRY(kvcache_create(&job->cache, a->cache == CACHE_Q8 ? KV_Q8 : KV_F16, a->block_count,
                       a->sequences, c->kv_heads, a->context, c->head_dim, e));
    TRY(rope_create(&job->rope, c, job->weights->rope_factors, e));
    if (!a->has_head)
        return OK;
    TRY(mem_array(&job->wanted, a->batch, sizeof *job->wanted, "rows of the head", e));
    return mem_array(&job->head_x, a->batch, c->hidden * sizeof(float), "rows of the head", e);
}

enum status slice_create(struct slice_job **out, const struct msg_assign *a, struct loop *loop,
                         struct error *e)
{
    struct slice_job *job;
    TRY(mem_array(&job, 1, sizeof *job, "a slice", e));
    job->assign = *a;
    job->loop = loop;
    enum status status = open_model(job, e);
    if (status != OK) {
        slice_free(job);
        return status;
    }
    *out = job;
    return OK;
}

void slice_free(struct slice_job *job)
{
    if (!job)
        return;
    queue_clear(&job->entering);
    queue_clear(&job->leaving);
    queue_release(job->work);
    scratch_free(&job->scratch);
    rope_free(&job->rope);
    kvcache_free(&job->cache);
    bind_free(&job->binder);
    weights_close(job->weights);
    free(job->blocks);
    free(job->head_x);
    free(job->wanted);
    free(job);
}

/* Loading */

static enum status allocate_scratch(struct slice_job *job, struct error *e)
{
    const struct msg_assign *a = &job->assign;
    size_t room[PRODUCT_MAX] = {0};
    for (uint32_t i = 0; i < a->block_count; i++) {
        product_room(&job->blocks[i].qkv, room);
        product_room(&job->blocks[i].o, room);
        product_room(&job->blocks[i].gate_up, room);
        product_room(&job->blocks[i].down, room);
    }
    if (a->has_head)
        product_room(&job->head.output, room);
    return scratch_create(&job->scratch, &job->weights->config, a->batch, a->threads, a->context,
                          room, e);
}

static void start_statistics(const struct slice_job *job)
{
    struct msg_stats *stats = &job->loop->stats;
    stats->first_block = job->assign.first_block;
    stats->block_count = job->assign.block_count;
    stats->compute_s = stats->wait_s = 0;
    stats->messages = stats->sent_bytes = stats->sent_raw_bytes = 0;
}

static enum status load_step(struct slice_job *job, struct error *e)
{
    const struct msg_assign *a = &job->assign;
    /* First, since it reads the embeddings whole and gives them back before the blocks come. */
    if (a->has_head && job->head.output.count == 0)
        return bind_head(&job->binder, &job->head, e);
    if (job->loaded < a->block_count) {
        TRY(bind_block(&job->binder, a->first_block + job->loaded, &job->blocks[job->loaded], e));
        job->loaded++;
        return OK;
    }
    TRY(allocate_scratch(job, e));
    job->ready = true;
    if (a->job == 0)
        start_statistics(job);
    struct message m = {.kind = MSG_READY, .ready = {.job = a->job}};
    return loop_send(job->loop, 0, &m, e);
}

/* Micro-batches in */

static enum status check_tokens(const struct slice_job *job, const struct message *m, uint32_t rows,
                                struct error *e)
{
    FAIL_IF(!job->assign.has_head || job->assign.stage != 0, e, ERR_PEER,
            "tokens came to a rank that has no embeddings");
    FAIL_IF(m->payload_bytes != (size_t)rows * sizeof(uint32_t), e, ERR_PEER,
            "a micro-batch of %u tokens came with %zu bytes", rows, m->payload_bytes);
    for (uint32_t i = 0; i < rows; i++) {
        uint32_t id;
        memcpy(&id, (const char *)m->payload + i * sizeof id, sizeof id);
        FAIL_IF(id >= job->weights->config.vocab, e, ERR_PEER,
                "token %u of a micro-batch is %u, the vocabulary has %u", i, id,
                job->weights->config.vocab);
    }
    return OK;
}

static enum status check_hidden(const struct slice_job *job, const struct msg_hidden *h,
                                uint32_t rows, struct error *e)
{
    const struct msg_assign *a = &job->assign;
    FAIL_IF(h->rows != rows || h->cols != job->weights->config.hidden, e, ERR_PEER,
            "activations are %u x %u, micro-batch and model say %u x %u", h->rows, h->cols, rows,
            job->weights->config.hidden);
    FAIL_IF(h->stage != a->stage && !(a->has_head && h->stage == a->stages), e, ERR_PEER,
            "activations for stage %u came to stage %u", h->stage, a->stage);
    return OK;
}

enum status slice_accept(struct slice_job *job, struct message *m, struct error *e)
{
    const struct msg_assign *a = &job->assign;
    const struct rows_limits limits = {a->sequences, a->context, a->batch};
    uint32_t rows;
    if (m->kind == MSG_TOKENS) {
        TRY(rows_check(m->tokens.runs, m->tokens.n_runs, &limits, &rows, e));
        TRY(check_tokens(job, m, rows, e));
        return queue_put(&job->entering, m, e);
    }
    TRY(rows_check(m->hidden.runs, m->hidden.n_runs, &limits, &rows, e));
    TRY(check_hidden(job, &m->hidden, rows, e));
    bool to_head = a->has_head && m->hidden.stage == a->stages;
    return queue_put(to_head ? &job->leaving : &job->entering, m, e);
}

/* Rows of a prompt whose neighbours may stay in memory: up to 2 MiB each, as file systems of today keep
 * their pages. */
#define EMBED_ROWS 8

/* x = the embeddings of the tokens. */
static void embed(struct slice_job *job, const struct message *m)
{
    const struct matrix *embedding = &job->head.embedding;
    for (int r = 0; r < job->scratch.rows; r++) {
        uint32_t id;
        memcpy(&id, (const char *)m->payload + (size_t)r * sizeof id, sizeof id);
        kernels.row[embedding->type](embedding, (int)id,
                                     job->scratch.x + (size_t)r * (size_t)embedding->cols);
        if (r % EMBED_ROWS == 1) /* one row a token is not worth the call */
            bind_drop_embeddings(&job->binder);
    }
}

/* Takes the next waiting micro-batch into work: its rows, their angles and x. */
static enum status begin(struct slice_job *job, struct error *e)
{
    struct scratch *s = &job->scratch;
    struct message *m = job->work = queue_take(&job->entering);
    job->next_block = 0;
    bool tokens = m->kind == MSG_TOKENS;
    const struct run *runs = tokens ? m->tokens.runs : m->hidden.runs;
    uint32_t n_runs = tokens ? m->tokens.n_runs : m->hidden.n_runs;
    s->rows = 0;
    for (uint32_t i = 0; i < n_runs; i++)
        s->rows += (int)runs[i].count;
    rows_expand(runs, n_runs, s->row);
    size_t pairs = (size_t)job->rope.pairs;
    for (int r = 0; r < s->rows; r++)
        rope_angles(&job->rope, s->row[r].position, s->cosine + (size_t)r * pairs,
                    s->sine + (size_t)r * pairs);
    if (!tokens)
        return activation_unpack(m, s->x, e);
    embed(job, m);
    return OK;
}

/* Micro-batches out */

/* The header of what leaves this stage. After the last stage only the rows that want logits travel
 * on (moved to the front of x); one row stands for all when none does. */
static void describe_output(struct slice_job *job, struct msg_hidden *h)
{
    const struct message *m = job->work;
    bool tokens = m->kind == MSG_TOKENS, last = job->assign.stage + 1 == job->assign.stages;
    const struct run *runs = tokens ? m->tokens.runs : m->hidden.runs;
    uint32_t n_runs = tokens ? m->tokens.n_runs : m->hidden.n_runs;
    h->job = job->assign.job;
    h->batch = tokens ? m->tokens.batch : m->hidden.batch;
    h->stage = job->assign.stage + 1;
    h->cols = job->weights->config.hidden;
    h->rows = (uint32_t)job->scratch.rows;
    h->n_runs = n_runs;
    memcpy(h->runs, runs, n_runs * sizeof *runs);
    if (last)
        rows_trim(h, job->scratch.x);
}

static enum status pass_on(struct slice_job *job, struct error *e)
{
    const struct msg_assign *a = &job->assign;
    bool raw = a->next_rank == (uint32_t)job->loop->transport->rank;
    struct message m = {.kind = MSG_HIDDEN};
    uint8_t *payload;
    describe_output(job, &m.hidden);
    queue_release(job->work);
    job->work = NULL;
    TRY(activation_pack(&m.hidden, job->scratch.x, a->wire, raw, &payload, &m.payload_bytes, e));
    m.payload = payload;
    enum status status = loop_send(job->loop, (int)a->next_rank, &m, e);
    free(payload);
    if (!raw) {
        job->loop->stats.messages++;
        job->loop->stats.sent_bytes += m.payload_bytes;
        job->loop->stats.sent_raw_bytes += m.hidden.raw_bytes;
    }
    return status;
}

/* One block of the micro-batch in work; after the last one it leaves. */
static enum status block_step(struct slice_job *job, struct error *e)
{
    if (!job->work)
        TRY(begin(job, e));
    if (job->next_block < job->assign.block_count) {
        struct layer layer = {&job->weights->config, &job->blocks[job->next_block], &job->cache,
                              job->next_block};
        layer_forward(&layer, &job->scratch);
        job->next_block++;
    }
    return job->next_block < job->assign.block_count ? OK : pass_on(job, e);
}

/* Final norm and head of the rows that want logits. */
static enum status send_logits(struct slice_job *job, const struct message *m, uint32_t rows,
                               struct error *e)
{
    const struct model_config *c = &job->weights->config;
    size_t hidden = c->hidden;
    float *logits;
    for (uint32_t i = 0; i < rows; i++)
        memmove(job->head_x + i * hidden, job->head_x + job->wanted[i] * hidden,
                hidden * sizeof(float));
    TRY(mem_array(&logits, (size_t)rows * c->vocab, sizeof(float), "logits", e));
    if (rows > 0) /* a chunk of a prompt wants none, and the head is the largest matrix */
        layer_norm_product(c, job->head.output_norm, &job->head.output, job->head_x, (int)rows,
                           &job->scratch, logits);
    struct message out = {
        .kind = MSG_LOGITS,
        .logits = {.job = m->hidden.job, .batch = m->hidden.batch, .rows = rows, .cols = c->vocab},
        .payload = logits,
        .payload_bytes = (size_t)rows * c->vocab * sizeof(float)};
    enum status status = loop_send(job->loop, job->loop->transport->rank, &out, e);
    free(logits);
    return status;
}

static enum status head_step(struct slice_job *job, struct error *e)
{
    struct message *m = queue_take(&job->leaving);
    uint32_t rows = rows_wanted(m->hidden.runs, m->hidden.n_runs, job->wanted);
    enum status status = activation_unpack(m, job->head_x, e);
    if (status == OK)
        status = send_logits(job, m, rows, e);
    queue_release(m);
    return status;
}

enum status slice_step(struct slice_job *job, bool *busy, struct error *e)
{
    bool leaving = !queue_empty(&job->leaving);
    if (job->ready && !leaving && !job->work && queue_empty(&job->entering))
        return OK;
    *busy = true;
    if (!job->ready)
        return load_step(job, e);
    double start = loop_now();
    enum status status = leaving ? head_step(job, e) : block_step(job, e);
    job->loop->stats.compute_s += loop_now() - start;
    return status;
}

bool slice_doing(const struct slice_job *job, char out[128])
{
    const struct message *m = job->work;
    uint32_t first = job->assign.first_block;
    if (!job->ready)
        snprintf(out, 128, "loading block %u", first + job->loaded);
    else if (m)
        snprintf(out, 128, "computing block %u of micro-batch %llu", first + job->next_block,
                 (unsigned long long)(m->kind == MSG_TOKENS ? m->tokens.batch : m->hidden.batch));
    else if (!queue_empty(&job->entering) || !queue_empty(&job->leaving))
        snprintf(out, 128, "about to compute a micro-batch");
    else
        return false;
    return true;
}
