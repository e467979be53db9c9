/* The tables of the Llama family: what every tensor is called in GGUF and in Hugging Face
 * checkpoints, and which shape it must have. A new name of a known tensor is a new row here and
 * nothing else. */
#include "common/model.h"

#include <stdio.h>
#include <string.h>

static const struct tensor_rule rules[KIND_COUNT] = {
    [KIND_ATTN_NORM] = {"attn_norm", "blk.%u.attn_norm", ".weight",
                        "model.layers.%u.input_layernorm.weight", false, true},
    [KIND_Q] = {"q", "blk.%u.attn_q", ".weight", "model.layers.%u.self_attn.q_proj.weight", true,
                true},
    [KIND_K] = {"k", "blk.%u.attn_k", ".weight", "model.layers.%u.self_attn.k_proj.weight", true,
                true},
    [KIND_V] = {"v", "blk.%u.attn_v", ".weight", "model.layers.%u.self_attn.v_proj.weight", true,
                true},
    [KIND_O] = {"o", "blk.%u.attn_output", ".weight", "model.layers.%u.self_attn.o_proj.weight",
                true, true},
    [KIND_Q_BIAS] = {"q_bias", "blk.%u.attn_q", ".bias", "model.layers.%u.self_attn.q_proj.bias",
                     false, true},
    [KIND_K_BIAS] = {"k_bias", "blk.%u.attn_k", ".bias", "model.layers.%u.self_attn.k_proj.bias",
                     false, true},
    [KIND_V_BIAS] = {"v_bias", "blk.%u.attn_v", ".bias", "model.layers.%u.self_attn.v_proj.bias",
                     false, true},
    [KIND_Q_NORM] = {"q_norm", "blk.%u.attn_q_norm", ".weight",
                     "model.layers.%u.self_attn.q_norm.weight", false, true},
    [KIND_K_NORM] = {"k_norm", "blk.%u.attn_k_norm", ".weight",
                     "model.layers.%u.self_attn.k_norm.weight", false, true},
    [KIND_FFN_NORM] = {"ffn_norm", "blk.%u.ffn_norm", ".weight",
                       "model.layers.%u.post_attention_layernorm.weight", false, true},
    [KIND_GATE] = {"gate", "blk.%u.ffn_gate", ".weight", "model.layers.%u.mlp.gate_proj.weight",
                   true, true},
    [KIND_UP] = {"up", "blk.%u.ffn_up", ".weight", "model.layers.%u.mlp.up_proj.weight", true,
                 true},
    [KIND_DOWN] = {"down", "blk.%u.ffn_down", ".weight", "model.layers.%u.mlp.down_proj.weight",
                   true, true},
    [KIND_EMBEDDING] = {"embedding", "token_embd", ".weight", "model.embed_tokens.weight", true,
                        false},
    [KIND_OUTPUT_NORM] = {"output_norm", "output_norm", ".weight", "model.norm.weight", false,
                          false},
    [KIND_OUTPUT] = {"output", "output", ".weight", "lm_head.weight", true, false},
    [KIND_ROPE_FACTORS] = {"rope_factors", "rope_freqs", ".weight", "", false, false},
};

/* The forms in which a matrix may be stored (DESIGN section 5), all under one base name. */
static const char *const matrix_suffixes[] = {
    ".weight",      ".code",           ".code_out",      ".code_in",
    ".outlier_row", ".outlier_column", ".outlier_value",
};

const struct tensor_rule *model_rule(enum tensor_kind kind)
{
    return &rules[kind];
}

static void matrix_shape(const struct model_config *c, enum tensor_kind kind, uint64_t *rows,
                         uint64_t *cols)
{
    uint64_t q = (uint64_t)c->heads * c->head_dim, kv = (uint64_t)c->kv_heads * c->head_dim;
    bool to_ffn = kind == KIND_GATE || kind == KIND_UP;
    bool embedding = kind == KIND_EMBEDDING || kind == KIND_OUTPUT;
    *cols = kind == KIND_O ? q : kind == KIND_DOWN ? c->ffn : c->hidden;
    *rows = kind == KIND_Q                     ? q
            : kind == KIND_K || kind == KIND_V ? kv
            : to_ffn                           ? c->ffn
            : embedding                        ? c->vocab
                                               : c->hidden;
}

