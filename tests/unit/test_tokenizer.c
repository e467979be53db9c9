/* Tokenizers from JSON, protobuf and GGUF: what they make of texts, that they come back unchanged
 * from a GGUF header, and that damaged ones are refused with a sentence that names the damage. */
#include "tests/unit/tokenizer_fixtures.h"

#include "common/utf8.h"
#include "proto/sentencepiece.pb-c.h"

#define NO_LINKS   "'normalizer':null"
#define BYTE_LEVEL "'pre_tokenizer':{'type':'ByteLevel','add_prefix_space':false,'use_regex':true}"

static void test_demo(void **state)
{
    (void)state;
    struct tokenizer *t = demo_tokenizer();
    struct error e = {0};
    uint32_t *ids;
    size_t count, size;
    assert_int_equal(tokenizer_vocab(t), 2048);
    assert_string_equal(tokenizer_describe(t), "byte-level BPE, gpt-2");
    assert_true(tokenizer_adds_bos(t));
    assert_int_equal(tokenizer_bos(t), 0);
    assert_int_equal(tokenizer_eos(t), 0);
    assert_true(tokenizer_is_end(t, 0) && tokenizer_is_end(t, 2) && !tokenizer_is_end(t, 1));
    assert_int_equal(tokenizer_encode(t, "", 0, true, false, &ids, &count, &e), OK);
    assert_int_equal(count, 1);
    assert_int_equal(ids[0], 0);
    free(ids);
    expect_ids(t, "<|im_end|>", true, "2");
    assert_int_equal(tokenizer_encode(t, "<|im_end|>", 10, false, false, &ids, &count, &e), OK);
    assert_true(count > 1);
    free(ids);
    assert_string_equal(tokenizer_piece(t, 2, false, &size), "");
    assert_int_equal(size, 0);
    assert_memory_equal(tokenizer_piece(t, 2, true, &size), "<|im_end|>", 10);
    assert_int_equal(size, 10);
    tokenizer_free(t);
}

/* Characters of every length, and where any_bytes is set bytes that are no characters. */
static size_t random_text(char *out, size_t capacity, bool any_bytes)
{
    size_t n = 0, length = (size_t)rand() % (capacity - 4);
    while (n < length) {
        static const uint32_t limits[] = {0x80, 0x800, 0xD800, 0x110000};
        uint32_t cp = (uint32_t)rand() % limits[rand() % 4];
        if (any_bytes && rand() % 8 == 0)
            out[n++] = (char)rand();
        else if (cp != 0x2581 && (cp < 0xD800 || cp > 0xDFFF)) /* U+2581 means a space */
            n += utf8_put(out + n, cp);
    }
    return n;
}

static void check_round_trip(const struct tokenizer *t, const char *text, size_t n)
{
    struct error e = {0};
    uint32_t *ids;
    size_t count, at = 0;
    bool prefixed = t->dummy_prefix;
    assert_int_equal(tokenizer_encode(t, text, n, true, false, &ids, &count, &e), OK);
    for (size_t i = 0; i < count; i++) {
        size_t size;
        const char *piece = tokenizer_piece(t, ids[i], false, &size);
        if (prefixed && size > 0) {
            prefixed = false;
            assert_int_equal(*piece, ' ');
            piece++;
            size--;
        }
        assert_true(size <= n - at);
        assert_memory_equal(piece, text + at, size);
        at += size;
    }
    assert_int_equal(at, n);
    free(ids);
}

static void test_random_round_trips(void **state)
{
    (void)state;
    struct tokenizer *bpe = demo_tokenizer();
    struct tokenizer *spm = json_tokenizer(spm_json(SPM_WORDS, SPM_MERGES, SPM_NORMALISER));
    unsigned seed = 20240607;
    print_message("seed %u\n", seed);
    srand(seed);
    for (int i = 0; i < 2000; i++) {
        char text[300];
        size_t n = random_text(text, sizeof text, i % 2);
        check_round_trip(bpe, text, n);
        check_round_trip(spm, text, n);
    }
    tokenizer_free(bpe);
    tokenizer_free(spm);
}

