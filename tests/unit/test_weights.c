/* Weights: the same model from a folder and from GGUF; files of ours (codes, outliers, hashes,
 * shards) that a small builder below writes, whole and with one mistake each. */
#include "common/weights.h"

#include <sys/stat.h>

#include <xxhash.h>

#include "tests/unit/test_files.h"

#define MODEL  SBIT_TEST_DIR "/model.gguf"
#define SHARD1 SBIT_TEST_DIR "/s-00001-of-00002.gguf"
#define SHARD2 SBIT_TEST_DIR "/s-00002-of-00002.gguf"

/* What the builder makes, and which single mistake it makes. */
enum mistake {
    NONE,
    NO_DOWN,
    WRONG_SHAPE,
    EXTRA_TENSOR,
    EXTRA_BLOCK,
    NO_CODE_OUT,
    NO_CODEBOOK,
    NO_CODE_KEY,
    BAD_D,
    WRONG_GROUPS,
    TWO_OUTLIER_PARTS,
    OUTLIER_LENGTHS,
    HASH_COUNT,
    NOT_SEALED,
    BOTH_FORMS,
    I8_WEIGHT,
    Q8_VECTOR,
    NOT_FINITE,
    BAD_NO,
    BAD_COUNT,
    BAD_TOTAL,
    DOUBLE,
    CODE_OUTLIERS,
    STRAY_CODE_IN,
    NEWER_VERSION,
    OTHER_SET,
    NO_SET
};

static const struct model_config shape = {
    .arch = "llama",
    .block_count = 2,
    .hidden = 32,
    .ffn = 70,
    .heads = 4,
    .kv_heads = 2,
    .head_dim = 8,
    .vocab = 50,
    .context = 64,
    .rms_eps = 1e-5f,
    .rope_base = 10000,
    .rope_dim = 8,
    .tied = true,
};

static void add(struct gguf_writer *w, const char *base, const char *suffix, uint32_t dtype,
                uint64_t d0, uint64_t d1, uint64_t d2)
{
    struct error e = {0};
    char name[96];
    const uint64_t dim[3] = {d0, d1, d2};
    snprintf(name, sizeof name, "%s%s", base, suffix);
    test_ok(gguf_add_tensor(w, name, dtype, d2 > 1 ? 3 : d1 > 1 ? 2 : 1, dim, &e), &e);
}

/* ffn_up is a code of d = 6, attn_o a Q8_0 with outliers, the rest plain. */
static void add_matrix(struct gguf_writer *w, enum tensor_kind kind, const char *base,
                       uint64_t rows, uint64_t cols, enum mistake m)
{
    if (kind == KIND_UP) {
        add(w, base, ".code", DTYPE_I8, 64, (cols + 5) / 6 + (m == WRONG_GROUPS), (rows + 63) / 64);
        if (m != NO_CODE_OUT)
            add(w, base, ".code_out", DTYPE_F16, rows, 1, 1);
        add(w, base, ".code_in", DTYPE_F16, cols, 1, 1);
        if (m == BOTH_FORMS)
            add(w, base, ".weight", DTYPE_F32, cols, rows, 1);
    } else if (kind == KIND_O) {
        add(w, base, ".weight", DTYPE_Q8_0, cols, rows, 1);
        add(w, base, ".outlier_row", DTYPE_I32, 3, 1, 1);
        add(w, base, ".outlier_column", DTYPE_I16, 3, 1, 1);
        if (m != TWO_OUTLIER_PARTS)
            add(w, base, ".outlier_value", DTYPE_F16, m == OUTLIER_LENGTHS ? 4 : 3, 1, 1);
    } else if (kind != KIND_DOWN || m != NO_DOWN) {
        add(w, base, ".weight", m == I8_WEIGHT ? DTYPE_I8 : DTYPE_F32, cols,
            rows + (m == WRONG_SHAPE && kind == KIND_K), 1);
    }
}

