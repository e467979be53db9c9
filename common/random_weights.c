#include "common/random_weights.h"

#include <math.h>
#include <string.h>

#include "common/codebook.h"

uint64_t random_weights_next(struct random_weights *r)
{
    r->state ^= r->state >> 12;
    r->state ^= r->state << 25;
    r->state ^= r->state >> 27;
    return r->state * 0x2545f4914f6cdd1du;
}

/* The mean square of a type's integers when all patterns are equally frequent: of -128..127, -8..7,
 * -1 and 1, and -1..2. */
static double mean_square(enum dtype dtype)
{
    switch (dtype) {
    case DTYPE_Q8_0:
        return 5461.5;
    case DTYPE_Q4_0:
        return 21.5;
    case DTYPE_Q2_0:
        return 1.5;
    default:
        return 1;
    }
}

/* Sign and fraction are random, the exponent e is one for all: fractions spread evenly over 1 to 2
 * have the mean square 7/3. */
static int exponent_for(uint64_t cols)
{
    return (int)lround(-0.5 * log2(7.0 / 3.0 * (double)cols));
}

/* Eight bytes at a time: random where mask is set, the bits of fixed elsewhere. */
static void fill_words(struct random_weights *r, uint64_t mask, uint64_t fixed, uint8_t *out,
                       uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += sizeof(uint64_t)) {
        uint64_t word = (random_weights_next(r) & mask) | fixed, left = bytes - at;
        memcpy(out + at, &word, left < sizeof word ? left : sizeof word);
    }
}

static void set_scales(enum dtype dtype, uint64_t cols, uint8_t *out, uint64_t bytes)
{
    uint32_t block = dtype_info(dtype)->block_bytes;
    uint16_t scale = f32_to_f16((float)(1.0 / sqrt(mean_square(dtype) * (double)cols)));
    for (uint64_t at = 0; at < bytes; at += block)
        memcpy(out + at, &scale, sizeof scale);
}

void random_weights_fill(struct random_weights *r, enum dtype dtype, uint64_t cols, void *out,
                         uint64_t bytes)
{
    uint64_t e = (uint64_t)exponent_for(cols);
    switch (dtype) {
    case DTYPE_F32:
        fill_words(r, 0x807fffff807fffff, ((e + 127) << 23) * 0x100000001, out, bytes);
        break;
    case DTYPE_F16:
        fill_words(r, 0x83ff83ff83ff83ff, ((e + 15) << 10) * 0x1000100010001, out, bytes);
        break;
    case DTYPE_BF16:
        fill_words(r, 0x807f807f807f807f, ((e + 127) << 7) * 0x1000100010001, out, bytes);
        break;
    default:
        fill_words(r, UINT64_MAX, 0, out, bytes);
        if (dtype != DTYPE_I8)
            set_scales(dtype, cols, out, bytes);
    }
}

uint16_t random_weights_code_scale(uint32_t d, uint64_t cols)
{
    return f32_to_f16((float)(codebook_for(d)->unit / sqrt((double)cols)));
}