static void test_sentencepiece_json(void **state)
{
    (void)state;
    struct tokenizer *t = json_tokenizer(spm_json(SPM_WORDS, SPM_MERGES, SPM_NORMALISER));
    assert_false(t->rank_pairs);
    expect_ids(t, "", false, "");
    expect_ids(t, "ab ab", false, "264 264");
    expect_ids(t, "bab", false, "259 261 263");
    expect_ids(t, " ab", false, "259 264");
    expect_ids(t, "a\n\xC3\xA9", false, "262 13 198 172");
    expect_ids(t, "ab</s>ab", true, "264 2 264");
    tokenizer_free(t);
    /* A pair that is not listed is not merged, although its text is a token. */
    t = json_tokenizer(spm_json(SPM_WORDS, "'\xE2\x96\x81 a','a b'", SPM_NORMALISER));
    assert_true(t->rank_pairs);
    expect_ids(t, "ab", false, "262 261");
    struct error e = {0};
    struct gguf_writer *w;
    assert_int_equal(gguf_writer_create(&w, 32, &e), OK);
    assert_int_equal(tokenizer_to_gguf(t, w, &e), ERR_UNSUPPORTED);
    gguf_writer_free(w);
    tokenizer_free(t);
}

static void test_metaspace(void **state)
{
    (void)state;
    struct tokenizer *t =
        json_tokenizer(spm_json(SPM_WORDS, SPM_MERGES,
                                "'pre_tokenizer':{'type':'Metaspace','replacement':'\xE2\x96\x81',"
                                "'prepend_scheme':'first','split':false}"));
    expect_ids(t, "ab", false, "264");
    expect_ids(t, " ab", false, "264");
    expect_ids(t, "ab</s>ab", true, "264 2 263");
    tokenizer_free(t);
}

/* Byte-level with the letters a, b, c, the space and what the caller adds. */
static const char *bpe_json(const char *words, const char *merges, const char *added,
                            const char *links, const char *options)
{
    static char text[8192];
    snprintf(text, sizeof text,
             "{'added_tokens':[%s],%s,'model':{'type':'BPE',%s'merges':[%s],'vocab':{'a':0,'b':1,"
             "'c':2,'\xC4\xA0':3%s}}}",
             added, links, options, merges, words);
    return text;
}

static void test_byte_level_json(void **state)
{
    (void)state;
    const char *words = ",'ab':4,'bc':5,'abc':6,'\xC4\xA0"
                        "a':7";
    struct tokenizer *t =
        json_tokenizer(bpe_json(words, "'a b',['b','c'],['\xC4\xA0','a']", "", BYTE_LEVEL, ""));
    expect_ids(t, "abc", false, "4 2");
    expect_ids(t, "bc a", false, "5 7");
    expect_ids(t, "a?b", false, "0 1"); /* no token, no unknown token: lost */
    tokenizer_free(t);
    t = json_tokenizer(bpe_json(words, "'a b','b c'", "", BYTE_LEVEL, "'ignore_merges':true,"));
    expect_ids(t, "abc abc", false, "6 3 4 2");
    tokenizer_free(t);
}

static void test_added_tokens(void **state)
{
    (void)state;
    const char *added = "{'id':8,'content':'b','special':false},"
                        "{'id':9,'content':'<x>','special':true,'lstrip':true,'rstrip':true},"
                        "{'id':10,'content':'<x>>','special':true}";
    struct tokenizer *t = json_tokenizer(bpe_json(",'<':4,'>':5,'x':6", "", added, BYTE_LEVEL, ""));
    struct error e;
    expect_ids(t, "", true, "");
    expect_ids(t, "a <x> a", true, "0 9 0");
    expect_ids(t, "<x>>c", true, "10 2");
    expect_ids(t, "<x>", false, "4 6 5");
    expect_ids(t, "abc", false, "0 8 2");
    tokenizer_free(t);
    assert_int_equal(json_load(&t, bpe_json("", "", "{'id':1,'content':'z'}", BYTE_LEVEL, ""), &e),
                     ERR_FORMAT);
    assert_non_null(strstr(e.text, "two tokens have the id 1"));
}

