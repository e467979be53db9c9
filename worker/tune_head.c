/* KL loss of a window against the teacher. Must never know how x was computed. */
#include "worker/tune_head.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "common/exactmath.h"
#include "common/mem.h"
#include "worker/tune_product.h"

enum { ROWS_MOST = 256, ROWS_LEAST = 16, LOGITS_MOST = 1 << 24 /* of each model */ };

struct side { /* teacher or student */
    struct tune_output output;
    float *logits; /* [batch][vocab] */
};

struct tune_head {
    size_t hidden, vocab;
    float rms_eps;
    int threads, batch; /* rows at a time */
    struct side teacher, student;
    struct tune_tile tile;
    float *normed, *d_normed; /* [batch][hidden] */
    double *kl;               /* [batch] */
    void *prepared[PRODUCT_MAX];
};

static enum status allocate(struct tune_head *h, struct error *e)
{
    const char *what = "working memory of the head while tuning";
    size_t batch = (size_t)h->batch, room[PRODUCT_MAX] = {0};
    product_room(h->teacher.output.head, room);
    product_room(h->student.output.head, room);
    TRY(mem_array(&h->teacher.logits, batch, h->vocab * sizeof(float), what, e));
    TRY(mem_array(&h->student.logits, batch, h->vocab * sizeof(float), what, e));
    TRY(mem_array(&h->normed, batch, h->hidden * sizeof(float), what, e));
    TRY(mem_array(&h->d_normed, batch, h->hidden * sizeof(float), what, e));
    TRY(mem_array(&h->kl, batch, sizeof *h->kl, what, e));
    for (int i = 0; i < PRODUCT_MAX; i++)
        TRY(mem_array(&h->prepared[i], batch, room[i], what, e));
    return tune_tile_create(&h->tile, h->hidden, e);
}

enum status tune_head_create(struct tune_head **out, const struct model_config *c,
                             const struct tune_output *teacher, const struct tune_output *student,
                             int threads, struct error *e)
{
    struct tune_head *h;
    *out = NULL;
    TRY(mem_array(&h, 1, sizeof *h, "the head while tuning", e));
    h->hidden = c->hidden;
    h->vocab = c->vocab;
    h->rms_eps = c->rms_eps;
    h->threads = threads;
    h->teacher.output = *teacher;
    h->student.output = *student;
    uint32_t batch = (uint32_t)LOGITS_MOST / c->vocab;
    h->batch = batch > ROWS_MOST ? ROWS_MOST : batch < ROWS_LEAST ? ROWS_LEAST : (int)batch;
    enum status status = allocate(h, e);
    if (status == OK)
        *out = h;
    else
        tune_head_free(h);
    return status;
}

void tune_head_free(struct tune_head *h)
{
    if (!h)
        return;
    free(h->teacher.logits);
    free(h->student.logits);
    free(h->normed);
    free(h->d_normed);
    free(h->kl);
    for (int i = 0; i < PRODUCT_MAX; i++)
        free(h->prepared[i]);
    tune_tile_free(&h->tile);
    free(h);
}

/* Called by all threads of a parallel region, like what follows. */
static void make_logits(struct tune_head *h, const struct side *s, const float *x, int rows)
{
    for (int r = product_share(rows, 0); r < product_share(rows, 1); r++) {
        float *n = h->normed + (size_t)r * h->hidden;
        kernels.rms_norm(n, x + (size_t)r * h->hidden, s->output.norm, (int)h->hidden, h->rms_eps);
        product_prepare(s->output.head, h->prepared, r, n);
    }
#pragma omp barrier
    product_multiply(s->output.head, h->prepared, h->normed, rows, (float *[]){s->logits});
}

static float largest(const float *x, size_t n)
{
    float top = x[0];
    for (size_t i = 1; i < n; i++)
        top = x[i] > top ? x[i] : top;
    return top;
}

/* a and b become softmax(a) and softmax(b) times weight, and b then b - a. Returns KL(softmax(a)
 * || softmax(b)), which is not finite when a logit is not. */
