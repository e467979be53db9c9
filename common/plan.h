/* Which rank owns which blocks: a pure function, tested as text. */
#ifndef SBIT_COMMON_PLAN_H
#define SBIT_COMMON_PLAN_H

#include <stdint.h>

#include "common/error.h"

struct slice {
    uint32_t first_block, block_count; /* count 0: this rank has no blocks */
};

/* Cuts n_blocks blocks of the given sizes into contiguous slices for n_ranks ranks so that the
 * largest sum is as small as possible; among such plans rank 0, which carries head_bytes besides
 * its blocks, has as few blocks as possible (maybe none), then the largest sum of the other
 * ranks is as small as possible, then the latest ranks are fullest. Every other rank gets at
 * least one block; when there are fewer blocks than that, the surplus ranks at the end get empty
 * slices. slices: [n_ranks], written. Errors: ERR_USAGE for n_blocks or n_ranks 0, ERR_LIMIT
 * when the sizes overflow 64 bits. */
enum status plan_slices(const uint64_t *block_bytes, uint32_t n_blocks, uint64_t head_bytes,
                        uint32_t n_ranks, struct slice *slices, struct error *e);

#endif
