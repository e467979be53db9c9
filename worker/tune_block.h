/* One transformer block while a compressed model is tuned end to end: forward as inference
 * computes it, to the bit, and backward through what it computed, for one window of text at a
 * time (rows at positions 0, 1, ... of one sequence). What changes are the logarithms of row
 * multipliers and of norm weights (tune_product.h); biases and the norms of q and k heads stay.
 * Gradients of several windows add up in the order of the calls; results do not depend on the
 * number of threads. Knows nothing of losses, other blocks, messages and files. */
#ifndef SBIT_WORKER_TUNE_BLOCK_H
#define SBIT_WORKER_TUNE_BLOCK_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/model.h"
#include "worker/bind.h"

enum tune_matrix {
    TUNE_Q, TUNE_K, TUNE_V, TUNE_O, TUNE_GATE, TUNE_UP, TUNE_DOWN, TUNE_MATRICES
};

/* One float for each parameter of a block: parameters, gradients or whatever goes with them. */
struct tune_vector {
    float *row[TUNE_MATRICES]; /* [rows of the matrix] */
    float *attn_norm, *ffn_norm; /* [hidden] */
    float *latents[TUNE_MATRICES]; /* [tune_codes_size]; gradients only; NULL: not wanted */
};

/* How many parameters a block has. */
size_t tune_block_size(const struct model_config *c);
/* flat[tune_block_size] as the vectors of a block: rows of q, k, v, o, gate, up, down, then both
 * norms. No latents. */
struct tune_vector tune_block_vector(const struct model_config *c, float *flat);
/* Matrix i of a block. */
struct matrix *tune_block_matrix(struct block_weights *w, enum tune_matrix i);

struct tune_block; /* working memory, for any block of a model, one at a time */

/* For windows of up to context rows. rope_factors: as in struct weights; room: product_room over
 * the products of all blocks that will be computed. Memory: about context x (8 hidden + 8 heads
 * x head_dim + 6 kv_heads x head_dim + 5 ffn) floats, and 256 rows of the widest matrix. *out is
 * the caller's, tune_block_free. Errors: ERR_MEMORY. */
enum status tune_block_create(struct tune_block **out, const struct model_config *c,
                              const float *rope_factors, uint32_t context,
                              const size_t room[PRODUCT_MAX], int threads, struct error *e);
/* NULL is fine. */
void tune_block_free(struct tune_block *t);

/* x[rows][hidden] goes through the block, 1 <= rows <= context: the same bits as layer_forward
 * with a cache of type KV_F16. */
void tune_block_forward(struct tune_block *t, const struct block_weights *w, float *x,
                        uint32_t rows);

/* x[rows][hidden]: what went into the block; dx[rows][hidden]: the gradient of what came out
 * becomes that of what went in. Adds to gradient, for every parameter p, d loss / d log p, and in
 * the place of latents that of the weights (tune_codes_gradient); and to energy, unless NULL, for
 * every row of a matrix the sum over tokens of (d loss / d y)^2, y its output (norms: untouched).
 * The forward pass is computed again. */
void tune_block_backward(struct tune_block *t, const struct block_weights *w, const float *x,
                         uint32_t rows, float *dx, const struct tune_vector *gradient,
                         const struct tune_vector *energy);

#endif
