/* Facts about this process and its machine. */
#ifndef SBIT_COMMON_SYSINFO_H
#define SBIT_COMMON_SYSINFO_H

#include <stdint.h>

/* Name of this host, terminated; "unknown" when the system does not tell. */
void sysinfo_host(char out[128]);
/* Cores that this process may use (its affinity mask), at least 1. */
uint32_t sysinfo_cores(void);
/* Physical memory of the machine in bytes; 0 when unknown. */
uint64_t sysinfo_ram(void);
/* Memory that programs could still take, in bytes (MemAvailable of /proc/meminfo); 0 when unknown. */
uint64_t sysinfo_available(void);
/* Peak resident set of this process in bytes (VmHWM of /proc/self/status); 0 when unknown. */
uint64_t sysinfo_peak_rss(void);
/* Seconds in which this thread could have run but another had the CPU; 0 when unknown. */
double sysinfo_waited(void);

#endif
