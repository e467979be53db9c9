/* Moments in blocks of columns and the curvature from them: each block has the bits that its
 * columns would have alone, nothing else exists, and blocks travel between ranks as full moments
 * do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/codebook.h"
#include "worker/curvature.h"
#include "worker/search_blocks.h"
#include "worker/search_code.h"

#define SEED 31337u

enum { N = 700, ROWS = 1500, WINDOW = 300, RANKS = 3 };

static uint64_t random_state = SEED;

static float uniform(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(random_state >> 32) / 2147483648.0f;
}

struct text {
    float *x, *t; /* [ROWS][n] */
    int n;
};

static struct text make_text(int n)
{
    struct text text = {calloc((size_t)(ROWS * n), sizeof(float)),
                        calloc((size_t)(ROWS * n), sizeof(float)), n};
    assert_true(text.x && text.t);
    for (int i = 0; i < ROWS * n; i++) {
        text.x[i] = uniform() * (i % n % 5 ? 1 : 4);
        text.t[i] = text.x[i] + 0.1f * uniform();
    }
    return text;
}

/* Some columns of it. */
static struct text columns(const struct text *all, int first, int n)
{
    struct text text = {calloc((size_t)(ROWS * n), sizeof(float)),
                        calloc((size_t)(ROWS * n), sizeof(float)), n};
    assert_true(text.x && text.t);
    for (int r = 0; r < ROWS; r++) {
        memcpy(text.x + r * n, all->x + r * all->n + first, (size_t)n * sizeof(float));
        memcpy(text.t + r * n, all->t + r * all->n + first, (size_t)n * sizeof(float));
    }
    return text;
}

static void free_text(struct text *text)
{
    free(text->x);
    free(text->t);
}

