/* Model descriptions from Hugging Face's config.json (transformers' configuration_llama.py,
 * _mistral.py, _qwen2.py and _qwen3.py give the meaning and the defaults of the keys). */
#include <stdio.h>
#include <string.h>

#include "common/model.h"
#include "common/model_private.h"

struct source {
    const json_t *json;
    const char *path;
    struct error *e;
};

/* The value of a key, or NULL when it is absent or null. */
static const json_t *get(const struct source *s, const char *key)
{
    const json_t *v = json_object_get(s->json, key);
    return json_is_null(v) ? NULL : v;
}

/* Leaves *v as it is when the key is absent, unless it is required. */
static enum status read_u32(const struct source *s, const char *key, bool required, uint32_t *v)
{
    const json_t *value = get(s, key);
    FAIL_IF(!value && required, s->e, ERR_FORMAT, "%s has no \"%s\"", s->path, key);
    if (!value)
        return OK;
    FAIL_IF(!json_is_integer(value) || json_integer_value(value) < 0 ||
                json_integer_value(value) > UINT32_MAX,
            s->e, ERR_FORMAT, "%s: \"%s\" is no number of 32 bits", s->path, key);
    *v = (uint32_t)json_integer_value(value);
    return OK;
}

static enum status read_f32(const struct source *s, const char *key, float *v)
{
    const json_t *value = get(s, key);
    if (!value)
        return OK;
    FAIL_IF(!json_is_number(value), s->e, ERR_FORMAT, "%s: \"%s\" is no number", s->path, key);
    *v = (float)json_number_value(value);
    return OK;
}

static bool is_true(const struct source *s, const char *key)
{
    return json_is_true(get(s, key));
}

/* What "sliding_window" in config.json means to the family. */
enum window { WINDOW_NONE, WINDOW_STATED, WINDOW_ASKED /* only with use_sliding_window */ };

struct family {
    const char *architecture, *model_type, *arch;
    bool qkv_bias, qk_norm;
    uint32_t head_dim;    /* default; 0: hidden / heads */
    enum window window;
};

static const struct family families[] = {
    {"LlamaForCausalLM", "llama", "llama", false, false, 0, WINDOW_NONE},
    {"MistralForCausalLM", "mistral", "llama", false, false, 0, WINDOW_STATED},
    {"Qwen2ForCausalLM", "qwen2", "qwen2", true, false, 0, WINDOW_ASKED},
    {"Qwen3ForCausalLM", "qwen3", "qwen3", false, true, 128, WINDOW_ASKED},
};

static enum status find_family(const struct source *s, const struct family **out)
{
    const char *name = json_string_value(json_array_get(get(s, "architectures"), 0));
    const char *type = json_string_value(get(s, "model_type"));
    *out = NULL;
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        const struct family *f = &families[i];
        if (name ? strcmp(name, f->architecture) == 0 : type && strcmp(type, f->model_type) == 0)
            *out = f;
    }
    FAIL_IF(!*out && !name && !type, s->e, ERR_FORMAT,
            "%s names no architecture: it does not describe a model", s->path);
    FAIL_IF(!*out, s->e, ERR_UNSUPPORTED,
            "%s: architecture \"%.64s\" is not supported; supported are LlamaForCausalLM, "
            "MistralForCausalLM, Qwen2ForCausalLM and Qwen3ForCausalLM",
            s->path, name ? name : type);
    return OK;
}

/* Variants of the families whose arithmetic is not ours. */
static enum status refuse_variants(const struct source *s, const struct family *f)
{
    const char *act = json_string_value(get(s, "hidden_act"));
    FAIL_IF(act && strcmp(act, "silu") != 0, s->e, ERR_UNSUPPORTED,
            "%s: activation \"%.64s\" is not supported, only silu", s->path, act);
    FAIL_IF(get(s, "quantization_config"), s->e, ERR_UNSUPPORTED,
            "%s describes an already quantised checkpoint; use the original one", s->path);
    FAIL_IF(is_true(s, "attention_bias") && !f->qkv_bias, s->e, ERR_UNSUPPORTED,
            "%s: attention_bias is not supported for %s", s->path, f->architecture);
    FAIL_IF(is_true(s, "mlp_bias"), s->e, ERR_UNSUPPORTED, "%s: mlp_bias is not supported",
            s->path);
    FAIL_IF(f->window == WINDOW_ASKED && is_true(s, "use_sliding_window"), s->e, ERR_UNSUPPORTED,
            "%s: use_sliding_window, which mixes two kinds of blocks, is not supported", s->path);
    const json_t *partial = get(s, "partial_rotary_factor");
    FAIL_IF(partial && json_number_value(partial) != 1.0, s->e, ERR_UNSUPPORTED,
            "%s: partial_rotary_factor is not supported", s->path);
    return OK;
}

