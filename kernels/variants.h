/* Declarations of every variant of every kernel, for dispatch.c and the files that define them.
 * Naming: kernels_OP_ISA lives in kernels/[ISA family/]FILE_ISA.c. A missing variant inherits the
 * level below. */
#ifndef SBIT_KERNELS_VARIANTS_H
#define SBIT_KERNELS_VARIANTS_H

#include "kernels/kernels.h"

#define KERNELS_PREPARE(name) void name(const struct matrix *m, const float *x, void *prepared)
#define KERNELS_PRODUCT(name)                                                                      \
    void name(const struct matrix *m, const void *prepared, const float *x, int tokens,            \
              int row_first, int row_count, float *y, size_t y_stride)
#define KERNELS_BY_TABLES(name) bool name(const struct matrix *m, int tokens)
#define KERNELS_RMS_NORM(name)                                                                     \
    void name(float *y, const float *x, const float *weight, int n, float eps)
#define KERNELS_ATTENTION(name)                                                                    \
    void name(float *out, const float *q, int heads, const struct kv *kv, float scale,             \
              float *scores)
#define KERNELS_SWIGLU(name) void name(float *gate, const float *up, int n)
#define KERNELS_TO_F16(name) void name(uint16_t *h, const float *x, int n)
#define KERNELS_TO_Q8(name)  void name(int8_t *q, uint16_t *d, const float *x, int n)

/* The groups in which levels bring variants. */
#define KERNELS_VECTORS(isa)                                                                       \
    KERNELS_PREPARE(kernels_prepare_block_##isa);                                                  \
    KERNELS_PREPARE(kernels_prepare_code_##isa);                                                   \
    KERNELS_PRODUCT(kernels_product_f32_##isa);                                                    \
    KERNELS_PRODUCT(kernels_product_f16_##isa);                                                    \
    KERNELS_PRODUCT(kernels_product_bf16_##isa);                                                   \
    KERNELS_RMS_NORM(kernels_rms_norm_##isa);                                                      \
    KERNELS_ATTENTION(kernels_attention_##isa);                                                    \
    KERNELS_SWIGLU(kernels_swiglu_##isa);                                                          \
    KERNELS_TO_F16(kernels_to_f16_##isa)
#define KERNELS_BLOCKS(isa)                                                                        \
    KERNELS_PRODUCT(kernels_product_q8_0_##isa);                                                   \
    KERNELS_PRODUCT(kernels_product_q4_0_##isa);                                                   \
    KERNELS_PRODUCT(kernels_product_q1_0_##isa);                                                   \
    KERNELS_PRODUCT(kernels_product_q2_0_##isa)
#define KERNELS_CODE(isa)   KERNELS_PRODUCT(kernels_product_code_##isa)
#define KERNELS_TABLES(isa) KERNELS_BY_TABLES(kernels_code_by_tables_##isa)

KERNELS_VECTORS(scalar);
KERNELS_BLOCKS(scalar);
KERNELS_CODE(scalar);
KERNELS_TABLES(scalar);
KERNELS_VECTORS(avx2);
KERNELS_BLOCKS(avx2);
KERNELS_CODE(avx2);
KERNELS_TABLES(avx2);
KERNELS_VECTORS(avx512);
KERNELS_CODE(avx512);
KERNELS_TABLES(avx512);
KERNELS_BLOCKS(avx512vnni);
KERNELS_CODE(avx512vnni);
KERNELS_TABLES(avx512vnni);
KERNELS_VECTORS(neon);
KERNELS_BLOCKS(neon);
KERNELS_CODE(neon);
KERNELS_TABLES(neon);
KERNELS_BLOCKS(dotprod);
KERNELS_CODE(dotprod);
KERNELS_CODE(i8mm);

/* One variant is enough: copies, or work that compilers vectorise by themselves. */
KERNELS_PREPARE(kernels_prepare_float);
void kernels_matrix_row(const struct matrix *m, int r, float *out);
void kernels_rope(float *x, int heads, int head_dim, int pairs, bool interleaved,
                  const float *cosine, const float *sine);
void kernels_add(float *y, const float *x, int n);
KERNELS_TO_Q8(kernels_to_q8);

#endif
