/* GGUF: what the writer writes the reader reads; every damage to a header is refused with a
 * sentence. */
#include "common/gguf.h"

#include "tests/unit/test_files.h"

/* A header with one key of every kind that the writer has, and two tensors. */
static struct gguf_writer *make_writer(void)
{
    struct error e = {0};
    struct gguf_writer *w;
    const int16_t shorts[3] = {-1, 2, 300};
    const uint64_t longs[2] = {1, UINT64_MAX};
    const struct gguf_string strings[3] = {{"one", 3}, {"", 0}, {"a\0b", 3}};
    const uint64_t dim_a[2] = {32, 3}, dim_b[1] = {5};
    test_ok(gguf_writer_create(&w, 64, &e), &e);
    test_ok(gguf_set_string(w, "general.architecture", "llama", &e), &e);
    test_ok(gguf_set_u32(w, "u32", 7, &e), &e);
    test_ok(gguf_set_u64(w, "u64", UINT64_C(1) << 60, &e), &e);
    test_ok(gguf_set_f32(w, "f32", 0.1f, &e), &e);
    test_ok(gguf_set_bool(w, "bool", true, &e), &e);
    test_ok(gguf_set_array(w, "shorts", GGUF_I16, shorts, 3, &e), &e);
    test_ok(gguf_set_array(w, "longs", GGUF_U64, longs, 2, &e), &e);
    test_ok(gguf_set_strings(w, "strings", strings, 3, &e), &e);
    test_ok(gguf_set_u64(w, GGUF_HEADER_HASH, 0, &e), &e);
    test_ok(gguf_add_tensor(w, "b.weight", DTYPE_Q8_0, 2, dim_a, &e), &e);
    test_ok(gguf_add_tensor(w, "a.weight", DTYPE_F32, 1, dim_b, &e), &e);
    return w;
}

/* The whole file in memory, free(). Tensor bytes are 1, 2, 3 ... */
static uint8_t *make_file(uint64_t *size)
{
    struct error e = {0};
    struct gguf_writer *w = make_writer();
    uint8_t *header;
    uint64_t header_size;
    test_ok(gguf_writer_header(w, &header, &header_size, &e), &e);
    test_ok(gguf_writer_seal(w, header, header_size, &e), &e);
    *size = gguf_writer_file_bytes(w);
    uint8_t *file = calloc(*size, 1);
    assert_non_null(file);
    memcpy(file, header, header_size);
    for (uint64_t i = 0; i < gguf_writer_tensor_count(w); i++)
        for (uint64_t j = 0; j < gguf_writer_bytes(w, i); j++)
            file[gguf_writer_offset(w, i) + j] = (uint8_t)(j + 1);
    free(header);
    gguf_writer_free(w);
    return file;
}

static void check_values(const struct gguf *g)
{
    struct gguf_string s;
    uint64_t u;
    double f;
    bool b;
    assert_true(gguf_get_string(g, "general.architecture", &s));
    assert_int_equal(s.size, 5);
    assert_memory_equal(s.data, "llama", 5);
    assert_true(gguf_get_u64(g, "u32", &u) && u == 7);
    assert_true(gguf_get_u64(g, "u64", &u) && u == UINT64_C(1) << 60);
    assert_true(gguf_get_f64(g, "f32", &f) && f == (double)0.1f);
    assert_true(gguf_get_f64(g, "u32", &f) && f == 7);
    assert_true(gguf_get_bool(g, "bool", &b) && b);
    assert_false(gguf_get_u64(g, "f32", &u));
    assert_false(gguf_get_u64(g, "absent", &u));
    assert_false(gguf_get_bool(g, "u32", &b));
    assert_false(gguf_get_string(g, "strings", &s));
    assert_false(gguf_get_u64(g, "longs", &u));
}

