/* Measures cases: scalar, then each level that has a kernel of its own, on one thread, and the best
 * level on all. Never knows what a case computes. */
#include "worker/bench_kernels.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/mem.h"
#include "common/read_speed.h"
#include "common/sysinfo.h"
#include "worker/affinity.h"
#include "worker/bench_case.h"

enum { MOST_LEVELS = 8, LEAST_RUNS = 3 };
#define FULL_SECONDS  0.02
#define QUICK_SECONDS 0.005
#define RUN_SECONDS   50e-6 /* of the calls between two looks at the clock */
#define READ_SECONDS  0.5
#define NOTICEABLE    0.03 /* share of the time */

struct bench {
    const struct bench_kernels *setup;
    const char *level[MOST_LEVELS]; /* scalar first */
    int n_levels;
    double read_one, read_all; /* bytes/s */
    json_t *rows;
    char op[24]; /* of the case before: a new one gets an empty line */
    int compared;
};

struct result {
    double seconds; /* of a whole run */
    bool measured;  /* false: this level has no kernel of its own */
};

/* Of one thread the processor time, so that other programs on the machine disturb less. */
static double clock_now(int threads)
{
    struct timespec t;
    clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct timing {
    const struct bench_case *c;
    const struct bench_part *part;
    int threads;
    double least; /* seconds altogether */
    double begin, spent, best;
    int calls, runs; /* calls between two looks at the clock; how often that was done */
    bool over;
};

static void restore(const struct bench_case *c)
{
    if (c->original)
        memcpy(c->result, c->original, c->original_bytes);
}

static void start_run(struct timing *t)
{
    restore(t->c);
    t->begin = clock_now(t->threads);
}

/* The first run tells how many calls make one that the clock can measure. */
static void end_run(struct timing *t)
{
    double seconds = clock_now(t->threads) - t->begin, each = seconds / t->calls;
    t->spent += seconds;
    t->runs++;
    if (each > 0) /* a coarse clock may not have moved */
        t->best = each < t->best ? each : t->best;
    if (!t->c->original && seconds < RUN_SECONDS)
        t->calls = each > 0 ? 1 + (int)(RUN_SECONDS / each) : 2 * t->calls;
    t->over = t->spent >= (t->runs < LEAST_RUNS ? 10 * t->least : t->least);
}

static void run_timed(struct timing *t)
{
    while (!t->over) {
#pragma omp master
        start_run(t);
#pragma omp barrier
        for (int i = 0, calls = t->calls; i < calls; i++) /* which end_run changes */
            t->c->run(t->c, t->part);
#pragma omp master
        end_run(t);
#pragma omp barrier
    }
}

/* Seconds of one call, the best of several. */
static double measure(const struct bench *b, const struct bench_case *c,
                      const struct bench_part *part, int threads)
{
    struct timing t = {.c = c, .part = part, .threads = threads, .calls = 1, .best = 1e30};
    t.least = b->setup->quick ? QUICK_SECONDS : FULL_SECONDS;
#pragma omp parallel num_threads(threads)
    run_timed(&t);
    return t.best;
}

/* What is compared, packed. */
static void copy_result(const struct bench_case *c, char *out)
{
    for (size_t r = 0; r < c->check_rows; r++)
        memcpy(out + r * c->check_bytes, (const char *)c->result + r * c->result_stride,
               c->check_bytes);
}

static enum status check(struct bench *b, const struct bench_case *c, const char *level,
                         const char *want, char *got, struct error *e)
{
    restore(c);
    c->run(c, NULL);
    copy_result(c, got);
    b->compared++;
    FAIL_IF(memcmp(want, got, c->check_rows * c->check_bytes) != 0, e, ERR_FORMAT,
            "the result of %s %s, %s, at level %s differs from the scalar one: this program is "
            "broken or was not compiled for this CPU; run its kernel tests",
            c->op, c->kind, c->shape, level);
    return OK;
}

/* Fills results[level]; results[0] is scalar's, reckoned from the part that was timed. */
static enum status measure_levels(struct bench *b, const struct bench_case *c, char *want,
                                  char *got, struct result *results, struct error *e)
{
    bench_function *before = NULL;
    for (int i = 0; i < b->n_levels; i++) {
        kernels_init(b->level[i]);
        bench_function *mine = c->kernel(c);
        results[i].measured = mine != before;
        if (mine == before) {
            results[i].seconds = results[i - 1].seconds;
            continue;
        }
        before = mine;
        restore(c);
        c->run(c, i == 0 ? &c->compared : NULL);
        if (i == 0)
            copy_result(c, want);
        else
            TRY(check(b, c, b->level[i], want, got, e));
        double seconds = measure(b, c, i == 0 ? &c->timed : NULL, 1);
        results[i].seconds = i == 0 ? seconds / c->timed_share : seconds;
    }
    return OK;
}

/* The report */

static void print_header(const struct bench *b)
{
    printf("reading memory: %.1f GB/s by one thread", b->read_one / 1e9);
    if (b->setup->threads > 1)
        printf(", %.1f GB/s by %u", b->read_all / 1e9, b->setup->threads);
    printf(
        "\nG/s: thousand million weights x tokens, or elements, a second on one thread; = is the "
        "level before it\nof read: bytes of weights, or of keys and values, against that "
        "reading; over 100 %% they come from caches\n\n");
    printf("%-9s %-11s %-14s %4s |", "operation", "", "shape", "rows");
    for (int i = 0; i < b->n_levels; i++)
        printf(" %10s", b->level[i]);
    printf(" |       us   GB/s of read x scalar");
    if (b->setup->threads > 1)
        printf(" | %2u threads   GB/s of read  x one", b->setup->threads);
    putchar('\n');
}

/* "12.3  45 %", or blanks. */
static void print_reading(double bytes, double seconds, double limit)
{
    if (bytes > 0)
        printf(" %6.1f %5.0f %%", bytes / seconds / 1e9, 100 * bytes / seconds / limit);
    else
        printf(" %6s %7s", "", "");
}

static void print_case(struct bench *b, const struct bench_case *c, const struct result *results,
                       double all)
{
    double best = results[b->n_levels - 1].seconds;
    if (b->op[0] && strcmp(b->op, c->op))
        putchar('\n');
    memcpy(b->op, c->op, sizeof b->op);
    printf("%-9s %-11s %-14s %4d |", c->op, c->kind, c->shape, c->rows);
    for (int i = 0; i < b->n_levels; i++) {
        if (results[i].measured)
            printf(" %10.2f", c->work / results[i].seconds / 1e9);
        else
            printf(" %10s", "=");
    }
    printf(" | %8.1f", best * 1e6);
    print_reading(c->bytes, best, b->read_one);
    printf(" %8.1f", results[0].seconds / best);
    if (all > 0) {
        printf(" | %10.2f", c->work / all / 1e9);
        print_reading(c->bytes, all, b->read_all);
        printf(" %6.2f", best / all);
    }
    putchar('\n');
    fflush(stdout);
}

static enum status add_row(struct bench *b, const struct bench_case *c, const char *level,
                           uint32_t threads, double seconds, double scalar, double one,
                           struct error *e)
{
    double limit = threads > 1 ? b->read_all : b->read_one;
    json_t *row =
        json_pack("{s:s, s:s, s:s, s:i, s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f}", "operation",
                  c->op, "kind", c->kind, "shape", c->shape, "rows", c->rows, "variant", level,
                  "threads", (int)threads, "seconds", seconds, "per_s", c->work / seconds,
                  "bytes_per_s", c->bytes / seconds, "read_share", c->bytes / seconds / limit,
                  "x_scalar", scalar / seconds, "x_one_thread", one / seconds);
    FAIL_IF(json_array_append_new(b->rows, row) != 0, e, ERR_MEMORY, "out of memory: the report");
    return OK;
}

static enum status report_case(struct bench *b, const struct bench_case *c,
                               const struct result *results, double all, struct error *e)
{
    int last = b->n_levels - 1;
    double scalar = results[0].seconds;
    print_case(b, c, results, all);
    for (int i = 0; i <= last; i++)
        if (results[i].measured)
            TRY(add_row(b, c, b->level[i], 1, results[i].seconds, scalar, results[i].seconds, e));
    return all > 0 ? add_row(b, c, b->level[last], b->setup->threads, all, scalar,
                             results[last].seconds, e)
                   : OK;
}

static enum status visit_with(struct bench *b, const struct bench_case *c, char *want, char *got,
                              struct error *e)
{
    struct result results[MOST_LEVELS] = {0};
    int threads = (int)b->setup->threads;
    TRY(measure_levels(b, c, want, got, results, e));
    kernels_init(b->level[b->n_levels - 1]);
    return report_case(b, c, results, threads > 1 ? measure(b, c, NULL, threads) : 0, e);
}

static enum status visit(void *self, const struct bench_case *c, struct error *e)
{
    char *want = NULL, *got = NULL;
    enum status status = mem_array(&want, c->check_rows, c->check_bytes, "results", e);
    if (status == OK)
        status = mem_array(&got, c->check_rows, c->check_bytes, "results", e);
    if (status == OK)
        status = visit_with(self, c, want, got, e);
    free(want);
    free(got);
    return status;
}

/* Scalar and what lies between it and the level in use, or only the one asked for. */
static enum status choose_levels(struct bench *b, const char *best, struct error *e)
{
    const char *only = b->setup->cpu ? b->setup->cpu : b->setup->quick ? best : NULL;
    bool found = !only;
    for (const char *const *level = kernels_levels(); *level; level++) {
        bool wanted = !only || !strcmp(*level, only) || b->n_levels == 0;
        found = found || !strcmp(*level, only);
        if (wanted && b->n_levels < MOST_LEVELS)
            b->level[b->n_levels++] = *level;
        if (!strcmp(*level, best))
            break;
    }
    FAIL_IF(!found, e, ERR_USAGE,
            "--cpu %s is no level that can be used here: sbit --version lists them", only);
    return OK;
}

static enum status run_all(struct bench *b, struct error *e)
{
    const struct bench_kernels *s = b->setup;
    affinity_widen((int)s->threads);
    omp_set_num_threads((int)s->threads);
    TRY(read_speed(1, READ_SECONDS, &b->read_one, e));
    TRY(read_speed(s->threads, READ_SECONDS, &b->read_all, e));
    double started = clock_now(2), waited = sysinfo_waited();
    print_header(b);
    TRY(bench_products(s->type, s->quick, visit, b, e));
    if (!s->type)
        TRY(bench_operations(s->quick, visit, b, e));
    printf("\n%d results of other levels were compared with the scalar ones: all are the same, bit "
           "for bit\n",
           b->compared);
    double share = (sysinfo_waited() - waited) / (clock_now(2) - started);
    if (share > NOTICEABLE)
        printf("other programs had the processor for %.0f %% of the time: what %u threads reach is "
               "too low\n",
               100 * share, s->threads);
    return OK;
}

enum status bench_kernels(const struct bench_kernels *setup, json_t **report, struct error *e)
{
    struct bench b = {.setup = setup, .rows = json_array()};
    const char *best = kernels.variant;
    enum status status = choose_levels(&b, best, e);
    if (status == OK)
        status = run_all(&b, e);
    kernels_init(best);
    if (status != OK) {
        json_decref(b.rows);
        return status;
    }
    *report = json_pack("{s:s, s:i, s:f, s:f, s:i, s:o}", "cpu", b.level[b.n_levels - 1], "threads",
                        (int)setup->threads, "read_bandwidth_one_thread", b.read_one,
                        "read_bandwidth", b.read_all, "compared", b.compared, "rows", b.rows);
    FAIL_IF(!*report, e, ERR_MEMORY, "out of memory: the report");
    return OK;
}
