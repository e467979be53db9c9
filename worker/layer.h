/* One transformer block of the Llama family (Vaswani et al. 2017; Touvron et al. 2023), for the
 * rows of one micro-batch. Knows nothing of messages, other blocks or the head. */
#ifndef SBIT_WORKER_LAYER_H
#define SBIT_WORKER_LAYER_H

#include "common/model.h"
#include "worker/bind.h"
#include "worker/kvcache.h"
#include "worker/scratch.h"

struct layer {
    const struct model_config *config;
    const struct block_weights *weights;
    const struct kvcache *cache;
    uint32_t cache_block; /* this block's place in the cache */
};

/* s->x[rows][hidden] goes through the block:
 *   x += Wo Attention(RoPE(q), RoPE(K), V),  q, k, v = W RMSNorm(x) (+ bias) (RMS norm of each head)
 *   x += Wdown (silu(Wgate n) * Wup n),      n = RMSNorm(x)
 * Keys and values of all rows enter the cache first; each row then attends to its sequence's
 * positions up to its own (the last sliding_window ones where the model says so). s->cosine and
 * s->sine hold each row's angles. A row's result depends neither on the other rows nor on
 * s->threads. One parallel region of s->threads threads (of one, when the work is tiny), for which
 * rows of s beyond s->rows serve as room; allocates nothing. */
void layer_forward(const struct layer *l, struct scratch *s);

/* The steps of a block, one for each product, in order. */
enum layer_step {
    LAYER_ATTEND, /* s->attended from s->x; keys and values enter the cache */
    LAYER_OUT,    /* s->x += Wo s->attended */
    LAYER_GATE,   /* s->gate = silu(Wgate n) * Wup n from s->x */
    LAYER_DOWN,   /* s->x += Wdown s->gate */
    LAYER_STEPS
};

/* One step alone, for whoever looks at the inputs of each product: the steps in order are
 * layer_forward, to the bit. What a step reads stands in s; other arrays of s are room. */
void layer_step(const struct layer *l, enum layer_step step, struct scratch *s);

/* RMSNorm of n_rows rows x[n_rows][hidden] into s->normed and their products with p into y[0], by
 * one parallel region; for the head. n_rows is at most s->batch. */
void layer_norm_product(const struct model_config *c, const float *norm_weight,
                        const struct product *p, const float *x, int n_rows, struct scratch *s,
                        float *y);

#endif
