/* The calibration text as the ranks get it: tokenised, cut into windows, several texts mixed. Knows
 * nothing of what is done with it. */
#ifndef SBIT_COORDINATOR_CALIBRATION_H
#define SBIT_COORDINATOR_CALIBRATION_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/model.h"
#include "common/tokenizer.h"
#include "coordinator/cluster.h"
#include "coordinator/windows.h"

/* Fewer tokens say little about what a model computes with. */
enum { CALIBRATION_FEW = 1000 };

struct calibration { /* zero to begin; calibration_free */
    uint32_t *words; /* [n_words] lengths of the windows, then the tokens of all of them */
    size_t n_words;
    uint32_t windows, context;
    uint64_t tokens; /* of all windows, BOS included */
    uint64_t hash;   /* XXH3 (seed 0) of the tokens, 4 bytes each, little-endian */
};

/* Windows of texts [n] in turn, the first of each, then the second of each, and so on without those
 * that have ended, until there are limit tokens; the last window may be cut. A window of less than
 * two tokens is left out. All texts have the same context. Errors: ERR_MEMORY. */
enum status calibration_mix(struct calibration *c, const struct windows *texts, uint32_t n,
                            uint64_t limit, struct error *e);

/* Reads and mixes what the options name, or the text inside the program. Says on stderr when there
 * is less than was asked for, or so little that it is of no use. Errors: ERR_USAGE for an empty
 * text and for a context beyond the model's, ERR_FORMAT for a tokenizer that does not belong to the
 * model, those of text_read. */
enum status calibration_read(struct calibration *c, const struct options *o,
                             const struct tokenizer *t, const struct model_config *config,
                             struct cluster *cluster, struct error *e);
void calibration_free(struct calibration *c);

#endif
