/* Every architecture flag of the Llama family on small random models: the worker agrees with a
 * plain forward pass in double precision, and gives the same bits on one rank and on two. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "common/model.h"
#include "kernels/kernels.h"
#include "tests/unit/naive.h"
#include "tests/unit/ring.h"

#define TOKENS 24
#define SEED   20240611u

struct family {
    const char *name;
    enum dtype dtype;   /* of matrices; vectors are F32 */
    const char *config; /* besides the sizes that all share */
};

static const struct family families[] = {
    {"llama3", DTYPE_BF16,
     "\"architectures\": [\"LlamaForCausalLM\"], \"num_key_value_heads\": 1, \"rope_theta\": "
     "500000.0, "
     "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, "
     "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 64}"},
    {"linear", DTYPE_F32,
     "\"architectures\": [\"LlamaForCausalLM\"], \"num_key_value_heads\": 4, "
     "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.5}"},
    {"mistral", DTYPE_F16,
     "\"architectures\": [\"MistralForCausalLM\"], \"num_key_value_heads\": 2, \"sliding_window\": "
     "7"},
    {"qwen2", DTYPE_BF16,
     "\"architectures\": [\"Qwen2ForCausalLM\"], \"num_key_value_heads\": 2, "
     "\"tie_word_embeddings\": true"},
    {"qwen3", DTYPE_F16,
     "\"architectures\": [\"Qwen3ForCausalLM\"], \"num_key_value_heads\": 2, \"head_dim\": 32"},
};

static uint64_t random_state;

/* xorshift64* (Vigna 2016) to [-1, 1). */
static float next_random(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (float)(int32_t)(random_state * 0x2545f4914f6cdd1du >> 32) / 2147483648.0f;
}

static void put_value(FILE *f, enum dtype dtype, float v)
{
    uint16_t half = dtype == DTYPE_F16 ? f32_to_f16(v) : f32_to_bf16(v);
    if (dtype == DTYPE_F32)
        assert_int_equal(fwrite(&v, sizeof v, 1, f), 1);
    else
        assert_int_equal(fwrite(&half, sizeof half, 1, f), 1);
}

/* Matrices keep the size of what they multiply; norms are near one; biases are not small. */
static void put_data(FILE *f, enum dtype dtype, enum tensor_kind kind, uint64_t n, uint64_t cols)
{
    bool norm = strstr(model_rule(kind)->gguf_base, "norm") != NULL;
    bool bias = strcmp(model_rule(kind)->suffix, ".bias") == 0;
    float scale = model_rule(kind)->matrix ? 2.0f / (float)(cols / 16) : 0.5f;
    for (uint64_t i = 0; i < n; i++)
        put_value(f, dtype, (norm && !bias ? 1.0f : 0.0f) + scale * next_random());
}

/* Describes all tensors in *header, and with f writes their data. */
static void walk(const struct model_config *c, enum dtype matrix_dtype, json_t *header, FILE *f)
{
    uint64_t offset = 0, rows, cols;
    for (int k = 0; k < KIND_ROPE_FACTORS; k++) {
        const struct tensor_rule *rule = model_rule((enum tensor_kind)k);
        for (uint32_t b = 0; b < (rule->per_block ? c->block_count : 1); b++) {
            char name[96];
            if (!model_shape(c, (enum tensor_kind)k, &rows, &cols))
                continue;
            enum dtype dtype = rule->matrix ? matrix_dtype : DTYPE_F32;
            uint64_t end = offset + rows * cols * (dtype == DTYPE_F32 ? 4 : 2);
            /* The rule's text has one %u when per_block. */
            const char *mark = strstr(rule->hf, "%u");
            if (mark)
                snprintf(name, sizeof name, "%.*s%u%s", (int)(mark - rule->hf), rule->hf, b,
                         mark + 2);
            else
                snprintf(name, sizeof name, "%s", rule->hf);
            json_t *shape = rule->matrix ? json_pack("[I,I]", (json_int_t)rows, (json_int_t)cols)
                                         : json_pack("[I]", (json_int_t)cols);
            json_object_set_new(header, name,
                                json_pack("{s:s,s:o,s:[I,I]}", "dtype", dtype_info(dtype)->name,
                                          "shape", shape, "data_offsets", (json_int_t)offset,
                                          (json_int_t)end));
            if (f)
                put_data(f, dtype, (enum tensor_kind)k, rows * cols, cols);
            offset = end;
        }
    }
}

/* Writes the family's folder and gives its path. */
static void write_family(const struct family *family, char path[512])
{
    char text[2048], file[600];
    struct model_config c;
    struct error e = {0};
    snprintf(path, 512, "%s/%s", SBIT_TEST_DIR, family->name);
    assert_true(mkdir(path, 0777) == 0 || errno == EEXIST);
    snprintf(text, sizeof text,
             "{\"num_hidden_layers\": 3, \"hidden_size\": 64, \"intermediate_size\": 160, "
             "\"num_attention_heads\": 4, \"vocab_size\": 96, \"max_position_embeddings\": 256, "
             "\"rms_norm_eps\": 1e-5, %s}",
             family->config);
    json_t *config = json_loads(text, 0, NULL), *header = json_object();
    assert_non_null(config);
    snprintf(file, sizeof file, "%s/config.json", path);
    assert_int_equal(json_dump_file(config, file, 0), 0);
    if (model_config_from_json(&c, config, file, &e) != OK)
        fail_msg("%s", e.text);
    walk(&c, family->dtype, header, NULL);
    char *json = json_dumps(header, JSON_COMPACT);
    uint64_t size = strlen(json);
    snprintf(file, sizeof file, "%s/model.safetensors", path);
    FILE *f = fopen(file, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(&size, sizeof size, 1, f), 1);
    assert_int_equal(fwrite(json, 1, size, f), size);
    walk(&c, family->dtype, header, f);
    assert_int_equal(fclose(f), 0);
    free(json);
    json_decref(header);
    json_decref(config);
}

static void check_family(const struct family *family)
{
    char path[512];
    struct error e = {0};
    struct weights *w;
    uint32_t tokens[TOKENS];
    random_state = SEED;
    write_family(family, path);
    for (uint32_t i = 0; i < TOKENS; i++)
        tokens[i] = (i * 37 + 5) % 96;
    struct ring one, two;
    struct ring_setup setup = {
        .path = path, .ranks = 1, .threads = 2, .batch = 32, .context = 64, .sequences = 1};
    ring_open(&one, &setup);
    setup.ranks = 2;
    ring_open(&two, &setup);
    const float *a = ring_logits(&one, tokens, TOKENS, TOKENS);
    assert_memory_equal(a, ring_logits(&two, tokens, TOKENS, 5), TOKENS * 96 * sizeof(float));
    if (weights_open(&w, path, &e) != OK)
        fail_msg("%s", e.text);
    double *exact = naive_forward(w, tokens, TOKENS);
    double distance = naive_distance(a, exact, TOKENS * 96);
    print_message("%s: distance from double precision %.2e\n", family->name, distance);
    assert_true(distance < 1e-3); /* keys and values are F16 */
    free(exact);
    weights_close(w);
    ring_close(&one);
    ring_close(&two);
}

static void all_families(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        check_family(&families[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_families)};
    const char *problem = kernels_init(getenv("SBIT_CPU"));
    if (problem) {
        fprintf(stderr, "%s\n", problem);
        return 1;
    }
    printf("seed %u\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
