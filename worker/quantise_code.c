#include "worker/quantise_code.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/dtype.h"
#include "common/mem.h"
#include "worker/nearest.h"

enum {
    LANES = NEAREST_LANES, /* groups that one call of the search takes */
    ROUNDS = 6             /* of the alternation; two or three are usual */
};

static const float largest_f16 = 65504;

struct code_encoder {
    const struct codebook *book;
    int cols, groups, blocks; /* blocks of LANES groups */
    bool weighted;
    struct nearest *nearest;
    const float *words; /* nearest's, [CODEBOOK_WORDS][d] */
    /* sum of h c^2, [blocks][CODEBOOK_WORDS][LANES]; not weighted: [2][...], any block but the last,
     * and the last */
    float *norm;
    float *h; /* [blocks * LANES * d] weights of the columns, 0 past the end */
};

static size_t padded(const struct code_encoder *c)
{
    return (size_t)c->blocks * LANES * c->book->d;
}

static const float *block_norm(const struct code_encoder *c, int block)
{
    int i = c->weighted ? block : block == c->blocks - 1;
    return c->norm + (size_t)i * CODEBOOK_WORDS * LANES;
}

/* The norms of one block; without a block (-1) those of full groups of weight 1. */
static void fill_norm(const struct code_encoder *c, int block, float *norm)
{
    int d = (int)c->book->d;
    for (int k = 0; k < CODEBOOK_WORDS; k++) {
        const float *word = c->words + k * d;
        for (int i = 0; i < LANES; i++) {
            const float *h =
                block < 0 ? NULL : c->h + ((size_t)block * LANES + (size_t)i) * (size_t)d;
            float sum = 0;
            for (int j = 0; j < d; j++)
                sum += (h ? h[j] : 1.0f) * (word[j] * word[j]);
            norm[k * LANES + i] = sum;
        }
    }
}

static void fill(struct code_encoder *c, const struct input_stats *stats)
{
    size_t table = (size_t)CODEBOOK_WORDS * LANES;
    for (int i = 0; i < c->cols; i++)
        c->h[i] = stats ? stats->diagonal[i] : 1.0f;
    if (c->weighted) {
        for (int b = 0; b < c->blocks; b++)
            fill_norm(c, b, c->norm + (size_t)b * table);
        return;
    }
    fill_norm(c, -1, c->norm);
    fill_norm(c, c->blocks - 1, c->norm + table);
}

int code_encoder_variants(void)
{
    return nearest_variants();
}

void code_encoder_use(struct code_encoder *c, int variant)
{
    nearest_use(c->nearest, variant);
}

enum status code_encoder_create(struct code_encoder **out, const struct codebook *book, int cols,
                                const struct input_stats *stats, struct error *e)
{
    struct code_encoder *c;
    FAIL_IF(stats && stats->n != cols, e, ERR_USAGE,
            "the input statistics are for %d columns, the matrix has %d", stats->n, cols);
    TRY(mem_array(&c, 1, sizeof *c, "a code encoder", e));
    c->book = book;
    c->cols = cols;
    c->groups = (int)((cols + (int64_t)book->d - 1) / book->d);
    c->blocks = (c->groups + LANES - 1) / LANES;
    c->weighted = stats != NULL;
    size_t norms = (c->weighted ? (size_t)c->blocks : 2) * CODEBOOK_WORDS * LANES;
    enum status status = nearest_create(&c->nearest, book, e);
    if (status == OK)
        status = mem_array(&c->norm, norms, sizeof(float), "codeword norms", e);
    if (status == OK)
        status = mem_array(&c->h, padded(c), sizeof(float), "column weights", e);
    if (status != OK) {
        code_encoder_free(c);
        return status;
    }
    c->words = nearest_words(c->nearest);
    fill(c, stats);
    *out = c;
    return OK;
}

void code_encoder_free(struct code_encoder *c)
{
    if (!c)
        return;
    nearest_free(c->nearest);
    free(c->norm);
    free(c->h);
    free(c);
}

size_t code_encoder_scratch(const struct code_encoder *c)
{
    return padded(c);
}

