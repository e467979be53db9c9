/* sbit compress: plans, gives units and calibration text to the ranks, and gathers what they send
 * into the file. The work itself is the workers'. */
#include "coordinator/commands.h"

#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/calib_memory.h"
#include "common/codebook.h"
#include "common/mem.h"
#include "common/recipe.h"
#include "common/tokenizer.h"
#include "common/weights.h"
#include "coordinator/calibration.h"
#include "coordinator/compress_estimate.h"
#include "coordinator/compress_file.h"
#include "coordinator/compress_journal.h"
#include "coordinator/compress_memory.h"
#include "coordinator/compress_plan.h"
#include "coordinator/compress_report.h"
#include "coordinator/compress_source.h"
#include "coordinator/compress_units.h"
#include "coordinator/gguf_output.h"
#include "coordinator/progress.h"

struct compression {
    struct cluster *cluster;
    const struct options *options;
    struct weights *source;
    struct compress_source others; /* ranks that have no copy of it */
    struct tokenizer *tokenizer;
    struct plan_settings settings;
    struct plan_totals totals;
    struct plan_unit *units;         /* [n] */
    uint32_t *rank_of;               /* [n] */
    struct compress_result *results; /* [n] */
    uint32_t n, n_done;
    struct compress_file file, aside; /* aside: matrices before distillation */
    struct compress_journal journal;
    struct progress progress;
    double work_done, work_all;
    double start;
    bool calibrated, measure;
    char recipe[RECIPE_TEXT_MAX];
    bool distilled; /* row scales and norms are tuned at the end */
    bool tuning;    /* a step of it has been done */
    double recode;  /* struct recipe */
    struct calibration text;
    struct compress_calibration keys;
    struct rank_memory *memory; /* [size], calibrated */
    uint32_t n_matrices, n_measured;
    struct msg_probed probed; /* --dry-run: the longest of each */
    uint32_t n_probed;
};

