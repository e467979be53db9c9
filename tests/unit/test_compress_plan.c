/* The plan of a compression: budgets are kept and used, fallbacks are taken and explained,
 * blocks stay whole. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/codebook.h"
#include "coordinator/compress_plan.h"
#include "coordinator/compress_units.h"
#include "tests/unit/plan_units.h"

enum { MAX_UNITS = 400 };

struct shapes {
    uint32_t blocks;
    uint64_t hidden, kv, ffn, vocab;
};

static const struct shapes mistral = {32, 4096, 1024, 14336, 32000};
static const struct shapes demo = {8, 128, 64, 384, 2048};
static const struct shapes stories = {5, 64, 32, 172, 512};

static void add(struct plan_unit *units, uint32_t *n, enum tensor_kind kind, uint32_t block,
                uint64_t rows, uint64_t cols)
{
    make_unit(&units[(*n)++], kind, block, rows, cols);
}

static uint32_t make_units(const struct shapes *s, struct plan_unit *units)
{
    uint32_t n = 0;
    add(units, &n, KIND_EMBEDDING, UINT32_MAX, s->vocab, s->hidden);
    add(units, &n, KIND_OUTPUT_NORM, UINT32_MAX, 1, s->hidden);
    for (uint32_t b = 0; b < s->blocks; b++) {
        add(units, &n, KIND_ATTN_NORM, b, 1, s->hidden);
        add(units, &n, KIND_Q, b, s->hidden, s->hidden);
        add(units, &n, KIND_K, b, s->kv, s->hidden);
        add(units, &n, KIND_V, b, s->kv, s->hidden);
        add(units, &n, KIND_O, b, s->hidden, s->hidden);
        add(units, &n, KIND_FFN_NORM, b, 1, s->hidden);
        add(units, &n, KIND_GATE, b, s->ffn, s->hidden);
        add(units, &n, KIND_UP, b, s->ffn, s->hidden);
        add(units, &n, KIND_DOWN, b, s->hidden, s->ffn);
    }
    return n;
}

static struct plan_totals plan(struct plan_unit *units, uint32_t n, const char *method, double bits)
{
    struct plan_settings s = {method, "q8_0", bits, 0.02};
    struct plan_totals totals;
    struct error e = {0};
    assert_int_equal(plan_compression(units, n, &s, &totals, &e), OK);
    return totals;
}

static double bits_of(const struct plan_totals *t)
{
    return 8.0 * (double)t->matrix_bytes / (double)t->matrix_weights;
}

static void test_budget(void **state)
{
    static const double asked[] = {0.52, 0.75, 1, 1.01, 1.5, 2, 2.5, 3.3, 4, 4.5, 6, 8.5};
    struct plan_unit units[MAX_UNITS];
    (void)state;
    uint32_t n = make_units(&mistral, units);
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        struct plan_totals t = plan(units, n, "code", asked[i]);
        printf("asked %.2f, planned %.4f\n", asked[i], bits_of(&t));
        assert_false(t.over_budget);
        assert_true(bits_of(&t) <= asked[i]);
        assert_true(bits_of(&t) > asked[i] - 0.01);
        uint64_t bytes = 0;
        for (uint32_t k = 0; k < n; k++)
            bytes += plan_is_matrix(&units[k]) ? units[k].form.bytes : 0;
        assert_int_equal(bytes, t.matrix_bytes);
    }
}

/* Padding and scales count: 64-row bands of a matrix of 32 rows, rows of 172. */
static void test_small_budget(void **state)
{
    struct plan_unit units[MAX_UNITS];
    (void)state;
    uint32_t n = make_units(&stories, units);
    struct plan_totals t = plan(units, n, "code", 0.5);
    assert_true(t.over_budget);
    assert_true(bits_of(&t) > 0.5);
    for (uint32_t i = 0; i < n; i++)
        assert_true(!plan_is_matrix(&units[i]) || units[i].d == CODEBOOK_MAX_D);
    t = plan(units, n, "code", 2);
    assert_false(t.over_budget);
    assert_true(bits_of(&t) <= 2);
}

