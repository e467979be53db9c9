/* Second moments against sums in double, the same bits for any number of ranks and threads, and
 * nodes that are none. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/random.h"
#include "worker/curvature.h"
#include "worker/moments.h"

enum { SEED = 4711, WINDOW = 700 }; /* longer than what moments_add takes at a time */

static void *room(size_t count, size_t size)
{
    void *p = calloc(count, size);
    assert_non_null(p);
    return p;
}

struct text { /* windows of different lengths */
    uint32_t windows;
    int n;
    float *x, *t; /* [windows][WINDOW][n] */
};

static int text_rows(uint32_t w)
{
    return w % 3 == 1 ? WINDOW : 5 + (int)w;
}

static struct text make_text(uint32_t windows, int n)
{
    struct text text = {windows, n, NULL, NULL};
    size_t size = (size_t)windows * WINDOW * (size_t)n;
    random_state = SEED;
    text.x = room(size, sizeof(float));
    text.t = room(size, sizeof(float));
    for (size_t i = 0; i < size; i++) {
        text.x[i] = random_uniform();
        text.t[i] = text.x[i] + 0.1f * random_uniform();
    }
    return text;
}

static void free_text(struct text *text)
{
    free(text->x);
    free(text->t);
}

static struct moments *create(int n, bool cross, int threads)
{
    struct moments *m;
    struct error e = {0};
    assert_int_equal(moments_create(&m, n, n, cross, threads, &e), OK);
    return m;
}

/* The windows of lanes [first, end). */
static struct moments *sum_lanes(const struct text *text, int first, int end, bool cross,
                                 int threads)
{
    struct moments *m = create(text->n, cross, threads);
    struct error e = {0};
    for (uint32_t w = 0; w < text->windows; w++) {
        size_t start = (size_t)w * WINDOW * (size_t)text->n;
        int lane = moments_lane(w, text->windows);
        if (lane >= first && lane < end)
            assert_int_equal(moments_add(m, lane, text->x + start, cross ? text->t + start : NULL,
                                         text_rows(w), &e),
                             OK);
    }
    return m;
}

static struct moments_node merged(struct moments *m)
{
    struct moments_node nodes[MOMENT_NODES_MAX];
    struct error e = {0};
    assert_int_equal(moments_merge(m, &e), OK);
    assert_int_equal(moments_nodes(m, nodes), 1);
    assert_int_equal(nodes[0].first, 0);
    assert_int_equal(nodes[0].count, MOMENT_LANES);
    return nodes[0];
}

static void assert_same(const struct moments_node *a, const struct moments_node *b)
{
    size_t n = (size_t)a->n;
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->tokens, b->tokens);
    for (size_t i = 0; i < n; i++)
        assert_memory_equal(a->h + i * n + i, b->h + i * n + i, (n - i) * sizeof(float));
    assert_true((a->c == NULL) == (b->c == NULL));
    if (a->c)
        assert_memory_equal(a->c, b->c, n * n * sizeof(float));
}

struct part { /* of a node, on its way */
    int first, count;
    uint64_t tokens, offset, size;
    bool cross;
    const float *from;
};

/* Rows first to first + rows of a node; of h without what lies left of the diagonal of the first
 * row. */
static struct part cut(const struct moments_node *a, bool cross, size_t first, size_t rows)
{
    size_t n = (size_t)a->n, start = first * n + (cross ? 0 : first), end = (first + rows) * n;
    return (struct part){
        a->first, a->count, a->tokens, start, end - start, cross, (cross ? a->c : a->h) + start};
}

static size_t cut_all(const struct moments_node *a, struct part *out, size_t count)
{
    size_t n = (size_t)a->n, step = n / 3 + 1;
    for (int cross = 0; cross <= (a->c != NULL); cross++)
        for (size_t row = 0; row < n; row += step)
            out[count++] = cut(a, cross, row, row + step < n ? step : n - row);
    return count;
}

static void shuffle(struct part *parts, size_t count)
{
    for (size_t i = count; i > 1; i--) {
        size_t other = random_next() % i;
        struct part swap = parts[i - 1];
        parts[i - 1] = parts[other];
        parts[other] = swap;
    }
}

static void deliver(struct moments *m, const struct part *p)
{
    float *to;
    struct error e = {0};
    assert_int_equal(
        moments_receive(m, p->first, p->count, p->tokens, p->cross, p->offset, p->size, &to, &e),
        OK);
    memcpy(to, p->from, p->size * sizeof *to);
}

