/* sbit run: continues a text, once or line by line. */
#include "coordinator/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/mem.h"
#include "coordinator/generate.h"
#include "coordinator/text_input.h"

#define USUAL_CONTEXT 4096
#define TELLING_SPEED 16 /* tokens of prompt from which their speed means something */

struct run_job {
    struct cluster *cluster;
    const struct options *options;
    struct open_model model;
    struct generator *generator;
    uint64_t seed;
    FILE *spoken; /* all that was generated, for --json: a memory stream over text */
    char *text;
    size_t text_size;
    struct turn total; /* of all turns */
    uint32_t refused;  /* lines of input that were longer than the context */
};

static enum status write_text(void *self, const char *text, size_t size, struct error *e)
{
    struct run_job *job = self;
    bool good = fwrite(text, 1, size, stdout) == size && fflush(stdout) == 0;
    if (!good)
        return error_set_errno(e, ERR_IO, "cannot write to standard output");
    FAIL_IF(fwrite(text, 1, size, job->spoken) != size, e, ERR_MEMORY,
            "out of memory: the generated text");
    return OK;
}

/* Tokens of text; the first text begins with BOS where the model wants it. */
static enum status encode(const struct run_job *job, const struct text *text, bool first,
                          uint32_t **ids, size_t *n, struct error *e)
{
    TRY(tokenizer_encode(job->model.tokenizer, text->bytes, text->size, first, true, ids, n, e));
    enum status status = open_model_check_ids(&job->model, *ids, *n, e);
    if (status != OK)
        free(*ids);
    return status;
}