/* The kinds that matter more get shorter groups; alike matrices are served in order of blocks. */
static void test_order(void **state)
{
    struct plan_unit units[MAX_UNITS];
    uint32_t d[KIND_COUNT][8];
    (void)state;
    uint32_t n = make_units(&demo, units);
    plan(units, n, "code", 1.5);
    for (uint32_t i = 0; i < n; i++)
        if (plan_is_matrix(&units[i]))
            d[units[i].kind][units[i].block] = units[i].d;
    for (uint32_t b = 0; b < demo.blocks; b++) {
        assert_true(d[KIND_V][b] <= d[KIND_GATE][b]);
        assert_true(d[KIND_GATE][b] <= d[KIND_Q][b]);
        assert_true(b == 0 || d[KIND_GATE][b - 1] <= d[KIND_GATE][b]);
    }
}

/* The demo model's units, measured: errors cost 1 everywhere but in the matrices of one
 * kind. */
static uint32_t measured_units(struct plan_unit *units, enum tensor_kind kind, double energy)
{
    uint32_t n = make_units(&demo, units);
    for (uint32_t i = 0; i < n; i++) {
        const struct plan_unit *u = &units[i];
        struct msg_measured m = {.block = u->block, .kind = u->kind};
        struct error e = {0};
        if (!plan_is_matrix(u))
            continue;
        for (int c = 0; c < UNIT_CHOICES; c++)
            m.loss[c] = c < CODEBOOK_COUNT ? codebook_table[c].error / 2 : 0.003;
        assert_int_equal(compress_take_measured(units, n, &m, &e), OK);
        m.importance = true; /* multiplies what was there */
        m.energy = u->kind == kind ? 2 * energy : 2;
        assert_int_equal(compress_take_measured(units, n, &m, &e), OK);
    }
    return n;
}

/* The kind whose errors cost most has the shortest groups, whatever the table of kinds says, and
 * what costs nothing has the longest. */
static void test_energies(void **state)
{
    struct plan_unit units[MAX_UNITS];
    (void)state;
    uint32_t n = measured_units(units, KIND_Q, 100);
    struct plan_totals t = plan(units, n, "code", 1.2);
    assert_true(!t.over_budget && bits_of(&t) <= 1.2 && bits_of(&t) > 1.15);
    for (uint32_t i = 0; i < n; i++)
        if (plan_is_matrix(&units[i]))
            assert_true(units[i].kind == KIND_Q ? units[i].d <= 4 : units[i].d >= 6);
    n = measured_units(units, KIND_V, 0);
    plan(units, n, "code", 2);
    for (uint32_t i = 0; i < n; i++)
        if (plan_is_matrix(&units[i]))
            assert_true(units[i].kind == KIND_V ? units[i].d == CODEBOOK_MAX_D : units[i].d <= 5);
}

/* A sample of rows may say that a shorter group is no better than the next longer one: what lies
 * beyond it is still reached. */
static void test_uneven_losses(void **state)
{
    struct plan_unit u;
    uint32_t n = 0;
    (void)state;
    add(&u, &n, KIND_UP, 0, 256, 240);
    u.measured = true;
    for (int d = 0; d < CODEBOOK_COUNT; d++)
        u.loss[d] = codebook_table[d].d >= 10 ? 1 : codebook_table[d].error;
    struct plan_totals t = plan(&u, 1, "code", 2.2);
    assert_int_equal(u.d, 4);
    assert_true(bits_of(&t) <= 2.2);
}

/* Losses of no particular shape: what codes lose on Gaussian data times anything, standard types
 * now and then worse than codes of fewer bits. */
static uint32_t random_units(struct plan_unit *units)
{
    uint32_t n = make_units(&demo, units);
    for (uint32_t i = 0; i < n; i++) {
        double much = pow(10, 4.0 * rand() / RAND_MAX);
        units[i].measured = plan_is_matrix(&units[i]);
        for (int c = 0; c < CODEBOOK_COUNT; c++)
            units[i].loss[c] = much * codebook_table[c].error * (0.7 + 0.6 * rand() / RAND_MAX);
        units[i].loss[CODEBOOK_COUNT] = much * 0.012 * rand() / RAND_MAX;
        units[i].loss[CODEBOOK_COUNT + 1] = much * 5e-5 * rand() / RAND_MAX;
    }
    return n;
}

static double loss_of(const struct plan_unit *units, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct plan_unit *u = &units[i];
        for (int c = 0; c < UNIT_CHOICES && plan_is_matrix(u); c++) {
            uint32_t d;
            if (form_choice(c, &d) == u->method && d == u->d)
                sum += u->loss[c] * (double)(u->rows * u->cols);
        }
    }
    return sum;
}

