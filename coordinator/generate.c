/* Generation of one text through the pipeline. */
#include "coordinator/generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/mem.h"

struct generator {
    struct generate_setup setup;
    struct pipeline *pipeline;
    struct sampler sampler;
    struct stop_filter stops;
    struct text_stream stream;
    XXH3_state_t *hash;
    uint32_t *tokens; /* [context + 1]: the last sampled token may lie behind the end */
    uint32_t n_tokens;
    uint32_t fed; /* tokens that have gone through the model */
    int64_t limit;
    struct turn turn;
    double started, first_at, last_at;
};

static enum status allocate(struct generator *g, struct error *e)
{
    const struct open_model *m = g->setup.model;
    uint32_t vocab = m->weights->config.vocab, known = tokenizer_vocab(m->tokenizer);
    g->hash = XXH3_createState();
    FAIL_IF(!g->hash || XXH3_64bits_reset(g->hash) != XXH_OK, e, ERR_MEMORY,
            "out of memory: the hash of the logits");
    TRY(mem_array(&g->tokens, (size_t)m->context + 1, sizeof *g->tokens, "the context", e));
    /* Rows beyond the tokenizer's ids pad the matrix and mean nothing. */
    TRY(sampler_init(&g->sampler, &g->setup.sampling, known < vocab ? known : vocab, e));
    return OK;
}

static enum status take_logits(void *self, const struct run *run,
                               const float *const logits[PIPELINE_JOBS], struct error *e);

enum status generator_open(struct generator **out, const struct generate_setup *setup,
                           struct error *e)
{
    struct generator *g;
    TRY(mem_array(&g, 1, sizeof *g, "the generator", e));
    g->setup = *setup;
    stop_filter_init(&g->stops, setup->stops, setup->n_stops);
    enum status status = allocate(g, e);
    if (status == OK) {
        struct pipeline_setup p = {.cluster = setup->cluster,
                                   .jobs = 1,
                                   .sequences = 1,
                                   .stages = cluster_stages(setup->cluster),
                                   .batch = setup->batch,
                                   .vocab = setup->model->weights->config.vocab,
                                   .logits = take_logits,
                                   .self = g};
        status = pipeline_open(&g->pipeline, &p, e);
    }
    *out = g;
    if (status != OK) {
        generator_close(g);
        *out = NULL;
    }
    return status;
}

void generator_close(struct generator *g)
{
    if (!g)
        return;
    pipeline_close(g->pipeline);
    sampler_free(&g->sampler);
    stop_filter_free(&g->stops);
    XXH3_freeState(g->hash);
    free(g->tokens);
    free(g);
}

enum status generator_add(struct generator *g, const uint32_t *ids, size_t n, struct error *e)
{
    uint32_t context = g->setup.model->context;
    FAIL_IF(n > context || g->n_tokens > context - (uint32_t)n, e, ERR_LIMIT,
            "the text has %llu tokens but the context holds %u: shorten it or raise --ctx",
            (unsigned long long)n + g->n_tokens, context);
    for (size_t i = 0; i < n; i++) {
        g->tokens[g->n_tokens++] = ids[i];
        sampler_accept(&g->sampler, ids[i]);
    }
    return OK;
}

static enum status give_text(struct generator *g, const char *text, size_t size, struct error *e)
{
    return size > 0 ? g->setup.text(g->setup.self, text, size, e) : OK;
}

/* Text of a sampled token through the stop strings to the caller. */
static enum status put_text(struct generator *g, const char *text, struct error *e)
{
    const char *out;
    size_t size;
    bool stopped;
    TRY(stop_filter_push(&g->stops, text, &out, &size, &stopped, e));
    if (stopped)
        g->turn.end = TURN_STOP_TEXT;
    return give_text(g, out, size, e);
}

/* What was held back: an unfinished character, the beginning of a stop string. */
static enum status finish_text(struct generator *g, struct error *e)
{
    const char *out;
    size_t size;
    if (g->turn.end != TURN_STOP_TEXT) {
        TRY(put_text(g, text_stream_finish(&g->stream), e));
        stop_filter_finish(&g->stops, &out, &size);
        TRY(give_text(g, out, size, e));
    }
    stop_filter_free(&g->stops);
    stop_filter_init(&g->stops, g->setup.stops, g->setup.n_stops);
    return OK;
}

