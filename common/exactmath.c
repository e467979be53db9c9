/* exp, log, sin and cos from additions, multiplications and fma alone, so that every machine
 * gets the same bits. Methods: argument reduction as in Cody and Waite, "Software Manual for the
 * Elementary Functions" (1980); power series of the reduced argument, long enough that their
 * remainder is below 2^-56. Constants are roundings of ln 2, pi / 2 and their remainders, given
 * exactly as hexadecimal floats. */
#include "common/exactmath.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LN2_HIGH  0x1.62e42ffp-1 /* 32 bits: products with an exponent are exact */
#define LN2_LOW   (-0x1.718432a1b0e26p-35)
#define INV_LN2   0x1.71547652b82fep+0
#define HALF_PI_1 0x1.921fb54442d18p+0
#define HALF_PI_2 0x1.1a62633145c07p-54
#define HALF_PI_3 (-0x1.f1976b7ed8fbcp-110)
#define TWO_BY_PI 0x1.45f306dc9c883p-1
#define SQRT_2    0x1.6a09e667f3bcdp+0

static double polynomial(const double *c, size_t n, double x)
{
    double sum = c[n - 1];
    for (size_t i = n - 1; i-- > 0;)
        sum = fma(sum, x, c[i]);
    return sum;
}

double exact_exp(double x)
{
    /* (e^r - 1 - r) / r^2 for |r| <= ln 2 / 2: 1/2!, 1/3!, ... 1/14! */
    static const double series[] = {1.0 / 2,
                                    1.0 / 6,
                                    1.0 / 24,
                                    1.0 / 120,
                                    1.0 / 720,
                                    1.0 / 5040,
                                    1.0 / 40320,
                                    1.0 / 362880,
                                    1.0 / 3628800,
                                    1.0 / 39916800,
                                    1.0 / 479001600,
                                    1.0 / 6227020800.0,
                                    1.0 / 87178291200.0};
    if (x != x)
        return x;
    if (x > 709.79)
        return HUGE_VAL;
    if (x < -745.14)
        return 0;
    double k = rint(x * INV_LN2);
    double high = fma(-k, LN2_HIGH, x), low = -k * LN2_LOW, r = high + low;
    low = (high - r) + low; /* what r lost */
    double tail = fma(r * r, polynomial(series, sizeof series / sizeof series[0], r), low);
    return ldexp(1.0 + (r + tail), (int)k);
}

double exact_log(double x)
{
    /* (2 atanh(s) - 2 s) / s for m = (1 + s) / (1 - s), in s^2 <= 0.0295: 2/3, 2/5, ... 2/25 */
    static const double series[] = {2.0 / 3,  2.0 / 5,  2.0 / 7,  2.0 / 9,  2.0 / 11, 2.0 / 13,
                                    2.0 / 15, 2.0 / 17, 2.0 / 19, 2.0 / 21, 2.0 / 23, 2.0 / 25};
    int exponent;
    if (x != x || x == HUGE_VAL)
        return x;
    if (x <= 0)
        return x < 0 ? NAN : -HUGE_VAL;
    double m = 2 * frexp(x, &exponent), k; /* x = m 2^(exponent - 1), 1 <= m < 2 */
    k = exponent - 1;
    if (m > SQRT_2) {
        m /= 2;
        k += 1;
    }
    /* ln m = f - (f^2/2 - s (f^2/2 + R)) with f = m - 1, s = f / (2 + f): keeps the error of s
     * out */
    double f = m - 1, s = f / (2 + f), z = s * s, half = 0.5 * f * f;
    double rest = z * polynomial(series, sizeof series / sizeof series[0], z);
    double small = fma(s, half + rest, k * LN2_LOW);
    return fma(k, LN2_HIGH, f - (half - small));
}

double exact_pow(double base, double y)
{
    return exact_exp(y * exact_log(base));
}

/* sin(r + low) for |r| <= pi/4. */
static double sine_part(double r, double low)
{
    static const double series[] = {-1.0 / 6,
                                    1.0 / 120,
                                    -1.0 / 5040,
                                    1.0 / 362880,
                                    -1.0 / 39916800,
                                    1.0 / 6227020800.0,
                                    -1.0 / 1307674368000.0,
                                    1.0 / 355687428096000.0};
    double z = r * r, cubic = polynomial(series, sizeof series / sizeof series[0], z);
    return r + fma(z * r, cubic, fma(-0.5 * z, low, low));
}

/* cos(r + low) for |r| <= pi/4. */
static double cosine_part(double r, double low)
{
    static const double series[] = {1.0 / 24,
                                    -1.0 / 720,
                                    1.0 / 40320,
                                    -1.0 / 3628800,
                                    1.0 / 479001600,
                                    -1.0 / 87178291200.0,
                                    1.0 / 20922789888000.0,
                                    -1.0 / 6402373705728000.0};
    double z = r * r, half = 0.5 * z, w = 1.0 - half;
    double quartic = z * z * polynomial(series, sizeof series / sizeof series[0], z);
    return w + (((1.0 - w) - half) + fma(-r, low, quartic));
}

void exact_sincos(double x, double *sine, double *cosine)
{
    double k = rint(x * TWO_BY_PI);
    /* x - k pi/2 as high + low. The first fma is exact: k has 30 bits, and the difference is a
     * small multiple of the last place of its operands. */
    double first = fma(-k, HALF_PI_1, x);
    double product = k * HALF_PI_2, lost = fma(k, HALF_PI_2, -product);
    double r = first - product, back = r - first;
    double low = (first - (r - back)) - (product + back); /* two-sum of first and -product */
    low = low - lost - k * HALF_PI_3;
    double s = sine_part(r, low), c = cosine_part(r, low);
    switch ((int64_t)k & 3) {
    case 0:
        *sine = s, *cosine = c;
        break;
    case 1:
        *sine = c, *cosine = -s;
        break;
    case 2:
        *sine = -s, *cosine = -c;
        break;
    default:
        *sine = -c, *cosine = s;
    }
}
