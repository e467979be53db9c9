/* The calibration streams: the original's is inference to the bit, a student that holds the original's
 * matrices computes the same, and what is observed are the inputs of the products. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/random_weights.h"
#include "tests/unit/calib_fixture.h"
#include "tests/unit/random_model.h"
#include "tests/unit/test_files.h"
#include "worker/layer.h"
#include "worker/quantise_blocks.h"
#include "worker/quantise_code.h"
#include "worker/student.h"

#define DEMO SBIT_SOURCE_DIR "/models/demo"
#define PATH SBIT_TEST_DIR "/random.gguf"
#define SEED FIXTURE_SEED

static void advance(struct calib *c, enum calib_step step)
{
    struct error e = {0};
    bool more = true;
    while (more)
        test_ok(calib_advance(c, step, &more, &e), &e);
}

static void observe(struct calib *c, enum calib_step step, struct moments *m)
{
    struct error e = {0};
    bool more = true;
    while (more)
        test_ok(calib_observe(c, step, m, &more, &e), &e);
}

/* All blocks; a student holds the original's matrices. */
static void run_all(struct calib *c, const struct weights *w, bool student)
{
    struct originals o = {0};
    struct error e = {0};
    for (uint32_t b = 0; b < w->config.block_count; b++) {
        test_ok(calib_block(c, b, &e), &e);
        if (student)
            originals_set(&o, c, w, b);
        for (int step = 0; step < CALIB_STEPS; step++)
            advance(c, (enum calib_step)step);
    }
    originals_free(&o);
}

static struct calib *create(const struct weights *w, const struct fixture_text *t,
                            struct row_form embeddings, bool student, int threads, bool on_disk)
{
    struct calib *c;
    struct error e = {0};
    test_ok(
        calib_create(&c, w, &t->text, 0, MOMENT_LANES, embeddings, student, threads, on_disk, &e),
        &e);
    return c;
}

static const float *hidden(const struct calib *c, uint32_t i, bool student, uint32_t *rows)
{
    const float *x;
    struct error e = {0};
    test_ok(calib_hidden(c, i, student, &x, rows, &e), &e);
    return x;
}

/* Every window's final states, in one stream, are inference's. */
static void check_final(const struct calib *c, struct inference *m, const struct fixture_text *t,
                        bool student)
{
    const uint32_t *tokens = t->tokens;
    assert_int_equal(calib_windows(c), t->text.windows);
    for (uint32_t i = 0; i < t->text.windows; tokens += t->length[i++]) {
        uint32_t rows;
        const float *x = hidden(c, i, student, &rows);
        assert_int_equal(rows, t->length[i]);
        assert_ptr_equal(calib_tokens(c, i), tokens);
        float *want = inference_states(m, tokens, rows);
        if (memcmp(x, want, rows * m->weights->config.hidden * sizeof *x) != 0)
            fail_msg("window %u of %u rows differs from inference", i, rows);
        free(want);
    }
}

/* A folder; windows longer than what goes through a step together, and one of one token. */
static void teacher_is_inference(void **state)
{
    (void)state;
    struct inference m;
    struct fixture_text t;
    inference_open(&m, DEMO, 512, 64);
    fixture_text(&t, (uint32_t[WINDOWS_MAX]){300, 1, 257, 40}, m.weights->config.vocab);
    for (int threads = 1; threads <= 2; threads++) {
        struct calib *c =
            create(m.weights, &t, (struct row_form){UNIT_F32, 0}, false, threads, threads == 2);
        run_all(c, m.weights, false);
        check_final(c, &m, &t, false);
        calib_free(c);
    }
    inference_close(&m);
}