static uint64_t draw_seed(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    /* Short enough to be typed again. */
    return ((uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 8 ^ (uint64_t)getpid() << 4) &
           0xffffffff;
}

static struct generate_setup make_setup(struct run_job *job)
{
    const struct options *o = job->options;
    return (struct generate_setup){
        .model = &job->model,
        .cluster = job->cluster,
        .batch = o->batch,
        .sampling = {.temp = o->temp,
                     .top_k = o->top_k,
                     .top_p = o->top_p,
                     .min_p = o->min_p,
                     .repeat_penalty = o->repeat_penalty,
                     .seed = job->seed},
        .stops = o->stop.at,
        .n_stops = o->stop.n,
        .ignore_eos = o->ignore_eos,
        .text = write_text,
        .self = job,
    };
}

/* Loads the model on all ranks. */
static enum status start(struct run_job *job, struct error *e)
{
    struct generate_setup setup = make_setup(job);
    TRY(cluster_assign(job->cluster, 0, job->model.weights, job->model.context, 1,
                       job->options->batch, e));
    return generator_open(&job->generator, &setup, e);
}

static void add_turn(struct turn *total, const struct turn *turn)
{
    total->end = turn->end;
    total->prompt_tokens += turn->prompt_tokens;
    total->generated_tokens += turn->generated_tokens;
    total->decoded_tokens += turn->decoded_tokens;
    total->prompt_s += turn->prompt_s;
    total->decode_s += turn->decode_s;
}

/* Lines of input go on when the context is full, with an empty one. */
static void start_afresh(struct run_job *job)
{
    fprintf(stderr, "sbit: the context of %u tokens is full: starting afresh\n",
            job->model.context);
    generator_reset(job->generator);
}

/* " or raise --ctx" and the like, when the model was trained for more. */
static const char *if_larger(const struct run_job *job, const char *advice)
{
    return job->model.context < job->model.weights->config.context ? advice : "";
}

/* Ends the output's last line and says when it is not the model that ended the text. */
static void end_line(struct run_job *job, const struct turn *turn)
{
    const struct options *o = job->options;
    putchar('\n');
    fflush(stdout);
    if (turn->end != TURN_CONTEXT)
        return;
    if (o->prompt || o->prompt_file)
        fprintf(stderr, "sbit: the context of %u tokens is full%s\n", job->model.context,
                if_larger(job, "; --ctx makes it larger"));
    else
        start_afresh(job);
}

static enum status speak(struct run_job *job, const uint32_t *ids, size_t n, struct error *e)
{
    struct turn turn = {0};
    TRY(generator_add(job->generator, ids, n, e));
    TRY(generator_run(job->generator, job->options->n_predict, &turn, e));
    end_line(job, &turn);
    add_turn(&job->total, &turn);
    return OK;
}

/* -f: an editor's newline at the end of a file is not meant. */
static enum status read_prompt(struct run_job *job, struct text *text, struct error *e)
{
    const struct options *o = job->options;
    if (o->prompt)
        return text_copy(text, o->prompt, e);
    TRY(text_read(text, o->prompt_file, job->cluster, e));
    if (text->size > 0 && text->bytes[text->size - 1] == '\n')
        text->bytes[--text->size] = '\0';
    return OK;
}

static enum status check_prompt(const struct run_job *job, size_t n, struct error *e)
{
    FAIL_IF(n == 0, e, ERR_USAGE,
            "the prompt is empty and %s has no token to begin a text with: give a prompt",
            job->options->model);
    FAIL_IF(n > job->model.context, e, ERR_LIMIT,
            "the prompt has %zu tokens but the context holds %u: shorten it%s", n,
            job->model.context, if_larger(job, " or raise --ctx"));
    return OK;
}

static enum status run_prompt(struct run_job *job, const struct text *text, struct error *e)
{
    uint32_t *ids;
    size_t n;
    TRY(encode(job, text, true, &ids, &n, e));
    enum status status = check_prompt(job, n, e);
    if (status == OK)
        status = start(job, e);
    if (status == OK) {
        fwrite(text->bytes, 1, text->size, stdout);
        fflush(stdout);
        status = speak(job, ids, n, e);
        if (status != OK)
            putchar('\n');
    }
    free(ids);
    return status;
}

static enum status run_once(struct run_job *job, struct error *e)
{
    struct text text = {0};
    TRY(read_prompt(job, &text, e));
    enum status status = run_prompt(job, &text, e);
    text_free(&text);
    return status;
}

/* Ctrl-C during an answer ends the answer only; a signal to another rank ends the job. */
static enum status halt_answer(struct run_job *job, struct error *e)
{
    struct turn turn;
    if (!loop_interrupted())
        return ERR_INTERRUPTED;
    loop_clear_interrupt();
    *e = (struct error){0};
    TRY(generator_halt(job->generator, &turn, e));
    end_line(job, &turn);
    add_turn(&job->total, &turn);
    return OK;
}

/* Every line ends the one before it: only the first begins the text. */
static enum status encode_line(const struct run_job *job, const struct text *line, bool first,
                               uint32_t **ids, size_t *n, struct error *e)
{
    struct text joined = {.size = line->size + 1};
    if (first)
        return encode(job, line, true, ids, n, e);
    TRY(mem_array(&joined.bytes, joined.size + 1, 1, "a line of input", e));
    joined.bytes[0] = '\n';
    memcpy(joined.bytes + 1, line->bytes, line->size);
    enum status status = encode(job, &joined, false, ids, n, e);
    text_free(&joined);
    return status;
}

/* The tokens of a line for the context as it is, or for an empty one when the line fits only
 * there. */
static enum status fit_line(struct run_job *job, const struct text *line, uint32_t **ids, size_t *n,
                            struct error *e)
{
    uint32_t used = generator_tokens(job->generator), context = job->model.context;
    TRY(encode_line(job, line, used == 0, ids, n, e));
    if (used == 0 || *n + used <= context)
        return OK;
    free(*ids);
    TRY(encode_line(job, line, true, ids, n, e));
    if (*n <= context)
        start_afresh(job);
    return OK;
}

static enum status answer(struct run_job *job, const struct text *line, struct error *e)
{
    uint32_t *ids;
    size_t n;
    enum status status = OK;
    TRY(fit_line(job, line, &ids, &n, e));
    if (n > job->model.context) {
        fprintf(stderr,
                "sbit: this line has %zu tokens but the context holds %u: left out; shorten it%s\n",
                n, job->model.context, if_larger(job, " or raise --ctx"));
        job->refused++;
    } else if (n > 0) {
        status = speak(job, ids, n, e);
    }
    free(ids);
    return status == ERR_INTERRUPTED ? halt_answer(job, e) : status;
}

static enum status run_lines(struct run_job *job, struct line_reader *reader, struct error *e)
{
    bool terminal = isatty(STDIN_FILENO);
    struct text line;
    for (;;) {
        if (terminal)
            fputs("> ", stderr);
        TRY(line_read(reader, job->cluster, &line, e));
        if (!line.bytes)
            return OK;
        enum status status = line.size > 0 ? answer(job, &line, e) : OK;
        text_free(&line);
        TRY(status);
    }
}

static enum status run_interactive(struct run_job *job, struct error *e)
{
    struct line_reader reader = {0};
    TRY(start(job, e));
    enum status status = run_lines(job, &reader, e);
    line_reader_free(&reader);
    return status;
}

static double rate(double count, double seconds)
{
    return seconds > 0 ? count / seconds : 0;
}

static const char *plural(uint64_t count)
{
    return count == 1 ? "" : "s";
}

static void print_summary(const struct run_job *job)
{
    const struct cluster *c = job->cluster;
    const struct turn *t = &job->total;
    fprintf(stderr, "\nsbit: prompt %u token%s", t->prompt_tokens, plural(t->prompt_tokens));
    if (t->prompt_tokens >= TELLING_SPEED)
        fprintf(stderr, ", %.1f tok/s", rate(t->prompt_tokens, t->prompt_s));
    fprintf(stderr, "; generated %u token%s", t->generated_tokens, plural(t->generated_tokens));
    if (t->decoded_tokens > 0)
        fprintf(stderr, ", %.1f tok/s", rate(t->decoded_tokens, t->decode_s));
    fputs("; ", stderr);
    if (job->options->temp > 0)
        fprintf(stderr, "seed %llu; ", (unsigned long long)job->seed);
    fprintf(stderr, "%d rank%s, peak RSS", c->size, plural((uint64_t)c->size));
    for (int r = 0; r < c->size; r++)
        fprintf(stderr, "%s %.1f", r ? "," : "", (double)c->stats[r].peak_rss_bytes / (1 << 20));
    fprintf(stderr, " MiB\n");
    if (job->options->stats)
        cluster_print_stats(c);
}

/* JSON's integers are signed here. */
static json_t *seed_json(uint64_t seed)
{
    return seed <= INT64_MAX ? json_integer((json_int_t)seed)
                             : json_sprintf("%llu", (unsigned long long)seed);
}

static enum status write_json(const struct run_job *job, struct error *e)
{
    const struct turn *t = &job->total;
    json_t *ranks;
    char hash[17];
    snprintf(hash, sizeof hash, "%016llx",
             (unsigned long long)generator_logits_hash(job->generator));
    TRY(cluster_ranks_json(job->cluster, &ranks, e));
    json_t *root = json_pack(
        "{s:s, s:s%, s:o, s:f, s:I, s:s, s:I, s:I, s:f, s:f, s:o}", "model", job->options->model,
        "text", job->text, job->text_size, "seed", seed_json(job->seed), "temp", job->options->temp,
        "ctx", (json_int_t)job->model.context, "logits_hash", hash, "prompt_tokens",
        (json_int_t)t->prompt_tokens, "generated_tokens", (json_int_t)t->generated_tokens,
        "prompt_tok_s", rate(t->prompt_tokens, t->prompt_s), "decode_tok_s",
        rate(t->decoded_tokens, t->decode_s), "ranks", ranks);
    return report_write_json(root, job->options->json, e);
}

static enum status report(struct run_job *job, struct error *e)
{
    TRY(cluster_gather_stats(job->cluster, e));
    print_summary(job);
    FAIL_IF(fflush(job->spoken) != 0, e, ERR_MEMORY, "out of memory: the generated text");
    if (job->options->json)
        TRY(write_json(job, e));
    FAIL_IF(job->refused > 0 && !isatty(STDIN_FILENO), e, ERR_LIMIT,
            "%u line%s of the input did not fit into the context: left out", job->refused,
            plural(job->refused));
    return OK;
}

static enum status run(struct run_job *job, struct error *e)
{
    const struct options *o = job->options;
    job->seed = o->has_seed ? o->seed : draw_seed();
    job->spoken = open_memstream(&job->text, &job->text_size);
    FAIL_IF(!job->spoken, e, ERR_MEMORY, "out of memory: the generated text");
    TRY(report_check_path(o->json, e));
    TRY(open_model(&job->model, o->model, o->context, USUAL_CONTEXT, e));
    TRY(o->prompt || o->prompt_file ? run_once(job, e) : run_interactive(job, e));
    return report(job, e);
}

enum status cmd_run(struct cluster *c, struct error *e)
{
    struct run_job job = {.cluster = c, .options = c->options};
    enum status status = run(&job, e);
    generator_close(job.generator);
    open_model_close(&job.model);
    if (job.spoken)
        fclose(job.spoken);
    free(job.text);
    return status;
}