/* The choice with the least loss when a byte costs so much. */
static void take_best(const struct plan_unit *u, double worth, double *loss, double *bytes)
{
    double best = INFINITY;
    for (int c = 0; c < UNIT_CHOICES; c++) {
        struct form f;
        struct error e = {0};
        uint32_t d;
        enum unit_method method = form_choice(c, &d);
        double each = u->loss[c] * (double)(u->rows * u->cols);
        assert_int_equal(form_of(&f, method, d, 0, u->rows, u->cols, false, &e), OK);
        if (each + worth * (double)f.bytes >= best)
            continue;
        best = each + worth * (double)f.bytes;
        *loss = each;
        *bytes = (double)f.bytes;
    }
}

/* When every matrix takes what is best by itself at some price of a byte, no plan with as many bytes
 * loses less (Lagrange). */
static double least_loss(const struct plan_unit *units, uint32_t n, double worth, double *bits)
{
    double loss = 0, bytes = 0, weights = 0;
    for (uint32_t i = 0; i < n; i++) {
        double its_loss = 0, its_bytes = 0;
        if (!plan_is_matrix(&units[i]))
            continue;
        take_best(&units[i], worth, &its_loss, &its_bytes);
        loss += its_loss;
        bytes += its_bytes;
        weights += (double)(units[i].rows * units[i].cols);
    }
    *bits = 8 * bytes / weights;
    return loss;
}

/* Codes and standard types under one budget: next to what is possible at all, and better than one
 * type alone. */
static void test_mixture(void **state)
{
    struct plan_unit units[MAX_UNITS];
    uint32_t types = 0, n = 0;
    (void)state;
    srand(5);
    for (int round = 0; round < 20; round++) {
        n = random_units(units);
        for (double worth = 1e-4; worth < 1e3; worth *= 7) {
            double bits, least = least_loss(units, n, worth, &bits);
            if (bits < 4.1 || bits > 8.4) /* below, blocks have limits of their own */
                continue;
            struct plan_totals t = plan(units, n, "code", bits + 1e-9);
            double loss = loss_of(units, n);
            printf("%.2f bits: %g, at least %g\n", bits, loss, least);
            assert_true(bits_of(&t) <= bits + 1e-9 && loss < 1.1 * least);
            for (uint32_t i = 0; i < n; i++)
                types |= plan_is_matrix(&units[i]) ? 1u << units[i].method : 0;
        }
        plan(units, n, "q4_0", 1);
        double alone = loss_of(units, n);
        plan(units, n, "code", 4.5);
        assert_true(loss_of(units, n) < 0.6 * alone);
    }
    assert_int_equal(types, 1u << UNIT_CODE | 1u << UNIT_Q4_0 | 1u << UNIT_Q8_0);
}

/* However much one block would gain: memory was set aside before. */
static void test_block_limit(void **state)
{
    struct plan_unit units[MAX_UNITS];
    uint64_t bytes = 0, most = 0;
    (void)state;
    uint32_t n = measured_units(units, KIND_Q, 1);
    for (uint32_t i = 0; i < n; i++)
        for (int c = 0; c < UNIT_CHOICES && units[i].block == 5; c++)
            units[i].loss[c] *= 1e6;
    plan(units, n, "code", 1.5);
    for (uint32_t i = 0; i < n; i++) {
        if (units[i].block != 5 || !plan_is_matrix(&units[i]))
            continue;
        bytes += units[i].form.bytes;
        most += plan_most_bytes(&units[i], 1.5);
    }
    assert_true(bytes <= most && bytes > most * 9 / 10);
}

/* Rows that standard types cannot hold: codes, and F16 where bits are plenty. */
static void test_odd_rows(void **state)
{
    struct plan_unit units[MAX_UNITS];
    bool f16 = false;
    (void)state;
    uint32_t n = make_units(&stories, units);
    for (double bits = 1; bits <= 16; bits += 0.5) {
        struct plan_totals t = plan(units, n, "code", bits);
        printf("asked %.1f, planned %.4f\n", bits, bits_of(&t));
        assert_true(bits_of(&t) <= bits && bits_of(&t) > bits - 0.61); /* one step to F16 */
        assert_false(t.none_fits);
        for (uint32_t i = 0; i < n; i++) {
            const struct plan_unit *u = &units[i];
            bool odd = plan_is_matrix(u) && u->cols == 172;
            assert_true(u->method != UNIT_F16 || odd || bits > 8.5);
            assert_true(!odd || u->method == UNIT_CODE || u->method == UNIT_F16);
            f16 = f16 || u->method == UNIT_F16;
        }
    }
    assert_true(f16);
}

