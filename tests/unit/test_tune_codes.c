/* Codes chosen anew while tuning: gradients by single weights against differences of a block in double
 * precision and against plain sums, the same bits for any number of threads, and the choice of codewords
 * against a search through all of them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/codebook.h"
#include "common/error.h"
#include "kernels/half.h"
#include "tests/unit/owned.h"
#include "tests/unit/tune_reference.h"
#include "worker/curvature.h"
#include "worker/tune_block.h"
#include "worker/tune_codes.h"

enum { TOKENS = 40, HIDDEN = 24, FFN = 70, HEADS = 4, KV = 2, DIM = 6 };

/* A matrix of random codes whose weights are about as large as spread. */
static struct matrix make_codes(int rows, int cols, int d, bool in, float spread)
{
    const struct codebook *book = codebook_for((uint32_t)d);
    size_t bands = ((size_t)rows + 63) / 64, groups = ((size_t)cols + (size_t)d - 1) / (size_t)d;
    uint8_t *codes = keep(bands * groups, 64);
    uint16_t *out = keep((size_t)rows, sizeof *out), *columns = keep((size_t)cols, sizeof *out);
    for (size_t i = 0; i < bands * groups * 64; i++)
        codes[i] = (uint8_t)next_bits();
    for (int r = 0; r < rows; r++)
        out[r] = half_from_float(spread * book->unit * (1.5f + next()));
    for (int c = 0; c < cols; c++)
        columns[c] = half_from_float(next_bits() % 2 ? 2.0f : 0.5f);
    return (struct matrix){.type = MATRIX_CODE,
                           .rows = rows,
                           .cols = cols,
                           .data = codes,
                           .d = d,
                           .codebook = book->vector,
                           .out = out,
                           .in = in ? columns : NULL};
}

/* Where weight [r][c] stands among latents. */
static size_t place(const struct matrix *m, int r, int c)
{
    return ((size_t)(r / 64) * (size_t)m->cols + (size_t)c) * 64 + (size_t)(r % 64);
}

/* Gradients */

static void sums(void **state)
{
    (void)state;
    const struct matrix all[] = {make_codes(70, 30, 4, true, 1), make_codes(64, 1030, 16, false, 1),
                                 make_codes(3, 7, 8, true, 1)};
    for (int i = 0; i < 3; i++) {
        const struct matrix *m = &all[i];
        float *x = vector((size_t)(TOKENS * m->cols), 0, 1);
        float *dy = vector((size_t)(TOKENS * m->rows), 0, 1);
        size_t n = tune_codes_size(m);
        float *g = vector(n, 0, 1), *more = keep(n, sizeof *g), *was = keep(n, sizeof *g);
        memcpy(was, g, n * sizeof *g);
        memcpy(more, g, n * sizeof *g);
#pragma omp parallel num_threads(1)
        tune_codes_gradient(m, dy, x, TOKENS, g);
#pragma omp parallel num_threads(3)
        tune_codes_gradient(m, dy, x, TOKENS, more);
        assert_memory_equal(g, more, n * sizeof *g);
        tune_codes_to_latents(m, more);
        for (int r = 0; r < m->rows; r++)
            for (int c = 0; c < m->cols; c++) {
                size_t at = place(m, r, c);
                double want = (double)was[at], scale = (double)half_to_float(m->out[r]);
                for (int t = 0; t < TOKENS; t++)
                    want += (double)dy[t * m->rows + r] * (double)x[t * m->cols + c];
                assert_true(fabs((double)g[at] - want) < 1e-5 * TOKENS);
                scale *= m->in ? (double)half_to_float(m->in[c]) : 1;
                assert_true(fabs((double)more[at] - scale * (double)g[at]) <=
                            1e-6 * scale * fabs((double)g[at]));
            }
    }
}

/* The same weights as floats. */
static struct matrix as_floats(const struct matrix *m)
{
    float *to = keep((size_t)m->rows * (size_t)m->cols, sizeof *to);
    float *z = keep(tune_codes_size(m), sizeof *z);
    tune_codes_start(m, z);
    for (int r = 0; r < m->rows; r++)
        for (int c = 0; c < m->cols; c++)
            to[r * m->cols + c] = half_to_float(m->out[r]) * z[place(m, r, c)] *
                                  (m->in ? half_to_float(m->in[c]) : 1.0f);
    return (struct matrix){.type = MATRIX_F32, .rows = m->rows, .cols = m->cols, .data = to};
}