/* Of the windows in lanes [first, end). */
static struct moments *sum(const struct text *text, int width, int first, int end)
{
    struct moments *m;
    struct error e = {0};
    assert_int_equal(moments_create(&m, text->n, width, true, 2, &e), OK);
    for (uint32_t w = 0; w < ROWS / WINDOW; w++) {
        size_t start = (size_t)w * WINDOW * (size_t)text->n;
        int lane = moments_lane(w, ROWS / WINDOW);
        if (lane >= first && lane < end)
            assert_int_equal(moments_add(m, lane, text->x + start, text->t + start, WINDOW, &e),
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
    return nodes[0];
}

static struct curvature *curvature(const struct moments_node *node)
{
    struct curvature *k = NULL;
    struct error e = {0};
    assert_int_equal(curvature_create(&k, node, 0.05, 0, true, 2, "blk.0.ffn_down", &e), OK);
    return k;
}

static float *correction(const struct moments_node *node)
{
    float *p = NULL;
    struct error e = {0};
    assert_int_equal(curvature_qep(&p, node, 0.75, 0, 2, "blk.0.ffn_down", &e), OK);
    return p;
}

/* Rows of an image [n][n]: the block alone, zeros beside it. */
static void check_image(const float *image, int n, const float *block, int first, int order)
{
    for (int i = 0; i < order; i++) {
        const float *row = image + (size_t)(first + i) * (size_t)n;
        for (int j = 0; j < n; j++) {
            bool inside = j >= first && j < first + order;
            float want = inside ? block[i * order + j - first] : 0;
            if (row[j] != want)
                fail_msg("row %d, column %d: %g instead of %g", first + i, j, (double)row[j],
                         (double)want);
        }
    }
}

static void check_upper(const float *got, const float *want, int order)
{
    for (int i = 0; i < order; i++)
        assert_memory_equal(got + i * order + i, want + i * order + i,
                            (size_t)(order - i) * sizeof *got);
}

static void check_block(const struct text *text, const struct moments_node *all, int block)
{
    struct diagonal shape = {all->n, all->width};
    int first = block * shape.width, order = diagonal_order(shape, block);
    size_t start = diagonal_start(shape, block), floats = (size_t)order * (size_t)order;
    struct text own = columns(text, first, order);
    struct moments *m = sum(&own, order, 0, MOMENT_LANES);
    struct moments_node node = merged(m);
    check_upper(all->h + start, node.h, order);
    assert_memory_equal(all->c + start, node.c, floats * sizeof *node.c);
    struct curvature *k = curvature(all), *alone = curvature(&node);
    float *p = correction(all), *p_alone = correction(&node), *scale = calloc(N, sizeof *scale);
    for (int round = 0; round < 2; round++) {
        check_image(k->h, k->n, alone->h, first, order);
        check_image(k->u, k->n, alone->u, first, order);
        for (int i = 0; i < shape.n; i++)
            scale[i] = i % 3 ? 2 : 0.25f;
        curvature_scale(k, scale);
        curvature_scale(alone, scale + first);
    }
    assert_memory_equal(p + start, p_alone, floats * sizeof *p);
    free(scale);
    free(p);
    free(p_alone);
    curvature_free(k);
    curvature_free(alone);
    moments_free(m);
    free_text(&own);
}

static void blocks_are_as_alone(void **state)
{
    static const int widths[] = {256, 512, 350};
    (void)state;
    struct text text = make_text(N);
    for (int i = 0; i < 3; i++) {
        struct moments *m = sum(&text, widths[i], 0, MOMENT_LANES);
        struct moments_node node = merged(m);
        struct diagonal shape = {N, widths[i]};
        assert_int_equal(node.width, widths[i]);
        assert_int_equal(diagonal_row(shape, N), diagonal_floats(shape));
        for (int b = 0; b < diagonal_blocks(shape); b++)
            check_block(&text, &node, b);
        moments_free(m);
    }
    free_text(&text);
}

/* Copies a node to another rank, some rows at a time, of h the upper triangle. */
static void pass_on(const struct moments_node *node, struct moments *to)
{
    struct diagonal d = {node->n, node->width};
    struct error e = {0};
    for (int cross = 0; cross < 2; cross++)
        for (int row = 0, end; row < d.n; row = end) {
            float *place;
            end = row + 97 < d.n ? row + 97 : d.n;
            size_t first = diagonal_row(d, row), size = diagonal_row(d, end) - first;
            assert_int_equal(moments_receive(to, node->first, node->count, node->tokens, cross,
                                             first, size, &place, &e),
                             OK);
            memcpy(place, (cross ? node->c : node->h) + first, size * sizeof *place);
        }
}

static void blocks_travel(void **state)
{
    (void)state;
    struct text text = make_text(N);
    struct moments *one = sum(&text, 256, 0, MOMENT_LANES), *ranks[RANKS];
    struct moments_node want = merged(one), nodes[MOMENT_NODES_MAX];
    for (int r = 0; r < RANKS; r++)
        ranks[r] = sum(&text, 256, moments_first_lane(r, RANKS), moments_first_lane(r + 1, RANKS));
    for (int r = 1; r < RANKS; r++)
        for (int i = 0, n = moments_nodes(ranks[r], nodes); i < n; i++)
            pass_on(&nodes[i], ranks[0]);
    struct moments_node got = merged(ranks[0]);
    struct diagonal shape = {N, 256};
    assert_int_equal(got.tokens, want.tokens);
    for (int b = 0; b < diagonal_blocks(shape); b++)
        check_upper(got.h + diagonal_start(shape, b), want.h + diagonal_start(shape, b),
                    diagonal_order(shape, b));
    assert_memory_equal(got.c, want.c, diagonal_floats(shape) * sizeof *got.c);
    moments_drop_cross(ranks[0]);
    assert_int_equal(moments_nodes(ranks[0], nodes), 1);
    assert_null(nodes[0].c);
    for (int r = 0; r < RANKS; r++)
        moments_free(ranks[r]);
    moments_free(one);
    free_text(&text);
}

/* y += x P, block by block. */
static void corrections_apply_by_blocks(void **state)
{
    enum { SMALL = 10, WIDTH = 4 };
    struct diagonal shape = {SMALL, WIDTH};
    float p[WIDTH * WIDTH * 2 + 4], x[2 * SMALL], y[2 * SMALL];
    (void)state;
    assert_int_equal(diagonal_floats(shape), sizeof p / sizeof *p);
    for (size_t i = 0; i < sizeof p / sizeof *p; i++)
        p[i] = (float)(i % 7) - 2;
    for (int i = 0; i < 2 * SMALL; i++) {
        x[i] = (float)(i % 5);
        y[i] = (float)i;
    }
    curvature_apply(p, shape, x, 2, y);
    for (int i = 0; i < 2 * SMALL; i++) {
        int row = i / SMALL, column = i % SMALL, block = column / WIDTH;
        int order = diagonal_order(shape, block);
        double want = i;
        for (int j = 0; j < order; j++)
            want += (double)x[row * SMALL + block * WIDTH + j] *
                    p[(int)diagonal_start(shape, block) + j * order + column % WIDTH];
        assert_true(y[i] == (float)want);
    }
}

enum { WIDE = 704, BAND = 64 };

/* Bytes of a band searched under k, and what it loses. */
static double search(const struct curvature *k, bool codes, const float *target, uint8_t *out)
{
    struct code_search *code = NULL;
    struct block_search *blocks = NULL;
    struct band_loss loss;
    struct recipe recipe;
    struct error e = {0};
    uint16_t scale[BAND];
    assert_int_equal(recipe_parse(&recipe, NULL, &e), OK);
    assert_int_equal(codes ? code_search_create(&code, codebook_for(4), k, &recipe, &e)
                           : block_search_create(&blocks, DTYPE_Q4_0, k, &recipe, &e),
                     OK);
    size_t floats = codes ? code_search_scratch(code) : block_search_scratch(blocks);
    float *scratch = calloc(floats, sizeof *scratch);
    assert_non_null(scratch);
    assert_true(codes ? code_search_band(code, target, BAND, scratch, out, scale, &loss)
                      : block_search_band(blocks, target, BAND, scratch, out, &loss));
    free(scratch);
    code_search_free(code);
    block_search_free(blocks);
    return loss.final / loss.signal;
}

/* A search that knows of the blocks leaves out what one that does not adds up as zeros: the same but for the order
 * of sums. */
static void searches_leave_zeros_out(void **state)
{
    static const int widths[] = {256, 300, 512};
    static uint8_t got[BAND * WIDE], want[BAND * WIDE];
    static float target[BAND * WIDE];
    (void)state;
    struct text text = make_text(WIDE);
    for (int i = 0; i < BAND * WIDE; i++)
        target[i] = uniform();
    for (int i = 0; i < 6; i++) {
        bool codes = i % 2;
        struct moments *m = sum(&text, widths[i / 2], 0, MOMENT_LANES);
        struct moments_node node = merged(m);
        struct curvature *k = curvature(&node), whole = *k;
        whole.width = WIDE;
        double loss = search(k, codes, target, got), other = search(&whole, codes, target, want);
        int same = 0;
        for (int j = 0; j < BAND * WIDE; j++)
            same += got[j] == want[j];
        printf("blocks of %d: relative loss %.6f, knowing nothing of them %.6f, %d of %d bytes "
               "alike\n",
               widths[i / 2], loss, other, same, BAND * WIDE);
        assert_true(loss < 1.001 * other && other < 1.001 * loss && loss < 0.2);
        assert_true(same > 0.98 * BAND * WIDE);
        curvature_free(k);
        moments_free(m);
    }
    free_text(&text);
}

int main(void)
{
    printf("seed %u\n", SEED);
    curvature_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_as_alone),
        cmocka_unit_test(blocks_travel),
        cmocka_unit_test(corrections_apply_by_blocks),
        cmocka_unit_test(searches_leave_zeros_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
