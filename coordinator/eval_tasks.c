/* Multiple-choice questions through the pipeline. A slot works on one question at a time, on its
 * choices one after another: what a choice's tokens share with those of the one before stands in
 * the cache already and is not computed again. */
#include "coordinator/eval_tasks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "coordinator/eval_models.h"
#include "coordinator/scoring.h"
#include "coordinator/task_file.h"
#include "coordinator/task_score.h"
#include "coordinator/text_input.h"

#define CACHE_POSITIONS 2048 /* beyond those that keep all stages busy: bounds the caches' memory */

enum { PLAIN, PER_BYTE, RULES }; /* by what a choice is taken */

struct choice {
    uint32_t *tokens; /* [n_tokens] of BOS, question and choice; owned */
    uint32_t n_tokens;
    uint32_t from;   /* the first token of the choice, at least 1 */
    uint32_t shared; /* tokens that it has in common with the choice before, below from */
};

struct slot { /* a KV slot works on one question at a time */
    const struct task_question *question;
    uint32_t choice;
};

struct task_job {
    struct cluster *cluster;
    const struct options *options;
    struct eval_models models;
    struct text text;
    struct task_file file;
    struct choice *choices;     /* [file.n_choices] */
    uint32_t *bytes;            /* [file.n_choices] */
    double *nll[PIPELINE_JOBS]; /* [file.n_choices] each */
    uint64_t next, done;        /* questions */
    uint32_t longest;           /* tokens of a choice with its question */
    uint64_t fed;               /* tokens that go through the model */
    struct slot *slots;         /* [n_slots] */
    uint32_t n_slots;
};

struct result {
    double chance;
    struct task_accuracy of[PIPELINE_JOBS][RULES];
    double same[RULES]; /* share of questions at which both models take the same choice */
};

static const char *file_name(const struct options *o)
{
    return strcmp(o->tasks, "-") ? o->tasks : "standard input";
}

/* How many tokens a and b begin with in common. */
static uint32_t common_prefix(const uint32_t *a, size_t n_a, const uint32_t *b, size_t n_b)
{
    uint32_t n = 0;
    while (n < n_a && n < n_b && a[n] == b[n])
        n++;
    return n;
}

/* Tokens of a text, the way each text of this job begins. */
static enum status encode(struct task_job *job, const char *text, uint32_t **ids, size_t *n,
                          struct error *e)
{
    return tokenizer_encode(job->models.model.tokenizer, text, strlen(text), true, false, ids, n,
                            e);
}

static enum status check_choice(const struct task_job *job, const struct task_question *q,
                                uint32_t number, size_t n, uint32_t from, struct error *e)
{
    const char *name = file_name(job->options);
    uint32_t context = job->models.model.context;
    FAIL_IF(n > context, e, ERR_LIMIT,
            "%s, line %zu: question and choice %u have %zu tokens but the context holds %u: "
            "shorten the question or give --ctx %zu",
            name, q->line, number, n, context, n);
    FAIL_IF(from == 0, e, ERR_FORMAT,
            "%s, line %zu: choice %u has no token before it, because the tokenizer of %s puts none "
            "in front of a text: begin the question with a word",
            name, q->line, number, job->options->model);
    FAIL_IF(from == n, e, ERR_FORMAT,
            "%s, line %zu: choice %u adds no token to the question: write it out", name, q->line,
            number);
    return OK;
}

/* Tokenises a choice with its question, whose own tokens are asked[n_asked]. What both begin with
 * is the context; the rest is the choice, also where its first characters merge with the
 * question's last. */
