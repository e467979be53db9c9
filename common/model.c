/* Model descriptions to and from GGUF keys, and the limits that every description must keep.
 * Hugging Face's config.json is read in model_hf.c, names of tensors are in model_names.c. */
#include "common/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/model_private.h"

struct limit {
    const char *what;
    uint32_t value;
    uint32_t max;
};

enum status model_config_check(const struct model_config *c, const char *path, struct error *e)
{
    /* far above every known model, low enough that no product of two overflows 64 bits or a plan */
    const struct limit limits[] = {
        {"the number of blocks", c->block_count, 10000},
        {"the hidden size", c->hidden, 1 << 20},
        {"the feed-forward size", c->ffn, 1 << 24},
        {"the number of attention heads", c->heads, 1 << 16},
        {"the number of key-value heads", c->kv_heads, 1 << 16},
        {"the size of a head", c->head_dim, 1024},
        {"the size of the vocabulary", c->vocab, 1 << 24},
        {"the context length", c->context, 1 << 30},
        {"the number of rotated dimensions", c->rope_dim, c->head_dim},
    };
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++)
        FAIL_IF(limits[i].value < 1 || limits[i].value > limits[i].max, e, ERR_FORMAT,
                "%s is damaged: %s is %u, expected 1 to %u", path, limits[i].what, limits[i].value,
                limits[i].max);
    FAIL_IF(c->heads % c->kv_heads != 0, e, ERR_FORMAT,
            "%s is damaged: %u attention heads cannot share %u key-value heads evenly", path,
            c->heads, c->kv_heads);
    FAIL_IF(c->head_dim % 2 != 0 || c->rope_dim % 2 != 0, e, ERR_FORMAT,
            "%s is damaged: heads of %u values with %u rotated cannot be rotated in pairs", path,
            c->head_dim, c->rope_dim);
    FAIL_IF(!(c->rms_eps >= 0 && c->rms_eps < 1), e, ERR_FORMAT,
            "%s is damaged: the epsilon of its RMS norm is %g", path, (double)c->rms_eps);
    FAIL_IF(!(c->rope_base >= 1 && isfinite(c->rope_base)), e, ERR_FORMAT,
            "%s is damaged: the base of its RoPE is %g", path, (double)c->rope_base);
    bool scaled = c->rope_scaling != ROPE_PLAIN;
    FAIL_IF(scaled && !(c->rope_factor > 0 && isfinite(c->rope_factor)), e, ERR_FORMAT,
            "%s is damaged: the factor of its RoPE scaling is %g", path, (double)c->rope_factor);
    return OK;
}

/* Reading keys: one struct so that each key is one line. */
struct keys {
    const struct gguf *g;
    const char *arch;
    struct error *e;
};

static void key_name(char out[96], const struct keys *k, const char *name)
{
    snprintf(out, 96, "%s.%s", k->arch, name);
}

/* The number of key ARCH.name; absent it is *v unless required. */
static enum status read_u32(const struct keys *k, const char *name, bool required, uint32_t *v)
{
    char key[96];
    uint64_t number;
    key_name(key, k, name);
    bool present = gguf_find_key(k->g, key) != NULL;
    FAIL_IF(!present && required, k->e, ERR_FORMAT,
            "%s has no key %s: it does not describe a model", k->g->file.path, key);
    if (!present)
        return OK;
    FAIL_IF(!gguf_get_u64(k->g, key, &number) || number > UINT32_MAX, k->e, ERR_UNSUPPORTED,
            "%s: key %s is not one number of 32 bits, as sbit needs it", k->g->file.path, key);
    *v = (uint32_t)number;
    return OK;
}

static enum status read_f32(const struct keys *k, const char *name, float *v)
{
    char key[96];
    double number;
    key_name(key, k, name);
    if (!gguf_find_key(k->g, key))
        return OK;
    FAIL_IF(!gguf_get_f64(k->g, key, &number), k->e, ERR_FORMAT,
            "%s is damaged: key %s is no number", k->g->file.path, key);
    *v = (float)number;
    return OK;
}