static enum status check_output(const struct options *o, struct error *e)
{
    FAIL_IF(!o->output, e, ERR_USAGE, "compress needs -o FILE; see sbit compress --help");
    TRY(report_check_page(o->html, e));
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

static enum status open_others(struct compression *k, struct error *e)
{
    k->others.cluster = k->cluster;
    k->others.weights = k->source;
    return compress_source_open(&k->others, e);
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

/* Chooses every unit's form; before the measuring pass only to refuse what cannot be done before
 * hours of work. */
static enum status plan(struct compression *k, struct error *e)
{
    const struct options *o = k->options;
    k->settings = (struct plan_settings){o->method, o->embeddings, o->bits, o->outliers};
    return plan_compression(k->units, k->n, &k->settings, &k->totals, e);
}

/* What --distill will not do, before hours of work. */
static void report_tuned(const struct compression *k, const struct recipe *recipe)
{
    const struct model_config *c = &k->source->config;
    if (k->distilled && recipe->recode > 0 && !calib_recodes(c, recipe->recode) &&
        strcmp(k->options->method, "code") == 0)
        fprintf(stderr,
                "sbit: distillation leaves byte codes as they are and tunes row scales and norms: "
                "the blocks have %.1f million weights, and it chooses codes anew up to %.1f "
                "million\n",
                1e-6 * (double)calib_recode_weights(c), 1e-6 * (double)CALIB_RECODE_MOST);
}

static enum status plan_memory(struct compression *k, const struct recipe *recipe, struct error *e)
{
    const struct memory_job job = {k->source, k->units,      k->n,           k->measure,
                                   recipe,    &k->text, k->options->bits, k->others.missing};
    TRY(compress_memory(&k->memory, k->cluster, &job, e));
    compress_memory_print(k->memory, k->cluster);
    return OK;
}

static enum status prepare(struct compression *k, struct error *e)
{
    const struct options *o = k->options;
    struct recipe recipe;
    k->calibrated = options_calibrated(o);
    TRY(recipe_parse(&recipe, o->recipe, e));
    if (o->has_distill)
        recipe.distill = o->distill;
    recipe_text(&recipe, k->recipe);
    k->distilled = recipe.distill > 0;
    k->recode = recipe.recode;
    k->measure = k->calibrated && recipe.measure && strcmp(o->method, "code") == 0;
    TRY(plan(k, e));
    TRY(mem_array(&k->rank_of, k->n, sizeof *k->rank_of, "the plan", e));
    TRY(mem_array(&k->results, k->n, sizeof *k->results, "results", e));
    if (!k->calibrated)
        return OK;
    TRY(calibration_read(&k->text, o, k->tokenizer, &k->source->config, k->cluster, e));
    k->keys =
        (struct compress_calibration){k->text.hash, k->text.tokens, k->text.context, k->recipe};
    report_tuned(k, &recipe);
    return plan_memory(k, &recipe, e);
}

/* Matrices of the blocks are calibrated together by all ranks; the rest is dealt. */
static bool is_shared(const struct compression *k, uint32_t i)
{
    return compress_is_shared(&k->units[i], k->calibrated, k->distilled);
}

/* Whether nobody has to search it any more. */
static bool is_made(const struct compress_result *r)
{
    return r->done || r->searched;
}

/* Whether what comes of the unit is not its last bytes yet: distillation will change them. */
static bool comes_first(const struct compression *k, uint32_t i)
{
    return k->journal.aside && i < k->n && plan_is_matrix(&k->units[i]) && !k->results[i].searched;
}

static enum status deal(struct compression *k, struct error *e)
{
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

static enum status create(struct compression *k, struct error *e)
{
    TRY(gguf_output_create(&k->file.out, k->options->output, e));
    for (uint32_t i = 0; options_calibrated(k->options) && i < k->options->calib.n; i++)
        if (strcmp(k->options->calib.at[i], "-") != 0)
            TRY(gguf_output_keep(k->file.out, k->options->calib.at[i], e));
    TRY(keep_source(k->file.out, k->source, e));
    if (k->options->dry_run)
        return OK;
    char *target; /* found out again by the journal: now it is to be refused before any work */
    TRY(gguf_output_check(k->file.out, &target, e));
    free(target);
    return OK;
}

/* What an earlier run has measured is not measured again. */
static enum status open_journal(struct compression *k, struct error *e)
{
    bool measured;
    struct compress_journal *j = &k->journal;
    j->options = k->options;
    j->source = k->source;
    j->calibration = k->calibrated ? &k->keys : NULL;
    j->file = &k->file;
    j->units = k->units;
    j->results = k->results;
    j->n = k->n;
    j->aside = k->calibrated && k->distilled ? &k->aside : NULL;
    j->moment_floats = k->memory ? k->memory[0].moment_floats : 0;
    TRY(compress_journal_open(j, &measured, e));
    k->measure = k->measure && !measured;
    return measured ? plan(k, e) : OK;
}

static void describe_file(struct compression *k)
{
    k->file.source = k->source;
    k->file.settings = &k->settings;
    k->file.totals = &k->totals;
    k->file.units = k->units;
    k->file.n = k->n;
    k->file.calibration = k->calibrated ? &k->keys : NULL;
}

static uint64_t state_bytes(const struct compression *k)
{
    return compress_state_bytes(k->units, k->n, &k->source->config, k->recode);
}

/* Room for what waits for distillation is set aside now, not after hours of searching. */
static enum status begin_aside(struct compression *k, struct error *e)
{
    struct compress_journal *j = &k->journal;
    if (!j->aside || j->sealed)
        return OK;
    k->aside.units = k->units;
    k->aside.n = k->n;
    k->aside.state_bytes = state_bytes(k);
    return compress_file_begin_aside(&k->aside, j->target, compress_journal_parts_aside(j), e);
}

static enum status begin(struct compression *k, struct error *e)
{
    report_plan(k);
    describe_file(k);
    k->file.sealed = k->journal.sealed;
    gguf_output_resume(k->file.out, compress_journal_parts(&k->journal));
    TRY(compress_file_begin(&k->file, k->tokenizer, k->options->shard_bytes, e));
    TRY(begin_aside(k, e));
    TRY(compress_journal_begin(&k->journal, k->cluster->loop, e));
    for (uint32_t i = 0; i < k->n; i++) {
        k->n_done += k->results[i].done;
        k->work_done += is_made(&k->results[i]) ? (double)compress_work(&k->units[i]) : 0;
    }
    return OK;
}

/* Which says how the file will hold the embeddings. */
static const struct plan_unit *embeddings(const struct compression *k)
{
    uint32_t i = 0;
    while (i < k->n - 1 && k->units[i].kind != KIND_EMBEDDING)
        i++;
    return &k->units[i];
}

/* By which a rank measures: all are much alike. */
static const struct plan_unit *first_matrix(const struct compression *k)
{
    uint32_t i = 0;
    while (i < k->n - 1 && !plan_is_matrix(&k->units[i]))
        i++;
    return &k->units[i];
}

static enum status send_text(struct compression *k, int rank, struct error *e)
{
    struct message m = {.kind = MSG_CALIB,
                        .payload = k->text.words,
                        .payload_bytes = k->text.n_words * sizeof *k->text.words};
    struct msg_calib *c = &m.calib;
    snprintf(c->recipe, sizeof c->recipe, "%s", k->recipe);
    c->context = k->text.context;
    c->windows = k->text.windows;
    c->threads = k->memory[rank].threads;
    c->spill = k->memory[rank].need.on_disk;
    c->moment_floats = k->memory[rank].moment_floats;
    c->embeddings = embeddings(k)->method;
    c->embeddings_d = embeddings(k)->d;
    c->measure = k->measure;
    c->probe = k->options->dry_run;
    const struct plan_unit *first = first_matrix(k);
    c->method = first->method;
    c->d = first->d;
    return loop_send(k->cluster->loop, rank, &m, e);
}

/* Each rank tells what it has measured of a matrix, and rank 0 in the end what an error in it costs. */
static uint32_t measurements(const struct compression *k)
{
    return k->n_matrices * ((uint32_t)k->cluster->size + 1);
}

static enum status take_measured(struct compression *k, const struct message *m, struct error *e)
{
    FAIL_IF(!k->measure, e, ERR_PEER,
            "rank %d sent measurements, which were not expected", m->peer);
    TRY(compress_take_measured(k->units, k->n, &m->measured, e));
    char detail[64];
    snprintf(detail, sizeof detail, "block %u of %u: %s", m->measured.block + 1,
             k->source->config.block_count, compress_step_name((enum tensor_kind)m->measured.kind));
    progress_update(&k->progress, (double)++k->n_measured / measurements(k), detail);
    return OK;
}

static bool all_measured(void *self)
{
    const struct compression *k = self;
    return k->n_measured == measurements(k);
}

static enum status send_text_to_all(struct compression *k, struct error *e)
{
    for (int r = 0; r < k->cluster->size; r++)
        TRY(send_text(k, r, e));
    return OK;
}

/* Waits until the ranks know what each matrix needs, and plans again. */
static enum status measure(struct compression *k, struct error *e)
{
    TRY(send_text_to_all(k, e));
    for (uint32_t i = 0; i < k->n; i++)
        k->n_matrices += plan_is_matrix(&k->units[i]);
    progress_start(&k->progress, "measuring");
    enum status status = cluster_wait(k->cluster, all_measured, k, e);
    progress_end(&k->progress);
    TRY(status);
    TRY(compress_journal_measured(&k->journal, e));
    return plan(k, e);
}

/* Whether anything is left of what all ranks work on together. */
static bool shared_left(const struct compression *k)
{
    bool left = false;
    for (uint32_t i = 0; i < k->n; i++)
        left = left || (is_shared(k, i) && !k->results[i].done);
    return left;
}

/* Whether rank has to know of the unit: what is done is needed for what comes behind it. */
static bool is_wanted(const struct compression *k, uint32_t i, int rank)
{
    if (is_shared(k, i))
        return shared_left(k);
    return k->rank_of[i] == (uint32_t)rank && !k->results[i].done;
}

/* Sends rank its units, WIRE_UNITS_MAX at a time. */
static enum status send_units(struct compression *k, int rank, struct error *e)
{
    struct message m = {.kind = MSG_COMPRESS};
    struct msg_compress *c = &m.compress;
    c->outliers = k->settings.outliers;
    c->threads = cluster_threads(k->cluster, rank);
    uint32_t left = 0;
    for (uint32_t i = 0; i < k->n; i++)
        left += is_wanted(k, i, rank);
    for (uint32_t i = 0; i < k->n && left > 0; i++) {
        const struct plan_unit *u = &k->units[i];
        if (!is_wanted(k, i, rank))
            continue;
        struct compress_unit *to = &c->units[c->n_units++];
        *to = (struct compress_unit){.method = u->method,
                                     .d = u->d,
                                     .index = i,
                                     .shared = is_shared(k, i),
                                     .done = is_made(&k->results[i]),
                                     .columns = u->columns && u->method == UNIT_CODE};
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
    const struct msg_part *t = &m->tensor;
    TRY(compress_file_part(comes_first(k, t->unit) ? &k->aside : &k->file, t->unit, t->suffix,
                           t->offset, m->payload, m->payload_bytes, e));
    const struct plan_unit *u = &k->units[t->unit];
    if (k->results[t->unit].searched) /* counted then */
        return OK;
    if (strcmp(t->suffix, u->form.tensor[0].suffix) == 0)
        k->work_done +=
            (double)compress_work(u) * (double)m->payload_bytes / (double)u->form.tensor[0].bytes;
    char detail[64];
    if (is_shared(k, t->unit))
        snprintf(detail, sizeof detail, "block %u of %u: %s", u->block + 1,
                 k->source->config.block_count, compress_step_name(u->kind));
    progress_update(&k->progress, k->work_done / k->work_all,
                    is_shared(k, t->unit) ? detail : u->name);
    return OK;
}

static enum status take_done(struct compression *k, const struct msg_unit_done *d, int rank,
                             struct error *e)
{
    FAIL_IF(d->unit >= k->n || k->results[d->unit].done, e, ERR_PEER,
            "rank %d says that unit %u is done, which was not expected", rank, d->unit);
    struct compress_result *r = &k->results[d->unit];
    bool first = comes_first(k, d->unit);
    if (!r->searched) /* else its numbers are those of the search */
        *r = (struct compress_result){.error2 = d->error2,
                                      .weight2 = d->weight2,
                                      .seconds = d->seconds,
                                      .signal = d->signal,
                                      .rounded = d->rounded,
                                      .fed = d->fed,
                                      .final = d->final};
    r->searched = r->searched || first;
    r->done = !first;
    k->n_done += !first;
    return OK;
}

static enum status take_tuned(struct compression *k, const struct message *m, struct error *e)
{
    const struct msg_tuned *t = &m->tuned;
    char detail[64];
    FAIL_IF(m->peer != 0 || !k->distilled || t->step > t->steps || t->step == 0, e, ERR_PEER,
            "rank %d says that it tunes, which was not expected", m->peer);
    if (!k->tuning) {
        progress_end(&k->progress);
        progress_start(&k->progress, "tuning");
    }
    k->tuning = true;
    snprintf(detail, sizeof detail, "KL %.4f", t->kl);
    progress_update(&k->progress, (double)t->step / t->steps, detail);
    return OK;
}

/* A rank begins a block of which some matrices were made by an earlier run. */
static enum status send_block(struct compression *k, const struct message *m, struct error *e)
{
    const struct journal_units *made =
        k->journal.aside ? &k->journal.searched : &k->journal.finished;
    for (uint32_t i = 0; i < k->n; i++)
        if (plan_is_matrix(&k->units[i]) && made->taken[i] && k->units[i].block == m->want.block)
            TRY(compress_file_send(made->file, i, k->cluster->loop, m->peer, e));
    return OK;
}

static enum status take_state(struct compression *k, const struct message *m, struct error *e)
{
    FAIL_IF(m->peer != 0 || !k->journal.aside || m->payload_bytes == 0, e, ERR_PEER,
            "rank %d keeps a state of distilling, which was not expected", m->peer);
    return compress_journal_keep(&k->journal, &m->keep, m->payload, m->payload_bytes, e);
}

/* Rank 0's worker begins to distil, and asks for one piece after the other of what an earlier run has left. */
static enum status send_state(struct compression *k, const struct message *m, struct error *e)
{
    uint64_t all = k->aside.state_bytes, left = all - m->want.offset;
    struct message piece = {.kind = MSG_STATE};
    uint8_t *bytes;
    piece.state = (struct msg_state){compress_journal_steps(&k->journal), m->want.offset};
    FAIL_IF(m->peer != 0 || !k->journal.aside || m->want.offset >= all, e, ERR_PEER,
            "rank %d asks for a state of distilling where there is none", m->peer);
    if (piece.state.step == 0)
        return loop_send(k->cluster->loop, 0, &piece, e);
    piece.payload_bytes = left < WIRE_PIECE_MAX ? left : WIRE_PIECE_MAX;
    TRY(mem_array(&bytes, piece.payload_bytes, 1, "a piece of what is tuned", e));
    piece.payload = bytes;
    enum status status =
        compress_journal_state(&k->journal, m->want.offset, bytes, piece.payload_bytes, e);
    if (status == OK)
        status = loop_send(k->cluster->loop, 0, &piece, e);
    free(bytes);
    return status;
}

static enum status handle(void *self, struct message *m, struct error *e)
{
    struct compression *k = self;
    if (m->kind == MSG_TENSOR)
        return take_part(k, m, e);
    if (m->kind == MSG_UNIT_DONE)
        return take_done(k, &m->unit_done, m->peer, e);
    if (m->kind == MSG_MEASURED)
        return take_measured(k, m, e);
    if (m->kind == MSG_TUNED)
        return take_tuned(k, m, e);
    if (m->kind == MSG_WANT)
        return m->want.state ? send_state(k, m, e) : send_block(k, m, e);
    if (m->kind == MSG_KEEP)
        return take_state(k, m, e);
    if (m->kind == MSG_FETCH)
        return compress_source_answer(&k->others, m, e);
    return error_set(e, ERR_PEER, "rank %d sent a message of kind %d while compressing", m->peer,
                     (int)m->kind);
}

/* Records what has come. */
static enum status step(void *self, bool *busy, struct error *e)
{
    struct compression *k = self;
    (void)busy;
    return k->file.first_tensor ? compress_journal_step(&k->journal, false, e) : OK;
}

static bool all_done(void *self)
{
    const struct compression *k = self;
    return k->n_done == k->n;
}

static enum status work(struct compression *k, struct error *e)
{
    if (!k->calibrated)
        report_idle(k);
    if (k->calibrated && !k->measure && shared_left(k))
        TRY(send_text_to_all(k, e));
    progress_start(&k->progress, "compressing");
    enum status status = OK;
    for (int r = 0; r < k->cluster->size && status == OK; r++)
        status = send_units(k, r, e);
    if (status == OK)
        status = cluster_wait(k->cluster, all_done, k, e);
    progress_end(&k->progress);
    return status;
}

/* All that needs the other ranks. */
static enum status work_together(struct compression *k, struct error *e)
{
    if (k->measure)
        TRY(measure(k, e));
    TRY(deal(k, e));
    TRY(begin(k, e));
    if (k->n_done < k->n)
        TRY(work(k, e));
    TRY(compress_journal_step(&k->journal, true, e));
    return cluster_gather_stats(k->cluster, e);
}

/* The others may go before: they have nothing left to do, and would give rank 0 up while a slow
 * disk takes the last of the file. Whether it takes it is told by rank 0's exit code alone. */
static enum status finish(struct compression *k, struct error *e)
{
    loop_stop(k->cluster->loop, false);
    if (!k->file.sealed)
        TRY(compress_file_finish(&k->file, k->results, e));
    TRY(compress_journal_sealed(&k->journal, e));
    TRY(gguf_output_publish(k->file.out, e));
    compress_journal_close(&k->journal, OK, e);
    return OK;
}

static enum status write_page(const struct compression *k, const struct compress_report *r,
                              struct error *e)
{
    char *page;
    size_t size;
    TRY(compress_report_html(r, k->cluster, &page, &size, e));
    enum status status = report_write_text(page, size, k->options->html, e);
    free(page);
    return status;
}

static enum status report(struct compression *k, struct error *e)
{
    struct compress_report r = {.source = k->source,
                                .settings = &k->settings,
                                .totals = &k->totals,
                                .units = k->units,
                                .results = k->results,
                                .n = k->n,
                                .calibration = k->file.calibration,
                                .output = gguf_output_path(k->file.out),
                                .file_bytes = gguf_output_bytes(k->file.out),
                                .files = gguf_output_files(k->file.out),
                                .seconds = loop_now() - k->start};
    json_t *json;
    compress_report_print(&r, k->cluster);
    compress_source_report(&k->others);
    if (k->options->stats)
        cluster_print_stats(k->cluster);
    if (k->options->html)
        TRY(write_page(k, &r, e));
    if (!k->options->json)
        return OK;
    TRY(compress_report_json(&r, k->cluster, &json, e));
    return report_write_json(json, k->options->json, e);
}

static enum status take_probed(void *self, struct message *m, struct error *e)
{
    struct compression *k = self;
    const struct msg_probed *p = &m->probed;
    if (m->kind == MSG_FETCH)
        return compress_source_answer(&k->others, m, e);
    FAIL_IF(m->kind != MSG_PROBED, e, ERR_PEER, "rank %d sent a message of kind %d while measuring",
            m->peer, (int)m->kind);
    k->probed.forward = fmax(k->probed.forward, p->forward);
    k->probed.moments = fmax(k->probed.moments, p->moments);
    k->probed.factor = fmax(k->probed.factor, p->factor);
    k->probed.search = fmax(k->probed.search, p->search);
    k->n_probed++;
    return OK;
}

static bool all_probed(void *self)
{
    const struct compression *k = self;
    return k->n_probed == (uint32_t)k->cluster->size;
}

/* All ranks measure with the first window, at the same time as they would work. */
static enum status probe(struct compression *k, struct error *e)
{
    k->cluster->inner = (struct endpoint){.self = k, .handle = take_probed};
    enum status status = OK;
    for (int r = 0; r < k->cluster->size && status == OK; r++)
        status = send_text(k, r, e);
    if (status == OK)
        status = cluster_wait(k->cluster, all_probed, k, e);
    k->cluster->inner = (struct endpoint){0};
    return status;
}

/* --dry-run */
static enum status estimate(struct compression *k, struct error *e)
{
    struct recipe recipe;
    report_plan(k);
    TRY(recipe_parse(&recipe, k->recipe, e));
    struct estimate_job job = {.source = k->source,
                               .units = k->units,
                               .n = k->n,
                               .totals = &k->totals,
                               .recipe = &recipe,
                               .tokens = k->text.tokens,
                               .context = k->text.context,
                               .ranks = (uint32_t)k->cluster->size,
                               .measure = k->measure,
                               .moment_floats = k->memory ? k->memory[0].moment_floats : 0};
    describe_file(k);
    TRY(compress_file_size(&k->file, k->tokenizer, k->options->shard_bytes, &job.file_bytes, e));
    if (k->calibrated && k->distilled)
        job.aside_bytes = k->totals.matrix_bytes + 2 * state_bytes(k);
    if (k->calibrated)
        TRY(probe(k, e));
    estimate_print(&job, k->calibrated ? &k->probed : NULL);
    return OK;
}

static enum status compress(struct compression *k, struct error *e)
{
    TRY(check_output(k->options, e));
    TRY(open_source(k, e));
    TRY(create(k, e));
    TRY(open_others(k, e));
    TRY(prepare(k, e));
    if (k->options->dry_run)
        return estimate(k, e);
    TRY(open_journal(k, e));
    k->cluster->inner = (struct endpoint){.self = k, .handle = handle, .step = step};
    enum status status = work_together(k, e);
    k->cluster->inner = (struct endpoint){0};
    TRY(status);
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
    compress_journal_close(&k.journal, status, e);
    gguf_output_free(k.file.out);
    free(k.file.first_tensor);
    gguf_output_free(k.aside.out);
    free(k.aside.first_tensor);
    free(k.units);
    free(k.rank_of);
    free(k.results);
    calibration_free(&k.text);
    free(k.memory);
    tokenizer_free(k.tokenizer);
    compress_source_free(&k.others);
    weights_close(k.source);
    return status;
}
