/* A small Llama for experiments with the activations of its products: its weights as floats and as byte
 * codes, and a plain forward pass that shows every input of a product before it is used. For
 * bench_scales.c. Knows nothing of quantised activations. */
#ifndef SBIT_TESTS_BENCH_SCALES_MODEL_H
#define SBIT_TESTS_BENCH_SCALES_MODEL_H

#include <stdbool.h>

#include "common/codebook.h"
#include "common/weights.h"
#include "kernels/kernels.h"
#include "worker/quantise.h"

#define POSITIONS     128 /* of a window of text */
#define MATRICES      7   /* of a block: q k v, o, gate up, down */
#define LAB_MAX_OWNED 4096

enum input { IN_QKV, IN_O, IN_GATE_UP, IN_DOWN, INPUTS };
extern const int lab_first_matrix[INPUTS]; /* the first matrix that reads it */

enum set { ORIGINAL, CODED, REPLACED, SETS }; /* F32 matrices; REPLACED is the caller's to fill */

struct block {
    float *norm[2];
    struct matrix m[SETS][MATRICES];
    struct matrix code[MATRICES]; /* what CODED was made from */
};

struct lab {
    struct weights *weights;
    const struct model_config *c;
    const struct codebook *book;
    struct block *block;
    struct matrix embedding, head;
    float *output_norm;
    bool interleaved;                                             /* RoPE of the rows as loaded */
    float *x, *normed, *delta, *q, *k, *v, *attended, *gate, *up; /* [POSITIONS][...] */
    float *logits;                                                /* [POSITIONS][vocab] */
    void *prepared;
    void *owned[LAB_MAX_OWNED];
    int n_owned;
};

/* Loads the model at path and codes its matrices with d weights a byte. *l is zeroed before and released
 * by lab_close, also after an error: those of weights_open, ERR_UNSUPPORTED for what is not a Llama without
 * biases, ERR_USAGE for a d without codebook. */
enum status lab_open(struct lab *l, const char *path, uint32_t d, struct error *e);
void lab_close(struct lab *l);

/* *out = a zeroed array that lives as long as the lab. Errors: ERR_MEMORY, ERR_LIMIT. */
enum status lab_array(struct lab *l, void *out, size_t count, size_t size, struct error *e);

/* *code = the byte code of the F32 matrix w; *coded = that as floats. stats as for code_encoder_create. */
enum status lab_encode(struct lab *l, const struct matrix *w, const struct input_stats *stats,
                       struct matrix *code, struct matrix *coded, struct error *e);

/* y[tokens][rows] = m x[tokens][cols] by the kernels; tokens <= POSITIONS. */
void lab_multiply(struct lab *l, const struct matrix *m, const float *x, int tokens, float *y);

/* Called with x[POSITIONS][cols], the input of products of block b; may change it. */
typedef void lab_input_fn(void *self, int b, enum input in, float *x);

/* l->logits = log probabilities after each token of ids[POSITIONS]. */
void lab_forward(struct lab *l, enum set set, const uint32_t *ids, lab_input_fn *input, void *self);

#endif