/* The student of a folder computes q and k in another order of rows: almost the same. */
static void folder_student_is_close(void **state)
{
    (void)state;
    struct fixture_text t;
    struct weights *w = fixture_model(DEMO);
    fixture_text(&t, (uint32_t[WINDOWS_MAX]){64, 7}, w->config.vocab);
    struct calib *c = create(w, &t, (struct row_form){UNIT_F32, 0}, true, 2, false);
    run_all(c, w, true);
    uint32_t rows;
    double error = 0, size = 0;
    const float *a = hidden(c, 0, false, &rows), *b = hidden(c, 0, true, &rows);
    for (size_t i = 0; i < rows * w->config.hidden; i++) {
        error += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)a[i] * a[i];
    }
    print_message("distance of the streams: %.2e\n", sqrt(error / size));
    assert_true(sqrt(error / size) < 1e-4);
    calib_free(c);
    weights_close(w);
}

static void same_matrices_same_bits(void **state)
{
    (void)state;
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    for (int f = 0; f < FAMILIES * 3; f++) {
        struct model_config config = fixture_family(f % FAMILIES);
        struct inference m;
        struct fixture_text t;
        random_model_write(PATH, &config, dtypes[f / FAMILIES], SEED);
        inference_open(&m, PATH, 64, 7);
        fixture_text(&t, (uint32_t[WINDOWS_MAX]){12, 1, 3, 20}, config.vocab);
        struct calib *c =
            create(m.weights, &t, (struct row_form){UNIT_F32, 0}, true, 1 + f % 2, f % 4 > 1);
        run_all(c, m.weights, true);
        check_final(c, &m, &t, false);
        check_final(c, &m, &t, true);
        calib_free(c);
        inference_close(&m);
    }
}

/* Random bytes of that form. */
static void random_student(struct student_matrix *m, enum unit_method method, uint32_t d, bool in,
                           int rows, int cols, struct random_weights *random)
{
    struct error e = {0};
    test_ok(student_open(m, method, d, in, rows, cols, &e), &e);
    for (uint32_t i = 0; i < m->form.n; i++) {
        const struct form_tensor *t = &m->form.tensor[i];
        random_weights_fill(random, t->dtype, (uint64_t)cols, m->part[i], t->bytes);
        if (strcmp(t->suffix, ".code_out") == 0)
            for (uint64_t j = 0; j < t->bytes / 2; j++)
                memcpy(m->part[i] + 2 * j,
                       &(uint16_t){random_weights_code_scale(d, (uint64_t)cols)}, 2);
        if (strcmp(t->suffix, ".code_in") == 0)
            for (uint64_t j = 0; j < t->bytes / 2; j++)
                memcpy(m->part[i] + 2 * j, &(uint16_t){f32_to_f16(j % 3 ? 1.0f : 4.0f)}, 2);
        m->received[i] = t->bytes;
    }
    assert_true(student_complete(m));
}

/* The embeddings of the file in Q8_0, as the compressed file would hold them. */
static uint8_t *embeddings_q8(const struct weights *w, struct matrix *out)
{
    const struct tensor *t = weights_find(w, "token_embd.weight");
    struct error e = {0};
    struct row_error ignored;
    size_t row_bytes = t->cols / 32 * 34;
    uint8_t *data = malloc(t->rows * row_bytes);
    float *row = fixture_floats(t->cols);
    assert_non_null(data);
    for (uint64_t r = 0; r < t->rows; r++) {
        test_ok(weights_rows_f32(t, r, 1, row, &e), &e);
        assert_true(
            blocks_encode_row(DTYPE_Q8_0, row, (int)t->cols, data + r * row_bytes, &ignored));
    }
    free(row);
    *out = (struct matrix){
        .type = MATRIX_Q8_0, .rows = (int)t->rows, .cols = (int)t->cols, .data = data};
    return data;
}

