/* Memory with checked sizes. Every size that comes from a file passes through here. */
#ifndef SBIT_COMMON_MEM_H
#define SBIT_COMMON_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/* *out = a * b; false when it does not fit 64 bits. */
static inline bool mul_fits(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

/* *out = a + b; false when it does not fit 64 bits. */
static inline bool add_fits(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

/* *out = zeroed array of count elements of size bytes, 64-byte aligned, to be freed with free().
 * count 0 gives a valid pointer to nothing. Errors: ERR_MEMORY (what names the purpose). */
enum status mem_array(void *out, size_t count, size_t size, const char *what, struct error *e);

/* *out = copy of text, to be freed with free(). */
enum status mem_string(char **out, const char *text, struct error *e);

#endif
