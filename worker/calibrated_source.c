/* Which tensors of the source a phase needs, for ranks that have to send for them. The matrices of
 * a product are asked for when its inputs begin to be observed, so that they are on their way
 * meanwhile, and given back when all windows have passed it: a rank has no more of them than those
 * of one product. Must never know how they come. */
#include "worker/calibrated_private.h"

enum status calibrated_want_text(struct calibrated *c, struct error *e)
{
    const struct transport *t = c->loop->transport;
    uint32_t first = moments_rank_window(t->rank, t->size, c->text.windows);
    uint32_t end = moments_rank_window(t->rank + 1, t->size, c->text.windows);
    const uint32_t *own = c->text.tokens;
    size_t n = 0;
    for (uint32_t w = 0; w < first; w++)
        own += c->text.length[w];
    for (uint32_t w = first; w < end; w++)
        n += c->text.length[w];
    TRY(source_want(c->source, KIND_OUTPUT_NORM, 0, e));
    return source_want_tokens(c->source, own, n, e);
}

static enum status want_kinds(struct calibrated *c, bool matrix, uint32_t block, struct error *e)
{
    for (int k = 0; k < KIND_COUNT; k++) {
        const struct tensor_rule *rule = model_rule((enum tensor_kind)k);
        if (rule->per_block && rule->matrix == matrix)
            TRY(source_want(c->source, (enum tensor_kind)k, block, e));
    }
    return OK;
}

static void give_back_kinds(struct calibrated *c, bool matrix, uint32_t block)
{
    for (int k = 0; k < KIND_COUNT; k++) {
        const struct tensor_rule *rule = model_rule((enum tensor_kind)k);
        if (rule->per_block && rule->matrix == matrix)
            source_give_back(c->source, (enum tensor_kind)k, block);
    }
}

enum status calibrated_want_vectors(struct calibrated *c, uint32_t block, struct error *e)
{
    return want_kinds(c, false, block, e);
}

void calibrated_give_back_vectors(struct calibrated *c, uint32_t block)
{
    give_back_kinds(c, false, block);
}

enum status calibrated_want_block(struct calibrated *c, uint32_t block, struct error *e)
{
    TRY(want_kinds(c, true, block, e));
    return want_kinds(c, false, block, e);
}

void calibrated_give_back_block(struct calibrated *c, uint32_t block)
{
    give_back_kinds(c, true, block);
    give_back_kinds(c, false, block);
}

enum status calibrated_want_step(struct calibrated *c, struct error *e)
{
    enum tensor_kind kinds[PRODUCT_MAX];
    for (int i = 0, n = calib_kinds(c->step, kinds); i < n; i++)
        TRY(source_want(c->source, kinds[i], c->block, e));
    return OK;
}

void calibrated_give_back_step(struct calibrated *c)
{
    enum tensor_kind kinds[PRODUCT_MAX];
    for (int i = 0, n = calib_kinds(c->step, kinds); i < n; i++)
        source_give_back(c->source, kinds[i], c->block);
}

static enum tensor_kind head_kind(const struct calibrated *c)
{
    return c->weights->config.tied ? KIND_EMBEDDING : KIND_OUTPUT;
}

enum status calibrated_want_head(struct calibrated *c, struct error *e)
{
    return source_want(c->source, head_kind(c), 0, e);
}

void calibrated_give_back_head(struct calibrated *c)
{
    source_give_back(c->source, head_kind(c), 0);
}

bool calibrated_lacks_source(const struct calibrated *c)
{
    bool needed = c->phase != PHASE_WAIT && c->phase != PHASE_OBSERVE && c->phase != PHASE_GATHER &&
                  c->phase != PHASE_COLLECT;
    return needed && !source_ready(c->source);
}
