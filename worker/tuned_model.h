/* A whole model and one window of text: forward, loss and backward, block by block, for distillation and for
 * measuring what errors cost. Knows nothing of optimisers, ranks and files. */
#ifndef SBIT_WORKER_TUNED_MODEL_H
#define SBIT_WORKER_TUNED_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "worker/tune_block.h"
#include "worker/tune_head.h"

struct tuned_model {
    const struct model_config *config;  /* borrowed; rows of q and k stand as it says */
    struct block_weights *blocks;       /* [config->block_count], borrowed */
    uint32_t context;
    bool recode;                        /* latents have gradients too */
    struct tune_block *block;
    struct tune_head *head;
    float *x;  /* [block_count + 1][context][hidden] what goes into each block, and comes out */
    float *dx; /* [context][hidden] */
};

/* For windows of up to context rows. blocks may change their weights between calls, not their forms. recode:
 * tuned_model_backward gives gradients of latents too. *m is released by tuned_model_free, also after a failure.
 * Errors: ERR_MEMORY. */
enum status tuned_model_open(struct tuned_model *m, const struct model_config *config,
                             struct block_weights *blocks, const float *rope_factors,
                             const struct tune_output *teacher, const struct tune_output *student,
                             uint32_t context, bool recode, int threads, struct error *e);
/* A zeroed *m is fine. */
void tuned_model_free(struct tuned_model *m);

/* Parameters: those of all blocks in order (tune_block_size each), then the final norm's [hidden]. */
size_t tuned_model_size(const struct model_config *config);

/* Floats of the latents of all matrices of the blocks (tune_codes_size), matrix after matrix. */
size_t tuned_model_latents(struct block_weights *blocks, uint32_t block_count);

/* What the first block reads: to be filled with rows embeddings before tuned_model_backward. */
float *tuned_model_input(struct tuned_model *m);

/* The window in tuned_model_input goes through the model; teacher_x[rows][hidden] is what the original has
 * after its last block. *kl += the sum of the divergences; gradient[tuned_model_size] += that of weight times
 * this sum by the logarithms of the parameters, and with recode the tuned_model_latents floats after it += that by
 * the weights themselves (tune_codes_gradient). alive, which may be NULL, is called between blocks. Errors:
 * ERR_LIMIT when a logit is not finite. */
enum status tuned_model_backward(struct tuned_model *m, const float *teacher_x, uint32_t rows,
                                 double weight, double *kl, float *gradient,
                                 enum status (*alive)(void *self, struct error *e), void *self,
                                 struct error *e);

#endif
