/* Tuning end to end: gradients against differences of a double-precision block, the same bits
 * for any number of threads and as inference computes, row multipliers of every stored form, and
 * that a crudely quantised model comes much closer to its original. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/codebook.h"
#include "common/random_weights.h"
#include "kernels/half.h"
#include "tests/unit/owned.h"
#include "tests/unit/tune_model.h"
#include "tests/unit/tune_reference.h"
#include "worker/curvature.h"
#include "worker/layer.h"
#include "worker/rope.h"
#include "worker/tune_product.h"

enum { ROWS = 70, HIDDEN = 20, FFN = 28, PARAMETERS_MOST = 400 };

/* Blocks */

struct variant {
    const char *name;
    uint32_t heads, kv_heads, dim, rope_dim, window;
    bool interleaved, bias, norms;
};

static const struct variant variants[] = {
    {"as many keys as queries", 3, 3, 6, 6, 0, false, false, false},
    {"grouped queries", 4, 2, 6, 6, 0, false, false, false},
    {"interleaved", 4, 1, 4, 4, 0, true, false, false},
    {"part of a head turns, window", 4, 2, 8, 4, 9, false, false, false},
    {"bias", 4, 2, 6, 6, 0, false, true, false},
    {"bias, norms of heads, window", 4, 2, 6, 6, 17, true, true, true},
};
enum { VARIANTS = sizeof variants / sizeof *variants };

struct block {
    struct model_config config;
    struct block_weights weights;
};

static struct product product_of(int count, const uint32_t *rows, uint32_t cols)
{
    struct product p = {.count = count};
    for (int i = 0; i < count; i++)
        p.m[i] = (struct matrix){.type = MATRIX_F32,
                                 .rows = (int)rows[i],
                                 .cols = (int)cols,
                                 .data = vector((size_t)rows[i] * cols, 0, 1)};
    product_plan(&p);
    return p;
}

static struct block make_block(const struct variant *v)
{
    const uint32_t q = v->heads * v->dim, kv = v->kv_heads * v->dim;
    struct block b = {.config = {.hidden = HIDDEN,
                                 .ffn = FFN,
                                 .heads = v->heads,
                                 .kv_heads = v->kv_heads,
                                 .head_dim = v->dim,
                                 .rope_dim = v->rope_dim,
                                 .rope_base = 100,
                                 .rope_interleaved = v->interleaved,
                                 .rms_eps = 1e-5f,
                                 .sliding_window = v->window}};
    struct block_weights *w = &b.weights;
    w->qkv = product_of(3, (uint32_t[]){q, kv, kv}, HIDDEN);
    w->o = product_of(1, (uint32_t[]){HIDDEN}, q);
    w->gate_up = product_of(2, (uint32_t[]){FFN, FFN}, HIDDEN);
    w->down = product_of(1, (uint32_t[]){HIDDEN}, FFN);
    w->attn_norm = vector(HIDDEN, 1, 1);
    w->ffn_norm = vector(HIDDEN, 1, 1);
    w->q_bias = v->bias ? vector(q, 0, 1) : NULL;
    w->k_bias = v->bias ? vector(kv, 0, 1) : NULL;
    w->v_bias = v->bias ? vector(kv, 0, 1) : NULL;
    w->q_norm = v->norms ? vector(v->dim, 1, 1) : NULL;
    w->k_norm = v->norms ? vector(v->dim, 1, 1) : NULL;
    return b;
}

static void room_of(const struct block_weights *w, size_t room[PRODUCT_MAX])
{
    product_room(&w->qkv, room);
    product_room(&w->o, room);
    product_room(&w->gate_up, room);
    product_room(&w->down, room);
}

static struct tune_block *work_of(const struct block *b, int threads)
{
    struct tune_block *t;
    struct error e = {0};
    size_t room[PRODUCT_MAX] = {0};
    room_of(&b->weights, room);
    if (tune_block_create(&t, &b->config, NULL, ROWS, room, threads, &e) != OK)
        fail_msg("%s", e.text);
    return t;
}

