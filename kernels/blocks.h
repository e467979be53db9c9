/* Packed layouts that the kernels read: weight blocks of the file and rows of prepared activations,
 * with the sizes that follow from them. Knows no arithmetic beyond taking a block apart. */
#ifndef SBIT_KERNELS_BLOCKS_H
#define SBIT_KERNELS_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/half.h"
#include "kernels/kernels.h"

/* Weight blocks (GGUF types 8, 2, 41 and 42); byte arrays throughout, since a mapped file may put them
 * at any address:
 *
 *   Q8_0  | d F16 | q0 q1 ... q31                 int8      |  34 bytes, 32 weights d * q
 *   Q4_0  | d F16 | q16:q0 q17:q1 ... q31:q15     high:low  |  18 bytes, 32 weights d * (q - 8)
 *   Q1_0  | d F16 | b7..b0 b15..b8 ... b127..b120 bits      |  18 bytes, 128 weights bit ? d : -d
 *   Q2_0  | d F16 | q3q2q1q0 q7q6q5q4 ... q63q62q61q60 2 bits| 18 bytes, 64 weights d * (q - 1)
 */
#define BLOCK_WEIGHTS      32  /* weights that share one activation scale */
#define BLOCK_MAX_WEIGHTS 128 /* of a block: Q1_0 has 128, Q2_0 64, the others 32 */

struct block_q8_0 {
    uint8_t d[2];
    int8_t q[32];
};
struct block_q4_0 {
    uint8_t d[2];
    uint8_t q[16];
};
struct block_q1_0 {
    uint8_t d[2];
    uint8_t bits[16];
};
struct block_q2_0 {
    uint8_t d[2];
    uint8_t q[16];
};
_Static_assert(sizeof(struct block_q8_0) == 34, "layout of the file");
_Static_assert(sizeof(struct block_q4_0) == 18, "layout of the file");
_Static_assert(sizeof(struct block_q1_0) == 18, "layout of the file");
_Static_assert(sizeof(struct block_q2_0) == 18, "layout of the file");

/* Prepared activations. Every section starts at a multiple of 64 bytes and is filled up with zeros.
 *
 *   F32 F16 BF16    | float x[cols] |
 *
 *   other blocks    | float scale[nb] | int32 sum[nb] | int8 q[32 nb] |        nb = cols / 32
 *                   sum[b] is the sum of block b's q, for kernels that make weights unsigned
 *
 *   CODE            | struct code_act | int8 q[cols] then at least 64 zeros |
 */
#define CODE_OUTLIERS 64 /* most channels kept apart */

struct code_act {
    float scale;                    /* of q */
    int32_t sum;                    /* of all q */
    int32_t count;                  /* channels kept apart, whose q is 0 */
    int32_t channel[CODE_OUTLIERS]; /* ascending */
    float value[CODE_OUTLIERS];     /* x * in of that channel */
    uint8_t zero[52];
};
_Static_assert(sizeof(struct code_act) == 576, "a multiple of 64");

struct block_act { /* a prepared row of the block types, taken apart */
    const float *scale;
    const int32_t *sum;
    const int8_t *q;
};

static inline size_t blocks_align(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static inline struct block_act blocks_act(const void *prepared, int cols)
{
    size_t section = blocks_align((size_t)(cols / BLOCK_WEIGHTS) * 4);
    const uint8_t *base = prepared;
    return (struct block_act){(const float *)base, (const int32_t *)(base + section),
                              (const int8_t *)(base + 2 * section)};
}

static inline const int8_t *blocks_code_q(const void *prepared)
{
    return (const int8_t *)prepared + sizeof(struct code_act);
}

static inline int blocks_groups(const struct matrix *m)
{
    return (m->cols + m->d - 1) / m->d;
}

/* The 64 index bytes of a group for the band that holds row. */
static inline const uint8_t *blocks_band(const struct matrix *m, int row, int group)
{
    size_t band = (size_t)row / MATRIX_BAND;
    size_t groups = (size_t)blocks_groups(m);
    return (const uint8_t *)m->data + (band * groups + (size_t)group) * MATRIX_BAND;
}

/* Bytes and weights of one weight block; weights is 1 for the float types. */
static inline size_t blocks_bytes(enum matrix_type type)
{
    static const uint8_t bytes[MATRIX_TYPES] = {4, 2, 2, 34, 18, 18, 18, 0};
    return bytes[type];
}

static inline int blocks_weights(enum matrix_type type)
{
    static const uint8_t weights[MATRIX_TYPES] = {1, 1, 1, 32, 32, 128, 64, 1};
    return weights[type];
}

static inline const uint8_t *blocks_row(const struct matrix *m, int row)
{
    size_t row_bytes = (size_t)(m->cols / blocks_weights(m->type)) * blocks_bytes(m->type);
    return (const uint8_t *)m->data + (size_t)row * row_bytes;
}

/* w[0..weights) = the integers of a weight block; returns its scale. */
static inline float blocks_decode(enum matrix_type type, const uint8_t *block, int8_t *w)
{
    const uint8_t *q = block + 2;
    if (type == MATRIX_Q8_0)
        memcpy(w, q, BLOCK_WEIGHTS);
    for (int j = 0; type == MATRIX_Q4_0 && j < 16; j++) {
        w[j] = (int8_t)((q[j] & 15) - 8);
        w[j + 16] = (int8_t)((q[j] >> 4) - 8);
    }
    for (int j = 0; type == MATRIX_Q1_0 && j < 128; j++)
        w[j] = (int8_t)((q[j / 8] >> j % 8 & 1) * 2 - 1);
    for (int j = 0; type == MATRIX_Q2_0 && j < 64; j++)
        w[j] = (int8_t)((q[j / 4] >> 2 * (j % 4) & 3) - 1);
    return half_to_float(half_load(block, 0));
}

#endif
