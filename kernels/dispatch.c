/* The table of kernels: scalar first, then each level that may run overwrites what it does better.
 * The only global state of this folder. */
#include "kernels/kernels.h"

#include <string.h>

#include "kernels/cpu.h"
#include "kernels/variants.h"

struct kernels kernels;

/* All that a level may bring. */
#define FILL_LEVEL(isa)                                                                            \
    do {                                                                                           \
        for (int type = MATRIX_Q8_0; type <= MATRIX_Q1_0; type++)                                  \
            kernels.prepare[type] = kernels_prepare_block_##isa;                                   \
        kernels.prepare[MATRIX_CODE] = kernels_prepare_code_##isa;                                 \
        kernels.product[MATRIX_F32] = kernels_product_f32_##isa;                                   \
        kernels.product[MATRIX_F16] = kernels_product_f16_##isa;                                   \
        kernels.product[MATRIX_BF16] = kernels_product_bf16_##isa;                                 \
        kernels.product[MATRIX_Q8_0] = kernels_product_q8_0_##isa;                                 \
        kernels.product[MATRIX_Q4_0] = kernels_product_q4_0_##isa;                                 \
        kernels.product[MATRIX_Q1_0] = kernels_product_q1_0_##isa;                                 \
        kernels.product[MATRIX_CODE] = kernels_product_code_##isa;                                 \
        kernels.rms_norm = kernels_rms_norm_##isa;                                                 \
        kernels.attention = kernels_attention_##isa;                                               \
        kernels.swiglu = kernels_swiglu_##isa;                                                     \
        kernels.to_f16 = kernels_to_f16_##isa;                                                     \
    } while (0)

static void fill_scalar(void)
{
    for (int type = 0; type < MATRIX_TYPES; type++) {
        kernels.prepare[type] = kernels_prepare_float;
        kernels.row[type] = kernels_matrix_row;
    }
    kernels.rope = kernels_rope;
    kernels.add = kernels_add;
    FILL_LEVEL(scalar);
}

#if defined(__x86_64__)
static void fill_x86(enum cpu_level level)
{
    if (level >= CPU_AVX2)
        FILL_LEVEL(avx2);
    if (level >= CPU_AVX512)
        FILL_LEVEL(avx512);
}
#endif

static const char *find_level(const char *mask, enum cpu_level *level)
{
    enum cpu_level best = cpu_best();
    *level = best;
    if (!mask)
        return NULL;
    for (int i = 0; i < CPU_LEVELS; i++)
        if (!strcmp(mask, cpu_name((enum cpu_level)i))) {
            *level = (enum cpu_level)i;
            return *level <= best
                       ? NULL
                       : "SBIT_CPU names an instruction set that this CPU or build lacks; "
                         "unset it or choose a lower level (sbit --version lists them)";
        }
    return "SBIT_CPU names an unknown instruction set; use scalar, avx2 or avx512, or unset it";
}

const char *kernels_init(const char *mask)
{
    enum cpu_level level;
    const char *problem = find_level(mask, &level);
    if (problem)
        return problem;
    fill_scalar();
#if defined(__x86_64__)
    fill_x86(level);
#endif
    kernels.variant = cpu_name(level);
    return NULL;
}

const char *const *kernels_levels(void)
{
    static const char *names[CPU_LEVELS + 1];
    int best = (int)cpu_best();
    for (int i = 0; i <= best; i++)
        names[i] = cpu_name((enum cpu_level)i);
    names[best + 1] = NULL;
    return names;
}
