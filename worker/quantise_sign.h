/* The ancestor's method, honestly kept: one sign bit per weight (Q1_0: blocks of 128, F16 scale
 * d = mean |w|, bits LSB first, 1 means +d) and the largest weights of the matrix restored by a
 * sparse correction. Which weights are outliers is decided over the whole matrix, exactly: first
 * its values pass through a selector twice, then rows are coded. */
#ifndef SBIT_WORKER_QUANTISE_SIGN_H
#define SBIT_WORKER_QUANTISE_SIGN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "worker/quantise.h"

/* Finds the |w| of the wanted-th largest weight by two histograms over the bits of |w| (radix
 * selection: non-negative floats order as their bits do). */
struct sign_selector;

/* *out is the caller's, sign_selector_free. wanted: how many outliers, at most the weights. */
enum status sign_selector_create(struct sign_selector **out, uint64_t wanted, struct error *e);
void sign_selector_free(struct sign_selector *s);
/* Counts n weights; all weights of the matrix, in any order, once before and once after
 * sign_selector_narrow. */
void sign_selector_add(struct sign_selector *s, const float *w, size_t n);
void sign_selector_narrow(struct sign_selector *s);

struct sign_threshold {
    uint32_t bits; /* |w| above the float of these bits: an outlier. UINT32_MAX: none are */
    uint64_t ties; /* of the weights that equal it, the first so many in row-major order are too */
};
struct sign_threshold sign_selector_result(const struct sign_selector *s);

/* How many of row[cols] lie above the threshold and how many equal it. */
void sign_count(const float *row, int cols, uint32_t bits, uint32_t *above, uint32_t *equal);

struct sign_entries { /* where a row's outliers go, in order of columns */
    int32_t *row;
    void *column;     /* int16 or int32 by column_bytes */
    int column_bytes; /* 2 or 4 */
    uint16_t *value;  /* F16 of the weight minus what Q1_0 says */
};

/* Codes row[cols] (a multiple of 128) into blocks [cols / 128][18]; its weights above the
 * threshold, and the first ties of those that equal it, leave the mean of their block and enter
 * *to. Row r is written to to->row. stats (NULL: plain) weight the mean. False when a mean or an
 * outlier is beyond F16, so that the row is not described. */
bool sign_encode_row(const float *row, int cols, uint32_t bits, uint32_t ties, int32_t r,
                     const struct input_stats *stats, uint8_t *blocks,
                     const struct sign_entries *to, struct row_error *error);

#endif
