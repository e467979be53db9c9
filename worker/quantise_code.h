/* The byte code of one row: row scale and nearest codewords, refined alternately (DESIGN section
 * 5; research: nearest codeword search with closed-form scale is Lloyd's iteration with a fixed
 * codebook).
 *
 *    minimise over a and s_g, k_g:  sum over c of h[c] * (w[c] - a s_g codebook[k_g][c mod d])^2
 *
 * h = 1 or the diagonal of the input statistics; columns past the row's end have h = 0. */
#ifndef SBIT_WORKER_QUANTISE_CODE_H
#define SBIT_WORKER_QUANTISE_CODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/codebook.h"
#include "common/error.h"
#include "worker/quantise.h"

struct code_encoder;

/* For rows of cols weights. stats may be NULL and is copied. *out is the caller's,
 * code_encoder_free. Errors: ERR_MEMORY; ERR_USAGE when stats are of another width. */
enum status code_encoder_create(struct code_encoder **out, const struct codebook *book, int cols,
                                const struct input_stats *stats, struct error *e);
void code_encoder_free(struct code_encoder *c);

/* Floats of scratch that a thread needs for code_encode_row. */
size_t code_encoder_scratch(const struct code_encoder *c);

/* Codes row[cols]: codes[g * stride] for each group g, *scale (F16 bits) the row scale. Codes of a
 * row whose scale is 0 are 0. False for a row that needs a scale beyond F16: it gets the largest
 * one, which does not describe it. */
bool code_encode_row(const struct code_encoder *c, const float *row, float *scratch, uint8_t *codes,
                     size_t stride, uint16_t *scale, struct row_error *error);

/* The search has variants for the CPU's vector widths, all with the same result; the best one is
 * taken. For tests: how many this CPU has, and to choose one (0: the plainest). */
int code_encoder_variants(void);
void code_encoder_use(struct code_encoder *c, int variant);

#endif
