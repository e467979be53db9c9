/* One block: the same bits for any number of threads, rows at once and rows alone, the block at once
 * and step by step, with every shape of groups and both types of cache. The matrices are large enough
 * for all threads to take part in a single row. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/mem.h"
#include "worker/layer.h"

enum { ROWS = 9, SEQUENCES = 2, CONTEXT = 16, HIDDEN = 320, FFN = 1000, DIM = 40 };

struct block {
    struct model_config config;
    struct block_weights weights;
    void *owned[32];
    int n_owned;
};

static void *keep(struct block *b, size_t count, size_t size)
{
    struct error e = {0};
    void *p;
    if (mem_array(&p, count, size, "test", &e) != OK)
        fail_msg("%s", e.text);
    return b->owned[b->n_owned++] = p;
}

static float next(void)
{
    static uint32_t state = 7;
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) * 0x1p-24f - 0.5f;
}

static float *vector(struct block *b, size_t n, float mean)
{
    float *x = keep(b, n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = mean + next();
    return x;
}

static struct product product_of(struct block *b, int count, const uint32_t *rows, uint32_t cols)
{
    struct product p = {.count = count};
    for (int i = 0; i < count; i++) {
        float *w = vector(b, (size_t)rows[i] * cols, 0);
        uint16_t *half = keep(b, (size_t)rows[i] * cols, sizeof *half);
        for (size_t j = 0; j < (size_t)rows[i] * cols; j++)
            w[j] *= 0.2f;
        kernels.to_f16(half, w, (int)(rows[i] * cols));
        p.m[i] = (struct matrix){
            .type = MATRIX_F16, .rows = (int)rows[i], .cols = (int)cols, .data = half};
    }
    product_plan(&p);
    return p;
}

static void block_make(struct block *b, uint32_t heads, uint32_t kv_heads, bool extras)
{
    memset(b, 0, sizeof *b);
    b->config = (struct model_config){.hidden = HIDDEN,
                                      .ffn = FFN,
                                      .heads = heads,
                                      .kv_heads = kv_heads,
                                      .head_dim = DIM,
                                      .rope_dim = DIM,
                                      .rms_eps = 1e-5f,
                                      .sliding_window = extras ? 5 : 0};
    struct block_weights *w = &b->weights;
    const uint32_t q = heads * DIM, kv = kv_heads * DIM;
    w->qkv = product_of(b, 3, (uint32_t[]){q, kv, kv}, HIDDEN);
    w->o = product_of(b, 1, (uint32_t[]){HIDDEN}, q);
    w->gate_up = product_of(b, 2, (uint32_t[]){FFN, FFN}, HIDDEN);
    w->down = product_of(b, 1, (uint32_t[]){HIDDEN}, FFN);
    w->attn_norm = vector(b, HIDDEN, 1);
    w->ffn_norm = vector(b, HIDDEN, 1);
    if (extras) {
        w->q_bias = vector(b, q, 0);
        w->k_bias = vector(b, kv, 0);
        w->v_bias = vector(b, kv, 0);
        w->q_norm = vector(b, DIM, 1);
        w->k_norm = vector(b, DIM, 1);
    }
}

static void block_free(struct block *b)
{
    for (int i = 0; i < b->n_owned; i++)
        free(b->owned[i]);
}

/* Row i of all belongs to sequence i % 2. */
static void fill_row(struct scratch *s, int r, int i, const float *x)
{
    memcpy(s->x + r * HIDDEN, x + i * HIDDEN, HIDDEN * sizeof *x);
    s->row[r] = (struct row){(uint32_t)(i % SEQUENCES), (uint32_t)(i / SEQUENCES)};
    for (int j = 0; j < DIM / 2; j++) {
        s->cosine[r * DIM / 2 + j] = 0.8f;
        s->sine[r * DIM / 2 + j] = i % 3 ? 0.6f : -0.6f;
    }
}

/* The block at once, or its steps one after the other, with nothing left in between but what they say
 * that they pass on. */