static void check_arrays(const struct gguf *g)
{
    const struct gguf_key *k = gguf_find_key(g, "shorts");
    struct gguf_string s;
    uint64_t u, state = 0;
    double f;
    assert_int_equal(k->count, 3);
    assert_false(gguf_array_u64(k, 0, &u)); /* -1 */
    assert_true(gguf_array_u64(k, 2, &u) && u == 300);
    assert_true(gguf_array_f64(k, 0, &f) && f == -1);
    assert_false(gguf_array_u64(k, 3, &u));
    k = gguf_find_key(g, "longs");
    assert_true(gguf_array_u64(k, 1, &u) && u == UINT64_MAX);
    assert_false(gguf_array_f64(k, 1, &f)); /* would lose bits */
    k = gguf_find_key(g, "strings");
    assert_true(gguf_next_string(k, &state, &s) && s.size == 3);
    assert_true(gguf_next_string(k, &state, &s) && s.size == 0);
    assert_true(gguf_next_string(k, &state, &s) && s.size == 3);
    assert_memory_equal(s.data, "a\0b", 3);
    assert_false(gguf_next_string(k, &state, &s));
}

static void test_round_trip(void **state)
{
    struct error e = {0};
    struct gguf g;
    uint64_t size, stated;
    uint8_t *file = make_file(&size);
    (void)state;
    test_ok(gguf_parse(&g, file, size, "memory", false, &e), &e);
    assert_int_equal(g.alignment, 64);
    assert_int_equal(g.n_tensors, 2);
    assert_int_equal(g.data_start % 64, 0);
    check_values(&g);
    check_arrays(&g);
    const struct gguf_tensor *t = gguf_find_tensor(&g, "a.weight");
    assert_ptr_equal(t, &g.tensors[1]);
    assert_int_equal(t->bytes, 20);
    assert_int_equal(t->data[0], 1);
    assert_int_equal((t->data - file) % 64, 0);
    t = gguf_find_tensor(&g, "b.weight");
    assert_true(t->dims == 2 && t->dim[0] == 32 && t->dim[1] == 3 && t->dim[2] == 1);
    assert_int_equal(t->bytes, 102);
    assert_null(gguf_find_tensor(&g, "b.weigh"));
    assert_true(gguf_get_u64(&g, GGUF_HEADER_HASH, &stated));
    assert_true(stated == gguf_header_hash(&g) && stated != 0);
    gguf_close(&g);
    free(file);
}

/* Setting a key again keeps its place, so the header keeps its size and the tensors theirs. */
static void test_replace(void **state)
{
    struct error e = {0};
    struct gguf_writer *w = make_writer();
    uint8_t *first, *second;
    uint64_t size_first, size_second;
    (void)state;
    test_ok(gguf_writer_header(w, &first, &size_first, &e), &e);
    test_ok(gguf_set_u32(w, "u32", 8, &e), &e);
    test_ok(gguf_writer_header(w, &second, &size_second, &e), &e);
    assert_int_equal(size_first, size_second);
    size_t changed = 0;
    for (uint64_t i = 0; i < size_first; i++)
        changed += first[i] != second[i];
    assert_int_equal(changed, 1);
    free(first);
    free(second);
    gguf_writer_free(w);
}

static void test_copy_keys(void **state)
{
    struct error e = {0};
    struct gguf g, copy;
    struct gguf_writer *w;
    uint8_t *header;
    uint64_t size, header_size;
    uint8_t *file = make_file(&size);
    (void)state;
    test_ok(gguf_parse(&g, file, size, "memory", false, &e), &e);
    test_ok(gguf_writer_create(&w, 32, &e), &e);
    for (uint64_t i = 0; i < g.n_keys; i++)
        test_ok(gguf_copy_key(w, &g.keys[i], &e), &e);
    test_ok(gguf_writer_header(w, &header, &header_size, &e), &e);
    test_ok(gguf_parse(&copy, header, header_size, "copy", false, &e), &e);
    assert_int_equal(copy.alignment, 32);
    assert_int_equal(copy.n_keys, g.n_keys);
    check_values(&copy);
    check_arrays(&copy);
    gguf_close(&copy);
    gguf_close(&g);
    gguf_writer_free(w);
    free(header);
    free(file);
}

