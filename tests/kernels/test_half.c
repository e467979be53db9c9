/* kernels/half.h on every value, against arithmetic in double and, where common is built, against
 * common/dtype.h. */
#include <math.h>
#include <stdio.h>

#include "kernels/half.h"
#ifdef TEST_COMMON_DTYPE
#include "common/dtype.h"
#endif

static int failures;

static void check(int ok, const char *what, unsigned value)
{
    if (!ok && failures++ < 20)
        printf("FAIL %s at 0x%08x\n", what, value);
}

/* The value by definition: sign, 5 bits of exponent, 10 of fraction. */
static double half_value(uint16_t h)
{
    int exponent = h >> 10 & 31, fraction = h & 1023;
    double magnitude = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return h & 0x8000 ? -magnitude : magnitude;
}

static void check_value(uint16_t h)
{
    float f = half_to_float(h);
    int special = (h & 0x7c00) == 0x7c00;
    if (!special) {
        check((double)f == half_value(h) && !signbit(f) == !(h & 0x8000), "half_to_float", h);
        check(half_from_float(f) == h, "round trip", h);
    } else if (h & 0x3ff) {
        check(isnan(f) && (half_float_bits(f) & 0x400000), "quiet NaN", h);
        check(half_from_float(f) == (h | 0x200), "NaN round trip", h);
    } else {
        check(isinf(f) && half_from_float(f) == h, "infinity", h);
    }
}

/* Around the midpoint between h and the next value: below goes down, above up, the middle to
 * even. */
static void check_rounding(uint16_t h)
{
    float middle =
        (float)((half_value(h) + (h == 0x7bff ? 65536.0 : half_value((uint16_t)(h + 1)))) / 2);
    uint16_t even = (uint16_t)(h & 1 ? h + 1 : h);
    check(half_from_float(middle) == even, "tie", h);
    check(half_from_float(nextafterf(middle, 0)) == h, "below a tie", h);
    check(half_from_float(nextafterf(middle, INFINITY)) == h + 1, "above a tie", h);
    check(half_from_float(-middle) == (even | 0x8000), "negative tie", h);
}

#ifdef TEST_COMMON_DTYPE
/* The same half, whichever NaN it is. */
static int same_half(uint16_t a, uint16_t b)
{
    int nan_a = (a & 0x7fff) > 0x7c00, nan_b = (b & 0x7fff) > 0x7c00;
    return nan_a || nan_b ? nan_a && nan_b : a == b;
}

static void check_common(uint16_t h)
{
    float want = half_to_float(h), got = f16_to_f32(h);
    check(isnan(want) ? isnan(got) : half_float_bits(got) == half_float_bits(want), "f16_to_f32",
          h);
    check(half_float_bits(bf16_to_f32(h)) == half_float_bits(half_from_bfloat(h)), "bf16_to_f32",
          h);
    uint32_t high = (uint32_t)h << 16;
    uint32_t bits[] = {high, high | 0x1fff, high | 0x1000, high | 0x8001, high | 0xf000};
    for (int i = 0; i < 5; i++) {
        float f = half_bits_float(bits[i]);
        check(same_half(f32_to_f16(f), half_from_float(f)), "f32_to_f16", bits[i]);
    }
}
#endif

int main(void)
{
    for (unsigned h = 0; h < 65536; h++) {
        check_value((uint16_t)h);
        if (h < 0x7c00)
            check_rounding((uint16_t)h);
#ifdef TEST_COMMON_DTYPE
        check_common((uint16_t)h);
#endif
    }
    printf("%d failures\n", failures);
    return failures != 0;
}
