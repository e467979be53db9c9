/* Model descriptions: config.json and GGUF keys in, GGUF keys out; names and shapes of tensors. */
#include "common/model.h"

#include "common/json_file.h"
#include "tests/unit/test_files.h"

/* Sizes that every description below shares. */
#define SIZES                                                                                      \
    "\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":3,"                         \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":100,"                      \
    "\"max_position_embeddings\":4096"

static enum status read_json(struct model_config *c, const char *text, struct error *e)
{
    json_t *json;
    memset(e, 0, sizeof *e);
    test_ok(json_file_parse(&json, text, strlen(text), "config.json", JSON_FILE_INTEGERS, e), e);
    enum status status = model_config_from_json(c, json, "config.json", e);
    json_decref(json);
    return status;
}

static void test_families(void **state)
{
    struct error e;
    struct model_config c;
    (void)state;
    test_ok(read_json(&c, "{\"architectures\":[\"LlamaForCausalLM\"]," SIZES "}", &e), &e);
    assert_string_equal(c.arch, "llama");
    assert_true(c.block_count == 3 && c.hidden == 64 && c.ffn == 96 && c.heads == 4);
    assert_true(c.kv_heads == 2 && c.head_dim == 16 && c.vocab == 100 && c.context == 4096);
    assert_true(c.rope_dim == 16 && !c.tied && !c.qkv_bias && !c.qk_norm && !c.rope_interleaved);
    assert_true(c.rms_eps == 1e-6f && c.rope_base == 10000 && c.rope_scaling == ROPE_PLAIN);
    test_ok(read_json(&c, "{\"model_type\":\"mistral\",\"sliding_window\":1024," SIZES "}", &e),
            &e);
    assert_string_equal(c.arch, "llama");
    assert_int_equal(c.sliding_window, 1024);
    test_ok(read_json(&c, "{\"model_type\":\"mistral\",\"sliding_window\":null," SIZES "}", &e),
            &e);
    assert_int_equal(c.sliding_window, 0);
    /* What a Mistral left behind in a Llama's description. */
    test_ok(read_json(&c, "{\"model_type\":\"llama\",\"sliding_window\":1024," SIZES "}", &e), &e);
    assert_int_equal(c.sliding_window, 0);
    test_ok(read_json(&c,
                      "{\"architectures\":[\"Qwen2ForCausalLM\"],\"sliding_window\":1024,"
                      "\"use_sliding_window\":false,\"tie_word_embeddings\":true," SIZES "}",
                      &e),
            &e);
    assert_string_equal(c.arch, "qwen2");
    assert_true(c.qkv_bias && c.tied && c.sliding_window == 0);
    test_ok(read_json(&c, "{\"architectures\":[\"Qwen3ForCausalLM\"]," SIZES "}", &e), &e);
    assert_true(c.qk_norm && c.head_dim == 128);
    test_ok(
        read_json(&c, "{\"architectures\":[\"Qwen3ForCausalLM\"],\"head_dim\":32," SIZES "}", &e),
        &e);
    assert_int_equal(c.head_dim, 32);
}

static void test_rope(void **state)
{
    struct error e;
    struct model_config c;
    (void)state;
    test_ok(read_json(&c,
                      "{\"model_type\":\"llama\",\"rope_theta\":500000.0,\"rope_scaling\":"
                      "{\"type\":\"linear\",\"factor\":4}," SIZES "}",
                      &e),
            &e);
    assert_true(c.rope_base == 500000 && c.rope_scaling == ROPE_LINEAR && c.rope_factor == 4);
    test_ok(read_json(&c,
                      "{\"model_type\":\"llama\",\"rope_scaling\":{\"rope_type\":\"llama3\","
                      "\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
                      "\"original_max_position_embeddings\":2048}," SIZES "}",
                      &e),
            &e);
    assert_true(c.rope_scaling == ROPE_LLAMA3 && c.rope_factor == 8 && c.rope_low_freq == 1);
    assert_true(c.rope_high_freq == 4 && c.rope_original_context == 2048);
    test_ok(read_json(&c,
                      "{\"model_type\":\"llama\",\"rope_parameters\":{\"rope_type\":\"default\","
                      "\"rope_theta\":7000.0}," SIZES "}",
                      &e),
            &e);
    assert_true(c.rope_scaling == ROPE_PLAIN && c.rope_base == 7000);
    test_refused(read_json(&c,
                           "{\"model_type\":\"llama\",\"rope_scaling\":{\"rope_type\":\"yarn\","
                           "\"factor\":4}," SIZES "}",
                           &e),
                 ERR_UNSUPPORTED, &e, "yarn");
}

