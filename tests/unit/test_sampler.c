/* The sampler: greedy choice, each filter by itself, and draws that follow the probabilities. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/sampler.h"

#define VOCAB 6

/* Probabilities 0.4 0.05 0.3 0.05 0.1 0.1 (ids 1 and 3, and 4 and 5, are equal). */
static void make_logits(float out[VOCAB])
{
    static const double p[VOCAB] = {0.4, 0.05, 0.3, 0.05, 0.1, 0.1};
    for (int i = 0; i < VOCAB; i++)
        out[i] = (float)(log(p[i]) + 3);
}

static struct sampler_config plain(void)
{
    return (struct sampler_config){.temp = 1, .top_p = 1, .repeat_penalty = 1, .seed = 7};
}

static void open_sampler(struct sampler *s, struct sampler_config config)
{
    struct error e = {0};
    assert_int_equal(sampler_init(s, &config, VOCAB, &e), OK);
}

/* counts[id] of n draws. */
static void draw(struct sampler_config config, int n, int counts[VOCAB])
{
    struct sampler s;
    float logits[VOCAB];
    make_logits(logits);
    memset(counts, 0, VOCAB * sizeof *counts);
    open_sampler(&s, config);
    for (int i = 0; i < n; i++) {
        uint32_t id = sampler_pick(&s, logits);
        assert_true(id < VOCAB);
        counts[id]++;
    }
    sampler_free(&s);
}

/* The set of ids that were drawn, as text "023". */
static const char *drawn(const int counts[VOCAB])
{
    static char text[VOCAB + 1];
    int n = 0;
    for (int i = 0; i < VOCAB; i++)
        if (counts[i])
            text[n++] = (char)('0' + i);
    text[n] = '\0';
    return text;
}

static void test_greedy(void **state)
{
    (void)state;
    struct sampler s;
    float logits[VOCAB] = {1, 3, NAN, 3, -2, 0};
    struct sampler_config config = plain();
    config.temp = 0;
    open_sampler(&s, config);
    assert_int_equal(sampler_pick(&s, logits), 1); /* the first of equals */
    sampler_free(&s);
}

static void test_follows_probabilities(void **state)
{
    (void)state;
    int counts[VOCAB], n = 40000;
    draw(plain(), n, counts);
    static const double p[VOCAB] = {0.4, 0.05, 0.3, 0.05, 0.1, 0.1};
    for (int i = 0; i < VOCAB; i++) { /* five standard deviations; the seed is fixed */
        double expected = p[i] * n, spread = sqrt(expected * (1 - p[i]));
        if (fabs(counts[i] - expected) > 5 * spread)
            fail_msg("id %d came %d times, expected %.0f", i, counts[i], expected);
    }
}

static void test_filters(void **state)
{
    (void)state;
    int counts[VOCAB];
    struct sampler_config c = plain();
    c.top_k = 2;
    draw(c, 2000, counts);
    assert_string_equal(drawn(counts), "02");
    c.top_k = 3; /* of the equal ids 4 and 5 the lower */
    draw(c, 2000, counts);
    assert_string_equal(drawn(counts), "024");
    c = plain();
    c.top_p = 0.75; /* 0.4 + 0.3 + 0.1 */
    draw(c, 2000, counts);
    assert_string_equal(drawn(counts), "024");
    c.top_p = 0;
    draw(c, 100, counts);
    assert_string_equal(drawn(counts), "0");
    c = plain();
    c.min_p = 0.2; /* of 0.4 */
    draw(c, 4000, counts);
    assert_string_equal(drawn(counts), "0245");
    c.min_p = 1;
    draw(c, 100, counts);
    assert_string_equal(drawn(counts), "0");
}

static void test_temperature(void **state)
{
    (void)state;
    int counts[VOCAB];
    struct sampler_config c = plain();
    c.temp = 0.05; /* (0.3 / 0.4)^20 = 0.003 */
    draw(c, 1000, counts);
    assert_true(counts[0] > 950);
    c.temp = 100; /* nearly uniform */
    draw(c, 6000, counts);
    for (int i = 0; i < VOCAB; i++)
        assert_in_range(counts[i], 800, 1200);
}

static void test_repeat_penalty(void **state)
{
    (void)state;
    struct sampler s;
    float logits[VOCAB] = {2, 1.5f, -1, -1.2f, -9, -9};
    struct sampler_config c = plain();
    c.temp = 0;
    c.repeat_penalty = 2;
    open_sampler(&s, c);
    assert_int_equal(sampler_pick(&s, logits), 0);
    sampler_accept(&s, 0);
    sampler_accept(&s, 0); /* twice seen is penalised once: 1, not 0.5 */
    assert_int_equal(sampler_pick(&s, logits), 1);
    sampler_accept(&s, 1); /* 0.75 */
    assert_int_equal(sampler_pick(&s, logits), 0);
    for (int i = 0; i < SAMPLER_RECENT; i++)
        sampler_accept(&s, 4); /* 0 and 1 are forgotten */
    assert_int_equal(sampler_pick(&s, logits), 0);
    sampler_accept(&s, 1000); /* an id outside the row is harmless */
    assert_int_equal(sampler_pick(&s, logits), 0);
    sampler_accept(&s, 0);
    assert_int_equal(sampler_pick(&s, logits), 1);
    sampler_forget(&s);
    assert_int_equal(sampler_pick(&s, logits), 0);
    sampler_free(&s);
}

static void test_seeds(void **state)
{
    (void)state;
    struct sampler a, b, other;
    float logits[VOCAB];
    struct sampler_config c = plain();
    int differ = 0;
    make_logits(logits);
    open_sampler(&a, c);
    open_sampler(&b, c);
    c.seed = 8;
    open_sampler(&other, c);
    for (int i = 0; i < 100; i++) {
        uint32_t id = sampler_pick(&a, logits);
        assert_int_equal(id, sampler_pick(&b, logits));
        differ += id != sampler_pick(&other, logits);
    }
    assert_true(differ > 20);
    sampler_free(&a);
    sampler_free(&b);
    sampler_free(&other);
}

static void test_degenerate(void **state)
{
    (void)state;
    struct sampler s;
    float logits[VOCAB];
    for (int i = 0; i < VOCAB; i++)
        logits[i] = -INFINITY;
    open_sampler(&s, plain());
    assert_true(sampler_pick(&s, logits) < VOCAB);
    logits[3] = INFINITY;
    assert_int_equal(sampler_pick(&s, logits), 3);
    logits[3] = 0;
    assert_int_equal(sampler_pick(&s, logits), 3);
    sampler_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy),         cmocka_unit_test(test_follows_probabilities),
        cmocka_unit_test(test_filters),        cmocka_unit_test(test_temperature),
        cmocka_unit_test(test_repeat_penalty), cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_degenerate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