/* What a backward pass gives. */
struct result {
    float gradient[PARAMETERS_MOST], energy[PARAMETERS_MOST], dx[ROWS * HIDDEN];
};

static void backward(const struct block *b, int threads, const float *x, const float *dout,
                     struct result *r)
{
    struct tune_block *t = work_of(b, threads);
    memset(r, 0, sizeof *r);
    assert_true(tune_block_size(&b->config) <= PARAMETERS_MOST);
    struct tune_vector g = tune_block_vector(&b->config, r->gradient);
    struct tune_vector energy = tune_block_vector(&b->config, r->energy);
    memcpy(r->dx, dout, sizeof r->dx);
    tune_block_backward(t, &b->weights, x, ROWS, r->dx, &g, &energy);
    tune_block_free(t);
}

/* sum of dout times the block's output, in double. */
static double loss(const struct block *b, const double *log, const double *x, const float *dout)
{
    static double out[ROWS * HIDDEN];
    double sum = 0;
    tune_reference(&b->config, &b->weights, log, ROWS, x, out);
    for (int i = 0; i < ROWS * HIDDEN; i++)
        sum += (double)dout[i] * out[i];
    return sum;
}

/* d loss / d *at by differences; at lies in log or x. */
static double difference(const struct block *b, const double *log, const double *x,
                         const float *dout, double *at)
{
    const double step = 1e-5, was = *at;
    *at = was + step;
    double above = loss(b, log, x, dout);
    *at = was - step;
    double below = loss(b, log, x, dout);
    *at = was;
    return (above - below) / (2 * step);
}

/* The largest error over the largest of some derivatives. */
struct distance {
    double error, most;
};

static void compare(struct distance *d, double got, double want)
{
    d->error = fmax(d->error, fabs(got - want));
    d->most = fmax(d->most, fabs(want));
}

static void check(const struct distance *d, const char *variant, const char *what)
{
    print_message("%-30s %-10s largest %8.3f, error %.1e of it\n", variant, what, d->most,
                  d->error / d->most);
    assert_true(d->most > 0 && d->error < 3e-3 * d->most);
}

static void check_block(const struct variant *v)
{
    static struct result r;
    static double wide[ROWS * HIDDEN];
    static const char *const names[] = {"q",  "k",    "v",         "o",       "gate",
                                        "up", "down", "attn_norm", "ffn_norm"};
    struct block b = make_block(v);
    float *x = vector(ROWS * HIDDEN, 0, 2), *dout = vector(ROWS * HIDDEN, 0, 1);
    double *log = keep(tune_block_size(&b.config), sizeof *log);
    for (int i = 0; i < ROWS * HIDDEN; i++)
        wide[i] = (double)x[i];
    backward(&b, 1, x, dout, &r);
    struct tune_vector g = tune_block_vector(&b.config, r.gradient);
    const float *start[] = {
        g.row[0], g.row[1], g.row[2],    g.row[3],   g.row[4],
        g.row[5], g.row[6], g.attn_norm, g.ffn_norm, r.gradient + tune_block_size(&b.config)};
    for (int i = 0; i < 9; i++) {
        struct distance d = {0, 0};
        for (const float *p = start[i]; p < start[i + 1]; p++)
            compare(&d, (double)*p, difference(&b, log, wide, dout, &log[p - r.gradient]));
        check(&d, v->name, names[i]);
    }
    struct distance d = {0, 0};
    for (int i = 0; i < ROWS * HIDDEN; i += 7)
        compare(&d, (double)r.dx[i], difference(&b, log, wide, dout, &wide[i]));
    check(&d, v->name, "input");
}

static void gradients(void **state)
{
    (void)state;
    for (int i = 0; i < VARIANTS; i++) {
        check_block(&variants[i]);
        release(NULL);
    }
}

/* Energies are the squares of the very gradients whose products with the outputs are summed: for
 * the last matrix both are known. */
