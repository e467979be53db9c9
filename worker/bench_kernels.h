/* sbit bench kernels: every operation at every level of this CPU, by time and against the memory's
 * read bandwidth, measured in the same run. Knows kernels, not models. */
#ifndef SBIT_WORKER_BENCH_KERNELS_H
#define SBIT_WORKER_BENCH_KERNELS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

struct bench_kernels {
    const char *type; /* only products with this type of matrix; NULL: everything */
    const char *cpu;  /* only this level, and scalar; NULL: all up to the one in use */
    uint32_t threads; /* of the runs with many */
    bool quick;       /* fewer shapes, the best level only, shorter runs */
};

/* Prints a table to stdout as it goes; *report is a new reference to all of it. kernels_init must
 * have been called: its level is the highest measured, and stays in use. Each result is compared
 * with the scalar one. Errors: ERR_USAGE for a level that there is not, ERR_FORMAT naming a kernel
 * whose result differs from the scalar one, ERR_MEMORY. */
enum status bench_kernels(const struct bench_kernels *setup, json_t **report, struct error *e);

#endif
