/* Scores of rows of logits. */
#include "coordinator/scoring.h"

#include <math.h>
#include <stddef.h>

#include "common/exactmath.h"

/* The place of the largest of x[n], the first of equals; false when a value is not finite. */
static bool find_largest(const float *x, uint32_t n, uint32_t *place)
{
    bool finite = n > 0;
    *place = 0;
    for (uint32_t i = 0; i < n; i++) {
        finite = finite && isfinite(x[i]);
        if (x[i] > x[*place])
            *place = i;
    }
    return finite;
}

/* ln of the sum of e^(x - top). */
static double log_sum(const float *x, uint32_t n, float top)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += exact_exp((double)x[i] - top);
    return exact_log(sum);
}

/* KL(softmax(a) || softmax(b)) where log_b is ln of the sum of e^(b - b_top). */
static double divergence(const float *a, float a_top, const float *b, float b_top, double log_b,
                         uint32_t n)
{
    double sum = 0, cross = 0;
    for (uint32_t i = 0; i < n; i++) {
        double from_a = (double)a[i] - a_top, from_b = (double)b[i] - b_top;
        double weight = exact_exp(from_a);
        sum += weight;
        cross += weight * (from_a - from_b);
    }
    return cross / sum - exact_log(sum) + log_b;
}

bool score_row(struct score *out, const float *logits, const float *reference, uint32_t n,
               uint32_t target)
{
    uint32_t top, reference_top;
    *out = (struct score){0};
    if (target >= n || !find_largest(logits, n, &top))
        return false;
    double log_z = log_sum(logits, n, logits[top]);
    out->nll = log_z - ((double)logits[target] - logits[top]);
    if (!reference)
        return true;
    if (!find_largest(reference, n, &reference_top))
        return false;
    out->same_top = top == reference_top;
    out->kl = divergence(reference, reference[reference_top], logits, logits[top], log_z, n);
    return true;
}