static enum status take_choice(struct task_job *job, const struct task_question *q, uint32_t number,
                               const uint32_t *asked, size_t n_asked, struct error *e)
{
    struct choice *c = &job->choices[q->first + number];
    char *text;
    size_t n = 0;
    TRY(task_text(&text, q, number, e));
    enum status status = encode(job, text, &c->tokens, &n, e);
    free(text);
    TRY(status);
    TRY(open_model_check_ids(&job->models.model, c->tokens, n, e));
    c->from = common_prefix(asked, n_asked, c->tokens, n);
    TRY(check_choice(job, q, number, n, c->from, e));
    c->n_tokens = (uint32_t)n;
    if (number > 0) /* the row that predicts the choice's first token is wanted anew */
        c->shared = common_prefix(c[-1].tokens, c[-1].n_tokens - 1, c->tokens, c->from - 1);
    job->fed += c->n_tokens - 1 - c->shared;
    if (c->n_tokens > job->longest)
        job->longest = c->n_tokens;
    job->bytes[q->first + number] = task_choice_bytes(q, number);
    return OK;
}

static enum status take_question(struct task_job *job, const struct task_question *q,
                                 struct error *e)
{
    enum status status = OK;
    uint32_t *asked;
    size_t n;
    TRY(encode(job, q->question, &asked, &n, e));
    for (uint32_t i = 0; i < q->n_choices && status == OK; i++)
        status = take_choice(job, q, i, asked, n, e);
    free(asked);
    return status;
}

static enum status read_questions(struct task_job *job, struct error *e)
{
    struct task_file *f = &job->file;
    TRY(text_read(&job->text, job->options->tasks, job->cluster, e));
    TRY(task_file_parse(f, job->text.bytes, job->text.size, file_name(job->options), e));
    text_free(&job->text);
    TRY(mem_array(&job->choices, f->n_choices, sizeof *job->choices, "choices", e));
    TRY(mem_array(&job->bytes, f->n_choices, sizeof *job->bytes, "choices", e));
    for (int j = 0; j < PIPELINE_JOBS; j++)
        TRY(mem_array(&job->nll[j], f->n_choices, sizeof *job->nll[j], "log-likelihoods", e));
    for (uint64_t i = 0; i < f->n_questions; i++)
        TRY(take_question(job, &f->questions[i], e));
    return OK;
}

/* Slots enough for the stages, but not many long ones. */
static enum status make_slots(struct task_job *job, struct error *e)
{
    const struct eval_models *m = &job->models;
    uint64_t few = (((uint64_t)job->cluster->size + 1) * m->batch + CACHE_POSITIONS) / job->longest;
    job->n_slots = eval_models_slots(m, job->fed / job->file.n_choices, job->file.n_questions);
    if (job->n_slots > few)
        job->n_slots = few > 2 ? (uint32_t)few : 2;
    return mem_array(&job->slots, job->n_slots, sizeof *job->slots, "questions", e);
}

/* Sends the slot's choice on its way. Its last token predicts nothing. */
static void feed(struct task_job *job, uint32_t index)
{
    const struct slot *s = &job->slots[index];
    const struct choice *c = &job->choices[s->question->first + s->choice];
    pipeline_feed(job->models.pipeline, index, c->tokens, c->shared, c->n_tokens - 1, c->from - 1,
                  false);
}

static void next_question(struct task_job *job, uint32_t index)
{
    if (job->next == job->file.n_questions)
        return;
    job->slots[index] = (struct slot){.question = &job->file.questions[job->next++]};
    feed(job, index);
}

static void next_choice(struct task_job *job, uint32_t index)
{
    struct slot *s = &job->slots[index];
    if (++s->choice < s->question->n_choices) {
        feed(job, index);
        return;
    }
    job->done++;
    eval_models_progress(&job->models, "question", job->done, job->file.n_questions);
    next_question(job, index);
}

/* Adds the rows of one model: logits[run->logits][vocab]. */
static enum status add_rows(struct task_job *job, int model, const struct run *run,
                            const float *logits, struct error *e)
{
    const struct slot *s = &job->slots[run->sequence];
    uint64_t number = s->question->first + s->choice;
    uint32_t vocab = job->models.model.weights->config.vocab;
    const uint32_t *targets =
        job->choices[number].tokens + run->position + run->count - run->logits + 1;
    for (uint32_t i = 0; i < run->logits; i++) {
        struct score score;
        FAIL_IF(!score_row(&score, logits + (size_t)i * vocab, NULL, vocab, targets[i]), e,
                ERR_FORMAT, "%s: logits of choice %u on line %zu of %s are not finite numbers",
                model ? job->options->against : job->options->model, s->choice, s->question->line,
                file_name(job->options));
        job->nll[model][number] += score.nll;
    }
    return OK;
}

