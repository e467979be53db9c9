/* sbit bench model: speed of a model's shape with random weights, by the same pipeline as sbit
 * run. */
#include "coordinator/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cache.h"
#include "common/forms.h"
#include "common/mem.h"
#include "common/random_weights.h"
#include "common/read_speed.h"
#include "common/sysinfo.h"
#include "coordinator/bench_model.h"
#include "coordinator/bench_shapes.h"
#include "coordinator/generate.h"

/* Of several runs the median counts: as many as fit into some seconds. */
enum { MOST_RUNS = 3, RUNS_SECONDS = 10 };
#define READ_SECONDS 0.6
#define NOTICEABLE   0.03                 /* share of the time */
#define SLACK_BYTES  ((uint64_t)64 << 20) /* of a rank: program, MPI, activations, header */

struct bench_job {
    struct cluster *cluster;
    const struct options *options;
    struct bench_model shape;
    char *path;
    struct open_model model;
    struct generator *generator;
    uint32_t *prompt; /* [options->prompt_tokens] */
    int runs;
    double prompt_tok_s[MOST_RUNS], decode_tok_s[MOST_RUNS];
    double waited_share;   /* of the runs' time, in which other programs had this rank's CPU */
    double read_bandwidth; /* of this host, by the threads of all its ranks */
    uint32_t read_threads;
};

static enum status describe(struct bench_job *job, struct error *e)
{
    const struct options *o = job->options;
    struct bench_model *m = &job->shape;
    TRY(bench_shape(&m->config, o->shape, e));
    m->shape = o->shape;
    m->type = o->type ? o->type : "code";
    m->d = strcmp(m->type, "code") ? 0 : bench_model_d(o->bits);
    m->embeddings = o->embeddings;
    enum unit_method ignored;
    (void)form_named(o->embeddings, &ignored, &m->embeddings_d); /* the option knows no others */
    uint64_t positions = (uint64_t)o->prompt_tokens + o->decode_tokens;
    FAIL_IF(o->context > 0 && o->context < positions, e, ERR_USAGE,
            "--ctx %u is less than the %llu tokens of --prompt and --decode", o->context,
            (unsigned long long)positions);
    return OK;
}

/* The cached model, written first where it is not there yet. */
static enum status open_cached(struct bench_job *job, struct error *e)
{
    struct stat st;
    const struct options *o = job->options;
    uint32_t context = o->context ? o->context : o->prompt_tokens + o->decode_tokens;
    TRY(bench_model_path(&job->path, &job->shape, o->cache, e));
    struct options names = *o;
    names.model = job->path;
    TRY(report_check_names(&names, e));
    if (stat(job->path, &st) != 0)
        TRY(bench_model_write(&job->shape, job->path, job->cluster->loop, e));
    struct error inner = {0};
    enum status status = open_model(&job->model, job->path, context, context, &inner);
    const char *remedy = status == ERR_FORMAT ? "; delete it, and it is made again" : "";
    FAIL_IF(status != OK, e, status, "%s%s", inner.text, remedy);
    return OK;
}

static enum status no_text(void *self, const char *text, size_t size, struct error *e)
{
    (void)self;
    (void)text;
    (void)size;
    (void)e;
    return OK;
}

static enum status start(struct bench_job *job, struct error *e)
{
    const struct options *o = job->options;
    struct generate_setup setup = {.model = &job->model,
                                   .cluster = job->cluster,
                                   .batch = o->batch,
                                   .sampling = {.top_p = 1, .repeat_penalty = 1},
                                   .ignore_eos = true,
                                   .text = no_text};
    struct random_weights random = {1};
    TRY(mem_array(&job->prompt, o->prompt_tokens, sizeof *job->prompt, "the prompt", e));
    for (uint32_t i = 0; i < o->prompt_tokens; i++)
        job->prompt[i] = (uint32_t)(random_weights_next(&random) >> 32) % job->shape.config.vocab;
    TRY(cluster_assign(job->cluster, 0, job->model.weights, job->model.context, 1, o->batch, e));
    return generator_open(&job->generator, &setup, e);
}

/* The prompt gives the first token; each one decoded gives another. */
static enum status run_once(struct bench_job *job, struct error *e)
{
    const struct options *o = job->options;
    struct turn turn = {0};
    generator_reset(job->generator);
    TRY(generator_add(job->generator, job->prompt, o->prompt_tokens, e));
    TRY(generator_run(job->generator, (int64_t)o->decode_tokens + 1, &turn, e));
    job->prompt_tok_s[job->runs] = turn.prompt_tokens / turn.prompt_s;
    job->decode_tok_s[job->runs] = turn.decoded_tokens / turn.decode_s;
    job->runs++;
    return OK;
}