static enum status read_arch(struct model_config *c, const struct gguf *g, struct error *e)
{
    static const char *const known[] = {"llama", "qwen2", "qwen3"};
    struct gguf_string arch;
    FAIL_IF(!gguf_get_string(g, "general.architecture", &arch), e, ERR_FORMAT,
            "%s has no key general.architecture: it does not describe a model", g->file.path);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (arch.size == strlen(known[i]) && memcmp(arch.data, known[i], arch.size) == 0)
            snprintf(c->arch, sizeof c->arch, "%s", known[i]);
    FAIL_IF(!c->arch[0], e, ERR_UNSUPPORTED,
            "%s: architecture \"%.*s\" is not supported; supported are llama, qwen2 and qwen3",
            g->file.path, (int)(arch.size < 64 ? arch.size : 64), arch.data);
    return OK;
}

static enum status read_rope_scaling(struct model_config *c, const struct keys *k)
{
    char key[96];
    struct gguf_string type;
    key_name(key, k, "rope.scaling.type");
    TRY(read_f32(k, "rope.scale_linear", &c->rope_factor)); /* files of 2023 */
    TRY(read_f32(k, "rope.scaling.factor", &c->rope_factor));
    bool stated = gguf_get_string(k->g, key, &type);
    bool none = stated && type.size == 4 && memcmp(type.data, "none", 4) == 0;
    bool linear = stated && type.size == 6 && memcmp(type.data, "linear", 6) == 0;
    FAIL_IF(stated && !none && !linear, k->e, ERR_UNSUPPORTED,
            "%s: RoPE scaling \"%.*s\" is not supported; supported are none and linear",
            k->g->file.path, (int)(type.size < 64 ? type.size : 64), type.data);
    if (linear || (!stated && c->rope_factor != 1.0f))
        c->rope_scaling = ROPE_LINEAR;
    return OK;
}

/* The vocabulary is as long as the embedding; failing that, a key or the tokenizer says so. */
static enum status read_vocab(struct model_config *c, const struct keys *k)
{
    const struct gguf_tensor *embedding = gguf_find_tensor(k->g, "token_embd.weight");
    const struct gguf_key *tokens = gguf_find_key(k->g, "tokenizer.ggml.tokens");
    if (tokens && tokens->count <= UINT32_MAX)
        c->vocab = (uint32_t)tokens->count;
    TRY(read_u32(k, "vocab_size", false, &c->vocab));
    if (embedding && embedding->dim[1] <= UINT32_MAX)
        c->vocab = (uint32_t)embedding->dim[1];
    return OK;
}

/* Sizes first, then what has them as defaults. */
static enum status read_sizes(struct model_config *c, const struct keys *k)
{
    uint32_t experts = 0;
    TRY(read_u32(k, "expert_count", false, &experts));
    FAIL_IF(experts > 0, k->e, ERR_UNSUPPORTED,
            "%s is a mixture of %u experts, which sbit does not support", k->g->file.path, experts);
    TRY(read_u32(k, "block_count", true, &c->block_count));
    TRY(read_u32(k, "embedding_length", true, &c->hidden));
    TRY(read_u32(k, "feed_forward_length", true, &c->ffn));
    TRY(read_u32(k, "context_length", true, &c->context));
    TRY(read_u32(k, "attention.head_count", true, &c->heads));
    c->kv_heads = c->heads;
    TRY(read_u32(k, "attention.head_count_kv", false, &c->kv_heads));
    c->head_dim = c->heads ? c->hidden / c->heads : 0;
    TRY(read_u32(k, "attention.key_length", false, &c->head_dim));
    uint32_t value_length = c->head_dim;
    TRY(read_u32(k, "attention.value_length", false, &value_length));
    FAIL_IF(value_length != c->head_dim, k->e, ERR_UNSUPPORTED,
            "%s: heads with keys of %u and values of %u are not supported", k->g->file.path,
            c->head_dim, value_length);
    c->rope_dim = c->head_dim;
    TRY(read_u32(k, "rope.dimension_count", false, &c->rope_dim));
    return read_u32(k, "attention.sliding_window", false, &c->sliding_window);
}