static void forward(const struct layer *l, struct scratch *s, bool steps)
{
    size_t rows = (size_t)s->rows;
    if (!steps) {
        layer_forward(l, s);
        return;
    }
    for (int step = 0; step < LAYER_STEPS; step++) {
        layer_step(l, (enum layer_step)step, s);
        memset(s->normed, 0xff, rows * HIDDEN * sizeof(float));
        memset(s->delta, 0xff, rows * HIDDEN * sizeof(float));
        memset(s->q, 0xff, rows * l->config->heads * DIM * sizeof(float));
        memset(s->up, 0xff, rows * FFN * sizeof(float));
    }
}

/* out[ROWS][HIDDEN]: the rows x through the block, at most `together` at a time. */
static void run(const struct block *b, enum kv_type type, bool steps, uint32_t threads,
                int together, const float *x, float *out)
{
    struct kvcache cache;
    struct scratch s;
    struct error e = {0};
    size_t room[PRODUCT_MAX] = {0};
    const struct block_weights *w = &b->weights;
    product_room(&w->qkv, room);
    product_room(&w->o, room);
    product_room(&w->gate_up, room);
    product_room(&w->down, room);
    if (kvcache_create(&cache, type, 1, SEQUENCES, b->config.kv_heads, CONTEXT, DIM, &e) != OK ||
        scratch_create(&s, &b->config, ROWS, threads, CONTEXT, room, &e) != OK)
        fail_msg("%s", e.text);
    const struct layer layer = {&b->config, w, &cache, 0};
    for (int first = 0; first < ROWS; first += together) {
        s.rows = ROWS - first < together ? ROWS - first : together;
        for (int r = 0; r < s.rows; r++)
            fill_row(&s, r, first + r, x);
        forward(&layer, &s, steps);
        memcpy(out + first * HIDDEN, s.x, (size_t)(s.rows * HIDDEN) * sizeof *out);
    }
    scratch_free(&s);
    kvcache_free(&cache);
}

static void same_bits(void **state)
{
    (void)state;
    static const uint32_t heads[][2] = {{8, 2}, {6, 1}, {9, 3}, {5, 5}};
    static const uint32_t threads[] = {1, 2, 3, 7, 12};
    static const int together[] = {1, 2, 4, ROWS};
    static float x[ROWS * HIDDEN], want[ROWS * HIDDEN], got[ROWS * HIDDEN];
    for (int i = 0; i < ROWS * HIDDEN; i++)
        x[i] = next();
    for (size_t h = 0; h < sizeof heads / sizeof *heads; h++) {
        struct block b;
        block_make(&b, heads[h][0], heads[h][1], h % 2);
        for (int type = KV_F16; type <= KV_Q8; type++) {
            run(&b, (enum kv_type)type, false, 1, 1, x, want);
            for (size_t i = 0; i < 2 * 5 * 4; i++) {
                uint32_t n = threads[i / 4 % 5];
                run(&b, (enum kv_type)type, i >= 5 * 4, n, together[i % 4], x, got);
                if (memcmp(want, got, sizeof want) != 0)
                    fail_msg("%u heads on %u, cache %d, %u threads, %d rows at a time, steps %d",
                             heads[h][0], heads[h][1], type, n, together[i % 4], i >= 5 * 4);
            }
        }
        block_free(&b);
    }
}

/* The two types of cache are close to each other, and not the same. */
static void types_differ_little(void **state)
{
    (void)state;
    static float x[ROWS * HIDDEN], half[ROWS * HIDDEN], bytes[ROWS * HIDDEN];
    float most = 0, distance = 0;
    struct block b;
    for (int i = 0; i < ROWS * HIDDEN; i++)
        x[i] = next();
    block_make(&b, 8, 2, false);
    run(&b, KV_F16, false, 2, ROWS, x, half);
    run(&b, KV_Q8, false, 2, ROWS, x, bytes);
    for (int i = 0; i < ROWS * HIDDEN; i++) {
        float d = half[i] > bytes[i] ? half[i] - bytes[i] : bytes[i] - half[i];
        float magnitude = half[i] < 0 ? -half[i] : half[i];
        distance = d > distance ? d : distance;
        most = magnitude > most ? magnitude : most;
    }
    print_message("largest value %g, largest difference %g\n", (double)most, (double)distance);
    assert_true(distance > 0 && distance < 0.02f * most);
    block_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits),
        cmocka_unit_test(types_differ_little),
    };
    const char *problem = kernels_init(getenv("SBIT_CPU"));
    if (problem) {
        fprintf(stderr, "%s\n", problem);
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