/* Whatever the others would lose: where rows fit all types F16 is none of the choices while Q8_0
 * throughout is within reach, nor is memory set aside for it. */
static void test_no_f16(void **state)
{
    static const double asked[] = {0.8, 2, 4.3, 6, 8, 8.5};
    struct plan_unit units[MAX_UNITS];
    (void)state;
    srand(6);
    for (size_t a = 0; a < sizeof asked / sizeof asked[0]; a++) {
        uint32_t n = random_units(units);
        for (uint32_t i = 0; i < n; i++) /* as beside massive columns */
            if (units[i].kind == KIND_DOWN)
                units[i].loss[CODEBOOK_COUNT] = units[i].loss[CODEBOOK_COUNT + 1] = 1e6;
        plan(units, n, "code", asked[a]);
        for (uint32_t i = 0; i < n; i++) {
            const struct plan_unit *u = &units[i];
            uint64_t weights = u->rows * u->cols, most = weights * 17 / 16;
            assert_int_not_equal(u->method, UNIT_F16);
            if (plan_is_matrix(u))
                assert_true(plan_most_bytes(u, asked[a]) <= most + 2 * (u->rows + u->cols));
        }
    }
}

static uint32_t count_f16(const struct plan_unit *units, uint32_t n)
{
    uint32_t f16 = 0;
    for (uint32_t i = 0; i < n; i++)
        f16 += plan_is_matrix(&units[i]) && units[i].method == UNIT_F16;
    return f16;
}

/* From 8.5 bits on, first of what loses most as Q8_0; 16 are F16 throughout, measured or not. */
static void test_f16(void **state)
{
    struct plan_unit units[MAX_UNITS];
    uint32_t n = 0;
    (void)state;
    srand(7);
    n = random_units(units);
    for (uint32_t i = 0; i < n; i++)
        units[i].loss[CODEBOOK_COUNT + 1] = units[i].kind == KIND_V ? 1e-3 : 1e-9;
    for (double bits = 8.6; bits <= 16; bits += 0.2) {
        struct plan_totals t = plan(units, n, "code", bits);
        assert_true(bits_of(&t) <= bits && bits_of(&t) > bits - 0.32); /* one step of a gate */
        assert_true(count_f16(units, n) > 0);
    }
    plan(units, n, "code", 9);
    for (uint32_t i = 0; i < n; i++)
        assert_true(units[i].kind != KIND_V || units[i].method == UNIT_F16);
    for (int measured = 1; measured >= 0; measured--) {
        struct plan_totals t = plan(units, n, "code", 16);
        assert_int_equal(count_f16(units, n), 7 * demo.blocks);
        assert_true(bits_of(&t) == 16);
        n = make_units(&demo, units);
    }
}

/* The ranks share the choices of a matrix; each comes once, and what an error costs after them. */
static void test_measured_once(void **state)
{
    struct plan_unit units[MAX_UNITS], *up = NULL;
    struct error e = {0}, e2 = {0}, e3 = {0}, e4 = {0};
    (void)state;
    uint32_t n = make_units(&demo, units);
    struct msg_measured cost = {.block = 3, .kind = KIND_UP, .importance = true, .energy = 8};
    assert_int_equal(compress_take_measured(units, n, &cost, &e4), ERR_PEER);
    struct msg_measured m = {.block = 3, .kind = KIND_UP, .columns = true, .loss = {[2] = 0.5}};
    assert_int_equal(compress_take_measured(units, n, &m, &e), OK);
    assert_int_equal(compress_take_measured(units, n, &m, &e), ERR_PEER);
    assert_non_null(strstr(e.text, "blk.3.ffn_up"));
    m.loss[2] = 0;
    m.loss[3] = 0.25;
    assert_int_equal(compress_take_measured(units, n, &m, &e), OK);
    assert_int_equal(compress_take_measured(units, n, &cost, &e), OK);
    for (uint32_t i = 0; i < n; i++)
        up = units[i].measured ? &units[i] : up;
    assert_true(up->loss[2] == 4 && up->loss[3] == 2 && up->loss[1] == 0 && up->columns);
    m.kind = KIND_ATTN_NORM; /* a vector */
    assert_int_equal(compress_take_measured(units, n, &m, &e2), ERR_PEER);
    m = (struct msg_measured){.block = demo.blocks, .kind = KIND_UP};
    assert_int_equal(compress_take_measured(units, n, &m, &e3), ERR_PEER);
    uint32_t measured = 0;
    for (uint32_t i = 0; i < n; i++)
        measured += units[i].measured;
    assert_int_equal(measured, 1);
}