/* Assigns every group under the given scale, writes the codes, and returns the closed-form scale
 * for them: sum of h w q / sum of h q^2. planes: h w, [d][blocks * LANES]. */
static double assign(const struct code_encoder *c, const float *planes, float scale, uint8_t *codes,
                     size_t stride)
{
    int d = (int)c->book->d;
    size_t plane = (size_t)c->blocks * LANES;
    double num = 0, den = 0;
    for (int b = 0; b < c->blocks; b++) {
        int32_t best[LANES];
        const float *x = planes + (size_t)b * LANES, *norm = block_norm(c, b);
        nearest_groups(c->nearest, norm, x, plane, scale / 2, best);
        for (int i = 0; i < LANES && b * LANES + i < c->groups; i++) {
            const float *word = c->words + best[i] * d;
            float dot = 0;
            for (int j = 0; j < d; j++)
                dot += x[(size_t)j * plane + (size_t)i] * word[j];
            codes[(size_t)(b * LANES + i) * stride] = (uint8_t)(best[i] | (dot < 0 ? 0x80 : 0));
            num += fabsf(dot);
            den += norm[best[i] * LANES + i];
        }
    }
    return den > 0 ? num / den : 0;
}

static void clear(const struct code_encoder *c, uint8_t *codes, size_t stride)
{
    for (int g = 0; g < c->groups; g++)
        codes[(size_t)g * stride] = 0;
}

static void measure(const struct code_encoder *c, const float *row, const uint8_t *codes,
                    size_t stride, float scale, struct row_error *error)
{
    int d = (int)c->book->d;
    *error = (struct row_error){0, 0};
    for (int g = 0; g < c->groups; g++) {
        uint8_t code = codes[(size_t)g * stride];
        const int8_t *word = c->book->vector + (code & 0x7f) * d;
        float signed_scale = code & 0x80 ? -scale : scale;
        for (int j = 0; j < d && g * d + j < c->cols; j++) {
            double w = row[g * d + j], off = w - (double)(signed_scale * word[j]);
            error->error2 += off * off;
            error->weight2 += w * w;
        }
    }
}

/* Root of the h-weighted mean square; the scale of a Gaussian row of that size is the codebook's
 * unit times it. */
static double first_scale(const struct code_encoder *c, const float *row)
{
    double sum = 0, weight = 0;
    for (int i = 0; i < c->cols; i++) {
        sum += (double)c->h[i] * row[i] * row[i];
        weight += c->h[i];
    }
    return weight > 0 ? (double)c->book->unit * sqrt(sum / weight) : 0;
}

/* The scale as it will be stored, at most the largest finite F16. */
static float stored_scale(double scale, uint16_t *f16)
{
    *f16 = f32_to_f16(scale < largest_f16 ? (float)scale : largest_f16);
    return f16_to_f32(*f16);
}

/* planes[d][blocks * LANES] = h w, zeros past the end */
static void fill_planes(const struct code_encoder *c, const float *row, float *planes)
{
    size_t d = c->book->d, plane = (size_t)c->blocks * LANES;
    memset(planes, 0, padded(c) * sizeof *planes);
    for (int i = 0; i < c->cols; i++)
        planes[(size_t)i % d * plane + (size_t)i / d] = c->h[i] * row[i];
}

bool code_encode_row(const struct code_encoder *c, const float *row, float *scratch, uint8_t *codes,
                     size_t stride, uint16_t *scale, struct row_error *error)
{
    fill_planes(c, row, scratch);
    float used = stored_scale(first_scale(c, row), scale);
    for (int round = 0; round < ROUNDS && used > 0; round++) {
        uint16_t next;
        float better = stored_scale(assign(c, scratch, used, codes, stride), &next);
        /* F16 knows no steps much finer than this; codes and scale then belong together */
        if (fabsf(better - used) <= used * 1e-3f || round == ROUNDS - 1)
            break;
        used = better;
        *scale = next;
    }
    if (!(used > 0))
        clear(c, codes, stride);
    measure(c, row, codes, stride, used, error);
    return used < largest_f16;
}
