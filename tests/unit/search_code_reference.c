#include "tests/unit/search_code_reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/dtype.h"

static double *matrix(int n)
{
    return calloc((size_t)n * (size_t)n, sizeof(double));
}

/* Orthonormal rows by Gram and Schmidt, twice for accuracy. */
static double *rotation(int n, float (*random)(void))
{
    double *r = matrix(n);
    for (int i = 0; i < n * n; i++)
        r[i] = (double)random();
    for (int i = 0; i < n; i++)
        for (int again = 0; again < 2; again++) {
            double norm = 0;
            for (int k = 0; k < i; k++) {
                double dot = 0;
                for (int j = 0; j < n; j++)
                    dot += r[i * n + j] * r[k * n + j];
                for (int j = 0; j < n; j++)
                    r[i * n + j] -= dot * r[k * n + j];
            }
            for (int j = 0; j < n; j++)
                norm += r[i * n + j] * r[i * n + j];
            for (int j = 0; j < n; j++)
                r[i * n + j] /= sqrt(norm);
        }
    return r;
}

/* u upper with h^-1 = u' u: the Cholesky factor of h from its last column up is the inverse of u. */
static void factor(struct curvature *k)
{
    int n = k->n;
    double *v = matrix(n), *u = matrix(n);
    for (int j = n - 1; j >= 0; j--)
        for (int i = j; i >= 0; i--) {
            double sum = (double)k->h[i * n + j];
            for (int m = j + 1; m < n; m++)
                sum -= v[i * n + m] * v[j * n + m];
            v[i * n + j] = i == j ? sqrt(sum) : sum / v[j * n + j];
        }
    for (int j = 0; j < n; j++)
        for (int i = j; i >= 0; i--) {
            double sum = i == j;
            for (int m = i + 1; m <= j; m++)
                sum -= v[i * n + m] * u[m * n + j];
            u[i * n + j] = sum / v[i * n + i];
        }
    for (int i = 0; i < n * n; i++)
        k->u[i] = (float)u[i];
    free(v);
    free(u);
}

struct curvature *reference_curvature(int n, double power, double shrink, double damp, int dead,
                                      float (*random)(void))
{
    struct curvature *k = calloc(1, sizeof *k);
    double *r = rotation(n, random), mean = 0;
    *k = (struct curvature){.n = n,
                            .width = n,
                            .h = calloc((size_t)n * (size_t)n, sizeof(float)),
                            .u = calloc((size_t)n * (size_t)n, sizeof(float))};
    for (int i = 0; i < n; i++)
        mean += pow(i + 1, -power) / n;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            double sum = 0;
            for (int m = 0; m < n && i != dead && j != dead; m++)
                sum += r[m * n + i] * r[m * n + j] * pow(m + 1, -power);
            k->h[i * n + j] = (float)(i == j ? sum + damp * mean : (1 - shrink) * sum);
        }
    free(r);
    factor(k);
    return k;
}

void reference_free(struct curvature *k)
{
    free(k->h);
    free(k->u);
    free(k);
}

static int groups_of(const struct codebook *book, int n)
{
    return (n + (int)book->d - 1) / (int)book->d;
}

static double entry(const struct codebook *book, uint8_t code, int j)
{
    double c = book->vector[(code & 127) * (int)book->d + j];
    return code & 128 ? -c : c;
}

/* q[n] of codes; a row without a scale has none. */
static double *words_of(const struct codebook *book, int n, const uint8_t *codes, double scale)
{
    double *q = calloc((size_t)n, sizeof *q);
    for (int j = 0; j < n && scale != 0; j++)
        q[j] = entry(book, codes[j / (int)book->d], j % (int)book->d);
    return q;
}

/* x H y' */
static double form(const struct curvature *k, const double *x, const double *y)
{
    double sum = 0;
    for (int i = 0; i < k->n; i++)
        for (int j = 0; j < k->n; j++)
            sum += x[i] * (double)k->h[i * k->n + j] * y[j];
    return sum;
}

static double *doubles(const float *x, int n)
{
    double *out = calloc((size_t)n, sizeof *out);
    for (int i = 0; i < n; i++)
        out[i] = (double)x[i];
    return out;
}

double reference_loss(const struct codebook *book, const struct curvature *k, const float *target,
                      const uint8_t *codes, double scale)
{
    double *r = words_of(book, k->n, codes, scale);
    for (int j = 0; j < k->n; j++)
        r[j] = (double)target[j] - scale * r[j];
    double loss = form(k, r, r);
    free(r);
    return loss;
}

