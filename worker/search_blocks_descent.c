/* Coordinate descent of the block search: integers one by one, then their block's scale in closed
 * form, each the best that it can be with all else as it is, under the whole curvature. A tile's
 * gradient R H, R = target - scale q, is gathered by one product over all columns; inside the tile
 * it is kept up to date. Owns the gradient. */
#include <math.h>
#include <string.h>

#include "worker/search_blocks_private.h"

struct tile {
    int first, end;  /* columns */
    float *gradient; /* [end - first][LANES] of R H */
    float *lower;    /* the part of columns before the tile, [TILE][LANES] */
    float *work;     /* [4 * WIDEST][LANES] */
};

static const float *h_at(const struct block_search *s, int row, int column)
{
    return s->h + (size_t)row * (size_t)s->n + column;
}

/* Lanes of one update: where none of them moves, as is common after the first pass, it is left out.
 */
enum { GROUP = 8 };

/* A block in the making: integers, the gradient that goes with them, both [block][LANES], their
 * scale, and by how much the loss has fallen. */
struct state {
    float *q, *g;
    float scale[LANES], gain[LANES];
};

typedef float group __attribute__((vector_size(GROUP * sizeof(float)), aligned(4), may_alias));

/* g[block][GROUP of LANES] -= moved[GROUP] h[block] */
static void follow(float *g, const float *moved, const float *h, int block)
{
    group by = *(const group *)moved;
    for (int c = 0; c < block; c++)
        *(group *)(g + c * LANES) -= by * h[c];
}

/* The best integer for each column in turn; scale[LANES] is that of the integers on entry,
 * to->scale that of those to come. */
static void sweep(const struct block_search *s, int first, const float *scale, struct state *to)
{
    int block = s->form.block;
    float inverse[LANES], z[LANES], better[LANES];
    block_search_invert(to->scale, inverse);
    for (int j = 0; j < block; j++) {
        const float *h = h_at(s, first + j, first);
        float *q = to->q + j * LANES, *g = to->g + j * LANES, by = s->inverse_h[first + j];
        float moved[LANES];
        for (int i = 0; i < LANES; i++)
            z[i] = scale[i] * q[i] + g[i] * by;
        block_search_round(&s->form, z, inverse, better);
        for (int i = 0; i < LANES; i++) {
            moved[i] = to->scale[i] * better[i] - scale[i] * q[i];
            to->gain[i] += moved[i] * (2 * g[i] - moved[i] * h[j]);
            q[i] = better[i];
        }
        for (int i = 0; i < LANES; i += GROUP) {
            float any = 0;
            for (int l = i; l < i + GROUP; l++)
                any += fabsf(moved[l]);
            if (any > 0)
                follow(to->g + i, moved + i, h, block);
        }
    }
}

/* The scale that is best for the integers, where its F16 lowers the loss. */
static void refit(const struct block_search *s, int first, float *qh, struct state *to)
{
    int block = s->form.block;
    float up[LANES] = {0}, curve[LANES] = {0}, moved[LANES];
    bool fits = true;
    block_search_product(h_at(s, first, first), s->n, false, block, block, to->q, 1, 0, qh);
    for (int j = 0; j < block; j++)
        for (int i = 0; i < LANES; i++) {
            up[i] += to->q[j * LANES + i] * to->g[j * LANES + i];
            curve[i] += to->q[j * LANES + i] * qh[j * LANES + i];
        }
    for (int i = 0; i < LANES; i++)
        moved[i] = to->scale[i] + (curve[i] > 0 ? up[i] / curve[i] : 0);
    block_search_store(moved, &fits);
    for (int i = 0; i < LANES; i++) {
        float by = moved[i] - to->scale[i], gain = by * (2 * up[i] - by * curve[i]);
        moved[i] = gain > 0 ? by : 0;
        to->gain[i] += gain > 0 ? gain : 0;
        to->scale[i] += moved[i];
    }
    for (int j = 0; j < block; j++)
        for (int i = 0; i < LANES; i++)
            to->g[j * LANES + i] -= moved[i] * qh[j * LANES + i];
}