static double compare(float *a, float *b, size_t n, double weight)
{
    double a_sum = 0, b_sum = 0, cross = 0;
    float a_top = largest(a, n), b_top = largest(b, n);
    for (size_t i = 0; i < n; i++) {
        float from_a = a[i] - a_top, from_b = b[i] - b_top;
        a[i] = expf(from_a);
        b[i] = expf(from_b);
        a_sum += (double)a[i];
        b_sum += (double)b[i];
        cross += (double)a[i] * ((double)from_a - (double)from_b);
    }
    float a_scale = (float)(weight / a_sum), b_scale = (float)(weight / b_sum);
    for (size_t i = 0; i < n; i++)
        b[i] = b[i] * b_scale - a[i] * a_scale;
    return cross / a_sum - exact_log(a_sum) + exact_log(b_sum);
}

/* b becomes softmax(b) less 1 at target: the gradient of -ln softmax(b)[target]. Returns whether all is
 * finite. */
static bool likelihood(float *b, size_t n, uint32_t target)
{
    double sum = 0;
    float top = largest(b, n);
    for (size_t i = 0; i < n; i++) {
        b[i] = expf(b[i] - top);
        sum += (double)b[i];
    }
    float scale = (float)(1 / sum);
    for (size_t i = 0; i < n; i++)
        b[i] *= scale;
    b[target] -= 1;
    return isfinite(sum);
}

/* dx from the gradient of the logits in the place of the student's; norm_gradient may be NULL. */
static void backward(struct tune_head *h, const float *x, int rows, float *dx, float *norm_gradient)
{
    int hidden = (int)h->hidden;
    const float *norm = h->student.output.norm;
    tune_product_backward(h->student.output.head, (float *[]){h->student.logits}, rows, &h->tile,
                          h->d_normed);
    if (norm_gradient)
        tune_row_gradient(h->d_normed, h->normed, rows, hidden, norm_gradient, NULL);
    for (int r = product_share(rows, 0); r < product_share(rows, 1); r++) {
        size_t at = (size_t)r * h->hidden;
        tune_norm_backward(x + at, norm, hidden, h->rms_eps, h->d_normed + at, dx + at);
    }
#pragma omp barrier
}

static void batch_backward(struct tune_head *h, const float *teacher_x, const float *x, int rows,
                           double weight, float *dx, float *norm_gradient)
{
    make_logits(h, &h->teacher, teacher_x, rows);
    make_logits(h, &h->student, x, rows); /* h->normed is the student's from here on */
    for (int r = product_share(rows, 0); r < product_share(rows, 1); r++)
        h->kl[r] = compare(h->teacher.logits + (size_t)r * h->vocab,
                           h->student.logits + (size_t)r * h->vocab, h->vocab, weight);
#pragma omp barrier
    if (dx)
        backward(h, x, rows, dx, norm_gradient);
}

bool tune_head_backward(struct tune_head *h, const float *teacher_x, const float *x, uint32_t rows,
                        double weight, double *kl, float *dx, float *norm_gradient)
{
    bool finite = true;
    for (uint32_t first = 0; first < rows; first += (uint32_t)h->batch) {
        int n = rows - first < (uint32_t)h->batch ? (int)(rows - first) : h->batch;
        size_t at = (size_t)first * h->hidden;
#pragma omp parallel num_threads(h->threads)
        batch_backward(h, teacher_x + at, x + at, n, weight, dx ? dx + at : NULL, norm_gradient);
        for (int r = 0; r < n; r++) {
            finite = finite && isfinite(h->kl[r]);
            *kl += h->kl[r];
        }
    }
    return finite;
}

bool tune_head_likelihood(struct tune_head *h, const float *x, const uint32_t *target,
                          uint32_t rows, float *dx)
{
    int bad = 0;
    for (uint32_t first = 0; first < rows; first += (uint32_t)h->batch) {
        int n = rows - first < (uint32_t)h->batch ? (int)(rows - first) : h->batch;
        size_t at = (size_t)first * h->hidden;
#pragma omp parallel num_threads(h->threads) reduction(+ : bad)
        {
            make_logits(h, &h->student, x + at, n);
            for (int r = product_share(n, 0); r < product_share(n, 1); r++)
                bad += !likelihood(h->student.logits + (size_t)r * h->vocab, h->vocab,
                                   target[first + (uint32_t)r]);
#pragma omp barrier
            backward(h, x + at, n, dx + at, NULL);
        }
    }
    return bad == 0;
}
