/* Binding of every stored form of a matrix (byte codes, signs with corrections, blocks), seen
 * through the logits of a small random model, and refusal of damaged ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "common/weights.h"
#include "kernels/kernels.h"
#include "tests/unit/naive.h"
#include "tests/unit/ring.h"
#include "tests/unit/test_files.h"
#include "worker/bind.h"

#define PATH     SBIT_TEST_DIR "/forms.gguf"
#define TOKENS   12
#define OUTLIERS 40
#define SEED     77u

static const struct model_config shape = {.arch = "llama",
                                          .block_count = 2,
                                          .hidden = 128,
                                          .ffn = 256,
                                          .heads = 4,
                                          .kv_heads = 2,
                                          .head_dim = 32,
                                          .vocab = 130,
                                          .context = 64,
                                          .rms_eps = 1e-5f,
                                          .rope_base = 10000,
                                          .rope_dim = 32,
                                          .rope_interleaved = true};

struct form {
    enum dtype dtype; /* of .weight, when d is 0 */
    uint32_t d;       /* a code */
    bool code_in;
    enum dtype outliers; /* of .outlier_column, or DTYPE_F32: none */
};

static const struct form forms[KIND_COUNT] = {
    [KIND_Q] = {DTYPE_I8, 3, true, DTYPE_F32},
    [KIND_K] = {DTYPE_Q1_0, 0, false, DTYPE_I16},
    [KIND_V] = {DTYPE_Q4_0, 0, false, DTYPE_F32},
    [KIND_O] = {DTYPE_Q8_0, 0, false, DTYPE_I32},
    [KIND_GATE] = {DTYPE_I8, 8, false, DTYPE_F32},
    [KIND_UP] = {DTYPE_F16, 0, false, DTYPE_F32},
    [KIND_DOWN] = {DTYPE_Q1_0, 0, false, DTYPE_F32},
    [KIND_EMBEDDING] = {DTYPE_Q8_0, 0, false, DTYPE_F32},
    [KIND_OUTPUT] = {DTYPE_I8, 8, true, DTYPE_F32},
};

enum damage {
    NONE,
    ROW_ORDER,
    ROW_RANGE,
    COLUMN_RANGE,
    COLUMN_NEGATIVE,
    LARGE_CODEWORD,
    LEAST_ENTRY,
    NORM_NAN,
    BIT_FLIP
};

static uint64_t random_state;

/* xorshift64* (Vigna 2016) */
static uint32_t next_random(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)(random_state * 0x2545f4914f6cdd1du >> 32);
}

static void put_f16(uint8_t *out, float v)
{
    uint16_t half = f32_to_f16(v);
    memcpy(out, &half, sizeof half);
}

/* center +- spread */
static float around(float center, float spread)
{
    return center + spread * ((float)next_random() / 2147483648.0f - 1.0f);
}

static void fill_f16(uint8_t *out, uint64_t n, float center, float spread)
{
    for (uint64_t i = 0; i < n; i++)
        put_f16(out + 2 * i, around(center, spread));
}

static void fill_bytes(uint8_t *out, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        out[i] = (uint8_t)next_random();
}

static void fill_blocks(uint8_t *out, uint64_t bytes, uint64_t block, float d)
{
    fill_bytes(out, bytes);
    for (uint64_t i = 0; i < bytes; i += block)
        put_f16(out + i, around(d, d / 3));
}

static void fill_outliers(const char *suffix, uint8_t *out, enum dtype dtype, uint64_t rows,
                          uint64_t cols)
{
    for (uint32_t i = 0; i < OUTLIERS; i++) {
        int32_t v = (int32_t)(strcmp(suffix, ".outlier_row") ? i * 7 % cols : i * rows / OUTLIERS);
        size_t size = dtype == DTYPE_I32 ? 4 : 2;
        memcpy(out + size * i, &v, size);
    }
}

