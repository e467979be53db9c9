#include <cblas.h>
#include <math.h>
#include <string.h>

#include "worker/search_code_private.h"

/* Less than this part of a codeword's own term is no gain: rounding errors must not keep a descent
 * going. */
static const float least_gain = 1e-6f;

void band_multiply(const struct code_search *s, int b0, int b1, int k0, int k1, float factor,
                   const float *x, float keep, float *out)
{
    int begin = curvature_begin(s->k, b0), end = curvature_end(s->k, b1 - 1);
    k0 = k0 > begin ? k0 : begin;
    k1 = k1 < end ? k1 : end;
    if (k0 >= k1) /* zeros of H alone; keep is 1 where that can be */
        return;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, b1 - b0, ROWS, k1 - k0, factor,
                s->k->h + (size_t)b0 * (size_t)s->n + k0, s->n, x + (size_t)k0 * ROWS, ROWS, keep,
                out, ROWS);
}

void band_dots(const float *x, const float *y, int cols, double sum[ROWS])
{
    for (int j = 0; j < cols; j++)
        for (int r = 0; r < ROWS; r++)
            sum[r] += (double)x[j * ROWS + r] * (double)y[j * ROWS + r];
}

void band_target(struct band *b)
{
    const struct code_search *s = b->s;
    for (int first = 0; first < s->n; first = block_end(s, first))
        band_multiply(s, first, block_end(s, first), 0, s->n, 1, b->t, 0,
                      b->th + (size_t)first * ROWS);
    memset(b->signal, 0, sizeof b->signal);
    band_dots(b->t, b->th, s->n, b->signal);
}

/* H is symmetric: each block meets itself once and the later ones twice. */
void band_quadratic(struct band *b, const float *x, double out[ROWS])
{
    const struct code_search *s = b->s;
    memset(out, 0, ROWS * sizeof *out);
    for (int first = 0; first < s->n; first = block_end(s, first)) {
        int end = block_end(s, first);
        band_multiply(s, first, end, first, end, 1, x, 0, b->work);
        if (end < s->n)
            band_multiply(s, first, end, end, s->n, 2, x, 1, b->work);
        band_dots(x + (size_t)first * ROWS, b->work, end - first, out);
    }
}

static void fit_all(struct band *b)
{
    memset(b->num, 0, sizeof b->num);
    band_dots(b->q, b->th, b->s->n, b->num);
    band_quadratic(b, b->q, b->den);
    band_fit(b);
}

/* Gives the rows of group g the words nearest to y[d][64] (in the metric of norm); only where that is
 * a gain over the word they have when improve says so. delta[d][64], when not NULL, is how the words
 * change; returns whether any does. */
static bool choose(struct band *b, int g, const float *norm, const float *y, bool improve,
                   float *delta)
{
    const struct code_search *s = b->s;
    int32_t best[ROWS];
    float dot[ROWS] = {0}, old_dot[ROWS] = {0}, word[CODEBOOK_MAX_D * ROWS], sign[ROWS];
    float *q = b->q + (size_t)g * (size_t)s->d * ROWS;
    uint8_t *codes = b->codes + (size_t)g * ROWS;
    int width = group_width(s, g);
    bool changed = false;
    nearest_rows(s->nearest, norm, y, best);
    for (int j = 0; j < width; j++)
        for (int r = 0; r < ROWS; r++) {
            int at = j * ROWS + r;
            word[at] = s->words[best[r] * s->d + j];
            dot[r] += y[at] * word[at];
            old_dot[r] += y[at] * q[at];
        }
    for (int r = 0; r < ROWS; r++) {
        uint8_t code = (uint8_t)(best[r] | (dot[r] < 0 ? 0x80 : 0));
        float gain = fabsf(dot[r]) - norm[best[r]] - (old_dot[r] - norm[codes[r] & 0x7f]);
        bool keep = !(b->a[r] > 0) || (improve && !(gain > least_gain * norm[best[r]]));
        sign[r] = keep ? 0 : code & 0x80 ? -1.0f : 1.0f;
        changed |= !keep;
        codes[r] = keep ? codes[r] : code;
    }
    for (int i = 0; i < width * ROWS; i++) {
        float new_word = sign[i % ROWS] != 0 ? sign[i % ROWS] * word[i] : q[i];
        if (delta)
            delta[i] = new_word - q[i];
        q[i] = new_word;
    }
    return changed;
}

void band_reciprocals(const struct band *b, float out[ROWS])
{
    for (int r = 0; r < ROWS; r++)
        out[r] = b->a[r] > 0 ? 1 / b->a[r] : 0;
}

static void round_once(struct band *b, double num[ROWS], double den[ROWS])
{
    const struct code_search *s = b->s;
    float y[CODEBOOK_MAX_D * ROWS] = {0}, over[ROWS];
    band_reciprocals(b, over);
    for (int g = 0; g < s->groups; g++) {
        int width = group_width(s, g);
        size_t at = (size_t)g * (size_t)s->d * ROWS;
        memset(y, 0, sizeof y);
        for (int i = 0; i < width * ROWS; i++)
            y[i] = b->t[at + (size_t)i] * over[i % ROWS];
        choose(b, g, s->norm_flat + (width < s->d ? CODEBOOK_WORDS : 0), y, false, NULL);
        band_dots(b->q + at, b->t + at, width, num);
        band_dots(b->q + at, b->q + at, width, den);
    }
}

void band_round(struct band *b)
{
    for (uint32_t i = 0; i < b->s->recipe.rounds; i++) {
        memset(b->num, 0, sizeof b->num);
        memset(b->den, 0, sizeof b->den);
        round_once(b, b->num, b->den);
        band_fit(b);
    }
    fit_all(b);
}