struct block {
    struct model_config config;
    struct block_weights codes, floats;
};

static void fill(struct product *codes, struct product *floats, int count, const int *rows,
                 int cols)
{
    codes->count = floats->count = count;
    for (int i = 0; i < count; i++) {
        codes->m[i] = make_codes(rows[i], cols, 4, cols == FFN, 0.3f);
        floats->m[i] = as_floats(&codes->m[i]);
    }
    product_plan(codes);
    product_plan(floats);
}

static void make_block(struct block *b)
{
    memset(b, 0, sizeof *b);
    b->config = (struct model_config){.hidden = HIDDEN,
                                      .ffn = FFN,
                                      .heads = HEADS,
                                      .kv_heads = KV,
                                      .head_dim = DIM,
                                      .rope_dim = DIM,
                                      .rope_base = 100,
                                      .rms_eps = 1e-5f};
    b->codes.attn_norm = b->floats.attn_norm = vector(HIDDEN, 1, 1);
    b->codes.ffn_norm = b->floats.ffn_norm = vector(HIDDEN, 1, 1);
    fill(&b->codes.qkv, &b->floats.qkv, 3, (int[]){HEADS * DIM, KV * DIM, KV * DIM}, HIDDEN);
    fill(&b->codes.o, &b->floats.o, 1, (int[]){HIDDEN}, HEADS * DIM);
    fill(&b->codes.gate_up, &b->floats.gate_up, 2, (int[]){FFN, FFN}, HIDDEN);
    fill(&b->codes.down, &b->floats.down, 1, (int[]){HIDDEN}, FFN);
}

/* Gradients of all weights of the block, from dout. */
static void backward(struct block *b, int threads, const float *x, const float *dout,
                     float *const latents[TUNE_MATRICES])
{
    struct tune_block *t;
    struct error e = {0};
    size_t room[PRODUCT_MAX] = {0};
    const struct product *const products[] = {&b->codes.qkv, &b->codes.o, &b->codes.gate_up,
                                              &b->codes.down};
    for (int i = 0; i < 4; i++)
        product_room(products[i], room);
    float *dx = keep(TOKENS * HIDDEN, sizeof *dx);
    float *flat = keep(tune_block_size(&b->config), sizeof *flat);
    struct tune_vector g = tune_block_vector(&b->config, flat);
    memcpy(g.latents, latents, sizeof g.latents);
    memcpy(dx, dout, TOKENS * HIDDEN * sizeof *dx);
    if (tune_block_create(&t, &b->config, NULL, TOKENS, room, threads, &e) != OK)
        fail_msg("%s", e.text);
    tune_block_backward(t, &b->codes, x, TOKENS, dx, &g, NULL);
    tune_block_free(t);
}

/* sum of dout times the block's output, in double, from the floats. */
static double loss(const struct block *b, const double *x, const float *dout)
{
    static double out[TOKENS * HIDDEN];
    double sum = 0, *log = calloc(tune_block_size(&b->config), sizeof *log);
    assert_non_null(log);
    tune_reference(&b->config, &b->floats, log, TOKENS, x, out);
    for (int i = 0; i < TOKENS * HIDDEN; i++)
        sum += (double)dout[i] * out[i];
    free(log);
    return sum;
}

/* d loss / d *at by differences. */
static double difference(const struct block *b, const double *x, const float *dout, float *at)
{
    const float was = *at, step = 0x1p-10f;
    *at = was + step;
    double above = loss(b, x, dout), high = (double)*at;
    *at = was - step;
    double below = loss(b, x, dout), low = (double)*at;
    *at = was;
    return (above - below) / (high - low);
}

/* Each matrix gets the gradient of its own weights: of the largest to a few hundredths, since the
 * activations of codes are rounded and those of the reference are not. */