static void add_tensors(struct gguf_writer *w, enum mistake m, uint32_t part, uint32_t parts)
{
    uint64_t rows, cols;
    char base[64];
    for (int k = 0; k < KIND_COUNT; k++) {
        const struct tensor_rule *rule = model_rule((enum tensor_kind)k);
        uint32_t home = rule->per_block ? 0 : 1 % parts;
        if (!model_shape(&shape, (enum tensor_kind)k, &rows, &cols) || home != part)
            continue;
        for (uint32_t b = 0; b < (rule->per_block ? shape.block_count : 1); b++) {
            model_base_name(base, (enum tensor_kind)k, b);
            if (rule->matrix)
                add_matrix(w, (enum tensor_kind)k, base, rows, cols, m);
            else
                add(w, base, rule->suffix, m == Q8_VECTOR ? DTYPE_Q8_0 : DTYPE_F32, cols, rows, 1);
        }
    }
    if (part == 0 && m != NO_CODEBOOK)
        add(w, "singularbit.codebook.6", "", DTYPE_I8, 6, 128, 1);
    if (m == EXTRA_TENSOR)
        add(w, "blk.0.attn_output", ".bias", DTYPE_F32, 32, 1, 1);
    if (m == CODE_OUTLIERS)
        add(w, "blk.0.ffn_up", ".outlier_row", DTYPE_I32, 3, 1, 1);
    if (m == STRAY_CODE_IN)
        add(w, "blk.1.attn_q", ".code_in", DTYPE_F16, 32, 1, 1);
    if (m == EXTRA_BLOCK)
        add(w, "blk.2.attn_norm", ".weight", DTYPE_F32, 32, 1, 1);
    if (m == DOUBLE && part == 1)
        add(w, "blk.0.attn_norm", ".weight", DTYPE_F32, 32, 1, 1);
}

static void set_keys(struct gguf_writer *w, enum mistake m, uint32_t part, uint32_t parts)
{
    const struct gguf_string names[] = {
        {"blk.0.ffn_up", 12}, {"blk.1.ffn_up", 12}, {"blk.0.ffn_down", 14}};
    const uint32_t d[] = {6, m == BAD_D ? 7 : 6, 0};
    struct error e = {0};
    test_ok(model_config_to_gguf(&shape, w, &e), &e);
    if (m != NO_CODE_KEY)
        test_ok(gguf_set_strings(w, WEIGHTS_MATRIX_NAMES, names, 3, &e), &e);
    test_ok(gguf_set_array(w, WEIGHTS_MATRIX_D, GGUF_U32, d, m == NO_CODE_KEY ? 0 : 3, &e), &e);
    if (parts == 1)
        return;
    uint32_t total = m == BAD_TOTAL ? 1 : m == DOUBLE ? 32 : 31;
    test_ok(gguf_set_u32(w, "split.no", m == BAD_NO ? 1 - part : part, &e), &e);
    test_ok(gguf_set_u32(w, "split.count", m == BAD_COUNT ? 3 : parts, &e), &e);
    test_ok(gguf_set_u32(w, "split.tensors.count", total, &e), &e);
    if (m != NO_SET || part == 0)
        test_ok(gguf_set_u64(w, WEIGHTS_SET_HASH, m == OTHER_SET ? part : 7, &e), &e);
}

/* Byte i of the tensors' data: floats between 1 and 2. */
static void fill(uint8_t *data, uint64_t bytes, enum mistake m)
{
    for (uint64_t i = 0; i < bytes; i++)
        data[i] = i % 4 == 3 ? 0x3f : i % 4 == 2 ? 0x80 : (uint8_t)(i * 7);
    if (m == NOT_FINITE)
        memset(data, 0xff, 4);
}

