/* What this CPU and operating system can run. Knows instruction sets, no kernels. */
#ifndef SBIT_KERNELS_CPU_H
#define SBIT_KERNELS_CPU_H

enum cpu_level { /* ascending; each includes the ones below on its architecture */
                 CPU_SCALAR,
                 CPU_AVX2,   /* AVX2, FMA, F16C: Haswell (2013), Zen */
                 CPU_AVX512, /* F, BW, VL, DQ, VNNI, VBMI together: Ice Lake (2019), Zen 4 */
                 CPU_LEVELS
};

/* The highest level that this build contains and this CPU and operating system run. */
enum cpu_level cpu_best(void);

/* "scalar", "avx2", "avx512" */
const char *cpu_name(enum cpu_level level);

#endif
