/* The scheduler as text: sequences in, micro-batches out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/scheduler.h"

/* "0:0+64(0) 1:5+1(1)": sequence, position, count, rows with logits. */
static const char *as_text(const struct run *runs, uint32_t n)
{
    static char text[512];
    text[0] = '\0';
    for (uint32_t i = 0; i < n; i++) {
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%s%u:%u+%u(%u)", used ? " " : "",
                 runs[i].sequence, runs[i].position, runs[i].count, runs[i].logits);
    }
    return text;
}

/* What comes next, as text; notes it as submitted. */
static const char *next(struct sched_sequence *s, uint32_t n, const struct sched_limits *limits,
                        uint32_t in_flight)
{
    static struct run runs[WIRE_RUNS_MAX];
    uint32_t n_runs = scheduler_next(s, n, limits, in_flight, runs);
    scheduler_submitted(s, n, runs, n_runs);
    return as_text(runs, n_runs);
}

static void test_prompt(void **state)
{
    (void)state;
    struct sched_limits limits = {.batch = 4, .stages = 2, .flying = 3};
    struct sched_sequence s = {.slot = 0, .end = 10, .logits_from = 9};
    assert_string_equal(next(&s, 1, &limits, 0), "0:0+4(0)");
    assert_string_equal(next(&s, 1, &limits, 1), "0:4+4(0)");
    assert_string_equal(next(&s, 1, &limits, 3), ""); /* enough on their way */
    assert_string_equal(next(&s, 1, &limits, 2), "0:8+2(1)");
    assert_string_equal(next(&s, 1, &limits, 0), ""); /* waits for logits */
    s.end = 11;
    s.logits_from = 10;
    s.decoding = true;
    assert_string_equal(next(&s, 1, &limits, 0), "0:10+1(1)");
}

static void test_all_logits(void **state)
{
    (void)state;
    struct sched_limits limits = {.batch = 5, .stages = 1, .flying = 2};
    struct sched_sequence s[2] = {{.slot = 0, .end = 7}, {.slot = 1, .end = 4, .logits_from = 2}};
    assert_string_equal(next(s, 2, &limits, 0), "0:0+5(5)");
    assert_string_equal(next(s, 2, &limits, 0), "0:5+2(2) 1:0+3(1)");
    assert_string_equal(next(s, 2, &limits, 0), "1:3+1(1)");
    assert_string_equal(next(s, 2, &limits, 0), "");
}

/* Four decoding sequences over two stages travel in groups of two; a prompt fills what is left. */
static void test_groups(void **state)
{
    (void)state;
    struct sched_limits limits = {.batch = 4, .stages = 2, .flying = 3};
    struct sched_sequence s[5] = {
        {.slot = 0, .end = 6, .logits_from = 5},
        {.slot = 1, .position = 7, .end = 8, .logits_from = 7, .decoding = true},
        {.slot = 2, .position = 3, .end = 4, .logits_from = 3, .decoding = true},
        {.slot = 3, .position = 9, .end = 10, .logits_from = 9, .decoding = true},
        {.slot = 4, .position = 1, .end = 2, .logits_from = 1, .decoding = true},
    };
    assert_string_equal(next(s, 5, &limits, 0), "1:7+1(1) 2:3+1(1) 0:0+2(0)");
    assert_string_equal(next(s, 5, &limits, 1), "3:9+1(1) 4:1+1(1) 0:2+2(0)");
    assert_string_equal(next(s, 5, &limits, 2), "0:4+2(1)");
    assert_string_equal(next(s, 5, &limits, 2), "");
}

/* Slots need not stand in order. */
static void test_slots(void **state)
{
    (void)state;
    struct sched_limits limits = {.batch = 64, .stages = 1, .flying = 2};
    struct sched_sequence s[2] = {{.slot = 9, .end = 1}, {.slot = 4, .end = 1}};
    assert_string_equal(next(s, 2, &limits, 0), "9:0+1(1) 4:0+1(1)");
    assert_string_equal(next(s, 2, &limits, 0), "");
    assert_string_equal(next(s, 0, &limits, 0), "");
}

/* Never more runs than a message holds. */
static void test_many(void **state)
{
    (void)state;
    static struct sched_sequence s[WIRE_RUNS_MAX + 10];
    static struct run runs[WIRE_RUNS_MAX];
    struct sched_limits limits = {.batch = 4096, .stages = 1, .flying = 2};
    uint32_t n = WIRE_RUNS_MAX + 10;
    for (uint32_t i = 0; i < n; i++)
        s[i] = (struct sched_sequence){.slot = i, .end = 1, .decoding = i % 2 == 0};
    assert_int_equal(scheduler_next(s, n, &limits, 0, runs), WIRE_RUNS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompt), cmocka_unit_test(test_all_logits),
        cmocka_unit_test(test_groups), cmocka_unit_test(test_slots),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
