/* What tests of the calibration streams work with: small models, texts, inference to compare with, and
 * the original's matrices as a student. Failures fail the test. */
#ifndef SBIT_TESTS_CALIB_FIXTURE_H
#define SBIT_TESTS_CALIB_FIXTURE_H

#include "worker/bind.h"
#include "worker/calib.h"
#include "worker/kvcache.h"
#include "worker/rope.h"
#include "worker/scratch.h"

#define FIXTURE_SEED 20260611u

enum { WINDOWS_MAX = 20, BLOCKS_MAX = 8, FAMILIES = 4 };

/* A model of two blocks for random_model_write. */
extern const struct model_config fixture_plain;
/* The same with what makes family number [0, FAMILIES) different: nothing, a sliding window, biases, norms
 * of q and k. */
struct model_config fixture_family(int number);

struct weights *fixture_model(const char *path);
/* n zeros, free(). */
float *fixture_floats(size_t n);

/* A text of windows of these lengths, 0 ends them. */
struct fixture_text {
    uint32_t length[WINDOWS_MAX], tokens[1024];
    struct calib_text text;
};

void fixture_text(struct fixture_text *t, const uint32_t *lengths, uint32_t vocab);

/* Inference as worker/slice.c does it, for one sequence. */
struct inference {
    struct weights *weights;
    struct binder binder;
    struct block_weights blocks[BLOCKS_MAX];
    struct head_weights head;
    struct kvcache cache;
    struct rope rope;
    struct scratch scratch;
};

/* batch: rows that go through the blocks together. */
void inference_open(struct inference *m, const char *path, uint32_t context, uint32_t batch);
void inference_close(struct inference *m);
/* Plans the products as they stand in m->blocks and makes room for them. */
void inference_plan(struct inference *m, uint32_t context, uint32_t batch);
/* The rows of the working memory are positions first and later. */
void inference_place(struct inference *m, uint32_t first, uint32_t rows);
/* x[n][hidden] (free) after the last block. */
float *inference_states(struct inference *m, const uint32_t *tokens, uint32_t n);

struct product *fixture_product(struct block_weights *w, int step);

/* The original's matrices as floats in GGUF order, for a student; kept until the next block. */
struct originals {
    float *data[CALIB_STEPS][PRODUCT_MAX];
};

/* c's student becomes the original in this block. o was zeroed, or set for another block. */
void originals_set(struct originals *o, struct calib *c, const struct weights *w, uint32_t block);
void originals_free(struct originals *o);

#endif