static void fill(const char *suffix, enum dtype dtype, uint8_t *out, uint64_t bytes, uint64_t rows,
                 uint64_t cols)
{
    if (!strcmp(suffix, ".code"))
        fill_bytes(out, bytes);
    else if (!strcmp(suffix, ".code_out"))
        fill_f16(out, bytes / 2, 0.05f, 0.02f);
    else if (!strcmp(suffix, ".code_in"))
        fill_f16(out, bytes / 2, 1.0f, 0.3f);
    else if (!strcmp(suffix, ".outlier_value"))
        fill_f16(out, bytes / 2, 0.0f, 2.0f);
    else if (!strncmp(suffix, ".outlier", 8))
        fill_outliers(suffix, out, dtype, rows, cols);
    else if (dtype == DTYPE_Q8_0)
        fill_blocks(out, bytes, 34, 0.002f);
    else if (dtype == DTYPE_Q4_0)
        fill_blocks(out, bytes, 18, 0.03f);
    else if (dtype == DTYPE_Q1_0)
        fill_blocks(out, bytes, 18, 0.1f);
    else if (dtype == DTYPE_F16)
        fill_f16(out, bytes / 2, 0.0f, 0.2f);
    else
        for (uint64_t i = 0; i < bytes / 4; i++)
            memcpy(out + 4 * i, &(float){around(1.0f, 0.3f)}, 4);
}

struct builder {
    struct gguf_writer *w;
    uint8_t *file; /* NULL while tensors are being described */
    uint64_t n;    /* tensors so far */
    uint64_t hashes[128];
    enum damage damage;
};

static void hurt(enum damage damage, const char *name, uint8_t *data)
{
    if (damage == ROW_ORDER && !strcmp(name, "blk.1.attn_k.outlier_row"))
        memcpy(data + 4, &(int32_t){63}, 4);
    if (damage == ROW_RANGE && !strcmp(name, "blk.1.attn_k.outlier_row"))
        memcpy(data + 4 * (OUTLIERS - 1), &(int32_t){64}, 4);
    if (damage == COLUMN_RANGE && !strcmp(name, "blk.1.attn_output.outlier_column"))
        memcpy(data + 8, &(int32_t){128}, 4);
    if (damage == COLUMN_NEGATIVE && !strcmp(name, "blk.0.attn_k.outlier_column"))
        memcpy(data + 8, &(int16_t){-1}, 2);
    if (damage == LARGE_CODEWORD && !strcmp(name, "singularbit.codebook.3"))
        memset(data + 9, 127, 3);
    if (damage == LEAST_ENTRY && !strcmp(name, "singularbit.codebook.8"))
        memcpy(data + 16, (const int8_t[8]){0, -128}, 8);
    if (damage == NORM_NAN && !strcmp(name, "blk.1.ffn_norm.weight"))
        memset(data, 0xff, 4);
}

/* Describes the tensor, or in the second pass fills it. */
static void visit(struct builder *b, const char *base, const char *suffix, enum dtype dtype,
                  const uint64_t dim[3], uint64_t rows, uint64_t cols)
{
    char name[96];
    struct error e = {0};
    snprintf(name, sizeof name, "%s%s", base, suffix);
    if (!b->file) {
        uint32_t dims = dim[2] > 1 ? 3 : dim[1] > 1 ? 2 : 1;
        test_ok(gguf_add_tensor(b->w, name, dtype, dims, dim, &e), &e);
        return;
    }
    uint8_t *data = b->file + gguf_writer_offset(b->w, b->n);
    uint64_t bytes = gguf_writer_bytes(b->w, b->n);
    if (!strncmp(name, "singularbit.", 12))
        for (uint64_t i = 0; i < bytes; i++)
            data[i] = (uint8_t)(int8_t)((int)(next_random() % 7) - 3);
    else
        fill(suffix, dtype, data, bytes, rows, cols);
    hurt(b->damage, name, data);
    b->hashes[b->n++] = XXH3_64bits(data, bytes);
    if (b->damage == BIT_FLIP && !strcmp(name, "blk.1.ffn_up.weight"))
        data[bytes / 2] ^= 4;
}

