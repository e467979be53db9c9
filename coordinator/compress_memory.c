/* From a job's shapes and each rank's host to what every rank keeps in memory. */
#include "coordinator/compress_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

enum {
    PIECES = 2,
    PAGE = 4096
};                   /* of the source on their way to a rank; its rows lie on whole pages */
enum { LANES = 16 }; /* shares of the windows, which ranks have whole (docs/compression.md) */

static double mib(uint64_t bytes)
{
    return (double)bytes / 1048576;
}

/* Products of a block, and what of it they have; matrices of one product are searched and computed
 * together. */
static int step_of(enum tensor_kind kind)
{
    return kind == KIND_O                         ? 1
           : kind == KIND_GATE || kind == KIND_UP ? 2
           : kind == KIND_DOWN                    ? 3
                                                  : 0;
}

/* Bytes of a unit as it will be compressed, at most. */
static uint64_t unit_bytes(const struct memory_job *job, const struct plan_unit *u)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < u->form.n; i++)
        bytes += u->form.tensor[i].bytes;
    uint64_t most = job->measure ? plan_most_bytes(u, job->bits) : 0;
    return most > bytes ? most : bytes;
}

/* The source's bytes of the largest product, and the compressed bytes of the largest block and of
 * all. */
static enum status add_units(const struct memory_job *job, struct calib_job *to, struct error *e)
{
    uint64_t(*source)[4], *student, all = 0, weights = 0;
    uint32_t blocks = job->source->config.block_count;
    TRY(mem_array(&source, blocks, sizeof *source + sizeof *student, "the plan", e));
    student = (uint64_t *)(source + blocks);
    for (uint32_t i = 0; i < job->n; i++) {
        const struct plan_unit *u = &job->units[i];
        const struct tensor *t = weights_find(job->source, u->name);
        if (!plan_is_matrix(u) || u->block >= blocks)
            continue;
        source[u->block][step_of(u->kind)] += t ? t->bytes : 0;
        student[u->block] += unit_bytes(job, u);
        all += u->form.bytes;
        weights += u->rows * u->cols;
    }
    for (uint32_t b = 0; b < blocks; b++) {
        for (int s = 0; s < 4; s++)
            if (source[b][s] > to->source_bytes)
                to->source_bytes = source[b][s];
        if (student[b] > to->student_bytes)
            to->student_bytes = student[b];
    }
    uint64_t budget = job->measure ? (uint64_t)(job->bits * (double)weights / 8) : 0;
    if (job->recipe->distill > 0)
        to->student_bytes = budget > all ? budget : all;
    free(source);
    return OK;
}

/* The source's bytes of the largest block. */
static uint64_t largest_block(const struct weights *w)
{
    uint64_t most = 0;
    for (uint32_t b = 0; b < w->config.block_count; b++)
        if (weights_block_bytes(w, b) > most)
            most = weights_block_bytes(w, b);
    return most;
}

static enum status describe(struct calib_job *to, const struct memory_job *job, struct error *e)
{
    const struct model_config *config = &job->source->config;
    *to = (struct calib_job){.config = config,
                             .context = job->text->context,
                             .text_tokens = job->text->tokens,
                             .cross = job->recipe->qep > 0,
                             .feedback = job->recipe->feedback,
                             .measure = job->measure,
                             .distill = job->recipe->distill > 0 ? job->recipe->batch : 0,
                             .recode = job->recipe->recode,
                             .back_bytes = job->measure ? largest_block(job->source) : 0};
    return add_units(job, to, e);
}

/* The most tokens that a rank's lanes can have. */
static uint64_t rank_tokens(const struct calibration *text, int ranks)
{
    uint64_t lanes = ranks < LANES ? (uint64_t)((LANES + ranks - 1) / ranks) : 1;
    uint64_t windows = lanes * ((text->windows + LANES - 1) / LANES);
    uint64_t tokens = windows * text->context;
    return tokens < text->tokens ? tokens : text->tokens;
}

static uint32_t ranks_of_host(const struct cluster *c, int rank)
{
    uint32_t n = 0;
    for (int r = 0; r < c->size; r++)
        n += !strcmp(c->hello[r].host, c->hello[rank].host);
    return n;
}

/* As many threads as fit, and activations in memory where they fit then. */
static void choose(struct rank_memory *m, struct calib_job *job)
{
    uint64_t limit = m->limit ? m->limit : UINT64_MAX;
    job->threads = m->threads;
    calib_memory_need(&m->need, job, m->moment_floats, false);
    if (m->need.total <= limit)
        return;
    calib_memory_need(&m->need, job, m->moment_floats, true);
    while (m->need.total > limit && job->threads > 1) {
        job->threads--;
        calib_memory_need(&m->need, job, m->moment_floats, true);
    }
    m->threads = job->threads;
}

static enum status refuse(const struct calib_job *job, uint64_t ram, uint64_t floats,
                          struct error *e)
{
    struct calib_job least = *job;
    struct calib_memory m;
    least.threads = CALIB_USUAL_THREADS;
    char blocks[96] = "";
    calib_memory_need(&m, &least, floats, true);
    if (m.columns > 0)
        snprintf(blocks, sizeof blocks,
                 " and second moments in blocks of at most %u columns, the smallest", m.columns);
    return error_set(
        e, ERR_LIMIT,
        "--ram %.0f MiB is %.0f MiB too little: with activations on disk%s, a rank needs %.0f "
        "MiB (a smaller --calib-ctx or --embeddings and --method of fewer bits need less%s)",
        mib(ram), mib(m.total - ram) + 0.5, blocks, mib(m.total) + 0.5,
        job->distill && calib_recodes(job->config, job->recode) ? ", --recipe recode=0 too" : "");
}