/* What comes of a scale that differs by factor: kept in the lanes where it is better. */
static void attempt(const struct block_search *s, int first, float factor, float *work,
                    struct state *best)
{
    int size = s->form.block * LANES;
    struct state other = {.q = work, .g = work + size};
    bool fits = true;
    memcpy(other.q, best->q, (size_t)size * sizeof *work);
    memcpy(other.g, best->g, (size_t)size * sizeof *work);
    for (int i = 0; i < LANES; i++)
        other.scale[i] = best->scale[i] * factor;
    block_search_store(other.scale, &fits);
    sweep(s, first, best->scale, &other);
    refit(s, first, work + 2 * size, &other);
    sweep(s, first, other.scale, &other);
    refit(s, first, work + 2 * size, &other);
    for (int i = 0; i < LANES; i++) {
        if (!(other.gain[i] > 0))
            continue;
        best->scale[i] = other.scale[i];
        for (int j = i; j < size; j += LANES) {
            best->q[j] = other.q[j];
            best->g[j] = other.g[j];
        }
    }
}

/* One block; the tile's later columns learn of what changed. */
static void descend_block(const struct block_search *s, struct block_band *band,
                          const struct tile *t, int first, float step)
{
    int block = s->form.block, next = first + block;
    float *x = band->x + (size_t)first * LANES, *changed = t->work;
    float *scale = band->scale + (size_t)(first / block) * LANES;
    struct state now = {.q = band->q + (size_t)first * LANES,
                        .g = t->gradient + (size_t)(first - t->first) * LANES};
    memcpy(now.scale, scale, sizeof now.scale);
    for (int j = 0; j < block * LANES; j++)
        changed[j] = scale[j % LANES] * now.q[j];
    sweep(s, first, scale, &now);
    refit(s, first, t->work + (size_t)block * LANES, &now);
    attempt(s, first, 1 + step, t->work + (size_t)block * LANES, &now);
    attempt(s, first, 1 - step, t->work + (size_t)block * LANES, &now);
    memcpy(scale, now.scale, sizeof now.scale);
    for (int j = 0; j < block * LANES; j++) {
        changed[j] = scale[j % LANES] * now.q[j] - changed[j];
        x[j] -= changed[j];
    }
    if (next < t->end)
        block_search_product(h_at(s, next, first), s->n, false, t->end - next, block, changed, -1,
                             1, now.g + (size_t)block * LANES);
}

/* sum of x (2 half + diagonal) over the tile, diagonal = the tile's own part of x H: with half the
 * part of earlier columns, or of later ones, these sum up to x H x' over all tiles. */
static double tile_loss(const struct block_search *s, const struct block_band *band,
                        const struct tile *t, const float *half)
{
    const float *x = band->x + (size_t)t->first * LANES;
    int columns = t->end - t->first;
    double sum = 0;
    block_search_product(h_at(s, t->first, t->first), s->n, false, columns, columns, x, 1, 0,
                         t->work);
    for (int j = 0; j < columns * LANES; j++)
        sum += (double)x[j] * (2 * (double)half[j] + t->work[j]);
    return sum;
}

/* lower, and gradient = the part of the later columns; both have yet to be joined. Zeros of H are left out. */
static void gather(const struct block_search *s, const struct block_band *band,
                   const struct tile *t)
{
    int columns = t->end - t->first, later = curvature_end(s->k, t->end - 1) - t->end;
    int begin = curvature_begin(s->k, t->first);
    block_search_product(h_at(s, t->first, begin), s->n, false, columns, t->first - begin,
                         band->x + (size_t)begin * LANES, 1, 0, t->lower);
    block_search_product(h_at(s, t->first, t->end), s->n, false, columns, later,
                         band->x + (size_t)t->end * LANES, 1, 0, t->gradient);
}

/* gradient += lower + the tile's own part */
static void join(const struct block_search *s, const struct block_band *band, const struct tile *t)
{
    int columns = t->end - t->first;
    block_search_product(h_at(s, t->first, t->first), s->n, false, columns, columns,
                         band->x + (size_t)t->first * LANES, 1, 1, t->gradient);
    for (int j = 0; j < columns * LANES; j++)
        t->gradient[j] += t->lower[j];
}

void block_search_descend(const struct block_search *s, struct block_band *band, uint32_t passes,
                          double *before, double *after)
{
    *before = *after = 0;
    for (uint32_t pass = 0; pass < passes; pass++)
        for (int first = 0; first < s->n; first += TILE) {
            struct tile t = {first, first + TILE < s->n ? first + TILE : s->n, band->gradient,
                             band->lower, band->work};
            gather(s, band, &t);
            if (pass == 0) /* later columns are still as they were before the pass */
                *before += tile_loss(s, band, &t, t.gradient);
            join(s, band, &t);
            for (int b = first; b < t.end; b += s->form.block)
                descend_block(s, band, &t, b, s->form.nudge / (float)(pass + 1));
            if (pass + 1 == passes) /* earlier columns are as they will be after it */
                *after += tile_loss(s, band, &t, t.lower);
        }
}