static void energy_of_outputs(void **state)
{
    (void)state;
    static struct result r;
    struct block b = make_block(&variants[1]);
    float *x = vector(ROWS * HIDDEN, 0, 2), *dout = vector(ROWS * HIDDEN, 0, 1);
    backward(&b, 1, x, dout, &r);
    struct tune_vector energy = tune_block_vector(&b.config, r.energy);
    for (int i = 0; i < HIDDEN; i++) {
        double sum = 0;
        for (int t = 0; t < ROWS; t++)
            sum += (double)dout[t * HIDDEN + i] * (double)dout[t * HIDDEN + i];
        assert_true(fabs((double)energy.row[TUNE_DOWN][i] - sum) < 1e-5 * sum);
        assert_true(energy.row[TUNE_O][i] > 0 && energy.attn_norm[i] == 0);
    }
}

/* out = the block by layer.h. */
static void by_layer(const struct block *b, const float *x, float *out)
{
    struct error e = {0};
    struct scratch s;
    struct kvcache cache;
    struct rope rope;
    size_t room[PRODUCT_MAX] = {0}, pairs = b->config.rope_dim / 2;
    room_of(&b->weights, room);
    if (scratch_create(&s, &b->config, ROWS, 2, ROWS, room, &e) != OK ||
        kvcache_create(&cache, KV_F16, 1, 1, b->config.kv_heads, ROWS, b->config.head_dim, &e) !=
            OK ||
        rope_create(&rope, &b->config, NULL, &e) != OK)
        fail_msg("%s", e.text);
    s.rows = ROWS;
    memcpy(s.x, x, ROWS * HIDDEN * sizeof *x);
    for (uint32_t r = 0; r < ROWS; r++) {
        s.row[r] = (struct row){0, r};
        rope_angles(&rope, r, s.cosine + r * pairs, s.sine + r * pairs);
    }
    layer_forward(&(struct layer){&b->config, &b->weights, &cache, 0}, &s);
    memcpy(out, s.x, ROWS * HIDDEN * sizeof *out);
    scratch_free(&s);
    kvcache_free(&cache);
    rope_free(&rope);
}

static void same_bits(void **state)
{
    (void)state;
    static struct result one, more;
    static float want[ROWS * HIDDEN], got[ROWS * HIDDEN];
    for (int i = 0; i < VARIANTS; i++) {
        struct block b = make_block(&variants[i]);
        float *x = vector(ROWS * HIDDEN, 0, 2), *dout = vector(ROWS * HIDDEN, 0, 1);
        by_layer(&b, x, want);
        backward(&b, 1, x, dout, &one);
        for (int threads = 1; threads <= 5; threads++) {
            struct tune_block *t = work_of(&b, threads);
            memcpy(got, x, sizeof got);
            tune_block_forward(t, &b.weights, got, ROWS);
            tune_block_free(t);
            backward(&b, threads, x, dout, &more);
            if (memcmp(want, got, sizeof want) != 0 || memcmp(&one, &more, sizeof one) != 0)
                fail_msg("%s: other bits with %d threads", variants[i].name, threads);
        }
        release(NULL);
    }
}

/* Stored forms */

struct form {
    enum matrix_type type;
    enum dtype dtype;
    int d;
    bool in;
};

static const struct form forms[] = {
    {MATRIX_F32, DTYPE_F32, 0, false},   {MATRIX_F16, DTYPE_F16, 0, false},
    {MATRIX_BF16, DTYPE_BF16, 0, false}, {MATRIX_Q8_0, DTYPE_Q8_0, 0, false},
    {MATRIX_Q4_0, DTYPE_Q4_0, 0, false}, {MATRIX_Q1_0, DTYPE_Q1_0, 0, false},
    {MATRIX_Q2_0, DTYPE_Q2_0, 0, false}, {MATRIX_CODE, DTYPE_I8, 2, false},
    {MATRIX_CODE, DTYPE_I8, 3, true},    {MATRIX_CODE, DTYPE_I8, 8, false},
    {MATRIX_CODE, DTYPE_I8, 12, true},   {MATRIX_CODE, DTYPE_I8, 16, false},
};
enum { FORMS = sizeof forms / sizeof *forms };

struct stored {
    struct matrix m;
    void *bytes; /* that hold the scales */
    size_t size;
};

