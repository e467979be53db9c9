/* Scales and integers of a block for 64 rows at a time, from its weights and one cost per column
 * alone. Must not know where weights and costs come from. */
#include <math.h>
#include <string.h>

#include "worker/search_blocks_private.h"

/* Adding and taking away 1.5 * 2^23 leaves the nearest integer (ties to even) of a small float. */
static const float ROUNDER = 12582912;

void block_search_round(const struct block_form *form, const float *z, const float *inverse,
                        float *q)
{
    float low = form->low, step = form->step, top = form->top, per_step = 1 / step;
    for (int i = 0; i < LANES; i++) {
        float k = (z[i] * inverse[i] - low) * per_step;
        k = k > 0 ? k : 0;
        k = k < top ? k : top;
        k = (k + ROUNDER) - ROUNDER;
        q[i] = low + step * k;
    }
}

void block_search_invert(const float *scale, float *inverse)
{
    for (int i = 0; i < LANES; i++)
        inverse[i] = scale[i] != 0 ? 1 / scale[i] : 0;
}

void block_search_store(float *scale, bool *fits)
{
    for (int i = 0; i < LANES; i++) {
        float stored = f16_to_f32(f32_to_f16(scale[i]));
        if (!isfinite(stored)) {
            *fits = false;
            stored = copysignf(65504, stored); /* the largest F16 */
        }
        scale[i] = stored;
    }
}

static void largest(const float *z, int block, float *most)
{
    memset(most, 0, LANES * sizeof *most);
    for (int j = 0; j < block; j++)
        for (int i = 0; i < LANES; i++) {
            float a = fabsf(z[j * LANES + i]);
            most[i] = a > most[i] ? a : most[i];
        }
}

/* zq = sum of weight z q, qq = sum of weight q^2, with the integers of scale 1 / inverse. */
static void sums(const struct block_form *form, const float *weight, const float *z,
                 const float *inverse, float *zq, float *qq)
{
    memset(zq, 0, LANES * sizeof *zq);
    memset(qq, 0, LANES * sizeof *qq);
    for (int j = 0; j < form->block; j++) {
        float q[LANES];
        block_search_round(form, z + j * LANES, inverse, q);
        for (int i = 0; i < LANES; i++) {
            float wq = weight[j] * q[i];
            zq[i] += wq * z[j * LANES + i];
            qq[i] += wq * q[i];
        }
    }
}

/* sum of weight (z - scale q)^2 falls by zq^2 / qq from that of q = 0 with the best scale, zq / qq.
 */
static void keep_better(const float *zq, const float *qq, float *gain, float *scale)
{
    for (int i = 0; i < LANES; i++) {
        float by = qq[i] > 0 ? zq[i] / qq[i] : 0, g = by * zq[i];
        scale[i] = g > gain[i] ? by : scale[i];
        gain[i] = g > gain[i] ? g : gain[i];
    }
}

void block_search_scale(const struct block_form *form, const float *weight, const float *z,
                        uint32_t rounds, float *scale, bool *fits)
{
    float most[LANES], inverse[LANES], gain[LANES] = {0}, zq[LANES], qq[LANES];
    int count = form->candidates;
    memset(scale, 0, LANES * sizeof *scale);
    largest(z, form->block, most);
    for (int c = 0; c < (form->negative ? 2 * count : count); c++) {
        float part = count > 1 ? (float)(c % count) / (float)(count - 1) : 0;
        float factor = form->first + (form->last - form->first) * part;
        for (int i = 0; i < LANES; i++)
            inverse[i] = most[i] * (c < count ? factor : -factor);
        block_search_invert(inverse, inverse);
        sums(form, weight, z, inverse, zq, qq);
        keep_better(zq, qq, gain, scale);
    }
    for (uint32_t round = 1; round < rounds; round++) {
        block_search_invert(scale, inverse);
        sums(form, weight, z, inverse, zq, qq);
        keep_better(zq, qq, gain, scale);
    }
    block_search_store(scale, fits);
}
