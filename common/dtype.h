/* Element types of tensors: the GGUF (ggml) types that sbit knows, their block geometry, and the
 * conversions to and from float that file handling needs. Numbers are the GGUF type ids
 * (ggml-org/ggml docs/gguf.md, enum ggml_type). */
#ifndef SBIT_COMMON_DTYPE_H
#define SBIT_COMMON_DTYPE_H

#include <stdint.h>

#include "common/error.h"

enum dtype {
    DTYPE_F32 = 0,
    DTYPE_F16 = 1,
    DTYPE_Q4_0 = 2, /* 32 weights: F16 scale, 16 bytes; low nibbles first; value (q - 8) * d */
    DTYPE_Q8_0 = 8, /* 32 weights: F16 scale, 32 int8 */
    DTYPE_I8 = 24,
    DTYPE_I16 = 25,
    DTYPE_I32 = 26,
    DTYPE_BF16 = 30,
    DTYPE_Q1_0 = 41, /* 128 weights: F16 scale, 16 bytes of signs, LSB first, 1 means +d */
    DTYPE_Q2_0 = 42, /* 64 weights: F16 scale, 16 bytes of 2 bits, lowest first; value (q - 1) * d */
};

struct dtype_info {
    const char *name;     /* "Q8_0" */
    uint32_t block;       /* elements per block */
    uint32_t block_bytes; /* bytes per block */
};

/* Facts about a type; NULL for an id that sbit does not know. */
const struct dtype_info *dtype_info(uint32_t dtype);

/* Bytes of a row of cols elements. Errors: ERR_UNSUPPORTED for an unknown type, ERR_FORMAT when
 * cols is no multiple of the block or the size overflows. */
enum status dtype_row_bytes(uint32_t dtype, uint64_t cols, uint64_t *bytes, struct error *e);

/* dst[0..n) = the values of n elements stored at src (any alignment). n is a multiple of the block.
 * Types: F32, F16, BF16, Q8_0, Q4_0, Q1_0, Q2_0, I8. */
void dtype_to_f32(enum dtype dtype, const void *src, uint64_t n, float *dst);

/* IEEE 754 binary16 <-> binary32; f32_to_f16 rounds to nearest even, overflows to infinity. */
float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);
/* bfloat16: the upper half of a binary32; f32_to_bf16 rounds to nearest even. */
float bf16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float f);

#endif