/* All ranks but the first hand their nodes over in small parts, mixed up. */
static void assert_ranks_agree(const struct text *text, bool cross, int ranks,
                               const struct moments_node *want)
{
    struct moments *m[MOMENT_LANES] = {NULL};
    struct part parts[MOMENT_LANES * MOMENT_NODES_MAX];
    size_t count = 0;
    for (int r = 0; r < ranks; r++) {
        struct moments_node nodes[MOMENT_NODES_MAX];
        m[r] = sum_lanes(text, moments_first_lane(r, ranks), moments_first_lane(r + 1, ranks),
                         cross, 1 + r % 2);
        int n = r > 0 ? moments_nodes(m[r], nodes) : 0;
        for (int i = 0; i < n; i++)
            count = cut_all(&nodes[i], parts, count);
    }
    shuffle(parts, count);
    for (size_t i = 0; i < count; i++)
        deliver(m[0], &parts[i]);
    struct moments_node got = merged(m[0]);
    assert_same(&got, want);
    for (int r = 0; r < ranks; r++)
        moments_free(m[r]);
}

static void test_ranks(void **state)
{
    (void)state;
    static const uint32_t windows[] = {1, 3, 10, 16, 37};
    for (size_t i = 0; i < sizeof windows / sizeof *windows; i++) {
        struct text text = make_text(windows[i], 21);
        bool cross = i % 2 == 0;
        struct moments *m = sum_lanes(&text, 0, MOMENT_LANES, cross, 1);
        struct moments_node want = merged(m);
        static const int ranks[] = {1, 2, 3, 5, 16};
        for (size_t r = 0; r < sizeof ranks / sizeof *ranks; r++)
            assert_ranks_agree(&text, cross, ranks[r], &want);
        moments_free(m);
        free_text(&text);
    }
}

/* Several tiles, so that threads have something to share. */
static void test_threads(void **state)
{
    (void)state;
    struct text text = make_text(2, 1100);
    struct moments *one = sum_lanes(&text, 0, MOMENT_LANES, true, 1);
    struct moments_node want = merged(one);
    for (int threads = 2; threads <= 5; threads += 3) {
        struct moments *m = sum_lanes(&text, 0, MOMENT_LANES, true, threads);
        struct moments_node got = merged(m);
        assert_same(&got, &want);
        moments_free(m);
    }
    moments_free(one);
    free_text(&text);
}

static void assert_near(double got, double want, double size)
{
    if (!(fabs(got - want) <= 1e-5 * size)) {
        print_error("%g instead of %g (elements up to %g)\n", got, want, size);
        fail();
    }
}

/* H and C element by element; the sums of squares tell the size of their terms. */
static void test_values(void **state)
{
    (void)state;
    static const int sizes[] = {1, 2, 5, 37, 300};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        int n = sizes[s];
        struct text text = make_text(5, n);
        struct moments *m = sum_lanes(&text, 0, MOMENT_LANES, true, 2);
        struct moments_node sum = merged(m);
        uint64_t tokens = 0;
        for (uint32_t w = 0; w < text.windows; w++)
            tokens += (uint64_t)text_rows(w);
        assert_int_equal(sum.tokens, tokens);
        for (int pair = 0; pair < 200; pair++) {
            size_t i = random_next() % (uint64_t)n, j = random_next() % (uint64_t)n;
            double h = 0, c = 0;
            for (uint32_t w = 0; w < text.windows; w++)
                for (int row = 0; row < text_rows(w); row++) {
                    size_t start = ((size_t)w * WINDOW + (size_t)row) * (size_t)n;
                    const float *x = text.x + start, *t = text.t + start;
                    h += (double)x[i] * (double)x[j];
                    c += ((double)t[i] - (double)x[i]) * (double)x[j];
                }
            assert_near(sum.h[(i < j ? i : j) * (size_t)n + (i < j ? j : i)], h, (double)tokens);
            assert_near(sum.c[i * (size_t)n + j], c, (double)tokens);
        }
        moments_free(m);
        free_text(&text);
    }
}

static void test_lanes(void **state)
{
    (void)state;
    for (uint32_t windows = 1; windows < 70; windows++) {
        int last = 0;
        for (uint32_t w = 0; w < windows; w++) {
            int lane = moments_lane(w, windows);
            assert_true(w >= moments_first_window(lane, windows));
            assert_true(w < moments_first_window(lane + 1, windows));
            assert_in_range(lane, last, MOMENT_LANES - 1);
            last = lane;
        }
        assert_true(moments_lane(0, windows) == 0);
    }
    assert_int_equal(moments_lane(UINT32_MAX - 1, UINT32_MAX), MOMENT_LANES - 1);
    for (int ranks = 1; ranks < 40; ranks++) {
        assert_int_equal(moments_first_lane(0, ranks), 0);
        assert_int_equal(moments_first_lane(ranks, ranks), MOMENT_LANES);
    }
}