/* The one at the end touches memory that would otherwise count as the ranks'. */
static enum status measure(struct bench_job *job, struct error *e)
{
    struct cluster *c = job->cluster;
    double started = loop_now(), waited = sysinfo_waited();
    while (job->runs < MOST_RUNS && (job->runs == 0 || loop_now() - started < RUNS_SECONDS))
        TRY(run_once(job, e));
    job->waited_share = (sysinfo_waited() - waited) / (loop_now() - started);
    TRY(cluster_gather_stats(c, e));
    for (int r = 0; r < c->size; r++)
        if (!strcmp(c->hello[r].host, c->hello[0].host))
            job->read_threads += cluster_threads(c, r);
    if (job->read_threads > c->hello[0].cores) /* more would only wait for each other */
        job->read_threads = c->hello[0].cores;
    return read_speed(job->read_threads, READ_SECONDS, &job->read_bandwidth, e);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values, int n)
{
    double sorted[MOST_RUNS];
    memcpy(sorted, values, (size_t)n * sizeof *values);
    qsort(sorted, (size_t)n, sizeof *sorted, compare_doubles);
    return (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
}

/* Keys and values of one position in so many blocks. */
static double kv_bytes(const struct bench_job *job, uint32_t blocks)
{
    const struct model_config *c = &job->shape.config;
    return (double)blocks * (double)cache_bytes(job->options->kv, c->kv_heads, c->head_dim);
}

static uint64_t head_bytes(const struct weights *w)
{
    const char *base = w->config.tied ? "token_embd" : "output";
    const struct tensor *t = weights_find2(w, base, ".weight");
    t = t ? t : weights_find2(w, base, ".code");
    return t ? t->bytes : 0;
}

static uint64_t blocks_bytes(const struct weights *w, uint32_t first, uint32_t count)
{
    uint64_t bytes = 0;
    for (uint32_t b = first; b < first + count; b++)
        bytes += weights_block_bytes(w, b);
    return bytes;
}

/* What one decoded token reads: all blocks, the head, and the cache as it is halfway. */
static double bytes_per_token(const struct bench_job *job)
{
    const struct weights *w = job->model.weights;
    const struct options *o = job->options;
    double positions = o->prompt_tokens + 0.5 * (o->decode_tokens + 1);
    return (double)(blocks_bytes(w, 0, w->config.block_count) + head_bytes(w)) +
           positions * kv_bytes(job, w->config.block_count);
}

/* What a rank's memory should stay below: the weights it reads whole, its part of the cache in use, and
 * some. */
static uint64_t rank_limit(const struct bench_job *job, int rank)
{
    const struct weights *w = job->model.weights;
    const struct msg_stats *s = &job->cluster->stats[rank];
    uint32_t positions = job->options->prompt_tokens + job->options->decode_tokens;
    return blocks_bytes(w, s->first_block, s->block_count) + (rank == 0 ? head_bytes(w) : 0) +
           (uint64_t)(positions * kv_bytes(job, s->block_count)) + SLACK_BYTES;
}

static double matrix_bits(const struct bench_job *job)
{
    const struct weights *w = job->model.weights;
    double bytes = 0, weights = 0;
    for (int kind = 0; kind < KIND_EMBEDDING; kind++) {
        uint64_t rows, cols;
        if (!model_rule((enum tensor_kind)kind)->matrix ||
            !model_shape(&w->config, (enum tensor_kind)kind, &rows, &cols))
            continue;
        char base[64];
        model_base_name(base, (enum tensor_kind)kind, 0);
        weights += (double)(rows * cols);
        for (int part = 0; part < 3; part++) {
            static const char *const suffix[] = {".weight", ".code", ".code_out"};
            const struct tensor *t = weights_find2(w, base, suffix[part]);
            bytes += t ? (double)t->bytes : 0;
        }
    }
    return 8 * bytes / weights;
}

static void print_ranks(const struct bench_job *job)
{
    const struct cluster *c = job->cluster;
    const double mib = 1 << 20;
    printf("\nrank  host              blocks  threads    busy s   peak MiB  expected at most\n");
    for (int r = 0; r < c->size; r++) {
        const struct msg_stats *s = &c->stats[r];
        printf("%4d  %-16.16s %7u %8u %9.3f %10.1f %17.1f\n", r, s->host, s->block_count,
               cluster_threads(c, r), s->compute_s, (double)s->peak_rss_bytes / mib,
               (double)rank_limit(job, r) / mib);
    }
}

static void print_list(const char *what, const double *values, int n)
{
    printf("%s", what);
    for (int i = 0; i < n; i++)
        printf("%s %.1f", i ? "," : "", values[i]);
}

static void print_runs(const struct bench_job *job)
{
    printf("runs      %d; above are the medians", job->runs);
    print_list(" of prompt", job->prompt_tok_s, job->runs);
    print_list("; decode", job->decode_tok_s, job->runs);
    putchar('\n');
}

static const char *kv_name(enum cache_type kv)
{
    return kv == CACHE_Q8 ? "q8" : "f16";
}

static void print_result(const struct bench_job *job)
{
    const struct options *o = job->options;
    const struct bench_model *m = &job->shape;
    double decode = median(job->decode_tok_s, job->runs), bytes = bytes_per_token(job);
    printf("model     %s, random weights, %s of %.3f bits, embeddings %s, %.1f MB\n", m->shape,
           m->type, matrix_bits(job), m->embeddings, (double)job->model.weights->file_bytes / 1e6);
    printf("prompt    %u tokens in micro-batches of %u: %.1f tokens/s\n", o->prompt_tokens,
           o->batch, median(job->prompt_tok_s, job->runs));
    printf("decode    %u tokens after it, keys and values in %s: %.1f tokens/s\n", o->decode_tokens,
           kv_name(o->kv), decode);
    printf("memory    %.1f MB read for a token, %.2f GB/s; %u thread%s here can read %.2f GB/s: "
           "%.0f %% used\n",
           bytes / 1e6, decode * bytes / 1e9, job->read_threads, job->read_threads == 1 ? "" : "s",
           job->read_bandwidth / 1e9, 100 * decode * bytes / job->read_bandwidth);
    print_runs(job);
    if (job->waited_share > NOTICEABLE)
        printf(
            "others    other programs had the processor for %.0f %% of the time: these speeds are "
            "too low\n",
            100 * job->waited_share);
    print_ranks(job);
}

static enum status ranks_json(const struct bench_job *job, json_t **out, struct error *e)
{
    const struct cluster *c = job->cluster;
    bool good = true;
    TRY(cluster_ranks_json(c, out, e));
    for (int r = 0; r < c->size; r++) {
        json_t *row = json_array_get(*out, (size_t)r);
        good =
            good && json_object_set_new(row, "threads", json_integer(cluster_threads(c, r))) == 0 &&
            json_object_set_new(row, "limit_bytes", json_integer((json_int_t)rank_limit(job, r))) ==
                0;
    }
    if (!good)
        json_decref(*out);
    FAIL_IF(!good, e, ERR_MEMORY, "out of memory: the report");
    return OK;
}

static enum status write_json(const struct bench_job *job, struct error *e)
{
    const struct options *o = job->options;
    const struct bench_model *m = &job->shape;
    double decode = median(job->decode_tok_s, job->runs), bytes = bytes_per_token(job);
    json_t *ranks;
    uint64_t peak = 0;
    for (int r = 0; r < job->cluster->size; r++)
        if (job->cluster->stats[r].peak_rss_bytes > peak)
            peak = job->cluster->stats[r].peak_rss_bytes;
    TRY(ranks_json(job, &ranks, e));
    json_t *root = json_pack(
        "{s:s, s:s, s:f, s:s, s:s, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:i, s:f, s:f, s:I, s:s, "
        "s:f, s:o}",
        "shape", m->shape, "type", m->type, "bits", matrix_bits(job), "embeddings", m->embeddings,
        "cpu", job->cluster->hello[0].cpu, "threads", (int)job->read_threads, "prompt_tokens",
        (int)o->prompt_tokens, "decode_tokens", (int)o->decode_tokens, "runs", job->runs,
        "prompt_tok_s", median(job->prompt_tok_s, job->runs), "decode_tok_s", decode,
        "read_bandwidth", job->read_bandwidth, "batch", (int)o->batch, "bytes_per_token", bytes,
        "read_share", decode * bytes / job->read_bandwidth, "peak_rss_bytes", (json_int_t)peak,
        "kv", kv_name(o->kv), "waited_share", job->waited_share, "ranks", ranks);
    return report_write_json(root, o->json, e);
}

static enum status bench(struct bench_job *job, struct error *e)
{
    const struct options *o = job->options;
    TRY(report_check_path(o->json, e));
    TRY(describe(job, e));
    TRY(open_cached(job, e));
    TRY(start(job, e));
    TRY(measure(job, e));
    print_result(job);
    fflush(stdout);
    if (o->stats)
        cluster_print_stats(job->cluster);
    return o->json ? write_json(job, e) : OK;
}

enum status cmd_bench_model(struct cluster *c, struct error *e)
{
    struct bench_job job = {.cluster = c, .options = c->options};
    enum status status = bench(&job, e);
    generator_close(job.generator);
    open_model_close(&job.model);
    free(job.prompt);
    free(job.path);
    return status;
}
