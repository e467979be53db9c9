/* A whole compressed model tuned in one process: what the parts of tuning are tested and
 * measured on. */
#ifndef SBIT_TESTS_TUNE_MODEL_H
#define SBIT_TESTS_TUNE_MODEL_H

#include "common/weights.h"
#include "worker/bind.h"
#include "worker/tune_adam.h"
#include "worker/tune_block.h"
#include "worker/tune_head.h"

struct tune_text {
    uint32_t *tokens; /* [windows][context] */
    uint32_t windows, context;
};

struct tune_side { /* the original, or what is tuned */
    struct weights *weights;
    struct binder binder;
    struct block_weights *blocks;
    struct head_weights head;
    struct tune_output output;
    struct tune_block *work;
};

struct tune_model {
    struct tune_side teacher, student;
    struct tune_head *head;
    uint32_t context;
    size_t n, n_block;         /* parameters: of each block, then the final norm */
    float *log, *gradient;     /* [n] */
    uint16_t **base;           /* [blocks * TUNE_MATRICES] scales */
    void **stored;             /* [blocks * TUNE_MATRICES] writable bytes that hold them */
    uint8_t **codes;           /* [blocks * TUNE_MATRICES] of the matrices encoded here */
    float *norm_base;          /* [2 blocks + 1][hidden] */
    float *stream;             /* [blocks + 1][context][hidden] of the student */
    float *dx;                 /* [context][hidden] */
    float *teacher_x;          /* [windows][context][hidden] after tune_model_teach */
    struct tune_adam adam;
};

/* The first windows of the file at path, in the tokens of the model at model_path; fewer if it
 * ends. */
enum status tune_text_read(struct tune_text *out, const char *model_path, const char *path,
                           uint32_t context, uint32_t windows, struct error *e);
/* student: a compressed file; NULL: every matrix of the blocks as a byte code of d weights a
 * byte. */
enum status tune_model_open(struct tune_model *m, const char *teacher, const char *student,
                            uint32_t d, uint32_t context, int threads, struct error *e);
void tune_model_close(struct tune_model *m);
/* m->teacher_x of all windows. */
enum status tune_model_teach(struct tune_model *m, const struct tune_text *text, struct error *e);
/* Mean KL over the tokens of some windows, in text's order; NaN when not finite. */
double tune_model_kl(struct tune_model *m, const struct tune_text *text, uint32_t first,
                     uint32_t count);
/* One step over those windows. Returns the mean KL before it. */
double tune_model_step(struct tune_model *m, const struct tune_text *text, const uint32_t *window,
                       uint32_t count, float rate, float norm_rate);

#endif
