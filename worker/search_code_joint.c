/* The joint search: a pass that chooses the codes of a whole block of columns together, all other
 * columns given, where descent changes one group at a time and stops where no single change helps.
 * What the block's codes lose is a sum over its groups in turn, as with error feedback but with the
 * factor of the block's own curvature, so the same K-best search goes through it; here the sum is
 * exact, and the outcome is taken for each row whose loss falls. */
#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/search_code_private.h"

/* Less than this part of a row's own term is no gain: rounding errors must not keep a search
 * going. */
static const double least_gain = 1e-6;

/* r[width][width] upper triangular with H = r r', H the curvature of the columns from first; by
 * columns from the last one. */
static void factor_block(const struct curvature *k, int first, int width, double *r)
{
    for (int j = width - 1; j >= 0; j--)
        for (int i = j; i >= 0; i--) {
            double h = (double)k->h[(size_t)(first + i) * (size_t)k->n + (size_t)(first + j)];
            double sum = h;
            for (int l = j + 1; l < width; l++)
                sum -= r[i * width + l] * r[j * width + l];
            if (i == j) /* damping keeps this positive but for rounding */
                r[i * width + j] = sqrt(sum > 1e-9 * h ? sum : 1e-9 * h);
            else
                r[i * width + j] = sum / r[j * width + j];
        }
}

/* u[width][stride] = r^-1, through v[width], a column of it. */
static void invert_block(const double *r, int width, size_t stride, double *v, float *u)
{
    for (int j = 0; j < width; j++)
        for (int i = j; i >= 0; i--) {
            double sum = i == j;
            for (int l = i + 1; l <= j; l++)
                sum -= r[i * width + l] * v[l];
            v[i] = sum / r[i * width + i];
            u[(size_t)i * stride + (size_t)j] = (float)v[i];
        }
}

enum status code_joint_create(struct code_search *s, struct error *e)
{
    size_t block = (size_t)s->block;
    double *r;
    TRY(code_factor_allocate(s, &s->joint, e));
    TRY(mem_array(&s->joint_u, (size_t)s->n * block, sizeof(float), "factors of blocks", e));
    TRY(mem_array(&r, block * block + block, sizeof *r, "the factor of a block", e));
    s->joint.u = s->joint_u;
    s->joint.stride = block;
    for (int first = 0; first < s->n; first = block_end(s, first)) {
        int width = block_end(s, first) - first;
        factor_block(s->k, first, width, r);
        invert_block(r, width, block, r + block * block, s->joint_u + (size_t)first * block);
    }
    free(r);
    for (int g = 0; g < s->groups; g++)
        code_factor_fill(s, &s->joint, g);
    return OK;
}

/* out[width][64] = U x, or U' x + out; U that of the block that begins at first. */
static void apply(const struct code_search *s, bool transposed, int first, int width,
                  const float *x, float *out)
{
    int stride = (int)s->joint.stride;
    cblas_sgemm(CblasRowMajor, transposed ? CblasTrans : CblasNoTrans, CblasNoTrans, width, ROWS,
                width, 1, s->joint_u + (size_t)first * s->joint.stride, stride, x, ROWS,
                transposed ? 1 : 0, out, ROWS);
}

/* b->work = a q + H_BB^-1 (T H - a qh), what the columns would be if they could be anything. image
 * and white are overwritten. */
static void make_targets(struct band *b, int first, int width, const float *qh, float *image,
                         float *white)
{
    const float *th = b->th + (size_t)first * ROWS, *q = b->q + (size_t)first * ROWS;
    for (int i = 0; i < width * ROWS; i++) {
        image[i] = th[i] - b->a[i % ROWS] * qh[i];
        b->work[i] = b->a[i % ROWS] * q[i];
    }
    apply(b->s, false, first, width, image, white);
    apply(b->s, true, first, width, white, b->work);
}

/* Takes codes, whose words are q + delta, in the rows where the loss falls; qh = Q H before, and is
 * lost. */
static bool take(struct band *b, int first, int end, const uint8_t *codes, const float *delta,
                 float *qh)
{
    const struct code_search *s = b->s;
    double num[ROWS] = {0}, den[ROWS] = {0};
    size_t at = (size_t)first * ROWS;
    int width = end - first;
    bool better[ROWS], any = false;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, width, ROWS, width, 1,
                s->k->h + (size_t)first * (size_t)s->n + first, s->n, delta, ROWS, 2, qh, ROWS);
    band_dots(delta, b->th + at, width, num);
    band_dots(delta, qh, width, den);
    for (int r = 0; r < ROWS; r++) {
        double a = (double)b->a[r], gain = 2 * a * num[r] - a * a * den[r];
        better[r] = a > 0 && gain > least_gain * a * a * b->den[r];
        any |= better[r];
        b->num[r] += better[r] ? num[r] : 0;
        b->den[r] += better[r] ? den[r] : 0;
    }
    for (int i = 0; i < width * ROWS; i++)
        b->q[at + (size_t)i] += better[i % ROWS] ? delta[i] : 0;
    uint8_t *mine = b->codes + (size_t)(first / s->d) * ROWS;
    for (int i = 0; i < (width + s->d - 1) / s->d * ROWS; i++)
        mine[i] = better[i % ROWS] ? codes[i] : mine[i];
    return any;
}

bool band_joint(struct band *b)
{
    const struct code_search *s = b->s;
    size_t room = (size_t)s->block * ROWS;
    uint8_t codes[BLOCK_MAX / 2 * ROWS] = {0};
    float over[ROWS], *delta = b->paths;
    bool changed = false;
    for (int first = 0; first < s->n; first = block_end(s, first)) {
        int end = block_end(s, first);
        float *qh = b->x + (size_t)first * ROWS;
        band_reciprocals(b, over);
        band_multiply(s, first, end, 0, s->n, 1, b->q, 0, qh);
        make_targets(b, first, end - first, qh, b->paths, b->paths + room);
        band_beam(b, &s->joint, first, end, over, codes);
        for (int c = first; c < end; c += s->d)
            band_words(b, c / s->d, codes + (c - first) / s->d * ROWS,
                       delta + (size_t)(c - first) * ROWS);
        for (int i = 0; i < (end - first) * ROWS; i++)
            delta[i] -= b->q[(size_t)first * ROWS + (size_t)i];
        changed |= take(b, first, end, codes, delta, qh);
        band_fit(b);
    }
    return changed;
}