double reference_scale(const struct codebook *book, const struct curvature *k, const float *target,
                       const uint8_t *codes)
{
    double *q = words_of(book, k->n, codes, 1), *t = doubles(target, k->n);
    double scale = form(k, q, t) / form(k, q, q);
    free(q);
    free(t);
    return scale;
}

double reference_gain(const struct codebook *book, const struct curvature *k, const float *target,
                      const uint8_t *codes, double scale)
{
    int groups = groups_of(book, k->n);
    double loss = reference_loss(book, k, target, codes, scale), least = loss;
    uint8_t *trial = malloc((size_t)groups);
    memcpy(trial, codes, (size_t)groups);
    for (int g = 0; g < groups; g++) {
        for (int code = 0; code < 256; code++) {
            trial[g] = (uint8_t)code;
            double other = reference_loss(book, k, target, trial, scale);
            least = other < least ? other : least;
        }
        trial[g] = codes[g];
    }
    free(trial);
    return loss > 0 ? (loss - least) / loss : 0;
}

static double f16(double x)
{
    return (double)f16_to_f32(f32_to_f16((float)x));
}

/* (t - a c) M (t - a c)' over the width columns of a group */
static double distance(const struct codebook *book, int width, const double *m, const double *t,
                       double a, uint8_t code)
{
    double off[CODEBOOK_MAX_D], sum = 0;
    for (int j = 0; j < width; j++)
        off[j] = t[j] - a * entry(book, code, j);
    for (int i = 0; i < width; i++)
        for (int j = 0; j < width; j++)
            sum += off[i] * m[i * CODEBOOK_MAX_D + j] * off[j];
    return sum;
}

static uint8_t nearest(const struct codebook *book, int width, const double *m, const double *t,
                       double a)
{
    double least = INFINITY;
    int best = 0;
    for (int code = 0; code < 256; code++) {
        double c = distance(book, width, m, t, a, (uint8_t)code);
        if (c < least) {
            least = c;
            best = code;
        }
    }
    return (uint8_t)best;
}

static int width_of(const struct codebook *book, int n, int g)
{
    int d = (int)book->d;
    return g * d + d <= n ? d : n - g * d;
}

/* Nearest words in the plain metric, and the scale fitted in it. */
static double plain_round(const struct codebook *book, int n, const double *t, double a,
                          uint8_t *codes)
{
    double one[CODEBOOK_MAX_D * CODEBOOK_MAX_D] = {0}, num = 0, den = 0;
    for (int i = 0; i < CODEBOOK_MAX_D; i++)
        one[i * CODEBOOK_MAX_D + i] = 1;
    for (int g = 0; g < groups_of(book, n); g++)
        codes[g] = nearest(book, width_of(book, n, g), one, t + g * (int)book->d, a);
    double *q = words_of(book, n, codes, a);
    for (int j = 0; j < n; j++) {
        num += q[j] * t[j];
        den += q[j] * q[j];
    }
    free(q);
    return f16(num / den);
}

enum { D = CODEBOOK_MAX_D, PATHS = 8, TRIALS = 2, WORDS = CODEBOOK_WORDS };

/* v = U_ss^-1 and m = v v' of a group. */
static void group_metric(const struct curvature *k, int first, int width, double v[D * D],
                         double m[D * D])
{
    int n = k->n;
    memset(v, 0, D * D * sizeof *v);
    memset(m, 0, D * D * sizeof *m);
    for (int j = 0; j < width; j++)
        for (int i = j; i >= 0; i--) {
            double sum = i == j;
            for (int l = i + 1; l <= j; l++)
                sum -= (double)k->u[(first + i) * n + first + l] * v[l * D + j];
            v[i * D + j] = sum / (double)k->u[(first + i) * n + first + i];
        }
    for (int i = 0; i < width; i++)
        for (int j = 0; j < width; j++)
            for (int l = 0; l < width; l++)
                m[i * D + j] += v[i * D + l] * v[j * D + l];
}

/* A beginning of a row: its codes, what they cost, and the target with all corrections. */
struct path {
    double *t, cost;
    uint8_t *codes;
};

static struct path path_of(int n, const struct path *from)
{
    struct path p = {malloc((size_t)n * sizeof(double)), from->cost, malloc((size_t)n)};
    memcpy(p.t, from->t, (size_t)n * sizeof(double));
    memcpy(p.codes, from->codes, (size_t)n);
    return p;
}

