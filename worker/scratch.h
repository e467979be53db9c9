/* The working memory of a slice: the rows of one micro-batch on their way through its blocks.
 * Allocated once; knows nothing of weights. */
#ifndef SBIT_WORKER_SCRATCH_H
#define SBIT_WORKER_SCRATCH_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/model.h"
#include "worker/product.h"
#include "worker/rows.h"

struct scratch {
    int batch, threads;          /* sizes */
    size_t positions;            /* most positions that a row attends to */
    int rows;                    /* in use, at most batch */
    struct row *row;             /* [batch] where each stands */
    float *x;                    /* [batch][hidden] the residual stream */
    float *normed;               /* [batch][hidden] */
    float *delta;                /* [batch][hidden] what a half block adds to x */
    float *q, *attended;         /* [batch][heads * head_dim] */
    float *k, *v;                /* [batch][kv_heads * head_dim] */
    float *gate, *up;            /* [batch][ffn] */
    float *cosine, *sine;        /* [batch][rope_dim / 2] */
    float *scores;               /* [threads][heads / kv_heads][positions] */
    void *prepared[PRODUCT_MAX]; /* [batch][room[slot]] bytes, 64-byte aligned */
};

/* Allocates for batch rows. context: positions per sequence; room: bytes of a prepared row per
 * slot (product_room over all matrices). Also usable after a failure: scratch_free. Errors:
 * ERR_MEMORY. */
enum status scratch_create(struct scratch *s, const struct model_config *c, uint32_t batch,
                           uint32_t threads, uint32_t context, const size_t room[PRODUCT_MAX],
                           struct error *e);
/* A zeroed *s is fine. */
void scratch_free(struct scratch *s);

#endif
