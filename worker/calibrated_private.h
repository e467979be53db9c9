/* What the parts of a calibrated compression share; included by worker/calibrated*.c only. */
#ifndef SBIT_WORKER_CALIBRATED_PRIVATE_H
#define SBIT_WORKER_CALIBRATED_PRIVATE_H

#include "common/recipe.h"
#include "common/weights.h"
#include "worker/calib.h"
#include "worker/calibrated.h"
#include "worker/curvature.h"
#include "worker/queue.h"
#include "worker/search_blocks.h"
#include "worker/search_code.h"
#include "worker/source.h"
#include "worker/student.h"

enum phase {
    PHASE_WAIT,    /* for units, or for nothing any more */
    PHASE_OPEN,    /* streams at their beginning */
    PHASE_BLOCK,   /* the next block */
    PHASE_OBSERVE, /* windows into moments */
    PHASE_GATHER,  /* rank 0: until all lanes are there; others: until the sum is */
    PHASE_PREPARE, /* curvature, correction and searches of a product */
    PHASE_SEARCH,  /* bands of this rank */
    PHASE_COLLECT, /* until all rows of the product are there */
    PHASE_ADVANCE, /* windows through the product */
    PHASE_WEIGH,   /* importances, after all blocks of the measuring pass */
    PHASE_TUNE     /* distillation, after all blocks */
};

struct shared_unit {
    bool there; /* a unit came for it */
    struct compress_unit unit;
    struct student_matrix student;
    struct band_loss *loss; /* [bands], rank 0: of all bands, else of this rank's */
    uint32_t losses;        /* bands that are there */
    double seconds;         /* that this rank spent on it */
};

/* What is known while the bands of one matrix are searched. */
struct matrix_search {
    struct code_search *code;    /* one of these, or neither: plain rounding */
    struct block_search *blocks;
    float *scratch;              /* [threads][scratch_floats] */
    size_t scratch_floats;
    int next, end;               /* bands of this rank */
};

/* A place in the nodes that are on their way to other ranks. */
struct moments_place {
    bool open; /* there is something to send */
    int node, to;
    bool cross;
    size_t row;
};

struct calibrated {
    struct loop *loop; /* borrowed */
    struct source *source;         /* borrowed, and its weights */
    const struct weights *weights;
    struct recipe recipe;
    struct row_form embeddings;
    int threads;
    bool spill;             /* activations rest on disk */
    uint64_t moment_floats; /* of a product's moments at most, in blocks; 0: they are full */
    uint32_t *windows; /* [windows] lengths, then the tokens; a copy of the payload */
    struct calib_text text;
    struct shared_unit *units; /* [block_count][CALIB_STEPS][PRODUCT_MAX] */
    bool have_units;

    enum phase phase;
    bool measuring;
    struct calib *calib;
    uint32_t block;
    enum calib_step step;
    struct moments *moments;     /* of this rank's lanes; once gathered, the sum of all */
    int asked, ended; /* rank 0: ranks that were told to send theirs, and that have; others: how often
                       * rank 0 has said so: send yours, that was the sum */
    struct moments_place place;  /* what is sent next */
    struct queue early;          /* messages of a step that has not begun here */
    struct curvature *curvature;
    bool scaled;                 /* it is in scaled columns */
    float *correction;           /* [n][n] of the target, NULL: none */
    float *column_scale;         /* [n], NULL: ones */
    int matrix;                  /* number in the step's product */
    struct matrix_search search;
    double since;                /* when the work on the matrix began */
    struct importance *importance; /* while measuring */
    struct tuning *tuning;       /* distillation, while it lasts */
    uint32_t *norm_units;        /* [2 blocks + 1] shared units: attention's and feed-forward's norm of
                                  * each block, the final one; NO_UNIT: not asked for */
};

#define NO_UNIT UINT32_MAX

/* Matrix i of a step of a block. */
struct shared_unit *calibrated_unit_at(const struct calibrated *c, uint32_t block, int step, int i);
/* The unit of a matrix of the step in work. */
struct shared_unit *calibrated_unit(const struct calibrated *c, int i);
/* Whether the correction for the compressed prefix is wanted, which takes cross moments. */
bool calibrated_cross(const struct calibrated *c);
/* How many matrices the step in work has. */
int calibrated_count(const struct calibrated *c);
/* The tensor of a matrix of the step in work. */
const struct tensor *calibrated_tensor(const struct calibrated *c, int i);

/* Messages that came before their time, to be looked at again. */
enum status calibrated_take_early(struct calibrated *c, struct error *e);

/* calibrated_source.c: what is asked of rank 0 where the source is not here. Each is given back as often as it was
 * wanted. */
