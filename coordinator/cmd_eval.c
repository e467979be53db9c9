/* sbit eval: perplexity of a text, and distance from a reference model on the same tokens. */
#include "coordinator/commands.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/exactmath.h"
#include "common/mem.h"
#include "coordinator/open_model.h"
#include "coordinator/pipeline.h"
#include "coordinator/scoring.h"
#include "coordinator/text_input.h"
#include "coordinator/windows.h"

#define USUAL_CONTEXT 512
#define FEW_TOKENS    100 /* scored: fewer say little about a model */
#define LOGITS_BYTES                                                                               \
    (16u << 20) /* of one micro-batch, so that large vocabularies keep memory small */

struct window_sum { /* per window, so that totals do not depend on the order of arrival */
    double nll, kl;
    uint64_t same_top;
};

struct slot { /* a KV slot works on one window at a time */
    uint64_t window;
    uint32_t n_tokens;
    uint32_t *tokens; /* [context] */
};

struct eval_job {
    struct cluster *cluster;
    const struct options *options;
    struct open_model model;
    struct weights *reference; /* NULL without --against */
    struct text text;
    uint32_t *ids;
    struct windows windows;
    uint64_t n_windows, next_window, done_windows;
    struct window_sum *sums; /* [n_windows] */
    uint32_t n_slots, batch;
    struct slot *slots;    /* [n_slots] */
    uint32_t *slot_tokens; /* [n_slots][context] */
    struct pipeline *pipeline;
    double shown_at;
};

struct result {
    uint64_t tokens;
    double nll, perplexity, bits_per_byte; /* nll: mean, nats per token */
    double kl, top1;
};

static enum status read_tokens(struct eval_job *job, struct error *e)
{
    const struct options *o = job->options;
    const struct tokenizer *t = job->model.tokenizer;
    size_t n;
    TRY(text_read(&job->text, o->text, job->cluster, e));
    TRY(tokenizer_encode(t, job->text.bytes, job->text.size, false, false, &job->ids, &n, e));
    TRY(open_model_check_ids(&job->model, job->ids, n, e));
    job->windows = (struct windows){.ids = job->ids,
                                    .n_ids = n,
                                    .context = job->model.context,
                                    .bos = tokenizer_adds_bos(t) ? tokenizer_bos(t) : UINT32_MAX};
    FAIL_IF(job->model.context < 2, e, ERR_LIMIT, "--ctx must be at least 2 to score anything");
    job->n_windows = windows_count(&job->windows);
    FAIL_IF(windows_scored(&job->windows) == 0, e, ERR_USAGE,
            "%s has %zu token%s, too few to be scored: give a longer text", o->text, n,
            n == 1 ? "" : "s");
    return mem_array(&job->sums, job->n_windows, sizeof *job->sums, "scores of the windows", e);
}

/* How many ids below n mean different text to the two. */
static uint32_t count_different(const struct tokenizer *a, const struct tokenizer *b, uint32_t n)
{
    uint32_t different = 0;
    for (uint32_t id = 0; id < n; id++) {
        size_t x, y;
        const char *of_a = tokenizer_piece(a, id, true, &x);
        const char *of_b = tokenizer_piece(b, id, true, &y);
        different += x != y || memcmp(of_a, of_b, x) != 0;
    }
    return different;
}

/* The reference gets the model's token ids, which must mean the same to it. A few special tokens
 * may be spelt otherwise in a converted file. */
static enum status check_vocabulary(const struct eval_job *job, struct error *e)
{
    const struct options *o = job->options;
    const struct tokenizer *mine = job->model.tokenizer;
    struct tokenizer *its;
    TRY(tokenizer_open(&its, o->against, e));
    uint32_t n = tokenizer_vocab(mine), n_its = tokenizer_vocab(its);
    n = n < n_its ? n : n_its;
    uint32_t different = count_different(mine, its, n);
    tokenizer_free(its);
    FAIL_IF(different > n / 10, e, ERR_UNSUPPORTED,
            "%u of %u tokens of %s and %s are different texts: only models with the same "
            "vocabulary can be compared",
            different, n, o->model, o->against);
    return OK;
}

