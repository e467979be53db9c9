/* What the calibrated quantisers share: they minimise
 *
 *     sum over rows r of (t_r - q_r) H (t_r - q_r)'
 *
 * over what a row of the form can hold, t the target, H the curvature, a band of at most 64 rows at a time.
 * Results depend on the band's rows alone. */
#ifndef SBIT_WORKER_SEARCH_H
#define SBIT_WORKER_SEARCH_H

struct band_loss { /* sums over the rows of a band, in double */
    double signal;   /* t H t' */
    double rounded;  /* the loss after plain rounding to nearest with the same form */
    double fed;      /* after error feedback (equal to rounded without it) */
    double final;    /* after everything */
    double error2, weight2; /* (w - q)^2 and w^2 against the target, unweighted */
};

#endif
