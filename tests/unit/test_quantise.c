/* Codebooks and quantisers: the tables' numbers are measured again, searches are compared with
 * brute force, every variant and thread count gives the same bytes. */
#include <float.h>
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
#include "common/dtype.h"
#include "common/forms.h"
#include "tests/random.h"
#include "worker/compress_matrix.h"
#include "worker/quantise_blocks.h"
#include "worker/quantise_code.h"
#include "worker/quantise_sign.h"

enum { SEED = 77 };

static void fill(float *x, int n, float size)
{
    for (int i = 0; i < n; i++)
        x[i] = size * random_gaussian();
}

static double weight_at(const struct input_stats *stats, int i)
{
    return stats ? (double)stats->diagonal[i] : 1;
}

/* sum of h (w - a s c)^2 over group g of a row for one code */
static double code_error(const struct codebook *b, const float *row, int cols, int g, int code,
                         double scale, const struct input_stats *stats)
{
    int d = (int)b->d;
    double sum = 0;
    for (int j = 0; j < d && g * d + j < cols; j++) {
        double c = b->vector[(code & 127) * d + j] * (code & 128 ? -scale : scale);
        double off = (double)row[g * d + j] - c;
        sum += weight_at(stats, g * d + j) * off * off;
    }
    return sum;
}

static double best_error(const struct codebook *b, const float *row, int cols, int g, double scale,
                         const struct input_stats *stats)
{
    double best = INFINITY;
    for (int code = 0; code < 256; code++) {
        double error = code_error(b, row, cols, g, code, scale, stats);
        best = error < best ? error : best;
    }
    return best;
}

/* At the table's own scale, on samples of this test. */
static void test_codebook_errors(void **state)
{
    /* research: k-means without annealing reached these */
    static const double known[CODEBOOK_COUNT] = {.0081, .0428, .0980, .1593, .2184,
                                                 .3248, .4104, .4779, .5810};
    (void)state;
    random_state = SEED;
    for (int i = 0; i < CODEBOOK_COUNT; i++) {
        const struct codebook *b = &codebook_table[i];
        float x[CODEBOOK_MAX_D];
        double error2 = 0, all = 0;
        for (int n = 0; n < 20000; n++) {
            fill(x, (int)b->d, 1);
            error2 += best_error(b, x, (int)b->d, 0, (double)b->unit, NULL);
            for (uint32_t j = 0; j < b->d; j++)
                all += (double)(x[j] * x[j]);
        }
        printf("d %2u: error %.5f, table %.5f\n", b->d, error2 / all, b->error);
        assert_true(fabs(error2 / all - b->error) < 0.02 * b->error);
        assert_true(b->error <= known[i]);
    }
}

static void test_codebook_limits(void **state)
{
    (void)state;
    assert_null(codebook_for(7));
    assert_null(codebook_for(0));
    for (int i = 0; i < CODEBOOK_COUNT; i++) {
        const struct codebook *b = &codebook_table[i];
        assert_ptr_equal(codebook_for(b->d), b);
        assert_true(i == 0 || b->d > b[-1].d);
        for (int k = 0; k < CODEBOOK_WORDS; k++) {
            int sum = 0;
            for (uint32_t j = 0; j < b->d; j++)
                sum += abs(b->vector[(uint32_t)k * b->d + j]);
            assert_in_range(sum, 0, CODEBOOK_MAX_SUM);
        }
    }
}

struct coded {
    uint8_t codes[512];
    uint16_t scale;
    bool fits;
    struct row_error error;
};

static void encode(const struct codebook *b, const float *row, int cols,
                   const struct input_stats *stats, int variant, struct coded *out)
{
    struct code_encoder *c;
    struct error e = {0};
    assert_int_equal(code_encoder_create(&c, b, cols, stats, &e), OK);
    if (variant >= 0)
        code_encoder_use(c, variant);
    float *scratch = malloc(code_encoder_scratch(c) * sizeof *scratch);
    assert_non_null(scratch);
    memset(out, 0, sizeof *out);
    out->fits = code_encode_row(c, row, scratch, out->codes, 1, &out->scale, &out->error);
    free(scratch);
    code_encoder_free(c);
}

/* Error of the whole row, weighted. */
static double row_loss(const struct codebook *b, const float *row, int cols, const struct coded *c,
                       const struct input_stats *stats)
{
    int groups = (cols + (int)b->d - 1) / (int)b->d;
    double sum = 0;
    for (int g = 0; g < groups; g++)
        sum += code_error(b, row, cols, g, c->codes[g], (double)f16_to_f32(c->scale), stats);
    return sum;
}

