/* The table of kernels: scalar first, then each level that may run overwrites what it does better.
 * The only global state of this folder. */
#include "kernels/kernels.h"

#include <string.h>

#include "kernels/cpu.h"
#include "kernels/variants.h"

struct kernels kernels;

#define FILL_VECTORS(isa)                                                                          \
    do {                                                                                           \
        for (int type = MATRIX_Q8_0; type < MATRIX_CODE; type++)                                   \
            kernels.prepare[type] = kernels_prepare_block_##isa;                                   \
        kernels.prepare[MATRIX_CODE] = kernels_prepare_code_##isa;                                 \
        kernels.product[MATRIX_F32] = kernels_product_f32_##isa;                                   \
        kernels.product[MATRIX_F16] = kernels_product_f16_##isa;                                   \
        kernels.product[MATRIX_BF16] = kernels_product_bf16_##isa;                                 \
        kernels.rms_norm = kernels_rms_norm_##isa;                                                 \
        kernels.attention = kernels_attention_##isa;                                               \
        kernels.swiglu = kernels_swiglu_##isa;                                                     \
        kernels.to_f16 = kernels_to_f16_##isa;                                                     \
    } while (0)

#define FILL_BLOCKS(isa)                                                                           \
    do {                                                                                           \
        kernels.product[MATRIX_Q8_0] = kernels_product_q8_0_##isa;                                 \
        kernels.product[MATRIX_Q4_0] = kernels_product_q4_0_##isa;                                 \
        kernels.product[MATRIX_Q1_0] = kernels_product_q1_0_##isa;                                 \
        kernels.product[MATRIX_Q2_0] = kernels_product_q2_0_##isa;                                 \
    } while (0)

#define FILL_CODE(isa)   kernels.product[MATRIX_CODE] = kernels_product_code_##isa
#define FILL_TABLES(isa) kernels.code_by_tables = kernels_code_by_tables_##isa

static void fill_scalar(void)
{
    for (int type = 0; type < MATRIX_TYPES; type++) {
        kernels.prepare[type] = kernels_prepare_float;
        kernels.row[type] = kernels_matrix_row;
    }
    kernels.rope = kernels_rope;
    kernels.add = kernels_add;
    kernels.to_q8 = kernels_to_q8;
    FILL_VECTORS(scalar);
    FILL_BLOCKS(scalar);
    FILL_CODE(scalar);
    FILL_TABLES(scalar);
}

/* What level does better than the ones before. */
static void fill(enum cpu_level level)
{
    switch (level) {
#if defined(__x86_64__)
    case CPU_AVX2:
        FILL_VECTORS(avx2);
        FILL_BLOCKS(avx2);
        FILL_CODE(avx2);
        FILL_TABLES(avx2);
        break;
    case CPU_AVX512:
        FILL_VECTORS(avx512);
        FILL_CODE(avx512);
        FILL_TABLES(avx512);
        break;
    case CPU_AVX512VNNI:
        FILL_BLOCKS(avx512vnni);
        FILL_CODE(avx512vnni);
        FILL_TABLES(avx512vnni);
        break;
#elif defined(__aarch64__)
    case CPU_NEON:
        FILL_VECTORS(neon);
        FILL_BLOCKS(neon);
        FILL_CODE(neon);
        FILL_TABLES(neon);
        break;
    case CPU_DOTPROD:
        FILL_BLOCKS(dotprod);
        FILL_CODE(dotprod);
        break;
    case CPU_I8MM:
        FILL_CODE(i8mm);
        break;
#endif
    default:
        fill_scalar();
        break;
    }
}

static bool known(const char *mask)
{
    for (int i = 0; i < CPU_LEVELS; i++)
        if (!strcmp(mask, cpu_name((enum cpu_level)i)))
            return true;
    return false;
}

const char *kernels_init(const char *mask)
{
    enum cpu_level levels[CPU_LEVELS];
    int count = cpu_detect(levels), last = count - 1;
    if (mask)
        for (last = 0; last < count && strcmp(mask, cpu_name(levels[last]));)
            last++;
    if (last == count)
        return known(mask) ? "this CPU or build lacks that instruction set; unset it or "
                             "choose a lower level (sbit --version lists them)"
                           : "an unknown instruction set; unset it or choose one that "
                             "sbit --version lists";
    for (int i = 0; i <= last; i++)
        fill(levels[i]);
    kernels.variant = cpu_name(levels[last]);
    return NULL;
}

const char *const *kernels_levels(void)
{
    static const char *names[CPU_LEVELS + 1];
    enum cpu_level levels[CPU_LEVELS];
    int count = cpu_detect(levels);
    for (int i = 0; i < count; i++)
        names[i] = cpu_name(levels[i]);
    names[count] = NULL;
    return names;
}
