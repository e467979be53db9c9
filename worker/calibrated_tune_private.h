/* What the parts of distillation share; included by worker/calibrated_tune*.c only. */
#ifndef SBIT_WORKER_CALIBRATED_TUNE_PRIVATE_H
#define SBIT_WORKER_CALIBRATED_TUNE_PRIVATE_H

#include "worker/calibrated_private.h"
#include "worker/tune_adam.h"
#include "worker/tune_codes.h"
#include "worker/tune_product.h"
#include "worker/tune_state.h"
#include "worker/tuned_model.h"

struct tuned_matrix {
    struct shared_unit *unit;
    uint16_t *base; /* [tune_matrix_scales] as searched */
    size_t latents; /* where they begin among the values */
    float pace;     /* its rate as a share of the recipe's */
};

enum tune_phase {
    TUNE_LOAD,  /* until it is known where an earlier run has stopped */
    TUNE_SHARE, /* rank 0: tells the others */
    TUNE_STEPS,
    TUNE_KEEP   /* rank 0: hands the state to the coordinator */
};

struct tuning {
    struct model_config config; /* rows of q and k as the student's */
    struct binder binder;       /* norms and biases */
    struct block_weights *blocks;
    float **norm, *norm_base; /* [2 blocks + 1] views of hidden weights each; [2 blocks + 1][hidden] */
    float *output_norm;       /* [hidden] */
    struct tuned_matrix *matrix; /* [blocks][TUNE_MATRICES] */
    struct tuned_model model;
    struct tune_adam adam;
    size_t parameters; /* logarithms of multipliers */
    size_t size;       /* of a gradient: parameters, then latents where codes are chosen anew */
    float *value;      /* [size] at rank 0, else [parameters] */
    float *gradient;   /* [batch][size] at rank 0, else [1][size] */
    struct nearest *nearest[CODEBOOK_COUNT];
    uint8_t *news;     /* [news_bytes] rank 0 of several: the sum by parameters, then all codes */
    size_t news_bytes;
    double kl[MOMENT_LANES];
    bool there[MOMENT_LANES]; /* rank 0: gradients of the step's lanes */
    uint32_t step, steps, steps_per_pass;
    int next; /* place in the step's batch that this rank looks at next */

    enum tune_phase phase;
    struct tune_state state; /* head, parameters and their moments, codes; at rank 0 then latents and theirs */
    uint64_t common_bytes;   /* of it at all ranks */
    uint32_t head[2];        /* step, and Adam's, while it travels */
    uint64_t at;             /* bytes of it that have come or gone */
    int to;                  /* rank that it goes to */
    bool resumed;            /* there was one */
    double since, kept, cost; /* when it began to go, when the last had gone, how long that took */
};

/* New parameters into norms and scales. */
void calibrated_apply_tuned(struct calibrated *c);

/* calibrated_tune_state.c: what another run needs to go on, and what an earlier one has left. */
/* Asks for it; once the parameters are laid out and allocated. */
enum status calibrated_open_state(struct calibrated *c, struct error *e);
/* Rank 0: a piece for another rank; *busy false when the ones before have not gone yet. */
enum status calibrated_share_state(struct calibrated *c, bool *busy, struct error *e);
/* Rank 0, after a step: begins to keep the state when it is time to. */
void calibrated_end_step(struct calibrated *c);
/* Rank 0: a piece for the coordinator. */
enum status calibrated_keep_state(struct calibrated *c, struct error *e);

#endif
