/* The models of sbit eval, the one that is measured and the one that it is compared with, and the
 * pipeline through both. Knows nothing of what is scored. */
#ifndef SBIT_COORDINATOR_EVAL_MODELS_H
#define SBIT_COORDINATOR_EVAL_MODELS_H

#include "coordinator/open_model.h"
#include "coordinator/pipeline.h"

struct eval_models {
    struct cluster *cluster; /* borrowed */
    struct open_model model;
    struct weights *reference; /* NULL without --against */
    uint32_t batch;            /* most tokens in a micro-batch */
    struct pipeline *pipeline; /* NULL before eval_models_start */
    double shown_at;           /* seconds (loop_now): progress */
};

/* Opens the files that the cluster's options name; usual_context as in open_model. Refuses a
 * reference of another vocabulary. *m is zeroed first; eval_models_close, also after an error. */
enum status eval_models_open(struct eval_models *m, struct cluster *c, uint32_t usual_context,
                             struct error *e);
void eval_models_close(struct eval_models *m);

/* How many of n sequences of so many tokens should be on their way at once, so that all stages are
 * busy. At least 1. */
uint32_t eval_models_slots(const struct eval_models *m, uint64_t tokens, uint64_t n);
/* Loads the models on all ranks, with room for slots sequences of context positions, and opens
 * m->pipeline: job 0 is the model, job 1 the reference. */
enum status eval_models_start(struct eval_models *m, uint32_t context, uint32_t slots,
                              pipeline_logits_fn *logits, void *self, struct error *e);
/* "window 3 of 7" on a terminal, a few times a second and at the end. */
void eval_models_progress(struct eval_models *m, const char *what, uint64_t done, uint64_t total);

#endif
