/* sbit inspect: what a model's files say about themselves, as text and as JSON. Reads headers
 * only. */
#define _GNU_SOURCE /* memmem */
#include "coordinator/commands.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "common/tokenizer.h"
#include "common/weights.h"

#define MAX_REASONS 16 /* of notes; plans have two or three */

struct sizes {
    uint64_t matrix_bytes; /* matrices of the blocks, all their parts */
    uint64_t matrix_weights;
};

static struct sizes measure(const struct weights *w)
{
    struct sizes s = {0};
    for (uint64_t i = 0; i < w->n_tensors; i++) {
        enum tensor_kind kind;
        uint32_t block;
        if (!model_kind_of(w->tensors[i].name, &kind, &block))
            continue;
        if (model_rule(kind)->matrix && model_rule(kind)->per_block)
            s.matrix_bytes += w->tensors[i].bytes;
    }
    for (int k = 0; k < KIND_COUNT; k++) {
        const struct tensor_rule *rule = model_rule((enum tensor_kind)k);
        uint64_t rows, cols;
        if (rule->matrix && rule->per_block &&
            model_shape(&w->config, (enum tensor_kind)k, &rows, &cols))
            s.matrix_weights += rows * cols * w->config.block_count;
    }
    return s;
}

static double per_weight(uint64_t bytes, uint64_t weights)
{
    return weights ? 8.0 * (double)bytes / (double)weights : 0;
}

static const char *shape_text(const struct tensor *t, char out[96])
{
    size_t used = 0;
    for (uint32_t i = 0; i < t->dims && used < 96; i++)
        used += (size_t)snprintf(out + used, 96 - used, "%s%" PRIu64, i ? " x " : "", t->dim[i]);
    return out;
}

/* The last line of the description: only the keys that this source has. */
static const char *rope_text(const struct model_config *c, char out[128])
{
    static const char *const scalings[] = {"", ", linear scaling", ", llama3 scaling"};
    snprintf(out, 128, "base %g, %u of %u dimensions, %s pairs%s", (double)c->rope_base,
             c->rope_dim, c->head_dim, c->rope_interleaved ? "adjacent" : "split",
             scalings[c->rope_scaling]);
    return out;
}

static void print_model(const struct weights *w, const struct tokenizer *t)
{
    const struct model_config *c = &w->config;
    char rope[128];
    printf("%s\n", w->path);
    printf("  source            %s", w->is_gguf ? "GGUF" : "Hugging Face folder");
    if (w->n_files > 1)
        printf(", %u files", w->n_files);
    printf("\n  architecture      %s: %u blocks, hidden %u, feed-forward %u\n", c->arch,
           c->block_count, c->hidden, c->ffn);
    printf("  attention         %u heads of %u, %u key-value heads%s%s", c->heads, c->head_dim,
           c->kv_heads, c->qkv_bias ? ", biases" : "", c->qk_norm ? ", q and k norms" : "");
    if (c->sliding_window)
        printf(", sliding window %u", c->sliding_window);
    printf("\n  RoPE              %s\n", rope_text(c, rope));
    printf("  context           %u\n", c->context);
    printf("  vocabulary        %u, head %s\n", c->vocab,
           c->tied ? "tied to the embeddings" : "apart");
    if (t)
        printf("  tokenizer         %s, %u tokens\n", tokenizer_describe(t), tokenizer_vocab(t));
    else
        printf("  tokenizer         none that sbit can use\n");
}

static void print_sizes(const struct weights *w, const struct sizes *s)
{
    char ratio[128];
    printf("  parameters        %" PRIu64 "\n", w->parameters);
    printf("  size              %.2f MB, %s\n", (double)w->file_bytes / 1e6,
           report_ratio(ratio, w->file_bytes, 4.0 * (double)w->parameters, "F32"));
    printf("  bits per weight   %.3f in the matrices of the blocks, %.3f in all\n",
           per_weight(s->matrix_bytes, s->matrix_weights),
           per_weight(w->file_bytes, w->parameters));
}

/* "bits_asked 1": numbers of our own keys, where the file has them. */
static void print_number(const struct gguf *g, const char *key, const char *label)
{
    double v;
    if (gguf_get_f64(g, key, &v))
        printf("    %-15s %g\n", label, v);
}

/* Ends the line of a matrix. Those outside the blocks are not calibrated: 0 stands for no loss
 * known. */
