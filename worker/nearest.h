/* The nearest codeword for 16 or 64 vectors at once, and the update that follows a choice: the inner
 * loops of every search for byte codes. Variants for the CPU's vector widths do the same operations in
 * the same order on each lane and so give equal results. Knows nothing of matrices, scales, curvature. */
#ifndef SBIT_WORKER_NEAREST_H
#define SBIT_WORKER_NEAREST_H

#include <stddef.h>
#include <stdint.h>

#include "common/codebook.h"
#include "common/error.h"

enum {
    NEAREST_LANES = 16, /* vectors that nearest_groups takes */
    NEAREST_ROWS = 64   /* vectors that nearest_rows and nearest_spread take */
};

struct nearest;

/* For one codebook. *out is the caller's, nearest_free. Errors: ERR_MEMORY. */
enum status nearest_create(struct nearest **out, const struct codebook *book, struct error *e);
/* NULL is fine. */
void nearest_free(struct nearest *n);

/* The codewords as floats, [CODEBOOK_WORDS][d]. */
const float *nearest_words(const struct nearest *n);

/* best[i] for 16 groups of one row: the word of the largest |word . x_i| - half norm[word][i], of equal
 * ones the first. With norm[k] = c' S c, x = S t and half = a / 2 that word, with the sign of its
 * product, is the one of the least (t - a c)' S (t - a c). Element j of vector i is x[j * stride + i];
 * norm: [CODEBOOK_WORDS][NEAREST_LANES]. */
void nearest_groups(const struct nearest *n, const float *norm, const float *x, size_t stride,
                    float half, int32_t best[NEAREST_LANES]);

/* The same for one group of 64 rows: x[d][64], and norm[CODEBOOK_WORDS] serves all rows, already
 * multiplied by what half is above. */
void nearest_rows(const struct nearest *n, const float *norm, const float *x,
                  int32_t best[NEAREST_ROWS]);

/* The same, and the second best word beside the best one, with the scores of both (what is the
 * largest). */
void nearest_two(const struct nearest *n, const float *norm, const float *x,
                 int32_t best[2][NEAREST_ROWS], float score[2][NEAREST_ROWS]);

/* y[cols][64] += sum over i < count (at most CODEBOOK_MAX_D) of h[i * stride + col] x[i][64]. */
void nearest_spread(const struct nearest *n, const float *h, size_t stride, int cols,
                    const float *x, int count, float *y);

/* For tests: how many variants this CPU has (the best is taken), and to choose one (0: the
 * plainest). */
int nearest_variants(void);
void nearest_use(struct nearest *n, int variant);

#endif
