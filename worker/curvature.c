/* The formulas on top of worker/linear.h's algebra, block by block. */
#define _GNU_SOURCE
#include "worker/curvature.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/mem.h"
#include "worker/linear.h"
#include "worker/median.h"

enum { ATTEMPTS = 4 }; /* at a factorisation */

/* Second moments as they are to be damped. */
struct damped {
    const struct moments_node *node;
    double shrink, damp;
    double level; /* of the diagonal, per token */
    int threads;
    const char *what;
};

static size_t at(int row, int column, int n)
{
    return (size_t)row * (size_t)n + (size_t)column;
}

void curvature_init(void)
{
    linear_init();
}

static enum status open_damped(struct damped *d, struct error *e)
{
    struct diagonal shape = {d->node->n, d->node->width};
    size_t n = (size_t)shape.n;
    double sum = 0, *energy;
    FAIL_IF(d->node->tokens == 0, e, ERR_LIMIT,
            "the calibration text has no tokens for the inputs of %s: give a longer one", d->what);
    TRY(mem_array(&energy, 2 * n, sizeof *energy, "the diagonal of moments", e));
    for (size_t i = 0; i < n; i++)
        energy[i] = (double)d->node->h[diagonal_row(shape, (int)i) + i % (size_t)shape.width];
    double most = CURVATURE_MASSIVE * median_positive(energy, n, energy + n);
    for (size_t i = 0; i < n; i++)
        sum += fmin(energy[i], most);
    free(energy);
    d->level = sum > 0 ? sum / (double)n / (double)d->node->tokens : 1;
    return OK;
}

/* to[j] = factor * from[j] for j in [start, end); false when one is not finite. */
static bool scale_row(float *to, const float *from, double factor, int start, int end)
{
    int finite = 1;
    for (int j = start; j < end; j++) {
        to[j] = (float)(factor * (double)from[j]);
        finite &= fabsf(to[j]) <= FLT_MAX;
    }
    return finite;
}

static enum status refuse(const struct damped *d, struct error *e)
{
    return error_set(e, ERR_LIMIT,
                     "the calibration text drives the inputs of %s out of range: give another text",
                     d->what);
}

/* The upper triangle of (1 - shrink) H + shrink diag(H) + damp level(H) I, H per token. */
static enum status write_damped(const struct damped *d, float *to, struct error *e)
{
    int n = d->node->n;
    double factor = 1 / (double)d->node->tokens;
    bool finite = true;
#pragma omp parallel for num_threads(d->threads) schedule(dynamic, 16) reduction(&& : finite)
    for (int i = 0; i < n; i++) {
        const float *row = d->node->h + at(i, 0, n);
        float *out = to + at(i, 0, n);
        bool rest = scale_row(out, row, (1 - d->shrink) * factor, i + 1, n);
        out[i] = (float)(factor * (double)row[i] + d->damp * d->level);
        finite = finite && rest && isfinite(out[i]);
    }
    return finite ? OK : refuse(d, e);
}

/* r: the factor of linear_factor in the upper triangle; the rest stays. Leaves in d the damping
 * that it took. */
static enum status factor_damped(struct damped *d, float *r, struct error *e)
{
    for (int i = 0; i < ATTEMPTS; i++) {
        TRY(write_damped(d, r, e));
        if (linear_factor(r, d->node->n, d->threads))
            return OK;
        d->damp *= 10;
    }
    return error_set(e, ERR_LIMIT,
                     "the inputs of %s depend on each other too closely to be told apart: "
                     "raise the damping or give a longer calibration text",
                     d->what);
}

static enum status square(float **out, int n, const char *what, struct error *e)
{
    return mem_array(out, (size_t)n * (size_t)n, sizeof **out, what, e);
}

/* Zeros [n][n] that take memory only where they are written: pages that are only read are one page
 * of the system's. Large pages would be written whole. */
static enum status open_image(float **out, int n, bool sparse, const char *what, struct error *e)
{
    size_t bytes = (size_t)n * (size_t)n * sizeof **out;
    void *image = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | (sparse ? MAP_NORESERVE : 0), -1, 0);
    FAIL_IF(image == MAP_FAILED, e, ERR_MEMORY, "out of memory: %s need %zu bytes", what, bytes);
    if (sparse)
        madvise(image, bytes, MADV_NOHUGEPAGE);
    *out = image;
    return OK;
}

static void close_image(float *image, int n)
{
    if (image)
        munmap(image, (size_t)n * (size_t)n * sizeof *image);
}

static enum status make_u(struct damped *d, float *u, struct error *e)
{
    float *work;
    int n = d->node->n;
    TRY(factor_damped(d, u, e));
    TRY(mem_array(&work, (size_t)n * LINEAR_TILE, sizeof *work, "rows of a factor", e));
    linear_invert(u, n, work, d->threads);
    free(work);
    return OK;
}

/* A block [order][order] to its place in an image [n][n], where it does not stand there already. */
static void place(float *image, int n, const float *block, int first, int order)
{
    if (block == image)
        return;
    for (int i = 0; i < order; i++)
        memcpy(image + at(first + i, first, n), block + at(i, 0, order),
               (size_t)order * sizeof *block);
}

