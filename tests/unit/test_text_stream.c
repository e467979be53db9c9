/* Streaming decode: whole characters only, whatever the tokens cut. */
#include "tests/unit/tokenizer_fixtures.h"

static void test_character_over_tokens(void **state)
{
    (void)state;
    struct tokenizer *t = demo_tokenizer();
    struct text_stream s;
    const char *text = "a\xF0\x9F\x98\x80z";
    text_stream_init(&s, t, true);
    for (int i = 0; i < 6; i++) {
        const char *expected = i == 0 ? "a" : i == 4 ? "\xF0\x9F\x98\x80" : i == 5 ? "z" : "";
        assert_string_equal(text_stream_push(&s, t->byte_id[(uint8_t)text[i]]), expected);
    }
    assert_string_equal(text_stream_finish(&s), "");
    tokenizer_free(t);
}

static void test_invalid_bytes(void **state)
{
    (void)state;
    struct tokenizer *t = demo_tokenizer();
    struct text_stream s;
    text_stream_init(&s, t, true);
    assert_string_equal(text_stream_push(&s, t->byte_id[0x80]), "\xEF\xBF\xBD");
    assert_string_equal(text_stream_push(&s, t->byte_id[0xE2]), "");
    assert_string_equal(text_stream_push(&s, t->byte_id[0x96]), "");
    /* The cut character is one U+FFFD, and what broke it off still comes. */
    assert_string_equal(text_stream_push(&s, t->byte_id['x']), "\xEF\xBF\xBDx");
    assert_string_equal(text_stream_push(&s, t->byte_id[0xF0]), "");
    assert_string_equal(text_stream_finish(&s), "\xEF\xBF\xBD");
    assert_string_equal(text_stream_finish(&s), "");
    tokenizer_free(t);
}

static void test_control_tokens_are_silent(void **state)
{
    (void)state;
    struct tokenizer *t = demo_tokenizer();
    struct text_stream s;
    text_stream_init(&s, t, true);
    assert_string_equal(text_stream_push(&s, 0), "");
    assert_string_equal(text_stream_push(&s, UINT32_MAX), "");
    assert_string_equal(text_stream_push(&s, t->byte_id[' ']), " "); /* byte-level adds no space */
    tokenizer_free(t);
}

static void test_leading_space(void **state)
{
    (void)state;
    struct tokenizer *t = json_tokenizer(spm_json(SPM_WORDS, SPM_MERGES, SPM_NORMALISER));
    struct text_stream s;
    text_stream_init(&s, t, true);
    assert_string_equal(text_stream_push(&s, 1), "");
    assert_string_equal(text_stream_push(&s, 264), "ab");
    assert_string_equal(text_stream_push(&s, 264), " ab");
    assert_string_equal(text_stream_push(&s, 3 + 0xC3), "");
    assert_string_equal(text_stream_push(&s, 3 + 0xA9), "\xC3\xA9");
    text_stream_init(&s, t, false);
    assert_string_equal(text_stream_push(&s, 264), " ab");
    tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_character_over_tokens),
        cmocka_unit_test(test_invalid_bytes),
        cmocka_unit_test(test_control_tokens_are_silent),
        cmocka_unit_test(test_leading_space),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