static void test_writer_refuses(void **state)
{
    struct error e = {0};
    struct gguf_writer *w;
    uint8_t *header;
    uint64_t size;
    const uint64_t dim[1] = {33}, zero[1] = {0}, huge[2] = {32, UINT64_MAX / 4};
    (void)state;
    test_refused(gguf_writer_create(&w, 48, &e), ERR_USAGE, &e, "48");
    e.status = OK;
    test_ok(gguf_writer_create(&w, 32, &e), &e);
    test_refused(gguf_add_tensor(w, "x", DTYPE_Q8_0, 1, dim, &e), ERR_FORMAT, &e, "33");
    e.status = OK;
    test_refused(gguf_add_tensor(w, "x", DTYPE_F32, 1, zero, &e), ERR_USAGE, &e, "dimension of 0");
    e.status = OK;
    test_refused(gguf_add_tensor(w, "x", DTYPE_F32, 2, huge, &e), ERR_LIMIT, &e, "larger");
    e.status = OK;
    test_ok(gguf_add_tensor(w, "x", DTYPE_F32, 1, dim, &e), &e);
    test_refused(gguf_add_tensor(w, "x", DTYPE_F32, 1, dim, &e), ERR_USAGE, &e, "twice");
    e.status = OK;
    test_ok(gguf_writer_header(w, &header, &size, &e), &e);
    test_refused(gguf_writer_seal(w, header, size, &e), ERR_USAGE, &e, GGUF_HEADER_HASH);
    free(header);
    gguf_writer_free(w);
}

/* Bytes put together by hand, for what the writer would never write. */
struct bytes {
    uint8_t data[1024];
    size_t size;
};

static void put(struct bytes *b, const void *v, size_t n)
{
    assert_true(b->size + n <= sizeof b->data);
    memcpy(b->data + b->size, v, n);
    b->size += n;
}

static void put32(struct bytes *b, uint32_t v)
{
    put(b, &v, sizeof v);
}

static void put64(struct bytes *b, uint64_t v)
{
    put(b, &v, sizeof v);
}

static void put_text(struct bytes *b, const char *text)
{
    put64(b, strlen(text));
    put(b, text, strlen(text));
}

static void start(struct bytes *b, uint32_t version, uint64_t tensors, uint64_t keys)
{
    b->size = 0;
    put(b, "GGUF", 4);
    put32(b, version);
    put64(b, tensors);
    put64(b, keys);
}

static void put_tensor(struct bytes *b, const char *name, uint64_t dim, uint32_t dtype,
                       uint64_t offset)
{
    put_text(b, name);
    put32(b, 1);
    put64(b, dim);
    put32(b, dtype);
    put64(b, offset);
}

/* Pads the header to 32 and adds n bytes of data. */
static void put_data(struct bytes *b, size_t n)
{
    static const uint8_t zeros[256];
    put(b, zeros, (32 - b->size % 32) % 32 + n);
}

static void refused(const struct bytes *b, enum status status, const char *says)
{
    struct error e = {0};
    struct gguf g;
    uint8_t *copy = malloc(b->size); /* exact size, so that a sanitizer sees the end */
    assert_non_null(copy);
    memcpy(copy, b->data, b->size);
    test_refused(gguf_parse(&g, copy, b->size, "bad.gguf", false, &e), status, &e, says);
    assert_non_null(strstr(e.text, "bad.gguf"));
    assert_null(g.keys);
    free(copy);
}

static void test_bad_start(void **state)
{
    struct bytes b;
    (void)state;
    start(&b, 3, 0, 0);
    memcpy(b.data, "GGML", 4);
    refused(&b, ERR_FORMAT, "not a GGUF file");
    start(&b, 2, 0, 0);
    refused(&b, ERR_UNSUPPORTED, "GGUF version 2");
    start(&b, 0x03000000, 0, 0);
    refused(&b, ERR_UNSUPPORTED, "big-endian");
    start(&b, 3, UINT64_MAX, 0);
    refused(&b, ERR_FORMAT, "cannot describe");
    start(&b, 3, 0, UINT64_C(1) << 40);
    refused(&b, ERR_FORMAT, "cannot hold");
}