/* Column scales are a tensor of their own, count, and belong to codes alone. */
static void test_columns(void **state)
{
    struct plan_unit u;
    uint32_t n = 0;
    (void)state;
    add(&u, &n, KIND_DOWN, 0, 128, 384);
    u.columns = true;
    struct plan_totals t = plan(&u, 1, "code", 1.3);
    assert_int_equal(u.form.n, 3);
    assert_string_equal(u.form.tensor[2].suffix, ".code_in");
    assert_int_equal(u.form.tensor[2].dim[0], 384);
    assert_int_equal(u.form.tensor[2].bytes, 2 * 384);
    assert_int_equal(u.d, 8);
    assert_int_equal(u.form.bytes, 128 * 48 + 2 * 128 + 2 * 384);
    assert_int_equal(t.matrix_bytes, u.form.bytes);
    assert_true(bits_of(&t) <= 1.3);
    plan(&u, 1, "q2_0", 1);
    assert_int_equal(u.form.n, 1);
    plan(&u, 1, "code", 8.5);
    assert_int_equal(u.method, UNIT_Q8_0);
    assert_int_equal(u.form.n, 1);
}

static void test_forms(void **state)
{
    struct plan_unit units[MAX_UNITS];
    (void)state;
    uint32_t n = make_units(&demo, units);
    plan(units, n, "sign", 1);
    for (uint32_t i = 0; i < n; i++) {
        const struct plan_unit *u = &units[i];
        assert_string_equal(u->why, "");
        assert_int_equal(u->method, u->vector           ? UNIT_F32
                                    : plan_is_matrix(u) ? UNIT_SIGN
                                                        : UNIT_Q8_0);
        if (u->method != UNIT_SIGN)
            continue;
        uint64_t outliers = u->rows * u->cols / 50;
        assert_int_equal(u->form.outliers, outliers);
        assert_int_equal(u->form.bytes, u->rows * u->cols / 128 * 18 + outliers * (4 + 2 + 2));
    }
}

static void check_fallback(const char *method, uint64_t cols, enum unit_method taken)
{
    struct plan_unit u;
    uint32_t n = 0;
    add(&u, &n, KIND_DOWN, 0, 64, cols);
    struct plan_totals t = plan(&u, 1, method, 1);
    assert_true(t.none_fits);
    assert_int_equal(u.method, taken);
    assert_non_null(strstr(u.why, dtype_info(form_dtype(taken))->name));
    printf("%s: %s\n", method, u.why);
}

static void test_fallbacks(void **state)
{
    (void)state;
    check_fallback("sign", 172, UNIT_F16);
    check_fallback("sign", 160, UNIT_Q4_0);
    check_fallback("q4_0", 172, UNIT_F16);
    check_fallback("q8_0", 172, UNIT_F16);
    check_fallback("q1_0", 192, UNIT_Q2_0);
    check_fallback("q1_0", 160, UNIT_Q4_0);
    check_fallback("q2_0", 160, UNIT_Q4_0);
    check_fallback("q2_0", 172, UNIT_F16);
    struct plan_unit u;
    uint32_t n = 0;
    add(&u, &n, KIND_DOWN, 0, 64, 172);
    struct plan_totals t = plan(&u, 1, "code", 2);
    assert_int_equal(u.method, UNIT_CODE);
    assert_false(t.none_fits);
    struct plan_unit units[MAX_UNITS];
    n = make_units(&stories, units); /* 64 is a multiple of 32, 172 is not */
    assert_false(plan(units, n, "q4_0", 1).none_fits);
    assert_true(plan(units, n, "sign", 1).none_fits);
}

static void check_refused(const char *method, const char *embeddings, double bits)
{
    struct plan_settings s = {method, embeddings, bits, 0.02};
    struct plan_totals totals;
    struct plan_unit u;
    struct error e = {0};
    uint32_t n = 0;
    add(&u, &n, KIND_UP, 0, 64, 64);
    assert_int_equal(plan_compression(&u, 1, &s, &totals, &e), ERR_USAGE);
    assert_true(e.text[0] != '\0');
}

static void test_refusals(void **state)
{
    (void)state;
    check_refused("code", "q8_0", 0.49);
    check_refused("code", "q8_0", 16.01);
    check_refused("code", "q8_0", 0.0 / 0.0);
    check_refused("zip", "q8_0", 1);
    check_refused("code", "code", 1);
    check_refused("code", "code3.3", 1);
    check_refused("code", "code4 ", 1);
    check_refused("code", "sign", 1);
}

