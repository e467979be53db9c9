/* 16 float lanes in four NEON registers, with what every AArch64 CPU has. For arm/ files only. The
 * lanes_ functions are the interface that the templates (product_float.inc, vector.inc,
 * attention.inc, prepare_simd.inc) expect; x86/avx2.h has the same ones. */
#ifndef SBIT_KERNELS_ARM_NEON_H
#define SBIT_KERNELS_ARM_NEON_H

#include <arm_neon.h>

#include "kernels/reduce.h"

struct lanes { /* v[i]: lanes 4i to 4i + 3 */
    float32x4_t v[4];
};

/* The same operation on each register, written out: a loop over them leaves registers. */
#define LANES_EACH(operation)                                                                      \
    ((struct lanes){{operation(0), operation(1), operation(2), operation(3)}})

static inline struct lanes lanes_set1(float x)
{
    float32x4_t v = vdupq_n_f32(x);
    return (struct lanes){{v, v, v, v}};
}

/* Loads go through bytes, since data from files lies at any address. */
static inline float32x4_t lanes_quarter(const uint8_t *p)
{
    return vreinterpretq_f32_u8(vld1q_u8(p));
}

static inline struct lanes lanes_load(const void *p)
{
    const uint8_t *b = p;
    return (struct lanes){
        {lanes_quarter(b), lanes_quarter(b + 16), lanes_quarter(b + 32), lanes_quarter(b + 48)}};
}

static inline void lanes_store(float *p, struct lanes a)
{
    vst1q_f32(p, a.v[0]);
    vst1q_f32(p + 4, a.v[1]);
    vst1q_f32(p + 8, a.v[2]);
    vst1q_f32(p + 12, a.v[3]);
}

static inline struct lanes lanes_load_f16(const void *p)
{
    const uint8_t *b = p;
    float16x8_t low = vreinterpretq_f16_u8(vld1q_u8(b));
    float16x8_t high = vreinterpretq_f16_u8(vld1q_u8(b + 16));
    return (struct lanes){{vcvt_f32_f16(vget_low_f16(low)), vcvt_high_f32_f16(low),
                           vcvt_f32_f16(vget_low_f16(high)), vcvt_high_f32_f16(high)}};
}

static inline struct lanes lanes_load_i8(const int8_t *p)
{
    int8x16_t bytes = vld1q_s8(p);
    int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
    return (struct lanes){
        {vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
         vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high))}};
}

/* bfloat16 is the upper half of binary32: zeros are interleaved below it. */
static inline struct lanes lanes_load_bf16(const void *p)
{
    const uint8_t *b = p;
    uint16x8_t zero = vdupq_n_u16(0);
    uint16x8_t low = vreinterpretq_u16_u8(vld1q_u8(b));
    uint16x8_t high = vreinterpretq_u16_u8(vld1q_u8(b + 16));
    return (struct lanes){{vreinterpretq_f32_u16(vzip1q_u16(zero, low)),
                           vreinterpretq_f32_u16(vzip2q_u16(zero, low)),
                           vreinterpretq_f32_u16(vzip1q_u16(zero, high)),
                           vreinterpretq_f32_u16(vzip2q_u16(zero, high))}};
}

static inline void lanes_store_f16(uint16_t *h, struct lanes a)
{
    float16x8_t low = vcvt_high_f16_f32(vcvt_f16_f32(a.v[0]), a.v[1]);
    float16x8_t high = vcvt_high_f16_f32(vcvt_f16_f32(a.v[2]), a.v[3]);
    vst1q_u16(h, vreinterpretq_u16_f16(low));
    vst1q_u16(h + 8, vreinterpretq_u16_f16(high));
}

#include "kernels/lanes_part.inc"

/* a * b + c */
static inline struct lanes lanes_fma(struct lanes a, struct lanes b, struct lanes c)
{
#define FMA(i) vfmaq_f32(c.v[i], a.v[i], b.v[i])
    return LANES_EACH(FMA);
#undef FMA
}

