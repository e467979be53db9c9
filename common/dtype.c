/* Element types and their values. Owns block geometry and number conversion; knows nothing of files
 * or of what a tensor is for. Fast conversions for execution are the kernels' business. */
#include "common/dtype.h"

#include <stddef.h>
#include <string.h>

#include "common/mem.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the files are little-endian and are read in place: a big-endian build is not supported"
#endif

const struct dtype_info *dtype_info(uint32_t dtype)
{
    static const struct dtype_info table[] = {
        [DTYPE_F32] = {"F32", 1, 4},      [DTYPE_F16] = {"F16", 1, 2},
        [DTYPE_Q4_0] = {"Q4_0", 32, 18},  [DTYPE_Q8_0] = {"Q8_0", 32, 34},
        [DTYPE_I8] = {"I8", 1, 1},        [DTYPE_I16] = {"I16", 1, 2},
        [DTYPE_I32] = {"I32", 1, 4},      [DTYPE_BF16] = {"BF16", 1, 2},
        [DTYPE_Q1_0] = {"Q1_0", 128, 18}, [DTYPE_Q2_0] = {"Q2_0", 64, 18},
    };
    if (dtype >= sizeof table / sizeof table[0] || !table[dtype].name)
        return NULL;
    return &table[dtype];
}

enum status dtype_row_bytes(uint32_t dtype, uint64_t cols, uint64_t *bytes, struct error *e)
{
    const struct dtype_info *info = dtype_info(dtype);
    FAIL_IF(!info, e, ERR_UNSUPPORTED, "element type number %u is not one that sbit knows", dtype);
    FAIL_IF(cols % info->block != 0, e, ERR_FORMAT,
            "a row of %llu elements is no multiple of the %u that a block of %s holds",
            (unsigned long long)cols, info->block, info->name);
    FAIL_IF(!mul_fits(cols / info->block, info->block_bytes, bytes), e, ERR_FORMAT,
            "a row of %llu elements of %s overflows 64 bits", (unsigned long long)cols, info->name);
    return OK;
}

static uint32_t float_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static float bits_float(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint16_t load_u16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 0x3ff;
    if (exponent == 31)
        return bits_float(sign | 0x7f800000u | fraction << 13);
    if (exponent == 0) { /* zero and subnormals: fraction * 2^-24, exact */
        float value = (float)fraction * 0x1p-24f;
        return bits_float(sign | float_bits(value));
    }
    return bits_float(sign | (exponent + 112) << 23 | fraction << 13); /* biases 127 and 15 */
}

uint16_t f32_to_f16(float f)
{
    uint32_t bits = float_bits(f), magnitude = bits & 0x7fffffffu;
    uint32_t sign = (bits >> 16) & 0x8000u;
    if (magnitude > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) /* 65520, halfway between the largest finite value and 2^16 */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {
        /* below 2^-14: the unit in the last place of 0.5 is 2^-24, so the addition rounds */
        float shifted = bits_float(magnitude) + 0.5f;
        return (uint16_t)(sign | (float_bits(shifted) - 0x3f000000u));
    }
    magnitude += 0xfffu + ((magnitude >> 13) & 1);
    return (uint16_t)(sign | (magnitude - (112u << 23)) >> 13);
}

float bf16_to_f32(uint16_t h)
{
    return bits_float((uint32_t)h << 16);
}

uint16_t f32_to_bf16(float f)
{
    uint32_t bits = float_bits(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u); /* stays a NaN even if its low half is lost */
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

static void block_q8_0(const uint8_t *src, float *dst)
{
    float d = f16_to_f32(load_u16(src));
    for (int i = 0; i < 32; i++)
        dst[i] = d * (float)(int8_t)src[2 + i];
}

static void block_q4_0(const uint8_t *src, float *dst)
{
    float d = f16_to_f32(load_u16(src));
    for (int i = 0; i < 16; i++) {
        dst[i] = d * (float)((src[2 + i] & 15) - 8);
        dst[16 + i] = d * (float)((src[2 + i] >> 4) - 8);
    }
}

static void block_q1_0(const uint8_t *src, float *dst)
{
    float d = f16_to_f32(load_u16(src));
    for (int i = 0; i < 128; i++)
        dst[i] = src[2 + i / 8] >> (i % 8) & 1 ? d : -d;
}

static void block_q2_0(const uint8_t *src, float *dst)
{
    float d = f16_to_f32(load_u16(src));
    for (int i = 0; i < 64; i++)
        dst[i] = d * (float)((src[2 + i / 4] >> 2 * (i % 4) & 3) - 1);
}

typedef void (*block_to_f32)(const uint8_t *src, float *dst);

static void blocks_to_f32(block_to_f32 convert, enum dtype dtype, const uint8_t *src, uint64_t n,
                          float *dst)
{
    const struct dtype_info *info = dtype_info(dtype);
    for (uint64_t i = 0; i < n; i += info->block) {
        convert(src, dst + i);
        src += info->block_bytes;
    }
}

void dtype_to_f32(enum dtype dtype, const void *source, uint64_t n, float *dst)
{
    const uint8_t *src = source;
    switch (dtype) {
    case DTYPE_F32:
        if (n > 0)
            memcpy(dst, src, n * sizeof *dst);
        break;
    case DTYPE_F16:
        for (uint64_t i = 0; i < n; i++)
            dst[i] = f16_to_f32(load_u16(src + 2 * i));
        break;
    case DTYPE_BF16:
        for (uint64_t i = 0; i < n; i++)
            dst[i] = bf16_to_f32(load_u16(src + 2 * i));
        break;
    case DTYPE_I8:
        for (uint64_t i = 0; i < n; i++)
            dst[i] = (float)(int8_t)src[i];
        break;
    case DTYPE_Q8_0:
        blocks_to_f32(block_q8_0, dtype, src, n, dst);
        break;
    case DTYPE_Q4_0:
        blocks_to_f32(block_q4_0, dtype, src, n, dst);
        break;
    case DTYPE_Q1_0:
        blocks_to_f32(block_q1_0, dtype, src, n, dst);
        break;
    case DTYPE_Q2_0:
        blocks_to_f32(block_q2_0, dtype, src, n, dst);
        break;
    case DTYPE_I16:
    case DTYPE_I32: /* indices, never weights */
        break;
    }
}
