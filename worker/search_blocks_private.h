/* What the parts of the block search share: the forms' integers, and a band as they see it. A band
 * is 64 lanes: element j of all rows lies side by side, [n][64], absent rows are zeros, so that all
 * arithmetic runs along the lanes and no row's result depends on the others. */
#ifndef SBIT_WORKER_SEARCH_BLOCKS_PRIVATE_H
#define SBIT_WORKER_SEARCH_BLOCKS_PRIVATE_H

#include "worker/search_blocks.h"

enum {
    LANES = 64,
    TILE = 256,  /* columns whose gradient is gathered by one product: several blocks of any form */
    WIDEST = 128 /* columns of the widest block, Q1_0's */
};

/* A weight is scale * (low + step * k), k an integer 0 to top. */
struct block_form {
    int block; /* weights that share a scale */
    float low, step, top;
    float first,
        last; /* candidates for |scale| in units of the block's largest |w|: an even grid */
    int candidates;
    float nudge;   /* part by which descent tries to change scales, in its first pass */
    bool negative; /* the integers are not symmetric: scales of both signs are worth a try */
};

struct block_search {
    struct block_form form;
    enum dtype dtype;
    size_t block_bytes;
    int n;
    const struct curvature *k; /* whose h and u these are */
    const float *h, *u;
    struct recipe recipe;
    float *plain_weight; /* [n] H_jj over their mean: what an error costs by itself */
    float
        *fed_weight;  /* [n] 1 / u_jj^2 over their mean: what it costs when later columns make up */
    float *inverse_h; /* [n] 1 / H_jj */
    float *inverse_u; /* [n] 1 / u_jj */
};

struct block_band {          /* all in a thread's scratch */
    float *x;                /* [n][LANES] the target, then what is left of it, by turns */
    float *q;                /* [n][LANES] low + step * k */
    float *scale;            /* [n / block][LANES], values of F16 */
    float *gradient, *lower; /* [TILE][LANES] */
    float *work;             /* [4 * WIDEST][LANES] */
    bool fits;               /* all scales so far */
};

/* y[rows][LANES] = keep y + factor M x, x[inner][LANES], M[rows][inner] at m with rows ld apart, or
 * its transpose. One thread. */
void block_search_product(const float *m, int ld, bool transposed, int rows, int inner,
                          const float *x, float factor, float keep, float *y);

/* q[LANES] = the form's nearest integers to z times inverse (1 / scale, or 0 for a scale of 0). */
void block_search_round(const struct block_form *form, const float *z, const float *inverse,
                        float *q);
/* inverse[LANES] = 1 / scale; 0 for a scale of 0. */
void block_search_invert(const float *scale, float *inverse);
/* scale[LANES] rounded to F16; *fits false when one is beyond it, which is then the largest. */
void block_search_store(float *scale, bool *fits);

/* scale[LANES] of the block z[block][LANES]: of the grid's candidates, each followed by the closed
 * form for its integers, the one with the smallest sum of weight (z - scale q)^2; then rounds - 1
 * times integers and closed form. Rounded to F16. */
void block_search_scale(const struct block_form *form, const float *weight, const float *z,
                        uint32_t rounds, float *scale, bool *fits);

/* band->x is the target on entry, of no use on return; q and scale are made. */
void block_search_feed(const struct block_search *s, struct block_band *band);

/* band->x = target - scale q, kept so. passes at least 1; loss before and after. */
void block_search_descend(const struct block_search *s, struct block_band *band, uint32_t passes,
                          double *before, double *after);

#endif