/* Embeddings of this rank's tokens, and the final norm: for good. */
enum status calibrated_want_text(struct calibrated *c, struct error *e);
/* Norms and biases of a block. */
enum status calibrated_want_vectors(struct calibrated *c, uint32_t block, struct error *e);
void calibrated_give_back_vectors(struct calibrated *c, uint32_t block);
/* All of a block. */
enum status calibrated_want_block(struct calibrated *c, uint32_t block, struct error *e);
void calibrated_give_back_block(struct calibrated *c, uint32_t block);
/* Matrices of the step in work. */
enum status calibrated_want_step(struct calibrated *c, struct error *e);
void calibrated_give_back_step(struct calibrated *c);
/* What makes logits. */
enum status calibrated_want_head(struct calibrated *c, struct error *e);
void calibrated_give_back_head(struct calibrated *c);
/* Whether the phase needs what has not come yet. */
bool calibrated_lacks_source(const struct calibrated *c);

/* calibrated_moments.c: moments between ranks. Rank 0 asks one rank after the other for its nodes, so that no more of
 * them wait for their neighbours than with one rank, and a message is sent when the one before has gone. */
/* The shape of the moments of the step in work. */
struct diagonal calibrated_shape(const struct calibrated *c);
enum status calibrated_open_moments(struct calibrated *c, struct error *e);
/* All windows have been observed. */
enum status calibrated_share_moments(struct calibrated *c, struct error *e);
/* A MSG_MOMENTS of the step in work. */
enum status calibrated_take_moments(struct calibrated *c, const struct message *m, struct error *e);
/* A piece of the exchange, if there is any; sets *busy then. *done: the sum over all lanes is there and, at
 * rank 0, on its way to all. */
enum status calibrated_gathered(struct calibrated *c, bool *busy, bool *done, struct error *e);
/* The sum. */
enum status calibrated_node(struct calibrated *c, struct moments_node *out, struct error *e);

/* calibrated_columns.c: column scales and measured costs of the step in work. */
/* *scale [n] (the caller's, free) as docs/compression.md says, or NULL where columns are much alike. */
enum status calibrated_column_scale(struct calibrated *c, float **scale, struct error *e);
/* Takes curvature_scale by scale [k->n], powers of two, back to the last bit. Errors: ERR_MEMORY. */
enum status calibrated_unscale(struct curvature *k, const float *scale, struct error *e);
/* Tries this rank's share of the forms of the step's matrices, and sends a MSG_MEASURED of it for each matrix. */
enum status calibrated_measure(struct calibrated *c, struct error *e);

/* calibrated_search.c: the bands of one product. */
/* Curvature, correction and column scales from the sum. */
enum status calibrated_prepare(struct calibrated *c, struct error *e);
/* Bands of 64 rows of a unit whose student is open. */
int calibrated_bands(const struct shared_unit *u);
/* Opens the search of matrix c->matrix. */
enum status calibrated_open_search(struct calibrated *c, struct error *e);
/* Some bands of it; *done after the last. */
enum status calibrated_search(struct calibrated *c, bool *done, struct error *e);
void calibrated_close_search(struct calibrated *c);
/* Frees what calibrated_prepare made. */
void calibrated_forget(struct calibrated *c);
/* Rank 0: searched matrices of the step, and their results, to the coordinator; tuned: the same matrices once more, as
 * distillation has left them. */
enum status calibrated_deliver(struct calibrated *c, bool tuned, struct error *e);
/* The same for a vector of floats. */
enum status calibrated_deliver_vector(struct calibrated *c, uint32_t unit, const float *x, size_t n,
                                      struct error *e);

/* calibrated_importance.c: what errors in a matrix's outputs cost. */
/* Once the streams are open. */
enum status calibrated_open_importance(struct calibrated *c, struct error *e);
void calibrated_close_importance(struct calibrated *c);
/* Before block c->block: keeps what the backward pass needs of it. */
enum status calibrated_keep_inputs(struct calibrated *c, struct error *e);
/* A piece of the backward pass; *busy false when others are waited for. *done: rank 0 has sent a MSG_MEASURED
 * of importance for every matrix. */
enum status calibrated_weigh(struct calibrated *c, bool *busy, bool *done, struct error *e);
/* A MSG_GRADIENT with squares of gradients. */
enum status calibrated_take_energy(struct calibrated *c, const struct message *m, struct error *e);

/* calibrated_tune.c: distillation. */
/* After the last block, all students being there. */
enum status calibrated_open_tuning(struct calibrated *c, struct error *e);
void calibrated_close_tuning(struct calibrated *c);
/* A window, or at rank 0 the end of a step; *busy false when others are waited for. *done after the last
 * step. */
enum status calibrated_tune(struct calibrated *c, bool *busy, bool *done, struct error *e);
/* A MSG_STATE: where an earlier run has stopped. */
enum status calibrated_take_state(struct calibrated *c, const struct message *m, struct error *e);
/* Whether a MSG_GRADIENT is of the step in work. */
bool calibrated_tune_ready(const struct calibrated *c, const struct msg_gradient *g);
/* Takes such a one. */
enum status calibrated_take_gradient(struct calibrated *c, const struct message *m,
                                     struct error *e);
/* The step in work. */
uint32_t calibrated_tune_step(const struct calibrated *c);
/* Whether this rank has no window of the step left. */
bool calibrated_tune_waits(const struct calibrated *c);
/* Tuned norm number i, in the order of norm_units. */
const float *calibrated_tuned_norm(const struct calibrated *c, uint32_t i);

#endif
