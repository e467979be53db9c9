/* Speed of every matrix product at every level, one thread: G weights per second (weights x tokens
 * / time), and beside it the weight bytes read per second, to hold against the machine's read
 * bandwidth. Build the target bench_products and run it; arguments: a level ("all" for each), then
 * a type. It prints a table, asserts nothing and is no test. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/blocks.h"
#include "kernels/kernels.h"

static const char *const names[MATRIX_TYPES] = {"F32",  "F16",  "BF16", "Q8_0",
                                                "Q4_0", "Q1_0", "CODE"};

/* Processor time, so that other programs on the machine disturb less. */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *alloc(size_t bytes)
{
    void *p = aligned_alloc(64, blocks_align(bytes));
    if (!p) {
        fprintf(stderr, "bench_products: out of memory\n");
        exit(1);
    }
    return p;
}

static size_t matrix_bytes(const struct matrix *m)
{
    if (m->type == MATRIX_CODE)
        return (size_t)((m->rows + 63) / 64 * 64) * (size_t)blocks_groups(m);
    return (size_t)m->rows * (size_t)(m->cols / blocks_weights(m->type)) * blocks_bytes(m->type);
}

/* Weight bytes from a fixed generator; scales small and finite whatever the type. */
static void fill(const struct matrix *m, uint8_t *data)
{
    uint32_t state = 1;
    size_t bytes = matrix_bytes(m), step = blocks_bytes(m->type);
    for (size_t i = 0; i < bytes; i++) {
        state = state * 1664525 + 1013904223;
        data[i] = (uint8_t)(state >> 24);
    }
    size_t high = m->type == MATRIX_F32 ? 3 : 1;
    for (size_t i = high; m->type != MATRIX_CODE && i < bytes; i += step)
        data[i] = 0x20;
}

/* Seconds of one product, the best of several runs of at least 50 ms together. */
static double measure(const struct matrix *m, int tokens, const void *prepared, const float *x,
                      float *y)
{
    double best = 1e9, start = now();
    do {
        double before = now();
        kernels.product[m->type](m, prepared, x, tokens, 0, m->rows, y, (size_t)m->rows);
        double seconds = now() - before;
        best = seconds < best ? seconds : best;
    } while (now() - start < 0.05);
    return best;
}

static void bench(struct matrix *m, int tokens)
{
    size_t n = (size_t)tokens, rows = (size_t)m->rows, cols = (size_t)m->cols;
    uint8_t *data = alloc(matrix_bytes(m)), *prepared = alloc(n * act_bytes(m));
    float *x = alloc(n * cols * 4), *y = alloc(n * rows * 4);
    uint16_t *out = alloc(rows * 2);
    int8_t codebook[128 * 16];
    fill(m, data);
    for (size_t i = 0; i < sizeof codebook; i++)
        codebook[i] = (int8_t)(data[i] % 31 - 15);
    for (size_t i = 0; i < rows; i++)
        out[i] = 0x2000;
    for (size_t i = 0; i < n * cols; i++)
        x[i] = (float)(i * 7919 % 1000) * 0.001f - 0.5f;
    m->data = data;
    m->codebook = codebook;
    m->out = out;
    double quantise = now();
    for (size_t t = 0; t < n; t++)
        kernels.prepare[m->type](m, x + t * cols, prepared + t * act_bytes(m));
    quantise = (now() - quantise) / (double)n;
    double seconds = measure(m, tokens, prepared, x, y);
    printf("%-7s %-5s %3d %5dx%-5d %4d %10.1f %10.1f %10.2f %10.2f\n", kernels.variant,
           names[m->type], m->d, m->rows, m->cols, tokens,
           (double)(rows * cols * n) / seconds * 1e-9, (double)matrix_bytes(m) / seconds * 1e-9,
           seconds * 1e6, quantise * 1e6);
    fflush(stdout);
    free(data);
    free(prepared);
    free(x);
    free(y);
    free(out);
}

static void bench_type(enum matrix_type type, int d)
{
    static const int shapes[][2] = {{2048, 2048}, {4096, 14336}};
    for (int s = 0; s < 2; s++)
        for (int tokens = 1; tokens <= 64; tokens *= 64) {
            struct matrix m = {.type = type, .rows = shapes[s][0], .cols = shapes[s][1], .d = d};
            bench(&m, tokens);
        }
}

int main(int argc, char **argv)
{
    static const int d[] = {4, 8, 16};
    printf("level   type    d rows x cols tokens Gweights/s  GB/s read    us/call us/prepare\n");
    for (const char *const *level = kernels_levels(); *level; level++) {
        if (argc > 1 && strcmp(argv[1], "all") && strcmp(argv[1], *level))
            continue;
        kernels_init(*level);
        for (int type = 0; type < MATRIX_TYPES; type++)
            for (int i = 0; i < (type == MATRIX_CODE ? 3 : 1); i++)
                if (argc < 3 || !strcmp(names[type], argv[2]))
                    bench_type((enum matrix_type)type, type == MATRIX_CODE ? d[i] : 0);
    }
    return 0;
}
