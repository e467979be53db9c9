/* How fast this machine reads memory: what products with large matrices are held against. */
#ifndef SBIT_COMMON_READ_SPEED_H
#define SBIT_COMMON_READ_SPEED_H

#include <stdint.h>

#include "common/error.h"

/* *bytes_per_s = the best of several readings, for at least seconds, of a buffer far larger than any
 * cache by that many threads together, each its own part; one thread's reading is counted by its
 * processor time, so that other programs disturb less. The buffer (256 MiB, less where the machine
 * has little memory) is given back. Errors: ERR_MEMORY. */
enum status read_speed(uint32_t threads, double seconds, double *bytes_per_s, struct error *e);

#endif