static void build(const char *path, enum mistake m, uint32_t part, uint32_t parts)
{
    struct error e = {0};
    struct gguf_writer *w;
    uint8_t *header;
    uint64_t size, hashes[64] = {0};
    test_ok(gguf_writer_create(&w, 64, &e), &e);
    set_keys(w, m, part, parts);
    test_ok(gguf_set_u64(w, GGUF_HEADER_HASH, 0, &e), &e);
    test_ok(gguf_set_u32(w, WEIGHTS_VERSION_KEY, WEIGHTS_VERSION + (m == NEWER_VERSION), &e), &e);
    add_tensors(w, m, part, parts);
    uint64_t n = gguf_writer_tensor_count(w);
    test_ok(gguf_set_array(w, WEIGHTS_TENSOR_HASH, GGUF_U64, hashes, n - (m == HASH_COUNT), &e),
            &e);
    test_ok(gguf_writer_header(w, &header, &size, &e), &e);
    uint8_t *file = calloc(gguf_writer_file_bytes(w), 1);
    assert_non_null(file);
    for (uint64_t i = 0; i < n; i++) {
        uint8_t *data = file + gguf_writer_offset(w, i);
        fill(data, gguf_writer_bytes(w, i), m);
        hashes[i] = XXH3_64bits(data, gguf_writer_bytes(w, i));
    }
    free(header);
    test_ok(gguf_set_array(w, WEIGHTS_TENSOR_HASH, GGUF_U64, hashes, n - (m == HASH_COUNT), &e),
            &e);
    test_ok(gguf_writer_header(w, &header, &size, &e), &e);
    if (m != NOT_SEALED)
        test_ok(gguf_writer_seal(w, header, size, &e), &e);
    memcpy(file, header, size);
    test_write(path, file, gguf_writer_file_bytes(w));
    gguf_writer_free(w);
    free(header);
    free(file);
}

static void check_opened(const struct weights *w)
{
    struct error e = {0};
    uint64_t rows, cols, parameters = 0;
    uint32_t d = 0;
    for (int k = 0; k < KIND_COUNT; k++)
        if (model_shape(&shape, (enum tensor_kind)k, &rows, &cols))
            parameters += rows * cols * (model_rule((enum tensor_kind)k)->per_block ? 2 : 1);
    assert_int_equal(w->parameters, parameters);
    assert_int_equal(w->n_tensors, 31);
    assert_true(w->config.tied && w->config.rope_interleaved && w->config.vocab == 50);
    assert_true(weights_code_d(w, "blk.1.ffn_up", &d) && d == 6);
    assert_false(weights_code_d(w, "blk.0.ffn_down", &d)); /* listed with 0 */
    assert_false(weights_code_d(w, "blk.1.ffn_down", &d));
    assert_non_null(weights_find(w, "blk.0.ffn_up.code"));
    assert_ptr_equal(weights_find2(w, "blk.0.ffn_up", ".code"),
                     weights_find(w, "blk.0.ffn_up.code"));
    assert_null(weights_find(w, "blk.0.ffn_up.weight"));
    uint64_t bytes = 0, in_blocks = weights_block_bytes(w, 0) + weights_block_bytes(w, 1);
    for (uint64_t i = 0; i < w->n_tensors; i++) {
        bytes += w->tensors[i].bytes;
        assert_true(w->tensors[i].has_hash);
        test_ok(weights_verify(w, &w->tensors[i], NULL, NULL, &e), &e);
    }
    assert_int_equal(bytes, w->bytes);
    assert_int_equal(in_blocks + weights_block_bytes(w, UINT32_MAX), bytes);
    assert_int_equal(weights_block_bytes(w, UINT32_MAX), 50 * 32 * 4 + 32 * 4 + 6 * 128);
}

static void test_forms(void **state)
{
    struct error e = {0};
    struct weights *w;
    (void)state;
    build(MODEL, NONE, 0, 1);
    test_ok(weights_open(&w, MODEL, &e), &e);
    assert_true(w->is_gguf && w->n_files == 1);
    check_opened(w);
    weights_close(w);
}