static void test_pre_tokenizers(void **state)
{
    (void)state;
    const char *words = ",'1':4,'2':5,'12':6,'-':7,'\xC3\x83':8,'\xC2\xA9':9,'e':10,'\xC3\x8C':11,"
                        "'\xC4\xA3':12";
    const char *split = "'pre_tokenizer':{'type':'Sequence','pretokenizers':[{'type':'Split',"
                        "'pattern':{'Regex':'\\\\p{N}{1,2}'},'behavior':'Isolated','invert':false},"
                        "{'type':'ByteLevel','add_prefix_space':false,'use_regex':false}]}";
    const char *digits =
        "'pre_tokenizer':{'type':'Sequence','pretokenizers':[{'type':'Digits',"
        "'individual_digits':true},{'type':'ByteLevel','add_prefix_space':false}]}";
    struct tokenizer *t = json_tokenizer(bpe_json(words, "'1 2'", "", split, ""));
    expect_ids(t, "112", false, "4 4 5");
    expect_ids(t, "1212", false, "6 6");
    tokenizer_free(t);
    t = json_tokenizer(bpe_json(words, "'1 2'", "", digits, ""));
    assert_string_equal(tokenizer_describe(t), "byte-level BPE, smollm");
    expect_ids(t, "12", false, "4 5");
    tokenizer_free(t);
    t = json_tokenizer(bpe_json(words, "", "", BYTE_LEVEL ",'normalizer':{'type':'NFC'}", ""));
    expect_ids(t, "e\xCC\x81", false, "8 9");          /* e and an accent become one letter */
    expect_ids(t, "e\xCC\x81\xFF", false, "10 11 12"); /* not UTF-8: no normal form */
    tokenizer_free(t);
}

static void check_same(const struct tokenizer *a, const struct tokenizer *b)
{
    assert_non_null(b);
    assert_string_equal(tokenizer_describe(a), tokenizer_describe(b));
    assert_int_equal(tokenizer_vocab(a), tokenizer_vocab(b));
    assert_int_equal(tokenizer_bos(a), tokenizer_bos(b));
    assert_int_equal(tokenizer_eos(a), tokenizer_eos(b));
    assert_int_equal(a->unk, b->unk);
    assert_int_equal(tokenizer_adds_bos(a), tokenizer_adds_bos(b));
    for (uint32_t id = 0; id < tokenizer_vocab(a); id++) {
        size_t x, y;
        const char *p = tokenizer_piece(a, id, true, &x), *q = tokenizer_piece(b, id, true, &y);
        assert_int_equal(x, y);
        assert_memory_equal(p, q, x);
        assert_int_equal(tokenizer_is_end(a, id), tokenizer_is_end(b, id));
    }
    for (int i = 0; i < 300; i++) {
        struct error e = {0};
        char text[300];
        uint32_t *x, *y;
        size_t n = random_text(text, sizeof text, i % 2), nx, ny;
        for (size_t k = 0; k < n; k++) /* so that there is something to merge */
            text[k] = rand() % 4 ? "ab c<s>12"[rand() % 9] : text[k];
        assert_int_equal(tokenizer_encode(a, text, n, true, true, &x, &nx, &e), OK);
        assert_int_equal(tokenizer_encode(b, text, n, true, true, &y, &ny, &e), OK);
        assert_int_equal(nx, ny);
        assert_memory_equal(x, y, nx * sizeof *x);
        free(x);
        free(y);
    }
}

static void check_gguf(struct tokenizer *t)
{
    struct tokenizer *again = through_gguf(t, NULL);
    check_same(t, again);
    tokenizer_free(again);
    tokenizer_free(t);
}

static void test_gguf_round_trips(void **state)
{
    (void)state;
    check_gguf(demo_tokenizer());
    check_gguf(json_tokenizer(spm_json(SPM_WORDS, SPM_MERGES, SPM_NORMALISER)));
    check_gguf(
        json_tokenizer(spm_json(SPM_WORDS, SPM_MERGES,
                                "'pre_tokenizer':{'type':'Metaspace','replacement':'\xE2\x96\x81',"
                                "'prepend_scheme':'always','split':false}")));
    check_gguf(json_tokenizer(
        bpe_json(",'bc':4", "'b c'", "{'id':9,'content':'c','special':false}",
                 "'normalizer':{'type':'NFC'},'pre_tokenizer':{'type':'Sequence','pretokenizers':"
                 "[{'type':'Split','pattern':{'Regex':'[ab]+'},'behavior':'Isolated'},"
                 "{'type':'ByteLevel','add_prefix_space':false,'use_regex':false}]}",
                 "")));
}

