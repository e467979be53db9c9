/* safetensors headers: what is valid is listed, everything else is refused with a sentence. */
#include "common/safetensors.h"

#include "tests/unit/test_files.h"

/* A file of that header and n bytes of data counting up, free(). */
static uint8_t *make_file(const char *header, size_t n, uint64_t *size)
{
    uint64_t length = strlen(header);
    *size = 8 + length + n;
    uint8_t *file = malloc(*size);
    assert_non_null(file);
    memcpy(file, &length, 8);
    memcpy(file + 8, header, length);
    for (size_t i = 0; i < n; i++)
        file[8 + length + i] = (uint8_t)i;
    return file;
}

static const char good[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                           "\"b\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
                           "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
                           "\"c\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[16,24]},"
                           "\"d\":{\"dtype\":\"BF16\",\"shape\":[0,5],\"data_offsets\":[16,16]},"
                           "\"e\":{\"dtype\":\"F4\",\"shape\":[9],\"data_offsets\":[24,29]}}   ";

static void test_good(void **state)
{
    struct error e = {0};
    struct safetensors s;
    uint64_t size;
    uint8_t *file = make_file(good, 29, &size);
    (void)state;
    test_ok(safetensors_parse(&s, file, size, "memory", &e), &e);
    assert_int_equal(s.n_tensors, 5);
    assert_int_equal(s.header_bytes, 8 + strlen(good));
    const struct safetensors_tensor *t = safetensors_find(&s, "b");
    assert_true(t->known && t->dtype == DTYPE_F16 && t->dims == 2);
    assert_true(t->shape[0] == 2 && t->shape[1] == 3 && t->bytes == 12 && t->data[0] == 4);
    t = safetensors_find(&s, "a");
    assert_true(t->known && t->dtype == DTYPE_F32 && t->dims == 0 && t->bytes == 4);
    assert_false(safetensors_find(&s, "c")->known);
    assert_int_equal(safetensors_find(&s, "d")->bytes, 0);
    assert_string_equal(safetensors_find(&s, "e")->dtype_name, "F4");
    assert_null(safetensors_find(&s, "__metadata__"));
    safetensors_close(&s);
    free(file);
}

static void test_bad_headers(void **state)
{
    static const struct {
        const char *header, *says;
    } bad[] = {
        {"", "not valid JSON"},
        {"[]", "no JSON object"},
        {"{\"a\":", "not valid JSON"},
        {"{\"a\":{},\"a\":{}}", "duplicate"},
        {"{\"a\":1}", "no dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", "no shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", "no shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}",
         "no shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4.5]}}", "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[16],\"data_offsets\":[0,64]}}", "truncated"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", "do not make"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}",
         "do not make"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
         "overlap"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct error e = {0};
        struct safetensors s;
        uint64_t size;
        uint8_t *file = make_file(bad[i].header, 32, &size);
        test_refused(safetensors_parse(&s, file, size, "bad.safetensors", &e), ERR_FORMAT, &e,
                     bad[i].says);
        assert_non_null(strstr(e.text, "bad.safetensors"));
        free(file);
    }
}

static void test_bad_length(void **state)
{
    struct error e = {0};
    struct safetensors s;
    uint64_t size, huge = UINT64_MAX;
    uint8_t *file = make_file(good, 29, &size);
    (void)state;
    test_refused(safetensors_parse(&s, file, 5, "short", &e), ERR_FORMAT, &e, "8-byte");
    memset(&e, 0, sizeof e);
    test_refused(safetensors_parse(&s, NULL, 0, "empty", &e), ERR_FORMAT, &e, "8-byte");
    memset(&e, 0, sizeof e);
    memcpy(file, &huge, 8);
    test_refused(safetensors_parse(&s, file, size, "huge", &e), ERR_FORMAT, &e, "header of");
    free(file);
}

static void test_truncated(void **state)
{
    uint64_t size;
    uint8_t *file = make_file(good, 29, &size);
    (void)state;
    for (uint64_t cut = 0; cut < size; cut++) {
        struct error e = {0};
        struct safetensors s;
        uint8_t *copy = malloc(cut + 1);
        assert_non_null(copy);
        memcpy(copy, file, cut);
        assert_int_not_equal(safetensors_parse(&s, copy, cut, "cut", &e), OK);
        assert_true(e.text[0] != 0);
        free(copy);
    }
    free(file);
}

static void test_demo(void **state)
{
    struct error e = {0};
    struct safetensors s;
    (void)state;
    test_ok(safetensors_open(&s, SBIT_SOURCE_DIR "/models/demo/model.safetensors", &e), &e);
    const struct safetensors_tensor *t = safetensors_find(&s, "model.embed_tokens.weight");
    assert_non_null(t);
    assert_true(t->dtype == DTYPE_BF16 && t->shape[0] == 2048 && t->shape[1] == 128);
    safetensors_close(&s);
    test_refused(safetensors_open(&s, SBIT_TEST_DIR "/absent", &e), ERR_IO, &e, "absent");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),       cmocka_unit_test(test_bad_headers),
        cmocka_unit_test(test_bad_length), cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_demo),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
