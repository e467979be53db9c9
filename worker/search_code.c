#include "worker/search_code.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "common/dtype.h"
#include "common/mem.h"
#include "worker/search_code_private.h"

static const float largest_f16 = 65504;

/* norm[word] = half of c' M c, M[width][width] at stride. */
static void fill_norm(const struct code_search *s, const float *m, size_t stride, int width,
                      float *norm)
{
    for (int k = 0; k < CODEBOOK_WORDS; k++) {
        const float *c = s->words + k * s->d;
        double sum = 0;
        for (int i = 0; i < width; i++)
            for (int j = 0; j < width; j++)
                sum += (double)c[i] * (double)m[(size_t)i * stride + (size_t)j] * (double)c[j];
        norm[k] = (float)(sum / 2);
    }
}

/* The inverse of the triangle U_ss, by columns from the diagonal up. */
static void invert(const float *u, size_t stride, int width, int d, float *inverse)
{
    for (int j = 0; j < width; j++) {
        inverse[j * d + j] = 1 / u[(size_t)j * stride + (size_t)j];
        for (int i = j - 1; i >= 0; i--) {
            double sum = 0;
            for (int k = i + 1; k <= j; k++)
                sum += (double)u[(size_t)i * stride + (size_t)k] * (double)inverse[k * d + j];
            inverse[i * d + j] = (float)(-sum / (double)u[(size_t)i * stride + (size_t)i]);
        }
    }
}

void code_factor_fill(const struct code_search *s, struct code_factor *f, int g)
{
    size_t d = (size_t)s->d;
    float *inverse = f->inverse + (size_t)g * d * d, *square = f->square + (size_t)g * d * d;
    int width = group_width(s, g);
    invert(factor_at(f, g * s->d), f->stride, width, s->d, inverse);
    for (size_t i = 0; i < d; i++)
        for (size_t j = 0; j < d; j++) {
            double sum = 0;
            for (size_t k = 0; k < d; k++)
                sum += (double)inverse[i * d + k] * (double)inverse[j * d + k];
            square[i * d + j] = (float)sum;
        }
    fill_norm(s, square, d, width, f->norm + (size_t)g * CODEBOOK_WORDS);
}

static void fill(struct code_search *s)
{
    float one[SQUARE_MAX] = {0};
    size_t n = (size_t)s->n;
    for (int i = 0; i < s->d; i++)
        one[i * s->d + i] = 1;
    for (int g = 0; g < s->groups; g++) {
        size_t first = (size_t)(g * s->d), at = (size_t)g * CODEBOOK_WORDS;
        fill_norm(s, s->k->h + first * n + first, n, group_width(s, g), s->norm_h + at);
        if (s->recipe.feedback)
            code_factor_fill(s, &s->feed, g);
    }
    fill_norm(s, one, (size_t)s->d, s->d, s->norm_flat);
    fill_norm(s, one, (size_t)s->d, group_width(s, s->groups - 1), s->norm_flat + CODEBOOK_WORDS);
}

enum status code_factor_allocate(const struct code_search *s, struct code_factor *f,
                                 struct error *e)
{
    size_t groups = (size_t)s->groups, square = (size_t)(s->d * s->d);
    TRY(mem_array(&f->norm, groups * CODEBOOK_WORDS, sizeof(float), "codeword norms", e));
    TRY(mem_array(&f->inverse, groups * square, sizeof(float), "triangles of groups", e));
    return mem_array(&f->square, groups * square, sizeof(float), "squares of groups", e);
}

static enum status allocate(struct code_search *s, struct error *e)
{
    size_t norms = (size_t)s->groups * CODEBOOK_WORDS;
    TRY(nearest_create(&s->nearest, s->book, e));
    TRY(mem_array(&s->norm_flat, 2 * CODEBOOK_WORDS, sizeof(float), "codeword norms", e));
    TRY(mem_array(&s->norm_h, norms, sizeof(float), "codeword norms", e));
    if (!s->recipe.feedback)
        return OK;
    s->feed.u = s->k->u;
    s->feed.stride = (size_t)s->n;
    return code_factor_allocate(s, &s->feed, e);
}

enum status code_search_create(struct code_search **out, const struct codebook *book,
                               const struct curvature *k, const struct recipe *recipe,
                               struct error *e)
{
    struct code_search *s;
    TRY(mem_array(&s, 1, sizeof *s, "a search for codes", e));
    s->book = book;
    s->k = k;
    s->recipe = *recipe;
    s->n = k->n;
    s->d = (int)book->d;
    s->groups = (k->n + s->d - 1) / s->d;
    s->block = BLOCK_MAX - BLOCK_MAX % s->d;
    enum status status = allocate(s, e);
    if (status == OK) {
        s->words = nearest_words(s->nearest);
        fill(s);
        if (recipe->joint)
            status = code_joint_create(s, e);
    }
    if (status != OK) {
        code_search_free(s);
        return status;
    }
    *out = s;
    return OK;
}

static void free_factor(struct code_factor *f)
{
    free(f->inverse);
    free(f->square);
    free(f->norm);
}

