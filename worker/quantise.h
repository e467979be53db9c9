/* What all quantisers share. A quantiser works on one row of floats at a time, holds no state
 * between rows and is called by several threads at once; its result depends on the row alone. */
#ifndef SBIT_WORKER_QUANTISE_H
#define SBIT_WORKER_QUANTISE_H

/* What is known of a matrix's inputs. NULL in place of the struct: nothing, plain squared error.
 * Only the diagonal of the second moment E[x x'] is used today: quantisers then minimise sum
 * over columns of diagonal[c] * (w[c] - w'[c])^2 in each row. */
struct input_stats {
    int n;                 /* columns */
    const float *diagonal; /* [n] E[x_c^2], finite, >= 0 */
};

struct row_error {  /* sums over the row, not weighted by input statistics */
    double error2;  /* (w - w')^2 */
    double weight2; /* w^2 */
};

#endif
