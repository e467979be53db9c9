#include "worker/quantise_sign.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/dtype.h"
#include "common/mem.h"

enum { BINS = 65536, LOW_BITS = 15, BLOCK = 128, BLOCK_BYTES = 18 };

struct sign_selector {
    uint64_t wanted; /* in the first pass of all, in the second of the chosen bin */
    uint64_t count[BINS];
    uint32_t high; /* second pass: the bin of the upper 16 bits that holds the threshold */
    bool narrowed;
};

static uint32_t magnitude_bits(float w)
{
    uint32_t bits;
    memcpy(&bits, &w, sizeof bits);
    return bits & 0x7fffffff;
}

enum status sign_selector_create(struct sign_selector **out, uint64_t wanted, struct error *e)
{
    TRY(mem_array(out, 1, sizeof **out, "outlier selection", e));
    (*out)->wanted = wanted;
    return OK;
}

void sign_selector_free(struct sign_selector *s)
{
    free(s);
}

void sign_selector_add(struct sign_selector *s, const float *w, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = magnitude_bits(w[i]);
        if (!s->narrowed)
            s->count[bits >> LOW_BITS]++;
        else if (bits >> LOW_BITS == s->high)
            s->count[bits & ((1u << LOW_BITS) - 1)]++;
    }
}

/* The bin that holds the wanted-th largest; *above: how many lie in higher bins. */
static uint32_t find_bin(const struct sign_selector *s, uint64_t *above)
{
    uint32_t bin = BINS - 1;
    *above = 0;
    while (bin > 0 && *above + s->count[bin] < s->wanted)
        *above += s->count[bin--];
    return bin;
}

void sign_selector_narrow(struct sign_selector *s)
{
    uint64_t above;
    s->high = find_bin(s, &above);
    s->wanted -= s->wanted < above ? s->wanted : above;
    s->narrowed = true;
    memset(s->count, 0, sizeof s->count);
}

struct sign_threshold sign_selector_result(const struct sign_selector *s)
{
    uint64_t above;
    if (s->wanted == 0)
        return (struct sign_threshold){UINT32_MAX, 0};
    uint32_t low = find_bin(s, &above);
    return (struct sign_threshold){s->high << LOW_BITS | low, s->wanted - above};
}

void sign_count(const float *row, int cols, uint32_t bits, uint32_t *above, uint32_t *equal)
{
    *above = *equal = 0;
    for (int i = 0; i < cols; i++) {
        uint32_t b = magnitude_bits(row[i]);
        *above += b > bits;
        *equal += b == bits;
    }
}

/* Marks the outliers of a block in out[BLOCK]; uses up *ties. */
static void mark(const float *w, uint32_t bits, uint32_t *ties, bool *out)
{
    for (int i = 0; i < BLOCK; i++) {
        uint32_t b = magnitude_bits(w[i]);
        bool tie = b == bits && *ties > 0;
        *ties -= tie;
        out[i] = b > bits || tie;
    }
}

/* The block's scale (mean |w| of what stays, weighted by h) and sign bits. */
static float encode_block(const float *w, const bool *outlier, const float *h, uint8_t *block)
{
    double sum = 0, weight = 0;
    memset(block, 0, BLOCK_BYTES);
    for (int i = 0; i < BLOCK; i++) {
        double hi = h ? h[i] : 1;
        block[2 + i / 8] |= (uint8_t)((w[i] >= 0) << (i % 8));
        if (outlier[i])
            continue;
        sum += hi * (w[i] < 0 ? -w[i] : w[i]);
        weight += hi;
    }
    double mean = weight > 0 ? sum / weight : 0;
    uint16_t d = f32_to_f16((float)mean);
    block[0] = (uint8_t)d;
    block[1] = (uint8_t)(d >> 8);
    return f16_to_f32(d);
}

static void put_entry(const struct sign_entries *to, size_t at, int32_t row, int column,
                      uint16_t value)
{
    to->row[at] = row;
    to->value[at] = value;
    if (to->column_bytes == 2)
        ((int16_t *)to->column)[at] = (int16_t)column;
    else
        ((int32_t *)to->column)[at] = column;
}

bool sign_encode_row(const float *row, int cols, uint32_t bits, uint32_t ties, int32_t r,
                     const struct input_stats *stats, uint8_t *blocks,
                     const struct sign_entries *to, struct row_error *error)
{
    bool outlier[BLOCK];
    size_t entries = 0;
    *error = (struct row_error){0, 0};
    for (int first = 0; first < cols; first += BLOCK) {
        const float *w = row + first;
        mark(w, bits, &ties, outlier);
        float d = encode_block(w, outlier, stats ? stats->diagonal + first : NULL,
                               blocks + (size_t)first / BLOCK * BLOCK_BYTES);
        for (int i = 0; i < BLOCK; i++) {
            float said = w[i] >= 0 ? d : -d;
            double off = (double)w[i] - said;
            if (outlier[i]) {
                uint16_t value = f32_to_f16(w[i] - said);
                put_entry(to, entries++, r, first + i, value);
                off -= f16_to_f32(value);
            }
            error->error2 += off * off;
            error->weight2 += (double)w[i] * w[i];
        }
    }
    return isfinite(error->error2);
}