/* A student of all forms at once is what inference makes of the file that it will be. */
static void student_is_inference(void **state)
{
    (void)state;
    static const struct {
        enum unit_method method;
        uint32_t d;
        bool in;
    } forms[2][CALIB_STEPS][PRODUCT_MAX] = {
        {{{UNIT_CODE, 8, true}, {UNIT_Q8_0, 0, false}, {UNIT_F16, 0, false}},
         {{UNIT_CODE, 5, false}},
         {{UNIT_Q4_0, 0, false}, {UNIT_CODE, 12, false}},
         {{UNIT_BF16, 0, false}}},
        {{{UNIT_Q4_0, 0, false}, {UNIT_CODE, 8, false}, {UNIT_CODE, 8, true}},
         {{UNIT_Q8_0, 0, false}},
         {{UNIT_CODE, 4, true}, {UNIT_CODE, 8, true}},
         {{UNIT_CODE, 16, true}}},
    };
    struct student_matrix students[2][CALIB_STEPS][PRODUCT_MAX] = {0};
    struct random_weights random = {SEED};
    struct inference m;
    struct fixture_text t;
    struct error e = {0};
    random_model_write(PATH, &fixture_plain, DTYPE_F16, SEED);
    inference_open(&m, PATH, 64, 7);
    fixture_text(&t, (uint32_t[WINDOWS_MAX]){12, 1, 3, 20}, fixture_plain.vocab);
    struct calib *c = create(m.weights, &t, (struct row_form){UNIT_Q8_0, 0}, true, 2, true);
    for (uint32_t b = 0; b < 2; b++) {
        test_ok(calib_block(c, b, &e), &e);
        for (int step = 0; step < CALIB_STEPS; step++) {
            struct product *p = fixture_product(&m.blocks[b], step);
            for (int i = 0; i < p->count; i++) {
                struct student_matrix *s = &students[b][step][i];
                random_student(s, forms[b][step][i].method, forms[b][step][i].d,
                               forms[b][step][i].in, p->m[i].rows, p->m[i].cols, &random);
                p->m[i] = student_view(s);
                calib_set(c, (enum calib_step)step, i, &p->m[i]);
            }
            advance(c, (enum calib_step)step);
        }
    }
    uint8_t *data = embeddings_q8(m.weights, &m.head.embedding);
    inference_plan(&m, 64, 7);
    check_final(c, &m, &t, true);
    for (int i = 0; i < 2 * CALIB_STEPS * PRODUCT_MAX; i++)
        student_close(&students[i / (CALIB_STEPS * PRODUCT_MAX)][i / PRODUCT_MAX % CALIB_STEPS]
                               [i % PRODUCT_MAX]);
    free(data);
    calib_free(c);
    inference_close(&m);
}

/* The row of embeddings of a token in that form, as inference reads it from a file. */
static void stored_row(const struct weights *w, uint32_t token, struct row_form form,
                       float want[64])
{
    static const enum matrix_type types[] = {
        [UNIT_CODE] = MATRIX_CODE, [UNIT_F32] = MATRIX_F32,   [UNIT_F16] = MATRIX_F16,
        [UNIT_BF16] = MATRIX_BF16, [UNIT_Q8_0] = MATRIX_Q8_0, [UNIT_Q4_0] = MATRIX_Q4_0};
    static uint8_t encoded[64 * 64];
    struct row_error ignored;
    struct error e = {0};
    float row[64];
    uint16_t scale;
    const struct tensor *t = weights_find(w, "token_embd.weight");
    test_ok(weights_rows_f32(t, token, 1, row, &e), &e);
    struct matrix m = {.type = types[form.method], .rows = 1, .cols = 64, .data = encoded};
    if (form.method == UNIT_CODE) {
        struct code_encoder *encoder;
        float room[512];
        test_ok(code_encoder_create(&encoder, codebook_for(form.d), 64, NULL, &e), &e);
        assert_true(code_encoder_scratch(encoder) <= 512);
        assert_true(code_encode_row(encoder, row, room, encoded, 64, &scale, &ignored));
        code_encoder_free(encoder);
        m.d = (int)form.d;
        m.codebook = codebook_for(form.d)->vector;
        m.out = &scale;
    } else {
        assert_true(blocks_encode_row(form_dtype(form.method), row, 64, encoded, &ignored));
    }
    kernels.row[m.type](&m, 0, want);
}

