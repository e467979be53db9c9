/* The order of a window's way forward and back. Owns the activations between blocks; must never know how a
 * block computes. */
#include "worker/tuned_model.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/tune_codes.h"

static size_t stage_floats(const struct tuned_model *m)
{
    return (size_t)m->context * m->config->hidden;
}

static enum status allocate(struct tuned_model *m, struct error *e)
{
    size_t floats = stage_floats(m);
    TRY(mem_array(&m->x, (size_t)m->config->block_count + 1, floats * sizeof *m->x,
                  "activations while tuning", e));
    return mem_array(&m->dx, floats, sizeof *m->dx, "gradients while tuning", e);
}

enum status tuned_model_open(struct tuned_model *m, const struct model_config *config,
                             struct block_weights *blocks, const float *rope_factors,
                             const struct tune_output *teacher, const struct tune_output *student,
                             uint32_t context, bool recode, int threads, struct error *e)
{
    size_t room[PRODUCT_MAX] = {0};
    *m = (struct tuned_model){
        .config = config, .blocks = blocks, .context = context, .recode = recode};
    for (uint32_t b = 0; b < config->block_count; b++) {
        product_room(&blocks[b].qkv, room);
        product_room(&blocks[b].o, room);
        product_room(&blocks[b].gate_up, room);
        product_room(&blocks[b].down, room);
    }
    TRY(allocate(m, e));
    TRY(tune_block_create(&m->block, config, rope_factors, context, room, threads, e));
    return tune_head_create(&m->head, config, teacher, student, threads, e);
}

void tuned_model_free(struct tuned_model *m)
{
    tune_block_free(m->block);
    tune_head_free(m->head);
    free(m->x);
    free(m->dx);
    memset(m, 0, sizeof *m);
}

size_t tuned_model_size(const struct model_config *config)
{
    return tune_block_size(config) * config->block_count + config->hidden;
}

size_t tuned_model_latents(struct block_weights *blocks, uint32_t block_count)
{
    size_t n = 0;
    for (uint32_t b = 0; b < block_count; b++)
        for (int k = 0; k < TUNE_MATRICES; k++)
            n += tune_codes_size(tune_block_matrix(&blocks[b], (enum tune_matrix)k));
    return n;
}

/* The gradients of block b in those of the whole model. */
static struct tune_vector gradient_of(const struct tuned_model *m, float *gradient, uint32_t b)
{
    struct tune_vector g = tune_block_vector(m->config, gradient + b * tune_block_size(m->config));
    float *at = gradient + tuned_model_size(m->config) + tuned_model_latents(m->blocks, b);
    for (int k = 0; m->recode && k < TUNE_MATRICES; k++) {
        g.latents[k] = at;
        at += tune_codes_size(tune_block_matrix(&m->blocks[b], (enum tune_matrix)k));
    }
    return g;
}

float *tuned_model_input(struct tuned_model *m)
{
    return m->x;
}

enum status tuned_model_backward(struct tuned_model *m, const float *teacher_x, uint32_t rows,
                                 double weight, double *kl, float *gradient,
                                 enum status (*alive)(void *self, struct error *e), void *self,
                                 struct error *e)
{
    uint32_t blocks = m->config->block_count;
    size_t stage = stage_floats(m), used = (size_t)rows * m->config->hidden;
    size_t size = tune_block_size(m->config);
    for (uint32_t b = 0; b < blocks; b++) {
        float *to = m->x + (b + 1) * stage;
        memcpy(to, m->x + b * stage, used * sizeof *to);
        tune_block_forward(m->block, &m->blocks[b], to, rows);
        TRY(alive ? alive(self, e) : OK);
    }
    FAIL_IF(!tune_head_backward(m->head, teacher_x, m->x + blocks * stage, rows, weight, kl, m->dx,
                                gradient + blocks * size),
            e, ERR_LIMIT,
            "the compressed model runs out of range while it is tuned: use more bits, or a lower "
            "rate in --recipe");
    for (uint32_t b = blocks; b-- > 0;) {
        struct tune_vector g = gradient_of(m, gradient, b);
        tune_block_backward(m->block, &m->blocks[b], m->x + b * stage, rows, m->dx, &g, NULL);
        TRY(alive ? alive(self, e) : OK);
    }
    return OK;
}
