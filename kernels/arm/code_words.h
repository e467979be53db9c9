/* What the byte-code products on NEON share. The codewords, negated ones included, are stored
 * as 256 words of 8 bytes (d <= 8) or 16, zeros behind the last weight; so an index byte is one load
 * and as many multiplications as the word has registers. A table of their products with the
 * activations, as on x86, costs as many instructions per byte here, and has to be built.
 * Activations behind a group belong to the next one, or are zeros (blocks.h), and meet the zeros of
 * the word. */
#ifndef SBIT_KERNELS_ARM_CODE_WORDS_H
#define SBIT_KERNELS_ARM_CODE_WORDS_H

#include "kernels/arm/code_sums.h"
#include "kernels/correction.h"
#include "kernels/variants.h"

#define WORD 16 /* bytes of the longest word */

struct words {
    _Alignas(16) int8_t word[2 * CODE_WORDS * WORD]; /* [256][width] */
    int width;
};

static inline void words_fill(const struct matrix *m, struct words *words)
{
    static const int8_t lane[WORD] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    uint8x16_t inside = vcltq_s8(vld1q_s8(lane), vdupq_n_s8((int8_t)m->d));
    int bytes = CODE_WORDS * m->d;
    words->width = m->d <= 8 ? 8 : 16;
    for (int w = 0; w < CODE_WORDS; w++) {
        const int8_t *from = m->codebook + w * m->d;
        int8_t last[WORD] = {0}, *to = words->word + w * words->width;
        if (bytes - w * m->d < WORD)
            from = memcpy(last, from, (size_t)(bytes - w * m->d));
        int8x16_t word = vandq_s8(vld1q_s8(from), vreinterpretq_s8_u8(inside));
        int8x16_t negated = vnegq_s8(word);
        vst1_s8(to, vget_low_s8(word));
        vst1_s8(to + CODE_WORDS * words->width, vget_low_s8(negated));
        if (words->width == 16) {
            vst1_s8(to + 8, vget_high_s8(word));
            vst1_s8(to + CODE_WORDS * words->width + 8, vget_high_s8(negated));
        }
    }
}

/* code_apart of code.h, by look-up. */
static inline void apart_add(const struct matrix *m, const struct words *words,
                             const struct code_act *act, int row, int count, float *apart)
{
    for (int i = 0; i < count; i++)
        apart[i] = 0.0f;
    for (int o = 0; o < act->count; o++) {
        const uint8_t *index = blocks_band(m, row, act->channel[o] / m->d);
        const int8_t *word = words->word + act->channel[o] % m->d;
        for (int i = 0; i < count; i++)
            apart[i] = fmaf((float)word[index[i] * words->width], act->value[o], apart[i]);
    }
}

/* Rows [row, row + rows) of one band become results: y = out * fma(scale, sum, apart). */
static inline void finish(const struct matrix *m, const struct words *words,
                          const struct code_act *act, int row, int rows,
                          const int32_t sums[MATRIX_BAND], float *y)
{
    float apart[MATRIX_BAND] = {0}, result[4];
    apart_add(m, words, act, row, rows, apart);
    for (int i = 0; i < rows; i += 4) {
        size_t left = (size_t)(rows - i < 4 ? rows - i : 4);
        uint16_t half[4] = {0};
        memcpy(half, (const uint8_t *)m->out + 2 * (size_t)(row + i), left * sizeof *half);
        float32x4_t out = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(half)));
        float32x4_t sum = vcvtq_f32_s32(vld1q_s32(sums + i));
        sum = vfmaq_f32(vld1q_f32(apart + i), vdupq_n_f32(act->scale), sum);
        vst1q_f32(result, vmulq_f32(out, sum));
        memcpy(y + i, result, left * sizeof *y);
    }
}

#endif
