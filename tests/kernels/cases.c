#include "tests/kernels/cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/blocks.h"

const char *const case_type_names[MATRIX_TYPES] = {"F32",  "F16",  "BF16", "Q8_0",
                                                   "Q4_0", "Q1_0", "Q2_0", "CODE"};
const int case_code_d[9] = {2, 3, 4, 5, 6, 8, 10, 12, 16};

uint64_t random_bits(struct random *r)
{
    r->state ^= r->state >> 12;
    r->state ^= r->state << 25;
    r->state ^= r->state >> 27;
    return r->state * 0x2545f4914f6cdd1dull;
}

int random_below(struct random *r, int n)
{
    return (int)((random_bits(r) >> 33) % (uint64_t)n);
}

float random_normal(struct random *r)
{
    float sum = 0;
    for (int i = 0; i < 6; i++)
        sum += (float)(random_bits(r) >> 40) * 0x1p-24f - 0.5f;
    return sum * 1.41421356f;
}

struct random random_start(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL);
    printf("seed %llu (give it as the argument to repeat)\n", (unsigned long long)seed);
    fflush(stdout);
    struct random r = {seed * 0x9e3779b97f4a7c15ull + 1};
    return r;
}

int case_cols(enum matrix_type type, int cols)
{
    int block = type == MATRIX_CODE ? 1 : blocks_weights(type);
    return (cols + block - 1) / block * block;
}

static struct guard alloc_any(struct random *r, size_t bytes, size_t align)
{
    return guard_alloc(bytes, (int)(random_bits(r) >> 60 & 1), (random_bits(r) >> 61 & 3) * align);
}

static uint16_t scale_of(struct random *r, enum weight_style style)
{
    switch (style) {
    case WEIGHT_BITS:
        return (uint16_t)(random_bits(r) >> 48);
    case WEIGHT_HIGH:
        return 0x7bff; /* 65504 */
    case WEIGHT_ZERO:
        return random_bits(r) >> 63 ? 0x8000 : 0;
    case WEIGHT_TINY:
        return (uint16_t)(1 + random_below(r, 20));
    default:
        return half_from_float(0.02f * random_normal(r));
    }
}

static void put16(struct guard *g, size_t i, uint16_t h)
{
    memcpy((uint8_t *)g->data + 2 * i, &h, sizeof h);
}

static void fill_bytes(struct random *r, enum weight_style style, uint8_t *data, size_t bytes)
{
    static const uint8_t constant[WEIGHT_STYLES] = {[WEIGHT_LOW] = 0x80, [WEIGHT_HIGH] = 0x7f};
    bool fixed = style == WEIGHT_LOW || style == WEIGHT_HIGH || style == WEIGHT_ZERO;
    for (size_t i = 0; i < bytes; i++)
        data[i] = fixed ? constant[style] : (uint8_t)(random_bits(r) >> 56);
}

static void fill_floats(struct random *r, enum matrix_type type, enum weight_style style,
                        struct guard *data, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float w = style == WEIGHT_TINY ? 1e-39f * random_normal(r) : 0.02f * random_normal(r);
        uint32_t bits = half_float_bits(w);
        if (type == MATRIX_F32)
            memcpy((uint8_t *)data->data + 4 * i, &w, sizeof w);
        else
            put16(data, i,
                  type == MATRIX_BF16    ? (uint16_t)(bits >> 16)
                  : style == WEIGHT_TINY ? (uint16_t)(bits & 0x83ff)
                                         : half_from_float(w));
    }
}

static void fill_data(struct random *r, enum weight_style style, struct case_matrix *c)
{
    fill_bytes(r, style, c->data.data, c->data.bytes);
    if (c->m.type < MATRIX_Q8_0 && (style == WEIGHT_NORMAL || style == WEIGHT_TINY))
        fill_floats(r, c->m.type, style, &c->data, (size_t)c->m.rows * (size_t)c->m.cols);
    size_t block = blocks_bytes(c->m.type);
    for (size_t at = 0; c->m.type >= MATRIX_Q8_0 && block && at < c->data.bytes; at += block) {
        uint16_t d = scale_of(r, style);
        memcpy((uint8_t *)c->data.data + at, &d, sizeof d);
    }
}

/* Codewords with the largest magnitude sum allowed, 257, or like a trained codebook. */
static void fill_codebook(struct random *r, enum weight_style style, struct case_matrix *c)
{
    int8_t *book = c->codebook.data;
    for (int word = 0; word < 128; word++) {
        int left = 257;
        for (int k = 0; k < c->m.d; k++) {
            int w = style == WEIGHT_NORMAL ? (int)(random_normal(r) * 90.0f / (float)c->m.d)
                                           : random_below(r, 255) - 127;
            w = style == WEIGHT_LOW || style == WEIGHT_HIGH ? 127 : w;
            w = abs(w) > left ? (w < 0 ? -left : left) : w;
            w = w > 127 ? 127 : w < -127 ? -127 : w;
            left -= abs(w);
            book[word * c->m.d + k] = (int8_t)w;
        }
    }
}

