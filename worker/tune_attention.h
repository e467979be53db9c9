/* The gradient of causal attention with grouped queries (Vaswani et al. 2017; Ainslie et al.
 * 2023) over one sequence whose rows stand at positions 0, 1, ...:
 *
 *     P = softmax(scale Q K'), masked; O = P V;  given dO:
 *     dV = P' dO,  dP = dO V',  dS = P (dP - rowsum(P dP)),  dQ = scale dS K,  dK = scale dS' Q
 *
 * Some queries at a time: P is never whole. Knows nothing of projections and rotations. */
#ifndef SBIT_WORKER_TUNE_ATTENTION_H
#define SBIT_WORKER_TUNE_ATTENTION_H

#include <stddef.h>

#include "common/model.h"

/* Floats of room that a thread needs for that many rows of context. */
size_t tune_attention_room(size_t context);

struct tune_attention {
    const float *q;            /* [rows][heads * head_dim] rotated */
    const float *k, *v;        /* [rows][kv_heads * head_dim] rotated; as the cache held them */
    const float *dout;         /* [rows][heads * head_dim] */
    float *dq;                 /* [rows][heads * head_dim] */
    float *dk, *dv;            /* [rows][kv_heads * head_dim] */
    float *head_dk, *head_dv;  /* [rows][heads * head_dim] room: each head's part */
    float *room;               /* [threads][tune_attention_room] */
    size_t room_size;
    int rows;
};

/* Fills dq, dk and dv; c: heads, kv_heads, head_dim, sliding_window. Called by all threads of a
 * parallel region, which share the heads; ends with a barrier. OpenBLAS as in tune_product.h. */
void tune_attention_backward(const struct model_config *c, const struct tune_attention *a);

#endif
