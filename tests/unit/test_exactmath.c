/* exact_exp, exact_log, exact_pow and exact_sincos against the C library, in units of the last
 * place. The C library's own functions are within 1 ulp of the truth, so 2 ulp of difference is
 * the bound. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/exactmath.h"

enum { SAMPLES = 300000, SEED = 77 };

static uint64_t state;

/* xorshift64* */
static double uniform(double low, double high)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return low + (high - low) * ((double)((state * 0x2545f4914f6cdd1du) >> 11) * 0x1p-53);
}

static int setup(void **unused)
{
    (void)unused;
    state = SEED;
    print_message("seed %d\n", SEED);
    return 0;
}

static void check(const char *what, double x, double got, double want, double ulps)
{
    double unit = nextafter(fabs(want), INFINITY) - fabs(want);
    if (got == want || fabs(got - want) <= ulps * unit)
        return;
    print_error("%s(%a): got %a, want %a\n", what, x, got, want);
    fail();
}

static void test_exp(void **unused)
{
    (void)unused;
    for (int i = 0; i < SAMPLES; i++) {
        double x = i % 2 ? uniform(-745, 709.7) : uniform(-1, 1);
        check("exp", x, exact_exp(x), exp(x), 2);
    }
    assert_true(exact_exp(0) == 1);
    assert_true(exact_exp(-800) == 0 && exact_exp(-INFINITY) == 0);
    assert_true(isinf(exact_exp(710)) && isinf(exact_exp(INFINITY)));
    assert_true(isnan(exact_exp(NAN)));
}

static void test_log(void **unused)
{
    (void)unused;
    for (int i = 0; i < SAMPLES; i++) {
        double x = i % 2 ? uniform(0.5, 2) : ldexp(uniform(1, 2), (int)uniform(-1070, 1023));
        check("log", x, exact_log(x), log(x), 2);
    }
    assert_true(exact_log(1) == 0);
    assert_true(exact_log(0) == -INFINITY);
    assert_true(isnan(exact_log(-1)) && isnan(exact_log(NAN)));
    assert_true(exact_log(INFINITY) == INFINITY);
}

static void test_sincos(void **unused)
{
    static const double ranges[] = {0.8, 10, 5000, 1e6, 0x1p30};
    (void)unused;
    for (int i = 0; i < SAMPLES; i++) {
        double range = ranges[i % 5], x = uniform(-range, range), s, c;
        exact_sincos(x, &s, &c);
        check("sin", x, s, sin(x), 2);
        check("cos", x, c, cos(x), 2);
    }
}

/* Doubles next to multiples of pi/2, where the reduction loses most. */
static void test_sincos_near_zeros(void **unused)
{
    (void)unused;
    for (int i = 0; i < SAMPLES / 10; i++) {
        double x = floor(uniform(1, 0x1p29)) * 0x1.921fb54442d18p+0, s, c;
        exact_sincos(x, &s, &c);
        check("sin", x, s, sin(x), 2);
        check("cos", x, c, cos(x), 2);
    }
}

/* The use that matters: base^(-2i/d) of RoPE. The error of the logarithm grows with the
 * exponent. */
static void test_pow(void **unused)
{
    static const double bases[] = {1e4, 5e5, 1e6};
    (void)unused;
    for (size_t b = 0; b < 3; b++)
        for (int i = 0; i < 64; i++) {
            double y = -2.0 * i / 128;
            check("pow", y, exact_pow(bases[b], y), pow(bases[b], y), 20);
        }
    assert_true(exact_pow(10000, 0) == 1);
}

/* Golden bits: the same on every machine, whatever its C library. */
static void test_bits(void **unused)
{
    double s, c;
    (void)unused;
    exact_sincos(12345.678, &s, &c);
    assert_true(exact_exp(1.0) == 0x1.5bf0a8b145769p+1);
    assert_true(exact_log(10.0) == 0x1.26bb1bbb55516p+1);
    assert_true(s == -0x1.687d5890974a5p-1 && c == 0x1.6b94c3bbe24b8p-1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp),    cmocka_unit_test(test_log),
        cmocka_unit_test(test_sincos), cmocka_unit_test(test_sincos_near_zeros),
        cmocka_unit_test(test_pow),    cmocka_unit_test(test_bits),
    };
    return cmocka_run_group_tests_name("exactmath", tests, setup, NULL);
}
