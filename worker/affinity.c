/* CPU masks. Owns nothing; must never know what the threads compute. */
#define _GNU_SOURCE /* sched_setaffinity, CPU_COUNT */
#include "worker/affinity.h"

#include <sched.h>
#include <unistd.h>

void affinity_widen(int threads)
{
    cpu_set_t mask;
    CPU_ZERO(&mask);
    if (sched_getaffinity(0, sizeof mask, &mask) != 0 || CPU_COUNT(&mask) >= threads)
        return;
    long online = sysconf(_SC_NPROCESSORS_CONF);
    for (long cpu = 0; cpu < online && cpu < CPU_SETSIZE; cpu++)
        CPU_SET((size_t)cpu, &mask);
    /* The kernel drops the CPUs that are offline or outside the process' cgroup. */
    (void)sched_setaffinity(0, sizeof mask, &mask);
}
