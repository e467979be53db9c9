/* The codebooks of the byte code (DESIGN section 5): for each d, 128 vectors of d small integers
 * which, with their negatives, quantise Gaussian data. Committed constants (codebook_table.c),
 * made once by tools/make_codebooks.c. Owns the tables; knows nothing of matrices and files.
 *
 * The sum of |entries| of a vector is at most 257, so that its product with int8 activations (at
 * most 127) fits int16. */
#ifndef SBIT_COMMON_CODEBOOK_H
#define SBIT_COMMON_CODEBOOK_H

#include <stdint.h>

enum { CODEBOOK_WORDS = 128, CODEBOOK_COUNT = 9, CODEBOOK_MAX_D = 16, CODEBOOK_MAX_SUM = 257 };

struct codebook {
    uint32_t d;   /* weights per byte */
    double error; /* E|x - unit c|^2 / E|x|^2 for x of N(0, I_d), measured on 4 million samples */
    float unit;   /* the scale that gives this error at standard deviation 1 */
    const int8_t *vector; /* [CODEBOOK_WORDS][d] */
};

/* In order of rising d. */
extern const struct codebook codebook_table[CODEBOOK_COUNT];

/* The codebook for d weights per byte; NULL when there is none. */
const struct codebook *codebook_for(uint32_t d);

#endif
