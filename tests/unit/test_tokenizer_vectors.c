/* Conformance: the published vocabulary files and their vectors, and the token counts of the
 * reference models over a whole text. Everything here comes from ../shared; without it the test
 * is skipped. */
#include "tests/unit/tokenizer_fixtures.h"

#include <jansson.h>
#include <unistd.h>

#define TOKENIZERS SBIT_SHARED_DIR "/tokenizers/"
#define SEPARATOR  "\n__ggml_vocab_test__\n"

static struct tokenizer *open_tokenizer(const char *path)
{
    struct error e = {0};
    struct tokenizer *t;
    if (tokenizer_open(&t, path, &e) != OK)
        fail_msg("%s", e.text);
    return t;
}

static char *read_text(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("cannot open %s", path);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *size = (size_t)ftell(f);
    rewind(f);
    char *text = malloc(*size + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, *size, f), *size);
    text[*size] = '\0';
    fclose(f);
    return text;
}

/* One text against one line of ids; false when they differ. */
static bool same_ids(const struct tokenizer *t, const char *text, size_t n, const char *line)
{
    struct error e = {0};
    uint32_t *ids;
    size_t count, i = 0;
    if (tokenizer_encode(t, text, n, false, false, &ids, &count, &e) != OK)
        fail_msg("%s", e.text);
    bool same = true;
    for (const char *s = line; same; i++) {
        char *end;
        unsigned long expected = strtoul(s, &end, 10);
        if (end == s)
            break;
        same = i < count && ids[i] == expected;
        s = end;
    }
    same = same && i == count;
    if (!same) {
        print_error("text \"%.*s\"\n  expected%s\n  found   ", (int)n, text, line);
        for (i = 0; i < count; i++)
            print_error(" %u", ids[i]);
        print_error("\n");
    }
    free(ids);
    return same;
}

static void check_texts(const struct tokenizer *t, const char *name, const char *vectors)
{
    char path[512];
    size_t in_size, out_size, texts = 0, wrong = 0;
    snprintf(path, sizeof path, TOKENIZERS "%s.inp", vectors);
    char *in = read_text(path, &in_size);
    snprintf(path, sizeof path, TOKENIZERS "%s.out", vectors);
    char *out = read_text(path, &out_size);
    char *text = in, *line = out, *end;
    while ((end = strstr(text, SEPARATOR)) != NULL) {
        char *newline = strchr(line, '\n');
        assert_non_null(newline);
        *newline = '\0';
        wrong += !same_ids(t, text, (size_t)(end - text), line);
        texts++;
        text = end + strlen(SEPARATOR);
        line = newline + 1;
    }
    assert_int_equal(*text, '\0');
    assert_int_equal(*line, '\0');
    print_message("%s: %zu of %zu texts\n", name, texts - wrong, texts);
    assert_true(texts > 40);
    assert_int_equal(wrong, 0);
    free(in);
    free(out);
}

static void check_vectors(const char *tokenizer, const char *vectors)
{
    char path[512];
    snprintf(path, sizeof path, TOKENIZERS "%s", tokenizer);
    struct tokenizer *t = open_tokenizer(path);
    check_texts(t, tokenizer, vectors);
    struct tokenizer *again = through_gguf(t, NULL);
    assert_non_null(again);
    check_texts(again, "written to GGUF and read again", vectors);
    tokenizer_free(again);
    tokenizer_free(t);
}

struct pair { /* a merge of a converted vocabulary */
    float score;
    uint32_t id, cut; /* the token and where it is cut */
};

static int compare_pairs(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->id != y->id ? (x->id < y->id ? -1 : 1) : (int)x->cut - (int)y->cut;
}

