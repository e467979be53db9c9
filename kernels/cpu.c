#include "kernels/cpu.h"

#include <stdbool.h>

const char *cpu_name(enum cpu_level level)
{
    static const char *const names[CPU_LEVELS] = {"scalar", "avx2",    "avx512", "avx512vnni",
                                                  "neon",   "dotprod", "i8mm"};
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
static int detect(enum cpu_level *levels)
{
    int n = 0;
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !has_f16c())
        return n;
    levels[n++] = CPU_AVX2;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq"))
        return n;
    levels[n++] = CPU_AVX512;
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi"))
        levels[n++] = CPU_AVX512VNNI;
    return n;
}

#elif defined(__aarch64__)

#include <sys/auxv.h>

/* What the kernel reports of the CPU (Linux, Documentation/arch/arm64/elf_hwcaps.rst); named here
 * since older headers lack the second. */
#define CAP_ASIMDDP (1ul << 20) /* AT_HWCAP: SDOT, UDOT */
#define CAP2_I8MM   (1ul << 13) /* AT_HWCAP2: SMMLA, USDOT */

/* NEON is part of every AArch64. */
static int detect(enum cpu_level *levels)
{
    int n = 0;
    levels[n++] = CPU_NEON;
    if (!(getauxval(AT_HWCAP) & CAP_ASIMDDP))
        return n;
    levels[n++] = CPU_DOTPROD;
    if (getauxval(AT_HWCAP2) & CAP2_I8MM)
        levels[n++] = CPU_I8MM;
    return n;
}

#else

static int detect(enum cpu_level *levels)
{
    (void)levels;
    return 0;
}

#endif

int cpu_detect(enum cpu_level *levels)
{
    levels[0] = CPU_SCALAR;
    return 1 + detect(levels + 1);
}
