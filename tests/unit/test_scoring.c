/* Scores against values computed by hand, windows against the definition, stop strings against
 * every way to cut a text. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/scoring.h"
#include "coordinator/stop_filter.h"
#include "coordinator/windows.h"

static void near(double value, double expected)
{
    if (fabs(value - expected) > 1e-12)
        fail_msg("%.17g is not %.17g", value, expected);
}

static void test_nll(void **state)
{
    (void)state;
    struct score s;
    const float logits[4] = {1000, 1000, 1000, 1000}; /* overflows without the maximum */
    assert_true(score_row(&s, logits, NULL, 4, 2));
    near(s.nll, log(4));
    near(s.kl, 0);
    const float two[2] = {0, 1};
    assert_true(score_row(&s, two, NULL, 2, 1));
    near(s.nll, log(1 + exp(-1)));
    assert_true(score_row(&s, two, NULL, 2, 0));
    near(s.nll, log(1 + exp(1)));
}

static void test_divergence(void **state)
{
    (void)state;
    struct score s;
    const float a[3] = {0.5f, -1, 2}, b[3] = {1, 1.25f, -0.5f};
    double za = 0, zb = 0, kl = 0;
    for (int i = 0; i < 3; i++) {
        za += exp(a[i]);
        zb += exp(b[i]);
    }
    for (int i = 0; i < 3; i++)
        kl += exp(a[i]) / za * (log(exp(a[i]) / za) - log(exp(b[i]) / zb));
    assert_true(score_row(&s, b, a, 3, 0)); /* KL(a || b): the reference comes first */
    near(s.kl, kl);
    assert_false(s.same_top);
    assert_true(score_row(&s, a, a, 3, 0));
    near(s.kl, 0);
    assert_true(s.same_top);
    const float tie[3] = {2, 0, 2}; /* the first of equals is the likeliest */
    assert_true(score_row(&s, tie, a, 3, 0));
    assert_false(s.same_top);
}

static void test_not_finite(void **state)
{
    (void)state;
    struct score s;
    float good[3] = {1, 2, 3}, bad[3] = {1, NAN, 3};
    assert_false(score_row(&s, bad, NULL, 3, 0));
    assert_false(score_row(&s, good, bad, 3, 0));
    bad[1] = INFINITY;
    assert_false(score_row(&s, bad, NULL, 3, 0));
    assert_false(score_row(&s, good, NULL, 3, 3));
    assert_false(score_row(&s, good, NULL, 0, 0));
}

/* "B12 B34 B5" */
static const char *windows_text(const struct windows *w)
{
    static char text[256];
    uint32_t tokens[16];
    size_t used = 0;
    for (uint64_t i = 0; i < windows_count(w); i++) {
        uint32_t n = windows_tokens(w, i, tokens);
        if (i)
            text[used++] = ' ';
        for (uint32_t k = 0; k < n; k++)
            text[used++] = tokens[k] == 99 ? 'B' : (char)('0' + tokens[k]);
    }
    text[used] = '\0';
    return text;
}

static void test_windows(void **state)
{
    (void)state;
    const uint32_t ids[5] = {1, 2, 3, 4, 5};
    struct windows w = {.ids = ids, .n_ids = 5, .context = 3, .bos = 99};
    assert_string_equal(windows_text(&w), "B12 B34 B5");
    assert_int_equal(windows_scored(&w), 5);
    w.bos = UINT32_MAX;
    assert_string_equal(windows_text(&w), "123 45");
    assert_int_equal(windows_scored(&w), 3);
    w.context = 2; /* the last window has a first token only */
    assert_string_equal(windows_text(&w), "12 34 5");
    assert_int_equal(windows_scored(&w), 2);
    w.n_ids = 0;
    assert_int_equal(windows_count(&w), 0);
    assert_int_equal(windows_scored(&w), 0);
}

/* What comes out when text is pushed in pieces of step bytes. */
static const char *filtered(const char *const *stops, uint32_t n, const char *text, size_t step,
                            bool *stopped)
{
    static char result[256];
    struct stop_filter f;
    struct error e = {0};
    const char *out;
    size_t size, used = 0;
    stop_filter_init(&f, stops, n);
    *stopped = false;
    for (size_t at = 0; at < strlen(text) && !*stopped; at += step) {
        char piece[64];
        snprintf(piece, sizeof piece, "%.*s", (int)step, text + at);
        assert_int_equal(stop_filter_push(&f, piece, &out, &size, stopped, &e), OK);
        memcpy(result + used, out, size);
        used += size;
    }
    if (!*stopped) {
        stop_filter_finish(&f, &out, &size);
        memcpy(result + used, out, size);
        used += size;
    }
    result[used] = '\0';
    stop_filter_free(&f);
    return result;
}

static void test_stops(void **state)
{
    (void)state;
    static const char *const stops[] = {"User:", "\n\n", "se"};
    bool stopped;
    for (size_t step = 1; step < 20; step++) {
        assert_string_equal(filtered(stops, 2, "Hi UsUser: x", step, &stopped), "Hi Us");
        assert_true(stopped);
        assert_string_equal(filtered(stops, 2, "a\nb\n\nc", step, &stopped), "a\nb");
        assert_true(stopped);
        assert_string_equal(filtered(stops, 2, "ends in Use", step, &stopped), "ends in Use");
        assert_false(stopped);
        assert_string_equal(filtered(stops, 3, "ends in Use", step, &stopped), "ends in U");
        assert_true(stopped);
        assert_string_equal(filtered(NULL, 0, "as it is", step, &stopped), "as it is");
        assert_false(stopped);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nll),        cmocka_unit_test(test_divergence),
        cmocka_unit_test(test_not_finite), cmocka_unit_test(test_windows),
        cmocka_unit_test(test_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