static void test_json_refused(void **state)
{
    static const struct {
        const char *json, *says;
        enum status status;
    } bad[] = {
        {"[]", "no JSON object", ERR_FORMAT},
        {"{}", "no architecture", ERR_FORMAT},
        {"{\"architectures\":[\"GPT2LMHeadModel\"]}", "GPT2LMHeadModel", ERR_UNSUPPORTED},
        {"{\"model_type\":\"llama\"}", "num_hidden_layers", ERR_FORMAT},
        {"{\"model_type\":\"llama\",\"hidden_act\":\"gelu\"," SIZES "}", "gelu", ERR_UNSUPPORTED},
        {"{\"model_type\":\"llama\",\"attention_bias\":true," SIZES "}", "attention_bias",
         ERR_UNSUPPORTED},
        {"{\"model_type\":\"llama\",\"mlp_bias\":true," SIZES "}", "mlp_bias", ERR_UNSUPPORTED},
        {"{\"model_type\":\"llama\",\"quantization_config\":{}," SIZES "}", "quantised",
         ERR_UNSUPPORTED},
        {"{\"model_type\":\"qwen2\",\"use_sliding_window\":true," SIZES "}", "sliding",
         ERR_UNSUPPORTED},
        {"{\"model_type\":\"llama\",\"head_dim\":15," SIZES "}", "pairs", ERR_FORMAT},
        {"{\"model_type\":\"llama\",\"head_dim\":-1," SIZES "}", "head_dim", ERR_FORMAT},
        {"{\"model_type\":\"llama\",\"head_dim\":4096," SIZES "}", "size of a head", ERR_FORMAT},
        {"{\"model_type\":\"llama\",\"head_dim\":4294967312," SIZES "}", "head_dim", ERR_FORMAT},
        {"{\"model_type\":\"llama\",\"rms_norm_eps\":\"x\"," SIZES "}", "rms_norm_eps", ERR_FORMAT},
        {"{\"model_type\":\"llama\",\"rms_norm_eps\":-1," SIZES "}", "epsilon", ERR_FORMAT},
        {"{\"model_type\":\"llama\",\"rope_theta\":0," SIZES "}", "RoPE", ERR_FORMAT},
        {"{\"model_type\":\"llama\",\"num_hidden_layers\":1,\"hidden_size\":8,\"intermediate_"
         "size\":8,"
         "\"num_attention_heads\":4,\"num_key_value_heads\":3,\"vocab_size\":9}",
         "evenly", ERR_FORMAT},
        {"{\"model_type\":\"llama\",\"num_hidden_layers\":1,\"hidden_size\":8,\"intermediate_"
         "size\":8,"
         "\"num_attention_heads\":0,\"vocab_size\":9}",
         "attention heads", ERR_FORMAT},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct error e;
        struct model_config c;
        test_refused(read_json(&c, bad[i].json, &e), bad[i].status, &e, bad[i].says);
        assert_non_null(strstr(e.text, "config.json"));
    }
}

/* Writes c as GGUF keys and reads them back. */
static void through_gguf(const struct model_config *c, struct model_config *back)
{
    struct error e = {0};
    struct gguf_writer *w;
    struct gguf g;
    uint8_t *header;
    uint64_t size;
    test_ok(gguf_writer_create(&w, 64, &e), &e);
    test_ok(model_config_to_gguf(c, w, &e), &e);
    test_ok(gguf_writer_header(w, &header, &size, &e), &e);
    test_ok(gguf_parse(&g, header, size, "memory", false, &e), &e);
    test_ok(model_config_from_gguf(back, &g, &e), &e);
    gguf_close(&g);
    gguf_writer_free(w);
    free(header);
}