/* All ways to cut tokens into two tokens, best score first: so converters make merges of scores. */
static json_t *make_merges(const struct tokenizer *t)
{
    size_t n = 0, capacity = 100000;
    struct pair *pairs = calloc(capacity, sizeof *pairs);
    json_t *merges = json_array();
    assert_non_null(pairs);
    for (uint32_t id = 0; id < t->n; id++) {
        const struct tok_piece *p = &t->pieces[id];
        const char *s = t->texts.data + p->text;
        for (uint32_t cut = 1; cut < p->text_size && p->type == TOK_NORMAL; cut++)
            if (tok_find_plain(t, s, cut) != TOK_NONE && n < capacity &&
                tok_find_plain(t, s + cut, p->text_size - cut) != TOK_NONE)
                pairs[n++] = (struct pair){p->score, id, cut};
    }
    assert_true(n < capacity);
    qsort(pairs, n, sizeof *pairs, compare_pairs);
    for (size_t i = 0; i < n; i++) {
        const struct tok_piece *p = &t->pieces[pairs[i].id];
        const char *s = t->texts.data + p->text;
        json_array_append_new(merges,
                              json_pack("[s%, s%]", s, (size_t)pairs[i].cut, s + pairs[i].cut,
                                        (size_t)(p->text_size - pairs[i].cut)));
    }
    free(pairs);
    return merges;
}

/* The tokenizer.json that a converter makes of a tokenizer.model. */
static struct tokenizer *convert_to_json(const struct tokenizer *t)
{
    struct error e = {0};
    struct tokenizer *out;
    json_t *vocab = json_object();
    for (uint32_t id = 0; id < t->n; id++) {
        char key[TOK_MAX_PIECE + 1];
        const struct tok_piece *p = &t->pieces[id];
        snprintf(key, sizeof key, "%.*s", (int)p->text_size, t->texts.data + p->text);
        json_object_set_new(vocab, key, json_integer(id));
    }
    json_t *root = json_pack(
        "{s:[], s:{s:s, s:[{s:s, s:s}, {s:s, s:{s:s}, s:s}]}, s:{s:s, s:b, s:b, s:s, s:o, s:o}}",
        "added_tokens", "normalizer", "type", "Sequence", "normalizers", "type", "Prepend",
        "prepend", TOK_SPACE, "type", "Replace", "pattern", "String", " ", "content", TOK_SPACE,
        "model", "type", "BPE", "byte_fallback", 1, "fuse_unk", 1, "unk_token", "<unk>", "vocab",
        vocab, "merges", make_merges(t));
    assert_non_null(root);
    char *text = json_dumps(root, 0);
    assert_non_null(text);
    if (tokenizer_from_json_text(&out, "converted.json", text, strlen(text), &e) != OK)
        fail_msg("%s", e.text);
    free(text);
    json_decref(root);
    return out;
}

static void test_gpt2(void **state)
{
    (void)state;
    check_vectors("ggml-vocab-gpt-2.gguf", "ggml-vocab-gpt-2.gguf");
}

static void test_llama_bpe(void **state)
{
    (void)state;
    check_vectors("ggml-vocab-llama-bpe.gguf", "ggml-vocab-llama-bpe.gguf");
}

static void test_qwen2(void **state)
{
    (void)state;
    check_vectors("ggml-vocab-qwen2.gguf", "ggml-vocab-qwen2.gguf");
}

static void test_llama_spm(void **state)
{
    (void)state;
    check_vectors("ggml-vocab-llama-spm.gguf", "ggml-vocab-llama-spm.gguf");
    check_vectors("hf/llama2/tokenizer.model", "ggml-vocab-llama-spm.gguf");
    struct tokenizer *model = open_tokenizer(TOKENIZERS "hf/llama2/tokenizer.model");
    struct tokenizer *json = convert_to_json(model);
    check_texts(json, "the same as tokenizer.json", "ggml-vocab-llama-spm.gguf");
    tokenizer_free(json);
    tokenizer_free(model);
}

static void same_encoding(const struct tokenizer *a, const struct tokenizer *b, const char *text,
                          size_t size)
{
    struct error e = {0};
    uint32_t *x, *y;
    size_t nx, ny;
    assert_int_equal(tokenizer_encode(a, text, size, true, true, &x, &nx, &e), OK);
    assert_int_equal(tokenizer_encode(b, text, size, true, true, &y, &ny, &e), OK);
    assert_int_equal(nx, ny);
    assert_memory_equal(x, y, nx * sizeof *x);
    free(x);
    free(y);
}

