/* The estimate before a compression: operations as its header counts them, and times that follow from what was
 * measured. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/compress_estimate.h"

/* Two blocks of one matrix each, 32 x 64; 64 hidden, 4 heads of 8, 128 wide. */
static struct weights source = {
    .config = {.block_count = 2, .hidden = 64, .heads = 4, .head_dim = 8, .ffn = 128}};
static struct plan_unit units[2] = {{.kind = KIND_Q, .block = 0, .rows = 32, .cols = 64},
                                    {.kind = KIND_Q, .block = 1, .rows = 32, .cols = 64}};
static struct plan_totals totals = {.matrix_weights = 2 * 32 * 64};

static struct estimate_job job_of(const struct recipe *r, uint32_t ranks)
{
    return (struct estimate_job){.source = &source,
                                 .units = units,
                                 .n = 2,
                                 .totals = &totals,
                                 .recipe = r,
                                 .tokens = 1600,
                                 .context = 100,
                                 .ranks = ranks};
}

static const struct estimate_part *find(const struct estimate_part part[ESTIMATE_PARTS],
                                        const char *name)
{
    for (int i = 0; i < ESTIMATE_PARTS; i++)
        if (part[i].name && strncmp(part[i].name, name, strlen(name)) == 0)
            return &part[i];
    return NULL;
}

static void near(double a, double b)
{
    if (!(fabs(a - b) <= 1e-9 * fabs(b)))
        fail_msg("%.17g is not %.17g", a, b);
}

static void test_operations(void **state)
{
    const struct recipe r = {.qep = 0.5, .feedback = true, .rounds = 2, .descent = 2, .joint = 1};
    struct estimate_part part[ESTIMATE_PARTS];
    struct estimate_job job = job_of(&r, 1);
    double square = 2 * 64 * 64 + 32 * 32 + 128 * 128;
    double cube = 2 * 64 * 64 * 64 + 32 * 32 * 32 + 128.0 * 128 * 128;
    (void)state;
    estimate_parts(&job, NULL, part);
    near(find(part, "forward")->flops, 2 * 1600 * 2 * (2.0 * 32 * 64 + 2.0 * 4 * 8 * 100));
    near(find(part, "second")->flops, 1600 * 2 * 3 * square);
    near(find(part, "factor")->flops, 2 * cube * 11 / 3);
    near(find(part, "search")->flops,
         2 * 32 * 64 * (256.0 * (2 + 9 + 2 + 8) + 64 * 2 + 2 * 64 * 4));
    assert_null(find(part, "measuring"));
    assert_null(find(part, "distillation"));
    assert_true(find(part, "search")->seconds == 0);
}

/* Moments in blocks: everything that grows with the square of the columns grows with a block's. */
static void test_blocked(void **state)
{
    const struct recipe r = {.qep = 0.5, .feedback = true, .rounds = 1};
    struct estimate_part full[ESTIMATE_PARTS], blocked[ESTIMATE_PARTS];
    static struct weights wide = {
        .config = {.block_count = 2, .hidden = 1024, .heads = 4, .head_dim = 256, .ffn = 4096}};
    struct estimate_job job = job_of(&r, 1);
    (void)state;
    job.source = &wide;
    estimate_parts(&job, NULL, full);
    job.moment_floats = 1024 * 1024;
    estimate_parts(&job, NULL, blocked);
    double square = 3.0 * 1024 * 1024, cube = square * 1024;
    near(find(full, "second")->flops, 1600 * 2 * 3 * (square + 4096.0 * 4096));
    near(find(blocked, "second")->flops, 1600 * 2 * 3 * (square + 4096.0 * 256));
    near(find(blocked, "factor")->flops, 2 * (cube + 4096.0 * 256 * 256) * 11 / 3);
    near(find(blocked, "search")->flops, find(full, "search")->flops); /* 64 columns stay whole */
}

static void test_times(void **state)
{
    const struct recipe r = {.rounds = 1, .distill = 2};
    const struct msg_probed slow = {0.5, 0.25, 3, 0.125};
    struct estimate_part one[ESTIMATE_PARTS], four[ESTIMATE_PARTS], three[ESTIMATE_PARTS];
    struct estimate_job job = job_of(&r, 1);
    (void)state;
    estimate_parts(&job, &slow, one);
    near(find(one, "forward")->seconds, 2 * 1600 * 2 * 0.5);
    near(find(one, "second")->seconds, 1600 * 2 * 0.25);
    near(find(one, "search")->seconds, 2 * 32 * 0.125);
    near(find(one, "distillation")->seconds, 2 * 1600 * 2 * 4 * 0.5);
    job.ranks = 4;
    estimate_parts(&job, &slow, four);
    near(find(four, "forward")->seconds, find(one, "forward")->seconds / 4);
    near(find(four, "search")->seconds, find(one, "search")->seconds / 4);
    near(find(four, "factor")->seconds, find(one, "factor")->seconds); /* each rank does it */
    job.ranks = 3; /* 16 lanes: one rank has 6 */
    estimate_parts(&job, &slow, three);
    near(find(three, "forward")->seconds, find(one, "forward")->seconds * 6 / 16);
    job.measure = true;
    estimate_parts(&job, &slow, three);
    assert_true(find(three, "measuring")->seconds > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operations),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_blocked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
