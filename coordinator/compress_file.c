#include "coordinator/compress_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/codebook.h"
#include "common/mem.h"

enum { SEND_BYTES = 4 << 20 };

enum { FTYPE_Q4_0 = 2, FTYPE_Q8_0 = 7, FTYPE_GUESSED = 1024 }; /* llama.cpp's numbers */

static enum status add_codebooks(struct compress_file *f, struct error *e)
{
    for (uint32_t i = 0; i < f->n; i++)
        if (f->units[i].method == UNIT_CODE)
            f->codebook[f->units[i].d] = 1;
    for (uint32_t d = 1; d <= CODEBOOK_MAX_D; d++) {
        char name[64];
        uint32_t index;
        uint64_t dim[2] = {d, CODEBOOK_WORDS};
        if (!f->codebook[d])
            continue;
        snprintf(name, sizeof name, "singularbit.codebook.%u", d);
        TRY(gguf_output_add(f->out, name, DTYPE_I8, 2, dim, &index, e));
        f->codebook[d] = index + 1;
    }
    return OK;
}

static enum status add_unit(struct compress_file *f, uint32_t i, struct error *e)
{
    const struct plan_unit *u = &f->units[i];
    for (uint32_t k = 0; k < u->form.n; k++) {
        const struct form_tensor *t = &u->form.tensor[k];
        char base[64], name[128];
        uint32_t index;
        model_base_name(base, u->kind, u->block);
        if (u->vector) /* may be a bias; keeps its name */
            snprintf(name, sizeof name, "%s", u->name);
        else
            snprintf(name, sizeof name, "%s%s", base, t->suffix);
        TRY(gguf_output_add(f->out, name, t->dtype, t->dims, t->dim, &index, e));
        if (k == 0)
            f->first_tensor[i] = index;
    }
    return OK;
}

/* llama3 scaling reaches GGUF as a tensor of divisors; a Hugging Face source has it in its
 * config. */
static enum status add_rope(struct compress_file *f, struct error *e)
{
    uint64_t n = f->source->config.rope_dim / 2;
    uint32_t index;
    if (!f->source->rope_factors || weights_find(f->source, "rope_freqs.weight"))
        return OK;
    TRY(gguf_output_add(f->out, "rope_freqs.weight", DTYPE_F32, 1, &n, &index, e));
    f->rope = index + 1;
    return OK;
}

/* The last part of a path, without slashes at its end. */
static enum status set_name(struct gguf_writer *w, const char *path, struct error *e)
{
    char name[256];
    size_t end = strlen(path), start;
    while (end > 1 && path[end - 1] == '/')
        end--;
    for (start = end; start > 0 && path[start - 1] != '/';)
        start--;
    snprintf(name, sizeof name, "%.*s", (int)(end - start < 255 ? end - start : 255), path + start);
    return gguf_set_string(w, "general.name", name, e);
}

static bool key_starts(const struct gguf_key *k, const char *prefix)
{
    return k->name.size >= strlen(prefix) && memcmp(k->name.data, prefix, strlen(prefix)) == 0;
}

/* From a GGUF source the tokenizer's keys are copied as they are, so that nothing is lost that
 * this program does not know; so are name, author, licence and the like. */
static enum status set_source_keys(struct compress_file *f, const struct tokenizer *t,
                                   struct gguf_writer *w, struct error *e)
{
    static const char *const general[] = {"general.name",    "general.author",  "general.license",
                                          "general.url",     "general.version", "general.languages",
                                          "general.basename"};
    if (!f->source->is_gguf)
        return tokenizer_to_gguf(t, w, e);
    const struct gguf *g = &f->source->gguf[0];
    for (uint64_t i = 0; i < g->n_keys; i++)
        if (key_starts(&g->keys[i], "tokenizer.") ||
            key_starts(&g->keys[i], "singularbit.tokenizer."))
            TRY(gguf_copy_key(w, &g->keys[i], e));
    for (size_t i = 0; i < sizeof general / sizeof general[0]; i++) {
        const struct gguf_key *k = gguf_find_key(g, general[i]);
        if (k)
            TRY(gguf_copy_key(w, k, e));
    }
    return OK;
}