enum status model_config_from_gguf(struct model_config *c, const struct gguf *g, struct error *e)
{
    memset(c, 0, sizeof *c);
    TRY(read_arch(c, g, e));
    struct keys k = {.g = g, .arch = c->arch, .e = e};
    bool llama = strcmp(c->arch, "llama") == 0;
    c->rms_eps = 1e-5f;
    c->rope_base = 10000.0f;
    c->rope_factor = 1.0f;
    TRY(read_sizes(c, &k));
    TRY(read_vocab(c, &k));
    TRY(read_f32(&k, "attention.layer_norm_rms_epsilon", &c->rms_eps));
    TRY(read_f32(&k, "rope.freq_base", &c->rope_base));
    TRY(read_rope_scaling(c, &k));
    c->rope_interleaved = llama;
    c->qkv_bias =
        strcmp(c->arch, "qwen2") == 0 || (llama && gguf_find_tensor(g, "blk.0.attn_q.bias"));
    c->qk_norm = strcmp(c->arch, "qwen3") == 0;
    c->tied = !gguf_find_tensor(g, "output.weight") && !gguf_find_tensor(g, "output.code");
    if (c->sliding_window >= c->context)
        c->sliding_window = 0;
    return model_config_check(c, g->file.path, e);
}

struct writer {
    struct gguf_writer *w;
    const char *arch;
    struct error *e;
};

static enum status write_u32(const struct writer *k, const char *name, uint32_t v)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", k->arch, name);
    return gguf_set_u32(k->w, key, v, k->e);
}

static enum status write_f32(const struct writer *k, const char *name, float v)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", k->arch, name);
    return gguf_set_f32(k->w, key, v, k->e);
}

static enum status write_rope(const struct model_config *c, const struct writer *k)
{
    char key[96];
    TRY(write_u32(k, "rope.dimension_count", c->rope_dim));
    TRY(write_f32(k, "rope.freq_base", c->rope_base));
    if (c->rope_scaling != ROPE_LINEAR)
        return OK; /* llama3 scaling travels as the tensor rope_freqs.weight */
    snprintf(key, sizeof key, "%s.rope.scaling.type", c->arch);
    TRY(gguf_set_string(k->w, key, "linear", k->e));
    return write_f32(k, "rope.scaling.factor", c->rope_factor);
}

enum status model_config_to_gguf(const struct model_config *c, struct gguf_writer *w,
                                 struct error *e)
{
    struct writer k = {.w = w, .arch = c->arch, .e = e};
    TRY(gguf_set_string(w, "general.architecture", c->arch, e));
    TRY(write_u32(&k, "vocab_size", c->vocab));
    TRY(write_u32(&k, "context_length", c->context));
    TRY(write_u32(&k, "embedding_length", c->hidden));
    TRY(write_u32(&k, "block_count", c->block_count));
    TRY(write_u32(&k, "feed_forward_length", c->ffn));
    TRY(write_u32(&k, "attention.head_count", c->heads));
    TRY(write_u32(&k, "attention.head_count_kv", c->kv_heads));
    TRY(write_u32(&k, "attention.key_length", c->head_dim));
    TRY(write_u32(&k, "attention.value_length", c->head_dim));
    TRY(write_f32(&k, "attention.layer_norm_rms_epsilon", c->rms_eps));
    if (c->sliding_window > 0)
        TRY(write_u32(&k, "attention.sliding_window", c->sliding_window));
    return write_rope(c, &k);
}
