/* Lays out and fills the file of a random model. Knows forms and names, not speeds. */
#include "coordinator/bench_model.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/codebook.h"
#include "common/forms.h"
#include "common/mem.h"
#include "common/random_weights.h"
#include "common/weights.h"
#include "coordinator/gguf_output.h"

/* A part of a file at a time: whole blocks of every type. */
enum { CHUNK_BYTES = 34 * 18 * 2048, BYTE_TOKENS = 256, FIRST_BYTE_TOKEN = 3 };
#define LEFT_SECONDS    60 /* without a write: nobody writes this file any more */
#define CONTENT_VERSION 1  /* goes into the file name: raised when other bytes are written */

enum content { RANDOM, ONES, ZEROS, CODE_SCALES, CODEBOOK };

struct part { /* a tensor to be filled */
    enum content content;
    enum dtype dtype;
    uint64_t cols, bytes;
    uint32_t d; /* CODE_SCALES, CODEBOOK */
};

struct writing {
    const struct bench_model *model;
    struct gguf_output *out;
    struct part *parts; /* [n], in the order of the output's tensors */
    uint32_t n, room;
    struct random_weights random;
    uint8_t *chunk; /* [CHUNK_BYTES] */
};

uint32_t bench_model_d(double bits)
{
    const struct codebook *best = &codebook_table[0];
    for (int i = 1; i < CODEBOOK_COUNT; i++)
        if (fabs(8.0 / codebook_table[i].d - bits) < fabs(8.0 / best->d - bits))
            best = &codebook_table[i];
    return best->d;
}

static enum status make_folder(const char *folder, struct error *e)
{
    if (mkdir(folder, 0777) == 0 || errno == EEXIST)
        return OK;
    return error_set_errno(e, ERR_IO, "cannot make the folder %s: name another with --cache",
                           folder);
}

/* singularbit under $XDG_CACHE_HOME (XDG base directory specification: an absolute path, else
 * ~/.cache). */
static enum status user_folder(char out[PATH_MAX], struct error *e)
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    bool xdg = base && base[0] == '/';
    FAIL_IF(!xdg && (!home || !*home), e, ERR_USAGE,
            "neither XDG_CACHE_HOME nor HOME says where to keep the model: name a folder with "
            "--cache");
    int n = snprintf(out, PATH_MAX, "%s%s", xdg ? base : home, xdg ? "" : "/.cache");
    FAIL_IF(n >= PATH_MAX - 16, e, ERR_USAGE, "the path of the cache is too long: use --cache");
    TRY(make_folder(out, e));
    strcat(out, "/singularbit");
    return OK;
}

enum status bench_model_path(char **path, const struct bench_model *m, const char *folder,
                             struct error *e)
{
    char user[PATH_MAX], form[32];
    FAIL_IF(folder && !*folder, e, ERR_USAGE, "--cache needs the name of a folder");
    if (!folder)
        TRY(user_folder(user, e));
    folder = folder ? folder : user;
    TRY(make_folder(folder, e));
    snprintf(form, sizeof form, m->d ? "%s%u" : "%s", m->type, m->d);
    size_t room = strlen(folder) + strlen(m->shape) + strlen(m->embeddings) + 64;
    TRY(mem_array(path, room, 1, "a file name", e));
    snprintf(*path, room, "%s/random%d-%s-%s-%s.gguf", folder, CONTENT_VERSION, m->shape, form,
             m->embeddings);
    return OK;
}

/* The type of that name, as form_name and dtype_info write it. */
static enum dtype dtype_of(const char *name)
{
    static const struct {
        const char *name;
        enum dtype dtype;
    } types[] = {{"code", DTYPE_I8},   {"q8_0", DTYPE_Q8_0}, {"q4_0", DTYPE_Q4_0},
                 {"q2_0", DTYPE_Q2_0}, {"q1_0", DTYPE_Q1_0}, {"f16", DTYPE_F16},
                 {"bf16", DTYPE_BF16}, {"f32", DTYPE_F32}};
    size_t i = 0;
    while (i + 1 < sizeof types / sizeof types[0] && strcmp(types[i].name, name))
        i++;
    return types[i].dtype;
}

/* The file's layout */