static void visit_matrix(struct builder *b, const struct form *f, const char *base, uint64_t rows,
                         uint64_t cols)
{
    if (f->d) {
        visit(b, base, ".code", DTYPE_I8,
              (uint64_t[3]){64, (cols + f->d - 1) / f->d, (rows + 63) / 64}, rows, cols);
        visit(b, base, ".code_out", DTYPE_F16, (uint64_t[3]){rows, 1, 1}, rows, cols);
        if (f->code_in)
            visit(b, base, ".code_in", DTYPE_F16, (uint64_t[3]){cols, 1, 1}, rows, cols);
        return;
    }
    const uint64_t n[3] = {OUTLIERS, 1, 1};
    visit(b, base, ".weight", f->dtype, (uint64_t[3]){cols, rows, 1}, rows, cols);
    if (f->outliers == DTYPE_F32)
        return;
    visit(b, base, ".outlier_row", DTYPE_I32, n, rows, cols);
    visit(b, base, ".outlier_column", f->outliers, n, rows, cols);
    visit(b, base, ".outlier_value", DTYPE_F16, n, rows, cols);
}

static void visit_all(struct builder *b)
{
    uint64_t rows, cols;
    char base[64];
    for (int k = 0; k < KIND_ROPE_FACTORS; k++) {
        const struct tensor_rule *rule = model_rule((enum tensor_kind)k);
        for (uint32_t i = 0; i < (rule->per_block ? shape.block_count : 1); i++) {
            if (!model_shape(&shape, (enum tensor_kind)k, &rows, &cols))
                continue;
            model_base_name(base, (enum tensor_kind)k, i);
            if (rule->matrix)
                visit_matrix(b, &forms[k], base, rows, cols);
            else
                visit(b, base, rule->suffix, DTYPE_F32, (uint64_t[3]){cols, 1, 1}, 1, cols);
        }
    }
    visit(b, "singularbit.codebook.3", "", DTYPE_I8, (uint64_t[3]){3, 128, 1}, 128, 3);
    visit(b, "singularbit.codebook.8", "", DTYPE_I8, (uint64_t[3]){8, 128, 1}, 128, 8);
}

static void set_keys(struct builder *b)
{
    static const struct gguf_string names[] = {{"blk.0.attn_q", 12},
                                               {"blk.0.ffn_gate", 14},
                                               {"blk.1.attn_q", 12},
                                               {"blk.1.ffn_gate", 14},
                                               {"output", 6}};
    static const uint32_t d[] = {3, 8, 3, 8, 8};
    struct error e = {0};
    test_ok(model_config_to_gguf(&shape, b->w, &e), &e);
    test_ok(gguf_set_strings(b->w, WEIGHTS_MATRIX_NAMES, names, 5, &e), &e);
    test_ok(gguf_set_array(b->w, WEIGHTS_MATRIX_D, GGUF_U32, d, 5, &e), &e);
    test_ok(gguf_set_u64(b->w, GGUF_HEADER_HASH, 0, &e), &e);
}