/* Every group has the best of all 256 codes for the scale that is stored; cols that no d
 * divides. */
static void check_nearest(const struct input_stats *stats, int cols)
{
    float row[512];
    fill(row, cols, 0.02f);
    for (int i = 0; i < CODEBOOK_COUNT; i++) {
        const struct codebook *b = &codebook_table[i];
        int groups = (cols + (int)b->d - 1) / (int)b->d;
        struct coded c;
        encode(b, row, cols, stats, -1, &c);
        double scale = (double)f16_to_f32(c.scale);
        for (int g = 0; g < groups; g++) {
            double have = code_error(b, row, cols, g, c.codes[g], scale, stats);
            double best = best_error(b, row, cols, g, scale, stats);
            assert_true(have <= best + 1e-6 * (best + 1e-6));
        }
        assert_true(fabs(row_loss(b, row, cols, &c, NULL) - c.error.error2) <=
                    1e-6 * c.error.error2);
    }
}

static void test_code_is_nearest(void **state)
{
    (void)state;
    random_state = SEED;
    check_nearest(NULL, 172);
    check_nearest(NULL, 509);
    check_nearest(NULL, 1);
}

static void test_code_with_statistics(void **state)
{
    enum { COLS = 301 };
    float diagonal[COLS], row[COLS];
    struct input_stats stats = {COLS, diagonal};
    (void)state;
    random_state = SEED + 1;
    for (int i = 0; i < COLS; i++)
        diagonal[i] = expf(1.5f * random_gaussian());
    diagonal[7] = 0;
    check_nearest(&stats, COLS);
    fill(row, COLS, 0.02f);
    for (int i = 0; i < CODEBOOK_COUNT; i++) {
        const struct codebook *b = &codebook_table[i];
        struct coded plain, weighted;
        encode(b, row, COLS, NULL, -1, &plain);
        encode(b, row, COLS, &stats, -1, &weighted);
        assert_true(row_loss(b, row, COLS, &weighted, &stats) <
                    row_loss(b, row, COLS, &plain, &stats));
    }
}

static void test_statistics_of_other_width(void **state)
{
    float diagonal[4] = {1, 1, 1, 1};
    struct input_stats stats = {4, diagonal};
    struct code_encoder *c;
    struct error e = {0};
    (void)state;
    assert_int_equal(code_encoder_create(&c, codebook_for(8), 8, &stats, &e), ERR_USAGE);
}

static void test_variants_agree(void **state)
{
    enum { COLS = 333 };
    float row[COLS], diagonal[COLS];
    struct input_stats stats = {COLS, diagonal};
    (void)state;
    random_state = SEED + 2;
    printf("%d variants\n", code_encoder_variants());
    for (int n = 0; n < 20; n++) {
        fill(row, COLS, 0.03f);
        fill(diagonal, COLS, 1);
        for (int i = 0; i < COLS; i++)
            diagonal[i] = fabsf(diagonal[i]);
        for (int i = 0; i < CODEBOOK_COUNT; i++) {
            struct coded first, other;
            const struct input_stats *s = n % 2 ? &stats : NULL;
            encode(&codebook_table[i], row, COLS, s, 0, &first);
            for (int v = 1; v < code_encoder_variants(); v++) {
                encode(&codebook_table[i], row, COLS, s, v, &other);
                assert_memory_equal(&first, &other, sizeof first);
            }
        }
    }
}

static void test_extreme_rows(void **state)
{
    static const float sizes[] = {0, 1e-40f, 1e-8f, 1e6f, 1e9f};
    float row[64];
    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        struct coded c;
        for (int i = 0; i < 64; i++)
            row[i] = i % 2 ? sizes[s] : -sizes[s];
        encode(codebook_for(8), row, 64, NULL, -1, &c);
        assert_true(isfinite(f16_to_f32(c.scale)));
        assert_true(isfinite(c.error.error2));
        assert_true(c.error.error2 <= c.error.weight2);
        assert_int_equal(c.fits, sizes[s] < 1e9f);
    }
}

static int compare_down(const void *a, const void *b)
{
    float x = fabsf(*(const float *)a), y = fabsf(*(const float *)b);
    return x < y ? 1 : x > y ? -1 : 0;
}

enum { SIGN_ROWS = 5, SIGN_COLS = 256, SIGN_ALL = SIGN_ROWS * SIGN_COLS };