static uint64_t vector_length(const struct model_config *c, enum tensor_kind kind)
{
    switch (kind) {
    case KIND_Q_BIAS:
        return (uint64_t)c->heads * c->head_dim;
    case KIND_K_BIAS:
    case KIND_V_BIAS:
        return (uint64_t)c->kv_heads * c->head_dim;
    case KIND_Q_NORM:
    case KIND_K_NORM:
        return c->head_dim;
    case KIND_ROPE_FACTORS:
        return c->rope_dim / 2;
    default:
        return c->hidden;
    }
}

bool model_shape(const struct model_config *c, enum tensor_kind kind, uint64_t *rows,
                 uint64_t *cols)
{
    bool bias = kind == KIND_Q_BIAS || kind == KIND_K_BIAS || kind == KIND_V_BIAS;
    bool norm = kind == KIND_Q_NORM || kind == KIND_K_NORM;
    if ((bias && !c->qkv_bias) || (norm && !c->qk_norm) || (kind == KIND_OUTPUT && c->tied) ||
        kind == KIND_ROPE_FACTORS) /* optional: wanted by no model */
        return false;
    if (rules[kind].matrix) {
        matrix_shape(c, kind, rows, cols);
    } else {
        *rows = 1;
        *cols = vector_length(c, kind);
    }
    return true;
}

static void expand(char *out, size_t room, const char *format, uint32_t block)
{
    const char *place = strstr(format, "%u");
    if (place)
        snprintf(out, room, "%.*s%u%s", (int)(place - format), format, block, place + 2);
    else
        snprintf(out, room, "%s", format);
}

void model_base_name(char out[64], enum tensor_kind kind, uint32_t block)
{
    expand(out, 64, rules[kind].gguf_base, block);
}

void model_hf_name(char out[96], enum tensor_kind kind, uint32_t block)
{
    expand(out, 96, rules[kind].hf, block);
}

/* The number at the start of text: no sign, no leading zero, at most nine digits; NULL if none,
 * else the first character behind it. */
static const char *read_block(const char *text, uint32_t *block)
{
    uint32_t v = 0;
    int digits = 0;
    for (; text[digits] >= '0' && text[digits] <= '9'; digits++) {
        if (digits == 9)
            return NULL;
        v = v * 10 + (uint32_t)(text[digits] - '0');
    }
    if (digits == 0 || (digits > 1 && text[0] == '0'))
        return NULL;
    *block = v;
    return text + digits;
}

/* Whether the size bytes at name have the form of format; reads the number where that has a %u. */
static bool name_fits(const char *format, const char *name, size_t size, uint32_t *block)
{
    const char *place = strstr(format, "%u"), *rest = name;
    if (place) {
        size_t prefix = (size_t)(place - format);
        if (strncmp(name, format, prefix) != 0)
            return false;
        rest = read_block(name + prefix, block);
        if (!rest || rest > name + size)
            return false;
        format = place + 2;
        size -= (size_t)(rest - name);
    }
    return strlen(format) == size && memcmp(rest, format, size) == 0;
}

static bool suffix_fits(const struct tensor_rule *rule, const char *suffix)
{
    if (!rule->matrix)
        return strcmp(suffix, rule->suffix) == 0;
    for (size_t i = 0; i < sizeof matrix_suffixes / sizeof matrix_suffixes[0]; i++)
        if (strcmp(suffix, matrix_suffixes[i]) == 0)
            return true;
    return false;
}

bool model_kind_of(const char *name, enum tensor_kind *kind, uint32_t *block)
{
    const char *suffix = strrchr(name, '.');
    if (!suffix)
        return false;
    for (int k = 0; k < KIND_COUNT; k++) {
        uint32_t number = 0;
        if (suffix_fits(&rules[k], suffix) &&
            name_fits(rules[k].gguf_base, name, (size_t)(suffix - name), &number)) {
            *kind = (enum tensor_kind)k;
            *block = number;
            return true;
        }
    }
    return false;
}

bool model_kind_of_hf(const char *name, enum tensor_kind *kind, uint32_t *block)
{
    for (int k = 0; k < KIND_COUNT; k++) {
        uint32_t number = 0;
        if (name[0] && name_fits(rules[k].hf, name, strlen(name), &number)) {
            *kind = (enum tensor_kind)k;
            *block = number;
            return true;
        }
    }
    return false;
}