static void embeddings_as_stored(void **state)
{
    (void)state;
    static const struct row_form forms[] = {{UNIT_F32, 0},  {UNIT_F16, 0},  {UNIT_BF16, 0},
                                            {UNIT_Q8_0, 0}, {UNIT_Q4_0, 0}, {UNIT_CODE, 2},
                                            {UNIT_CODE, 3}, {UNIT_CODE, 16}};
    struct fixture_text t;
    random_model_write(PATH, &fixture_plain, DTYPE_F32, SEED);
    struct weights *w = fixture_model(PATH);
    fixture_text(&t, (uint32_t[WINDOWS_MAX]){30, 9}, w->config.vocab);
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct calib *c = create(w, &t, forms[i], true, 1, false);
        uint32_t rows;
        float want[64];
        for (uint32_t r = 0; r < 30; r++) {
            stored_row(w, t.tokens[r], (struct row_form){UNIT_F32, 0}, want);
            assert_memory_equal(hidden(c, 0, false, &rows) + r * 64, want, sizeof want);
            stored_row(w, t.tokens[r], forms[i], want);
            assert_memory_equal(hidden(c, 0, true, &rows) + r * 64, want, sizeof want);
        }
        calib_free(c);
    }
    weights_close(w);
}

/* in[step][rows][cols] (free) of one block as inference has them; x goes through the block. */
static void trace_block(struct inference *m, uint32_t block, float *x, uint32_t rows,
                        float *in[CALIB_STEPS])
{
    const struct model_config *c = &m->weights->config;
    const struct block_weights *w = &m->blocks[block];
    struct scratch *s = &m->scratch;
    const size_t cols[CALIB_STEPS] = {c->hidden, c->heads * c->head_dim, c->hidden, c->ffn};
    const struct layer layer = {c, w, &m->cache, block};
    inference_place(m, 0, rows);
    memcpy(s->x, x, rows * c->hidden * sizeof *x);
    for (int step = 0; step < CALIB_STEPS; step++) {
        const float *norm = step == CALIB_QKV ? w->attn_norm : w->ffn_norm;
        const float *from = step == CALIB_O ? s->attended : s->gate;
        in[step] = fixture_floats(rows * cols[step]);
        for (uint32_t r = 0; r < rows; r++)
            if (step == CALIB_QKV || step == CALIB_GATE_UP)
                kernels.rms_norm(in[step] + r * c->hidden, s->x + r * c->hidden, norm,
                                 (int)c->hidden, c->rms_eps);
            else
                memcpy(in[step] + r * cols[step], from + r * cols[step],
                       cols[step] * sizeof(float));
        layer_step(&layer, (enum layer_step)step, s);
    }
    memcpy(x, s->x, rows * c->hidden * sizeof *x);
}

/* h += x x', d += (t - x) x' over rows */
static void add_naive(double *h, double *d, const float *t, const float *x, uint32_t rows, size_t n)
{
    for (uint32_t r = 0; r < rows; r++, x += n, t += n)
        for (size_t i = 0; i < n * n; i++) {
            h[i] += (double)x[i / n] * x[i % n];
            d[i] += ((double)t[i / n] - x[i / n]) * x[i % n];
        }
}

/* The nodes' upper triangles (h) or whole (c) add up to want. */
static void check_sum(struct moments *m, const double *want, size_t n, bool cross)
{
    struct moments_node nodes[MOMENT_NODES_MAX];
    int count = moments_nodes(m, nodes);
    double worst = 0, most = 0;
    for (size_t i = 0; i < n * n; i++) {
        double sum = 0;
        if (!cross && i % n < i / n)
            continue;
        for (int j = 0; j < count; j++)
            sum += cross ? (double)nodes[j].c[i] : (double)nodes[j].h[i];
        worst = fmax(worst, fabs(sum - want[i]));
        most = fmax(most, fabs(want[i]));
    }
    if (!(worst <= 1e-5 * most) || most == 0)
        fail_msg("%s of %zu: off by %g, largest %g", cross ? "cross moments" : "moments", n, worst,
                 most);
}

