/* The reports of a compression: sums over kinds and blocks, the keys of --json, and the page of
 * --html, whose numbers and plots are looked up as text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/compress_report.h"
#include "coordinator/compress_sums.h"
#include "tests/unit/plan_units.h"

enum { BLOCKS = 2, UNITS = 1 + 3 * BLOCKS };

struct fixture {
    struct plan_unit units[UNITS];
    struct compress_result results[UNITS];
    struct weights source;
    struct plan_settings settings;
    struct plan_totals totals;
    struct compress_calibration calibration;
    struct msg_stats stats;
    struct cluster cluster;
    struct compress_report report;
};

/* An embedding, and per block a norm, q with a relative loss of 0.25 and up, twice as large, of
 * 0.1. */
static void setup(struct fixture *f)
{
    struct error e = {0};
    memset(f, 0, sizeof *f);
    make_unit(&f->units[0], KIND_EMBEDDING, UINT32_MAX, 64, 64);
    f->results[0] = (struct compress_result){.done = true, .error2 = 1, .weight2 = 1e4};
    for (uint32_t b = 0; b < BLOCKS; b++) {
        make_unit(&f->units[1 + 3 * b], KIND_ATTN_NORM, b, 1, 64);
        make_unit(&f->units[2 + 3 * b], KIND_Q, b, 64, 64);
        make_unit(&f->units[3 + 3 * b], KIND_UP, b, 128, 64);
        f->results[2 + 3 * b] = (struct compress_result){true, 3, 8, 0.5, 4, 2, 1.5, 1, false};
        f->results[3 + 3 * b] = (struct compress_result){true, 1, 8, 1.5, 100, 40, 20, 10, false};
    }
    f->settings = (struct plan_settings){"code", "q8_0", 1.5, 0};
    assert_int_equal(plan_compression(f->units, UNITS, &f->settings, &f->totals, &e), OK);
    f->source.path = "a <source> & more";
    f->source.config.block_count = BLOCKS;
    f->source.parameters = 64 * 64 + BLOCKS * (64 + 3 * 64 * 64);
    f->source.file_bytes = 4 * f->source.parameters;
    f->calibration = (struct compress_calibration){0xabcdef, 4096, 512, "qep=0.75"};
    snprintf(f->stats.host, sizeof f->stats.host, "host<1>");
    f->cluster.size = 1;
    f->cluster.stats = &f->stats;
    f->report = (struct compress_report){
        &f->source,      &f->settings, &f->totals, f->units, f->results, UNITS,
        &f->calibration, "out.gguf",   20000,      1,        2.5};
}

static void check_near(double got, double wanted)
{
    if (!(got > wanted - 1e-12 && got < wanted + 1e-12))
        fail_msg("%.15g instead of %.15g", got, wanted);
}

static void test_sums(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f);
    struct compress_sums s = compress_sums_of(f.units, f.results, UNITS, KIND_Q, SUMS_ALL);
    assert_int_equal(s.matrices, 2);
    assert_int_equal(s.weights, 2 * 64 * 64);
    check_near(s.loss, 0.25);
    check_near(s.rounded, 0.5);
    check_near(s.error, 3.0 / 8);
    s = compress_sums_of(f.units, f.results, UNITS, SUMS_ALL, 1);
    assert_int_equal(s.matrices, 2);
    check_near(s.loss, (0.25 + 2 * 0.1) / 3); /* by weights */
    check_near(s.fed, (1.5 / 4 + 2 * 0.2) / 3);
    check_near(s.error, 4.0 / 16);
    check_near(s.seconds, 2);
    s = compress_sums_of(f.units, f.results, UNITS, SUMS_ALL, SUMS_ALL);
    assert_int_equal(s.matrices, 4); /* no embedding, no norms */
    assert_int_equal(s.bytes, f.totals.matrix_bytes);
    check_near(compress_sums_bits(&s),
               8.0 * (double)f.totals.matrix_bytes / (double)f.totals.matrix_weights);
    s = compress_sums_of(f.units, f.results, UNITS, KIND_EMBEDDING, SUMS_ALL);
    assert_true(s.matrices == 1 && s.loss == 0 && s.d_high == 0);
    check_near(s.error, 1e-4);
    s = compress_sums_of(f.units, f.results, UNITS, KIND_V, SUMS_ALL);
    assert_true(s.matrices == 0 && compress_sums_bits(&s) == 0);
}