static void test_order(void **state)
{
    (void)state;
    float x[2] = {1, 2};
    struct moments_node nodes[MOMENT_NODES_MAX];
    struct moments *m = create(2, false, 1);
    static const struct {
        int lane;
        bool fits;
    } adds[] = {{3, true}, {3, true}, {2, false}, {5, true}, {16, false}, {-1, false}};
    for (size_t i = 0; i < sizeof adds / sizeof *adds; i++) {
        struct error e = {0};
        enum status status = moments_add(m, adds[i].lane, x, NULL, 1, &e);
        assert_int_equal(status, adds[i].fits ? OK : ERR_LIMIT);
    }
    /* Lanes 3 and 5; 4 has been passed over. */
    assert_int_equal(moments_nodes(m, nodes), 2);
    assert_int_equal(nodes[1].first, 4);
    assert_int_equal(nodes[1].count, 2);
    struct error e = {0};
    assert_int_equal(moments_add(m, 5, x, NULL, 1, &e), ERR_LIMIT); /* closed */
    moments_free(m);
}

/* What another rank may not send, after it has sent some of node 4 + 4 and this rank has added
 * lane 0. */
static void test_refused(void **state)
{
    (void)state;
    static const struct {
        int first, count;
        uint64_t tokens, offset, size;
        bool cross;
        const char *why;
    } bad[] = {
        {0, 0, 1, 0, 1, false, "no node"},
        {3, 3, 1, 0, 1, false, "no node"},
        {2, 4, 1, 0, 1, false, "no node"},
        {16, 1, 1, 0, 1, false, "no node"},
        {-4, 4, 1, 0, 1, false, "no node"},
        {0, 32, 1, 0, 1, false, "no node"},
        {8, 8, UINT64_MAX, 0, 1, false, "no node"},
        {0, 1, 1, 0, 1, false, "there already"},
        {0, 2, 1, 0, 1, false, "there already"},
        {0, 16, 1, 0, 1, false, "there already"},
        {4, 2, 1, 0, 1, false, "there already"},
        {4, 4, 2, 4, 1, false, "different texts"},
        {4, 4, 1, 0, 2, false, "twice"},
        {8, 8, 1, 9, 1, false, "beyond"},
        {8, 8, 1, 0, 10, false, "beyond"},
        {8, 8, 1, 2, UINT64_MAX, false, "beyond"},
        {8, 8, 1, 0, 0, false, "beyond"},
        {8, 8, 1, 0, 1, true, "nobody asked"},
    };
    float x[3] = {1, 2, 3};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct moments *m = create(3, false, 1);
        struct error e = {0};
        float *to;
        assert_int_equal(moments_add(m, 0, x, NULL, 1, &e), OK);
        assert_int_equal(moments_receive(m, 4, 4, 1, false, 0, 8, &to, &e), OK);
        enum status status = moments_receive(m, bad[i].first, bad[i].count, bad[i].tokens,
                                             bad[i].cross, bad[i].offset, bad[i].size, &to, &e);
        assert_int_equal(status, ERR_PEER);
        assert_non_null(strstr(e.text, bad[i].why));
        struct error missing = {0};
        assert_int_equal(moments_merge(m, &missing), ERR_PEER); /* the last element of 4 + 4 */
        assert_non_null(strstr(missing.text, "4 + 4"));
        moments_free(m);
    }
    /* Part of a lane that this rank then passes over: not to be taken for zeros, nor for all of
     * it. */
    struct moments *passed = create(3, false, 1);
    struct error part = {0};
    float *to;
    assert_int_equal(moments_add(passed, 0, x, NULL, 1, &part), OK);
    assert_int_equal(moments_receive(passed, 1, 1, 1, false, 0, 8, &to, &part), OK);
    assert_int_equal(moments_add(passed, 2, x, NULL, 1, &part), OK);
    assert_int_equal(moments_merge(passed, &part), ERR_PEER);
    assert_non_null(strstr(part.text, "1 + 1"));
    moments_free(passed);
    struct moments *none = create(3, false, 1);
    struct error e = {0};
    assert_int_equal(moments_merge(none, &e), ERR_PEER);
    moments_free(none);
}

int main(void)
{
    printf("seed %d\n", SEED);
    curvature_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lanes), cmocka_unit_test(test_values),
        cmocka_unit_test(test_ranks), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_order), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
