/* Writes a Hugging Face folder of generated weights in the shape of a published model: for timing
 * and memory at full size, without a download. It says nothing sensible.
 *
 *     make_7b TOKENIZER_FOLDER OUT_FOLDER [--blocks N] [--shape NAME] [--seed N] [--shard-mb N] [--empty]
 *
 * The shape is mistral-7b unless another that sbit bench model knows is named; --blocks keeps only
 * the first N blocks (436 MB each), which are the same ones whatever N is. Weights are bfloat16 in
 * shards with an index, names and sizes as published; the tokenizer is that of TOKENIZER_FOLDER
 * (models/demo), whose vocabulary may be smaller. The same arguments give the same files. With --empty
 * no weights are written: the files have their sizes and take no room, which is enough for what reads
 * headers only (sbit compress --dry-run --calib none).
 *
 * A weight is a Gaussian number times a scale of its row and one of its column, both log-normal,
 * so that columns differ in importance as those of trained models do; rows have the variance
 * 1/columns, and what a block adds to the residual stream is divided by sqrt(2 blocks), so that
 * activations stay ordinary numbers through all blocks. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/exactmath.h"
#include "common/mem.h"
#include "common/random_weights.h"
#include "coordinator/bench_shapes.h"

#define QUANTILES     4096 /* few enough for the first cache; the largest is 3.8 */
#define SIGN          0x8000
#define ROW_SPREAD    0.2 /* standard deviations of the logarithms */
#define COLUMN_SPREAD 0.4
#define NORM_SPREAD   0.3
#define BIAS          0.1

struct arguments {
    const char *tokenizer, *out, *shape;
    uint64_t blocks, seed, shard_mb;
    bool empty;
};

struct entry { /* a tensor to be written */
    char name[96];
    enum tensor_kind kind;
    uint32_t block, shard;
    uint64_t rows, cols, begin; /* begin: offset in the data of its shard */
};

struct plan {
    struct arguments a;
    struct model_config config;
    uint32_t depth; /* blocks of the whole shape */
    struct entry *entries;
    uint32_t n, shards;
    uint64_t total;  /* bytes of all tensors */
    float *quantile; /* [QUANTILES] of |x|, x Gaussian */
    float *scale;    /* [widest row] of the columns */
    uint16_t *row;   /* [widest row] */
};

/* quantile[i] = the x with P(|X| < x) = (i + 0.5) / QUANTILES, by bisection. */
static void fill_quantiles(float *quantile)
{
    double low = 0;
    for (int i = 0; i < QUANTILES; i++) {
        double above = 1 - (i + 0.5) / QUANTILES, high = 8;
        for (double from = low; high - from > 1e-9;) {
            double middle = (from + high) / 2;
            if (erfc(middle / sqrt(2)) > above)
                low = from = middle;
            else
                high = middle;
        }
        quantile[i] = (float)low;
    }
}

/* A Gaussian number from 16 random bits: the place of its magnitude and its sign. */
static float gaussian(const float *quantile, uint64_t bits)
{
    return copysignf(quantile[bits & (QUANTILES - 1)], bits & SIGN ? -1.0f : 1.0f);
}

static float log_normal(const struct plan *p, struct random_weights *r, double spread)
{
    return (float)exact_exp(spread * gaussian(p->quantile, random_weights_next(r) >> 32));
}

/* To bfloat16, to nearest even; finite numbers only. Here because it must be inlined to be fast. */
static uint16_t round_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* n weights of a row into p->row, four from each random word; n is a multiple of 4. */
static void fill_row(struct plan *p, struct random_weights *r, uint64_t n, float row_scale)
{
    for (uint64_t i = 0; i < n; i += 4) {
        uint64_t word = random_weights_next(r);
        for (uint64_t j = 0; j < 4; j++, word >>= 16) { /* without a branch on the sign */
            float x = p->quantile[word & (QUANTILES - 1)] * row_scale * p->scale[i + j];
            p->row[i + j] = (uint16_t)(round_bf16(x) | (word & SIGN));
        }
    }
}

/* Scales of the columns with the mean square 1. */
static void draw_columns(struct plan *p, struct random_weights *r, uint64_t n)
{
    double sum = 0;
    for (uint64_t i = 0; i < n; i++) {
        p->scale[i] = log_normal(p, r, COLUMN_SPREAD);
        sum += (double)p->scale[i] * p->scale[i];
    }
    float unit = (float)sqrt((double)n / sum);
    for (uint64_t i = 0; i < n; i++)
        p->scale[i] *= unit;
}

