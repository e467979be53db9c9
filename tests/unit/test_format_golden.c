/* Pins the bytes of the file format (docs/format.md): a change of any number below is a change
 * of the format or of what the quantisers find, and must be meant. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include <cmocka.h>

#include "common/forms.h"
#include "common/mapfile.h"
#include "coordinator/gguf_output.h"
#include "worker/compress_matrix.h"

/* A source tensor in a file of its own, since its pages are dropped after use. */
struct source {
    struct mapfile file;
    struct tensor tensor;
};

static void open_source(struct source *s, const float *w, uint64_t rows, uint64_t cols)
{
    struct error e = {0};
    const char *path = SBIT_TEST_DIR "/source.bin";
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(w, sizeof *w, rows * cols, f), rows * cols);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(mapfile_open(&s->file, path, &e), OK);
    s->tensor = (struct tensor){.name = (char *)"golden.weight",
                                .dtype = DTYPE_F32,
                                .dims = 2,
                                .dim = {cols, rows, 1, 1},
                                .rows = rows,
                                .cols = cols,
                                .bytes = rows * cols * sizeof(float),
                                .data = s->file.data};
}

struct parts { /* the tensors of a form, as they arrive */
    struct form form;
    uint8_t *bytes[FORM_TENSORS_MAX];
    uint64_t have[FORM_TENSORS_MAX];
};

static enum status take(void *self, uint32_t unit, const char *suffix, uint64_t offset,
                        const void *data, size_t size, struct error *e)
{
    struct parts *p = self;
    (void)unit;
    for (uint32_t i = 0; i < p->form.n; i++) {
        if (strcmp(p->form.tensor[i].suffix, suffix) != 0)
            continue;
        assert_int_equal(offset, p->have[i]);
        assert_true(size <= p->form.tensor[i].bytes - offset);
        memcpy(p->bytes[i] + offset, data, size);
        p->have[i] += size;
        return OK;
    }
    return error_set(e, ERR_PEER, "unexpected suffix %s", suffix);
}

/* All tensors that the source becomes. */
static void compress(struct parts *p, const struct source *s, enum unit_method method, uint32_t d,
                     uint32_t threads)
{
    struct compress_unit u = {.name = "golden.weight", .method = method, .d = d};
    struct part_sink sink = {p, take};
    struct compress_matrix *m;
    struct error e = {0};
    bool done = false;
    memset(p, 0, sizeof *p);
    assert_int_equal(form_of(&p->form, method, d, 0.02, s->tensor.rows, s->tensor.cols, false, &e),
                     OK);
    for (uint32_t i = 0; i < p->form.n; i++)
        assert_non_null(p->bytes[i] = calloc(1, p->form.tensor[i].bytes));
    assert_int_equal(compress_matrix_create(&m, &s->tensor, &u, 0.02, threads, &e), OK);
    while (!done)
        assert_int_equal(compress_matrix_step(m, &sink, &done, &e), OK);
    compress_matrix_free(m);
    for (uint32_t i = 0; i < p->form.n; i++)
        assert_int_equal(p->have[i], p->form.tensor[i].bytes);
}

static uint64_t release_and_hash(struct parts *p)
{
    XXH3_state_t *state = XXH3_createState();
    assert_non_null(state);
    XXH3_64bits_reset(state);
    for (uint32_t i = 0; i < p->form.n; i++) {
        XXH3_64bits_update(state, p->bytes[i], p->form.tensor[i].bytes);
        free(p->bytes[i]);
    }
    uint64_t hash = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return hash;
}

/* Weights from integers alone: the same floats on every machine. Sums of three draws, about
 * normal. */
static float *make_weights(uint64_t n)
{
    uint64_t state = 1;
    float *w = malloc(n * sizeof *w);
    assert_non_null(w);
    for (uint64_t i = 0; i < n; i++) {
        int64_t sum = 0;
        for (int k = 0; k < 3; k++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            sum += (int64_t)(state >> 52) - 2048;
        }
        w[i] = (float)sum / 65536;
    }
    return w;
}