static void test_mistakes(void **state)
{
    static const struct {
        enum mistake mistake;
        enum status status;
        const char *says;
    } all[] = {
        {NO_DOWN, ERR_FORMAT, "blk.0.ffn_down.weight is missing"},
        {WRONG_SHAPE, ERR_FORMAT, "blk.0.attn_k.weight is 32 x 17, but"},
        {EXTRA_TENSOR, ERR_UNSUPPORTED, "blk.0.attn_output.bias"},
        {CODE_OUTLIERS, ERR_FORMAT, "blk.0.ffn_up.outlier_row does not belong"},
        {STRAY_CODE_IN, ERR_FORMAT, "blk.1.attn_q.code_in does not belong"},
        {EXTRA_BLOCK, ERR_FORMAT, "2 blocks"},
        {NO_CODE_OUT, ERR_FORMAT, "blk.0.ffn_up.code_out is missing"},
        {NO_CODEBOOK, ERR_FORMAT, "singularbit.codebook.6"},
        {NO_CODE_KEY, ERR_FORMAT, "do not belong together"},
        {BAD_D, ERR_FORMAT, "blk.1.ffn_up"},
        {WRONG_GROUPS, ERR_FORMAT, "64 x 7 x 2"},
        {TWO_OUTLIER_PARTS, ERR_FORMAT, "not all three"},
        {OUTLIER_LENGTHS, ERR_FORMAT, "outlier_value is 4"},
        {HASH_COUNT, ERR_FORMAT, "one hash for each"},
        {NOT_SEALED, ERR_FORMAT, "hash that it states"},
        {NEWER_VERSION, ERR_UNSUPPORTED, "has version 2 of sbit's format"},
        {BOTH_FORMS, ERR_FORMAT, "stored twice"},
        {I8_WEIGHT, ERR_UNSUPPORTED, "holds no weights"},
        {Q8_VECTOR, ERR_UNSUPPORTED, "attn_norm.weight is of type Q8_0"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        struct error e = {0};
        struct weights *w;
        build(MODEL, all[i].mistake, 0, 1);
        test_refused(weights_open(&w, MODEL, &e), all[i].status, &e, all[i].says);
        assert_null(w);
    }
}

static void test_shards(void **state)
{
    struct error e = {0};
    struct weights *w;
    uint64_t hash;
    (void)state;
    build(SHARD1, NONE, 0, 2);
    build(SHARD2, NONE, 1, 2);
    test_ok(weights_open(&w, SHARD1, &e), &e);
    assert_int_equal(w->n_files, 2);
    check_opened(w);
    hash = w->header_hash;
    weights_close(w);
    test_ok(weights_open(&w, SHARD2, &e), &e);
    assert_true(w->header_hash == hash);
    weights_close(w);
}

static void test_shard_mistakes(void **state)
{
    static const struct {
        enum mistake mistake;
        const char *says;
    } all[] = {
        {BAD_NO, "by its header"},
        {BAD_COUNT, "by its header"},
        {BAD_TOTAL, "says 1"},
        {DOUBLE, "two of its files"},
        {OTHER_SET, "file 2 of 2 belongs to another compression"},
        {NO_SET, "file 2 of 2 belongs to another compression"},
    };
    struct error e = {0};
    struct weights *w;
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        memset(&e, 0, sizeof e);
        build(SHARD1, all[i].mistake, 0, 2);
        build(SHARD2, all[i].mistake, 1, 2);
        test_refused(weights_open(&w, SHARD2, &e), ERR_FORMAT, &e, all[i].says);
    }
    build(SHARD1, NONE, 0, 2);
    unlink(SHARD2);
    memset(&e, 0, sizeof e);
    test_refused(weights_open(&w, SHARD1, &e), ERR_IO, &e, "file 2 of 2 is missing");
    memset(&e, 0, sizeof e);
    assert_int_equal(rename(SHARD1, MODEL), 0); /* a shard that does not look like one */
    test_refused(weights_open(&w, MODEL, &e), ERR_FORMAT, &e, "by its name");
}

/* A flipped bit: in the data it is found by weights_verify, in the header by weights_open. */
static void test_flips(void **state)
{
    struct error e = {0};
    struct weights *w;
    size_t size;
    (void)state;
    build(MODEL, NONE, 0, 1);
    uint8_t *file = test_read(MODEL, &size);
    test_ok(weights_open(&w, MODEL, &e), &e);
    size_t header = w->gguf[0].data_start, at = (size_t)(w->tensors[0].data - w->gguf[0].file.data);
    weights_close(w);
    file[at + 1] ^= 4;
    test_write(MODEL, file, size);
    test_ok(weights_open(&w, MODEL, &e), &e);
    test_refused(weights_verify(w, &w->tensors[0], NULL, NULL, &e), ERR_FORMAT, &e, w->tensors[0].name);
    weights_close(w);
    file[at + 1] ^= 4;
    for (size_t i = 0; i < header; i += 3) {
        file[i] ^= (uint8_t)(1 << i % 8);
        test_write(MODEL, file, size);
        memset(&e, 0, sizeof e);
        if (weights_open(&w, MODEL, &e) == OK)
            fail_msg("a flipped bit in byte %zu of the header passed", i);
        file[i] ^= (uint8_t)(1 << i % 8);
    }
    test_write(MODEL, file, size - 1);
    memset(&e, 0, sizeof e);
    test_refused(weights_open(&w, MODEL, &e), ERR_FORMAT, &e, "truncated");
    free(file);
}

