/* Accuracy at multiple-choice questions: arithmetic only. */
#ifndef SBIT_COORDINATOR_TASK_SCORE_H
#define SBIT_COORDINATOR_TASK_SCORE_H

#include <stdint.h>

/* The likeliest of n choices whose negative log-likelihoods in nats are nll[n], divided by bytes[n]
 * where bytes is not NULL; the first of equals. n at least 1. */
uint32_t task_pick(const double *nll, const uint32_t *bytes, uint32_t n);

struct task_accuracy {
    double share; /* of questions answered rightly */
    double error; /* standard error of the share; NAN for a single question */
};

/* right of n questions (n at least 1). error = sqrt(share (1 - share) / (n - 1)), the standard
 * deviation of the sample divided by sqrt(n): how much the share would vary over other questions
 * of the same kind. */
struct task_accuracy task_accuracy(uint64_t right, uint64_t n);

#endif