static void print_loss(const struct gguf_key *losses, uint64_t i)
{
    double loss;
    if (losses && gguf_array_f64(losses, i, &loss) && loss > 0)
        printf(" %14.6f", loss);
    else if (losses)
        printf(" %14s", "-");
    putchar('\n');
}

static void print_matrices(const struct gguf *g)
{
    const struct gguf_key *names = gguf_find_key(g, "singularbit.matrix_names");
    const struct gguf_key *methods = gguf_find_key(g, "singularbit.matrix_methods");
    const struct gguf_key *ds = gguf_find_key(g, "singularbit.matrix_d");
    const struct gguf_key *bits = gguf_find_key(g, "singularbit.matrix_bits");
    const struct gguf_key *errors = gguf_find_key(g, "singularbit.matrix_error");
    const struct gguf_key *losses = gguf_find_key(g, "singularbit.matrix_loss");
    struct gguf_string name, method;
    uint64_t at = 0, of_methods = 0, d = 0;
    double bit = 0, error = 0;
    if (!names || !methods || !ds || !bits || !errors)
        return;
    printf("    %-22s %-6s %3s %8s %22s%s\n", "matrix", "method", "d", "bits",
           "relative squared error", losses ? "  relative loss" : "");
    for (uint64_t i = 0; gguf_next_string(names, &at, &name); i++) {
        bool whole = gguf_next_string(methods, &of_methods, &method) && gguf_array_u64(ds, i, &d) &&
                     gguf_array_f64(bits, i, &bit) && gguf_array_f64(errors, i, &error);
        if (!whole)
            return;
        printf("    %-22.*s %-6.*s %3" PRIu64 " %8.3f %22.6f", (int)name.size, name.data,
               (int)method.size, method.data, d, bit, error);
        print_loss(losses, i);
    }
}

/* The reason in a note "blk.0.attn_q.weight: reason". */
static struct gguf_string note_reason(struct gguf_string note)
{
    const char *colon = memmem(note.data, note.size, ": ", 2);
    size_t skip = colon ? (size_t)(colon + 2 - note.data) : 0;
    return (struct gguf_string){note.data + skip, note.size - skip};
}

struct reason {
    struct gguf_string text;
    uint64_t count;
};

/* The different reasons of the notes, as many as fit; returns how many. The last one takes those
 * that do not fit. */
static size_t gather_reasons(const struct gguf_key *notes, struct reason out[MAX_REASONS])
{
    struct gguf_string note;
    uint64_t state = 0;
    size_t n = 0;
    while (gguf_next_string(notes, &state, &note)) {
        struct gguf_string text = note_reason(note);
        size_t i = 0;
        while (i < n && i < MAX_REASONS - 1 &&
               (out[i].text.size != text.size || memcmp(out[i].text.data, text.data, text.size)))
            i++;
        if (i == n)
            out[n++] = (struct reason){.text = text};
        out[i].count++;
    }
    return n;
}

static void print_notes(const struct gguf *g)
{
    const struct gguf_key *notes = gguf_find_key(g, "singularbit.notes");
    struct reason reasons[MAX_REASONS];
    size_t n = notes ? gather_reasons(notes, reasons) : 0;
    for (size_t i = 0; i < n; i++)
        printf("    note: %" PRIu64 " matri%s: %.*s\n", reasons[i].count,
               reasons[i].count == 1 ? "x" : "ces", (int)reasons[i].text.size,
               reasons[i].text.data);
}

static void print_compression(const struct weights *w)
{
    struct gguf_string method;
    if (!w->is_gguf || !gguf_get_string(&w->gguf[0], "singularbit.method", &method))
        return;
    const struct gguf *g = &w->gguf[0];
    printf("  compressed by sbit\n    %-15s %.*s\n", "method", (int)method.size, method.data);
    print_number(g, "singularbit.format_version", "format version");
    print_number(g, "singularbit.bits_asked", "bits asked");
    print_number(g, "singularbit.outliers", "outliers");
    print_matrices(g);
    print_notes(g);
}

static void print_tensors(const struct weights *w)
{
    printf("  %-30s %-5s %-20s %14s\n", "tensor", "type", "shape", "bytes");
    for (uint64_t i = 0; i < w->n_tensors; i++) {
        const struct tensor *t = &w->tensors[i];
        char shape[96];
        printf("  %-30s %-5s %-20s %14" PRIu64 "\n", t->name, dtype_info(t->dtype)->name,
               shape_text(t, shape), t->bytes);
    }
}

