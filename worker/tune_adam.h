/* Adam (Kingma & Ba 2015, arXiv 1412.6980, algorithm 1) over a flat array of parameters:
 *
 *     m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2
 *     p <- p - rate m' / (sqrt(v') + eps),  m' = m / (1 - b1^t),  v' = v / (1 - b2^t)
 *
 * The same bits everywhere for the same gradients. Knows nothing of what the parameters mean. */
#ifndef SBIT_WORKER_TUNE_ADAM_H
#define SBIT_WORKER_TUNE_ADAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct tune_adam {
    size_t n;
    uint32_t step; /* steps begun */
    float *m, *v;  /* [n] */
    double m_scale, v_scale; /* 1 / (1 - b^t) of the step in work */
};

/* For n parameters. *a is released by tune_adam_free, also after a failure. Errors: ERR_MEMORY. */
enum status tune_adam_create(struct tune_adam *a, size_t n, struct error *e);
/* A zeroed *a is fine. */
void tune_adam_free(struct tune_adam *a);

/* Begins the next step; then tune_adam_update for each range of parameters, which have rates of
 * their own. */
void tune_adam_begin(struct tune_adam *a);
/* Moves p[first .. first + count) by gradient[first ..]; p and gradient point to parameter 0.
 * False, and nothing changed in the range, when one of its gradients is not finite. */
bool tune_adam_update(struct tune_adam *a, float *p, const float *gradient, size_t first,
                      size_t count, float rate);

/* The rate of step (from 0) of steps: falls from rate in a straight line, to 0 after the last. */
float tune_adam_rate(float rate, uint32_t step, uint32_t steps);

#endif