static uint32_t file_type(const struct plan_settings *s)
{
    return strcmp(s->method, "q8_0") == 0   ? FTYPE_Q8_0
           : strcmp(s->method, "q4_0") == 0 ? FTYPE_Q4_0
                                            : FTYPE_GUESSED; /* no standard number exists */
}

static enum status set_calibration(const struct compress_calibration *c, struct gguf_writer *w,
                                   struct error *e)
{
    if (!c)
        return OK;
    TRY(gguf_set_string(w, "singularbit.recipe", c->recipe, e));
    TRY(gguf_set_u64(w, "singularbit.calibration_hash", c->hash, e));
    TRY(gguf_set_u64(w, "singularbit.calibration_tokens", c->tokens, e));
    return gguf_set_u32(w, "singularbit.calibration_context", c->context, e);
}

static enum status set_general(struct compress_file *f, const struct tokenizer *t, struct error *e)
{
    struct gguf_writer *w = gguf_output_writer(f->out);
    const struct plan_settings *s = f->settings;
    TRY(model_config_to_gguf(&f->source->config, w, e));
    TRY(set_name(w, f->source->path, e));
    TRY(set_source_keys(f, t, w, e));
    TRY(gguf_set_u32(w, "general.file_type", file_type(s), e));
    TRY(gguf_set_u32(w, "general.quantization_version", 2, e));
    TRY(gguf_set_u32(w, WEIGHTS_VERSION_KEY, WEIGHTS_VERSION, e));
    TRY(gguf_set_string(w, "singularbit.method", s->method, e));
    TRY(gguf_set_string(w, "singularbit.embeddings", s->embeddings, e));
    if (strcmp(s->method, "code") == 0)
        TRY(gguf_set_f32(w, "singularbit.bits_asked", (float)s->bits, e));
    if (strcmp(s->method, "sign") == 0)
        TRY(gguf_set_f32(w, "singularbit.outliers", (float)s->outliers, e));
    TRY(set_calibration(f->calibration, w, e));
    TRY(gguf_set_f32(
        w, "singularbit.matrix_bits_per_weight",
        (float)(8.0 * (double)f->totals->matrix_bytes / (double)f->totals->matrix_weights), e));
    TRY(gguf_set_f32(w, "singularbit.bits_per_weight", 0, e));
    return gguf_set_u64(w, "singularbit.source_hash", f->source->header_hash, e);
}

struct matrix_keys { /* one element per matrix of the blocks, and per other one that is a code */
    uint32_t n, notes_n;
    struct gguf_string *names, *methods, *notes;
    char (*base)[64];
    char (*note)[256];
    uint32_t *d;
    float *bits, *error, *loss;
};

static enum status allocate_keys(struct matrix_keys *k, uint32_t n, struct error *e)
{
    TRY(mem_array(&k->names, n, sizeof *k->names, "metadata", e));
    TRY(mem_array(&k->methods, n, sizeof *k->methods, "metadata", e));
    TRY(mem_array(&k->notes, n, sizeof *k->notes, "metadata", e));
    TRY(mem_array(&k->base, n, sizeof *k->base, "metadata", e));
    TRY(mem_array(&k->note, n, sizeof *k->note, "metadata", e));
    TRY(mem_array(&k->d, n, sizeof *k->d, "metadata", e));
    TRY(mem_array(&k->bits, n, sizeof *k->bits, "metadata", e));
    TRY(mem_array(&k->loss, n, sizeof *k->loss, "metadata", e));
    return mem_array(&k->error, n, sizeof *k->error, "metadata", e);
}

static void free_keys(struct matrix_keys *k)
{
    free(k->names);
    free(k->methods);
    free(k->notes);
    free(k->base);
    free(k->note);
    free(k->d);
    free(k->bits);
    free(k->error);
    free(k->loss);
}

static struct gguf_string view(const char *text)
{
    return (struct gguf_string){text, strlen(text)};
}