static void test_rows(void **state)
{
    struct error e = {0};
    struct weights *w;
    float rows[2 * 32];
    (void)state;
    build(MODEL, NOT_FINITE, 0, 1);
    test_ok(weights_open(&w, MODEL, &e), &e);
    const struct tensor *t = weights_find(w, "blk.1.attn_q.weight");
    test_ok(weights_rows_f32(t, 1, 2, rows, &e), &e);
    assert_memory_equal(rows, t->data + 32 * 4, sizeof rows);
    test_refused(weights_rows_f32(t, 0, 1, rows, &e), ERR_FORMAT, &e, "blk.1.attn_q.weight holds");
    memset(&e, 0, sizeof e);
    test_refused(weights_rows_f32(t, 31, 2, rows, &e), ERR_LIMIT, &e, "32 rows");
    memset(&e, 0, sizeof e);
    t = weights_find(w, "blk.1.ffn_up.code");
    test_refused(weights_rows_f32(t, 0, 1, rows, &e), ERR_UNSUPPORTED, &e, "plain weights");
    weights_close(w);
}

static void test_demo(void **state)
{
    struct error e = {0};
    struct weights *w;
    float row[128];
    (void)state;
    test_ok(weights_open(&w, SBIT_SOURCE_DIR "/models/demo", &e), &e);
    assert_false(w->is_gguf);
    assert_int_equal(w->n_tensors, 2 + 8 * 9);
    assert_int_equal(w->bytes, 2 * w->parameters);
    struct stat st;
    assert_int_equal(stat(SBIT_SOURCE_DIR "/models/demo/model.safetensors", &st), 0);
    assert_int_equal(w->file_bytes, st.st_size);
    const struct tensor *t = weights_find(w, "blk.7.attn_k.weight");
    assert_true(t->rope_heads == 2 && t->rows == 64 && t->cols == 128 && t->dtype == DTYPE_BF16);
    assert_int_equal(weights_gguf_row(t, 0), 0);
    assert_int_equal(weights_gguf_row(t, 1), 16);
    assert_int_equal(weights_gguf_row(t, 2), 1);
    assert_int_equal(weights_gguf_row(t, 33), 48);
    for (uint64_t i = 0; i < w->n_tensors; i++)
        for (uint64_t r = 0; r < w->tensors[i].rows && w->tensors[i].cols == 128; r++)
            test_ok(weights_rows_f32(&w->tensors[i], r, 1, row, &e), &e);
    weights_close(w);
}

/* Every tensor of the folder, brought to the GGUF order, equals the GGUF's. */
static void compare(const char *folder, const char *gguf)
{
    struct error e = {0};
    struct weights *a, *b;
    test_ok(weights_open(&a, folder, &e), &e);
    test_ok(weights_open(&b, gguf, &e), &e);
    assert_int_equal(a->n_tensors, b->n_tensors);
    assert_int_equal(a->parameters, b->parameters);
    for (uint64_t i = 0; i < a->n_tensors; i++) {
        const struct tensor *x = &a->tensors[i], *y = &b->tensors[i];
        assert_string_equal(x->name, y->name);
        assert_true(x->rows == y->rows && x->cols == y->cols);
        float *u = malloc(x->rows * x->cols * 4), *v = malloc(x->rows * x->cols * 4);
        test_ok(weights_rows_f32(x, 0, x->rows, u, &e), &e);
        test_ok(weights_rows_f32(y, 0, y->rows, v, &e), &e);
        if (memcmp(u, v, x->rows * x->cols * 4) != 0)
            fail_msg("%s differs between %s and %s", x->name, folder, gguf);
        free(u);
        free(v);
    }
    a->config.rope_interleaved = true;
    assert_memory_equal(&a->config, &b->config, sizeof a->config);
    weights_close(a);
    weights_close(b);
}

