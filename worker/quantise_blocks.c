#include "worker/quantise_blocks.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { BLOCK = 32, Q8_0_BYTES = 34, Q4_0_BYTES = 18 };

/* 1/d; 0 where d is so small that its F16 is 0 anyway and 1/d might be infinite. */
static float inverse_of(float d)
{
    return fabsf(d) > FLT_MIN ? 1 / d : 0;
}

static void put_u16(uint8_t *out, uint16_t v)
{
    out[0] = (uint8_t)v;
    out[1] = (uint8_t)(v >> 8);
}

/* d = max |w| / 127, q = round(w / d), halves away from zero */
static void encode_q8_0(const float *w, uint8_t *out)
{
    float most = 0;
    for (int i = 0; i < BLOCK; i++)
        most = fabsf(w[i]) > most ? fabsf(w[i]) : most;
    float d = most / 127, inverse = inverse_of(d);
    put_u16(out, f32_to_f16(d));
    for (int i = 0; i < BLOCK; i++)
        out[2 + i] = (uint8_t)(int8_t)roundf(w[i] * inverse);
}

static uint8_t nibble(float w, float inverse)
{
    int q = (int)(w * inverse + 8.5f);
    return (uint8_t)(q > 15 ? 15 : q);
}

/* d = the weight of largest |w|, with its sign, / -8; q = round(w / d) + 8 in 0..15. Weights
 * 0-15 stand in the low nibbles, 16-31 in the high ones. */
static void encode_q4_0(const float *w, uint8_t *out)
{
    float most = 0;
    for (int i = 0; i < BLOCK; i++)
        most = fabsf(w[i]) > fabsf(most) ? w[i] : most;
    float d = most / -8, inverse = inverse_of(d);
    put_u16(out, f32_to_f16(d));
    for (int i = 0; i < BLOCK / 2; i++)
        out[2 + i] = (uint8_t)(nibble(w[i], inverse) | nibble(w[i + BLOCK / 2], inverse) << 4);
}

static void encode_half(enum dtype dtype, const float *w, int n, uint8_t *out)
{
    for (int i = 0; i < n; i++)
        put_u16(out + 2 * i, dtype == DTYPE_F16 ? f32_to_f16(w[i]) : f32_to_bf16(w[i]));
}

/* Error against what a reader will decode; false when that is not finite. */
static bool measure(enum dtype dtype, const float *w, const uint8_t *out, int n,
                    struct row_error *error)
{
    float decoded[BLOCK];
    dtype_to_f32(dtype, out, (uint64_t)n, decoded);
    for (int i = 0; i < n; i++) {
        double off = (double)w[i] - decoded[i];
        error->error2 += off * off;
        error->weight2 += (double)w[i] * w[i];
    }
    return isfinite(error->error2);
}

bool blocks_encode_row(enum dtype dtype, const float *row, int cols, uint8_t *out,
                       struct row_error *error)
{
    const struct dtype_info *info = dtype_info(dtype);
    bool fits = true;
    *error = (struct row_error){0, 0};
    for (int first = 0; first < cols; first += BLOCK) {
        int n = cols - first < BLOCK ? cols - first : BLOCK;
        uint8_t *to = out + (size_t)first / info->block * info->block_bytes;
        if (dtype == DTYPE_Q8_0)
            encode_q8_0(row + first, to);
        else if (dtype == DTYPE_Q4_0)
            encode_q4_0(row + first, to);
        else if (dtype == DTYPE_F32)
            memcpy(to, row + first, (size_t)n * sizeof *row);
        else
            encode_half(dtype, row + first, n, to);
        fits = measure(dtype, row + first, to, n, error) && fits;
    }
    return fits;
}
