/* Fetching weights before they are needed. */
#ifndef SBIT_KERNELS_PREFETCH_H
#define SBIT_KERNELS_PREFETCH_H

#include <stddef.h>
#include <stdint.h>

/* Fetches size bytes from at on, a line each 64, into the second-level cache. For kernels that read
 * several rows side by side: they call it with the rows that follow, in the order of their addresses,
 * as many bytes as they read themselves. The hardware foresees little of many short runs side by side;
 * fetched row by row, or into the first level, such rows came at half the speed of the memory (rows of
 * 2048, Zen 4). at is a number, since past the last row it may point anywhere. */
static inline __attribute__((always_inline)) void prefetch_run(uintptr_t at, size_t size)
{
    for (size_t k = 0; k < size; k += 64)
        __builtin_prefetch((const void *)(at + k), 0, 2);
}

#endif