/* The block of columns [first, first + order); room: NULL when it is all there is. */
static enum status make_block(const struct curvature *k, struct damped *d, int first, float *room,
                              struct error *e)
{
    float *u = room ? room : k->u, *h = room ? room : k->h;
    int order = d->node->n;
    if (room)
        memset(room, 0, (size_t)order * (size_t)order * sizeof *room);
    if (k->u) {
        TRY(make_u(d, u, e));
        place(k->u, k->n, u, first, order);
    }
    TRY(write_damped(d, h, e));
    linear_mirror(h, order, d->threads);
    place(k->h, k->n, h, first, order);
    return OK;
}

/* The moments of one block as if they were all, so damped as all of them are. */
static struct moments_node part_of(const struct moments_node *node, int block)
{
    struct diagonal shape = {node->n, node->width};
    size_t start = diagonal_start(shape, block);
    struct moments_node part = *node;
    part.n = part.width = diagonal_order(shape, block);
    part.h = node->h + start;
    part.c = node->c ? node->c + start : NULL;
    return part;
}

static enum status make_blocks(const struct curvature *k, const struct damped *all, float *room,
                               struct error *e)
{
    struct diagonal shape = {k->n, all->node->width};
    for (int b = 0; b < diagonal_blocks(shape); b++) {
        struct moments_node part = part_of(all->node, b);
        struct damped d = *all;
        d.node = &part;
        TRY(make_block(k, &d, b * shape.width, room, e));
    }
    return OK;
}

static enum status make(struct curvature *k, struct damped *d, bool with_u, struct error *e)
{
    int width = d->node->width;
    bool sparse = width < k->n;
    float *room = NULL;
    TRY(open_damped(d, e));
    if (with_u)
        TRY(open_image(&k->u, k->n, sparse, "the factor of second moments", e));
    TRY(open_image(&k->h, k->n, sparse, "damped second moments", e));
    if (sparse)
        TRY(square(&room, width, "a block of second moments", e));
    enum status status = make_blocks(k, d, room, e);
    free(room);
    return status;
}

enum status curvature_create(struct curvature **out, const struct moments_node *node, double shrink,
                             double damp, bool with_u, int threads, const char *what,
                             struct error *e)
{
    struct damped d = {node, shrink, damp, 0, threads, what};
    struct curvature *k;
    TRY(mem_array(&k, 1, sizeof *k, "a curvature", e));
    k->n = node->n;
    k->width = node->width;
    enum status status = make(k, &d, with_u, e);
    if (status != OK) {
        curvature_free(k);
        return status;
    }
    *out = k;
    return OK;
}

void curvature_free(struct curvature *k)
{
    if (!k)
        return;
    close_image(k->h, k->n);
    close_image(k->u, k->n);
    free(k);
}

void curvature_scale(struct curvature *k, const float *scale)
{
    struct diagonal shape = {k->n, k->width};
    for (int i = 0; i < k->n; i++) {
        int first = i / k->width * k->width, end = first + diagonal_order(shape, i / k->width);
        float *row = k->h + at(i, 0, k->n), *factor = k->u ? k->u + at(i, 0, k->n) : NULL;
        for (int j = first; j < end; j++)
            row[j] *= scale[i] * scale[j];
        for (int j = i; factor && j < end; j++)
            factor[j] /= scale[j];
    }
}

/* p = fraction * C, per token. */
static enum status write_cross(const struct damped *d, double fraction, float *p, struct error *e)
{
    int n = d->node->n;
    double factor = fraction / (double)d->node->tokens;
    bool finite = true;
#pragma omp parallel for num_threads(d->threads) schedule(static) reduction(&& : finite)
    for (int i = 0; i < n; i++) {
        bool row = scale_row(p + at(i, 0, n), d->node->c + at(i, 0, n), factor, 0, n);
        finite = finite && row;
    }
    return finite ? OK : refuse(d, e);
}

/* p, block by block. factor: room for one. */
static enum status correct(struct damped *all, double fraction, float *p, float *factor,
                           struct error *e)
{
    struct diagonal shape = {all->node->n, all->node->width};
    TRY(open_damped(all, e));
    for (int b = 0; b < diagonal_blocks(shape); b++) {
        struct moments_node part = part_of(all->node, b);
        struct damped d = *all;
        float *to = p + diagonal_start(shape, b);
        d.node = &part;
        TRY(write_cross(&d, fraction, to, e));
        TRY(factor_damped(&d, factor, e));
        linear_solve(to, part.n, factor, part.n, d.threads);
    }
    return OK;
}

enum status curvature_qep(float **p, const struct moments_node *node, double fraction, double damp,
                          int threads, const char *what, struct error *e)
{
    struct damped d = {node, 0, damp, 0, threads, what};
    float *solved = NULL, *factor = NULL;
    size_t floats = diagonal_floats((struct diagonal){node->n, node->width});
    enum status status = mem_array(&solved, floats, sizeof *solved, "a correction", e);
    if (status == OK)
        status = square(&factor, node->width, "the factor of second moments", e);
    if (status == OK)
        status = correct(&d, fraction, solved, factor, e);
    free(factor);
    if (status == OK)
        *p = solved;
    else
        free(solved);
    return status;
}

void curvature_apply(const float *p, struct diagonal shape, const float *x, int rows, float *y)
{
    for (int b = 0; b < diagonal_blocks(shape); b++) {
        int first = b * shape.width;
        linear_add_product(y + first, x + first, shape.n, p + diagonal_start(shape, b), rows,
                           diagonal_order(shape, b));
    }
}
