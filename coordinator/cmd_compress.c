/* sbit compress: plans, deals units to the ranks, and gathers what they send into the file. The
 * work itself is the workers'. */
#include "coordinator/commands.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/codebook.h"
#include "common/mem.h"
#include "common/tokenizer.h"
#include "common/weights.h"
#include "coordinator/compress_file.h"
#include "coordinator/compress_plan.h"
#include "coordinator/compress_report.h"
#include "coordinator/compress_units.h"
#include "coordinator/gguf_output.h"
#include "coordinator/progress.h"

struct compression {
    struct cluster *cluster;
    const struct options *options;
    struct weights *source;
    struct tokenizer *tokenizer;
    struct plan_settings settings;
    struct plan_totals totals;
    struct plan_unit *units;         /* [n] */
    uint32_t *rank_of;               /* [n] */
    struct compress_result *results; /* [n] */
    uint32_t n, n_done;
    struct compress_file file;
    struct progress progress;
    double work_done, work_all;
    double start;
};

static enum status check_output(const struct options *o, struct error *e)
{
    FAIL_IF(!o->output, e, ERR_USAGE, "compress needs -o FILE; see sbit compress --help");
    return report_check_path(o->json, e);
}

static enum status open_source(struct compression *k, struct error *e)
{
    TRY(weights_open(&k->source, k->options->model, e));
    if (k->source->is_gguf) /* the first of the shards has it, whichever was named */
        TRY(tokenizer_from_gguf(&k->tokenizer, &k->source->gguf[0], e));
    else
        TRY(tokenizer_open(&k->tokenizer, k->options->model, e));
    /* Other runtimes want a token for every row of the embeddings. */
    if (!k->source->is_gguf && tokenizer_vocab(k->tokenizer) < k->source->config.vocab)
        TRY(tokenizer_pad(k->tokenizer, k->source->config.vocab, e));
    FAIL_IF(strlen(k->options->model) >= WIRE_TEXT_MAX, e, ERR_LIMIT,
            "the path of the model is longer than %d bytes", WIRE_TEXT_MAX - 1);
    return compress_units(k->source, &k->units, &k->n, e);
}

/* What the plan could not do as asked. */
static void report_plan(const struct compression *k)
{
    const struct options *o = k->options;
    if (k->totals.over_budget)
        fprintf(stderr,
                "sbit: %g bit%s per weight cannot be met: with the row scales of rows so short "
                "even codes of %d weights a byte take %.3f bits; they are taken everywhere\n",
                o->bits, o->bits == 1 ? "" : "s", CODEBOOK_MAX_D,
                8.0 * (double)k->totals.matrix_bytes / (double)k->totals.matrix_weights);
    if (k->totals.none_fits)
        fprintf(stderr,
                "sbit: not one matrix of the blocks can be stored as %s: their rows are no "
                "multiple of its block; the notes say what is taken instead, and --method code "
                "takes rows of any length\n",
                o->method);
}

static enum status plan(struct compression *k, struct error *e)
{
    const struct options *o = k->options;
    k->settings = (struct plan_settings){o->method, o->embeddings, o->bits, o->outliers};
    FAIL_IF(o->has_bits && strcmp(o->method, "code") != 0, e, ERR_USAGE,
            "--bits belongs to method code; %s has a fixed size", o->method);
    TRY(plan_compression(k->units, k->n, &k->settings, &k->totals, e));
    report_plan(k);
    TRY(mem_array(&k->rank_of, k->n, sizeof *k->rank_of, "the plan", e));
    TRY(mem_array(&k->results, k->n, sizeof *k->results, "results", e));
    for (uint32_t i = 0; i < k->n; i++)
        k->work_all += (double)compress_work(&k->units[i]);
    return compress_deal(k->units, k->n, k->source->config.block_count, (uint32_t)k->cluster->size,
                         k->rank_of, e);
}

/* Says which ranks have nothing to do. */
static void report_idle(const struct compression *k)
{
    int idle = 0;
    for (int r = 0; r < k->cluster->size; r++) {
        bool busy = false;
        for (uint32_t i = 0; i < k->n; i++)
            busy = busy || k->rank_of[i] == (uint32_t)r;
        idle += !busy;
    }
    if (idle > 0)
        fprintf(stderr, "sbit: %d of %d ranks stay idle: there are %u blocks to share\n", idle,
                k->cluster->size, k->source->config.block_count);
}

/* All of the folder, configuration and tokenizer included, but other GGUF files: those are no part
 * of it, and may well be older outputs. */