/* Streams that differ in their embeddings alone; traces of both by inference. */
struct traced {
    struct inference m;
    struct fixture_text t;
    float *x[2][WINDOWS_MAX];
};

static void check_step(struct traced *s, struct calib *c, enum calib_step step,
                       float *in[2][WINDOWS_MAX][CALIB_STEPS], bool student)
{
    struct error e = {0};
    struct moments *m;
    size_t n = (size_t)calib_cols(c, step);
    double *h = calloc(n * n, sizeof *h), *d = calloc(n * n, sizeof *d);
    assert_true(h && d);
    test_ok(moments_create(&m, (int)n, (int)n, student, 1, &e), &e);
    observe(c, step, m);
    for (uint32_t w = 0; w < s->t.text.windows; w++)
        add_naive(h, d, in[0][w][step], in[student][w][step], s->t.length[w], n);
    check_sum(m, h, n, false);
    if (student)
        check_sum(m, d, n, true);
    moments_free(m);
    free(h);
    free(d);
}

static void check_block(struct traced *s, struct calib *c, uint32_t block, bool student)
{
    float *in[2][WINDOWS_MAX][CALIB_STEPS];
    struct originals o = {0};
    struct error e = {0};
    for (uint32_t w = 0; w < s->t.text.windows; w++)
        for (int i = 0; i < 2; i++)
            trace_block(&s->m, block, s->x[i][w], s->t.length[w], in[i][w]);
    test_ok(calib_block(c, block, &e), &e);
    if (student)
        originals_set(&o, c, s->m.weights, block);
    for (int step = 0; step < CALIB_STEPS; step++) {
        check_step(s, c, (enum calib_step)step, in, student);
        advance(c, (enum calib_step)step);
        for (uint32_t w = 0; w < s->t.text.windows; w++) {
            free(in[0][w][step]);
            free(in[1][w][step]);
        }
    }
    originals_free(&o);
}

static void observed_moments(void **state)
{
    (void)state;
    for (int i = 0; i < FAMILIES * 2; i++) {
        struct model_config config = fixture_family(i / 2);
        struct traced s;
        bool student = i % 2;
        random_model_write(PATH, &config, DTYPE_F16, SEED);
        inference_open(&s.m, PATH, 64, 64);
        fixture_text(&s.t, (uint32_t[WINDOWS_MAX]){12, 1, 3, 20}, config.vocab);
        struct calib *c =
            create(s.m.weights, &s.t, (struct row_form){UNIT_Q4_0, 0}, student, 2, student);
        for (uint32_t j = 0; j < 2 * s.t.text.windows; j++) {
            uint32_t rows, w = j / 2;
            const float *x = hidden(c, w, student && j % 2, &rows);
            s.x[j % 2][w] = fixture_floats(rows * config.hidden);
            memcpy(s.x[j % 2][w], x, rows * config.hidden * sizeof *x);
        }
        for (uint32_t b = 0; b < config.block_count; b++)
            check_block(&s, c, b, student);
        for (uint32_t j = 0; j < 2 * s.t.text.windows; j++)
            free(s.x[j % 2][j / 2]);
        calib_free(c);
        inference_close(&s.m);
    }
}

