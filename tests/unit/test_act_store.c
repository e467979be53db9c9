/* Activations at rest: what is read is what was written, in memory and on disk; disks too small are
 * refused at once, with their folder, the bytes and what to do. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "tests/unit/test_files.h"
#include "worker/act_store.h"

enum { FLOATS = 100003, PARTS = 500, LONGEST = 3000 };

#define SEED 77u

static uint32_t next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static struct act_store *create(size_t floats, bool on_disk)
{
    struct act_store *s;
    struct error e = {0};
    test_ok(act_store_create(&s, floats, on_disk, "activations", &e), &e);
    assert_int_equal(act_store_on_disk(s), on_disk);
    return s;
}

/* Patterns of any bits, since floats must not be touched: also what is no number. */
static void fill(float *x, size_t n, uint32_t *state)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = next(state) << 8 ^ next(state);
        memcpy(x + i, &bits, sizeof bits);
    }
}

static void check(const struct act_store *s, const float *want, size_t first, size_t count)
{
    static float read[LONGEST], room[LONGEST];
    const float *view;
    struct error e = {0};
    test_ok(act_store_read(s, first, count, read, &e), &e);
    test_ok(act_store_view(s, first, count, room, &view, &e), &e);
    assert_memory_equal(read, want + first, count * sizeof *want);
    assert_memory_equal(view, want + first, count * sizeof *want);
}

static void parts_come_back(void **state)
{
    (void)state;
    uint32_t seed = SEED;
    print_message("seed %u\n", seed);
    for (int on_disk = 0; on_disk < 2; on_disk++) {
        struct act_store *s = create(FLOATS, on_disk);
        float *want = calloc(FLOATS, sizeof *want);
        check(s, want, FLOATS - LONGEST, LONGEST); /* zeros at first */
        for (int i = 0; i < PARTS; i++) {
            size_t count = next(&seed) % (LONGEST + 1), first = next(&seed) % (FLOATS - count + 1);
            struct error e = {0};
            fill(want + first, count, &seed);
            test_ok(act_store_write(s, first, count, want + first, &e), &e);
            first = next(&seed) % (FLOATS - LONGEST + 1);
            check(s, want, first, LONGEST);
        }
        free(want);
        act_store_free(s);
    }
}

static void beyond_is_refused(void **state)
{
    (void)state;
    float x[2] = {0};
    const float *view;
    for (int on_disk = 0; on_disk < 2; on_disk++) {
        struct act_store *s = create(10, on_disk);
        struct error e = {0};
        test_refused(act_store_read(s, 9, 2, x, &e), ERR_LIMIT, &e, "9 + 2");
        memset(&e, 0, sizeof e);
        test_refused(act_store_write(s, 11, 0, x, &e), ERR_LIMIT, &e, "11 + 0");
        memset(&e, 0, sizeof e);
        test_refused(act_store_view(s, 0, SIZE_MAX, x, &view, &e), ERR_LIMIT, &e, "beyond");
        act_store_free(s);
        act_store_free(create(0, on_disk));
    }
}

static void size_beyond_any_machine(void **state)
{
    (void)state;
    for (int on_disk = 0; on_disk < 2; on_disk++) {
        struct act_store *s;
        struct error e = {0};
        test_refused(act_store_create(&s, SIZE_MAX / 3, on_disk, "activations", &e), ERR_MEMORY, &e,
                     "activations");
    }
}

static void folder_is_named(void **state)
{
    (void)state;
    struct act_store *s;
    struct error e = {0};
    setenv("TMPDIR", SBIT_TEST_DIR "/none", 1);
    test_refused(act_store_create(&s, 1000, true, "activations of a text", &e), ERR_IO, &e,
                 "cannot create a temporary file in " SBIT_TEST_DIR
                 "/none for the activations of a text, 4000 bytes (set TMPDIR");
    setenv("TMPDIR", SBIT_TEST_DIR, 1);
    act_store_free(create(1000, true));
}

/* A limit of the file size refuses as a full disk does; nothing is left in the folder. */
static void full_disk_is_refused_at_once(void **state)
{
    (void)state;
    struct rlimit before, small = {100000, RLIM_INFINITY};
    struct act_store *s;
    struct error e = {0};
    setenv("TMPDIR", SBIT_TEST_DIR, 1);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small.rlim_max = before.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    enum status status = act_store_create(&s, 30000, true, "activations", &e);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    test_refused(status, ERR_IO, &e, "for the activations, 120000 bytes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_come_back),
        cmocka_unit_test(beyond_is_refused),
        cmocka_unit_test(size_beyond_any_machine),
        cmocka_unit_test(folder_is_named),
        cmocka_unit_test(full_disk_is_refused_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
