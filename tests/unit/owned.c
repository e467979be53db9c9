#include "tests/unit/owned.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/error.h"
#include "common/mem.h"

enum { OWNED_MOST = 64 };

static void *owned[OWNED_MOST];
static int n_owned;

void *keep(size_t count, size_t size)
{
    struct error e = {0};
    void *p = NULL;
    if (n_owned == OWNED_MOST || mem_array(&p, count, size, "test", &e) != OK)
        fail_msg("no room");
    return owned[n_owned++] = p;
}

int release(void **state)
{
    (void)state;
    while (n_owned > 0)
        free(owned[--n_owned]);
    return 0;
}

uint32_t next_bits(void)
{
    static uint32_t generator = 7;
    generator = generator * 1664525u + 1013904223u;
    return generator >> 8;
}

float next(void)
{
    return (float)next_bits() * 0x1p-24f - 0.5f;
}

float *vector(size_t n, float mean, float spread)
{
    float *x = keep(n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = mean + spread * next();
    return x;
}