static enum status sample(struct generator *g, const float *row, struct error *e)
{
    const struct open_model *m = g->setup.model;
    if (g->turn.generated_tokens == g->limit) {
        g->turn.end = TURN_LIMIT;
        return OK;
    }
    uint32_t id = sampler_pick(&g->sampler, row);
    if (!g->setup.ignore_eos && tokenizer_is_end(m->tokenizer, id)) {
        g->turn.end = TURN_END_TOKEN; /* which stays out of the text and of the context */
        return OK;
    }
    sampler_accept(&g->sampler, id);
    g->tokens[g->n_tokens++] = id;
    g->turn.generated_tokens++;
    TRY(put_text(g, text_stream_push(&g->stream, id), e));
    if (g->turn.end == TURN_RUNS && g->turn.generated_tokens == g->limit)
        g->turn.end = TURN_LIMIT;
    if (g->turn.end == TURN_RUNS && g->n_tokens > m->context)
        g->turn.end = TURN_CONTEXT;
    return OK;
}

static bool all_finite(const float *x, uint32_t n)
{
    bool finite = true;
    for (uint32_t i = 0; i < n; i++)
        finite = finite && isfinite(x[i]);
    return finite;
}

static enum status take_logits(void *self, const struct run *run,
                               const float *const logits[PIPELINE_JOBS], struct error *e)
{
    struct generator *g = self;
    uint32_t vocab = g->setup.model->weights->config.vocab;
    if (run->logits == 0 || g->turn.end != TURN_RUNS)
        return OK;
    FAIL_IF(!all_finite(logits[0], vocab), e, ERR_FORMAT,
            "%s: the logits of position %u are not finite numbers: the model is damaged",
            g->setup.model->weights->path, run->position + run->count - 1);
    g->fed = run->position + run->count;
    g->last_at = loop_now();
    if (g->first_at == 0)
        g->first_at = g->last_at;
    else
        g->turn.decoded_tokens++;
    XXH3_64bits_update(g->hash, logits[0], vocab * sizeof(float));
    TRY(sample(g, logits[0], e));
    if (g->turn.end == TURN_RUNS)
        pipeline_feed(g->pipeline, 0, g->tokens, g->fed, g->n_tokens, g->fed, true);
    return OK;
}

static bool turn_over(void *self)
{
    const struct generator *g = self;
    return g->turn.end != TURN_RUNS;
}

static void measure(struct generator *g, struct turn *turn)
{
    g->turn.prompt_s = g->first_at > 0 ? g->first_at - g->started : 0;
    g->turn.decode_s = g->last_at - g->first_at;
    *turn = g->turn;
}

enum status generator_run(struct generator *g, int64_t limit, struct turn *turn, struct error *e)
{
    g->turn = (struct turn){.prompt_tokens = g->n_tokens - g->fed};
    g->limit = limit;
    g->first_at = g->last_at = 0;
    g->started = loop_now();
    FAIL_IF(
        g->n_tokens == g->fed, e, ERR_LIMIT,
        "there is nothing to continue: the prompt is empty and the model knows no token to begin "
        "with; give a prompt");
    text_stream_init(&g->stream, g->setup.model->tokenizer, false);
    pipeline_feed(g->pipeline, 0, g->tokens, g->fed, g->n_tokens, g->n_tokens - 1, false);
    TRY(pipeline_pump(g->pipeline, e));
    TRY(cluster_wait(g->setup.cluster, turn_over, g, e));
    TRY(finish_text(g, e));
    measure(g, turn);
    return OK;
}

static bool nothing_flies(void *self)
{
    return pipeline_flying(self) == 0;
}

enum status generator_halt(struct generator *g, struct turn *turn, struct error *e)
{
    g->turn.end = TURN_HALTED;
    g->fed = pipeline_halt(g->pipeline, 0);
    TRY(cluster_wait(g->setup.cluster, nothing_flies, g->pipeline, e));
    TRY(finish_text(g, e));
    measure(g, turn);
    return OK;
}

void generator_reset(struct generator *g)
{
    g->n_tokens = g->fed = 0;
    sampler_forget(&g->sampler);
}

uint64_t generator_logits_hash(const struct generator *g)
{
    return XXH3_64bits_digest(g->hash);
}

uint32_t generator_tokens(const struct generator *g)
{
    return g->n_tokens;
}