/* Takes what another rank summed, as messages would bring it. */
static void take_nodes(struct moments *sum, struct moments *other, size_t n)
{
    struct moments_node nodes[MOMENT_NODES_MAX];
    struct error e = {0};
    float *to;
    int count = moments_nodes(other, nodes);
    for (int i = 0; i < count; i++)
        for (int cross = 0; cross < 2; cross++) {
            test_ok(moments_receive(sum, nodes[i].first, nodes[i].count, nodes[i].tokens, cross, 0,
                                    n * n, &to, &e),
                    &e);
            memcpy(to, cross ? nodes[i].c : nodes[i].h, n * n * sizeof *to);
        }
}

/* out[n * n + n * n] = the sum over all ranks' windows. */
static void merged(struct calib **c, int ranks, enum calib_step step, float *out)
{
    size_t n = (size_t)calib_cols(c[0], step);
    struct moments *m[3];
    struct moments_node node[MOMENT_NODES_MAX];
    struct error e = {0};
    for (int r = 0; r < ranks; r++) {
        test_ok(moments_create(&m[r], (int)n, (int)n, true, 1 + r % 2, &e), &e);
        observe(c[r], step, m[r]);
        if (r > 0)
            take_nodes(m[0], m[r], n);
    }
    test_ok(moments_merge(m[0], &e), &e);
    assert_int_equal(moments_nodes(m[0], node), 1);
    memcpy(out + n * n, node[0].c, n * n * sizeof *out);
    for (size_t i = 0; i < n * n; i++)
        out[i] = i % n >= i / n ? node[0].h[i] : 0;
    for (int r = 0; r < ranks; r++)
        moments_free(m[r]);
}

enum { RANKS_MAX = 3, SUMS = 2 * CALIB_STEPS, SUM_FLOATS = 2 * 96 * 96 };

/* All sums of the model on so many ranks: out[SUMS][SUM_FLOATS]. */
static void sums_on(int ranks, const struct fixture_text *t, float *out)
{
    struct weights *w = fixture_model(PATH);
    struct originals o[RANKS_MAX] = {0};
    struct error e = {0};
    struct calib *c[RANKS_MAX];
    for (int r = 0; r < ranks; r++)
        test_ok(calib_create(&c[r], w, &t->text, moments_first_lane(r, ranks),
                             moments_first_lane(r + 1, ranks), (struct row_form){UNIT_Q4_0, 0},
                             true, 1, r % 2 == 1, &e),
                &e);
    for (int i = 0; i < SUMS; i++, out += SUM_FLOATS) {
        enum calib_step step = (enum calib_step)(i % CALIB_STEPS);
        for (int r = 0; step == CALIB_QKV && r < ranks; r++) {
            test_ok(calib_block(c[r], (uint32_t)(i / CALIB_STEPS), &e), &e);
            originals_set(&o[r], c[r], w, (uint32_t)(i / CALIB_STEPS));
        }
        merged(c, ranks, step, out);
        for (int r = 0; r < ranks; r++)
            advance(c[r], step);
    }
    for (int r = 0; r < ranks; r++) {
        originals_free(&o[r]);
        calib_free(c[r]);
    }
    weights_close(w);
}

static void same_sums_on_any_ranks(void **state)
{
    (void)state;
    static const uint32_t few[WINDOWS_MAX] = {6, 3};
    static const uint32_t many[WINDOWS_MAX] = {5, 1, 7, 3, 2, 9, 4, 4, 1,
                                               6, 8, 2, 3, 3, 1, 7, 5, 2};
    random_model_write(PATH, &fixture_plain, DTYPE_BF16, SEED);
    float *want = fixture_floats(SUMS * SUM_FLOATS), *got = fixture_floats(SUMS * SUM_FLOATS);
    for (int i = 0; i < 2; i++) {
        struct fixture_text t;
        fixture_text(&t, i ? many : few, fixture_plain.vocab);
        memset(want, 0, SUMS * SUM_FLOATS * sizeof *want);
        sums_on(1, &t, want);
        for (int ranks = 2; ranks <= RANKS_MAX; ranks++) {
            memset(got, 0, SUMS * SUM_FLOATS * sizeof *got);
            sums_on(ranks, &t, got);
            assert_memory_equal(want, got, SUMS * SUM_FLOATS * sizeof *got);
        }
    }
    free(want);
    free(got);
}