/* The standard deviation of a matrix's weights. */
static double deviation(const struct plan *p, const struct entry *t)
{
    if (t->kind == KIND_EMBEDDING && !p->config.tied)
        return 1;
    double gain = t->kind == KIND_O || t->kind == KIND_DOWN ? 1 / sqrt(2.0 * p->depth) : 1;
    return gain / sqrt((double)t->cols);
}

static void fill_vector(struct plan *p, const struct entry *t, struct random_weights *r)
{
    bool bias = t->kind == KIND_Q_BIAS || t->kind == KIND_K_BIAS || t->kind == KIND_V_BIAS;
    for (uint64_t i = 0; i < t->cols; i++) {
        float x = bias ? (float)BIAS * gaussian(p->quantile, random_weights_next(r) >> 32)
                       : log_normal(p, r, NORM_SPREAD);
        p->row[i] = round_bf16(x);
    }
}

static bool write_tensor(struct plan *p, const struct entry *t, FILE *file)
{
    /* Streams that begin at different states are different; odd factors keep them so. */
    struct random_weights r = {(p->a.seed + 1) * 0x9e3779b97f4a7c15u ^
                               ((uint64_t)t->kind << 32 | t->block) * 0xd1342543de82ef95u};
    r.state += !r.state;
    for (int i = 0; i < 8; i++) /* neighbouring states drift apart */
        random_weights_next(&r);
    bool matrix = model_rule(t->kind)->matrix;
    if (matrix)
        draw_columns(p, &r, t->cols);
    double unit = deviation(p, t);
    for (uint64_t i = 0; i < t->rows; i++) {
        if (matrix)
            fill_row(p, &r, t->cols, (float)unit * log_normal(p, &r, ROW_SPREAD));
        else
            fill_vector(p, t, &r);
        if (fwrite(p->row, sizeof *p->row, t->cols, file) != t->cols)
            return false;
    }
    return true;
}

static enum status add_entry(struct plan *p, enum tensor_kind kind, uint32_t block, struct error *e)
{
    struct entry *t = &p->entries[p->n];
    if (!model_shape(&p->config, kind, &t->rows, &t->cols))
        return OK;
    FAIL_IF(model_rule(kind)->matrix && t->cols % 4, e, ERR_UNSUPPORTED,
            "rows of %llu weights are no multiple of 4", (unsigned long long)t->cols);
    t->kind = kind;
    t->block = block;
    model_hf_name(t->name, kind, block);
    p->n++;
    return OK;
}

/* Embeddings, blocks, the last norm and the head. */
static enum status list_tensors(struct plan *p, struct error *e)
{
    TRY(mem_array(&p->entries, (size_t)p->config.block_count * KIND_COUNT + KIND_COUNT,
                  sizeof *p->entries, "the list of tensors", e));
    TRY(add_entry(p, KIND_EMBEDDING, 0, e));
    for (uint32_t b = 0; b < p->config.block_count; b++) {
        for (int kind = 0; kind < KIND_EMBEDDING; kind++)
            TRY(add_entry(p, (enum tensor_kind)kind, b, e));
    }
    TRY(add_entry(p, KIND_OUTPUT_NORM, 0, e));
    return add_entry(p, KIND_OUTPUT, 0, e);
}

/* Deals the tensors into shards of at most so many megabytes, except where one is larger. */
static enum status cut_shards(struct plan *p, struct error *e)
{
    uint64_t filled = 0, widest = 0;
    p->shards = 1;
    for (uint32_t i = 0; i < p->n; i++) {
        struct entry *t = &p->entries[i];
        uint64_t bytes = t->rows * t->cols * sizeof *p->row;
        if (filled > 0 && filled + bytes > p->a.shard_mb * 1000000) {
            p->shards++;
            filled = 0;
        }
        t->shard = p->shards;
        t->begin = filled;
        filled += bytes;
        p->total += bytes;
        widest = t->cols > widest ? t->cols : widest;
    }
    TRY(mem_array(&p->quantile, QUANTILES, sizeof *p->quantile, "quantiles", e));
    TRY(mem_array(&p->scale, widest, sizeof *p->scale, "scales", e));
    return mem_array(&p->row, widest, sizeof *p->row, "a row", e);
}