static void path_free(struct path *p)
{
    free(p->t);
    free(p->codes);
}

/* Appends a word to a path: its error goes to all later columns. */
static void path_add(struct path *p, const struct codebook *book, const struct curvature *k, int g,
                     uint8_t code, double a)
{
    int n = k->n, first = g * (int)book->d, width = width_of(book, n, g);
    double v[D * D], m[D * D], white[D] = {0};
    group_metric(k, first, width, v, m);
    p->codes[g] = code;
    for (int j = 0; j < width; j++) {
        for (int i = 0; i <= j; i++)
            white[j] += (p->t[first + i] - a * entry(book, code, i)) * v[i * D + j];
        p->cost += white[j] * white[j];
    }
    for (int c = first + width; c < n; c++)
        for (int i = 0; i < width; i++)
            p->t[c] -= white[i] * (double)k->u[(first + i) * n + c];
}

/* Adds to out, of count, p with each of its trials nearest words. */
static int path_extend(const struct path *p, const struct codebook *book, const struct curvature *k,
                       int g, double a, int trials, struct path *out)
{
    int first = g * (int)book->d, width = width_of(book, k->n, g);
    double v[D * D], m[D * D];
    bool used[WORDS] = {false};
    group_metric(k, first, width, v, m);
    for (int i = 0; i < trials; i++) {
        double least = INFINITY;
        int best = 0;
        for (int code = 0; code < 2 * WORDS; code++) {
            double c = used[code % WORDS]
                           ? INFINITY
                           : distance(book, width, m, p->t + first, a, (uint8_t)code);
            if (c < least) {
                least = c;
                best = code;
            }
        }
        used[best % WORDS] = true;
        out[i] = path_of(k->n, p);
        path_add(&out[i], book, k, g, (uint8_t)best, a);
    }
    return trials;
}

static int by_cost(const void *a, const void *b)
{
    double x = ((const struct path *)a)->cost, y = ((const struct path *)b)->cost;
    return (x > y) - (x < y);
}

/* Column groups from left to right, each error carried on to all later columns at once; of the paths tried
 * the cheapest few stay, at the end of each block of columns one. */
static void feed(const struct codebook *book, const struct curvature *k, const double *target,
                 double a, int most, int trials, uint8_t *codes)
{
    int n = k->n, d = (int)book->d, count = 1;
    struct path paths[PATHS * TRIALS] = {
        {malloc((size_t)n * sizeof(double)), 0, calloc((size_t)n, 1)}};
    memcpy(paths[0].t, target, (size_t)n * sizeof *target);
    for (int g = 0; g < groups_of(book, n); g++) {
        struct path next[PATHS * TRIALS] = {{0}};
        int made = 0, keep = (g + 1) * d % (128 - 128 % d) == 0 || (g + 1) * d >= n ? 1 : most;
        for (int i = 0; i < count; i++) {
            made += path_extend(&paths[i], book, k, g, a, trials, next + made);
            path_free(&paths[i]);
        }
        qsort(next, (size_t)made, sizeof *next, by_cost);
        count = made < keep ? made : keep;
        memcpy(paths, next, sizeof paths);
        for (int i = count; i < made; i++)
            path_free(&next[i]);
    }
    memcpy(codes, paths[0].codes, (size_t)groups_of(book, n));
    path_free(&paths[0]);
}

/* One pass of coordinate descent, (t - a q) H computed anew for each group; a fitted when block columns are
 * done. Returns whether a code changed. */
static bool descend(const struct codebook *book, const struct curvature *k, const float *target,
                    int block, double *a, uint8_t *codes)
{
    int d = (int)book->d;
    bool changed = false;
    for (int g = 0; g < groups_of(book, k->n); g++) {
        uint8_t old = codes[g], best = old;
        double least = reference_loss(book, k, target, codes, *a);
        for (int code = 0; code < 256; code++) {
            codes[g] = (uint8_t)code;
            double loss = reference_loss(book, k, target, codes, *a);
            if (loss < least * (1 - 1e-9)) {
                least = loss;
                best = (uint8_t)code;
            }
        }
        codes[g] = best;
        changed |= best != old;
        if ((g + 1) * d % block == 0 || g + 1 == groups_of(book, k->n))
            *a = f16(reference_scale(book, k, target, codes));
    }
    return changed;
}