static uint64_t tensor_bytes(const struct weights *w, enum tensor_kind kind)
{
    char base[64];
    model_base_name(base, kind, 0);
    const struct tensor *t = weights_find2(w, base, model_rule(kind)->suffix);
    return t ? t->bytes : 0;
}

/* What a rank without a copy of the source keeps of it beyond the matrices of a product. No more moments or
 * fewer are chosen for it, since the result must not depend on who has copies. */
static void add_missing(struct calib_job *to, const struct memory_job *job)
{
    const struct weights *w = job->source;
    uint64_t head = tensor_bytes(w, w->config.tied ? KIND_EMBEDDING : KIND_OUTPUT);
    uint64_t rows = to->rank_tokens < w->config.vocab ? to->rank_tokens : w->config.vocab;
    uint64_t embeddings = tensor_bytes(w, KIND_EMBEDDING), row = embeddings / w->config.vocab;
    uint64_t kept = rows * ((row + 2 * PAGE - 1) / PAGE * PAGE);
    to->sent_bytes = PIECES * WIRE_PIECE_MAX + (kept < embeddings ? kept : embeddings);
    if (head > to->back_bytes && (job->measure || job->recipe->distill > 0))
        to->back_bytes = head;
}

/* What rank 0 needs for such ranks: a piece, and what is on its way to each. */
static uint64_t answer_bytes(const struct memory_job *job, int ranks)
{
    uint64_t bytes = 0;
    for (int r = 0; r < ranks && job->missing; r++)
        bytes += job->missing[r] ? PIECES * WIRE_PIECE_MAX : 0;
    return bytes ? bytes + WIRE_PIECE_MAX : 0;
}

static enum status refuse_missing(const struct rank_memory *m, int rank, struct error *e)
{
    return error_set(
        e, ERR_LIMIT,
        "--ram %.0f MiB is %.0f MiB too little for rank %d, which gets the source from "
        "rank 0: copy it to its host, or allow more",
        mib(m->limit), mib(m->need.total - m->limit) + 0.5, rank);
}

static enum status choose_all(struct rank_memory *ranks, const struct cluster *c,
                              const struct memory_job *job, struct error *e)
{
    struct calib_job need;
    uint64_t ram = c->options->ram;
    uint64_t floats = 0;
    TRY(describe(&need, job, e));
    if (ram && !calib_memory_fit(&need, ram, &floats))
        return refuse(&need, ram, floats, e);
    uint64_t block = need.back_bytes;
    for (int r = 0; r < c->size; r++) {
        uint64_t available = c->hello[r].available_bytes;
        need.rank_tokens = rank_tokens(job->text, c->size);
        need.sent_bytes = r == 0 ? answer_bytes(job, c->size) : 0;
        need.back_bytes = block;
        if (job->missing && job->missing[r])
            add_missing(&need, job);
        ranks[r].limit = ram ? ram : available / ranks_of_host(c, r) / 5 * 4;
        ranks[r].threads = cluster_threads(c, r);
        ranks[r].moment_floats = floats;
        choose(&ranks[r], &need);
        if (ram && need.sent_bytes > 0 && ranks[r].need.total > ram)
            return refuse_missing(&ranks[r], r, e);
    }
    return OK;
}

enum status compress_memory(struct rank_memory **ranks, const struct cluster *c,
                            const struct memory_job *job, struct error *e)
{
    struct rank_memory *all;
    TRY(mem_array(&all, (size_t)c->size, sizeof *all, "the plan of memory", e));
    enum status status = choose_all(all, c, job, e);
    if (status != OK) {
        free(all);
        return status;
    }
    *ranks = all;
    return OK;
}

const char *compress_memory_text(const struct rank_memory *m, char out[512])
{
    const struct calib_memory *n = &m->need;
    char moments[64] = "full", limit[64] = "", sent[64] = "";
    if (n->columns)
        snprintf(moments, sizeof moments, "in blocks of at most %u columns", n->columns);
    if (m->limit)
        snprintf(limit, sizeof limit, " of %.0f", mib(m->limit));
    if (n->sent)
        snprintf(sent, sizeof sent, ", source sent %.0f", mib(n->sent));
    snprintf(out, 512,
             "at most %.0f%s MiB: second moments %.0f (%s), %u thread%s %.0f, windows %.0f, "
             "activations %.0f %s, sampled windows %.0f, backward %.0f, source %.0f%s, "
             "compressed %.0f, program %.0f",
             mib(n->total), limit, mib(n->moments), moments, m->threads, m->threads == 1 ? "" : "s",
             mib(n->threads), mib(n->work), mib(n->activations),
             n->on_disk ? "on disk" : "in memory", mib(n->sampled), mib(n->back), mib(n->source),
             sent, mib(n->student), mib(n->program));
    return out;
}

void compress_memory_print(const struct rank_memory *ranks, const struct cluster *c)
{
    char text[512], next[512];
    for (int first = 0, end; first < c->size; first = end) {
        compress_memory_text(&ranks[first], text);
        for (end = first + 1; end < c->size; end++)
            if (strcmp(compress_memory_text(&ranks[end], next), text) != 0)
                break;
        if (end == first + 1)
            fprintf(stderr, "sbit: memory of rank %d: %s\n", first, text);
        else
            fprintf(stderr, "sbit: memory of each of ranks %d to %d: %s\n", first, end - 1, text);
        if (ranks[first].limit && ranks[first].need.total > ranks[first].limit)
            fprintf(stderr,
                    "sbit: host %s has less: it may run out of memory, which --ram prevents\n",
                    c->hello[first].host);
    }
}