static void build(enum damage damage)
{
    struct builder b = {.damage = damage};
    struct error e = {0};
    uint8_t *header;
    uint64_t size;
    random_state = SEED;
    test_ok(gguf_writer_create(&b.w, 64, &e), &e);
    set_keys(&b);
    visit_all(&b);
    uint64_t n = gguf_writer_tensor_count(b.w);
    assert_true(n <= sizeof b.hashes / sizeof *b.hashes);
    test_ok(gguf_set_array(b.w, WEIGHTS_TENSOR_HASH, GGUF_U64, b.hashes, n, &e), &e);
    test_ok(gguf_writer_header(b.w, &header, &size, &e), &e);
    free(header);
    b.file = calloc(gguf_writer_file_bytes(b.w), 1);
    assert_non_null(b.file);
    visit_all(&b);
    test_ok(gguf_set_array(b.w, WEIGHTS_TENSOR_HASH, GGUF_U64, b.hashes, n, &e), &e);
    test_ok(gguf_writer_header(b.w, &header, &size, &e), &e);
    test_ok(gguf_writer_seal(b.w, header, size, &e), &e);
    memcpy(b.file, header, size);
    test_write(PATH, b.file, gguf_writer_file_bytes(b.w));
    gguf_writer_free(b.w);
    free(header);
    free(b.file);
}

static void all_forms_compute(void **state)
{
    (void)state;
    struct error e = {0};
    struct weights *w;
    struct ring one, two;
    uint32_t tokens[TOKENS];
    build(NONE);
    for (uint32_t i = 0; i < TOKENS; i++)
        tokens[i] = i * 11 % shape.vocab;
    struct ring_setup setup = {
        .path = PATH, .ranks = 1, .threads = 1, .batch = 16, .context = 32, .sequences = 1};
    ring_open(&one, &setup);
    setup.ranks = setup.threads = 2;
    ring_open(&two, &setup);
    const float *a = ring_logits(&one, tokens, TOKENS, TOKENS);
    assert_memory_equal(a, ring_logits(&two, tokens, TOKENS, 5),
                        TOKENS * shape.vocab * sizeof(float));
    test_ok(weights_open(&w, PATH, &e), &e);
    double *exact = naive_forward(w, tokens, TOKENS);
    double distance = naive_distance(a, exact, TOKENS * shape.vocab);
    print_message("distance from double precision: %.2e\n", distance);
    assert_true(distance < 0.05); /* activations are rounded to 8 bits before every product */
    free(exact);
    weights_close(w);
    ring_close(&one);
    ring_close(&two);
}

static enum status bind_all(bool verify, struct error *e)
{
    struct weights *w;
    struct block_weights blocks[2];
    struct head_weights head;
    struct error unexpected = {0};
    test_ok(weights_open(&w, PATH, &unexpected), &unexpected);
    struct binder b = {.weights = w, .verify = verify};
    enum status status = bind_block(&b, 0, &blocks[0], e);
    if (status == OK)
        status = bind_block(&b, 1, &blocks[1], e);
    if (status == OK)
        status = bind_head(&b, &head, e);
    bind_free(&b);
    weights_close(w);
    return status;
}

static void damage_is_refused(void **state)
{
    (void)state;
    static const struct {
        enum damage damage;
        const char *says;
    } cases[] = {
        {ROW_ORDER, "blk.1.attn_k.outlier_row"},
        {ROW_RANGE, "blk.1.attn_k.outlier_row"},
        {COLUMN_RANGE, "blk.1.attn_output.outlier_column"},
        {COLUMN_NEGATIVE, "blk.0.attn_k.outlier_column"},
        {LARGE_CODEWORD, "singularbit.codebook.3"},
        {LEAST_ENTRY, "codeword 2 has an entry -128"},
        {NORM_NAN, "blk.1.ffn_norm.weight"},
        {BIT_FLIP, "blk.1.ffn_up.weight"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error e = {0};
        build(cases[i].damage);
        test_refused(bind_all(true, &e), ERR_FORMAT, &e, cases[i].says);
    }
    struct error e = {0};
    test_ok(bind_all(false, &e), &e); /* the flipped bit, unseen */
    build(NONE);
    test_ok(bind_all(true, &e), &e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_forms_compute),
        cmocka_unit_test(damage_is_refused),
    };
    const char *problem = kernels_init(getenv("SBIT_CPU"));
    if (problem) {
        fprintf(stderr, "%s\n", problem);
        return 1;
    }
    printf("seed %u\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
