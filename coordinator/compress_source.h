/* The source of a compression for ranks that have no copy of it: says what the model is, learns who
 * lacks it, and answers their questions. Knows nothing of what they need it for. */
#ifndef SBIT_COORDINATOR_COMPRESS_SOURCE_H
#define SBIT_COORDINATOR_COMPRESS_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/weights.h"
#include "coordinator/cluster.h"

struct compress_source {
    struct cluster *cluster;       /* borrowed */
    const struct weights *weights; /* borrowed */
    bool *missing;                 /* [size] the rank has no copy */
    uint32_t opened;               /* ranks that have said so or not */
    uint64_t sent;                 /* bytes of tensors */
};

/* Tells all ranks and waits for their answers; says on stderr who has none. cluster and weights are
 * set; missing is allocated here, compress_source_free. Takes cluster->inner meanwhile. Errors:
 * ERR_PEER, ERR_UNSUPPORTED. */
enum status compress_source_open(struct compress_source *s, struct error *e);
void compress_source_free(struct compress_source *s);
/* Answers a MSG_FETCH at once; nothing is kept. Errors: ERR_PEER for bytes that are not there. */
enum status compress_source_answer(struct compress_source *s, const struct message *m,
                                   struct error *e);
/* Says on stderr how much was sent, if anything was. */
void compress_source_report(const struct compress_source *s);

#endif