static void fill_keys(struct matrix_keys *k, const struct compress_file *f,
                      const struct compress_result *results)
{
    for (uint32_t i = 0; i < f->n; i++) {
        const struct plan_unit *u = &f->units[i];
        if (u->why[0]) {
            snprintf(k->note[k->notes_n], sizeof *k->note, "%s: %s", u->name, u->why);
            k->notes[k->notes_n] = view(k->note[k->notes_n]);
            k->notes_n++;
        }
        if (!plan_is_matrix(u) && u->method != UNIT_CODE)
            continue;
        uint32_t at = k->n++;
        model_base_name(k->base[at], u->kind, u->block);
        k->names[at] = view(k->base[at]);
        k->methods[at] = view(form_name(u->method));
        k->d[at] = u->d;
        k->bits[at] = (float)(8.0 * (double)u->form.bytes / (double)(u->rows * u->cols));
        if (results && results[i].weight2 > 0)
            k->error[at] = (float)(results[i].error2 / results[i].weight2);
        if (results && results[i].signal > 0)
            k->loss[at] = (float)(results[i].final / results[i].signal);
    }
}

static enum status set_keys(const struct matrix_keys *k, bool calibrated, struct gguf_writer *w,
                            struct error *e)
{
    TRY(gguf_set_strings(w, "singularbit.matrix_names", k->names, k->n, e));
    TRY(gguf_set_strings(w, "singularbit.matrix_methods", k->methods, k->n, e));
    TRY(gguf_set_array(w, "singularbit.matrix_d", GGUF_U32, k->d, k->n, e));
    TRY(gguf_set_array(w, "singularbit.matrix_bits", GGUF_F32, k->bits, k->n, e));
    TRY(gguf_set_array(w, "singularbit.matrix_error", GGUF_F32, k->error, k->n, e));
    if (calibrated)
        TRY(gguf_set_array(w, "singularbit.matrix_loss", GGUF_F32, k->loss, k->n, e));
    if (k->notes_n > 0)
        TRY(gguf_set_strings(w, "singularbit.notes", k->notes, k->notes_n, e));
    return OK;
}

/* results NULL: zeros of the same size. */
static enum status set_matrices(struct compress_file *f, const struct compress_result *results,
                                struct error *e)
{
    struct matrix_keys k = {0};
    enum status status = allocate_keys(&k, f->n, e);
    if (status == OK) {
        fill_keys(&k, f, results);
        status = set_keys(&k, f->calibration != NULL, gguf_output_writer(f->out), e);
    }
    free_keys(&k);
    return status;
}

static enum status write_own(struct compress_file *f, struct error *e)
{
    for (uint32_t d = 1; d <= CODEBOOK_MAX_D; d++)
        if (f->codebook[d])
            TRY(gguf_output_write(f->out, f->codebook[d] - 1, 0, codebook_for(d)->vector,
                                  (uint64_t)d * CODEBOOK_WORDS, e));
    if (f->rope)
        TRY(gguf_output_write(f->out, f->rope - 1, 0, f->source->rope_factors,
                              f->source->config.rope_dim / 2 * sizeof(float), e));
    return OK;
}

static enum status describe(struct compress_file *f, const struct tokenizer *t, struct error *e)
{
    TRY(set_general(f, t, e));
    TRY(set_matrices(f, NULL, e));
    TRY(mem_array(&f->first_tensor, f->n, sizeof *f->first_tensor, "the list of tensors", e));
    TRY(add_codebooks(f, e));
    TRY(add_rope(f, e));
    for (uint32_t i = 0; i < f->n; i++)
        TRY(add_unit(f, i, e));
    return OK;
}

enum status compress_file_begin(struct compress_file *f, const struct tokenizer *t,
                                uint64_t shard_bytes, struct error *e)
{
    TRY(describe(f, t, e));
    TRY(gguf_output_begin(f->out, shard_bytes, e));
    return f->sealed ? OK : write_own(f, e);
}