static enum status open_reference(struct eval_job *job, struct error *e)
{
    const struct options *o = job->options;
    if (!o->against)
        return OK;
    TRY(weights_open(&job->reference, o->against, e));
    uint32_t mine = job->model.weights->config.vocab, its = job->reference->config.vocab;
    FAIL_IF(mine != its, e, ERR_UNSUPPORTED,
            "%s has %u tokens and %s has %u: only models with the same vocabulary can be compared",
            o->model, mine, o->against, its);
    return check_vocabulary(job, e);
}

/* Micro-batches as large as asked for and as the logits allow, and just the slots that keep all
 * stages busy. */
static void choose_sizes(struct eval_job *job)
{
    const struct open_model *m = &job->model;
    uint32_t rows = LOGITS_BYTES / sizeof(float) / m->weights->config.vocab;
    job->batch = job->options->batch < rows ? job->options->batch : rows > 0 ? rows : 1;
    uint64_t flying = (uint64_t)job->cluster->size + 1;
    uint64_t slots = flying * job->batch / m->context + 2;
    if (slots > flying)
        slots = flying;
    job->n_slots = (uint32_t)(slots < job->n_windows ? slots : job->n_windows);
}

static enum status make_slots(struct eval_job *job, struct error *e)
{
    uint32_t context = job->model.context;
    TRY(mem_array(&job->slots, job->n_slots, sizeof *job->slots, "windows", e));
    TRY(mem_array(&job->slot_tokens, (size_t)job->n_slots * context, sizeof *job->slot_tokens,
                  "windows", e));
    for (uint32_t i = 0; i < job->n_slots; i++)
        job->slots[i].tokens = job->slot_tokens + (size_t)i * context;
    return OK;
}

/* Puts the next window that has something to score into a slot. Its last token predicts nothing. */
static void fill_slot(struct eval_job *job, uint32_t index)
{
    struct slot *s = &job->slots[index];
    while (job->next_window < job->n_windows) {
        s->window = job->next_window++;
        s->n_tokens = windows_tokens(&job->windows, s->window, s->tokens);
        if (s->n_tokens > 1) {
            pipeline_feed(job->pipeline, index, s->tokens, 0, s->n_tokens - 1, 0, false);
            return;
        }
        job->done_windows++;
    }
}

static void show_progress(struct eval_job *job)
{
    double now = loop_now();
    if (!isatty(STDERR_FILENO) || (now - job->shown_at < 0.2 && job->done_windows < job->n_windows))
        return;
    job->shown_at = now;
    fprintf(stderr, "\rwindow %llu of %llu%s", (unsigned long long)job->done_windows,
            (unsigned long long)job->n_windows, job->done_windows == job->n_windows ? "\n" : "");
    fflush(stderr);
}

static enum status take_logits(void *self, const struct run *run,
                               const float *const logits[PIPELINE_JOBS], struct error *e)
{
    struct eval_job *job = self;
    struct slot *s = &job->slots[run->sequence];
    struct window_sum *sum = &job->sums[s->window];
    uint32_t vocab = job->model.weights->config.vocab;
    for (uint32_t i = 0; i < run->logits; i++) {
        struct score score;
        size_t row = (size_t)i * vocab;
        const float *reference = job->reference ? logits[1] + row : NULL;
        FAIL_IF(
            !score_row(&score, logits[0] + row, reference, vocab, s->tokens[run->position + i + 1]),
            e, ERR_FORMAT, "%s: logits of window %llu, position %u are not finite numbers",
            job->reference ? "model or reference" : job->options->model,
            (unsigned long long)s->window, run->position + i);
        sum->nll += score.nll;
        sum->kl += score.kl;
        sum->same_top += score.same_top;
    }
    if (run->position + run->count + 1 == s->n_tokens) {
        job->done_windows++;
        show_progress(job);
        fill_slot(job, run->sequence);
    }
    return OK;
}

static bool all_scored(void *self)
{
    const struct eval_job *job = self;
    return job->done_windows == job->n_windows;
}

static enum status assign(struct eval_job *job, uint32_t number, const struct weights *w,
                          uint32_t *stages, struct error *e)
{
    TRY(cluster_assign(job->cluster, number, w, job->model.context, job->n_slots, job->batch, e));
    if (cluster_stages(job->cluster) > *stages)
        *stages = cluster_stages(job->cluster);
    return OK;
}