static void test_shared(void **state)
{
    (void)state;
    if (access(SBIT_SHARED_DIR "/models/stories260K", R_OK) != 0) {
        print_message(SBIT_SHARED_DIR "/models is absent: skipped\n");
        skip();
    }
    compare(SBIT_SHARED_DIR "/models/stories260K",
            SBIT_SHARED_DIR "/models/stories260K/model-f32.gguf");
    compare(SBIT_SHARED_DIR "/models/babyllama-1M",
            SBIT_SHARED_DIR "/models/babyllama-1M/model-f32.gguf");
}

static void test_vocabulary(void **state)
{
    static const char path[] = SBIT_SHARED_DIR "/tokenizers/ggml-vocab-qwen2.gguf";
    struct error e = {0};
    struct weights *w;
    (void)state;
    if (access(path, R_OK) != 0) {
        print_message("%s is absent: skipped\n", path);
        skip();
    }
    test_refused(weights_open(&w, path, &e), ERR_FORMAT, &e, "vocabulary");
}

#define FOLDER SBIT_TEST_DIR "/folder"

/* A safetensors file with the tensors of a one-block model, every step-th kind from the first. F16
 * values of 1. Last come two that a tied model does not need, of a type that is not read. */
static void make_tensors(const char *path, const struct model_config *c, int first, int step)
{
    static uint8_t file[1 << 16];
    char header[8192] = "{", hf[96];
    uint64_t at = 0, rows, cols, length;
    for (int k = first; k < KIND_COUNT; k += step) {
        if (!model_shape(c, (enum tensor_kind)k, &rows, &cols))
            continue;
        model_hf_name(hf, (enum tensor_kind)k, 0);
        length = strlen(header);
        snprintf(header + length, sizeof header - length,
                 "\"%s\":{\"dtype\":\"F16\",\"shape\":[%.0d%s%d],\"data_offsets\":[%d,%d]},", hf,
                 rows > 1 ? (int)rows : 0, rows > 1 ? "," : "", (int)cols, (int)at,
                 (int)(at + rows * cols * 2));
        at += rows * cols * 2;
    }
    length = strlen(header);
    snprintf(header + length, sizeof header - length,
             "\"model.layers.0.self_attn.rotary_emb.inv_freq\":{\"dtype\":\"F64\",\"shape\":[1],"
             "\"data_offsets\":[%d,%d]},\"lm_head.weight\":{\"dtype\":\"F64\",\"shape\":[1],"
             "\"data_offsets\":[%d,%d]}}",
             (int)at, (int)at + 8, (int)at + 8, (int)at + 16);
    length = strlen(header);
    memcpy(file, &length, 8);
    memcpy(file + 8, header, length);
    for (uint64_t i = 0; i < at + 16; i++)
        file[8 + length + i] = i % 2 ? 0x3c : 0;
    test_write(path, file, 8 + length + at + 16);
}

static const struct model_config small = {
    .arch = "llama",
    .block_count = 1,
    .hidden = 8,
    .ffn = 12,
    .heads = 1,
    .kv_heads = 1,
    .head_dim = 8,
    .vocab = 3,
    .context = 2048,
    .rope_dim = 8,
    .tied = true,
};

/* An empty folder but for config.json and, if given, the index. */
static void make_folder(const char *scaling, const char *index)
{
    static const char *const files[] = {"model.safetensors.index.json", "one.safetensors",
                                        "two.safetensors", "model.safetensors"};
    char path[512], config[1024];
    mkdir(FOLDER, 0755);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", FOLDER, files[i]);
        unlink(path);
    }
    snprintf(config, sizeof config,
             "{\"model_type\":\"llama\",\"num_hidden_layers\":1,\"hidden_size\":8,"
             "\"intermediate_size\":12,\"num_attention_heads\":1,\"vocab_size\":3,"
             "\"tie_word_embeddings\":true,\"rope_scaling\":%s}",
             scaling);
    test_write(FOLDER "/config.json", config, strlen(config));
    if (index)
        test_write(FOLDER "/model.safetensors.index.json", index, strlen(index));
}