static void test_padding(void **state)
{
    (void)state;
    struct tokenizer *t = demo_tokenizer();
    struct error e = {0};
    size_t size;
    assert_int_equal(tokenizer_pad(t, 2050, &e), OK);
    assert_int_equal(tokenizer_vocab(t), 2050);
    assert_string_equal(tokenizer_piece(t, 2049, true, &size), "[PAD2049]");
    assert_string_equal(tokenizer_piece(t, 2049, false, &size), "");
    assert_int_equal(tokenizer_pad(t, 2049, &e), ERR_FORMAT);
    check_gguf(t);
}

static void test_unknown_pre(void **state)
{
    (void)state;
    struct tokenizer *t = demo_tokenizer();
    assert_null(through_gguf(t, "tekken"));
    tokenizer_free(t);
}

/* Loads JSON that must be refused with words in the sentence. */
static void refuse(const char *text, enum status status, const char *words)
{
    struct tokenizer *t;
    struct error e;
    assert_int_equal(json_load(&t, text, &e), status);
    assert_null(t);
    if (!strstr(e.text, words) || strncmp(e.text, "test.json", 9) != 0)
        fail_msg("expected \"%s\" in: %s", words, e.text);
}

static void test_refused_json(void **state)
{
    (void)state;
    refuse("{", ERR_FORMAT, "JSON");
    refuse("{}", ERR_FORMAT, "model");
    refuse("{'model':{'type':'Unigram'}}", ERR_UNSUPPORTED, "Unigram");
    refuse("{'model':{'type':'BPE'}}", ERR_UNSUPPORTED, "neither");
    refuse("{" BYTE_LEVEL ",'model':{'type':'BPE'}}", ERR_FORMAT, "vocabulary");
    refuse(bpe_json("", "'a z'", "", BYTE_LEVEL, ""), ERR_FORMAT, "\"z\", which is not a token");
    refuse(bpe_json("", "'a b'", "", BYTE_LEVEL, ""), ERR_FORMAT, "\"ab\", which is not a token");
    refuse(bpe_json("", "'ab'", "", BYTE_LEVEL, ""), ERR_FORMAT, "two parts");
    refuse(bpe_json("", "['a']", "", BYTE_LEVEL, ""), ERR_FORMAT, "merge 0");
    refuse(bpe_json("", "7", "", BYTE_LEVEL, ""), ERR_FORMAT, "merge 0");
    refuse(bpe_json(",'d':2", "", "", BYTE_LEVEL, ""), ERR_FORMAT, "two tokens have the id 2");
    refuse(bpe_json(",'d':-1", "", "", BYTE_LEVEL, ""), ERR_FORMAT, "\"d\" has no id");
    refuse(bpe_json(",'d':16777216", "", "", BYTE_LEVEL, ""), ERR_FORMAT, "\"d\" has no id");
    refuse(bpe_json(",'d':16777215", "", "", BYTE_LEVEL, ""), ERR_LIMIT, "ids up to 16777215");
    refuse(bpe_json(",'d':'4'", "", "", BYTE_LEVEL, ""), ERR_FORMAT, "\"d\" has no id");
    refuse(bpe_json("", "", "{'id':9}", BYTE_LEVEL, ""), ERR_FORMAT, "no content");
    refuse(bpe_json("", "", "", BYTE_LEVEL ",'normalizer':{'type':'Lowercase'}", ""),
           ERR_UNSUPPORTED, "Lowercase");
    refuse(bpe_json("", "", "",
                    "'pre_tokenizer':{'type':'Sequence','pretokenizers':[{'type':"
                    "'Punctuation'},{'type':'ByteLevel','add_prefix_space':false}]}",
                    ""),
           ERR_UNSUPPORTED, "Punctuation");
    refuse(
        bpe_json("", "", "",
                 "'pre_tokenizer':{'type':'Sequence','pretokenizers':[{'type':'Split','behavior':"
                 "'Isolated','pattern':{'Regex':'(a'}},{'type':'ByteLevel','add_prefix_space':"
                 "false}]}",
                 ""),
        ERR_FORMAT, "PCRE2 refuses");
}

static void test_holes(void **state)
{
    (void)state;
    struct tokenizer *t = json_tokenizer(bpe_json(",'ab':6", "'a b'", "", BYTE_LEVEL, ""));
    size_t size;
    assert_int_equal(tokenizer_vocab(t), 7);
    assert_string_equal(tokenizer_piece(t, 5, false, &size), "");
    assert_string_equal(tokenizer_piece(t, 5, true, &size), "[PAD5]");
    expect_ids(t, "ab", false, "6");
    tokenizer_free(t);
}

