/* Error feedback of the block search (GPTQ, Frantar et al. 2023): what rounding a column leaves is
 * carried on to later columns, so that they make up for it. Owns the order of the updates. */
#include <string.h>

#include "worker/search_blocks_private.h"

/* The errors of columns [first, first + count), x[first..], leave columns [first + count, end). */
static void carry(const struct block_search *s, struct block_band *band, int first, int count,
                  int end)
{
    int next = first + count;
    if (next < end)
        block_search_product(s->u + (size_t)first * (size_t)s->n + next, s->n, true, end - next,
                             count, band->x + (size_t)first * LANES, -1, 1,
                             band->x + (size_t)next * LANES);
}

/* Rounds column j, leaves error / u_jj in its place, and takes it from the block's later columns.
 */
static void feed_column(const struct block_search *s, const float *scale, const float *inverse,
                        int j, int end, float *x, float *q)
{
    const float *u = s->u + (size_t)j * (size_t)s->n;
    float *error = x + (size_t)j * LANES, *to = q + (size_t)j * LANES;
    block_search_round(&s->form, error, inverse, to);
    for (int i = 0; i < LANES; i++)
        error[i] = (error[i] - scale[i] * to[i]) * s->inverse_u[j];
    for (int c = j + 1; c < end; c++)
        for (int i = 0; i < LANES; i++)
            x[(size_t)c * LANES + (size_t)i] -= error[i] * u[c];
}

static void feed_block(const struct block_search *s, struct block_band *band, int first)
{
    int block = s->form.block;
    float inverse[LANES], *scale = band->scale + (size_t)(first / block) * LANES;
    block_search_scale(&s->form, s->fed_weight + first, band->x + (size_t)first * LANES,
                       s->recipe.rounds, scale, &band->fits);
    block_search_invert(scale, inverse);
    for (int j = first; j < first + block; j++)
        feed_column(s, scale, inverse, j, first + block, band->x, band->q);
}

void block_search_feed(const struct block_search *s, struct block_band *band)
{
    int block = s->form.block;
    for (int start = 0; start < s->n; start += WIDEST) {
        int end = start + WIDEST < s->n ? start + WIDEST : s->n;
        for (int first = start; first < end; first += block) {
            feed_block(s, band, first);
            carry(s, band, first, block, end);
        }
        carry(s, band, start, end - start, curvature_end(s->k, end - 1));
    }
}
