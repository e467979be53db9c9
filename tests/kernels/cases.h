/* Random and extreme inputs for the kernels, in guarded buffers. Knows what the kernels accept, not
 * what they answer. */
#ifndef SBIT_TESTS_KERNELS_CASES_H
#define SBIT_TESTS_KERNELS_CASES_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "tests/kernels/guard.h"

struct random { /* xorshift64*, Vigna 2016; never 0 */
    uint64_t state;
};

uint64_t random_bits(struct random *r);
int random_below(struct random *r, int n); /* [0, n) */
float random_normal(struct random *r);     /* mean 0, variance 1, about (sum of uniforms) */

/* Seed from argv[1], else from the clock; prints it. */
struct random random_start(int argc, char **argv);

enum weight_style {
    WEIGHT_NORMAL, /* like a model's */
    WEIGHT_BITS,   /* any bits: infinities, NaNs, huge scales */
    WEIGHT_LOW,    /* every byte 0x80: -128, smallest nibbles, index 0 negated */
    WEIGHT_HIGH,   /* every byte 0x7f */
    WEIGHT_ZERO,
    WEIGHT_TINY, /* subnormal scales */
    WEIGHT_STYLES
};

enum input_style {
    INPUT_NORMAL,
    INPUT_MASSIVE, /* a few channels 1000 times the rest */
    INPUT_CROWDED, /* more massive channels than the kernels keep apart, some equal */
    INPUT_EDGE,    /* all +-1: +-127 after quantisation */
    INPUT_ZERO,
    INPUT_TINY, /* subnormal */
    INPUT_HUGE,
    INPUT_BROKEN, /* infinities and NaNs among normal values */
    INPUT_STYLES
};

extern const char *const case_type_names[MATRIX_TYPES];
extern const int case_code_d[9];

struct case_matrix {
    struct matrix m;
    struct guard data, codebook, out, in, start, column, value;
};

/* d is for CODE. outliers: with a sparse correction; in: with column scales (CODE). */
struct case_matrix case_matrix_make(struct random *r, enum matrix_type type, int rows, int cols,
                                    int d, enum weight_style style, bool outliers, bool in);
void case_matrix_free(struct case_matrix *c);

/* Columns that type accepts, at least cols. */
int case_cols(enum matrix_type type, int cols);

void case_fill(struct random *r, enum input_style style, float *x, int n);

/* Makes every NaN the same NaN: its bits are not part of the contract. */
void case_canonical(float *y, size_t n);

/* Row by row act_prepare of x[tokens][cols] into prepared[tokens][act_bytes]. */
void case_prepare(const struct matrix *m, const float *x, int tokens, void *prepared);

#endif