#define MODEL_PIECES 8

/* A tokenizer.model without byte fallback, as bytes; changed by the caller's callback. */
static enum status load_model(struct tokenizer **t, struct error *e,
                              void (*change)(Sentencepiece__Model *m))
{
    static const char *const texts[MODEL_PIECES] = {"<unk>", "<s>", "</s>",          "\xE2\x96\x81",
                                                    "a",     "b",   "\342\226\201a", "[x]"};
    static const Sentencepiece__Piece__Type types[MODEL_PIECES] = {2, 3, 3, 1, 1, 1, 1, 4};
    Sentencepiece__Model m = SENTENCEPIECE__MODEL__INIT;
    Sentencepiece__TrainerSpec trainer = SENTENCEPIECE__TRAINER_SPEC__INIT;
    Sentencepiece__NormalizerSpec normal = SENTENCEPIECE__NORMALIZER_SPEC__INIT;
    Sentencepiece__Piece piece[MODEL_PIECES], *pieces[MODEL_PIECES];
    for (int i = 0; i < MODEL_PIECES; i++) {
        sentencepiece__piece__init(&piece[i]);
        pieces[i] = &piece[i];
        piece[i].piece = (ProtobufCBinaryData){strlen(texts[i]), (uint8_t *)texts[i]};
        piece[i].has_piece = piece[i].has_score = piece[i].has_type = 1;
        piece[i].score = -(float)i;
        piece[i].type = types[i];
    }
    trainer.has_model_type = 1;
    trainer.model_type = SENTENCEPIECE__TRAINER_SPEC__MODEL_TYPE__BPE;
    m.n_pieces = MODEL_PIECES;
    m.pieces = pieces;
    m.trainer_spec = &trainer;
    m.normalizer_spec = &normal;
    if (change)
        change(&m);
    uint8_t *data = malloc(sentencepiece__model__get_packed_size(&m));
    assert_non_null(data);
    size_t size = sentencepiece__model__pack(&m, data);
    *e = (struct error){0};
    enum status status = tokenizer_from_model_bytes(t, "test.model", data, size, e);
    free(data);
    return status;
}

static void keep_spaces(Sentencepiece__Model *m)
{
    m->normalizer_spec->has_remove_extra_whitespaces = 1;
    m->normalizer_spec->remove_extra_whitespaces = 0;
}

static void test_model(void **state)
{
    (void)state;
    struct tokenizer *t;
    struct error e;
    assert_int_equal(load_model(&t, &e, NULL), OK);
    assert_true(tokenizer_adds_bos(t));
    expect_ids(t, "a a", false, "6 6");
    expect_ids(t, "  a   b ", false, "6 3 5"); /* the default is to remove extra spaces */
    expect_ids(t, "   ", false, "");
    expect_ids(t, "xyza", false, "3 0 4"); /* one unknown token for the run */
    expect_ids(t, "x \xC3\xA9\n", false, "3 0 3 0");
    expect_ids(t, "a[x]a", false, "6 7 4");
    check_gguf(t);
    assert_int_equal(load_model(&t, &e, keep_spaces), OK);
    expect_ids(t, "a  b ", false, "6 3 3 5 3");
    check_gguf(t);
}

static void make_unigram(Sentencepiece__Model *m)
{
    m->trainer_spec->model_type = SENTENCEPIECE__TRAINER_SPEC__MODEL_TYPE__UNIGRAM;
}

static void add_charsmap(Sentencepiece__Model *m)
{
    static uint8_t map[4];
    m->normalizer_spec->has_precompiled_charsmap = 1;
    m->normalizer_spec->precompiled_charsmap = (ProtobufCBinaryData){sizeof map, map};
}

static void bad_score(Sentencepiece__Model *m)
{
    m->pieces[4]->score = (float)(0.0 / 0.0);
}

static void no_pieces(Sentencepiece__Model *m)
{
    m->n_pieces = 0;
}