static struct sign_threshold find_threshold(const float *w, uint64_t wanted)
{
    struct sign_selector *s;
    struct error e = {0};
    assert_int_equal(sign_selector_create(&s, wanted, &e), OK);
    sign_selector_add(s, w, SIGN_ALL);
    sign_selector_narrow(s);
    sign_selector_add(s, w, SIGN_ALL);
    struct sign_threshold t = sign_selector_result(s);
    sign_selector_free(s);
    return t;
}

/* The selector finds the wanted-th largest magnitude and how many of its equals belong. */
static void check_threshold(const float *w, uint64_t wanted)
{
    float sorted[SIGN_ALL], limit;
    uint64_t above = 0;
    memcpy(sorted, w, sizeof sorted);
    qsort(sorted, SIGN_ALL, sizeof *sorted, compare_down);
    struct sign_threshold t = find_threshold(w, wanted);
    memcpy(&limit, &t.bits, sizeof limit);
    assert_true(limit == fabsf(sorted[wanted - 1]));
    for (int i = 0; i < SIGN_ALL; i++)
        above += fabsf(w[i]) > limit;
    assert_int_equal(above + t.ties, wanted);
}

static void test_sign_selection(void **state)
{
    static const uint64_t wanted[] = {1, 2, 25, 26, 640, SIGN_ALL - 1, SIGN_ALL};
    float w[SIGN_ALL];
    (void)state;
    random_state = SEED + 3;
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        fill(w, SIGN_ALL, 0.02f);
        check_threshold(w, wanted[i]);
        for (int k = 0; k < SIGN_ALL; k++)
            w[k] = (float)((int)(100 * w[k])) / 8; /* many ties, many zeros */
        check_threshold(w, wanted[i]);
    }
    struct sign_threshold none = find_threshold(w, 0);
    assert_int_equal(none.bits, UINT32_MAX);
}

/* A row as a reader decodes it has the error that was reported, and outliers are nearly exact. */
static void test_sign_row(void **state)
{
    float row[SIGN_COLS], decoded[SIGN_COLS];
    uint8_t blocks[SIGN_COLS / 128 * 18];
    int32_t rows[SIGN_COLS];
    int16_t columns[SIGN_COLS];
    uint16_t values[SIGN_COLS];
    struct sign_entries to = {rows, columns, 2, values};
    struct row_error error;
    uint32_t bits, above, equal;
    float limit = 0.04f;
    double error2 = 0;
    (void)state;
    random_state = SEED + 4;
    fill(row, SIGN_COLS, 0.02f);
    row[3] = row[9] = row[200] = limit;
    memcpy(&bits, &limit, sizeof bits);
    sign_count(row, SIGN_COLS, bits, &above, &equal);
    assert_int_equal(equal, 3);
    sign_encode_row(row, SIGN_COLS, bits, 2, 11, NULL, blocks, &to, &error);
    dtype_to_f32(DTYPE_Q1_0, blocks, SIGN_COLS, decoded);
    for (uint32_t i = 0; i < above + 2; i++) {
        assert_int_equal(rows[i], 11);
        assert_true(i == 0 || columns[i] > columns[i - 1]);
        decoded[columns[i]] += f16_to_f32(values[i]);
        assert_true(fabsf(decoded[columns[i]] - row[columns[i]]) < 1e-3f * limit);
    }
    assert_true(fabsf(decoded[9] - limit) < 1e-3f * limit && fabsf(decoded[200] - limit) > 0.01f);
    for (int i = 0; i < SIGN_COLS; i++)
        error2 += ((double)row[i] - decoded[i]) * ((double)row[i] - decoded[i]);
    assert_true(fabs(error2 - error.error2) < 1e-6 * error2);
}

static void test_block_types(void **state)
{
    static const enum dtype types[] = {DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_F16, DTYPE_BF16, DTYPE_F32};
    static const double most[] = {4e-5, 1e-2, 1e-6, 1e-5, 0};
    float row[96], decoded[96];
    uint8_t out[96 * 4];
    (void)state;
    random_state = SEED + 5;
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        struct row_error error;
        double error2 = 0;
        fill(row, 96, 0.02f);
        memset(row + 32, 0, 32 * sizeof *row); /* a block of zeros */
        assert_true(blocks_encode_row(types[t], row, 96, out, &error));
        dtype_to_f32(types[t], out, 96, decoded);
        for (int i = 0; i < 96; i++)
            error2 += ((double)row[i] - decoded[i]) * ((double)row[i] - decoded[i]);
        assert_true(error2 <= most[t] * error.weight2);
        assert_true(fabs(error2 - error.error2) <= 1e-9 * error.weight2);
    }
}