static enum status take_logits(void *self, const struct run *run,
                               const float *const logits[PIPELINE_JOBS], struct error *e)
{
    struct task_job *job = self;
    const struct slot *s = &job->slots[run->sequence];
    const struct choice *c = &job->choices[s->question->first + s->choice];
    TRY(add_rows(job, 0, run, logits[0], e));
    if (job->models.reference)
        TRY(add_rows(job, 1, run, logits[1], e));
    if (run->position + run->count + 1 == c->n_tokens)
        next_choice(job, run->sequence);
    return OK;
}

static bool all_answered(void *self)
{
    const struct task_job *job = self;
    return job->done == job->file.n_questions;
}

static enum status answer_questions(struct task_job *job, struct error *e)
{
    struct eval_models *m = &job->models;
    TRY(make_slots(job, e));
    TRY(eval_models_start(m, job->longest, job->n_slots, take_logits, job, e));
    for (uint32_t i = 0; i < job->n_slots; i++)
        next_question(job, i);
    TRY(pipeline_pump(m->pipeline, e));
    return cluster_wait(job->cluster, all_answered, job, e);
}

static uint32_t pick(const struct task_job *job, int model, int rule, const struct task_question *q)
{
    return task_pick(job->nll[model] + q->first, rule == PER_BYTE ? job->bytes + q->first : NULL,
                     q->n_choices);
}

static struct result summarise(const struct task_job *job)
{
    struct result r = {0};
    uint64_t n = job->file.n_questions, right[PIPELINE_JOBS][RULES] = {{0}}, same[RULES] = {0};
    for (uint64_t i = 0; i < n; i++) {
        const struct task_question *q = &job->file.questions[i];
        r.chance += 1.0 / q->n_choices;
        for (int rule = 0; rule < RULES; rule++) {
            uint32_t mine = pick(job, 0, rule, q), its = pick(job, 1, rule, q);
            right[0][rule] += mine == q->answer;
            right[1][rule] += its == q->answer;
            same[rule] += mine == its;
        }
    }
    r.chance /= (double)n;
    for (int rule = 0; rule < RULES; rule++) {
        for (int model = 0; model < PIPELINE_JOBS; model++)
            r.of[model][rule] = task_accuracy(right[model][rule], n);
        r.same[rule] = (double)same[rule] / (double)n;
    }
    return r;
}

/* "71.4 % +- 3.2" */
static const char *percent(char out[32], struct task_accuracy a)
{
    if (isnan(a.error))
        snprintf(out, 32, "%.1f %%", 100 * a.share);
    else
        snprintf(out, 32, "%.1f %% +- %.1f", 100 * a.share, 100 * a.error);
    return out;
}

static void print_result(const struct task_job *job, const struct result *r)
{
    char normal[32], plain[32];
    printf("questions    %llu, chance %.1f %%\n", (unsigned long long)job->file.n_questions,
           100 * r->chance);
    printf("             %-18s plain\n", "per byte");
    printf("accuracy     %-18s %s\n", percent(normal, r->of[0][PER_BYTE]),
           percent(plain, r->of[0][PLAIN]));
    if (job->models.reference)
        printf("reference    %-18s %s\n"
               "same choice  %-.1f %%%12s %.1f %%\n",
               percent(normal, r->of[1][PER_BYTE]), percent(plain, r->of[1][PLAIN]),
               100 * r->same[PER_BYTE], "", 100 * r->same[PLAIN]);
}

static json_t *number_or_null(double x)
{
    return isnan(x) ? json_null() : json_real(x);
}

/* An allocation that fails leaves NULL, which json_pack refuses, and so on up to the report. */
static void append(json_t **array, json_t *value)
{
    if (json_array_append_new(*array, value) == 0)
        return;
    json_decref(*array);
    *array = NULL;
}