static enum status open_text(struct calib **c, const struct weights *w,
                             const struct fixture_text *t, enum unit_method embeddings,
                             struct error *e)
{
    return calib_create(c, w, &t->text, 0, MOMENT_LANES, (struct row_form){embeddings, 0}, true, 1,
                        false, e);
}

static void bad_texts_are_refused(void **state)
{
    (void)state;
    struct fixture_text t;
    struct calib *c;
    struct error e = {0};
    random_model_write(PATH, &fixture_plain, DTYPE_F16, SEED);
    struct weights *w = fixture_model(PATH);
    fixture_text(&t, (uint32_t[WINDOWS_MAX]){6, 3}, fixture_plain.vocab);
    t.tokens[7] = fixture_plain.vocab;
    test_refused(open_text(&c, w, &t, UNIT_F32, &e), ERR_USAGE, &e, "token 96");
    t.tokens[7] = 0;
    t.length[1] = 7;
    memset(&e, 0, sizeof e);
    test_refused(open_text(&c, w, &t, UNIT_F32, &e), ERR_USAGE, &e, "window 1 has 7 tokens");
    t.length[1] = 0;
    memset(&e, 0, sizeof e);
    test_refused(open_text(&c, w, &t, UNIT_F32, &e), ERR_USAGE, &e, "window 1 has 0 tokens");
    t.length[1] = 3;
    memset(&e, 0, sizeof e);
    test_refused(open_text(&c, w, &t, UNIT_Q1_0, &e), ERR_UNSUPPORTED, &e, "embeddings");
    memset(&e, 0, sizeof e);
    test_refused(open_text(&c, w, &t, UNIT_CODE, &e), ERR_UNSUPPORTED, &e, "codes of 0 weights");
    weights_close(w);
}

