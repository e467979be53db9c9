/* How far tuning of row scales and norms brings a compressed model back to its original, by
 * passes over a text, rates and windows a step, and how fast it is. No test.
 *
 *     bench_tune MODEL STUDENT TRAIN-TEXT JUDGE-TEXT
 *                [WINDOWS PASSES BATCH RATE NORM-RATE [CONTEXT [THREADS]]]
 *     bench_tune HIDDEN FFN HEADS KV-HEADS D TOKENS THREADS
 *
 * STUDENT is a file of MODEL made by sbit compress, or a number: all matrices of the blocks as byte
 * codes of so many weights a byte. The first WINDOWS windows of CONTEXT tokens of TRAIN-TEXT are
 * tuned on, in an order shuffled anew each pass; JUDGED windows of JUDGE-TEXT are only measured.
 * The second form measures one block of random codes of that shape. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/codebook.h"
#include "common/random_weights.h"
#include "tests/unit/tune_model.h"
#include "worker/curvature.h"

enum { JUDGED = 24, CONTEXT = 128 };

struct settings {
    uint32_t windows, passes, batch, context;
    float rate, norm_rate;
    int threads;
};

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void stop(const struct error *e)
{
    fprintf(stderr, "%s\n", e->text);
    exit(1);
}

static void shuffle(uint32_t *order, uint32_t n)
{
    static uint32_t state = 12345;
    for (uint32_t i = n; i > 1; i--) {
        state = state * 1664525u + 1013904223u;
        uint32_t j = (uint32_t)((uint64_t)state * i >> 32), was = order[i - 1];
        order[i - 1] = order[j];
        order[j] = was;
    }
}

/* Multiply-adds of one token through the blocks and the head. */
static double cost(const struct tune_model *m, double *head)
{
    const struct tune_side *s = &m->student;
    double sum = 0;
    for (uint32_t b = 0; b < s->weights->config.block_count; b++)
        sum += (double)(product_cost(&s->blocks[b].qkv) + product_cost(&s->blocks[b].o) +
                        product_cost(&s->blocks[b].gate_up) + product_cost(&s->blocks[b].down));
    *head = (double)product_cost(&s->head.output);
    return sum;
}

static void tune(struct tune_model *m, const struct tune_text *text, const struct settings *s)
{
    uint32_t per_pass = (text->windows + s->batch - 1) / s->batch, steps = per_pass * s->passes;
    uint32_t *order = calloc(text->windows, sizeof *order);
    double start = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID), head;
    if (!order)
        return;
    for (uint32_t i = 0; i < text->windows; i++)
        order[i] = i;
    for (uint32_t step = 0; step < steps; step++) {
        uint32_t first = step % per_pass * s->batch;
        uint32_t n = text->windows - first < s->batch ? text->windows - first : s->batch;
        if (first == 0)
            shuffle(order, text->windows);
        double kl = tune_model_step(m, text, order + first, n, tune_adam_rate(s->rate, step, steps),
                                    tune_adam_rate(s->norm_rate, step, steps));
        if (steps < 10 || step % (steps / 10) == 0)
            printf("  step %4u of %u: KL %.4f\n", step, steps, kl);
    }
    start = now(CLOCK_MONOTONIC) - start;
    cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    double tokens = (double)text->windows * text->context * s->passes, blocks = cost(m, &head);
    /* A block: forward twice and the gradient of its inputs; the head: teacher, student,
     * gradient. */
    printf("  %.0f tokens in %.2f s (%.2f s of CPU): %.1f us a token, %.1f G multiply-adds/s\n",
           tokens, start, cpu, 1e6 * start / tokens, 3e-9 * (blocks + head) * tokens / start);
    free(order);
}

static void run(const char *const *path, const struct settings *s)
{
    struct tune_model m;
    struct tune_text train, judge;
    struct error e = {0};
    uint32_t d = (uint32_t)atoi(path[1]);
    if (tune_text_read(&train, path[0], path[2], s->context, s->windows, &e) != OK ||
        tune_text_read(&judge, path[0], path[3], s->context, JUDGED, &e) != OK ||
        tune_model_open(&m, path[0], d > 0 ? NULL : path[1], d, s->context, s->threads, &e) != OK ||
        tune_model_teach(&m, &judge, &e) != OK)
        stop(&e);
    float *judge_x = m.teacher_x;
    double before = tune_model_kl(&m, &judge, 0, judge.windows);
    if (tune_model_teach(&m, &train, &e) != OK)
        stop(&e);
    tune(&m, &train, s);
    free(m.teacher_x);
    m.teacher_x = judge_x;
    printf(
        "%s: %u windows x %u, %u passes, %u a step, rates %g %g: KL of unseen text %.4f -> %.4f\n",
        path[1], train.windows, s->context, s->passes, s->batch, (double)s->rate,
        (double)s->norm_rate, before, tune_model_kl(&m, &judge, 0, judge.windows));
    tune_model_close(&m);
    free(train.tokens);
    free(judge.tokens);
}

/* One block of random codes */

