/* Small files for tests: written into the test's own folder, read whole. */
#ifndef SBIT_TESTS_UNIT_TEST_FILES_H
#define SBIT_TESTS_UNIT_TEST_FILES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/error.h"

static inline void test_write(const char *path, const void *data, size_t size)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

/* The whole file, free(). */
static inline uint8_t *test_read(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    uint8_t *data = malloc(*size + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *size, f), *size);
    fclose(f);
    return data;
}

/* The call failed with that status and its sentence says that. */
static inline void test_refused(enum status got, enum status want, const struct error *e,
                                const char *says)
{
    if (got != want || e->status != want || !strstr(e->text, says))
        fail_msg("status %d with \"%s\", expected %d with \"%s\"", got, e->text, want, says);
}

static inline void test_ok(enum status got, const struct error *e)
{
    if (got != OK)
        fail_msg("unexpected: %s", e->text);
}

#endif
