/* Facts about this process and its machine, from Linux' own interfaces. */
#define _GNU_SOURCE
#include "common/sysinfo.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void sysinfo_host(char out[128])
{
    if (gethostname(out, 128) != 0)
        snprintf(out, 128, "unknown");
    out[127] = 0;
}

uint32_t sysinfo_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return (uint32_t)CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (uint32_t)n : 1;
}

uint64_t sysinfo_ram(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : 0;
}

/* The number in the line that begins with name, which is in kB, in bytes; 0 when there is none. */
static uint64_t read_kib(const char *path, const char *name)
{
    unsigned long long kib = 0;
    char line[256];
    FILE *f = fopen(path, "r");
    if (!f)
        return 0;
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, name, strlen(name)) && sscanf(line + strlen(name), "%llu", &kib) == 1)
            break;
    fclose(f);
    return (uint64_t)kib * 1024;
}

uint64_t sysinfo_available(void)
{
    return read_kib("/proc/meminfo", "MemAvailable:");
}

uint64_t sysinfo_peak_rss(void)
{
    return read_kib("/proc/self/status", "VmHWM:");
}

double sysinfo_waited(void)
{
    unsigned long long ran, waited = 0;
    FILE *f = fopen("/proc/thread-self/schedstat", "r"); /* nanoseconds */
    if (!f)
        return 0;
    if (fscanf(f, "%llu %llu", &ran, &waited) != 2)
        waited = 0;
    fclose(f);
    return 1e-9 * (double)waited;
}
