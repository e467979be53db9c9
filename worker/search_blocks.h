/* Standard block types of a band of rows under a curvature: Q8_0, Q4_0, Q2_0 and Q1_0 as the
 * formats define them (docs/format.md), so that the same bytes as any GGUF quantiser writes say
 * more.
 *
 *   scales     of each block, the best of a grid, both signs where the integers are not
 *              symmetric, each candidate followed by the closed form for its integers,
 *              d = sum c z q / sum c q^2, then rounds - 1 further assignments; rounded to F16
 *   rounded    z the target, c_j = H_jj
 *   feedback   column by column in their order, z the target as corrected so far,
 *              c_j = 1 / u_jj^2: e = (z_j - d q_j) / u_jj, Z[:, later] -= e U[j, later]
 *              (GPTQ, Frantar et al. 2023)
 *   descent    R = target - d q; each integer to the best with all else as it is,
 *              d q_j + (R H)_j / H_jj rounded; then d += (q (R H)') / (q H q') over the block;
 *              then the same from scales a little larger and smaller, kept where better. No
 *              pass raises the loss.
 *
 * Columns by falling H_jj were tried and left out. They lower the loss after feedback by 1 to 5 %,
 * by 15 to 20 % where the largest inputs stand last; but after descent by at most 2 %, for which
 * they need a factor of their own and scales chosen before the feedback. */
#ifndef SBIT_WORKER_SEARCH_BLOCKS_H
#define SBIT_WORKER_SEARCH_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/dtype.h"
#include "common/error.h"
#include "common/recipe.h"
#include "worker/curvature.h"
#include "worker/search.h"

struct block_search;

/* dtype: DTYPE_Q8_0, Q4_0, Q2_0 or Q1_0; k->n a multiple of its block. k is borrowed and needs u
 * when the recipe has feedback. *out is the caller's, block_search_free. Errors: ERR_MEMORY. */
enum status block_search_create(struct block_search **out, enum dtype dtype,
                                const struct curvature *k, const struct recipe *recipe,
                                struct error *e);
void block_search_free(struct block_search *s);
/* Floats of scratch that a thread needs. */
size_t block_search_scratch(const struct block_search *s);
/* target[rows][n], rows 1 to 64; out[rows][row bytes of dtype]. Several threads may search at once,
 * each with its scratch. A row's bytes depend on the row, its place in the band and the CPU's
 * kind alone. False when a scale is beyond F16: its block then has the largest one, which does not
 * describe it. */
bool block_search_band(const struct block_search *s, const float *target, int rows, float *scratch,
                       uint8_t *out, struct band_loss *loss);

#endif
