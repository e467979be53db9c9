/* Draws the next token from a row of logits. The same bits on every machine: exponentials by
 * exactmath, an own random generator, ties by the lower id.
 *
 * In this order: repeat penalty (Keskar et al. 2019, CTRL: a positive logit of a token seen among
 * the last 64 is divided by the penalty, a negative one multiplied), top-k, top-p (Holtzman et al.
 * 2020; on the probabilities at temperature 1), min-p (Nguyen et al. 2024), temperature, draw.
 * Temperature 0 takes the largest logit after the penalty.
 *
 * Generator: xoshiro256** (Blackman & Vigna 2018), seeded by splitmix64. */
#ifndef SBIT_COORDINATOR_SAMPLER_H
#define SBIT_COORDINATOR_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define SAMPLER_RECENT 64

struct sampler_config {
    double temp;           /* >= 0 */
    uint32_t top_k;        /* 0: all */
    double top_p, min_p;   /* 0 to 1; 1 and 0 switch them off */
    double repeat_penalty; /* > 0; 1: off */
    uint64_t seed;
};

struct candidate {
    uint32_t id;
    double logit, weight; /* weight: probability up to a factor */
};

struct sampler {
    struct sampler_config config;
    uint64_t state[4];
    uint32_t recent[SAMPLER_RECENT]; /* ring of the tokens seen last */
    uint64_t seen;
    uint32_t vocab;
    struct candidate *candidates; /* [vocab] */
};

/* Of rows of vocab logits. sampler_free in any case. Errors: ERR_MEMORY. */
enum status sampler_init(struct sampler *s, const struct sampler_config *config, uint32_t vocab,
                         struct error *e);
void sampler_free(struct sampler *s);
/* Notes a token of the prompt or of the continuation for the repeat penalty. */
void sampler_accept(struct sampler *s, uint32_t id);
/* Forgets the tokens noted. */
void sampler_forget(struct sampler *s);
/* The next token for logits[vocab]; values that are not a number count as minus infinity. Does not
 * accept it. */
uint32_t sampler_pick(struct sampler *s, const float *logits);

#endif
