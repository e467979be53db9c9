/* Random numbers of the tests and their benchmarks: one sequence per program, from random_state, which a test may
 * set anew. The same on every machine. */
#ifndef SBIT_TESTS_RANDOM_H
#define SBIT_TESTS_RANDOM_H

#include <math.h>
#include <stdint.h>

static uint64_t random_state;

/* splitmix64 (Steele, Lea, Flood 2014) */
static inline uint64_t random_next(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* In [-1, 1). */
static inline float random_uniform(void)
{
    return (float)(random_next() >> 40) * 0x1p-23f - 1;
}

/* Of mean 0 and variance 1 (Box, Muller 1958). */
static inline float random_gaussian(void)
{
    double u = (double)((random_next() >> 11) + 1) * 0x1p-53,
           v = (double)(random_next() >> 11) * 0x1p-53;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

#endif
