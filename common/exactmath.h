/* exp, log, sin and cos in double precision, built from the same operations on every machine
 * (explicit fma, no libm), so that RoPE tables and sampling are the same bits on every CPU and C
 * library. Accurate to about 1 ulp in the ranges stated; not meant for anything hot. */
#ifndef SBIT_COMMON_EXACTMATH_H
#define SBIT_COMMON_EXACTMATH_H

/* e^x; 0 below -745, infinity above 709.7. */
double exact_exp(double x);
/* ln x for x > 0; -infinity at 0, NaN below. */
double exact_log(double x);
/* base^y = exp(y ln base), base > 0. */
double exact_pow(double base, double y);
/* sin and cos for |x| <= 2^30 (three-part Cody-Waite reduction by pi/2). */
void exact_sincos(double x, double *sine, double *cosine);

#endif