/* What one model made of a question. */
static json_t *answer_json(const struct task_job *job, int model, const struct task_question *q)
{
    json_t *sums = json_array();
    for (uint32_t i = 0; i < q->n_choices; i++)
        append(&sums, json_real(-job->nll[model][q->first + i]));
    return json_pack("{s:I, s:I, s:o}", "per_byte", (json_int_t)pick(job, model, PER_BYTE, q),
                     "plain", (json_int_t)pick(job, model, PLAIN, q), "log_likelihood", sums);
}

static json_t *question_json(const struct task_job *job, const struct task_question *q)
{
    json_t *bytes = json_array(), *tokens = json_array();
    for (uint32_t i = 0; i < q->n_choices; i++) {
        const struct choice *c = &job->choices[q->first + i];
        append(&bytes, json_integer(job->bytes[q->first + i]));
        append(&tokens, json_integer(c->n_tokens - c->from));
    }
    return json_pack("{s:I, s:I, s:o, s:o, s:o, s:o}", "line", (json_int_t)q->line, "answer",
                     (json_int_t)q->answer, "bytes", bytes, "tokens", tokens, "model",
                     answer_json(job, 0, q), "reference",
                     job->models.reference ? answer_json(job, 1, q) : json_null());
}

static json_t *accuracy_json(const struct result *r, int model)
{
    const struct task_accuracy *normal = &r->of[model][PER_BYTE], *plain = &r->of[model][PLAIN];
    return json_pack("{s:f, s:o, s:f, s:o}", "per_byte", normal->share, "per_byte_error",
                     number_or_null(normal->error), "plain", plain->share, "plain_error",
                     number_or_null(plain->error));
}

/* What concerns the reference is null without one. */
static enum status write_json(const struct task_job *job, const struct result *r, struct error *e)
{
    const struct options *o = job->options;
    bool both = job->models.reference != NULL;
    json_t *ranks, *each = json_array();
    for (uint64_t i = 0; i < job->file.n_questions; i++)
        append(&each, question_json(job, &job->file.questions[i]));
    enum status status = cluster_ranks_json(job->cluster, &ranks, e);
    if (status != OK) {
        json_decref(each);
        return status;
    }
    json_t *same =
        both ? json_pack("{s:f, s:f}", "per_byte", r->same[PER_BYTE], "plain", r->same[PLAIN])
             : json_null();
    json_t *root =
        json_pack("{s:s, s:s, s:s?, s:I, s:f, s:o, s:o, s:o, s:o, s:o}", "model", o->model, "tasks",
                  o->tasks, "against", o->against, "questions", (json_int_t)job->file.n_questions,
                  "chance", r->chance, "accuracy", accuracy_json(r, 0), "reference_accuracy",
                  both ? accuracy_json(r, 1) : json_null(), "same_choice", same, "answers", each,
                  "ranks", ranks);
    return report_write_json(root, o->json, e);
}

static enum status run(struct task_job *job, struct error *e)
{
    const struct options *o = job->options;
    TRY(report_check_path(o->json, e));
    /* The model's whole context: the caches get no more of it than the questions need. */
    TRY(eval_models_open(&job->models, job->cluster, UINT32_MAX, e));
    TRY(read_questions(job, e));
    TRY(answer_questions(job, e));
    TRY(cluster_gather_stats(job->cluster, e));
    struct result r = summarise(job);
    print_result(job, &r);
    fflush(stdout);
    if (o->stats)
        cluster_print_stats(job->cluster);
    return o->json ? write_json(job, &r, e) : OK;
}

enum status eval_tasks(struct cluster *c, struct error *e)
{
    struct task_job job = {.cluster = c, .options = c->options};
    enum status status = run(&job, e);
    eval_models_close(&job.models);
    for (uint64_t i = 0; job.choices && i < job.file.n_choices; i++)
        free(job.choices[i].tokens);
    task_file_free(&job.file);
    text_free(&job.text);
    free(job.choices);
    free(job.bytes);
    for (int j = 0; j < PIPELINE_JOBS; j++)
        free(job.nll[j]);
    free(job.slots);
    return status;
}