static void shard_name(char out[64], const struct plan *p, uint32_t shard)
{
    snprintf(out, 64, "model-%05u-of-%05u.safetensors", shard, p->shards);
}

static FILE *create(const struct plan *p, const char *name, struct error *e)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", p->a.out, name);
    FILE *file = fopen(path, "wb");
    if (!file)
        error_set_errno(e, ERR_IO, "cannot create %s", path);
    return file;
}

static enum status finish(const struct plan *p, FILE *file, const char *name, bool good,
                          struct error *e)
{
    good = fclose(file) == 0 && good;
    return good ? OK : error_set_errno(e, ERR_IO, "cannot write %s/%s", p->a.out, name);
}

static enum status write_json(const struct plan *p, const char *name, json_t *root, struct error *e)
{
    FILE *file = root ? create(p, name, e) : NULL;
    bool good = file && json_dumpf(root, file, JSON_INDENT(2) | JSON_PRESERVE_ORDER) == 0;
    json_decref(root);
    FAIL_IF(!file, e, ERR_MEMORY, "out of memory: %s", name);
    return finish(p, file, name, good, e);
}

/* The header of a shard: its tensors with their places, padded so that data begins at 8 bytes. */
static char *make_header(const struct plan *p, uint32_t shard)
{
    json_t *root = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    for (uint32_t i = 0; i < p->n; i++) {
        const struct entry *t = &p->entries[i];
        if (t->shard != shard)
            continue;
        json_int_t end = (json_int_t)(t->begin + t->rows * t->cols * sizeof *p->row);
        json_t *shape = model_rule(t->kind)->matrix
                            ? json_pack("[I, I]", (json_int_t)t->rows, (json_int_t)t->cols)
                            : json_pack("[I]", (json_int_t)t->cols);
        json_object_set_new(root, t->name,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype", "BF16", "shape", shape,
                                      "data_offsets", (json_int_t)t->begin, end));
    }
    char *text = json_dumps(root, JSON_COMPACT | JSON_PRESERVE_ORDER);
    json_decref(root);
    return text;
}

static bool write_tensors(struct plan *p, uint32_t shard, FILE *file)
{
    off_t bytes = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        const struct entry *t = &p->entries[i];
        if (t->shard != shard)
            continue;
        if (!p->a.empty && !write_tensor(p, t, file))
            return false;
        bytes += (off_t)(t->rows * t->cols * sizeof *p->row);
    }
    return !p->a.empty ||
           (fflush(file) == 0 && ftruncate(fileno(file), ftello(file) + bytes) == 0);
}

static enum status write_shard(struct plan *p, uint32_t shard, struct error *e)
{
    char name[64], *header = make_header(p, shard);
    shard_name(name, p, shard);
    FAIL_IF(!header, e, ERR_MEMORY, "out of memory: the header of %s", name);
    FILE *file = create(p, name, e);
    if (!file) {
        free(header);
        return e->status;
    }
    uint64_t size = (strlen(header) + 7) / 8 * 8;
    bool good = fwrite(&size, sizeof size, 1, file) == 1;
    good = fprintf(file, "%-*s", (int)size, header) == (int)size && good;
    free(header);
    good = good && write_tensors(p, shard, file);
    return finish(p, file, name, good, e);
}

static enum status write_index(const struct plan *p, struct error *e)
{
    json_t *map = json_object();
    for (uint32_t i = 0; i < p->n; i++) {
        char name[64];
        shard_name(name, p, p->entries[i].shard);
        json_object_set_new(map, p->entries[i].name, json_string(name));
    }
    return write_json(p, "model.safetensors.index.json",
                      json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)p->total,
                                "weight_map", map),
                      e);
}

