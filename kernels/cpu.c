#include "kernels/cpu.h"

#include <stdbool.h>

const char *cpu_name(enum cpu_level level)
{
    static const char *const names[CPU_LEVELS] = {"scalar", "avx2", "avx512"};
    return names[level];
}

#if defined(__x86_64__)

#include <cpuid.h>

/* clang 14 does not know "f16c" below. F16C needs the same registers as AVX. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C;
}

/* The compilers' own test also asks XGETBV whether the operating system saves the wide
 * registers. */
enum cpu_level cpu_best(void)
{
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
    if (!avx2)
        return CPU_SCALAR;
    return avx512 ? CPU_AVX512 : CPU_AVX2;
}

#else

enum cpu_level cpu_best(void)
{
    return CPU_SCALAR;
}

#endif
