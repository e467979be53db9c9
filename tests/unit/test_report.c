/* How sizes are compared in words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "coordinator/cluster.h"

static void check(uint64_t bytes, double others, const char *want)
{
    char text[128];
    assert_string_equal(report_ratio(text, bytes, others, "F32"), want);
}

static void test_ratio(void **state)
{
    (void)state;
    check(100, 320, "3.20 times smaller than F32");
    check(990, 1000, "1.01 times smaller than F32");
    check(996, 1000, "as large as F32");
    check(1004, 1000, "as large as F32");
    check(1010, 1000, "1.01 times the size of F32");
    check(250, 100, "2.50 times the size of F32");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ratio)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