static enum status write_config(const struct plan *p, struct error *e)
{
    const struct model_config *c = &p->config;
    bool mistral = !strncmp(p->a.shape, "mistral", 7), qwen2 = !strcmp(c->arch, "qwen2");
    bool llama = !strcmp(c->arch, "llama");
    const char *type = mistral ? "mistral" : llama ? "llama" : qwen2 ? "qwen2" : "qwen3";
    const char *class = mistral ? "MistralForCausalLM"
                        : llama ? "LlamaForCausalLM"
                        : qwen2 ? "Qwen2ForCausalLM"
                                : "Qwen3ForCausalLM";
    json_t *root = json_pack(
        "{s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:b, s:s, s:n, s:i, s:i, "
        "s:s}",
        "architectures", class, "model_type", type, "hidden_size", (json_int_t)c->hidden,
        "intermediate_size", (json_int_t)c->ffn, "num_hidden_layers", (json_int_t)c->block_count,
        "num_attention_heads", (json_int_t)c->heads, "num_key_value_heads", (json_int_t)c->kv_heads,
        "head_dim", (json_int_t)c->head_dim, "vocab_size", (json_int_t)c->vocab,
        "max_position_embeddings", (json_int_t)c->context, "rms_norm_eps", (double)c->rms_eps,
        "rope_theta", (double)c->rope_base, "tie_word_embeddings", (int)c->tied, "hidden_act",
        "silu", "sliding_window", "bos_token_id", 0, "eos_token_id", 0, "torch_dtype", "bfloat16");
    return write_json(p, "config.json", root, e);
}

static enum status copy_file(const struct plan *p, const char *name, struct error *e)
{
    static char piece[1 << 16];
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", p->a.tokenizer, name);
    FILE *in = fopen(path, "rb");
    if (!in)
        return error_set_errno(e, ERR_IO, "cannot read %s", path);
    FILE *out = create(p, name, e);
    bool good = out != NULL;
    for (size_t n; good && (n = fread(piece, 1, sizeof piece, in)) > 0;)
        good = fwrite(piece, 1, n, out) == n;
    good = !ferror(in) && good;
    fclose(in);
    return out ? finish(p, out, name, good, e) : e->status;
}

static enum status make(struct plan *p, struct error *e)
{
    TRY(bench_shape(&p->config, p->a.shape, e));
    p->depth = p->config.block_count;
    if (p->a.blocks > 0 && p->a.blocks < p->depth)
        p->config.block_count = (uint32_t)p->a.blocks;
    TRY(list_tensors(p, e));
    TRY(cut_shards(p, e));
    fill_quantiles(p->quantile);
    mkdir(p->a.out, 0777); /* where it cannot be made, creating the files tells why */
    TRY(copy_file(p, "tokenizer.json", e));
    TRY(copy_file(p, "tokenizer_config.json", e));
    TRY(write_config(p, e));
    TRY(write_index(p, e));
    for (uint32_t shard = 1; shard <= p->shards; shard++)
        TRY(write_shard(p, shard, e));
    return OK;
}

/* Whether argv holds two folders and known options with their values. */
static bool parse(struct arguments *a, int argc, char **argv)
{
    *a = (struct arguments){.shape = "mistral-7b", .seed = 1, .shard_mb = 1000};
    for (int i = 1; i < argc; i++) {
        const struct {
            const char *name;
            uint64_t *number;
        } options[] = {
            {"--blocks", &a->blocks}, {"--seed", &a->seed}, {"--shard-mb", &a->shard_mb}};
        const char *value = argv[i][0] == '-' && i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(argv[i], "--empty")) {
            a->empty = true;
            continue;
        }
        bool known = value && !strcmp(argv[i], "--shape");
        if (known)
            a->shape = value;
        for (size_t k = 0; value && k < sizeof options / sizeof options[0]; k++) {
            if (!strcmp(argv[i], options[k].name)) {
                char *end;
                *options[k].number = strtoull(value, &end, 10);
                known = *value && !*end;
            }
        }
        if (argv[i][0] == '-' && !known)
            return false;
        if (known)
            i++;
        else if (!a->tokenizer)
            a->tokenizer = argv[i];
        else if (!a->out)
            a->out = argv[i];
        else
            return false;
    }
    return a->out != NULL;
}

int main(int argc, char **argv)
{
    struct error e = {0};
    struct plan p = {0};
    if (!parse(&p.a, argc, argv)) {
        fprintf(stderr, "make_7b TOKENIZER_FOLDER OUT_FOLDER [--blocks N] [--shape NAME] "
                        "[--seed N] [--shard-mb N] [--empty]\n");
        return 2;
    }
    enum status status = make(&p, &e);
    free(p.entries);
    free(p.quantile);
    free(p.scale);
    free(p.row);
    if (status != OK) {
        fprintf(stderr, "make_7b: %s\n", e.text);
        return 1;
    }
    return 0;
}