/* Factors by hand: waves of 2 pi times 1, 10, 100 and 1000 tokens against a context of 1257. */
static void test_llama3(void **state)
{
    const float expected[4] = {1, 1, 2.39902f, 8};
    struct error e = {0};
    struct weights *w;
    (void)state;
    make_folder("{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
                "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":1257}",
                NULL);
    make_tensors(FOLDER "/one.safetensors", &small, 0, 1);
    test_ok(weights_open(&w, FOLDER, &e), &e);
    assert_int_equal(w->n_tensors, 11);
    for (int i = 0; i < 4; i++)
        assert_float_equal(w->rope_factors[i], expected[i], 1e-4);
    weights_close(w);
}

static void test_indexed(void **state)
{
    struct error e = {0};
    struct weights *w;
    float row[8];
    (void)state;
    make_folder("null", "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\","
                        "\"c\":\"one.safetensors\"}}");
    make_tensors(FOLDER "/one.safetensors", &small, 0, 2);
    make_tensors(FOLDER "/two.safetensors", &small, 1, 2);
    test_ok(weights_open(&w, FOLDER, &e), &e);
    assert_int_equal(w->n_tensors, 11);
    assert_null(w->rope_factors);
    test_ok(weights_rows_f32(weights_find(w, "blk.0.attn_q.weight"), 7, 1, row, &e), &e);
    assert_true(row[0] == 1 && row[7] == 1);
    weights_close(w);
    make_tensors(FOLDER "/two.safetensors", &small, 0, 1);
    test_refused(weights_open(&w, FOLDER, &e), ERR_FORMAT, &e, "two of its files");
}

static void folder_refused(const char *index, enum status status, const char *says)
{
    struct error e = {0};
    struct weights *w;
    make_folder("null", index);
    make_tensors(FOLDER "/one.safetensors", &small, 1, 1); /* without the first norm */
    test_refused(weights_open(&w, FOLDER, &e), status, &e, says);
}

static void test_folder(void **state)
{
    (void)state;
    folder_refused(NULL, ERR_FORMAT, "model.layers.0.input_layernorm.weight is missing");
    folder_refused("{\"weight_map\":{\"model.norm.weight\":\"one.safetensors\"}}", ERR_FORMAT,
                   "model.layers.0.input_layernorm.weight is missing");
    folder_refused("{}", ERR_FORMAT, "no weight_map");
    folder_refused("{\"weight_map\":{}}", ERR_FORMAT, "lists no tensors");
    folder_refused("{\"weight_map\":{\"x\":\"../one.safetensors\"}}", ERR_FORMAT,
                   "plain file name");
    folder_refused("{\"weight_map\":{\"x\":7}}", ERR_FORMAT, "plain file name");
    folder_refused("{\"weight_map\":{\"x\":\"two.safetensors\"}}", ERR_IO, "two.safetensors");
    folder_refused("{\"weight_map\":", ERR_FORMAT, "line 1");
}

static void test_absent(void **state)
{
    struct error e = {0};
    struct weights *w;
    (void)state;
    test_refused(weights_open(&w, SBIT_TEST_DIR "/absent", &e), ERR_IO, &e, "absent");
    memset(&e, 0, sizeof e);
    mkdir(SBIT_TEST_DIR "/empty", 0755);
    test_refused(weights_open(&w, SBIT_TEST_DIR "/empty", &e), ERR_IO, &e, "no config.json");
    memset(&e, 0, sizeof e);
    make_folder("null", NULL);
    make_tensors(FOLDER "/one.safetensors", &small, 0, 1);
    test_write(FOLDER "/two.safetensors", "", 0);
    test_refused(weights_open(&w, FOLDER, &e), ERR_FORMAT, &e, "how they belong");
    memset(&e, 0, sizeof e);
    unlink(FOLDER "/one.safetensors");
    unlink(FOLDER "/two.safetensors");
    test_refused(weights_open(&w, FOLDER, &e), ERR_IO, &e, "no *.safetensors");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),      cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_shards),     cmocka_unit_test(test_shard_mistakes),
        cmocka_unit_test(test_flips),      cmocka_unit_test(test_rows),
        cmocka_unit_test(test_demo),       cmocka_unit_test(test_shared),
        cmocka_unit_test(test_vocabulary), cmocka_unit_test(test_folder),
        cmocka_unit_test(test_absent),     cmocka_unit_test(test_llama3),
        cmocka_unit_test(test_indexed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
