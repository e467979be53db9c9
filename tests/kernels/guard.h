/* Buffers between two unmapped pages, so that reading or writing one byte too far crashes. */
#ifndef SBIT_TESTS_KERNELS_GUARD_H
#define SBIT_TESTS_KERNELS_GUARD_H

#include <stddef.h>

struct guard {
    void *data; /* bytes usable bytes */
    size_t bytes;
    void *map;
    size_t map_bytes;
};

/* A zeroed buffer that ends slack bytes before an unmapped page (at_end) or starts slack bytes
 * after one. Exits on failure. */
struct guard guard_alloc(size_t bytes, int at_end, size_t slack);
void guard_free(struct guard *g);

#endif
