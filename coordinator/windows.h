/* A text cut into windows for scoring: BOS, where the tokenizer adds one, and the next tokens up
 * to the context; no overlap; the last one may be short. Every token of a window after its first
 * is scored. */
#ifndef SBIT_COORDINATOR_WINDOWS_H
#define SBIT_COORDINATOR_WINDOWS_H

#include <stdint.h>

struct windows {
    const uint32_t *ids; /* [n_ids] the text, borrowed */
    uint64_t n_ids;
    uint32_t context; /* most tokens in a window, BOS included; at least 2 */
    uint32_t bos;     /* UINT32_MAX: none */
};

/* How many windows there are. */
uint64_t windows_count(const struct windows *w);
/* Writes window number into out[context]; returns how many tokens it has. */
uint32_t windows_tokens(const struct windows *w, uint64_t number, uint32_t *out);
/* How many tokens are scored in all windows. */
uint64_t windows_scored(const struct windows *w);

#endif