static struct curvature part_of(const struct curvature *k, int first, int width)
{
    struct curvature part = {.n = width,
                             .width = width,
                             .h = calloc((size_t)(width * width), sizeof(float)),
                             .u = calloc((size_t)(width * width), sizeof(float))};
    for (int i = 0; i < width; i++)
        for (int j = 0; j < width; j++)
            part.h[i * width + j] = k->h[(first + i) * k->n + first + j];
    factor(&part);
    return part;
}

/* t[width] = a q + H_BB^-1 ((t - a q) H)_B */
static void block_target(const struct codebook *book, const struct curvature *k,
                         const struct curvature *part, const float *target, int first, double a,
                         const uint8_t *codes, double *t)
{
    int n = k->n, width = part->n;
    double *q = words_of(book, n, codes, a), *white = calloc((size_t)width, sizeof *white);
    for (int j = 0; j < width; j++) {
        double image = 0;
        for (int i = 0; i < n; i++)
            image += ((double)target[i] - a * q[i]) * (double)k->h[i * n + first + j];
        for (int i = 0; i <= j; i++)
            white[i] += (double)part->u[i * width + j] * image;
        t[j] = a * q[first + j];
    }
    for (int i = 0; i < width; i++)
        for (int j = i; j < width; j++)
            t[j] += (double)part->u[i * width + j] * white[i];
    free(white);
    free(q);
}

/* One pass of the joint search: feedback inside each block of columns, all others given, taken
 * where the loss falls. Returns whether any was. */
static bool joint(const struct codebook *book, const struct curvature *k, const float *target,
                  int block, double *a, uint8_t *codes)
{
    int n = k->n, groups = groups_of(book, n);
    uint8_t *trial = malloc((size_t)groups);
    bool changed = false;
    for (int first = 0; first < n; first += block) {
        int width = n - first < block ? n - first : block;
        struct curvature part = part_of(k, first, width);
        double *t = calloc((size_t)width, sizeof *t);
        double loss = reference_loss(book, k, target, codes, *a);
        block_target(book, k, &part, target, first, *a, codes, t);
        memcpy(trial, codes, (size_t)groups);
        feed(book, &part, t, *a, PATHS, TRIALS, trial + first / (int)book->d);
        if (reference_loss(book, k, target, trial, *a) < loss * (1 - 1e-7)) {
            memcpy(codes, trial, (size_t)groups);
            changed = true;
        }
        *a = f16(reference_scale(book, k, target, codes));
        free(t);
        free(part.h);
        free(part.u);
    }
    free(trial);
    return changed;
}

/* Passes of descent, those of the joint search after the first. */
static void descend_all(const struct codebook *book, const struct curvature *k,
                        const struct recipe *recipe, const float *target, double *a, uint8_t *codes)
{
    int block = 128 - 128 % (int)book->d;
    uint32_t passes = 0;
    for (; passes < 1 && passes < recipe->descent; passes++)
        descend(book, k, target, block, a, codes);
    for (uint32_t i = 0; i < recipe->joint; i++)
        if (!joint(book, k, target, block, a, codes))
            break;
    for (; passes < recipe->descent; passes++)
        if (!descend(book, k, target, block, a, codes))
            break;
}

void reference_search(const struct codebook *book, const struct curvature *k,
                      const struct recipe *recipe, const float *target, uint8_t *codes,
                      struct reference_row *out)
{
    int n = k->n;
    double *t = doubles(target, n), square = 0;
    for (int j = 0; j < n; j++)
        square += t[j] * t[j] / n;
    double a = f16((double)book->unit * sqrt(square));
    out->signal = form(k, t, t);
    for (uint32_t i = 0; i < recipe->rounds; i++)
        a = plain_round(book, n, t, a, codes);
    a = f16(reference_scale(book, k, target, codes));
    out->rounded = reference_loss(book, k, target, codes, a);
    for (uint32_t i = 0; recipe->feedback && i < recipe->rounds; i++) {
        bool last = i + 1 == recipe->rounds;
        feed(book, k, t, a, last ? PATHS : 1, last ? TRIALS : 1, codes);
        a = f16(reference_scale(book, k, target, codes));
    }
    out->fed = reference_loss(book, k, target, codes, a);
    descend_all(book, k, recipe, target, &a, codes);
    out->final = reference_loss(book, k, target, codes, a);
    out->scale = a;
    out->best_scale = reference_scale(book, k, target, codes);
    free(t);
}