static enum status score_text(struct eval_job *job, struct error *e)
{
    struct pipeline_setup p = {.cluster = job->cluster,
                               .jobs = job->reference ? 2 : 1,
                               .sequences = job->n_slots,
                               .stages = 1,
                               .batch = job->batch,
                               .vocab = job->model.weights->config.vocab,
                               .logits = take_logits,
                               .self = job};
    TRY(assign(job, 0, job->model.weights, &p.stages, e));
    if (job->reference)
        TRY(assign(job, 1, job->reference, &p.stages, e));
    TRY(pipeline_open(&job->pipeline, &p, e));
    for (uint32_t i = 0; i < job->n_slots; i++)
        fill_slot(job, i);
    TRY(pipeline_pump(job->pipeline, e));
    return cluster_wait(job->cluster, all_scored, job, e);
}

static struct result summarise(const struct eval_job *job)
{
    struct result r = {.tokens = windows_scored(&job->windows)};
    double nll = 0, kl = 0, same_top = 0;
    for (uint64_t i = 0; i < job->n_windows; i++) {
        nll += job->sums[i].nll;
        kl += job->sums[i].kl;
        same_top += (double)job->sums[i].same_top;
    }
    r.nll = nll / (double)r.tokens;
    r.perplexity = exact_exp(r.nll);
    r.bits_per_byte = nll / exact_log(2) / (double)job->text.size;
    r.kl = kl / (double)r.tokens;
    r.top1 = same_top / (double)r.tokens;
    return r;
}

static void print_result(const struct eval_job *job, const struct result *r)
{
    printf("perplexity            %.4f (ctx %u, %llu token%s)\n", r->perplexity, job->model.context,
           (unsigned long long)r->tokens, r->tokens == 1 ? "" : "s");
    printf("loss                  %.6f nats per token, %.4f bits per byte\n", r->nll,
           r->bits_per_byte);
    if (job->reference)
        printf("KL divergence         %.6f nats per token from %s\n"
               "same likeliest token  %.1f %%\n",
               r->kl, job->options->against, 100 * r->top1);
    if (r->tokens < FEW_TOKENS)
        fprintf(stderr, "sbit: only %llu token%s of %s %s scored: too short a text to say much\n",
                (unsigned long long)r->tokens, r->tokens == 1 ? "" : "s", job->options->text,
                r->tokens == 1 ? "was" : "were");
}

/* kl and top1 are null without a reference. */
static enum status write_json(const struct eval_job *job, const struct result *r, struct error *e)
{
    json_t *ranks;
    TRY(cluster_ranks_json(job->cluster, &ranks, e));
    bool both = job->reference != NULL;
    json_t *root = json_pack("{s:s, s:s, s:I, s:I, s:f, s:f, s:f, s:o, s:o, s:o}", "model",
                             job->options->model, "text", job->options->text, "ctx",
                             (json_int_t)job->model.context, "tokens", (json_int_t)r->tokens,
                             "perplexity", r->perplexity, "nll", r->nll, "bits_per_byte",
                             r->bits_per_byte, "kl", both ? json_real(r->kl) : json_null(), "top1",
                             both ? json_real(r->top1) : json_null(), "ranks", ranks);
    return report_write_json(root, job->options->json, e);
}

static enum status eval(struct eval_job *job, struct error *e)
{
    const struct options *o = job->options;
    TRY(report_check_path(o->json, e));
    TRY(open_model(&job->model, o->model, o->context, USUAL_CONTEXT, e));
    TRY(open_reference(job, e));
    TRY(read_tokens(job, e));
    choose_sizes(job);
    TRY(make_slots(job, e));
    TRY(score_text(job, e));
    TRY(cluster_gather_stats(job->cluster, e));
    struct result r = summarise(job);
    print_result(job, &r);
    fflush(stdout);
    if (o->stats)
        cluster_print_stats(job->cluster);
    return o->json ? write_json(job, &r, e) : OK;
}

enum status cmd_eval(struct cluster *c, struct error *e)
{
    struct eval_job job = {.cluster = c, .options = c->options};
    enum status status = eval(&job, e);
    pipeline_close(job.pipeline);
    open_model_close(&job.model);
    weights_close(job.reference);
    text_free(&job.text);
    free(job.ids);
    free(job.sums);
    free(job.slots);
    free(job.slot_tokens);
    return status;
}