static struct product random_product(struct random_weights *random, int count, const int *rows,
                                     int cols, int d)
{
    struct product p = {.count = count};
    for (int i = 0; i < count; i++) {
        size_t bytes = (size_t)(rows[i] + 63) / 64 * 64 * (size_t)((cols + d - 1) / d);
        uint8_t *codes = malloc(bytes);
        uint16_t *out = malloc((size_t)rows[i] * sizeof *out);
        if (!codes || !out)
            exit(1);
        random_weights_fill(random, DTYPE_I8, (uint64_t)cols, codes, bytes);
        for (int r = 0; r < rows[i]; r++)
            out[r] = random_weights_code_scale((uint32_t)d, (uint64_t)cols);
        p.m[i] = (struct matrix){.type = MATRIX_CODE,
                                 .rows = rows[i],
                                 .cols = cols,
                                 .data = codes,
                                 .d = d,
                                 .codebook = codebook_for((uint32_t)d)->vector,
                                 .out = out};
    }
    product_plan(&p);
    return p;
}

static void random_floats(struct random_weights *random, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(random_weights_next(random) >> 40) * 0x1p-23f - 1.0f;
}

static void measure_block(const struct model_config *c, int d, uint32_t tokens, int threads)
{
    struct random_weights random = {1};
    struct error e = {0};
    struct tune_block *t;
    size_t room[PRODUCT_MAX] = {0}, n = (size_t)tokens * c->hidden;
    const int q = (int)(c->heads * c->head_dim), kv = (int)(c->kv_heads * c->head_dim);
    const int hidden = (int)c->hidden, ffn = (int)c->ffn;
    struct block_weights w = {
        .qkv = random_product(&random, 3, (int[]){q, kv, kv}, hidden, d),
        .o = random_product(&random, 1, &hidden, q, d),
        .gate_up = random_product(&random, 2, (int[]){ffn, ffn}, hidden, d),
        .down = random_product(&random, 1, &hidden, ffn, d),
        .attn_norm = malloc(c->hidden * sizeof(float)),
        .ffn_norm = malloc(c->hidden * sizeof(float)),
    };
    float *x = malloc(n * sizeof *x), *dx = malloc(n * sizeof *dx);
    float *flat = calloc(tune_block_size(c), sizeof *flat);
    const struct product *const all[] = {&w.qkv, &w.o, &w.gate_up, &w.down};
    double cost = 0, forward = 1e9, backward = 1e9;
    for (int i = 0; i < 4; i++) {
        product_room(all[i], room);
        cost += (double)product_cost(all[i]) * tokens;
    }
    if (!x || !dx || !flat || !w.attn_norm || !w.ffn_norm ||
        tune_block_create(&t, c, NULL, tokens, room, threads, &e) != OK)
        stop(&e);
    random_floats(&random, w.attn_norm, c->hidden);
    random_floats(&random, w.ffn_norm, c->hidden);
    struct tune_vector g = tune_block_vector(c, flat);
    for (int i = 0; i < 3; i++) {
        random_floats(&random, x, n);
        random_floats(&random, dx, n);
        double start = now(CLOCK_PROCESS_CPUTIME_ID);
        tune_block_backward(t, &w, x, tokens, dx, &g, NULL);
        double middle = now(CLOCK_PROCESS_CPUTIME_ID);
        tune_block_forward(t, &w, x, tokens);
        backward = fmin(backward, middle - start);
        forward = fmin(forward, now(CLOCK_PROCESS_CPUTIME_ID) - middle);
    }
    printf(
        "forward %.3f s, %.0f G multiply-adds/s; backward with its forward %.3f s, gradient alone "
        "%.0f\n",
        forward, 1e-9 * cost / forward, backward, 1e-9 * cost / (backward - forward));
    exit(0); /* takes the memory along */
}

int main(int argc, char **argv)
{
    struct settings s = {256, 2, 8, CONTEXT, 1e-2f, 5e-3f, 2};
    const char *problem = kernels_init(getenv("SBIT_CPU"));
    if (argc == 8 && !problem) {
        uint32_t n[8] = {0};
        for (int i = 1; i < argc; i++)
            n[i] = (uint32_t)atoi(argv[i]);
        const struct model_config c = {.hidden = n[1],
                                       .ffn = n[2],
                                       .heads = n[3],
                                       .kv_heads = n[4],
                                       .head_dim = n[1] / n[3],
                                       .rope_dim = n[1] / n[3],
                                       .rope_base = 10000,
                                       .rms_eps = 1e-5f};
        curvature_init();
        measure_block(&c, (int)n[5], n[6], (int)n[7]);
    }
    if (argc < 5 || problem) {
        fprintf(stderr, "%s\n",
                problem ? problem : "bench_tune MODEL STUDENT TRAIN-TEXT JUDGE-TEXT [...]");
        return 1;
    }
    if (argc >= 10) {
        s.windows = (uint32_t)atoi(argv[5]);
        s.passes = (uint32_t)atoi(argv[6]);
        s.batch = (uint32_t)atoi(argv[7]);
        s.rate = strtof(argv[8], NULL);
        s.norm_rate = strtof(argv[9], NULL);
    }
    s.context = argc > 10 ? (uint32_t)atoi(argv[10]) : s.context;
    s.threads = argc > 11 ? atoi(argv[11]) : s.threads;
    curvature_init();
    run((const char *const *)argv + 1, &s);
    return 0;
}
