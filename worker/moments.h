/* Second moments of the inputs of a product over the calibration text, summed so that the result
 * is the same bits for any number of ranks and threads: windows belong to MOMENT_LANES lanes, a
 * lane's sum runs over its windows in order, and lanes are added in pairs, pairs of pairs, ...
 * (a fixed binary tree). A rank sums its own lanes as far as the tree allows and hands over the
 * nodes that are left.
 *
 *     H = sum over tokens of x x'             x: inputs in the compressed model's stream
 *     C = sum over tokens of (t - x) x'       t: the same inputs in the original's
 *
 * Knows nothing of models and messages. */
#ifndef SBIT_WORKER_MOMENTS_H
#define SBIT_WORKER_MOMENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "worker/diagonal.h"

enum { MOMENT_LANES = 16, MOMENT_NODES_MAX = 2 * 4 + 1 };

/* The lane of window w of windows, and the first lane of rank r of ranks (rank r + 1's first is
 * the end): both contiguous, floor(lanes * i / n). */
int moments_lane(uint32_t w, uint32_t windows);
int moments_first_lane(int rank, int ranks);
/* The first window of a lane; that of lane + 1 is the end. */
uint32_t moments_first_window(int lane, uint32_t windows);
/* The first window of the lanes of a rank; that of rank + 1 is the end. */
uint32_t moments_rank_window(int rank, int ranks, uint32_t windows);

/* The sum over lanes [first, first + count); count a power of two, first its multiple. */
struct moments_node {
    int first, count;
    int n;     /* elements of a vector */
    int width; /* columns of the blocks that h and c consist of (diagonal.h); n: they are full */
    uint64_t tokens;
    float *h; /* only the upper triangle of each block (column >= row) is valid */
    float *c; /* all of it; NULL without cross moments */
};

struct moments;

/* Moments of vectors of n elements, in blocks of width of them (1 to n). cross: C as well. threads:
 * OpenMP threads of all that sums. *out is the caller's, moments_free. Memory: n * width floats
 * (twice with cross) per live node, at most log2(lanes) + 1 of them (and one more per rank whose
 * node is on its way); with cross also 512 * n floats. Pages below the diagonal of h are never
 * touched by sums. curvature_init must have been called, once for the process. Errors:
 * ERR_MEMORY. */
enum status moments_create(struct moments **out, int n, int width, bool cross, int threads,
                           struct error *e);
void moments_free(struct moments *m);

/* Adds rows vectors x[rows][n] of one window to a lane; t[rows][n] with cross, else NULL. Lanes
 * come in rising order; those passed over are zeros from then on. Not for several threads at
 * once: it shares the work among its own. Errors: ERR_MEMORY naming the bytes; ERR_LIMIT for a
 * lane out of order, or that moments_nodes has closed. */
enum status moments_add(struct moments *m, int lane, const float *x, const float *t, int rows,
                        struct error *e);

/* Frees C, once it is of no more use. */
void moments_drop_cross(struct moments *m);

/* The nodes of all that was added or has arrived in full, in rising order of lanes, at most
 * MOMENT_NODES_MAX; views valid until the next call with m. Closes the lane that was added to
 * last. */
int moments_nodes(struct moments *m, struct moments_node out[MOMENT_NODES_MAX]);

/* Takes a part of another rank's node: allocates it when its first part comes, and returns where
 * size floats from offset on of h (cross false) or c are to be copied, which the caller does
 * before the next call with m. Parts may come in any order, of several nodes at a time, each
 * element once. Of h the part below the diagonal may be left out, or lie within a part with any
 * values. Errors: ERR_PEER for a node that is no node of the tree, overlaps one that is there,
 * differs in tokens from its other parts, for elements beyond it or that came twice; ERR_MEMORY. */
enum status moments_receive(struct moments *m, int first, int count, uint64_t tokens, bool cross,
                            uint64_t offset, uint64_t size, float **to, struct error *e);

/* With all nodes there: adds them up by the tree into one node, which moments_nodes then returns
 * alone. Lanes without nodes count as zeros (they had no windows): whether all ranks have sent
 * theirs is for the caller to know, and node.tokens to confirm. Errors: ERR_PEER when there is
 * no node at all, or part of one is missing. */
enum status moments_merge(struct moments *m, struct error *e);

#endif