#define LANES_BINARY(name, operation)                                                              \
    static inline struct lanes name(struct lanes a, struct lanes b)                                \
    {                                                                                              \
        return (struct lanes){{operation(a.v[0], b.v[0]), operation(a.v[1], b.v[1]),               \
                               operation(a.v[2], b.v[2]), operation(a.v[3], b.v[3])}};             \
    }
LANES_BINARY(lanes_add, vaddq_f32)
LANES_BINARY(lanes_sub, vsubq_f32)
LANES_BINARY(lanes_mul, vmulq_f32)
LANES_BINARY(lanes_div, vdivq_f32)
#undef LANES_BINARY

/* a > b ? a : b, thus b when either is NaN, which FMAX does not do */
static inline struct lanes lanes_max(struct lanes a, struct lanes b)
{
#define MAX(i) vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i])
    return LANES_EACH(MAX);
#undef MAX
}

static inline struct lanes lanes_abs(struct lanes a)
{
#define ABS(i) vabsq_f32(a.v[i])
    return LANES_EACH(ABS);
#undef ABS
}

/* acc[j] += acc[j + 8] and + 4 */
static inline float32x4_t lanes_fold_four(struct lanes a)
{
    return vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
}

static inline float lanes_fold(struct lanes a)
{
    float32x4_t four = lanes_fold_four(a);
    return vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)));
}

/* The larger of two non-negative lanes by bit pattern: NaN beats infinity. */
static inline struct lanes lanes_max_bits(struct lanes a, struct lanes b)
{
#define MAX_BITS(i)                                                                                \
    vreinterpretq_f32_u32(vmaxq_u32(vreinterpretq_u32_f32(a.v[i]), vreinterpretq_u32_f32(b.v[i])))
    return LANES_EACH(MAX_BITS);
#undef MAX_BITS
}

static inline uint32_t lanes_reduce_max_bits(struct lanes a)
{
    uint32x4_t low = vmaxq_u32(vreinterpretq_u32_f32(a.v[0]), vreinterpretq_u32_f32(a.v[1]));
    uint32x4_t high = vmaxq_u32(vreinterpretq_u32_f32(a.v[2]), vreinterpretq_u32_f32(a.v[3]));
    return vmaxvq_u32(vmaxq_u32(low, high));
}

/* Bit j: a's lane j > b's. */
static inline unsigned lanes_above(struct lanes a, struct lanes b)
{
    static const uint8_t bits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint16x4_t first = vmovn_u32(vcgtq_f32(a.v[0], b.v[0]));
    uint16x4_t third = vmovn_u32(vcgtq_f32(a.v[2], b.v[2]));
    uint16x8_t low = vmovn_high_u32(first, vcgtq_f32(a.v[1], b.v[1]));
    uint16x8_t high = vmovn_high_u32(third, vcgtq_f32(a.v[3], b.v[3]));
    uint8x16_t all = vandq_u8(vmovn_high_u16(vmovn_u16(low), high), vld1q_u8(bits));
    return vaddv_u8(vget_low_u8(all)) | (unsigned)vaddv_u8(vget_high_u8(all)) << 8;
}

/* FMAXNM and FMINNM answer the number when the other operand is a (quiet) NaN, which the product
 * has made it. */
static inline int32x4_t lanes_round_quarter(float32x4_t x, float inverse)
{
    float32x4_t scaled = vmulq_n_f32(x, inverse);
    scaled = vmaxnmq_f32(scaled, vdupq_n_f32(-127.0f));
    scaled = vminnmq_f32(scaled, vdupq_n_f32(127.0f));
    return vcvtnq_s32_f32(scaled);
}