static void test_gguf_round_trip(void **state)
{
    struct error e;
    struct model_config c, back;
    (void)state;
    test_ok(
        read_json(&c,
                  "{\"model_type\":\"llama\",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5},"
                  "\"rms_norm_eps\":0.001,\"head_dim\":32,\"rope_theta\":12345," SIZES "}",
                  &e),
        &e);
    through_gguf(&c, &back);
    c.rope_interleaved = true; /* the order of rows in GGUF */
    c.tied = true;             /* no tensors here, so no output.weight */
    assert_memory_equal(&c, &back, sizeof c);
    test_ok(read_json(&c, "{\"model_type\":\"qwen3\",\"tie_word_embeddings\":true," SIZES "}", &e),
            &e);
    through_gguf(&c, &back);
    assert_memory_equal(&c, &back, sizeof c);
    test_ok(read_json(&c, "{\"model_type\":\"mistral\",\"sliding_window\":512," SIZES "}", &e), &e);
    through_gguf(&c, &back);
    assert_int_equal(back.sliding_window, 512);
}

/* A description with one key changed, removed (NULL) or added. */
static void gguf_refused(const char *arch, const char *key, uint32_t value, enum status status,
                         const char *says)
{
    static const char *const keys[] = {"block_count",          "embedding_length",
                                       "feed_forward_length",  "context_length",
                                       "attention.head_count", "vocab_size"};
    static const uint32_t values[] = {2, 64, 96, 128, 4, 100};
    struct error e = {0};
    struct gguf_writer *w;
    struct model_config c;
    struct gguf g;
    uint8_t *header;
    uint64_t size;
    char name[96];
    test_ok(gguf_writer_create(&w, 64, &e), &e);
    if (arch)
        test_ok(gguf_set_string(w, "general.architecture", arch, &e), &e);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        snprintf(name, sizeof name, "llama.%s", keys[i]);
        if (!key || strcmp(key, keys[i]) != 0 || value > 0)
            test_ok(gguf_set_u32(w, name, values[i], &e), &e);
    }
    snprintf(name, sizeof name, "llama.%s", key ? key : "none");
    if (value > 0)
        test_ok(gguf_set_u32(w, name, value, &e), &e);
    test_ok(gguf_writer_header(w, &header, &size, &e), &e);
    test_ok(gguf_parse(&g, header, size, "bad.gguf", false, &e), &e);
    test_refused(model_config_from_gguf(&c, &g, &e), status, &e, says);
    gguf_close(&g);
    gguf_writer_free(w);
    free(header);
}

static void test_gguf_refused(void **state)
{
    (void)state;
    gguf_refused(NULL, NULL, 0, ERR_FORMAT, "general.architecture");
    gguf_refused("mamba", NULL, 0, ERR_UNSUPPORTED, "\"mamba\" is not supported");
    gguf_refused("llama", "block_count", 0, ERR_FORMAT, "llama.block_count");
    gguf_refused("llama", "block_count", 10001, ERR_FORMAT, "blocks is 10001");
    gguf_refused("llama", "attention.head_count_kv", 3, ERR_FORMAT, "evenly");
    gguf_refused("llama", "expert_count", 8, ERR_UNSUPPORTED, "8 experts");
    gguf_refused("llama", "attention.value_length", 8, ERR_UNSUPPORTED, "values of 8");
    gguf_refused("llama", "rope.dimension_count", 18, ERR_FORMAT, "rotated");
    gguf_refused("llama", "vocab_size", 0, ERR_FORMAT, "vocabulary is 0");
}