static void differences(void **state)
{
    (void)state;
    struct block b;
    double wide[TOKENS * HIDDEN];
    float *latents[TUNE_MATRICES], *again[TUNE_MATRICES];
    make_block(&b);
    float *x = vector(TOKENS * HIDDEN, 0, 2), *dout = vector(TOKENS * HIDDEN, 0, 1);
    for (int i = 0; i < TOKENS * HIDDEN; i++)
        wide[i] = (double)x[i];
    for (int k = 0; k < TUNE_MATRICES; k++) {
        size_t n = tune_codes_size(tune_block_matrix(&b.codes, (enum tune_matrix)k));
        latents[k] = keep(n, sizeof *latents[k]);
        again[k] = keep(n, sizeof *again[k]);
    }
    backward(&b, 1, x, dout, latents);
    backward(&b, 3, x, dout, again);
    for (int k = 0; k < TUNE_MATRICES; k++) {
        struct matrix *m = tune_block_matrix(&b.codes, (enum tune_matrix)k);
        float *w = (float *)(uintptr_t)tune_block_matrix(&b.floats, (enum tune_matrix)k)->data;
        double most = 0, error = 0;
        for (int i = 0; i < m->rows * m->cols; i += 13) {
            double want = difference(&b, wide, dout, &w[i]);
            most = fmax(most, fabs(want));
            error =
                fmax(error, fabs(want - (double)latents[k][place(m, i / m->cols, i % m->cols)]));
        }
        print_message("matrix %d: largest %.3f, error %.1e of it\n", k, most, error / most);
        assert_true(most > 0 && error < 0.06 * most);
        assert_memory_equal(latents[k], again[k], tune_codes_size(m) * sizeof(float));
    }
}

/* The choice */

/* The square of the distance of a group's latents from a codeword, over the columns there are. */
static double distance(const struct matrix *m, const float *z, int r, int first, uint8_t code)
{
    double sum = 0;
    for (int k = 0; k < m->d && first + k < m->cols; k++) {
        int v = m->codebook[(code & 127) * m->d + k];
        double error = (double)z[place(m, r, first + k)] - (code & 128 ? -v : v);
        sum += error * error;
    }
    return sum;
}

static void check_choice(const struct matrix *m, const float *z, const uint8_t *codes)
{
    int groups = (m->cols - 1) / m->d + 1;
    for (int r = 0; r < m->rows; r++)
        for (int g = 0; g < groups; g++) {
            double least = INFINITY;
            for (int code = 0; code < 256; code++)
                least = fmin(least, distance(m, z, r, g * m->d, (uint8_t)code));
            uint8_t got =
                codes[((size_t)(r / 64) * (size_t)groups + (size_t)g) * 64 + (size_t)(r % 64)];
            if (distance(m, z, r, g * m->d, got) > least * (1 + 1e-5) + 1e-3)
                fail_msg("d %d row %d group %d: not the nearest codeword", m->d, r, g);
        }
}

static void nearest_codewords(void **state)
{
    (void)state;
    for (int i = 0; i < CODEBOOK_COUNT; i++) {
        const struct codebook *book = &codebook_table[i];
        struct matrix m = make_codes(70, 2 * (int)book->d + 1 + i, (int)book->d, i % 2, 1);
        struct nearest *nearest;
        struct error e = {0};
        size_t n = tune_codes_size(&m), bytes = tune_codes_bytes(&m);
        float *z = keep(n, sizeof *z);
        uint8_t *codes = keep(bytes, 1);
        assert_int_equal(nearest_create(&nearest, book, &e), OK);
        tune_codes_start(&m, z);
        tune_codes_choose(&m, nearest, z, codes);
        check_choice(&m, z, codes); /* what was chosen before is nearest */
        for (int r = 0; r < m.rows; r++)
            assert_true(distance(&m, z, r, 0, codes[r / 64 * (bytes / 128 * 64) + r % 64]) == 0);
        for (size_t k = 0; k < n; k++)
            z[k] = 4 / book->unit * next();
        tune_codes_choose(&m, nearest, z, codes);
        check_choice(&m, z, codes);
        nearest_free(nearest);
        release(NULL);
    }
}

/* Types without codes have no latents, and nothing is touched. */
static void other_types(void **state)
{
    (void)state;
    float weights[4] = {1, 2, 3, 4};
    const struct matrix m = {.type = MATRIX_F32, .rows = 2, .cols = 2, .data = weights};
    assert_int_equal(tune_codes_size(&m), 0);
    assert_int_equal(tune_codes_bytes(&m), 0);
    tune_codes_start(&m, NULL);
    tune_codes_to_latents(&m, NULL);
    tune_codes_choose(&m, NULL, NULL, NULL);
    tune_codes_gradient(&m, weights, weights, 1, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(sums, release),
        cmocka_unit_test_teardown(differences, release),
        cmocka_unit_test_teardown(nearest_codewords, release),
        cmocka_unit_test_teardown(other_types, release),
    };
    const char *problem = kernels_init(getenv("SBIT_CPU"));
    if (problem) {
        fprintf(stderr, "%s\n", problem);
        return 1;
    }
    curvature_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