/* Embeddings and head of codes have the bits asked for, outside the budget of the blocks. */
static void test_coded_embeddings(void **state)
{
    static const struct {
        const char *name;
        uint32_t d;
    } cases[] = {{"code4", 2}, {"code2.67", 3}, {"code2", 4}};
    struct plan_unit units[MAX_UNITS];
    struct error e = {0};
    (void)state;
    uint32_t n = make_units(&mistral, units);
    struct plan_totals before = plan(units, n, "code", 1), t;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct plan_settings s = {"code", cases[i].name, 1, 0.02};
        assert_int_equal(plan_compression(units, n, &s, &t, &e), OK);
        assert_int_equal(units[0].method, UNIT_CODE);
        assert_int_equal(units[0].d, cases[i].d);
        assert_int_equal(units[0].form.bytes,
                         32000 * ((4096 + cases[i].d - 1) / cases[i].d + sizeof(uint16_t)));
        assert_int_equal(t.matrix_bytes, before.matrix_bytes);
        assert_int_equal(units[1].method, UNIT_F32);
    }
}

/* The weights of a model in that shape, with a head of its own, in F32 over all its bytes. */
static double ratio(const struct shapes *shape, double bits, const char *embeddings)
{
    struct plan_unit units[MAX_UNITS];
    struct plan_settings s = {"code", embeddings, bits, 0.02};
    struct plan_totals t;
    struct error e = {0};
    uint64_t weights = 0, bytes = (uint64_t)4 << 20; /* header, tokenizer, codebooks */
    uint32_t n = make_units(shape, units);
    add(units, &n, KIND_OUTPUT, UINT32_MAX, shape->vocab, shape->hidden);
    assert_int_equal(plan_compression(units, n, &s, &t, &e), OK);
    for (uint32_t i = 0; i < n; i++) {
        weights += units[i].rows * units[i].cols;
        bytes += units[i].form.bytes;
    }
    return 4.0 * (double)weights / (double)bytes;
}

static void test_ratios(void **state)
{
    static const struct shapes llama2 = {32, 4096, 4096, 11008, 32000};
    (void)state;
    assert_true(ratio(&mistral, 1, "q8_0") >= 25);
    assert_true(ratio(&llama2, 1, "q8_0") < 25); /* what the documentation says of it */
    assert_true(ratio(&llama2, 1, "code4") >= 25);
    assert_true(ratio(&mistral, 0.8, "code4") >= 32);
    assert_true(ratio(&llama2, 0.8, "code4") >= 32);
}

static void test_dealing(void **state)
{
    struct plan_unit units[MAX_UNITS];
    uint32_t rank_of[MAX_UNITS];
    (void)state;
    uint32_t n = make_units(&demo, units);
    plan(units, n, "code", 1);
    for (uint32_t ranks = 1; ranks <= 12; ranks++) {
        struct error e = {0};
        uint32_t of_block[8], used = 0;
        assert_int_equal(compress_deal(units, n, demo.blocks, ranks, rank_of, &e), OK);
        memset(of_block, 0xff, sizeof of_block);
        for (uint32_t i = 0; i < n; i++) {
            assert_true(rank_of[i] < ranks);
            if (units[i].block == UINT32_MAX) {
                assert_int_equal(rank_of[i], 0);
                continue;
            }
            if (of_block[units[i].block] == UINT32_MAX)
                of_block[units[i].block] = rank_of[i];
            assert_int_equal(of_block[units[i].block], rank_of[i]);
            used |= 1u << rank_of[i];
        }
        assert_true((uint32_t)__builtin_popcount(used) + 1 >= (ranks < 8 ? ranks : 8));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_budget),        cmocka_unit_test(test_small_budget),
        cmocka_unit_test(test_order),         cmocka_unit_test(test_forms),
        cmocka_unit_test(test_fallbacks),     cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_dealing),       cmocka_unit_test(test_energies),
        cmocka_unit_test(test_columns),       cmocka_unit_test(test_measured_once),
        cmocka_unit_test(test_uneven_losses), cmocka_unit_test(test_coded_embeddings),
        cmocka_unit_test(test_ratios),        cmocka_unit_test(test_mixture),
        cmocka_unit_test(test_block_limit),   cmocka_unit_test(test_odd_rows),
        cmocka_unit_test(test_no_f16),        cmocka_unit_test(test_f16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