static void test_names(void **state)
{
    enum tensor_kind kind;
    uint32_t block;
    char name[64], full[128], hf[96];
    (void)state;
    for (int k = 0; k < KIND_COUNT; k++) {
        const struct tensor_rule *rule = model_rule((enum tensor_kind)k);
        uint32_t number = rule->per_block ? 117 : 0;
        model_base_name(name, (enum tensor_kind)k, number);
        snprintf(full, sizeof full, "%s%s", name, rule->suffix);
        assert_true(model_kind_of(full, &kind, &block));
        assert_true((int)kind == k && block == number);
        model_hf_name(hf, (enum tensor_kind)k, number);
        if (k == KIND_ROPE_FACTORS)
            continue;
        assert_true(model_kind_of_hf(hf, &kind, &block));
        assert_true((int)kind == k && block == number);
    }
    assert_true(model_kind_of("blk.3.attn_q.code_out", &kind, &block) && kind == KIND_Q &&
                block == 3);
    assert_true(model_kind_of("token_embd.code", &kind, &block) && kind == KIND_EMBEDDING);
    assert_true(model_kind_of("blk.12.ffn_up.outlier_row", &kind, &block) && kind == KIND_UP);
}

static void test_names_refused(void **state)
{
    static const char *const bad[] = {
        "",
        ".",
        "blk",
        "blk.3",
        "blk.3.attn_q",
        "blk.3.attn_q.",
        "blk.x.attn_q.weight",
        "blk..attn_q.weight",
        "blk.03.attn_q.weight",
        "blk.-1.attn_q.weight",
        "blk.9999999999.attn_q.weight",
        "blk.3.attn_norm.code",
        "blk.3.attn_output.bias",
        "blk.3.attn_q.weight.x",
        "blk.3.attn_qq.weight",
        "xblk.3.attn_q.weight",
        "token_embd.bias",
        "blk.3.attn_q.scales",
        "blk.3.",
        "blk.3.weight",
    };
    enum tensor_kind kind;
    uint32_t block;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (model_kind_of(bad[i], &kind, &block))
            fail_msg("\"%s\" was taken for a tensor", bad[i]);
    assert_false(model_kind_of_hf("", &kind, &block));
    assert_false(model_kind_of_hf("model.layers.3.self_attn.q_proj.weight2", &kind, &block));
    assert_false(model_kind_of_hf("model.layers.3.self_attn.q_proj", &kind, &block));
}

static void test_shapes(void **state)
{
    struct model_config c = {.hidden = 64,
                             .ffn = 96,
                             .heads = 4,
                             .kv_heads = 2,
                             .head_dim = 32,
                             .rope_dim = 32,
                             .vocab = 100,
                             .tied = true};
    uint64_t rows, cols;
    (void)state;
    assert_true(model_shape(&c, KIND_Q, &rows, &cols) && rows == 128 && cols == 64);
    assert_true(model_shape(&c, KIND_K, &rows, &cols) && rows == 64 && cols == 64);
    assert_true(model_shape(&c, KIND_O, &rows, &cols) && rows == 64 && cols == 128);
    assert_true(model_shape(&c, KIND_UP, &rows, &cols) && rows == 96 && cols == 64);
    assert_true(model_shape(&c, KIND_DOWN, &rows, &cols) && rows == 64 && cols == 96);
    assert_true(model_shape(&c, KIND_EMBEDDING, &rows, &cols) && rows == 100 && cols == 64);
    assert_true(model_shape(&c, KIND_OUTPUT_NORM, &rows, &cols) && rows == 1 && cols == 64);
    assert_false(model_shape(&c, KIND_OUTPUT, &rows, &cols));
    assert_false(model_shape(&c, KIND_Q_BIAS, &rows, &cols));
    assert_false(model_shape(&c, KIND_K_NORM, &rows, &cols));
    c.tied = false;
    c.qkv_bias = c.qk_norm = true;
    assert_true(model_shape(&c, KIND_OUTPUT, &rows, &cols) && rows == 100 && cols == 64);
    assert_true(model_shape(&c, KIND_Q_BIAS, &rows, &cols) && rows == 1 && cols == 128);
    assert_true(model_shape(&c, KIND_V_BIAS, &rows, &cols) && rows == 1 && cols == 64);
    assert_true(model_shape(&c, KIND_K_NORM, &rows, &cols) && rows == 1 && cols == 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families),      cmocka_unit_test(test_rope),
        cmocka_unit_test(test_json_refused),  cmocka_unit_test(test_gguf_round_trip),
        cmocka_unit_test(test_gguf_refused),  cmocka_unit_test(test_names),
        cmocka_unit_test(test_names_refused), cmocka_unit_test(test_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
