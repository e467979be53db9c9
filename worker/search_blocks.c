/* Block types under a curvature, a band at a time: what the rows share, the order of the steps,
 * losses and bytes. See search_blocks.h. */
#include "worker/search_blocks.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/search_blocks_private.h"

/* Grids: Q8_0's error jumps with the scale, as its 32 weights happen to fall near multiples of it,
 * so that steps up to a fifth coarser are worth many tries, while clipping is not; the others reach
 * down to where half of a Gaussian block's outer weights are clipped. Q1_0's integers do not
 * depend on the scale. */
static struct block_form form_of(enum dtype dtype)
{
    switch (dtype) {
    case DTYPE_Q8_0: /* not -128: |q| must fit int8 */
        return (struct block_form){32, -127, 1, 254, .996f / 127, 1.2f / 127, 32, .006f, false};
    case DTYPE_Q4_0:
        return (struct block_form){32, -8, 1, 15, .4f / 8, 1.15f / 8, 16, .06f, true};
    case DTYPE_Q2_0:
        return (struct block_form){64, -1, 1, 3, .1f, .75f, 14, .16f, true};
    default:
        return (struct block_form){128, -1, 2, 1, 1, 1, 1, .25f, false};
    }
}

void block_search_product(const float *m, int ld, bool transposed, int rows, int inner,
                          const float *x, float factor, float keep, float *y)
{
    if (inner > 0)
        cblas_sgemm(CblasRowMajor, transposed ? CblasTrans : CblasNoTrans, CblasNoTrans, rows,
                    LANES, inner, factor, m, ld, x, LANES, keep, y, LANES);
    else if (keep == 0)
        memset(y, 0, (size_t)rows * LANES * sizeof *y);
}

static float inverse_of(double v)
{
    double inverse = 1 / v;
    return isfinite((float)inverse) ? (float)inverse : 0;
}

/* Divided by their mean, so that sums in float stay far from its ends. */
static void normalise(float *weight, const double *cost, int n)
{
    double mean = 0;
    for (int j = 0; j < n; j++)
        mean += cost[j] / n;
    for (int j = 0; j < n; j++)
        weight[j] = mean > 0 ? (float)(cost[j] / mean) : 1;
}

static void fill_columns(struct block_search *s, double *cost)
{
    size_t stride = (size_t)s->n + 1;
    for (int j = 0; j < s->n; j++) {
        cost[j] = s->h[(size_t)j * stride];
        s->inverse_h[j] = inverse_of(cost[j]);
    }
    normalise(s->plain_weight, cost, s->n);
    for (int j = 0; s->recipe.feedback && j < s->n; j++) {
        double u = s->u[(size_t)j * stride];
        s->inverse_u[j] = inverse_of(u);
        cost[j] = (double)s->inverse_u[j] * s->inverse_u[j];
    }
    if (s->recipe.feedback)
        normalise(s->fed_weight, cost, s->n);
}

enum status block_search_create(struct block_search **out, enum dtype dtype,
                                const struct curvature *k, const struct recipe *recipe,
                                struct error *e)
{
    struct block_search *s;
    double *cost = NULL;
    size_t n = (size_t)k->n;
    TRY(mem_array(&s, 1, sizeof *s, "block search", e));
    *s = (struct block_search){.form = form_of(dtype),
                               .dtype = dtype,
                               .n = k->n,
                               .k = k,
                               .h = k->h,
                               .u = k->u,
                               .recipe = *recipe,
                               .block_bytes = dtype_info(dtype)->block_bytes};
    enum status status = mem_array(&s->plain_weight, 4 * n, sizeof(float), "block search", e);
    if (status == OK)
        status = mem_array(&cost, n, sizeof *cost, "block search", e);
    if (status != OK) {
        block_search_free(s);
        return status;
    }
    s->fed_weight = s->plain_weight + n;
    s->inverse_h = s->plain_weight + 2 * n;
    s->inverse_u = s->plain_weight + 3 * n;
    fill_columns(s, cost);
    free(cost);
    *out = s;
    return OK;
}

void block_search_free(struct block_search *s)
{
    if (!s)
        return;
    free(s->plain_weight);
    free(s);
}

size_t block_search_scratch(const struct block_search *s)
{
    size_t n = (size_t)s->n;
    return (2 * n + n / (size_t)s->form.block + 2 * TILE + 4 * WIDEST) * LANES;
}

static struct block_band band_of(const struct block_search *s, float *scratch)
{
    size_t n = (size_t)s->n * LANES, tile = (size_t)TILE * LANES;
    struct block_band band = {
        .x = scratch, .q = scratch + n, .scale = scratch + 2 * n, .fits = true};
    band.gradient = band.scale + n / (size_t)s->form.block;
    band.lower = band.gradient + tile;
    band.work = band.lower + tile;
    return band;
}

static void load(const float *target, int rows, int n, float *x)
{
    if (rows < LANES)
        memset(x, 0, (size_t)n * LANES * sizeof *x);
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < n; j++)
            x[(size_t)j * LANES + (size_t)r] = target[(size_t)r * (size_t)n + (size_t)j];
}