static void test_refused_models(void **state)
{
    (void)state;
    struct tokenizer *t;
    struct error e;
    assert_int_equal(load_model(&t, &e, make_unigram), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.text, "BPE"));
    assert_int_equal(load_model(&t, &e, add_charsmap), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.text, "identity"));
    assert_int_equal(load_model(&t, &e, bad_score), ERR_FORMAT);
    assert_non_null(strstr(e.text, "token 4"));
    assert_int_equal(load_model(&t, &e, no_pieces), ERR_FORMAT);
    e = (struct error){0};
    assert_int_equal(tokenizer_from_model_bytes(&t, "test.model", "\x0A\xFF", 2, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "damaged"));
    /* A megabyte of empty pieces would unpack to a hundred. */
    size_t size = 1 << 20;
    uint8_t *data = calloc(size, 1);
    assert_non_null(data);
    for (size_t i = 0; i < size; i += 2)
        data[i] = 0x0A;
    e = (struct error){0};
    assert_int_equal(tokenizer_from_model_bytes(&t, "test.model", data, size, &e), ERR_FORMAT);
    free(data);
}

/* A GGUF tokenizer that lacks something. */
static enum status load_keys(bool scores, uint32_t n_scores, uint32_t bos, const char *model,
                             struct error *e)
{
    struct gguf_string tokens[3] = {{"<unk>", 5}, {"<s>", 3}, {"a", 1}};
    float values[8] = {0};
    struct gguf_writer *w;
    struct gguf g;
    struct tokenizer *t = NULL;
    uint8_t *data;
    uint64_t size;
    *e = (struct error){0};
    assert_int_equal(gguf_writer_create(&w, 32, e), OK);
    assert_int_equal(gguf_set_string(w, "tokenizer.ggml.model", model, e), OK);
    assert_int_equal(gguf_set_strings(w, "tokenizer.ggml.tokens", tokens, 3, e), OK);
    if (scores)
        assert_int_equal(gguf_set_array(w, "tokenizer.ggml.scores", GGUF_F32, values, n_scores, e),
                         OK);
    assert_int_equal(gguf_set_u32(w, "tokenizer.ggml.bos_token_id", bos, e), OK);
    assert_int_equal(gguf_set_u32(w, "tokenizer.ggml.eos_token_id", 1, e), OK);
    assert_int_equal(gguf_writer_header(w, &data, &size, e), OK);
    assert_int_equal(gguf_parse(&g, data, size, "test.gguf", true, e), OK);
    enum status status = tokenizer_from_gguf(&t, &g, e);
    assert_true((status == OK) == (t != NULL));
    tokenizer_free(t);
    gguf_close(&g);
    gguf_writer_free(w);
    free(data);
    return status;
}

static void test_refused_gguf(void **state)
{
    (void)state;
    struct error e;
    assert_int_equal(load_keys(true, 3, 1, "llama", &e), OK);
    assert_int_equal(load_keys(true, 4, 1, "llama", &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "4 entries for 3 tokens"));
    assert_int_equal(load_keys(false, 0, 1, "llama", &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "scores"));
    assert_int_equal(load_keys(true, 3, 3, "llama", &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "bos_token_id"));
    assert_int_equal(load_keys(true, 3, 1, "rwkv", &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.text, "rwkv"));
    assert_int_equal(load_keys(true, 3, 1, "gpt2", &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.text, "pre-tokenizer"));
}

static void test_missing_files(void **state)
{
    (void)state;
    struct tokenizer *t;
    struct error e = {0};
    assert_int_equal(tokenizer_open(&t, SBIT_TEST_DIR "/absent", &e), ERR_IO);
    assert_null(t);
    e = (struct error){0};
    assert_int_equal(tokenizer_open(&t, SBIT_SOURCE_DIR "/common", &e), ERR_IO);
    assert_non_null(strstr(e.text, "tokenizer.model"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_demo),
        cmocka_unit_test(test_random_round_trips),
        cmocka_unit_test(test_sentencepiece_json),
        cmocka_unit_test(test_metaspace),
        cmocka_unit_test(test_byte_level_json),
        cmocka_unit_test(test_added_tokens),
        cmocka_unit_test(test_pre_tokenizers),
        cmocka_unit_test(test_gguf_round_trips),
        cmocka_unit_test(test_padding),
        cmocka_unit_test(test_unknown_pre),
        cmocka_unit_test(test_refused_json),
        cmocka_unit_test(test_holes),
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_refused_models),
        cmocka_unit_test(test_refused_gguf),
        cmocka_unit_test(test_missing_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
