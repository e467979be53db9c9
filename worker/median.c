#include "worker/median.h"

#include <stdlib.h>

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median_positive(const double *x, size_t n, double *sorted)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        if (x[i] > 0)
            sorted[count++] = x[i];
    qsort(sorted, count, sizeof *sorted, by_size);
    return count ? sorted[count / 2] : 0;
}