static enum status keep_folder(struct gguf_output *out, const char *folder, struct error *e)
{
    enum status status = OK;
    DIR *d = opendir(folder);
    if (!d)
        return error_set_errno(e, ERR_IO, "cannot list %s", folder);
    for (const struct dirent *entry; status == OK && (entry = readdir(d));) {
        const char *ending = strrchr(entry->d_name, '.');
        char path[WIRE_TEXT_MAX + sizeof entry->d_name + 1];
        if (ending && strcmp(ending, ".gguf") == 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        status = gguf_output_keep(out, path, e);
    }
    closedir(d);
    return status;
}

static enum status keep_source(struct gguf_output *out, const struct weights *source,
                               struct error *e)
{
    if (!source->is_gguf)
        return keep_folder(out, source->path, e);
    for (uint32_t i = 0; i < source->n_files; i++)
        TRY(gguf_output_keep(out, source->gguf[i].file.path, e));
    return OK;
}

static enum status begin(struct compression *k, struct error *e)
{
    TRY(gguf_output_create(&k->file.out, k->options->output, e));
    TRY(keep_source(k->file.out, k->source, e));
    k->file.source = k->source;
    k->file.settings = &k->settings;
    k->file.totals = &k->totals;
    k->file.units = k->units;
    k->file.n = k->n;
    return compress_file_begin(&k->file, k->tokenizer, k->options->shard_bytes, e);
}

/* Sends rank its units, WIRE_UNITS_MAX at a time. */
static enum status send_units(struct compression *k, int rank, struct error *e)
{
    struct message m = {.kind = MSG_COMPRESS};
    struct msg_compress *c = &m.compress;
    snprintf(c->path, sizeof c->path, "%s", k->options->model);
    c->model_hash = k->source->header_hash;
    c->outliers = k->settings.outliers;
    c->threads = cluster_threads(k->cluster, rank);
    uint32_t left = 0;
    for (uint32_t i = 0; i < k->n; i++)
        left += k->rank_of[i] == (uint32_t)rank;
    for (uint32_t i = 0; i < k->n && left > 0; i++) {
        const struct plan_unit *u = &k->units[i];
        if (k->rank_of[i] != (uint32_t)rank)
            continue;
        struct compress_unit *to = &c->units[c->n_units++];
        *to = (struct compress_unit){.method = u->method, .d = u->d, .index = i};
        snprintf(to->name, sizeof to->name, "%s", u->name);
        c->last = --left == 0;
        if (!c->last && c->n_units < WIRE_UNITS_MAX)
            continue;
        TRY(loop_send(k->cluster->loop, rank, &m, e));
        c->n_units = 0;
    }
    return OK;
}

static enum status take_part(struct compression *k, const struct message *m, struct error *e)
{
    const struct msg_tensor *t = &m->tensor;
    TRY(compress_file_part(&k->file, t->unit, t->suffix, t->offset, m->payload, m->payload_bytes,
                           e));
    const struct plan_unit *u = &k->units[t->unit];
    if (strcmp(t->suffix, u->form.tensor[0].suffix) == 0)
        k->work_done +=
            (double)compress_work(u) * (double)m->payload_bytes / (double)u->form.tensor[0].bytes;
    progress_update(&k->progress, k->work_done / k->work_all, u->name);
    return OK;
}

static enum status take_done(struct compression *k, const struct msg_unit_done *d, int rank,
                             struct error *e)
{
    FAIL_IF(d->unit >= k->n || k->results[d->unit].done, e, ERR_PEER,
            "rank %d says that unit %u is done, which was not expected", rank, d->unit);
    k->results[d->unit] = (struct compress_result){true, d->error2, d->weight2, d->seconds};
    k->n_done++;
    return OK;
}

static enum status handle(void *self, struct message *m, struct error *e)
{
    struct compression *k = self;
    if (m->kind == MSG_TENSOR)
        return take_part(k, m, e);
    if (m->kind == MSG_UNIT_DONE)
        return take_done(k, &m->unit_done, m->peer, e);
    return error_set(e, ERR_PEER, "rank %d sent a message of kind %d while compressing", m->peer,
                     (int)m->kind);
}

static bool all_done(void *self)
{
    const struct compression *k = self;
    return k->n_done == k->n;
}

static enum status work(struct compression *k, struct error *e)
{
    struct cluster *c = k->cluster;
    c->inner = (struct endpoint){.self = k, .handle = handle};
    report_idle(k);
    progress_start(&k->progress, "compressing");
    enum status status = OK;
    for (int r = 0; r < c->size && status == OK; r++)
        status = send_units(k, r, e);
    if (status == OK)
        status = cluster_wait(c, all_done, k, e);
    progress_end(&k->progress);
    if (status == OK)
        status = cluster_gather_stats(c, e);
    c->inner = (struct endpoint){0};
    return status;
}

/* The others may go before: they have nothing left to do, and would give rank 0 up while a slow
 * disk takes the last of the file. Whether it takes it is told by rank 0's exit code alone. */
static enum status finish(struct compression *k, struct error *e)
{
    loop_stop(k->cluster->loop, false);
    return compress_file_finish(&k->file, k->results, e);
}

static enum status report(struct compression *k, struct error *e)
{
    struct compress_report r = {.source = k->source,
                                .settings = &k->settings,
                                .totals = &k->totals,
                                .units = k->units,
                                .results = k->results,
                                .n = k->n,
                                .output = gguf_output_path(k->file.out),
                                .file_bytes = gguf_output_bytes(k->file.out),
                                .files = gguf_output_files(k->file.out),
                                .seconds = loop_now() - k->start};
    json_t *json;
    compress_report_print(&r, k->cluster);
    if (k->options->stats)
        cluster_print_stats(k->cluster);
    if (!k->options->json)
        return OK;
    TRY(compress_report_json(&r, k->cluster, &json, e));
    return report_write_json(json, k->options->json, e);
}

static enum status compress(struct compression *k, struct error *e)
{
    TRY(check_output(k->options, e));
    TRY(open_source(k, e));
    TRY(plan(k, e));
    TRY(begin(k, e));
    TRY(work(k, e));
    TRY(finish(k, e));
    return report(k, e);
}

enum status cmd_compress(struct cluster *c, struct error *e)
{
    struct compression k = {.cluster = c, .options = c->options, .start = loop_now()};
    signal(SIGXFSZ, SIG_IGN); /* a file size limit shall be an error of pwrite, not the end */
    /* A reader of the messages that goes away shall not end the work and leave its file behind. */
    signal(SIGPIPE, SIG_IGN);
    enum status status = compress(&k, e);
    gguf_output_free(k.file.out);
    free(k.file.first_tensor);
    free(k.units);
    free(k.rank_of);
    free(k.results);
    tokenizer_free(k.tokenizer);
    weights_close(k.source);
    return status;
}