/* The tokenizer.json in the folder hf/llama2 holds Mistral's vocabulary: ranked merges on one
 * side, scores on the other, and the same ids for any text. */
static void test_json_is_model(void **state)
{
    (void)state;
    size_t size;
    struct tokenizer *json = open_tokenizer(TOKENIZERS "hf/llama2/tokenizer.json");
    struct tokenizer *model = open_tokenizer(TOKENIZERS "hf/mistral-v1/tokenizer.model");
    char *text = read_text(TOKENIZERS "ggml-vocab-gpt-2.gguf.inp", &size);
    for (size_t start = 0; start < size; start += 7)
        same_encoding(json, model, text + start, size - start);
    free(text);
    text = read_text(SBIT_SHARED_DIR "/data/tinystories-dev.txt", &size);
    same_encoding(json, model, text, size);
    unsigned seed = 11;
    print_message("seed %u\n", seed);
    srand(seed);
    for (size_t i = 0; i < size; i++) /* spaces and letters in improbable orders, and any bytes */
        text[i] = rand() % 2 ? text[rand() % size] : (char)(rand() % (i < size / 2 ? 128 : 256));
    same_encoding(json, model, text, size);
    free(text);
    tokenizer_free(json);
    tokenizer_free(model);
}

/* Tokens of the reference text without BOS: every one of them is scored in an evaluation. */
static void check_count(const char *tokenizer, size_t expected)
{
    struct error e = {0};
    char path[512];
    size_t size, count;
    uint32_t *ids;
    snprintf(path, sizeof path, SBIT_SHARED_DIR "/models/%s", tokenizer);
    struct tokenizer *t = open_tokenizer(path);
    char *text = read_text(SBIT_SHARED_DIR "/data/tinystories-dev.txt", &size);
    if (tokenizer_encode(t, text, size, false, false, &ids, &count, &e) != OK)
        fail_msg("%s", e.text);
    print_message("%s: %zu tokens\n", tokenizer, count);
    assert_int_equal(count, expected);
    free(ids);
    free(text);
    tokenizer_free(t);
}

static void test_counts(void **state)
{
    (void)state;
    check_count("demo", 108848);
    check_count("stories260K", 193791);
    check_count("stories260K/model-f32.gguf", 193792);
    check_count("babyllama-1M", 394724);
}

/* The texts of a vector file come back from their ids. */
static void check_round_trip(const char *tokenizer)
{
    struct error e = {0};
    char path[512];
    size_t size, count, got = 0;
    uint32_t *ids;
    snprintf(path, sizeof path, TOKENIZERS "%s", tokenizer);
    struct tokenizer *t = open_tokenizer(path);
    char *text = read_text(TOKENIZERS "ggml-vocab-gpt-2.gguf.inp", &size);
    if (tokenizer_encode(t, text, size, false, false, &ids, &count, &e) != OK)
        fail_msg("%s", e.text);
    struct text_stream s;
    text_stream_init(&s, t, true);
    for (size_t i = 0; i < count; i++) {
        const char *part = text_stream_push(&s, ids[i]);
        assert_true(got + strlen(part) <= size);
        assert_memory_equal(part, text + got, strlen(part));
        got += strlen(part);
    }
    assert_string_equal(text_stream_finish(&s), "");
    assert_int_equal(got, size);
    free(ids);
    free(text);
    tokenizer_free(t);
}

static void test_round_trips(void **state)
{
    (void)state;
    check_round_trip("hf/smollm2");
    check_round_trip("hf/llama2");
    check_round_trip("hf/mistral-v1");
    check_round_trip("ggml-vocab-llama-bpe.gguf");
}

int main(void)
{
    if (access(TOKENIZERS "ggml-vocab-gpt-2.gguf", R_OK) != 0) {
        printf("skipped: there are no vectors in %s\n", TOKENIZERS);
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2),          cmocka_unit_test(test_llama_bpe),
        cmocka_unit_test(test_qwen2),         cmocka_unit_test(test_llama_spm),
        cmocka_unit_test(test_json_is_model), cmocka_unit_test(test_counts),
        cmocka_unit_test(test_round_trips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
