/* The middle of some numbers, by which what is typical is told from what stands out. Knows nothing of their
 * meaning. */
#ifndef SBIT_WORKER_MEDIAN_H
#define SBIT_WORKER_MEDIAN_H

#include <stddef.h>

/* The middle, the upper one of an even count, of those of x[n] that are above 0; 0 when there are none. sorted:
 * room for n. */
double median_positive(const double *x, size_t n, double *sorted);

#endif