enum status compress_file_aside_path(char **path, const char *target, struct error *e)
{
    size_t room = strlen(target) + sizeof ".distill";
    TRY(mem_array(path, room, 1, "a file name", e));
    snprintf(*path, room, "%s.distill", target);
    return OK;
}

static enum status add_states(struct compress_file *f, struct error *e)
{
    uint32_t second;
    TRY(gguf_output_add(f->out, "state.0", DTYPE_I8, 1, &f->state_bytes, &f->state, e));
    return gguf_output_add(f->out, "state.1", DTYPE_I8, 1, &f->state_bytes, &second, e);
}

enum status compress_file_begin_aside(struct compress_file *f, const char *target,
                                      enum gguf_parts parts, struct error *e)
{
    char *path;
    TRY(compress_file_aside_path(&path, target, e));
    enum status status = gguf_output_create(&f->out, path, e);
    free(path);
    TRY(status);
    TRY(mem_array(&f->first_tensor, f->n, sizeof *f->first_tensor, "the list of tensors", e));
    for (uint32_t i = 0; i < f->n; i++)
        if (plan_is_matrix(&f->units[i]))
            TRY(add_unit(f, i, e));
    TRY(add_states(f, e));
    gguf_output_resume(f->out, parts);
    return gguf_output_begin(f->out, 0, e);
}

enum status compress_file_size(struct compress_file *f, const struct tokenizer *t,
                               uint64_t shard_bytes, uint64_t *bytes, struct error *e)
{
    TRY(describe(f, t, e));
    TRY(gguf_output_lay_out(f->out, shard_bytes, e));
    *bytes = gguf_output_bytes(f->out);
    return OK;
}

enum status compress_file_part(struct compress_file *f, uint32_t unit, const char *suffix,
                               uint64_t offset, const void *data, uint64_t size, struct error *e)
{
    FAIL_IF(unit >= f->n, e, ERR_PEER, "a part of unit %u came: there are %u", unit, f->n);
    const struct form *form = &f->units[unit].form;
    for (uint32_t k = 0; k < form->n; k++)
        if (strcmp(form->tensor[k].suffix, suffix) == 0)
            return gguf_output_write(f->out, f->first_tensor[unit] + k, offset, data, size, e);
    return error_set(e, ERR_PEER, "a part \"%s\" came for %s, which has none", suffix,
                     f->units[unit].name);
}

static enum status send_tensor(const struct compress_file *f, uint32_t unit, uint32_t tensor,
                               struct loop *loop, int rank, uint8_t *bytes, struct error *e)
{
    const struct form_tensor *t = &f->units[unit].form.tensor[tensor];
    struct message m = {.kind = MSG_PART, .payload = bytes, .part.unit = unit};
    snprintf(m.part.suffix, sizeof m.part.suffix, "%s", t->suffix);
    for (uint64_t at = 0; at < t->bytes; at += SEND_BYTES) {
        m.part.offset = at;
        m.payload_bytes = t->bytes - at < SEND_BYTES ? t->bytes - at : SEND_BYTES;
        TRY(gguf_output_read(f->out, f->first_tensor[unit] + tensor, at, bytes, m.payload_bytes,
                             e));
        TRY(loop_send(loop, rank, &m, e));
    }
    return OK;
}

enum status compress_file_send(const struct compress_file *f, uint32_t unit, struct loop *loop,
                               int rank, struct error *e)
{
    uint8_t *bytes;
    TRY(mem_array(&bytes, SEND_BYTES, 1, "a part of a tensor", e));
    enum status status = OK;
    for (uint32_t t = 0; t < f->units[unit].form.n && status == OK; t++)
        status = send_tensor(f, unit, t, loop, rank, bytes, e);
    free(bytes);
    return status;
}

enum status compress_file_finish(struct compress_file *f, const struct compress_result *results,
                                 struct error *e)
{
    double bits = 8.0 * (double)gguf_output_bytes(f->out) / (double)f->source->parameters;
    TRY(gguf_set_f32(gguf_output_writer(f->out), "singularbit.bits_per_weight", (float)bits, e));
    TRY(set_matrices(f, results, e));
    return gguf_output_seal(f->out, e);
}
