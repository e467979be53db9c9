/* Random models: shapes have the sizes of the published models, weights have the mean square that
 * keeps activations ordinary, and bits become the nearest code. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/codebook.h"
#include "common/random_weights.h"
#include "common/read_speed.h"
#include "coordinator/bench_model.h"
#include "coordinator/bench_shapes.h"

static uint64_t parameters(const struct model_config *c)
{
    uint64_t sum = 0;
    for (int kind = 0; kind < KIND_ROPE_FACTORS; kind++) {
        uint64_t rows, cols;
        if (model_shape(c, (enum tensor_kind)kind, &rows, &cols))
            sum +=
                rows * cols * (model_rule((enum tensor_kind)kind)->per_block ? c->block_count : 1);
    }
    return sum;
}

/* Parameters as the models' own pages state them; the demo's is counted from its file. */
static void test_shapes(void **state)
{
    static const struct {
        const char *name;
        double millions;
    } published[] = {
        {"demo", 1.8372},        {"smollm2-135m", 134.5},    {"smollm2-360m", 361.8},
        {"qwen2.5-0.5b", 494.0}, {"qwen2.5-1.5b", 1543.7},   {"qwen3-0.6b", 596.0},
        {"llama-2-7b", 6738.4},  {"tinyllama-1.1b", 1100.0}, {"llama-3.2-1b", 1235.8},
        {"mistral-7b", 7248.0},  {"llama-3.2-3b", 3212.7},   {"llama-3-8b", 8030.3},
    };
    (void)state;
    size_t n = sizeof published / sizeof published[0];
    for (size_t i = 0; i < n; i++) {
        struct model_config c;
        struct error e = {0};
        assert_int_equal(bench_shape(&c, published[i].name, &e), OK);
        double millions = (double)parameters(&c) / 1e6;
        if (fabs(millions - published[i].millions) > 0.001 * published[i].millions)
            fail_msg("%s has %.2f million parameters", published[i].name, millions);
    }
    assert_non_null(bench_shape_name((int)n - 1));
    assert_null(bench_shape_name((int)n));
}

static void test_unknown_shape(void **state)
{
    struct model_config c;
    struct error e = {0};
    (void)state;
    assert_int_equal(bench_shape(&c, "llama", &e), ERR_USAGE);
    assert_non_null(strstr(e.text, "\"llama\""));
    for (int i = 0; bench_shape_name(i); i++)
        assert_non_null(strstr(e.text, bench_shape_name(i)));
}

static void test_bits(void **state)
{
    static const struct {
        double bits;
        uint32_t d;
    } cases[] = {{4, 2}, {3, 3}, {2, 4}, {1.5, 5}, {1, 8}, {0.8, 10}, {0.5, 16}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(bench_model_d(cases[i].bits), cases[i].d);
}

static double mean_square(enum dtype dtype, uint64_t cols)
{
    enum { ROWS = 64 };
    struct random_weights random = {7};
    uint64_t bytes, n = ROWS * cols;
    struct error e = {0};
    double sum = 0;
    assert_int_equal(dtype_row_bytes(dtype, n, &bytes, &e), OK);
    uint8_t *stored = malloc(bytes);
    float *weights = malloc(n * sizeof *weights);
    assert_true(stored && weights);
    random_weights_fill(&random, dtype, cols, stored, bytes);
    dtype_to_f32(dtype, stored, n, weights);
    for (uint64_t i = 0; i < n; i++)
        sum += (double)weights[i] * (double)weights[i];
    free(stored);
    free(weights);
    return sum / (double)n;
}

static void test_weights(void **state)
{
    static const enum dtype dtypes[] = {DTYPE_F32,  DTYPE_F16,  DTYPE_BF16, DTYPE_Q8_0,
                                        DTYPE_Q4_0, DTYPE_Q2_0, DTYPE_Q1_0};
    static const uint64_t sizes[] = {128, 384, 2048, 14336};
    (void)state;
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            double relative = mean_square(dtypes[i], sizes[s]) * (double)sizes[s];
            double off = dtypes[i] <= DTYPE_F16 || dtypes[i] == DTYPE_BF16 ? 2 : 1.05;
            if (!(relative < off && relative > 1 / off))
                fail_msg("type %d, %d columns: %g times the mean square wanted", (int)dtypes[i],
                         (int)sizes[s], relative);
        }
}

/* All 256 indices equally often, times the scale. */
static void test_code_scale(void **state)
{
    (void)state;
    for (int i = 0; i < CODEBOOK_COUNT; i++) {
        const struct codebook *book = &codebook_table[i];
        double sum = 0, scale = (double)f16_to_f32(random_weights_code_scale(book->d, 2048));
        for (uint32_t k = 0; k < CODEBOOK_WORDS * book->d; k++)
            sum += book->vector[k] * book->vector[k];
        double relative = scale * scale * sum / (CODEBOOK_WORDS * book->d) * 2048;
        if (!(relative < 2 && relative > 0.25))
            fail_msg("d %u: %g times the mean square wanted", book->d, relative);
    }
}

static void test_read_speed(void **state)
{
    (void)state;
    for (uint32_t threads = 1; threads <= 5; threads += 2) {
        double speed = 0;
        struct error e = {0};
        assert_int_equal(read_speed(threads, 0.01, &speed, &e), OK);
        assert_true(speed > 1e6 && speed < 1e13); /* bytes/s of anything that computes */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),     cmocka_unit_test(test_unknown_shape),
        cmocka_unit_test(test_bits),       cmocka_unit_test(test_weights),
        cmocka_unit_test(test_code_scale), cmocka_unit_test(test_read_speed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
