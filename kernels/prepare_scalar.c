/* Activations to int8, the specification: kernels/README.md, "Activations". */
#include <math.h>
#include <string.h>

#include "kernels/prepare.h"
#include "kernels/reduce.h"
#include "kernels/variants.h"

static uint32_t magnitude(float x)
{
    return half_float_bits(x) & 0x7fffffff;
}

void kernels_prepare_block_scalar(const struct matrix *m, const float *x, void *prepared)
{
    memset(prepared, 0, act_bytes(m));
    struct block_act act = blocks_act(prepared, m->cols);
    float *scales = (float *)act.scale;
    int32_t *sums = (int32_t *)act.sum;
    int8_t *q = (int8_t *)act.q;
    for (int b = 0; b < m->cols / BLOCK_WEIGHTS; b++) {
        const float *block = x + b * BLOCK_WEIGHTS;
        uint32_t max = 0;
        for (int j = 0; j < BLOCK_WEIGHTS; j++)
            max = magnitude(block[j]) > max ? magnitude(block[j]) : max;
        float inverse;
        scales[b] = prepare_scale(max, &inverse);
        for (int j = 0; j < BLOCK_WEIGHTS; j++) {
            q[b * BLOCK_WEIGHTS + j] = prepare_int8(block[j], inverse);
            sums[b] += q[b * BLOCK_WEIGHTS + j];
        }
    }
}

static float scaled_channel(const struct matrix *m, const float *x, int c)
{
    return m->in ? x[c] * half_to_float(half_load(m->in, (size_t)c)) : x[c];
}

/* PREPARE_THRESHOLD times the mean magnitude of the channels that are not above most. */
static float threshold(const struct matrix *m, const float *x, float most)
{
    float sum[LANES] = {0};
    int count = 0;
    for (int c = 0; c < m->cols; c++) {
        float z = fabsf(scaled_channel(m, x, c));
        if (z > most)
            continue;
        sum[c % LANES] += z;
        count++;
    }
    return PREPARE_THRESHOLD * (reduce_fold(sum) / (float)count);
}

static void keep_apart(const struct matrix *m, const float *x, struct code_act *act)
{
    float limit = threshold(m, x, threshold(m, x, INFINITY));
    for (int c = 0; c < m->cols; c++) {
        float z = scaled_channel(m, x, c);
        if (fabsf(z) > limit)
            prepare_offer(act, c, z);
    }
}

void kernels_prepare_code_scalar(const struct matrix *m, const float *x, void *prepared)
{
    memset(prepared, 0, act_bytes(m));
    struct code_act *act = prepared;
    int8_t *q = (int8_t *)blocks_code_q(prepared);
    keep_apart(m, x, act);
    uint32_t max = 0;
    for (int c = 0, i = 0; c < m->cols; c++) {
        if (i < act->count && act->channel[i] == c) {
            i++;
            continue;
        }
        uint32_t bits = magnitude(scaled_channel(m, x, c));
        max = bits > max ? bits : max;
    }
    float inverse;
    act->scale = prepare_scale(max, &inverse);
    for (int c = 0, i = 0; c < m->cols; c++) {
        if (i < act->count && act->channel[i] == c) {
            i++;
            continue;
        }
        q[c] = prepare_int8(scaled_channel(m, x, c), inverse);
        act->sum += q[c];
    }
}
