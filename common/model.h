/* What a Llama-family model is: its hyper-parameters and the names and shapes of its tensors,
 * described by tables. Names are GGUF's; Hugging Face names are mapped on reading.
 *
 * Families: Llama 2/3.x, TinyLlama, SmolLM2, Mistral (GGUF architecture "llama"), Qwen2/2.5
 * ("qwen2": bias on q, k, v), Qwen3 ("qwen3": RMS norm on every q and k head).
 */
#ifndef SBIT_COMMON_MODEL_H
#define SBIT_COMMON_MODEL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/gguf.h"

enum rope_scaling { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3 };

struct model_config {
    char arch[16];           /* GGUF general.architecture: "llama", "qwen2", "qwen3" */
    uint32_t block_count;
    uint32_t hidden;         /* embedding_length, hidden_size */
    uint32_t ffn;            /* feed_forward_length, intermediate_size */
    uint32_t heads, kv_heads;
    uint32_t head_dim;
    uint32_t vocab;
    uint32_t context;        /* context_length, max_position_embeddings */
    float rms_eps;
    float rope_base;         /* rope.freq_base, rope_theta */
    uint32_t rope_dim;       /* rotated part of a head, at most head_dim */
    enum rope_scaling rope_scaling;
    float rope_factor, rope_low_freq, rope_high_freq; /* llama3 scaling; factor also for linear */
    uint32_t rope_original_context;
    bool rope_interleaved;   /* pairs are (2i, 2i+1), else Hugging Face's (i, i + rope_dim/2) */
    bool qkv_bias, qk_norm;
    bool tied;               /* no output.weight: the head is token_embd */
    uint32_t sliding_window; /* 0: none */
};

/* Reads config.json (already parsed; path for messages). Errors: ERR_UNSUPPORTED for an
 * architecture outside the families, naming it and those supported; ERR_FORMAT for missing or
 * absurd values. */
enum status model_config_from_json(struct model_config *c, const json_t *config, const char *path,
                                   struct error *e);
/* Reads the keys "ARCH.*" of a GGUF header. */
enum status model_config_from_gguf(struct model_config *c, const struct gguf *g, struct error *e);
/* Writes general.architecture and the "ARCH.*" keys. */
enum status model_config_to_gguf(const struct model_config *c, struct gguf_writer *w,
                                 struct error *e);

enum tensor_kind { /* what a tensor is; block tensors first */
    KIND_ATTN_NORM, KIND_Q, KIND_K, KIND_V, KIND_O, KIND_Q_BIAS, KIND_K_BIAS, KIND_V_BIAS,
    KIND_Q_NORM, KIND_K_NORM, KIND_FFN_NORM, KIND_GATE, KIND_UP, KIND_DOWN,
    KIND_EMBEDDING, KIND_OUTPUT_NORM, KIND_OUTPUT, KIND_ROPE_FACTORS, KIND_COUNT
};

struct tensor_rule {
    const char *label;     /* "q", "gate": for reports */
    const char *gguf_base; /* "blk.%u.attn_q" or "token_embd": the name without ".weight"/".bias" */
    const char *suffix;    /* ".weight" or ".bias" */
    const char *hf;        /* "model.layers.%u.self_attn.q_proj.weight" */
    bool matrix;           /* two-dimensional, a candidate for compression */
    bool per_block;
};

/* The table row of a kind. */
const struct tensor_rule *model_rule(enum tensor_kind kind);
/* Rows and columns a tensor of that kind must have (rows 1 for vectors); false when the model has
 * no such tensor (no bias, tied output). */
bool model_shape(const struct model_config *c, enum tensor_kind kind, uint64_t *rows,
                 uint64_t *cols);
/* "blk.3.attn_q" into out. */
void model_base_name(char out[64], enum tensor_kind kind, uint32_t block);
/* "model.layers.3.self_attn.q_proj.weight" into out; empty for a kind without such a name. */
void model_hf_name(char out[96], enum tensor_kind kind, uint32_t block);
/* Kind and block of a GGUF tensor name such as "blk.3.attn_q.weight" or "blk.3.attn_q.code"; false
 * if none. */
bool model_kind_of(const char *name, enum tensor_kind *kind, uint32_t *block);
/* The same for a Hugging Face name such as "model.layers.3.self_attn.q_proj.weight". */
bool model_kind_of_hf(const char *name, enum tensor_kind *kind, uint32_t *block);

#endif
