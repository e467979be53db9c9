/* What the parts of the search for byte codes share (search_code.c: what all bands share, and the order of
 * the steps; search_code_steps.c: the steps; search_code_beam.c: several paths at a time). For these files
 * alone.
 *
 * A band is held as planes: column j of its 64 rows is 64 floats in a row, so that rows are the lanes of
 * every loop and the curvature is read along its own rows. */
#ifndef SBIT_WORKER_SEARCH_CODE_PRIVATE_H
#define SBIT_WORKER_SEARCH_CODE_PRIVATE_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/nearest.h"
#include "worker/search_code.h"

enum {
    ROWS = NEAREST_ROWS,
    /* columns whose corrections wait for one product; the largest multiple of d in it is taken */
    BLOCK_MAX = 128,
    PATHS = 8, /* that the last round of feedback follows at a time */
    SQUARE_MAX = CODEBOOK_MAX_D * CODEBOOK_MAX_D
};

struct code_search {
    const struct codebook *book;
    const struct curvature *k;
    struct recipe recipe;
    struct nearest *nearest;
    const float *words; /* nearest's, [CODEBOOK_WORDS][d] */
    int n, d, groups, block;
    /* half of c' M c for each group's M, [groups][CODEBOOK_WORDS]; flat: M = 1, for a full group and for
     * the last one */
    float *norm_flat, *norm_h, *norm_s;
    float *inverse; /* [groups][d][d], U_ss^-1, upper triangular; rows and columns past n are 0 */
    float *square;  /* [groups][d][d], S = U_ss^-1 U_ss^-1' */
};

struct band {
    const struct code_search *s;
    float *t;       /* [n][64] target */
    float *th;      /* [n][64] T H */
    float *q;       /* [groups * d][64] the codewords chosen, 0 past n */
    float *x;       /* [n][64] minus the whitened errors of the feedback: -(T - a Q) U^-1 */
    float *work;    /* [block][64] */
    float *paths;   /* [2][PATHS][block][64], feedback alone */
    uint8_t *codes; /* [groups][64] */
    uint16_t bits[ROWS];
    float a[ROWS];                             /* what bits says; a row of scale 0 has no codes */
    double signal[ROWS], num[ROWS], den[ROWS]; /* t H t', q H t', q H q' */
};

/* The row scale for num and den, where they say one that F16 can hold. */
void band_fit(struct band *b);
/* *out[64] = x H x' of x[n][64]. */
void band_quadratic(struct band *b, const float *x, double out[ROWS]);
/* th and signal from t. */
void band_target(struct band *b);
/* Codes by plain rounding, scales fitted between rounds; scale, num and den follow. */
void band_round(struct band *b);
/* One round of codes with error feedback, following one path or several; scale, num and den follow. */
void band_feed(struct band *b, bool several);
/* The codes of columns first to end, of one block, for the targets in b->work, which stay. over: 1 / a. */
void band_beam(struct band *b, int first, int end, const float over[ROWS]);
/* One pass of coordinate descent; false when nothing changed. */
bool band_descend(struct band *b);

static inline int group_width(const struct code_search *s, int g)
{
    return g * s->d + s->d <= s->n ? s->d : s->n - g * s->d;
}

#endif