static struct stored make_stored(const struct form *f, int rows, int cols)
{
    struct random_weights random = {99};
    struct stored s = {.m = {.type = f->type, .rows = rows, .cols = cols, .d = f->d}};
    struct error e = {0};
    uint64_t row_bytes;
    if (f->type != MATRIX_CODE) {
        assert_int_equal(dtype_row_bytes(f->dtype, (uint64_t)cols, &row_bytes, &e), OK);
        s.size = (size_t)rows * row_bytes;
        s.m.data = s.bytes = keep(s.size, 1);
        random_weights_fill(&random, f->dtype, (uint64_t)cols, s.bytes, s.size);
        return s;
    }
    size_t codes = (size_t)((rows + 63) / 64 * 64) * (size_t)((cols + f->d - 1) / f->d);
    uint16_t *out = keep((size_t)rows, sizeof *out), *in = keep((size_t)cols, sizeof *in);
    void *data = keep(codes, 1);
    random_weights_fill(&random, DTYPE_I8, (uint64_t)cols, data, codes);
    for (int r = 0; r < rows; r++)
        out[r] = half_from_float(0.001f * (1.5f + next()));
    for (int c = 0; c < cols; c++)
        in[c] = half_from_float(1.5f + next());
    s.m.data = data;
    s.m.codebook = codebook_for((uint32_t)f->d)->vector;
    s.m.out = s.bytes = out;
    s.m.in = f->in ? in : NULL;
    s.size = (size_t)rows * sizeof *out;
    return s;
}

/* Every weight follows its row's multiplier, up to the rounding of the scale; and base brings
 * all back. */
static void multipliers(void **state)
{
    (void)state;
    enum { N = 70, COLS = 256 };
    static float log[N], zero[N], before[COLS], after[COLS];
    for (int i = 0; i < FORMS; i++) {
        struct stored s = make_stored(&forms[i], N, COLS);
        const enum matrix_type type = s.m.type;
        size_t n = tune_matrix_scales(&s.m);
        assert_int_equal(n == 0, type == MATRIX_F32 || type == MATRIX_BF16);
        uint16_t *base = keep(n, sizeof *base);
        void *copy = keep(s.size, 1);
        memcpy(copy, s.bytes, s.size);
        tune_matrix_base(&s.m, base);
        for (int r = 0; r < N; r++)
            log[r] = next();
        log[1] = 30; /* beyond binary16 */
        for (int r = 0; r < N; r++) {
            kernels.row[type](&s.m, r, before);
            tune_matrix_apply(&s.m, s.bytes, base, log);
            kernels.row[type](&s.m, r, after);
            for (int c = 0; c < COLS && n > 0 && r != 1; c++) {
                double want = (double)before[c] * exp((double)log[r]);
                assert_true(fabs((double)after[c] - want) <= 0x1p-11 * fabs(want) + 0x1p-20);
            }
            for (int c = 0; c < COLS; c++)
                assert_true(isfinite(after[c]));
            tune_matrix_apply(&s.m, s.bytes, base, zero);
            assert_memory_equal(copy, s.bytes, s.size);
        }
        release(NULL);
    }
}

