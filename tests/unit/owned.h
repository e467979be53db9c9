/* Memory that a test keeps until it ends, and arrays of numbers that are the same in every run. */
#ifndef SBIT_TESTS_OWNED_H
#define SBIT_TESTS_OWNED_H

#include <stddef.h>
#include <stdint.h>

/* count zeroed elements of size bytes. Fails the test when there is no room. */
void *keep(size_t count, size_t size);
/* Frees all that keep has given: a teardown of cmocka. */
int release(void **state);

/* 24 bits, a number from -1/2 to 1/2, and n numbers of that spread around mean. */
uint32_t next_bits(void);
float next(void);
float *vector(size_t n, float mean, float spread);

#endif