/* An array key of that element type and count. */
static void array_refused(uint32_t element, uint64_t count, enum status status, const char *says)
{
    struct bytes b;
    start(&b, 3, 0, 1);
    put_text(&b, "k");
    put32(&b, GGUF_ARRAY);
    put32(&b, element);
    put64(&b, count);
    put_data(&b, 32);
    refused(&b, status, says);
}

/* A key of that type and 32 bits, n times. */
static void keys_refused(uint64_t n, const char *name, uint32_t type, uint32_t value,
                         const char *says)
{
    struct bytes b;
    start(&b, 3, 0, n);
    for (uint64_t i = 0; i < n; i++) {
        put_text(&b, name);
        put32(&b, type);
        put32(&b, value);
    }
    put_data(&b, 32);
    refused(&b, ERR_FORMAT, says);
}

static void test_bad_keys(void **state)
{
    struct bytes b;
    (void)state;
    start(&b, 3, 0, 1);
    put64(&b, UINT64_MAX - 3);
    put_data(&b, 32);
    refused(&b, ERR_FORMAT, "name of a key");
    array_refused(GGUF_ARRAY, 1, ERR_UNSUPPORTED, "array of arrays");
    array_refused(77, 1, ERR_FORMAT, "element type 77");
    array_refused(GGUF_U64, UINT64_C(1) << 61, ERR_FORMAT, "claims");
    array_refused(GGUF_U64, UINT64_C(1) << 30, ERR_FORMAT, "value of a key");
    array_refused(GGUF_STRING, UINT64_C(1) << 61, ERR_FORMAT, "string");
    keys_refused(1, "k", 13, 0, "unknown type 13");
    keys_refused(2, "twin", GGUF_U32, 1, "twin occurs twice");
    keys_refused(1, "general.alignment", GGUF_U32, 48, "power of two");
    keys_refused(1, "general.alignment", GGUF_F32, 48, "power of two");
    keys_refused(1, "", GGUF_U32, 1, "is empty");
    keys_refused(1, "a\nb", GGUF_U32, 1, "not printable");
    keys_refused(1, "k", GGUF_BOOL, 2, "neither true nor false");
}

/* One tensor in a file with so many bytes of data. */
static void tensor_refused(uint64_t dim, uint32_t dtype, uint64_t offset, size_t data,
                           enum status status, const char *says)
{
    struct bytes b;
    start(&b, 3, 1, 0);
    put_tensor(&b, "t", dim, dtype, offset);
    put_data(&b, data);
    refused(&b, status, says);
}

/* Two tensors of 8 floats each in 64 bytes of data. */
static void pair_refused(const char *second, uint64_t offset, const char *says)
{
    struct bytes b;
    start(&b, 3, 2, 0);
    put_tensor(&b, "t", 8, DTYPE_F32, 0);
    put_tensor(&b, second, 8, DTYPE_F32, offset);
    put_data(&b, 64);
    refused(&b, ERR_FORMAT, says);
}

static void test_bad_tensors(void **state)
{
    struct bytes b;
    (void)state;
    tensor_refused(8, 12, 0, 32, ERR_UNSUPPORTED, "Q4_K (number 12)");
    tensor_refused(8, 12345, 0, 32, ERR_UNSUPPORTED, "unknown (number 12345)");
    tensor_refused(9, DTYPE_F32, 0, 32, ERR_FORMAT, "ends beyond the end");
    tensor_refused(8, DTYPE_F32, UINT64_MAX - 31, 32, ERR_FORMAT, "ends beyond the end");
    tensor_refused(33, DTYPE_Q8_0, 0, 128, ERR_FORMAT, "multiple of the 32");
    tensor_refused(UINT64_MAX / 2, DTYPE_F32, 0, 32, ERR_FORMAT, "overflows");
    tensor_refused(UINT64_MAX / 8, DTYPE_F32, 0, 32, ERR_FORMAT, "larger than the file");
    tensor_refused(8, DTYPE_F32, 16, 64, ERR_FORMAT, "multiple of the alignment");
    tensor_refused(0, DTYPE_F32, 0, 64, ERR_FORMAT, "dimension of 0");
    pair_refused("u", 0, "overlap");
    pair_refused("t", 32, "t occurs twice");
    start(&b, 3, 1, 0);
    put_text(&b, "t");
    put32(&b, 5);
    put_data(&b, 64);
    refused(&b, ERR_FORMAT, "5 dimensions");
}