/* dx = dy W of two matrices, over several tiles in every direction. */
static void product_gradient(void **state)
{
    (void)state;
    enum { TOKENS = 131, COLS = 384, N0 = 300, N1 = 65 };
    for (int i = 0; i < FORMS; i++) {
        struct tune_tile tile;
        struct error e = {0};
        struct stored a = make_stored(&forms[i], N0, COLS), b = make_stored(&forms[1], N1, COLS);
        struct product p = {.count = 2, .m = {a.m, b.m}};
        float *dy[] = {vector(TOKENS * N0, 0, 1), vector(TOKENS * N1, 0, 1)};
        float *row = keep(COLS, sizeof *row), *dx[2];
        double *want = keep(TOKENS * COLS, sizeof *want), most = 0, error = 0;
        product_plan(&p);
        for (int r = 0; r < N0 + N1; r++) {
            int second = r >= N0, k = second ? r - N0 : r, rows = second ? N1 : N0;
            kernels.row[p.m[second].type](&p.m[second], k, row);
            for (int j = 0; j < TOKENS * COLS; j++)
                want[j] += (double)dy[second][j / COLS * rows + k] * (double)row[j % COLS];
        }
        assert_int_equal(tune_tile_create(&tile, COLS, &e), OK);
        for (int threads = 1; threads <= 2; threads++) {
            float *out = dx[threads - 1] = keep(TOKENS * COLS, sizeof **dx);
#pragma omp parallel num_threads(threads)
            tune_product_backward(&p, dy, TOKENS, &tile, out);
        }
        tune_tile_free(&tile);
        for (int j = 0; j < TOKENS * COLS; j++) {
            most = fmax(most, fabs(want[j]));
            error = fmax(error, fabs((double)dx[0][j] - want[j]));
        }
        assert_true(error < 1e-5 * most);
        assert_memory_equal(dx[0], dx[1], TOKENS * COLS * sizeof **dx);
        release(NULL);
    }
}

/* The head */

enum { HEAD_ROWS = 19, VOCAB = 50 };

/* sum over rows of KL(softmax(A norm(t)) || softmax(B norm(x))) in double. */
static double divergence(const struct matrix *a, const struct matrix *b, const float *norm,
                         const double *logs, const float *teacher, const double *x)
{
    double total = 0, z[2][VOCAB], sum[2], n[2][HIDDEN], wide[HIDDEN];
    for (int t = 0; t < HEAD_ROWS; t++) {
        for (int i = 0; i < HIDDEN; i++)
            wide[i] = (double)teacher[t * HIDDEN + i];
        tune_reference_norm(wide, norm, NULL, HIDDEN, 1e-5f, n[0]);
        tune_reference_norm(x + t * HIDDEN, norm, logs, HIDDEN, 1e-5f, n[1]);
        for (int side = 0; side < 2; side++) {
            const float *w = side ? b->data : a->data;
            sum[side] = 0;
            for (int r = 0; r < VOCAB; r++) {
                z[side][r] = 0;
                for (int c = 0; c < HIDDEN; c++)
                    z[side][r] += (double)w[r * HIDDEN + c] * n[side][c];
                sum[side] += exp(z[side][r]);
            }
        }
        for (int r = 0; r < VOCAB; r++)
            total += exp(z[0][r]) / sum[0] * (z[0][r] - z[1][r] - log(sum[0] / sum[1]));
    }
    return total;
}

static void head_gradient(void **state)
{
    (void)state;
    const struct model_config c = {.hidden = HIDDEN, .vocab = VOCAB, .rms_eps = 1e-5f};
    const uint32_t rows[] = {VOCAB};
    struct product a = product_of(1, rows, HIDDEN), b = product_of(1, rows, HIDDEN);
    float *norm = vector(HIDDEN, 1, 1), *teacher = vector(HEAD_ROWS * HIDDEN, 0, 2);
    float *x = vector(HEAD_ROWS * HIDDEN, 0, 2), *dx = keep(HEAD_ROWS * HIDDEN, sizeof *dx);
    float *second = keep(HEAD_ROWS * HIDDEN, sizeof *dx), g[HIDDEN] = {0}, g2[HIDDEN] = {0};
    double log[HIDDEN] = {0}, *wide = keep(HEAD_ROWS * HIDDEN, sizeof *wide), kl = 0, kl2 = 0;
    const struct tune_output teacher_output = {norm, &a}, student_output = {norm, &b};
    const double weight = 0.25, step = 1e-5;
    struct tune_head *h;
    struct error e = {0};
    for (int i = 0; i < HEAD_ROWS * HIDDEN; i++)
        wide[i] = (double)x[i];
    for (int threads = 1; threads <= 2; threads++) {
        assert_int_equal(tune_head_create(&h, &c, &teacher_output, &student_output, threads, &e),
                         OK);
        assert_true(tune_head_backward(h, teacher, x, HEAD_ROWS, weight, threads == 1 ? &kl : &kl2,
                                       threads == 1 ? dx : second, threads == 1 ? g : g2));
        tune_head_free(h);
    }
    assert_true(kl == kl2 && memcmp(g, g2, sizeof g) == 0);
    assert_memory_equal(dx, second, HEAD_ROWS * HIDDEN * sizeof *dx);
    double want = divergence(&a.m[0], &b.m[0], norm, log, teacher, wide);
    assert_true(fabs(kl - want) < 1e-5 * want);
    struct distance inputs = {0, 0}, norms = {0, 0};
    for (int i = 0; i < HEAD_ROWS * HIDDEN + HIDDEN; i++) {
        bool input = i < HEAD_ROWS * HIDDEN;
        double *at = input ? &wide[i] : &log[i - HEAD_ROWS * HIDDEN], was = *at;
        *at = was + step;
        double above = divergence(&a.m[0], &b.m[0], norm, log, teacher, wide);
        *at = was - step;
        double below = divergence(&a.m[0], &b.m[0], norm, log, teacher, wide);
        *at = was;
        compare(input ? &inputs : &norms, (double)(input ? dx[i] : g[i - HEAD_ROWS * HIDDEN]),
                weight * (above - below) / (2 * step));
    }
    check(&inputs, "head", "input");
    check(&norms, "head", "norm");
    assert_int_equal(tune_head_create(&h, &c, &teacher_output, &student_output, 1, &e), OK);
    x[5] = NAN;
    assert_false(tune_head_backward(h, teacher, x, HEAD_ROWS, weight, &kl, dx, g));
    tune_head_free(h);
}

