/* Which steps a calibrated compression takes and how far each goes (docs/compression.md): what
 * --recipe says, parsed. Knows nothing of matrices. */
#ifndef SBIT_COMMON_RECIPE_H
#define SBIT_COMMON_RECIPE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

enum { RECIPE_TEXT_MAX = 256 };

struct recipe {
    double qep;      /* fraction of the correction for the compressed prefix; 0: none */
    bool feedback;   /* errors of a group are carried on to later columns (GPTQ) */
    uint32_t rounds; /* assignments with scales fitted between them, at least 1 */
    uint32_t descent; /* passes of coordinate descent over the codes with the full moments */
    uint32_t joint;  /* passes that choose the codes of a block of columns together, after the first of
                      * those; byte codes alone */
    bool columns;    /* column scales where columns differ widely */
    bool measure;    /* bits per matrix by measured gain; else by the table of kinds */
    double shrink;   /* H <- (1 - shrink) H + shrink diag(H) */
    double damp;     /* H <- H + damp level(H) I (worker/curvature.h) */
    uint32_t distill; /* passes over the calibration text that tune scales, norms and codes */
    double rate;     /* learning rate of the logarithms of scales and norms while distilling */
    double recode;   /* how far the latent weights go by which byte codes are chosen anew: their rate, in
                      * units of a weight's usual distance from its codeword, times the root of the number
                      * of steps; 0: codes stay */
    uint32_t batch;  /* windows of a step of distilling: 1, 2, 4, 8 or 16 */
};

/* The recipe that --recipe changes. */
extern const struct recipe recipe_default;

/* *r = recipe_default changed by text, "name=value" separated by commas, e.g. "qep=0,descent=2";
 * "plain" in place of everything: no calibration at all is needed (qep 0, no feedback, no descent, no
 * measure). NULL or "": the default. Errors: ERR_USAGE naming the word, what is allowed and its
 * range. */
enum status recipe_parse(struct recipe *r, const char *text, struct error *e);
/* The whole recipe as recipe_parse reads it, every name in a fixed order. Returns out. */
const char *recipe_text(const struct recipe *r, char out[RECIPE_TEXT_MAX]);

#endif
