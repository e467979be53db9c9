/* The parts of activation quantisation that no instruction set speeds up, shared by all variants of
 * prepare_*.c: the scale rule and the choice of the channels kept apart. */
#ifndef SBIT_KERNELS_PREPARE_H
#define SBIT_KERNELS_PREPARE_H

#include <float.h>

#include "kernels/blocks.h"

/* A channel is kept apart when its magnitude is above this many means of the ordinary channels' (those
 * that are at most as many means of all): massive channels would raise a plain mean until they hide the
 * merely large ones (docs/activation-scales.md). */
#define PREPARE_THRESHOLD 16.0f

/* From the largest magnitude of a block or row (by bit pattern, so that NaN beats all): scale = max
 * / 127 and its inverse; both 0 when 1 / scale would not be finite. Infinity and NaN become the
 * scale, which carries them into the result. */
static inline float prepare_scale(uint32_t max_bits, float *inverse)
{
    float scale = half_bits_float(max_bits) / 127.0f;
    bool tiny = scale < FLT_MIN;
    *inverse = tiny ? 0.0f : 1.0f / scale;
    return tiny ? 0.0f : scale;
}

/* 1.5 * 2^23: adding it rounds |x| < 2^22 to the nearest even integer. */
#define PREPARE_ROUND_MAGIC 12582912.0f

/* x * inverse as an integer within +-127; NaN becomes -127. */
static inline int8_t prepare_int8(float x, float inverse)
{
    float scaled = x * inverse;
    scaled = scaled > -127.0f ? scaled : -127.0f;
    scaled = scaled < 127.0f ? scaled : 127.0f;
    return (int8_t)((scaled + PREPARE_ROUND_MAGIC) - PREPARE_ROUND_MAGIC);
}

/* Position of the smallest magnitude among the channels kept; of equals the last. */
static inline int prepare_smallest(const struct code_act *act)
{
    int smallest = 0;
    for (int i = 1; i < CODE_OUTLIERS; i++) {
        uint32_t a = half_float_bits(act->value[i]) & 0x7fffffff;
        uint32_t b = half_float_bits(act->value[smallest]) & 0x7fffffff;
        if (a <= b)
            smallest = i;
    }
    return smallest;
}

/* Offers channel c, with |value| above the threshold, to the ones kept apart. Called with c
 * ascending; when more than CODE_OUTLIERS come, the largest stay, of equals the lower channel. */
static inline void prepare_offer(struct code_act *act, int c, float value)
{
    if (act->count == CODE_OUTLIERS) {
        int smallest = prepare_smallest(act);
        uint32_t least = half_float_bits(act->value[smallest]) & 0x7fffffff;
        if ((half_float_bits(value) & 0x7fffffff) <= least)
            return;
        for (int i = smallest; i + 1 < CODE_OUTLIERS; i++) {
            act->channel[i] = act->channel[i + 1];
            act->value[i] = act->value[i + 1];
        }
        act->count--;
    }
    act->channel[act->count] = c;
    act->value[act->count] = value;
    act->count++;
}

#endif