void code_search_free(struct code_search *s)
{
    if (!s)
        return;
    nearest_free(s->nearest);
    free(s->norm_flat);
    free(s->norm_h);
    free_factor(&s->feed);
    free_factor(&s->joint);
    free(s->joint_u);
    free(s);
}

static size_t plane_floats(const struct code_search *s)
{
    return (size_t)s->groups * (size_t)s->d * ROWS;
}

/* Whether several paths are followed anywhere. */
static bool several_paths(const struct code_search *s)
{
    return s->recipe.feedback || s->recipe.joint;
}

size_t code_search_scratch(const struct code_search *s)
{
    size_t work = (size_t)s->block * ROWS;
    return several_paths(s) ? 4 * plane_floats(s) + (1 + 2 * PATHS) * work
                            : 3 * plane_floats(s) + work;
}

/* The scale as it will be stored, at most the largest finite F16. */
static void store_scale(struct band *b, int row, double scale)
{
    b->bits[row] = f32_to_f16(scale < (double)largest_f16 ? (float)scale : largest_f16);
    b->a[row] = f16_to_f32(b->bits[row]);
}

void band_fit(struct band *b)
{
    for (int r = 0; r < ROWS; r++) {
        double scale = b->den[r] > 0 ? b->num[r] / b->den[r] : 0;
        if (b->a[r] > 0 && f32_to_f16((float)scale) > 0 && scale > 0)
            store_scale(b, r, scale);
    }
}

static double total_loss(const struct band *b, int rows)
{
    double sum = 0;
    for (int r = 0; r < rows; r++) {
        double a = (double)b->a[r];
        sum += b->signal[r] - 2 * a * b->num[r] + a * a * b->den[r];
    }
    return sum;
}

static void load(struct band *b, const float *target, int rows)
{
    int n = b->s->n;
    memset(b->t, 0, (size_t)n * ROWS * sizeof *b->t);
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < n; j++)
            b->t[(size_t)j * ROWS + (size_t)r] = target[(size_t)r * (size_t)n + (size_t)j];
    for (int r = 0; r < ROWS; r++) {
        double sum = 0;
        for (int j = 0; j < n; j++)
            sum += (double)b->t[j * ROWS + r] * (double)b->t[j * ROWS + r];
        store_scale(b, r, (double)b->s->book->unit * sqrt(sum / n));
    }
}

static void measure(const struct band *b, int rows, struct band_loss *loss)
{
    for (int r = 0; r < rows; r++) {
        loss->signal += b->signal[r];
        for (int j = 0; j < b->s->n; j++) {
            size_t at = (size_t)j * ROWS + (size_t)r;
            double w = (double)b->t[at], off = w - (double)b->a[r] * (double)b->q[at];
            loss->weight2 += w * w;
            loss->error2 += off * off;
        }
    }
}

/* Passes of descent, those of the joint search after the first of them. */
static void descend(struct band *b)
{
    const struct recipe *recipe = &b->s->recipe;
    uint32_t passes = 0;
    if (recipe->descent > 0) {
        band_descend(b);
        passes = 1;
    }
    for (uint32_t i = 0; i < recipe->joint; i++)
        if (!band_joint(b))
            break;
    for (; passes < recipe->descent; passes++)
        if (!band_descend(b))
            break;
}

/* With one thread for each product, whatever OpenMP would give it: OpenBLAS on OpenMP asks it at each
 * call, and its sums depend on the answer. */
static void search(struct band *b, int rows, struct band_loss *loss)
{
    const struct recipe *recipe = &b->s->recipe;
    int before = omp_get_max_threads();
    omp_set_num_threads(1);
    band_target(b);
    band_round(b);
    loss->rounded = loss->fed = total_loss(b, rows);
    for (uint32_t i = 0; recipe->feedback && i < recipe->rounds; i++)
        band_feed(b, i + 1 == recipe->rounds);
    loss->fed = total_loss(b, rows);
    descend(b);
    loss->final = total_loss(b, rows);
    omp_set_num_threads(before);
}

bool code_search_band(const struct code_search *s, const float *target, int rows, float *scratch,
                      uint8_t *codes, uint16_t *scale, struct band_loss *loss)
{
    struct band b = {.s = s, .codes = codes};
    size_t plane = plane_floats(s);
    b.t = scratch;
    b.th = b.t + plane;
    b.q = b.th + plane;
    b.work = b.q + plane;
    if (several_paths(s)) {
        b.paths = b.work + (size_t)s->block * ROWS;
        b.x = b.paths + 2 * PATHS * (size_t)s->block * ROWS;
    }
    memset(codes, 0, (size_t)s->groups * ROWS);
    memset(b.q, 0, plane * sizeof *b.q);
    *loss = (struct band_loss){0};
    load(&b, target, rows);
    search(&b, rows, loss);
    measure(&b, rows, loss);
    memcpy(scale, b.bits, (size_t)rows * sizeof *scale);
    bool fits = true;
    for (int r = 0; r < rows; r++)
        fits &= b.a[r] < largest_f16;
    return fits;
}