static void test_json(void **state)
{
    struct fixture f;
    struct error e = {0};
    json_t *root;
    (void)state;
    setup(&f);
    assert_int_equal(compress_report_json(&f.report, &f.cluster, &root, &e), OK);
    const json_t *row = json_array_get(json_object_get(root, "matrices"), 2);
    assert_string_equal(json_string_value(json_object_get(row, "name")), "blk.0.ffn_up.weight");
    check_near(json_real_value(json_object_get(row, "loss_rounded")), 0.4);
    check_near(json_real_value(json_object_get(row, "loss_fed")), 0.2);
    check_near(json_real_value(json_object_get(row, "loss")), 0.1);
    check_near(json_real_value(json_object_get(row, "seconds")), 1.5);
    assert_null(json_object_get(json_array_get(json_object_get(root, "matrices"), 0), "loss"));
    assert_int_equal(json_array_size(json_object_get(root, "blocks")), BLOCKS);
    row = json_array_get(json_object_get(root, "blocks"), 1);
    assert_int_equal(json_integer_value(json_object_get(row, "block")), 1);
    check_near(json_real_value(json_object_get(row, "loss")), (0.25 + 2 * 0.1) / 3);
    row = json_object_get(root, "calibration");
    assert_int_equal(json_integer_value(json_object_get(row, "tokens")), 4096);
    assert_string_equal(json_string_value(json_object_get(row, "hash")), "0000000000abcdef");
    assert_string_equal(json_string_value(json_object_get(root, "recipe")), "qep=0.75");
    json_decref(root);
    f.report.calibration = NULL;
    assert_int_equal(compress_report_json(&f.report, &f.cluster, &root, &e), OK);
    assert_null(json_object_get(root, "calibration"));
    assert_null(json_object_get(root, "loss"));
    assert_non_null(json_object_get(root, "error"));
    json_decref(root);
}

static int count(const char *text, const char *part)
{
    int n = 0;
    for (; (text = strstr(text, part)); text += strlen(part))
        n++;
    return n;
}

/* The report as a page: the caller's, with two plots and without what is no number. */
static char *page_of(struct fixture *f)
{
    struct error e = {0};
    char *page;
    size_t size;
    assert_int_equal(compress_report_html(&f->report, &f->cluster, &page, &size, &e), OK);
    assert_int_equal(strlen(page), size);
    assert_int_equal(count(page, "<svg"), 2);
    assert_int_equal(count(page, "</svg>"), 2);
    assert_null(strstr(page, "nan"));
    assert_null(strstr(page, "inf"));
    return page;
}

static void test_page(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f);
    char *page = page_of(&f);
    /* Two plots of two kinds over two blocks; the embedding has no depth. */
    assert_int_equal(count(page, "<circle"), 2 * 2 * BLOCKS);
    assert_non_null(strstr(page, "block 1, up: 0.1<"));
    assert_non_null(strstr(page, "a &lt;source&gt; &amp; more"));
    assert_non_null(strstr(page, "host&lt;1&gt;"));
    assert_non_null(strstr(page, "blk.1.attn_q.weight"));
    assert_null(strstr(page, "blk.1.attn_norm"));
    assert_null(strstr(page, "http"));
    free(page);
}

/* Nothing was lost at all, one block: limits and places stay finite. */
static void test_page_of_zeros(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f);
    memset(f.results, 0, sizeof f.results);
    f.source.config.block_count = 1;
    f.report.calibration = NULL;
    char *page = page_of(&f);
    assert_null(strstr(page, "fed back"));
    free(page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_page),
        cmocka_unit_test(test_page_of_zeros),
    };
    return cmocka_run_group_tests_name("compress_report", tests, NULL, NULL);
}
