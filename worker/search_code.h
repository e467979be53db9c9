/* Byte codes of a band of rows under a curvature (docs/compression.md; DESIGN section 5): nearest codeword group
 * by group with error feedback to later columns, closed-form row scales between rounds, then coordinate
 * descent over the codes.
 *
 *   feedback   for each group g of columns s: S = (U_ss' U_ss)^-1, k = argmin a^2 c_k' S c_k - 2 a t' S c_k,
 *              e = t - a c_k, T[:, later] -= e U_ss^-1 U[s, later]      (GPTQ with groups of d columns);
 *              the last round tries the two nearest words of each group and keeps the 8 cheapest paths
 *              through a block of columns (K-best search)
 *   scale      a = (q H t') / (q H q'), q the codewords of the row
 *   descent    for each group, all others given: z = H_ss a q_s + (R H)_s, R = T - a Q,
 *              k = argmin a^2 c_k' H_ss c_k - 2 a z' c_k; then R H moves by (change) H[s, :]
 *   joint      after the first of these passes: for each block of columns B, all others given,
 *              the loss is that of feedback with targets a q_B + H_BB^-1 (R H)_B under H_BB alone;
 *              K-best search in it, taken where the loss falls
 *
 * Codes are chosen with the scale as F16 will store it. A row is always one thread's work, its products
 * one thread's calls of OpenBLAS: the same bits for any number of threads. */
#ifndef SBIT_WORKER_SEARCH_CODE_H
#define SBIT_WORKER_SEARCH_CODE_H

#include <stddef.h>
#include <stdint.h>

#include "common/codebook.h"
#include "common/error.h"
#include "common/recipe.h"
#include "worker/curvature.h"
#include "worker/search.h"

struct code_search;

/* What all rows share. k (borrowed) needs u when the recipe has feedback; it must outlive the search.
 * Columns past n in the last group do not exist: their part of every codeword counts nothing. *out is the
 * caller's, code_search_free. Errors: ERR_MEMORY. */
enum status code_search_create(struct code_search **out, const struct codebook *book,
                               const struct curvature *k, const struct recipe *recipe,
                               struct error *e);
void code_search_free(struct code_search *s);

/* Floats of scratch that a thread needs for code_search_band. */
size_t code_search_scratch(const struct code_search *s);

/* target[rows][n], rows 1 to 64. codes[groups][64] (bytes of absent rows 0), scale[rows] F16 bits. Several threads
 * may search at once, each with its scratch. False when a row needs a scale beyond F16 (as
 * code_encode_row). */
bool code_search_band(const struct code_search *s, const float *target, int rows, float *scratch,
                      uint8_t *codes, uint16_t *scale, struct band_loss *loss);

#endif
