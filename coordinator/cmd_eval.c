/* sbit eval: perplexity of a text, and distance from a reference model on the same tokens. What
 * --tasks does stands in eval_tasks.c. */
#include "coordinator/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/exactmath.h"
#include "common/mem.h"
#include "coordinator/eval_models.h"
#include "coordinator/eval_tasks.h"
#include "coordinator/scoring.h"
#include "coordinator/text_input.h"
#include "coordinator/windows.h"

#define USUAL_CONTEXT 512
#define FEW_TOKENS    100 /* scored: fewer say little about a model */

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
    const struct options *options;
    struct eval_models models;
    struct text text;
    uint32_t *ids;
    struct windows windows;
    uint64_t n_windows, next_window, done_windows;
    struct window_sum *sums; /* [n_windows] */
    uint32_t n_slots;
    struct slot *slots;    /* [n_slots] */
    uint32_t *slot_tokens; /* [n_slots][context] */
};

struct result {
    uint64_t tokens;
    double nll, perplexity, bits_per_byte; /* nll: mean, nats per token */
    double kl, top1;
};

static enum status read_tokens(struct eval_job *job, struct error *e)
{
    const struct options *o = job->options;
    const struct tokenizer *t = job->models.model.tokenizer;
    size_t n;
    TRY(text_read(&job->text, o->text, job->models.cluster, e));
    text_note_foreign(&job->text, strcmp(o->text, "-") ? o->text : "standard input");
    TRY(tokenizer_encode(t, job->text.bytes, job->text.size, false, false, &job->ids, &n, e));
    TRY(open_model_check_ids(&job->models.model, job->ids, n, e));
    job->windows = (struct windows){.ids = job->ids,
                                    .n_ids = n,
                                    .context = job->models.model.context,
                                    .bos = tokenizer_adds_bos(t) ? tokenizer_bos(t) : UINT32_MAX};
    job->n_windows = windows_count(&job->windows);
    FAIL_IF(windows_scored(&job->windows) == 0, e, ERR_USAGE,
            "%s has %zu token%s, too few to be scored: give a longer text", o->text, n,
            n == 1 ? "" : "s");
    return mem_array(&job->sums, job->n_windows, sizeof *job->sums, "scores of the windows", e);
}

static enum status make_slots(struct eval_job *job, struct error *e)
{
    uint32_t context = job->models.model.context;
    job->n_slots = eval_models_slots(&job->models, context, job->n_windows);
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
            pipeline_feed(job->models.pipeline, index, s->tokens, 0, s->n_tokens - 1, 0, false);
            return;
        }
        job->done_windows++;
    }
}

static enum status take_logits(void *self, const struct run *run,
                               const float *const logits[PIPELINE_JOBS], struct error *e)
{
    struct eval_job *job = self;
    struct slot *s = &job->slots[run->sequence];
    struct window_sum *sum = &job->sums[s->window];
    uint32_t vocab = job->models.model.weights->config.vocab;
    for (uint32_t i = 0; i < run->logits; i++) {
        struct score score;
        size_t row = (size_t)i * vocab;
        const float *reference = job->models.reference ? logits[1] + row : NULL;
        FAIL_IF(
            !score_row(&score, logits[0] + row, reference, vocab, s->tokens[run->position + i + 1]),
            e, ERR_FORMAT, "%s: logits of window %llu, position %u are not finite numbers",
            job->models.reference ? "model or reference" : job->options->model,
            (unsigned long long)s->window, run->position + i);
        sum->nll += score.nll;
        sum->kl += score.kl;
        sum->same_top += score.same_top;
    }
    if (run->position + run->count + 1 == s->n_tokens) {
        job->done_windows++;
        eval_models_progress(&job->models, "window", job->done_windows, job->n_windows);
        fill_slot(job, run->sequence);
    }
    return OK;
}

static bool all_scored(void *self)
{
    const struct eval_job *job = self;
    return job->done_windows == job->n_windows;
}

static enum status score_text(struct eval_job *job, struct error *e)
{
    struct eval_models *m = &job->models;
    TRY(eval_models_start(m, m->model.context, job->n_slots, take_logits, job, e));
    for (uint32_t i = 0; i < job->n_slots; i++)
        fill_slot(job, i);
    TRY(pipeline_pump(m->pipeline, e));
    return cluster_wait(m->cluster, all_scored, job, e);
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
    printf("perplexity            %.4f (ctx %u, %llu token%s)\n", r->perplexity,
           job->models.model.context, (unsigned long long)r->tokens, r->tokens == 1 ? "" : "s");
    printf("loss                  %.6f nats per token, %.4f bits per byte\n", r->nll,
           r->bits_per_byte);
    if (job->models.reference)
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
    TRY(cluster_ranks_json(job->models.cluster, &ranks, e));
    bool both = job->models.reference != NULL;
    json_t *root = json_pack("{s:s, s:s, s:I, s:I, s:f, s:f, s:f, s:o, s:o, s:o}", "model",
                             job->options->model, "text", job->options->text, "ctx",
                             (json_int_t)job->models.model.context, "tokens", (json_int_t)r->tokens,
                             "perplexity", r->perplexity, "nll", r->nll, "bits_per_byte",
                             r->bits_per_byte, "kl", both ? json_real(r->kl) : json_null(), "top1",
                             both ? json_real(r->top1) : json_null(), "ranks", ranks);
    return report_write_json(root, job->options->json, e);
}

static enum status eval_text(struct eval_job *job, struct cluster *c, struct error *e)
{
    const struct options *o = job->options;
    TRY(report_check_path(o->json, e));
    TRY(eval_models_open(&job->models, c, USUAL_CONTEXT, e));
    TRY(read_tokens(job, e));
    TRY(make_slots(job, e));
    TRY(score_text(job, e));
    TRY(cluster_gather_stats(c, e));
    struct result r = summarise(job);
    print_result(job, &r);
    fflush(stdout);
    if (o->stats)
        cluster_print_stats(c);
    return o->json ? write_json(job, &r, e) : OK;
}

enum status cmd_eval(struct cluster *c, struct error *e)
{
    struct eval_job job = {.options = c->options};
    if (c->options->tasks)
        return eval_tasks(c, e);
    enum status status = eval_text(&job, c, e);
    eval_models_close(&job.models);
    text_free(&job.text);
    free(job.ids);
    free(job.sums);
    free(job.slots);
    free(job.slot_tokens);
    return status;
}