/* Every value of a tensor of the file becomes v. */
static void overwrite(const char *name, float v)
{
    struct weights *w = fixture_model(PATH);
    const struct tensor *t = weights_find(w, name);
    assert_true(t && t->dtype == DTYPE_F32);
    long at = (long)(t->data - w->gguf[0].file.data);
    uint64_t n = t->rows * t->cols;
    weights_close(w);
    FILE *f = fopen(PATH, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    for (uint64_t i = 0; i < n; i++)
        assert_int_equal(fwrite(&v, sizeof v, 1, f), 1);
    assert_int_equal(fclose(f), 0);
}

/* The error when everything is observed and *step, where; the student's o of block 1 is all huge where
 * asked. */
static enum status observe_all(bool student, bool huge, int *step, struct error *e)
{
    static float large[64 * 64];
    const struct matrix m = {.type = MATRIX_F32, .rows = 64, .cols = 64, .data = large};
    struct fixture_text t;
    struct originals o = {0};
    struct weights *w = fixture_model(PATH);
    enum status status = OK;
    for (size_t i = 0; i < 64 * 64; i++)
        large[i] = i % 2 ? 3e38f : -3e38f;
    fixture_text(&t, (uint32_t[WINDOWS_MAX]){6, 3}, w->config.vocab);
    struct calib *c = create(w, &t, (struct row_form){UNIT_F32, 0}, student, 1, false);
    for (uint32_t b = 0; b < 2 && status == OK; b++) {
        test_ok(calib_block(c, b, e), e);
        if (student)
            originals_set(&o, c, w, b);
        if (b == 1 && huge)
            calib_set(c, CALIB_O, 0, &m);
        for (int s = 0; s < CALIB_STEPS && status == OK; s++) {
            struct moments *sum;
            bool more = true;
            *step = s;
            int cols = calib_cols(c, (enum calib_step)s);
            test_ok(moments_create(&sum, cols, cols, student, 1, e), e);
            while (more && status == OK)
                status = calib_observe(c, (enum calib_step)s, sum, &more, e);
            for (more = true; more && status == OK;)
                status = calib_advance(c, (enum calib_step)s, &more, e);
            moments_free(sum);
        }
    }
    originals_free(&o);
    calib_free(c);
    weights_close(w);
    return status;
}

static void values_out_of_range_are_refused(void **state)
{
    (void)state;
    struct error e = {0};
    int step;
    random_model_write(PATH, &fixture_plain, DTYPE_F32, SEED);
    test_ok(observe_all(true, false, &step, &e), &e);
    test_refused(observe_all(true, true, &step, &e), ERR_LIMIT, &e, "as compressed so far");
    assert_int_equal(step, CALIB_GATE_UP);
    assert_non_null(strstr(e.text, "block 1"));
    memset(&e, 0, sizeof e);
    overwrite("blk.1.ffn_down.weight", 3e38f); /* seen where it leaves the last block */
    test_refused(observe_all(false, false, &step, &e), ERR_LIMIT, &e, "block 1");
    assert_int_equal(step, CALIB_DOWN);
    memset(&e, 0, sizeof e);
    overwrite("blk.0.attn_v.weight", 1e30f);
    test_refused(observe_all(true, false, &step, &e), ERR_LIMIT, &e, "block 0");
    assert_int_equal(step, CALIB_O);
    assert_null(strstr(e.text, "as compressed"));
    memset(&e, 0, sizeof e);
    overwrite("blk.0.attn_norm.weight", NAN);
    struct weights *w = fixture_model(PATH);
    struct fixture_text t;
    fixture_text(&t, (uint32_t[WINDOWS_MAX]){6, 3}, w->config.vocab);
    struct calib *c = create(w, &t, (struct row_form){UNIT_F32, 0}, true, 1, false);
    test_refused(calib_block(c, 0, &e), ERR_FORMAT, &e, "blk.0.attn_norm.weight");
    calib_free(c);
    weights_close(w);
}

/* A rank whose lanes have no windows takes part without work. */
static void no_windows(void **state)
{
    (void)state;
    struct fixture_text t;
    struct calib *c;
    struct moments *m;
    struct error e = {0};
    bool more = true;
    random_model_write(PATH, &fixture_plain, DTYPE_F16, SEED);
    struct weights *w = fixture_model(PATH);
    fixture_text(&t, (uint32_t[WINDOWS_MAX]){6, 3}, fixture_plain.vocab);
    test_ok(calib_create(&c, w, &t.text, 9, MOMENT_LANES, (struct row_form){UNIT_Q8_0, 0}, true, 2,
                         true, &e),
            &e);
    assert_int_equal(calib_windows(c), 0);
    test_ok(calib_block(c, 0, &e), &e);
    int cols = calib_cols(c, CALIB_QKV);
    test_ok(moments_create(&m, cols, cols, true, 1, &e), &e);
    test_ok(calib_observe(c, CALIB_QKV, m, &more, &e), &e);
    assert_false(more);
    advance(c, CALIB_QKV);
    moments_free(m);
    calib_free(c);
    weights_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(teacher_is_inference),
        cmocka_unit_test(folder_student_is_close),
        cmocka_unit_test(same_matrices_same_bits),
        cmocka_unit_test(student_is_inference),
        cmocka_unit_test(embeddings_as_stored),
        cmocka_unit_test(observed_moments),
        cmocka_unit_test(same_sums_on_any_ranks),
        cmocka_unit_test(bad_texts_are_refused),
        cmocka_unit_test(values_out_of_range_are_refused),
        cmocka_unit_test(no_windows),
    };
    const char *problem = kernels_init(getenv("SBIT_CPU"));
    if (problem) {
        fprintf(stderr, "%s\n", problem);
        return 1;
    }
    printf("seed %u\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
