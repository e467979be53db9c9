/* Weights as the kernels want them: views of the mapped file for matrices, floats for vectors.
 * Checks shapes, hashes and sparse corrections, so that the forward pass need not. Knows nothing
 * of messages. */
#ifndef SBIT_WORKER_BIND_H
#define SBIT_WORKER_BIND_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/weights.h"
#include "worker/product.h"

struct block_weights {
    struct product qkv, o, gate_up, down; /* q, k, v: heads x head_dim (kv_heads x head_dim) rows */
    float *attn_norm, *ffn_norm;          /* [hidden] */
    float *q_bias, *k_bias, *v_bias;      /* [rows of q, k, v], or NULL */
    float *q_norm, *k_norm;               /* [head_dim], or NULL */
};

struct head_weights {
    struct matrix embedding; /* vocab x hidden */
    float *output_norm;      /* [hidden] */
    struct product output;   /* vocab x hidden; the embedding itself when tied */
};

/* Where the weights come from and whether to check their hashes. Owns what bind_* allocate. */
struct binder {
    const struct weights *weights; /* borrowed; matrices point into it */
    bool verify;
    /* Called now and then while bytes are verified, so that others see a sign of life; NULL: not. */
    weights_alive_fn *alive;
    void *alive_self;
    void **owned;
    size_t n_owned, room;
};

/* Fills *out with block `block` of the model. Reads every byte of it when verify is set; the
 * caller calls this block by block between looking for messages. Errors: ERR_FORMAT naming the
 * tensor for a missing one, a wrong shape, damaged bytes or a bad correction; ERR_MEMORY. */
enum status bind_block(struct binder *b, uint32_t block, struct block_weights *out,
                       struct error *e);
/* The same for embeddings, final norm and head. ERR_UNSUPPORTED for embeddings of a form whose
 * rows no kernel can read. */
enum status bind_head(struct binder *b, struct head_weights *out, struct error *e);
/* Takes embeddings that are not the head's as well out of the resident set: single rows of them are read,
 * but checking their hash has read all, and each row brings 64 KiB and more along. */
void bind_drop_embeddings(const struct binder *b);
/* Frees all that was bound. A zeroed *b is fine. */
void bind_free(struct binder *b);

#endif