/* A file cut short anywhere is refused; a flipped bit in a sealed header never passes as the same
 * model. */
static void test_damage(void **state)
{
    uint64_t size;
    uint8_t *file = make_file(&size);
    struct error e = {0};
    struct gguf g;
    (void)state;
    test_ok(gguf_parse(&g, file, size, "memory", false, &e), &e);
    uint64_t header = g.data_start, stated;
    gguf_close(&g);
    for (uint64_t cut = 0; cut < size; cut++) {
        uint8_t *copy = malloc(cut + 1);
        assert_non_null(copy);
        memcpy(copy, file, cut);
        memset(&e, 0, sizeof e);
        assert_int_not_equal(gguf_parse(&g, copy, cut, "cut", false, &e), OK);
        assert_int_not_equal(e.status, OK);
        free(copy);
    }
    for (uint64_t bit = 0; bit < header * 8; bit++) {
        file[bit / 8] ^= (uint8_t)(1 << bit % 8);
        memset(&e, 0, sizeof e);
        if (gguf_parse(&g, file, size, "flipped", false, &e) == OK) {
            assert_true(!gguf_get_u64(&g, GGUF_HEADER_HASH, &stated) ||
                        stated != gguf_header_hash(&g));
            gguf_close(&g);
        }
        file[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    free(file);
}

static void test_files(void **state)
{
    static const struct {
        const char *path;
        uint64_t tokens;
    } files[] = {
        {SBIT_SHARED_DIR "/tokenizers/ggml-vocab-gpt-2.gguf", 50257},
        {SBIT_SHARED_DIR "/tokenizers/ggml-vocab-llama-bpe.gguf", 128256},
        {SBIT_SHARED_DIR "/tokenizers/ggml-vocab-llama-spm.gguf", 32000},
        {SBIT_SHARED_DIR "/tokenizers/ggml-vocab-qwen2.gguf", 151936},
    };
    (void)state;
    if (access(files[0].path, R_OK) != 0) {
        print_message("%s is absent: skipped\n", files[0].path);
        skip();
    }
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct error e = {0};
        struct gguf g;
        struct gguf_string s;
        uint64_t at = 0, n = 0;
        test_ok(gguf_open(&g, files[i].path, true, &e), &e);
        const struct gguf_key *k = gguf_find_key(&g, "tokenizer.ggml.tokens");
        assert_int_equal(k->count, files[i].tokens);
        while (gguf_next_string(k, &at, &s))
            n++;
        assert_int_equal(n, k->count);
        gguf_close(&g);
    }
}

static void test_open_refused(void **state)
{
    struct error e = {0};
    struct gguf g;
    (void)state;
    test_refused(gguf_open(&g, SBIT_TEST_DIR "/absent", false, &e), ERR_IO, &e, "absent");
    memset(&e, 0, sizeof e);
    test_refused(gguf_open(&g, SBIT_TEST_DIR, false, &e), ERR_IO, &e, "folder");
    memset(&e, 0, sizeof e);
    test_write(SBIT_TEST_DIR "/empty", "", 0);
    test_refused(gguf_open(&g, SBIT_TEST_DIR "/empty", false, &e), ERR_FORMAT, &e, "not a GGUF");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),  cmocka_unit_test(test_replace),
        cmocka_unit_test(test_copy_keys),   cmocka_unit_test(test_writer_refuses),
        cmocka_unit_test(test_bad_start),   cmocka_unit_test(test_bad_keys),
        cmocka_unit_test(test_bad_tensors), cmocka_unit_test(test_damage),
        cmocka_unit_test(test_files),       cmocka_unit_test(test_open_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