/* -sum over rows of ln softmax(B norm(x))[target], in double. */
static double unlikelihood(const struct matrix *b, const float *norm, const uint32_t *target,
                           const double *x)
{
    double total = 0, n[HIDDEN], z[VOCAB];
    const float *w = b->data;
    for (int t = 0; t < HEAD_ROWS; t++) {
        double sum = 0;
        tune_reference_norm(x + t * HIDDEN, norm, NULL, HIDDEN, 1e-5f, n);
        for (int r = 0; r < VOCAB; r++) {
            z[r] = 0;
            for (int c = 0; c < HIDDEN; c++)
                z[r] += (double)w[r * HIDDEN + c] * n[c];
            sum += exp(z[r]);
        }
        total -= log(exp(z[target[t]]) / sum);
    }
    return total;
}

static void likelihood_gradient(void **state)
{
    (void)state;
    const struct model_config c = {.hidden = HIDDEN, .vocab = VOCAB, .rms_eps = 1e-5f};
    const uint32_t rows[] = {VOCAB};
    struct product b = product_of(1, rows, HIDDEN);
    float *norm = vector(HIDDEN, 1, 1), *x = vector(HEAD_ROWS * HIDDEN, 0, 2);
    float *dx = keep(HEAD_ROWS * HIDDEN, sizeof *dx);
    double *wide = keep(HEAD_ROWS * HIDDEN, sizeof *wide);
    const struct tune_output output = {norm, &b};
    const double step = 1e-5;
    uint32_t target[HEAD_ROWS];
    struct distance d = {0, 0};
    struct tune_head *h;
    struct error e = {0};
    for (int i = 0; i < HEAD_ROWS * HIDDEN; i++)
        wide[i] = (double)x[i];
    for (uint32_t t = 0; t < HEAD_ROWS; t++)
        target[t] = 11 * t % VOCAB;
    assert_int_equal(tune_head_create(&h, &c, &output, &output, 2, &e), OK);
    assert_true(tune_head_likelihood(h, x, target, HEAD_ROWS, dx));
    for (int i = 0; i < HEAD_ROWS * HIDDEN; i++) {
        double was = wide[i], above, below;
        wide[i] = was + step;
        above = unlikelihood(&b.m[0], norm, target, wide);
        wide[i] = was - step;
        below = unlikelihood(&b.m[0], norm, target, wide);
        wide[i] = was;
        compare(&d, (double)dx[i], (above - below) / (2 * step));
    }
    check(&d, "head", "likelihood");
    x[5] = NAN;
    assert_false(tune_head_likelihood(h, x, target, HEAD_ROWS, dx));
    tune_head_free(h);
}

