/* Which form every tensor of a model takes: a pure function from shapes, method and bits, tested
 * as text. Knows no files and no weights. */
#ifndef SBIT_COORDINATOR_COMPRESS_PLAN_H
#define SBIT_COORDINATOR_COMPRESS_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/codebook.h"
#include "common/error.h"
#include "common/forms.h"
#include "common/model.h"

struct plan_unit {
    /* in */
    char name[64]; /* source tensor, "blk.3.ffn_up.weight" */
    enum tensor_kind kind;
    uint32_t block; /* UINT32_MAX outside the blocks */
    uint64_t rows, cols;
    bool vector;               /* norm, bias: stays F32 */
    bool measured, columns;    /* a measuring pass knows the next; column scales pay */
    double loss[UNIT_CHOICES]; /* in the order of form_choice: what such a form costs the
                                * likelihood of the text, per weight */
    /* out */
    enum unit_method method;
    uint32_t d; /* UNIT_CODE */
    struct form form;
    char why[128]; /* not "": the method asked for does not fit, and what is taken instead */
};

struct plan_settings {
    const char *method;     /* as --method: for the matrices of blocks */
    const char *embeddings; /* "q8_0", "q4_0", "f16", "f32", "code4", "code2.67": for
                             * embeddings and head */
    double bits;            /* code, standard types among them: all stored bits of the matrices over
                             * their weights, at most */
    double outliers;        /* sign: share of weights restored */
};

struct plan_totals {
    uint64_t matrix_bytes, matrix_weights; /* matrices of blocks */
    bool over_budget; /* code: even the longest groups everywhere exceed the bits asked for */
    bool none_fits;   /* no matrix of the blocks can have the type asked for */
};

/* A matrix inside a block: what the method and the bits are about. */
bool plan_is_matrix(const struct plan_unit *u);
/* Fills the out members of units[n] and *totals. Code: every matrix starts with codes of the longest
 * groups, then the step to a better form with the greatest gain per bit is taken again and again
 * while the budget lasts: codes of shorter groups, Q4_0, Q8_0, and F16 where rows are no multiple of
 * their block or bits are more than 8.5; see compress_plan.c for the gain. Column scales are added
 * where they pay and count. Errors: ERR_USAGE for unknown words and bits outside 0.5 to 16. */
enum status plan_compression(struct plan_unit *units, uint32_t n, const struct plan_settings *s,
                             struct plan_totals *totals, struct error *e);

/* Method code: the matrices of a block have no more bytes together than the sum of these, so that
 * memory can be set aside before they have been measured: 4 bits per weight or twice those asked
 * for, but no more than the best form takes; or what codes of the longest groups take, if more. */
uint64_t plan_most_bytes(const struct plan_unit *u, double bits);

#endif