static enum status add(struct writing *w, const char *name, struct part part, uint32_t dims,
                       const uint64_t *dim, struct error *e)
{
    uint32_t index;
    if (w->n == w->room) {
        uint32_t room = w->room ? 2 * w->room : 256;
        struct part *more = realloc(w->parts, room * sizeof *more);
        FAIL_IF(!more, e, ERR_MEMORY, "out of memory: a list of %u tensors", room);
        w->parts = more;
        w->room = room;
    }
    TRY(gguf_output_add(w->out, name, part.dtype, dims, dim, &index, e));
    TRY(dtype_row_bytes(part.dtype, dim[0], &part.bytes, e));
    for (uint32_t i = 1; i < dims; i++)
        part.bytes *= dim[i];
    w->parts[w->n++] = part;
    return OK;
}

static enum status add_code(struct writing *w, const char *base, uint32_t d, uint64_t rows,
                            uint64_t cols, struct error *e)
{
    struct form form;
    TRY(form_of(&form, UNIT_CODE, d, 0, rows, cols, false, e));
    for (uint32_t i = 0; i < form.n; i++) {
        const struct form_tensor *t = &form.tensor[i];
        char name[96];
        snprintf(name, sizeof name, "%s%s", base, t->suffix);
        struct part part = {t->dtype == DTYPE_I8 ? RANDOM : CODE_SCALES, t->dtype, cols, 0, d};
        TRY(add(w, name, part, t->dims, t->dim, e));
    }
    return OK;
}

static enum status add_matrix(struct writing *w, const char *base, bool in_block, uint64_t rows,
                              uint64_t cols, struct error *e)
{
    const char *type = in_block ? w->model->type : w->model->embeddings;
    uint32_t d = in_block ? w->model->d : w->model->embeddings_d;
    uint64_t dim[2] = {cols, rows};
    char name[96];
    if (d > 0)
        return add_code(w, base, d, rows, cols, e);
    struct part part = {RANDOM, dtype_of(type), cols, 0, 0};
    uint32_t block = dtype_info(part.dtype)->block;
    FAIL_IF(cols % block != 0, e, ERR_UNSUPPORTED,
            "the shape %s has matrices with rows of %llu weights, no multiple of %u as type %s "
            "needs: choose another type",
            w->model->shape, (unsigned long long)cols, block, type);
    snprintf(name, sizeof name, "%s.weight", base);
    return add(w, name, part, 2, dim, e);
}

static enum status add_tensor(struct writing *w, enum tensor_kind kind, uint32_t block,
                              struct error *e)
{
    const struct tensor_rule *rule = model_rule(kind);
    char base[64], name[96];
    uint64_t rows, cols;
    if (!model_shape(&w->model->config, kind, &rows, &cols))
        return OK;
    model_base_name(base, kind, block);
    if (rule->matrix)
        return add_matrix(w, base, rule->per_block, rows, cols, e);
    snprintf(name, sizeof name, "%s%s", base, rule->suffix);
    struct part part = {strcmp(rule->suffix, ".bias") ? ONES : ZEROS, DTYPE_F32, cols, 0, 0};
    return add(w, name, part, 1, &cols, e);
}

static enum status add_codebook(struct writing *w, uint32_t d, struct error *e)
{
    uint64_t dim[2] = {d, CODEBOOK_WORDS};
    char name[64];
    if (d == 0)
        return OK;
    snprintf(name, sizeof name, "singularbit.codebook.%u", d);
    return add(w, name, (struct part){CODEBOOK, DTYPE_I8, d, 0, d}, 2, dim, e);
}

static enum status add_all(struct writing *w, struct error *e)
{
    uint32_t d = w->model->d, other = w->model->embeddings_d;
    TRY(add_codebook(w, d, e));
    TRY(add_codebook(w, other == d ? 0 : other, e));
    for (int kind = 0; kind < KIND_ROPE_FACTORS; kind++) {
        bool per_block = model_rule((enum tensor_kind)kind)->per_block;
        for (uint32_t b = 0; b < (per_block ? w->model->config.block_count : 1); b++)
            TRY(add_tensor(w, (enum tensor_kind)kind, b, e));
    }
    return OK;
}

/* Keys */