static void make_code(struct random *r, enum weight_style style, bool in, struct case_matrix *c)
{
    c->codebook = alloc_any(r, (size_t)(128 * c->m.d), 1);
    c->out = alloc_any(r, (size_t)c->m.rows * 2, 2);
    fill_codebook(r, style, c);
    for (int i = 0; i < c->m.rows; i++)
        put16(&c->out, (size_t)i, scale_of(r, style));
    if (in) {
        c->in = alloc_any(r, (size_t)c->m.cols * 2, 2);
        for (int i = 0; i < c->m.cols; i++)
            put16(&c->in, (size_t)i, half_from_float(1.0f + 0.3f * random_normal(r)));
    }
    c->m.codebook = c->codebook.data;
    c->m.out = c->out.data;
    c->m.in = c->in.data;
}

static void make_outliers(struct random *r, struct case_matrix *c)
{
    c->start = alloc_any(r, ((size_t)c->m.rows + 1) * 4, 4);
    uint32_t *start = c->start.data;
    for (int i = 0; i < c->m.rows; i++)
        start[i + 1] = start[i] + (uint32_t)(random_below(r, 3) ? 0 : random_below(r, 5));
    uint32_t n = start[c->m.rows];
    int bytes = c->m.outlier_column_bytes = random_bits(r) >> 63 ? 2 : 4;
    c->column = alloc_any(r, (size_t)n * (size_t)bytes, (size_t)bytes);
    c->value = alloc_any(r, (size_t)n * 2, 2);
    for (uint32_t i = 0; i < n; i++) {
        int32_t column = random_below(r, c->m.cols);
        memcpy((uint8_t *)c->column.data + i * (uint32_t)bytes, &column, (size_t)bytes);
        put16(&c->value, i, half_from_float(random_normal(r)));
    }
    c->m.outlier_start = start;
    c->m.outlier_column = c->column.data;
    c->m.outlier_value = c->value.data;
}

struct case_matrix case_matrix_make(struct random *r, enum matrix_type type, int rows, int cols,
                                    int d, enum weight_style style, bool outliers, bool in)
{
    struct case_matrix c = {.m = {.type = type, .rows = rows, .cols = cols, .d = d}};
    size_t bytes = (size_t)rows * (size_t)(cols / blocks_weights(type)) * blocks_bytes(type);
    if (type == MATRIX_CODE)
        bytes = (size_t)((rows + 63) / 64 * 64) * (size_t)((cols + d - 1) / d);
    c.data = alloc_any(r, bytes, 1);
    c.m.data = c.data.data;
    fill_data(r, style, &c);
    if (type == MATRIX_CODE)
        make_code(r, style, in, &c);
    if (outliers)
        make_outliers(r, &c);
    return c;
}

void case_matrix_free(struct case_matrix *c)
{
    guard_free(&c->data);
    guard_free(&c->codebook);
    guard_free(&c->out);
    guard_free(&c->in);
    guard_free(&c->start);
    guard_free(&c->column);
    guard_free(&c->value);
}

void case_fill(struct random *r, enum input_style style, float *x, int n)
{
    static const float factor[INPUT_STYLES] = {1, 1, 1, 0, 0, 1e-41f, 1e37f, 1};
    for (int i = 0; i < n; i++)
        x[i] = style == INPUT_EDGE ? (random_bits(r) >> 63 ? 1.0f : -1.0f)
                                   : random_normal(r) * factor[style];
    int massive = style == INPUT_MASSIVE ? 3 : style == INPUT_CROWDED ? 100 : 0;
    for (int i = 0; i < massive && i < n / 2 + 1; i++) /* not all, nor one of few over and over */
        x[random_below(r, n)] *= i % 2 ? 1000.0f : 317.0f;
    for (int i = 0; style == INPUT_CROWDED && i < 8; i++)
        x[random_below(r, n)] = i % 2 ? 500.0f : -500.0f;
    if (style == INPUT_BROKEN) {
        x[random_below(r, n)] = INFINITY;
        if (random_bits(r) >> 63)
            x[random_below(r, n)] = NAN;
    }
}

void case_canonical(float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (isnan(y[i]))
            y[i] = NAN;
}

void case_prepare(const struct matrix *m, const float *x, int tokens, void *prepared)
{
    for (int t = 0; t < tokens; t++)
        kernels.prepare[m->type](m, x + (size_t)t * (size_t)m->cols,
                                 (uint8_t *)prepared + (size_t)t * act_bytes(m));
}