static json_t *tensors_json(const struct weights *w)
{
    json_t *list = json_array();
    for (uint64_t i = 0; i < w->n_tensors; i++) {
        const struct tensor *t = &w->tensors[i];
        json_t *shape = json_array();
        for (uint32_t k = 0; k < t->dims; k++)
            json_array_append_new(shape, json_integer((json_int_t)t->dim[k]));
        json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:I}", "name", t->name, "type",
                                              dtype_info(t->dtype)->name, "shape", shape, "bytes",
                                              (json_int_t)t->bytes));
    }
    return list;
}

/* The numbers of one of our array keys; null where the file has none. */
static json_t *numbers_json(const struct gguf *g, const char *name)
{
    const struct gguf_key *k = gguf_find_key(g, name);
    json_t *list = k ? json_array() : json_null();
    double v;
    for (uint64_t i = 0; k && i < k->count && gguf_array_f64(k, i, &v); i++)
        json_array_append_new(list, json_real(v));
    return list;
}

static json_t *strings_json(const struct gguf *g, const char *name)
{
    const struct gguf_key *k = gguf_find_key(g, name);
    json_t *list = json_array();
    struct gguf_string text;
    uint64_t state = 0;
    while (k && gguf_next_string(k, &state, &text))
        json_array_append_new(list, json_stringn(text.data, text.size));
    return list;
}

static json_t *compression_json(const struct weights *w)
{
    struct gguf_string method;
    if (!w->is_gguf || !gguf_get_string(&w->gguf[0], "singularbit.method", &method))
        return json_null();
    const struct gguf *g = &w->gguf[0];
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "method", json_stringn(method.data, method.size),
        "matrix_names", strings_json(g, "singularbit.matrix_names"), "matrix_d",
        numbers_json(g, "singularbit.matrix_d"), "matrix_bits",
        numbers_json(g, "singularbit.matrix_bits"), "matrix_error",
        numbers_json(g, "singularbit.matrix_error"), "matrix_loss",
        numbers_json(g, "singularbit.matrix_loss"), "notes", strings_json(g, "singularbit.notes"));
}

static enum status write_json(const struct weights *w, const struct tokenizer *t,
                              const struct sizes *s, const char *path, struct error *e)
{
    const struct model_config *c = &w->config;
    json_t *root =
        json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:I, s:I, s:f, s:f, "
                  "s:f, s:o, s:o}",
                  "model", w->path, "architecture", c->arch, "blocks", (int)c->block_count,
                  "hidden", (int)c->hidden, "ffn", (int)c->ffn, "heads", (int)c->heads, "kv_heads",
                  (int)c->kv_heads, "head_dim", (int)c->head_dim, "vocab", (int)c->vocab, "context",
                  (int)c->context, "tokenizer", t ? tokenizer_describe(t) : "", "parameters",
                  (json_int_t)w->parameters, "file_bytes", (json_int_t)w->file_bytes, "ratio_f32",
                  4.0 * (double)w->parameters / (double)w->file_bytes, "bits_per_weight",
                  per_weight(w->file_bytes, w->parameters), "matrix_bits_per_weight",
                  per_weight(s->matrix_bytes, s->matrix_weights), "compression",
                  compression_json(w), "tensors", tensors_json(w));
    return report_write_json(root, path, e);
}

static enum status inspect(const struct weights *w, const struct tokenizer *t,
                           const struct options *o, struct error *e)
{
    struct sizes s = measure(w);
    print_model(w, t);
    print_sizes(w, &s);
    print_compression(w);
    print_tensors(w);
    return o->json ? write_json(w, t, &s, o->json, e) : OK;
}

enum status cmd_inspect(const struct options *o, struct error *e)
{
    struct weights *w;
    struct tokenizer *t = NULL;
    struct error no_tokenizer = {0}; /* a model without one can still be listed */
    TRY(report_check_path(o->json, e));
    TRY(weights_open(&w, o->model, e));
    enum status found = w->is_gguf ? tokenizer_from_gguf(&t, &w->gguf[0], &no_tokenizer)
                                   : tokenizer_open(&t, o->model, &no_tokenizer);
    if (found != OK)
        t = NULL;
    enum status status = inspect(w, t, o, e);
    tokenizer_free(t);
    weights_close(w);
    return status;
}
