/* plan_slices as text: blocks and head in, slices out, one case per line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/plan.h"

enum { MAX_BLOCKS = 64, MAX_RANKS = 16, SEED = 5, RANDOM_CASES = 3000 };

static const struct {
    const char *blocks; /* sizes */
    uint64_t head;
    uint32_t ranks;
    const char *plan; /* block counts of the ranks */
} cases[] = {
    {"10 10 10 10", 0, 1, "4"},
    {"10 10 10 10", 0, 2, "2 2"},
    {"10 10 10 10", 0, 3, "0 2 2"},
    {"10 10 10 10", 0, 4, "1 1 1 1"},
    {"10 10 10 10", 1, 4, "1 1 1 1"},
    {"10 10 10 10", 11, 4, "0 1 1 2"},
    {"10 10 10 10", 20, 3, "0 2 2"},
    {"10 10 10 10", 100, 4,
     "0 1 1 2"}, /* the head is the largest sum: the rest is even all the same */
    {"10 10 10 10 10 10 10 10 10", 500, 4, "0 3 3 3"},
    {"10 10 10 10 10 10 10 10", 10, 4, "0 2 3 3"},
    {"10 10 10 10 10 10 10 10 10 10", 0, 4, "1 3 3 3"},
    {"10 10 10", 0, 4, "0 1 1 1"},
    {"10 10 10", 0, 5, "0 1 1 1 0"},
    {"10 10 10", 0, 8, "0 1 1 1 0 0 0 0"},
    {"7", 0, 1, "1"},
    {"7", 3, 2, "0 1"},
    {"7", 3, 4, "0 1 0 0"},
    {"100 1 1 1 1", 0, 2, "1 4"},
    {"1 1 1 1 100", 0, 2, "4 1"},
    {"1 1 1 1 100", 0, 3, "0 4 1"},
    {"3 1 4 1 5 9 2 6", 0, 3, "4 2 2"},
    {"0 0 0", 0, 2, "0 3"},
    {"18446744073709551615", 0, 2, "0 1"},
};

static uint32_t parse(const char *text, uint64_t *out)
{
    uint32_t n = 0;
    for (char *end; *text; text = end)
        out[n++] = strtoull(text, &end, 10);
    return n;
}

static void test_table(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t blocks[MAX_BLOCKS];
        struct slice slices[MAX_RANKS];
        struct error e = {0};
        char got[200] = "";
        uint32_t n = parse(cases[i].blocks, blocks), next = 0;
        assert_int_equal(plan_slices(blocks, n, cases[i].head, cases[i].ranks, slices, &e), OK);
        for (uint32_t r = 0; r < cases[i].ranks; r++) {
            assert_int_equal(slices[r].first_block, next);
            next += slices[r].block_count;
            snprintf(got + strlen(got), sizeof got - strlen(got), r ? " %u" : "%u",
                     slices[r].block_count);
        }
        if (next != n || strcmp(got, cases[i].plan) != 0)
            fail_msg("blocks %s, head %llu: got \"%s\", want \"%s\"", cases[i].blocks,
                     (unsigned long long)cases[i].head, got, cases[i].plan);
    }
}

/* Smallest possible maximum by trying every cut: rank r and later share blocks [first, n). */
static uint64_t brute_force(const uint64_t *blocks, uint32_t first, uint32_t n, uint32_t r,
                            uint32_t ranks, uint64_t head)
{
    uint64_t sum = r == 0 ? head : 0, best = UINT64_MAX;
    for (uint32_t end = first;; end++) {
        if (r + 1 < ranks || end == n) {
            uint64_t rest = r + 1 < ranks ? brute_force(blocks, end, n, r + 1, ranks, head) : 0;
            uint64_t largest = rest > sum ? rest : sum;
            best = largest < best ? largest : best;
        }
        if (end == n)
            return best;
        sum += blocks[end];
    }
}

static void test_optimal(void **unused)
{
    (void)unused;
    print_message("seed %d\n", SEED);
    srand(SEED);
    for (int i = 0; i < RANDOM_CASES; i++) {
        uint64_t blocks[8], head = (uint64_t)(rand() % 40), largest = 0;
        struct slice slices[5];
        struct error e = {0};
        uint32_t n = 1 + (uint32_t)rand() % 8, ranks = 1 + (uint32_t)rand() % 5;
        for (uint32_t b = 0; b < n; b++)
            blocks[b] = (uint64_t)(rand() % 30);
        assert_int_equal(plan_slices(blocks, n, head, ranks, slices, &e), OK);
        for (uint32_t r = 0; r < ranks; r++) {
            uint64_t sum = r == 0 ? head : 0;
            for (uint32_t b = 0; b < slices[r].block_count; b++)
                sum += blocks[slices[r].first_block + b];
            largest = sum > largest ? sum : largest;
        }
        assert_int_equal(largest, brute_force(blocks, 0, n, 0, ranks, head));
    }
}

static void test_refused(void **unused)
{
    uint64_t blocks[] = {UINT64_MAX, 1};
    struct slice slices[2];
    struct error e = {0}, f = {0}, g = {0};
    (void)unused;
    assert_int_equal(plan_slices(blocks, 0, 0, 2, slices, &e), ERR_USAGE);
    assert_int_equal(plan_slices(blocks, 1, 0, 0, slices, &f), ERR_USAGE);
    assert_int_equal(plan_slices(blocks, 2, 0, 2, slices, &g), ERR_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_optimal),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
