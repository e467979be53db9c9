/* Which choice is the likeliest, and how often that is right. */
#include "coordinator/task_score.h"

#include <math.h>

uint32_t task_pick(const double *nll, const uint32_t *bytes, uint32_t n)
{
    uint32_t best = 0;
    double least = INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        double value = bytes ? nll[i] / bytes[i] : nll[i];
        if (value < least) {
            least = value;
            best = i;
        }
    }
    return best;
}

struct task_accuracy task_accuracy(uint64_t right, uint64_t n)
{
    double share = (double)right / (double)n;
    return (struct task_accuracy){share, n > 1 ? sqrt(share * (1 - share) / (double)(n - 1)) : NAN};
}
