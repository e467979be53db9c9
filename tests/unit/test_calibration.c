/* Calibration windows: texts take turns, each window begins with BOS, the limit is kept, and the
 * text inside the program is what models/calibration holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/calibration.h"
#include "coordinator/calibration_text.h"

enum { BOS = 1 };

static const uint32_t a[] = {10, 11, 12, 13, 14, 15, 16}, b[] = {20, 21, 22};

static struct windows text(const uint32_t *ids, uint64_t n, uint32_t context, uint32_t bos)
{
    return (struct windows){ids, n, context, bos};
}

/* The windows of c as text: "1 10 11|1 20 21|". */
static const char *as_text(const struct calibration *c)
{
    static char out[256];
    const uint32_t *token = c->words + c->windows;
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < c->windows; i++)
        for (uint32_t k = 0; k < c->words[i]; k++)
            used += (size_t)snprintf(out + used, sizeof out - used, "%u%s", *token++,
                                     k + 1 < c->words[i] ? " " : "|");
    assert_int_equal(token - c->words, c->n_words);
    assert_int_equal(c->n_words - c->windows, c->tokens);
    return out;
}

static void check(const struct windows *texts, uint32_t n, uint64_t limit, const char *expected)
{
    struct calibration c = {0};
    struct error e = {0};
    assert_int_equal(calibration_mix(&c, texts, n, limit, &e), OK);
    assert_string_equal(as_text(&c), expected);
    assert_true(c.tokens <= limit);
    calibration_free(&c);
}

static void test_turns(void **state)
{
    (void)state;
    struct windows two[] = {text(a, 7, 3, BOS), text(b, 3, 3, BOS)};
    check(two, 1, 100, "1 10 11|1 12 13|1 14 15|1 16|");
    check(two, 2, 100, "1 10 11|1 20 21|1 12 13|1 22|1 14 15|1 16|");
    two[0].bos = two[1].bos = UINT32_MAX;
    /* The seventh token of the first would be alone: a window of one token teaches nothing. */
    check(two, 2, 100, "10 11 12|20 21 22|13 14 15|");
}

static void test_limit(void **state)
{
    (void)state;
    struct windows two[] = {text(a, 7, 3, BOS), text(b, 3, 3, BOS)};
    check(two, 2, 9, "1 10 11|1 20 21|1 12 13|");
    check(two, 2, 8, "1 10 11|1 20 21|1 12|");
    check(two, 2, 7, "1 10 11|1 20 21|");
    check(two, 2, 2, "1 10|");
}

static void test_hash(void **state)
{
    (void)state;
    struct calibration c = {0}, d = {0};
    struct error e = {0};
    struct windows two[] = {text(a, 7, 3, BOS), text(b, 3, 3, BOS)};
    struct windows swapped[] = {two[1], two[0]};
    assert_int_equal(calibration_mix(&c, two, 2, 100, &e), OK);
    assert_int_equal(calibration_mix(&d, swapped, 2, 100, &e), OK);
    assert_int_equal(c.tokens, d.tokens);
    assert_true(c.hash != d.hash && c.hash != 0);
    calibration_free(&c);
    calibration_free(&d);
}

static void test_own_text(void **state)
{
    static char file[1 << 20];
    size_t all = 0;
    (void)state;
    for (size_t i = 0; i < CALIBRATION_TEXTS; i++) {
        struct calibration_text t = calibration_text(i);
        char path[512];
        snprintf(path, sizeof path, "%s/models/calibration/%s.txt", SBIT_SOURCE_DIR, t.name);
        FILE *f = fopen(path, "rb");
        assert_non_null(f);
        size_t size = fread(file, 1, sizeof file, f);
        fclose(f);
        assert_int_equal(t.end - t.begin, size);
        assert_memory_equal(t.begin, file, size);
        assert_int_equal(*t.end, 0);
        all += size;
    }
    assert_true(all > 300000 && all < 600000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_hash),
        cmocka_unit_test(test_own_text),
    };
    return cmocka_run_group_tests_name("calibration", tests, NULL, NULL);
}