static enum status read_llama3(struct model_config *c, const struct source *scaling)
{
    c->rope_scaling = ROPE_LLAMA3;
    c->rope_original_context = c->context;
    TRY(read_f32(scaling, "factor", &c->rope_factor));
    TRY(read_f32(scaling, "low_freq_factor", &c->rope_low_freq));
    TRY(read_f32(scaling, "high_freq_factor", &c->rope_high_freq));
    TRY(read_u32(scaling, "original_max_position_embeddings", false, &c->rope_original_context));
    FAIL_IF(!(c->rope_low_freq > 0 && c->rope_high_freq > c->rope_low_freq &&
              c->rope_high_freq < 1e9f) ||
                c->rope_original_context == 0,
            scaling->e, ERR_FORMAT, "%s: the llama3 RoPE scaling has factors that make no sense",
            scaling->path);
    return OK;
}

/* rope_scaling, or since transformers 5 rope_parameters, which holds rope_theta too. */
static enum status read_rope(struct model_config *c, const struct source *s)
{
    const json_t *parameters = get(s, "rope_parameters");
    struct source scaling = *s;
    c->rope_base = 10000.0f;
    c->rope_factor = 1.0f;
    TRY(read_f32(s, "rope_theta", &c->rope_base));
    scaling.json = parameters ? parameters : get(s, "rope_scaling");
    if (!scaling.json)
        return OK;
    FAIL_IF(!json_is_object(scaling.json), s->e, ERR_FORMAT, "%s: its RoPE scaling is no object",
            s->path);
    TRY(read_f32(&scaling, "rope_theta", &c->rope_base));
    const char *type = json_string_value(get(&scaling, "rope_type"));
    if (!type)
        type = json_string_value(get(&scaling, "type"));
    if (!type || strcmp(type, "default") == 0 || strcmp(type, "none") == 0)
        return OK;
    if (strcmp(type, "llama3") == 0)
        return read_llama3(c, &scaling);
    FAIL_IF(strcmp(type, "linear") != 0, s->e, ERR_UNSUPPORTED,
            "%s: RoPE scaling \"%.64s\" is not supported; supported are linear and llama3", s->path,
            type);
    c->rope_scaling = ROPE_LINEAR;
    return read_f32(&scaling, "factor", &c->rope_factor);
}

static enum status read_sizes(struct model_config *c, const struct source *s,
                              const struct family *f)
{
    TRY(read_u32(s, "num_hidden_layers", true, &c->block_count));
    TRY(read_u32(s, "hidden_size", true, &c->hidden));
    TRY(read_u32(s, "intermediate_size", true, &c->ffn));
    TRY(read_u32(s, "num_attention_heads", true, &c->heads));
    TRY(read_u32(s, "vocab_size", true, &c->vocab));
    c->context = 2048;
    TRY(read_u32(s, "max_position_embeddings", false, &c->context));
    c->kv_heads = c->heads;
    TRY(read_u32(s, "num_key_value_heads", false, &c->kv_heads));
    c->head_dim = f->head_dim ? f->head_dim : c->heads ? c->hidden / c->heads : 0;
    TRY(read_u32(s, "head_dim", false, &c->head_dim));
    c->rope_dim = c->head_dim;
    if (f->window == WINDOW_STATED)
        TRY(read_u32(s, "sliding_window", false, &c->sliding_window));
    if (c->sliding_window >= c->context)
        c->sliding_window = 0;
    return OK;
}

enum status model_config_from_json(struct model_config *c, const json_t *config, const char *path,
                                   struct error *e)
{
    struct source s = {.json = config, .path = path, .e = e};
    const struct family *f;
    memset(c, 0, sizeof *c);
    FAIL_IF(!json_is_object(config), e, ERR_FORMAT, "%s is no JSON object", path);
    TRY(find_family(&s, &f));
    TRY(refuse_variants(&s, f));
    snprintf(c->arch, sizeof c->arch, "%s", f->arch);
    c->qkv_bias = f->qkv_bias;
    c->qk_norm = f->qk_norm;
    c->tied = is_true(&s, "tie_word_embeddings");
    c->rms_eps = 1e-6f;
    TRY(read_f32(&s, "rms_norm_eps", &c->rms_eps));
    TRY(read_sizes(c, &s, f));
    TRY(read_rope(c, &s));
    return model_config_check(c, path, e);
}
