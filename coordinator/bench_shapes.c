/* The table of shapes. RoPE scaling is left out: it changes angles, not speed. */
#include "coordinator/bench_shapes.h"

#include <stdio.h>
#include <string.h>

struct shape {
    const char *name, *arch;
    uint32_t blocks, hidden, ffn, heads, kv_heads, head_dim, vocab, context;
    float rope_base, rms_eps;
    bool tied;
};

static const struct shape shapes[] = {
    {"demo", "llama", 8, 128, 384, 4, 2, 32, 2048, 512, 1e4f, 1e-5f, true},
    {"smollm2-135m", "llama", 30, 576, 1536, 9, 3, 64, 49152, 8192, 1e5f, 1e-5f, true},
    {"smollm2-360m", "llama", 32, 960, 2560, 15, 5, 64, 49152, 8192, 1e5f, 1e-5f, true},
    {"qwen2.5-0.5b", "qwen2", 24, 896, 4864, 14, 2, 64, 151936, 32768, 1e6f, 1e-6f, true},
    {"qwen2.5-1.5b", "qwen2", 28, 1536, 8960, 12, 2, 128, 151936, 32768, 1e6f, 1e-6f, true},
    {"qwen3-0.6b", "qwen3", 28, 1024, 3072, 16, 8, 128, 151936, 40960, 1e6f, 1e-6f, true},
    {"tinyllama-1.1b", "llama", 22, 2048, 5632, 32, 4, 64, 32000, 2048, 1e4f, 1e-5f, false},
    {"llama-3.2-1b", "llama", 16, 2048, 8192, 32, 8, 64, 128256, 131072, 5e5f, 1e-5f, true},
    {"llama-3.2-3b", "llama", 28, 3072, 8192, 24, 8, 128, 128256, 131072, 5e5f, 1e-5f, true},
    {"llama-2-7b", "llama", 32, 4096, 11008, 32, 32, 128, 32000, 4096, 1e4f, 1e-5f, false},
    {"mistral-7b", "llama", 32, 4096, 14336, 32, 8, 128, 32768, 32768, 1e6f, 1e-5f, false},
    {"llama-3-8b", "llama", 32, 4096, 14336, 32, 8, 128, 128256, 8192, 5e5f, 1e-5f, false},
};

enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

const char *bench_shape_name(int i)
{
    return i < N_SHAPES ? shapes[i].name : NULL;
}

static enum status unknown(const char *name, struct error *e)
{
    char list[512] = "";
    for (int i = 0; i < N_SHAPES; i++) {
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s",
                 i == 0              ? ""
                 : i + 1 == N_SHAPES ? " and "
                                     : ", ",
                 shapes[i].name);
    }
    return error_set(e, ERR_USAGE, "there is no shape \"%.64s\": there are %s", name, list);
}

enum status bench_shape(struct model_config *c, const char *name, struct error *e)
{
    const struct shape *s = shapes;
    while (s < shapes + N_SHAPES && strcmp(s->name, name))
        s++;
    if (s == shapes + N_SHAPES)
        return unknown(name, e);
    *c = (struct model_config){.block_count = s->blocks,
                               .hidden = s->hidden,
                               .ffn = s->ffn,
                               .heads = s->heads,
                               .kv_heads = s->kv_heads,
                               .head_dim = s->head_dim,
                               .vocab = s->vocab,
                               .context = s->context,
                               .rms_eps = s->rms_eps,
                               .rope_base = s->rope_base,
                               .rope_dim = s->head_dim,
                               .rope_factor = 1,
                               .rope_interleaved = !strcmp(s->arch, "llama"),
                               .qkv_bias = !strcmp(s->arch, "qwen2"),
                               .qk_norm = !strcmp(s->arch, "qwen3"),
                               .tied = s->tied};
    snprintf(c->arch, sizeof c->arch, "%s", s->arch);
    return OK;
}
