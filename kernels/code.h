/* What all variants of the byte-code product share: looking up one weight, and the channels kept
 * apart. A row ends as y = out * fmaf(scale, sum, apart), sum the exact integer sum. */
#ifndef SBIT_KERNELS_CODE_H
#define SBIT_KERNELS_CODE_H

#include <math.h>

#include "kernels/blocks.h"

#define CODE_WORDS 128 /* codewords; bit 7 of an index negates */

/* The k-th integer of the codeword that index chooses. */
static inline int code_weight(const struct matrix *m, uint8_t index, int k)
{
    int w = m->codebook[(index & 127) * m->d + k];
    return index & 128 ? -w : w;
}

/* apart[0..count) = the channels kept apart times their weights in rows row.., folded in channel
 * order from 0. row is a multiple of MATRIX_BAND, count at most that. */
static inline void code_apart(const struct matrix *m, const struct code_act *act, int row,
                              int count, float *apart)
{
    for (int i = 0; i < count; i++)
        apart[i] = 0.0f;
    for (int o = 0; o < act->count; o++) {
        const uint8_t *index = blocks_band(m, row, act->channel[o] / m->d);
        for (int i = 0; i < count; i++) {
            int w = code_weight(m, index[i], act->channel[o] % m->d);
            apart[i] = fmaf((float)w, act->value[o], apart[i]);
        }
    }
}

#endif