/* Adam */

static void adam(void **state)
{
    (void)state;
    struct tune_adam a;
    struct error e = {0};
    float p[2] = {1, 2}, g[2];
    double q[2] = {1, 2}, m[2] = {0}, v[2] = {0};
    assert_int_equal(tune_adam_create(&a, 2, &e), OK);
    for (int t = 1; t <= 20; t++) {
        tune_adam_begin(&a);
        for (int i = 0; i < 2; i++) {
            g[i] = (i ? 1e-6f : 100.0f) * next();
            m[i] = 0.8 * m[i] + 0.2 * (double)g[i];
            v[i] = 0.999 * v[i] + 0.001 * (double)g[i] * (double)g[i];
            q[i] -=
                (i ? 0.02 : 0.01) * (m[i] / (1 - pow(0.8, t))) / sqrt(v[i] / (1 - pow(0.999, t)));
        }
        assert_true(tune_adam_update(&a, p, g, 0, 1, 0.01f));
        assert_true(tune_adam_update(&a, p, g, 1, 1, 0.02f));
        assert_true(fabs((double)p[0] - q[0]) < 1e-5 && fabs((double)p[1] - q[1]) < 1e-5);
    }
    float was = p[0];
    g[1] = INFINITY;
    tune_adam_begin(&a);
    assert_false(tune_adam_update(&a, p, g, 0, 2, 0.01f));
    assert_true(p[0] == was);
    assert_true(tune_adam_rate(0.5f, 0, 10) == 0.5f);
    assert_true(fabsf(tune_adam_rate(0.5f, 5, 10) - 0.25f) < 1e-6f);
    assert_true(tune_adam_rate(0.5f, 10, 10) < 1e-6f);
    tune_adam_free(&a);
}

/* The demo model in one bit a weight, tuned on some windows and judged on others. */
static void demo(void **state)
{
    (void)state;
    enum { CONTEXT = 128, BATCH = 2, PASSES = 4, TRAINED = 10, JUDGED = 3 };
    struct tune_model m;
    struct tune_text text = {0};
    struct error e = {0};
    const char *model = SBIT_SOURCE_DIR "/models/demo";
    if (tune_text_read(&text, model, SBIT_SOURCE_DIR "/models/demo-eval.txt", CONTEXT,
                       TRAINED + JUDGED, &e) != OK ||
        tune_model_open(&m, model, NULL, 8, CONTEXT, 2, &e) != OK ||
        tune_model_teach(&m, &text, &e) != OK)
        fail_msg("%s", e.text);
    assert_int_equal(text.windows, TRAINED + JUDGED);
    double before = tune_model_kl(&m, &text, TRAINED, JUDGED);
    const uint32_t steps = PASSES * TRAINED / BATCH;
    for (uint32_t i = 0; i < steps; i++) {
        const uint32_t first = i * BATCH % TRAINED, window[BATCH] = {first, first + 1};
        double kl = tune_model_step(&m, &text, window, BATCH, tune_adam_rate(2e-2f, i, steps),
                                    tune_adam_rate(1e-2f, i, steps));
        assert_true(isfinite(kl));
    }
    double after = tune_model_kl(&m, &text, TRAINED, JUDGED);
    print_message("KL of unseen text: %.3f before, %.3f after\n", before, after);
    assert_true(after < 0.7 * before);
    tune_model_close(&m);
    free(text.tokens);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(gradients, release),
        cmocka_unit_test_teardown(energy_of_outputs, release),
        cmocka_unit_test_teardown(same_bits, release),
        cmocka_unit_test_teardown(multipliers, release),
        cmocka_unit_test_teardown(product_gradient, release),
        cmocka_unit_test_teardown(head_gradient, release),
        cmocka_unit_test_teardown(likelihood_gradient, release),
        cmocka_unit_test(adam),
        cmocka_unit_test(demo),
    };
    const char *problem = kernels_init(getenv("SBIT_CPU"));
    if (problem) {
        fprintf(stderr, "%s\n", problem);
        return 1;
    }
    curvature_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
