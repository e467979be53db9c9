/* One model or two that get the same tokens. */
#include "coordinator/eval_models.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOGITS_BYTES                                                                               \
    (16u << 20) /* of one micro-batch, so that large vocabularies keep memory small */

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
static enum status check_vocabulary(const struct eval_models *m, struct error *e)
{
    const struct options *o = m->cluster->options;
    const struct tokenizer *mine = m->model.tokenizer;
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

static enum status open_reference(struct eval_models *m, struct error *e)
{
    const struct options *o = m->cluster->options;
    if (!o->against)
        return OK;
    TRY(weights_open(&m->reference, o->against, e));
    uint32_t mine = m->model.weights->config.vocab, its = m->reference->config.vocab;
    FAIL_IF(mine != its, e, ERR_UNSUPPORTED,
            "%s has %u tokens and %s has %u: only models with the same vocabulary can be compared",
            o->model, mine, o->against, its);
    return check_vocabulary(m, e);
}

/* As large as asked for and as the logits allow. */
static uint32_t choose_batch(const struct eval_models *m)
{
    uint32_t asked = m->cluster->options->batch;
    uint32_t rows = LOGITS_BYTES / sizeof(float) / m->model.weights->config.vocab;
    return asked < rows ? asked : rows > 0 ? rows : 1;
}

enum status eval_models_open(struct eval_models *m, struct cluster *c, uint32_t usual_context,
                             struct error *e)
{
    const struct options *o = c->options;
    *m = (struct eval_models){.cluster = c};
    TRY(open_model(&m->model, o->model, o->context, usual_context, e));
    FAIL_IF(m->model.context < 2, e, ERR_LIMIT, "--ctx must be at least 2 to score anything");
    m->batch = choose_batch(m);
    return open_reference(m, e);
}

void eval_models_close(struct eval_models *m)
{
    pipeline_close(m->pipeline);
    open_model_close(&m->model);
    weights_close(m->reference);
    *m = (struct eval_models){0};
}

uint32_t eval_models_slots(const struct eval_models *m, uint64_t tokens, uint64_t n)
{
    uint64_t flying = (uint64_t)m->cluster->size + 1;
    uint64_t slots = flying * m->batch / (tokens > 0 ? tokens : 1) + 2;
    return (uint32_t)(slots < n ? slots : n > 0 ? n : 1);
}

static enum status assign(struct eval_models *m, uint32_t job, const struct weights *w,
                          struct pipeline_setup *p, uint32_t context, struct error *e)
{
    TRY(cluster_assign(m->cluster, job, w, context, p->sequences, p->batch, e));
    if (cluster_stages(m->cluster) > p->stages)
        p->stages = cluster_stages(m->cluster);
    return OK;
}

enum status eval_models_start(struct eval_models *m, uint32_t context, uint32_t slots,
                              pipeline_logits_fn *logits, void *self, struct error *e)
{
    struct pipeline_setup p = {.cluster = m->cluster,
                               .jobs = m->reference ? 2 : 1,
                               .sequences = slots,
                               .stages = 1,
                               .batch = m->batch,
                               .vocab = m->model.weights->config.vocab,
                               .logits = logits,
                               .self = self};
    TRY(assign(m, 0, m->model.weights, &p, context, e));
    if (m->reference)
        TRY(assign(m, 1, m->reference, &p, context, e));
    return pipeline_open(&m->pipeline, &p, e);
}

void eval_models_progress(struct eval_models *m, const char *what, uint64_t done, uint64_t total)
{
    double now = loop_now();
    if (!isatty(STDERR_FILENO) || (now - m->shown_at < 0.2 && done < total))
        return;
    m->shown_at = now;
    fprintf(stderr, "\r%s %llu of %llu%s", what, (unsigned long long)done,
            (unsigned long long)total, done == total ? "\n" : "");
    fflush(stderr);
}