/* Chooses the words of group g, whose target with all corrections is t[width][64]. */
static void feed_choose(struct band *b, int g, const float *t, const float over[ROWS])
{
    const struct code_search *s = b->s;
    int width = group_width(s, g);
    float y[CODEBOOK_MAX_D * ROWS] = {0};
    nearest_spread(s->nearest, s->feed.square + (size_t)g * (size_t)(s->d * s->d), (size_t)s->d,
                   width, t, width, y);
    for (int i = 0; i < width * ROWS; i++)
        y[i] *= over[i % ROWS];
    choose(b, g, s->feed.norm + (size_t)g * CODEBOOK_WORDS, y, false, NULL);
}

void band_words(const struct band *b, int g, const uint8_t *codes, float *q)
{
    const struct code_search *s = b->s;
    for (int j = 0; j < group_width(s, g); j++)
        for (int r = 0; r < ROWS; r++) {
            uint8_t code = codes[r];
            float word = s->words[(code & 0x7f) * s->d + j];
            q[j * ROWS + r] = !(b->a[r] > 0) ? 0 : code & 0x80 ? -word : word;
        }
}

/* Minus the whitened error of group g goes to b->x and with U's row to the columns up to end. */
static void feed_error(struct band *b, int g, int first, int end)
{
    const struct code_search *s = b->s;
    int d = s->d, c = g * d, width = group_width(s, g), after = c + width;
    size_t n = (size_t)s->n;
    const float *t = b->work + (size_t)(c - first) * ROWS, *q = b->q + (size_t)c * ROWS;
    float e[CODEBOOK_MAX_D * ROWS], *x = b->x + (size_t)c * ROWS;
    for (int i = 0; i < width * ROWS; i++)
        e[i] = b->a[i % ROWS] * q[i] - t[i];
    memset(x, 0, (size_t)width * ROWS * sizeof *x);
    nearest_spread(s->nearest, s->feed.inverse + (size_t)g * (size_t)(d * d), (size_t)d, width, e,
                   width, x);
    nearest_spread(s->nearest, s->k->u + (size_t)c * n + (size_t)after, n, end - after, x, width,
                   b->work + (size_t)(after - first) * ROWS);
}

void band_feed(struct band *b, bool several)
{
    const struct code_search *s = b->s;
    float over[ROWS];
    band_reciprocals(b, over);
    for (int first = 0; first < s->n; first = block_end(s, first)) {
        int end = block_end(s, first), begin = curvature_begin(s->k, first);
        memcpy(b->work, b->t + (size_t)first * ROWS, (size_t)(end - first) * ROWS * sizeof *b->t);
        if (begin < first)
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, end - first, ROWS, first - begin,
                        1, s->k->u + (size_t)begin * (size_t)s->n + first, s->n,
                        b->x + (size_t)begin * ROWS, ROWS, 1, b->work, ROWS);
        if (several)
            band_beam(b, &s->feed, first, end, over, b->codes + (size_t)(first / s->d) * ROWS);
        for (int c = first; c < end; c += s->d) {
            if (several)
                band_words(b, c / s->d, b->codes + (size_t)(c / s->d) * ROWS,
                           b->q + (size_t)c * ROWS);
            else
                feed_choose(b, c / s->d, b->work + (size_t)(c - first) * ROWS, over);
            feed_error(b, c / s->d, first, end);
        }
    }
    fit_all(b);
}

/* Group g, qh[width][64] = Q H of its columns: chooses its words with all others given. Returns whether
 * any changed; delta[d][64] is then how, and num and den follow. */
static bool descend_group(struct band *b, int g, const float *qh, const float over[ROWS],
                          float *delta)
{
    const struct code_search *s = b->s;
    size_t n = (size_t)s->n, first = (size_t)g * (size_t)s->d;
    const float *h = s->k->h + first * n + first, *th = b->th + first * ROWS;
    float y[CODEBOOK_MAX_D * ROWS] = {0};
    int width = group_width(s, g);
    for (int i = 0; i < width * ROWS; i++)
        y[i] = th[i] * over[i % ROWS] - qh[i];
    nearest_spread(s->nearest, h, n, width, b->q + first * ROWS, width, y);
    if (!choose(b, g, s->norm_h + (size_t)g * CODEBOOK_WORDS, y, true, delta))
        return false;
    for (int i = 0; i < width * ROWS; i++)
        y[i] = 2 * qh[i];
    nearest_spread(s->nearest, h, n, width, delta, width, y);
    band_dots(delta, th, width, b->num);
    band_dots(delta, y, width, b->den);
    return true;
}

bool band_descend(struct band *b)
{
    const struct code_search *s = b->s;
    size_t n = (size_t)s->n;
    float over[ROWS], delta[CODEBOOK_MAX_D * ROWS];
    bool changed = false;
    for (int first = 0; first < s->n; first = block_end(s, first)) {
        int end = block_end(s, first);
        band_reciprocals(b, over);
        band_multiply(s, first, end, 0, s->n, 1, b->q, 0, b->work);
        for (int g = first / s->d, c = first; c < end; g++, c += s->d) {
            int after = c + group_width(s, g);
            if (!descend_group(b, g, b->work + (size_t)(c - first) * ROWS, over, delta))
                continue;
            changed = true;
            nearest_spread(s->nearest, s->k->h + (size_t)c * n + (size_t)after, n, end - after,
                           delta, after - c, b->work + (size_t)(after - first) * ROWS);
        }
        band_fit(b);
    }
    return changed;
}
