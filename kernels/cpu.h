/* What this CPU and operating system can run. Knows instruction sets, no kernels. */
#ifndef SBIT_KERNELS_CPU_H
#define SBIT_KERNELS_CPU_H

/* Instruction sets, ascending: on its architecture each includes the ones before. An architecture has
 * scalar and its own. */
enum cpu_level {
    CPU_SCALAR,
    CPU_AVX2,       /* AVX2, FMA, F16C: Haswell (2013), Zen */
    CPU_AVX512,     /* F, BW, VL, DQ: Skylake-X (2017) */
    CPU_AVX512VNNI, /* and VNNI, VBMI: Ice Lake (2019), Zen 4 */
    CPU_NEON,       /* every AArch64: Cortex-A72 (Raspberry Pi 4) */
    CPU_DOTPROD,    /* SDOT, UDOT: Cortex-A76 (Raspberry Pi 5) */
    CPU_I8MM,       /* SMMLA, USDOT: Neoverse V1, Cortex-X2, Apple M2 */
    CPU_LEVELS
};

/* The levels that this build contains and this CPU and operating system run, ascending, scalar
 * first; writes at most CPU_LEVELS and returns how many. */
int cpu_detect(enum cpu_level *levels);

/* "scalar", "avx2", ... */
const char *cpu_name(enum cpu_level level);

#endif
