/* Scores of rows of logits: negative log-likelihood, Kullback-Leibler divergence, likeliest token.
 * Sums run in double from the first column to the last and exponentials come from exactmath, so
 * that scores are the same bits everywhere. */
#ifndef SBIT_COORDINATOR_SCORING_H
#define SBIT_COORDINATOR_SCORING_H

#include <stdbool.h>
#include <stdint.h>

struct score {
    double nll;    /* -ln softmax(logits)[target], nats */
    double kl;     /* KL(reference || model), nats; 0 without a reference */
    bool same_top; /* both find the same token likeliest; false without a reference */
};

/* Scores logits[n] for the token target (< n), and against reference[n], which may be NULL. False
 * when a value is not finite. With p = softmax(reference), q = softmax(logits): KL = sum p (ln p -
 * ln q) = sum p (reference - logits) - ln Z_reference + ln Z_logits. */
bool score_row(struct score *out, const float *logits, const float *reference, uint32_t n,
               uint32_t target);

#endif