/* The code size of every matrix. */
static enum status set_code_sizes(const struct writing *w, char (*base)[64],
                                  struct gguf_string *names, uint32_t *d, struct error *e)
{
    struct gguf_writer *header = gguf_output_writer(w->out);
    uint32_t n = 0;
    for (int kind = 0; kind < KIND_COUNT; kind++) {
        const struct tensor_rule *rule = model_rule((enum tensor_kind)kind);
        uint32_t blocks = rule->per_block ? w->model->config.block_count : 1;
        for (uint32_t b = 0; rule->matrix && b < blocks; b++, n++) {
            model_base_name(base[n], (enum tensor_kind)kind, b);
            names[n] = (struct gguf_string){base[n], strlen(base[n])};
            d[n] = rule->per_block ? w->model->d : w->model->embeddings_d;
        }
    }
    TRY(gguf_set_strings(header, WEIGHTS_MATRIX_NAMES, names, n, e));
    return gguf_set_array(header, WEIGHTS_MATRIX_D, GGUF_U32, d, n, e);
}

static enum status set_codes(const struct writing *w, struct error *e)
{
    size_t n = (size_t)w->model->config.block_count * KIND_COUNT; /* and fewer */
    char(*base)[64] = NULL;
    struct gguf_string *names = NULL;
    uint32_t *d = NULL;
    enum status status = mem_array(&base, n, sizeof *base, "metadata", e);
    if (status == OK)
        status = mem_array(&names, n, sizeof *names, "metadata", e);
    if (status == OK)
        status = mem_array(&d, n, sizeof *d, "metadata", e);
    if (status == OK)
        status = set_code_sizes(w, base, names, d, e);
    free(base);
    free(names);
    free(d);
    return status;
}

/* A SentencePiece vocabulary of bytes: <unk>, <s>, </s>, one token a byte, the others unused. */
static int32_t describe_token(uint32_t id, char text[24])
{
    static const char *const control[FIRST_BYTE_TOKEN] = {"<unk>", "<s>", "</s>"};
    enum { UNKNOWN = 2, CONTROL = 3, UNUSED = 5, BYTE = 6 }; /* GGUF's token types */
    if (id < FIRST_BYTE_TOKEN) {
        snprintf(text, 24, "%s", control[id]);
        return id == 0 ? UNKNOWN : CONTROL;
    }
    bool byte = id < FIRST_BYTE_TOKEN + BYTE_TOKENS;
    snprintf(text, 24, byte ? "<0x%02X>" : "<unused%u>", byte ? id - FIRST_BYTE_TOKEN : id);
    return byte ? BYTE : UNUSED;
}

static enum status set_vocabulary(const struct writing *w, char (*text)[24],
                                  struct gguf_string *names, float *scores, int32_t *types,
                                  struct error *e)
{
    struct gguf_writer *header = gguf_output_writer(w->out);
    uint32_t n = w->model->config.vocab;
    for (uint32_t id = 0; id < n; id++) {
        types[id] = describe_token(id, text[id]);
        names[id] = (struct gguf_string){text[id], strlen(text[id])};
    }
    TRY(gguf_set_string(header, "tokenizer.ggml.model", "llama", e));
    TRY(gguf_set_strings(header, "tokenizer.ggml.tokens", names, n, e));
    TRY(gguf_set_array(header, "tokenizer.ggml.scores", GGUF_F32, scores, n, e));
    TRY(gguf_set_array(header, "tokenizer.ggml.token_type", GGUF_I32, types, n, e));
    TRY(gguf_set_u32(header, "tokenizer.ggml.unknown_token_id", 0, e));
    TRY(gguf_set_u32(header, "tokenizer.ggml.bos_token_id", 1, e));
    return gguf_set_u32(header, "tokenizer.ggml.eos_token_id", 2, e);
}

static enum status set_tokenizer(const struct writing *w, struct error *e)
{
    uint32_t n = w->model->config.vocab;
    char(*text)[24] = NULL;
    struct gguf_string *names = NULL;
    float *scores = NULL;
    int32_t *types = NULL;
    enum status status = mem_array(&text, n, sizeof *text, "token texts", e);
    if (status == OK)
        status = mem_array(&names, n, sizeof *names, "token texts", e);
    if (status == OK)
        status = mem_array(&scores, n, sizeof *scores, "token scores", e);
    if (status == OK)
        status = mem_array(&types, n, sizeof *types, "token types", e);
    if (status == OK)
        status = set_vocabulary(w, text, names, scores, types, e);
    free(text);
    free(names);
    free(scores);
    free(types);
    return status;
}

