/* The planner: which rank owns which blocks. Pure arithmetic; knows neither models nor ranks'
 * machines. */
#include "common/plan.h"

#include <stdbool.h>
#include <string.h>

#include "common/mem.h"

struct problem {
    const uint64_t *bytes;
    uint32_t n_blocks, others; /* others: ranks 1..others get at least one block each */
    uint64_t head, total;      /* total: head and all blocks */
};

/* Cuts blocks [first, n_blocks) for ranks others..1, from the last rank down, each as full as
 * limit allows but leaving a block for each rank before it. True when all blocks from first on
 * found a place. slices may be NULL. */
static bool fill(const struct problem *p, uint32_t first, uint64_t limit, struct slice *slices)
{
    uint32_t end = p->n_blocks;
    for (uint32_t r = p->others; r >= 1; r--) {
        uint32_t begin = end;
        uint64_t sum = 0;
        while (begin > first + (r - 1) && p->bytes[begin - 1] <= limit - sum)
            sum += p->bytes[--begin];
        if (begin == end)
            return false;
        if (slices)
            slices[r] = (struct slice){begin, end - begin};
        end = begin;
    }
    return end == first;
}

/* Fewest blocks that rank 0 takes under the limit, or n_blocks + 1 when it cannot be kept. */
static uint32_t fewest(const struct problem *p, uint64_t limit)
{
    uint64_t sum = p->head;
    for (uint32_t first = 0; first + p->others <= p->n_blocks; first++) {
        if (sum > limit)
            break;
        if (fill(p, first, limit, NULL))
            return first;
        sum += p->bytes[first];
    }
    return p->n_blocks + 1;
}

/* Smallest limit under which every rank's sum stays. */
static uint64_t smallest_maximum(const struct problem *p)
{
    uint64_t low = p->head, high = p->total;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (fewest(p, middle) <= p->n_blocks)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Smallest limit of ranks 1..others once rank 0 has taken the first blocks. */
static uint64_t smallest_rest(const struct problem *p, uint32_t first, uint64_t high)
{
    uint64_t low = 0;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (fill(p, first, middle, NULL))
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

enum status plan_slices(const uint64_t *block_bytes, uint32_t n_blocks, uint64_t head_bytes,
                        uint32_t n_ranks, struct slice *slices, struct error *e)
{
    struct problem p = {block_bytes, n_blocks, 0, head_bytes, head_bytes};
    FAIL_IF(n_blocks == 0 || n_ranks == 0, e, ERR_USAGE,
            "%u blocks cannot be dealt out to %u ranks: both must be at least 1", n_blocks,
            n_ranks);
    for (uint32_t i = 0; i < n_blocks; i++)
        FAIL_IF(!add_fits(p.total, block_bytes[i], &p.total), e, ERR_LIMIT,
                "the blocks of this model add up to more than 2^64 bytes: its file is damaged");
    memset(slices, 0, n_ranks * sizeof *slices);
    p.others = n_ranks - 1 < n_blocks ? n_ranks - 1 : n_blocks;
    for (uint32_t r = p.others + 1; r < n_ranks; r++)
        slices[r].first_block = n_blocks;
    if (p.others == 0) {
        slices[0].block_count = n_blocks;
        return OK;
    }
    uint64_t limit = smallest_maximum(&p);
    uint32_t first = fewest(&p, limit);
    slices[0].block_count = first;
    fill(&p, first, smallest_rest(&p, first, limit), slices);
    return OK;
}
