/* What the parts of the search for byte codes share (search_code.c: what all bands share, and the
 * order of the steps; search_code_steps.c: the steps; search_code_beam.c: several paths at a time;
 * search_code_joint.c: the same within the descent). For these files alone.
 *
 * A band is held as planes: column j of its 64 rows is 64 floats in a row, so that rows are the lanes
 * of every loop and the curvature is read along its own rows. */
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
    PATHS = 8, /* that the last round of feedback and the joint search follow at a time */
    SQUARE_MAX = CODEBOOK_MAX_D * CODEBOOK_MAX_D
};

/* A factor U, U'U the inverse of a curvature, and what it says of each group of columns s. */
struct code_factor {
    const float *u; /* [n][stride]; element (i, j) is at i * stride + j, or + j % stride when the
                     * factors are those of blocks of stride columns */
    size_t stride;
    float *inverse; /* [groups][d][d], U_ss^-1, upper triangular; rows and columns past n are 0 */
    float *square;  /* [groups][d][d], S = U_ss^-1 U_ss^-1' */
    float *norm;    /* [groups][CODEBOOK_WORDS], half of c' S c */
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
    float *norm_flat, *norm_h;
    struct code_factor feed;  /* of the curvature; with feedback */
    struct code_factor joint; /* of each block of columns alone, others given; with joint passes */
    float *joint_u;           /* what joint.u is */
};

struct band {
    const struct code_search *s;
    float *t;       /* [n][64] target */
    float *th;      /* [n][64] T H */
    float *q;       /* [groups * d][64] the codewords chosen, 0 past n */
    float *x;       /* [n][64] minus the whitened errors of the feedback: -(T - a Q) U^-1 */
    float *work;    /* [block][64] */
    float *paths;   /* [2][PATHS][block][64]; this and x: for feedback and joint passes */
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
/* codes[groups of the block][64] of columns first to end, of one block, for the targets in b->work,
 * which stay; those of rows without a scale stay too. over: 1 / a. */
void band_beam(struct band *b, const struct code_factor *factor, int first, int end,
               const float over[ROWS], uint8_t *codes);
/* One pass of coordinate descent; false when nothing changed. */
bool band_descend(struct band *b);
/* One pass of the joint search; false when nothing changed. */
bool band_joint(struct band *b);

/* out[b0..b1)[64] = factor H[b0..b1)[k0..k1) x[k0..k1)[64] + keep out. */
void band_multiply(const struct code_search *s, int b0, int b1, int k0, int k1, float factor,
                   const float *x, float keep, float *out);
/* sum[row] += x . y over the columns given. */
void band_dots(const float *x, const float *y, int cols, double sum[ROWS]);
/* 1 / a, and 0 for rows without a scale. */
void band_reciprocals(const struct band *b, float out[ROWS]);
/* q[width][64] of group g from its codes[64]. */
void band_words(const struct band *b, int g, const uint8_t *codes, float *q);

enum status code_factor_allocate(const struct code_search *s, struct code_factor *f,
                                 struct error *e);
/* What f->u says of group g. */
void code_factor_fill(const struct code_search *s, struct code_factor *f, int g);
/* s->joint of the curvature; once s has its shape and words. */
enum status code_joint_create(struct code_search *s, struct error *e);

static inline int group_width(const struct code_search *s, int g)
{
    return g * s->d + s->d <= s->n ? s->d : s->n - g * s->d;
}

/* The end of the block of columns that begins at first. */
static inline int block_end(const struct code_search *s, int first)
{
    return s->n - first < s->block ? s->n : first + s->block;
}

/* Element (column, column) of a factor. */
static inline const float *factor_at(const struct code_factor *f, int column)
{
    return f->u + (size_t)column * f->stride + (size_t)column % f->stride;
}

#endif