static const struct {
    enum unit_method method;
    uint32_t d;
    uint64_t rows, cols;
    uint64_t hash;
} golden[] = {
    {UNIT_CODE, 2, 70, 172, 0xb89ea94a0daf7df4},  {UNIT_CODE, 3, 70, 172, 0x1e5184520bc1c1ea},
    {UNIT_CODE, 4, 70, 172, 0x7cd64761e2cbd97e},  {UNIT_CODE, 5, 70, 172, 0xf7f396a43be9f593},
    {UNIT_CODE, 6, 70, 172, 0x681b699631125720},  {UNIT_CODE, 8, 70, 172, 0x0082ec41ab24da62},
    {UNIT_CODE, 10, 70, 172, 0x164022cb3c228b2c}, {UNIT_CODE, 12, 70, 172, 0xa7356b0f20a36d33},
    {UNIT_CODE, 16, 70, 172, 0x3b72db60f7eb01be}, {UNIT_CODE, 8, 300, 8192, 0x1e04ff742a08cfc9},
    {UNIT_SIGN, 0, 70, 256, 0xd4995821032b1908},  {UNIT_SIGN, 0, 300, 8192, 0x5a1d5c49a0986b04},
    {UNIT_Q8_0, 0, 70, 160, 0xd7bb51036b638242},  {UNIT_Q4_0, 0, 70, 160, 0x47a359f3dcdfc9cd},
    {UNIT_F16, 0, 70, 172, 0xa9c9ddf61f1e2637},   {UNIT_BF16, 0, 70, 172, 0x154f3bda58717009},
    {UNIT_F32, 0, 70, 172, 0x0b7695c4e4fd3635},
};

static void test_matrices(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof golden / sizeof golden[0]; i++) {
        struct source s;
        struct parts one, three;
        float *w = make_weights(golden[i].rows * golden[i].cols);
        open_source(&s, w, golden[i].rows, golden[i].cols);
        free(w);
        compress(&one, &s, golden[i].method, golden[i].d, 1);
        compress(&three, &s, golden[i].method, golden[i].d, 3);
        uint64_t hash = release_and_hash(&one);
        printf("%s d %u, %llu x %llu: 0x%016llx\n", form_name(golden[i].method), golden[i].d,
               (unsigned long long)golden[i].rows, (unsigned long long)golden[i].cols,
               (unsigned long long)hash);
        assert_true(hash == release_and_hash(&three));
        assert_true(hash == golden[i].hash);
        mapfile_close(&s.file);
    }
}

/* The worked example of docs/format.md, byte by byte. */
static void test_worked_example(void **state)
{
    static const float w[2][5] = {{31.5f, 6.5f, -21, 2, 3}, {0}};
    struct source s;
    struct parts p;
    (void)state;
    open_source(&s, &w[0][0], 2, 5);
    compress(&p, &s, UNIT_CODE, 2, 1);
    assert_int_equal(p.form.n, 2);
    assert_string_equal(p.form.tensor[0].suffix, ".code");
    assert_string_equal(p.form.tensor[1].suffix, ".code_out");
    assert_int_equal(p.form.tensor[0].bytes, 64 * 3 * 1);
    assert_int_equal(p.bytes[0][0 * 64 + 0], 0x04); /* (63, 13) / 2 */
    assert_int_equal(p.bytes[0][1 * 64 + 0], 0x85); /* -(42, -4) / 2 */
    assert_int_equal(p.bytes[0][2 * 64 + 0], 0x06); /* (6, any) / 2: the first that begins with 6 */
    assert_memory_equal(p.bytes[1], ((uint8_t[]){0x00, 0x38, 0x00, 0x00}), 4);
    for (int i = 0; i < 3 * 64; i++)
        assert_true(i % 64 == 0 || p.bytes[0][i] == 0);
    release_and_hash(&p);
    mapfile_close(&s.file);
}

/* A whole small file: header, alignment, hashes. */
static void test_file(void **state)
{
    const char *path = SBIT_TEST_DIR "/golden.gguf";
    static const uint8_t code[128] = {1, 2, 3}, scales[140] = {4, 5, 6};
    uint64_t code_dim[3] = {64, 2, 1}, scale_dim = 70;
    struct gguf_output *o;
    struct mapfile file;
    struct error e = {0};
    uint32_t a, b;
    (void)state;
    assert_int_equal(gguf_output_create(&o, path, &e), OK);
    assert_int_equal(gguf_set_u32(gguf_output_writer(o), "singularbit.format_version", 1, &e), OK);
    assert_int_equal(gguf_output_add(o, "blk.0.ffn_up.code", DTYPE_I8, 3, code_dim, &a, &e), OK);
    assert_int_equal(gguf_output_add(o, "blk.0.ffn_up.code_out", DTYPE_F16, 1, &scale_dim, &b, &e),
                     OK);
    assert_int_equal(gguf_output_begin(o, 0, &e), OK);
    assert_int_equal(gguf_output_write(o, b, 0, scales, sizeof scales, &e), OK);
    assert_int_equal(gguf_output_write(o, a, 0, code, sizeof code, &e), OK);
    assert_int_equal(gguf_output_finish(o, &e), OK);
    gguf_output_free(o);
    assert_int_equal(mapfile_open(&file, path, &e), OK);
    uint64_t hash = XXH3_64bits(file.data, file.size);
    printf("file of %llu bytes: 0x%016llx\n", (unsigned long long)file.size,
           (unsigned long long)hash);
    mapfile_close(&file);
    assert_true(hash == 0xb185e76bac16c1ad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matrices),
        cmocka_unit_test(test_worked_example),
        cmocka_unit_test(test_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