static enum status set_keys(const struct writing *w, struct error *e)
{
    struct gguf_writer *header = gguf_output_writer(w->out);
    TRY(model_config_to_gguf(&w->model->config, header, e));
    TRY(gguf_set_string(header, "general.name", "random weights", e));
    TRY(gguf_set_u32(header, WEIGHTS_VERSION_KEY, WEIGHTS_VERSION, e));
    TRY(set_tokenizer(w, e));
    return w->model->d > 0 || w->model->embeddings_d > 0 ? set_codes(w, e) : OK;
}

/* Data */

/* bytes of part from offset at on, into the chunk. */
static void fill(struct writing *w, const struct part *part, uint64_t at, uint64_t bytes)
{
    uint16_t scale;
    float one = 1;
    switch (part->content) {
    case RANDOM:
        random_weights_fill(&w->random, part->dtype, part->cols, w->chunk, bytes);
        break;
    case CODE_SCALES:
        scale = random_weights_code_scale(part->d, part->cols);
        for (uint64_t i = 0; i < bytes; i += sizeof scale)
            memcpy(w->chunk + i, &scale, sizeof scale);
        break;
    case ONES:
        for (uint64_t i = 0; i < bytes; i += sizeof one)
            memcpy(w->chunk + i, &one, sizeof one);
        break;
    case CODEBOOK:
        memcpy(w->chunk, codebook_for(part->d)->vector + at, bytes);
        break;
    default:
        memset(w->chunk, 0, bytes);
    }
}

static enum status write_part(struct writing *w, uint32_t index, struct loop *loop, struct error *e)
{
    const struct part *part = &w->parts[index];
    for (uint64_t at = 0; at < part->bytes; at += CHUNK_BYTES) {
        uint64_t left = part->bytes - at, bytes = left < CHUNK_BYTES ? left : CHUNK_BYTES;
        fill(w, part, at, bytes);
        TRY(gguf_output_write(w->out, index, at, w->chunk, bytes, e));
        TRY(loop_alive(loop, e));
        FAIL_IF(loop_interrupted(), e, ERR_INTERRUPTED, "stopped by a signal");
    }
    return OK;
}

static enum status write_file(struct writing *w, const char *path, struct loop *loop,
                              struct error *e)
{
    TRY(mem_array(&w->chunk, CHUNK_BYTES, 1, "a part of the model", e));
    TRY(gguf_output_create(&w->out, path, e));
    TRY(set_keys(w, e));
    TRY(add_all(w, e));
    TRY(gguf_output_begin(w->out, 0, e)); /* refuses where the disk is too small */
    fprintf(stderr, "sbit: writing %.1f MB of random weights to %s, this once\n",
            (double)gguf_output_bytes(w->out) / 1e6, path);
    for (uint32_t i = 0; i < w->n; i++)
        TRY(write_part(w, i, loop, e));
    return gguf_output_finish(w->out, e);
}

/* Whether name is what a writer of file, which is no longer there, has left behind. */
static bool is_left(const char *name, const char *file, const char *path)
{
    struct stat st;
    size_t stem = strlen(file);
    if (strncmp(name, file, stem) != 0 || strncmp(name + stem, ".part-", 6) != 0)
        return false;
    long pid = strtol(name + stem + 6, NULL, 10);
    bool gone = pid == (long)getpid() || (kill((pid_t)pid, 0) != 0 && errno == ESRCH);
    /* A writer on another host or in another container writes all the time. */
    return gone && stat(path, &st) == 0 && time(NULL) - st.st_mtime > LEFT_SECONDS;
}

/* A writer that was killed cannot remove its unfinished file, which is as large as the model. */
static void remove_left(const char *path)
{
    char folder[PATH_MAX], left[PATH_MAX];
    const char *slash = strrchr(path, '/'), *file = slash ? slash + 1 : path;
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(file - path) : 2, slash ? path : "./");
    DIR *entries = opendir(folder);
    for (struct dirent *entry; entries && (entry = readdir(entries));) {
        int size = snprintf(left, sizeof left, "%s%s", folder, entry->d_name);
        if (size < (int)sizeof left && is_left(entry->d_name, file, left))
            (void)unlink(left);
    }
    if (entries)
        closedir(entries);
}

enum status bench_model_write(const struct bench_model *m, const char *path, struct loop *loop,
                              struct error *e)
{
    struct writing w = {.model = m, .random = {0x9e3779b97f4a7c15}};
    remove_left(path);
    enum status status = write_file(&w, path, loop, e);
    gguf_output_free(w.out);
    free(w.parts);
    free(w.chunk);
    return status;
}