/* q[0..16) = round to nearest even of a * inverse, kept within +-127; NaN becomes -127. */
static inline void lanes_store_int8(int8_t *q, struct lanes a, float inverse)
{
    int16x4_t first = vmovn_s32(lanes_round_quarter(a.v[0], inverse));
    int16x4_t third = vmovn_s32(lanes_round_quarter(a.v[2], inverse));
    int16x8_t low = vmovn_high_s32(first, lanes_round_quarter(a.v[1], inverse));
    int16x8_t high = vmovn_high_s32(third, lanes_round_quarter(a.v[3], inverse));
    vst1q_s8(q, vmovn_high_s16(vmovn_s16(low), high));
}

/* Sum of 16 signed bytes. */
static inline int32_t lanes_sum_int8(const int8_t *q)
{
    return vaddlvq_s8(vld1q_s8(q));
}

static inline float32x4_t lanes_exp_quarter(float32x4_t x)
{
    float32x4_t magic = vdupq_n_f32(EXP_MAGIC), one = vdupq_n_f32(1.0f);
    float32x4_t shifted = vaddq_f32(vmulq_f32(x, vdupq_n_f32(EXP_LOG2E)), magic);
    float32x4_t n = vsubq_f32(shifted, magic);
    float32x4_t r = vfmaq_f32(x, n, vdupq_n_f32(EXP_LN2_HI));
    r = vfmaq_f32(r, n, vdupq_n_f32(EXP_LN2_LO));
    float32x4_t p = vfmaq_f32(vdupq_n_f32(EXP_C5), vdupq_n_f32(EXP_C6), r);
    p = vfmaq_f32(vdupq_n_f32(EXP_C4), p, r);
    p = vfmaq_f32(vdupq_n_f32(EXP_C3), p, r);
    p = vfmaq_f32(vdupq_n_f32(EXP_C2), p, r);
    p = vfmaq_f32(one, vfmaq_f32(one, p, r), r);
    /* Unsigned, for what is far out of range wraps around. */
    uint32x4_t exponent = vsubq_u32(vreinterpretq_u32_f32(shifted), vreinterpretq_u32_f32(magic));
    uint32x4_t first = vreinterpretq_u32_s32(vshrq_n_s32(vreinterpretq_s32_u32(exponent), 1));
    uint32x4_t second = vsubq_u32(exponent, first), bias = vdupq_n_u32(127);
    first = vshlq_n_u32(vaddq_u32(first, bias), 23);
    second = vshlq_n_u32(vaddq_u32(second, bias), 23);
    p = vmulq_f32(vmulq_f32(p, vreinterpretq_f32_u32(first)), vreinterpretq_f32_u32(second));
    uint32x4_t low = vcltq_f32(x, vdupq_n_f32(EXP_LOW));
    uint32x4_t high = vcgtq_f32(x, vdupq_n_f32(EXP_HIGH));
    p = vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(p), low));
    return vbslq_f32(high, vdupq_n_f32(INFINITY), p);
}

/* reduce_expf of every lane. */
static inline struct lanes lanes_exp(struct lanes a)
{
#define EXP(i) lanes_exp_quarter(a.v[i])
    return LANES_EACH(EXP);
#undef EXP
}

/* s[j] + s[j + 2] for j = 0, 1 of a, then of b */
static inline float32x4_t lanes_fold_pair(float32x4_t a, float32x4_t b)
{
    float64x2_t first = vreinterpretq_f64_f32(a), second = vreinterpretq_f64_f32(b);
    return vaddq_f32(vreinterpretq_f32_f64(vzip1q_f64(first, second)),
                     vreinterpretq_f32_f64(vzip2q_f64(first, second)));
}

/* Sums that fit the registers of attention: LANES_TILE^2 sets of lanes, and operands. */
#define LANES_TILE 2

/* sums[i] = the fold of a[i]. */
static inline void lanes_fold_tile(const struct lanes a[LANES_TILE * LANES_TILE], float *sums)
{
    float32x4_t low = lanes_fold_pair(lanes_fold_four(a[0]), lanes_fold_four(a[1]));
    float32x4_t high = lanes_fold_pair(lanes_fold_four(a[2]), lanes_fold_four(a[3]));
    vst1q_f32(sums, vpaddq_f32(low, high));
}

#endif