static void test_values_beyond_f16(void **state)
{
    float row[32] = {1, 70000, -3};
    uint8_t out[32 * 4];
    struct row_error error;
    (void)state;
    assert_false(blocks_encode_row(DTYPE_F16, row, 32, out, &error));
    assert_true(blocks_encode_row(DTYPE_Q8_0, row, 32, out, &error));
    assert_true(blocks_encode_row(DTYPE_BF16, row, 32, out, &error));
    row[1] = 1e9f;
    assert_false(blocks_encode_row(DTYPE_Q8_0, row, 32, out, &error));
    row[1] = FLT_MIN / 4; /* a scale that is no normal number */
    row[0] = row[2] = 0;
    assert_true(blocks_encode_row(DTYPE_Q8_0, row, 32, out, &error));
    assert_true(blocks_encode_row(DTYPE_Q4_0, row, 32, out, &error));
}

static enum status drop_part(void *self, uint32_t unit, const char *suffix, uint64_t offset,
                             const void *data, size_t size, struct error *e)
{
    (void)self, (void)unit, (void)suffix, (void)offset, (void)data, (void)size, (void)e;
    return OK;
}

/* Compresses an 8 x 128 matrix of that size whose last row is zero. */
static enum status compress_size(const char *name, enum unit_method method, float size,
                                 struct error *e)
{
    /* less than a page, so that what is dropped after use is not this memory */
    static uint16_t w[8 * 128];
    struct tensor t = {.name = (char *)name,
                       .file = "some.file",
                       .dtype = DTYPE_BF16,
                       .dims = 2,
                       .dim = {128, 8, 1, 1},
                       .rows = 8,
                       .cols = 128,
                       .bytes = sizeof w,
                       .data = (const uint8_t *)w};
    struct compress_unit unit = {.method = (uint32_t)method, .d = method == UNIT_CODE ? 8 : 0};
    struct part_sink sink = {NULL, drop_part};
    struct compress_matrix *m;
    bool done = false;
    for (int i = 0; i < 7 * 128; i++)
        w[i] = f32_to_bf16(i % 3 ? size : -size / 2);
    memset(e, 0, sizeof *e);
    assert_int_equal(compress_matrix_create(&m, &t, &unit, 0, 1, e), OK);
    enum status status = OK;
    while (status == OK && !done)
        status = compress_matrix_step(m, &sink, &done, e);
    compress_matrix_free(m);
    return status;
}

/* What no reader could make sense of is refused by every method, with file, tensor and remedy. */
static void test_sizes_of_matrices(void **state)
{
    static const enum unit_method all[] = {UNIT_CODE, UNIT_SIGN, UNIT_Q8_0, UNIT_Q4_0, UNIT_F16};
    struct error e;
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        assert_int_equal(compress_size("blk.0.ffn_up.weight", all[i], 0, &e), OK);
        assert_int_equal(compress_size("blk.0.ffn_up.weight", all[i], 0.02f, &e), OK);
        assert_int_equal(compress_size("blk.0.ffn_up.weight", all[i], 1e30f, &e), ERR_LIMIT);
        assert_non_null(strstr(e.text, "some.file: tensor blk.0.ffn_up.weight has weights beyond"));
        assert_int_equal(compress_size("blk.0.ffn_up.weight", all[i], 1e-30f, &e), ERR_LIMIT);
        assert_non_null(
            strstr(e.text, "some.file: tensor blk.0.ffn_up.weight has weights so small"));
    }
    assert_int_equal(compress_size("token_embd.weight", UNIT_F16, 70000, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "use --embeddings f32"));
    assert_int_equal(compress_size("token_embd.weight", UNIT_F32, 70000, &e), OK);
    assert_int_equal(compress_size("blk.0.ffn_up.weight", UNIT_F16, 70000, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "--method code"));
    assert_int_equal(compress_size("blk.0.ffn_up.weight", UNIT_CODE, 70000, &e), OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codebook_errors),
        cmocka_unit_test(test_codebook_limits),
        cmocka_unit_test(test_code_is_nearest),
        cmocka_unit_test(test_code_with_statistics),
        cmocka_unit_test(test_statistics_of_other_width),
        cmocka_unit_test(test_variants_agree),
        cmocka_unit_test(test_extreme_rows),
        cmocka_unit_test(test_sign_selection),
        cmocka_unit_test(test_sign_row),
        cmocka_unit_test(test_block_types),
        cmocka_unit_test(test_values_beyond_f16),
        cmocka_unit_test(test_sizes_of_matrices),
    };
    printf("seed %d\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
