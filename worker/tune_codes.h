/* Byte codes that are chosen anew while a compressed model is tuned end to end. Every weight of a
 * CODE matrix gets a latent value z in units of the codebook:
 *
 *     W[r][c] = out[r] in[c] z[r][c],   stored and computed with: the codeword nearest to z's group
 *
 * Gradients go to z as if rounding to a codeword were not there ("straight through", Bengio et
 * al. 2013, arXiv 1308.3432). In these units z goes along with a row scale that is tuned beside
 * it, and one rate suits all rows. z begins at the codewords that a search has found, so that
 * its solution stands until gradients that agree carry z over the border to another codeword:
 * few codes change at a time (Malinovskii et al. 2024, arXiv 2405.14852, on why that matters).
 *
 * Latents and their gradients lie as codes do, by bands of 64 rows: [bands][cols][64], those of
 * rows beyond the last unused. Knows nothing of blocks, losses, optimisers and files. */
#ifndef SBIT_WORKER_TUNE_CODES_H
#define SBIT_WORKER_TUNE_CODES_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "worker/nearest.h"

/* Floats of the latents of m, and of their gradients: bands x cols x 64 for CODE; 0 for other
 * types, for which the functions below do nothing. */
size_t tune_codes_size(const struct matrix *m);
/* Bytes of the codes of m: bands x groups x 64. */
size_t tune_codes_bytes(const struct matrix *m);

/* z[tune_codes_size] = the codewords that m has. */
void tune_codes_start(const struct matrix *m, float *z);

/* g[tune_codes_size] += the gradient of W: sum over t < tokens of dy[t][rows] x[t][cols]. Called by
 * all threads of a parallel region, which share it in tiles of fixed size: the same bits for
 * any number of threads; no barrier. For the rest of that region, regions inside it have one
 * thread, so that OpenBLAS has; curvature_init has been called before. */
void tune_codes_gradient(const struct matrix *m, const float *dy, const float *x, int tokens,
                         float *g);

/* g, the gradient of W, becomes that of z: times out[r] in[c]. One thread. */
void tune_codes_to_latents(const struct matrix *m, float *g);

/* The root of the mean square of a weight's distance from its codeword, were weights Gaussian, in
 * units of the codebook: rates are multiples of it. 0 for other types. */
float tune_codes_unit(const struct matrix *m);

/* codes[tune_codes_bytes] = the codewords nearest to z, of equally near ones the first. The
 * elements of a last codeword that lie beyond the columns do not count. nearest: of m's codebook;
 * codes may be what m views. One thread. */
void tune_codes_choose(const struct matrix *m, const struct nearest *nearest, const float *z,
                       uint8_t *codes);

#endif