/* x -= scale q */
static void subtract(const struct block_search *s, struct block_band *band)
{
    for (int j = 0; j < s->n; j++) {
        const float *scale = band->scale + (size_t)(j / s->form.block) * LANES;
        const float *q = band->q + (size_t)j * LANES;
        float *x = band->x + (size_t)j * LANES;
        for (int i = 0; i < LANES; i++)
            x[i] -= scale[i] * q[i];
    }
}

/* x H x' over all lanes: twice the part of earlier tiles, once the tile's own. Zeros of H are left out. */
static double loss_of(const struct block_search *s, const struct block_band *band)
{
    double sum = 0;
    for (int first = 0; first < s->n; first += TILE) {
        int columns = s->n - first < TILE ? s->n - first : TILE;
        int begin = curvature_begin(s->k, first);
        const float *h = s->h + (size_t)first * (size_t)s->n;
        const float *x = band->x + (size_t)first * LANES;
        block_search_product(h + begin, s->n, false, columns, first - begin,
                             band->x + (size_t)begin * LANES, 2, 0, band->gradient);
        block_search_product(h + first, s->n, false, columns, columns, x, 1, 1, band->gradient);
        for (int j = 0; j < columns * LANES; j++)
            sum += (double)x[j] * band->gradient[j];
    }
    return sum;
}

/* Scales and integers by the columns' own costs. */
static void round_plainly(const struct block_search *s, struct block_band *band)
{
    int block = s->form.block;
    for (int first = 0; first < s->n; first += block) {
        float inverse[LANES], *scale = band->scale + (size_t)(first / block) * LANES;
        float *x = band->x + (size_t)first * LANES, *q = band->q + (size_t)first * LANES;
        block_search_scale(&s->form, s->plain_weight + first, x, s->recipe.rounds, scale,
                           &band->fits);
        block_search_invert(scale, inverse);
        for (int j = 0; j < block; j++)
            block_search_round(&s->form, x + j * LANES, inverse, q + j * LANES);
    }
}

/* One block of one row; q its integers, LANES apart. */
static void encode(const struct block_search *s, float scale, const float *q, uint8_t *out)
{
    int block = s->form.block;
    uint16_t d = f32_to_f16(scale);
    memset(out, 0, s->block_bytes);
    out[0] = (uint8_t)d;
    out[1] = (uint8_t)(d >> 8);
    for (int j = 0; j < block; j++) {
        float v = q[(size_t)j * LANES];
        unsigned k = (unsigned)((v - s->form.low) / s->form.step);
        if (s->dtype == DTYPE_Q8_0)
            out[2 + j] = (uint8_t)(int8_t)v;
        else if (s->dtype == DTYPE_Q4_0)
            out[2 + j % 16] |= (uint8_t)(k << j / 16 * 4);
        else if (s->dtype == DTYPE_Q2_0)
            out[2 + j / 4] |= (uint8_t)(k << j % 4 * 2);
        else
            out[2 + j / 8] |= (uint8_t)(k << j % 8);
    }
}

static void write_rows(const struct block_search *s, const struct block_band *band,
                       const float *target, int rows, uint8_t *out, struct band_loss *loss)
{
    int block = s->form.block, blocks = s->n / block;
    float decoded[WIDEST];
    for (int r = 0; r < rows; r++)
        for (int b = 0; b < blocks; b++) {
            size_t at = (size_t)r * (size_t)blocks + (size_t)b;
            uint8_t *to = out + at * s->block_bytes;
            encode(s, band->scale[b * LANES + r], band->q + (size_t)b * (size_t)block * LANES + r,
                   to);
            dtype_to_f32(s->dtype, to, (uint64_t)block, decoded);
            for (int j = 0; j < block; j++) {
                double w = target[at * (size_t)block + (size_t)j], off = w - decoded[j];
                loss->error2 += off * off;
                loss->weight2 += w * w;
            }
        }
}

bool block_search_band(const struct block_search *s, const float *target, int rows, float *scratch,
                       uint8_t *out, struct band_loss *loss)
{
    struct block_band band = band_of(s, scratch);
    *loss = (struct band_loss){0};
    load(target, rows, s->n, band.x);
    loss->signal = loss_of(s, &band);
    round_plainly(s, &band);
    subtract(s, &band);
    loss->rounded = loss->fed = loss->final = loss_of(s, &band);
    if (s->recipe.feedback) {
        band.fits = true;
        load(target, rows, s->n, band.x);
        block_search_feed(s, &band);
        load(target, rows, s->n, band.x);
        subtract(s, &band);
        if (s->recipe.descent == 0)
            loss->fed = loss->final = loss_of(s, &band);
    }
    if (s->recipe.descent > 0)
        block_search_descend(s, &band, s->recipe.descent, &loss->fed, &loss->final);
    if (!s->recipe.feedback)
        loss->fed = loss->rounded; /* but for the order of the sum */
    write_rows(s, &band, target, rows, out, loss);
    return band.fits && isfinite(loss->final) && isfinite(loss->error2);
}
