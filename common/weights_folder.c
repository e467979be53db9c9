/* Weights from a Hugging Face folder: config.json and model.safetensors, or the files that
 * model.safetensors.index.json lists, or a single *.safetensors. Names become GGUF's. */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "common/json_file.h"
#include "common/mem.h"
#include "common/weights_private.h"

static const uint64_t json_max = 64 << 20; /* indexes of the largest models have a few MB */

enum { FILES_MAX = 4096 };

struct folder {
    struct weights *w;
    XXH3_state_t *hash;       /* over config.json, the index and the headers */
    const json_t *weight_map; /* of the index, or NULL */
    struct error *e;
};

/* "FOLDER/NAME", free(). */
static enum status join(char **out, const char *folder, const char *name, struct error *e)
{
    size_t room = strlen(folder) + strlen(name) + 2;
    TRY(mem_array(out, room, 1, "a file name", e));
    snprintf(*out, room, "%s/%s", folder, name);
    return OK;
}

/* Parses FOLDER/NAME and adds its bytes to the hash. */
static enum status load_json(struct folder *f, const char *name, json_t **out)
{
    struct mapfile file;
    char *path;
    *out = NULL;
    TRY(join(&path, f->w->path, name, f->e));
    enum status status = mapfile_open(&file, path, f->e);
    if (status == OK && file.size > json_max)
        status = error_set(f->e, ERR_LIMIT, "%s has more than %llu bytes", path,
                           (unsigned long long)json_max);
    if (status == OK)
        status = json_file_parse(out, (const char *)file.data, file.size, path, JSON_FILE_INTEGERS, f->e);
    if (status == OK)
        XXH3_64bits_update(f->hash, file.data, file.size);
    mapfile_close(&file);
    free(path);
    return status;
}

static bool has_file(const struct folder *f, const char *name)
{
    struct error ignored = {0};
    char *path;
    if (join(&path, f->w->path, name, &ignored) != OK)
        return false;
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}

/* Opens one safetensors file; files already open count, so that weights_close finds them. */
static enum status open_file(struct folder *f, const char *name)
{
    struct weights_private *p = f->w->priv;
    char *path;
    TRY(join(&path, f->w->path, name, f->e));
    enum status status = safetensors_open(&p->safetensors[p->n_safetensors], path, f->e);
    free(path);
    TRY(status);
    const struct safetensors *s = &p->safetensors[p->n_safetensors++];
    XXH3_64bits_update(f->hash, s->file.data, s->header_bytes);
    return OK;
}

static int compare_names(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

/* names[] = the values of the weight map, each once, sorted; plain file names only. */
static enum status list_files(const struct folder *f, const char **names, size_t *count)
{
    const char *tensor;
    json_t *file;
    size_t n = 0;
    json_object_foreach((json_t *)f->weight_map, tensor, file)
    {
        const char *name = json_string_value(file);
        FAIL_IF(!name || !name[0] || strchr(name, '/'), f->e, ERR_FORMAT,
                "%s/model.safetensors.index.json: the file of tensor %s is no plain file name",
                f->w->path, tensor);
        names[n++] = name;
    }
    FAIL_IF(n == 0, f->e, ERR_FORMAT, "%s/model.safetensors.index.json lists no tensors",
            f->w->path);
    qsort(names, n, sizeof *names, compare_names);
    *count = 1;
    for (size_t i = 1; i < n; i++)
        if (strcmp(names[i], names[*count - 1]) != 0)
            names[(*count)++] = names[i];
    FAIL_IF(*count > FILES_MAX, f->e, ERR_LIMIT,
            "%s consists of %zu files; at most %d are supported", f->w->path, *count, FILES_MAX);
    return OK;
}

static enum status open_files(struct folder *f, const char **names)
{
    struct weights_private *p = f->w->priv;
    size_t count = 0;
    TRY(list_files(f, names, &count));
    TRY(mem_array(&p->safetensors, count, sizeof *p->safetensors, "the files of the model", f->e));
    for (size_t i = 0; i < count; i++)
        TRY(open_file(f, names[i]));
    return OK;
}

static enum status open_indexed(struct folder *f)
{
    json_t *index;
    const char **names = NULL;
    TRY(load_json(f, "model.safetensors.index.json", &index));
    f->weight_map = json_object_get(index, "weight_map");
    enum status status =
        json_is_object(f->weight_map)
            ? mem_array(&names, json_object_size(f->weight_map), sizeof *names, "file names", f->e)
            : error_set(f->e, ERR_FORMAT, "%s/model.safetensors.index.json has no weight_map",
                        f->w->path);
    if (status == OK)
        status = open_files(f, names);
    free(names);
    json_decref(index);
    f->weight_map = NULL;
    return status;
}

/* name = the one *.safetensors of the folder. */
static enum status find_single(const struct folder *f, char name[256])
{
    int found = 0;
    DIR *d = opendir(f->w->path);
    if (!d)
        return error_set_errno(f->e, ERR_IO, "cannot list %s", f->w->path);
    for (const struct dirent *entry; (entry = readdir(d));) {
        const char *ending = strrchr(entry->d_name, '.');
        if (!ending || strcmp(ending, ".safetensors") != 0)
            continue;
        snprintf(name, 256, "%s", entry->d_name);
        found++;
    }
    closedir(d);
    FAIL_IF(found == 0, f->e, ERR_IO,
            "%s holds no *.safetensors file; other forms of weights are not read", f->w->path);
    FAIL_IF(found > 1, f->e, ERR_FORMAT,
            "%s holds %d *.safetensors files and no model.safetensors.index.json that says how "
            "they belong "
            "together",
            f->w->path, found);
    return OK;
}

static enum status open_all(struct folder *f)
{
    struct weights_private *p = f->w->priv;
    char name[256] = "model.safetensors";
    if (!has_file(f, name)) {
        if (has_file(f, "model.safetensors.index.json"))
            return open_indexed(f);
        TRY(find_single(f, name));
    }
    TRY(mem_array(&p->safetensors, 1, sizeof *p->safetensors, "the file of the model", f->e));
    return open_file(f, name);
}

/* Buffers that old checkpoints carry and a head that is the embedding again are not part of the
 * model. */
static bool is_ignored(const struct folder *f, const char *name)
{
    return strstr(name, ".rotary_emb.inv_freq") ||
           (f->w->config.tied && strcmp(name, model_rule(KIND_OUTPUT)->hf) == 0);
}

static void set_shape(struct tensor *t, const struct safetensors_tensor *src)
{
    t->dims = src->dims;
    for (uint32_t i = 0; i < 4; i++)
        t->dim[i] = i < src->dims ? src->shape[src->dims - 1 - i] : 1;
    t->cols = t->dim[0];
    t->rows = t->dim[1];
}

static enum status add_tensor(struct folder *f, const struct safetensors *s,
                              const struct safetensors_tensor *src)
{
    struct tensor *t = &f->w->tensors[f->w->n_tensors];
    const struct model_config *c = &f->w->config;
    enum tensor_kind kind;
    uint32_t block;
    char base[64], name[96];
    FAIL_IF(
        !model_kind_of_hf(src->name, &kind, &block), f->e, ERR_UNSUPPORTED,
        "%s holds tensor %.200s, which a model of its architecture does not have as sbit knows it",
        s->file.path, src->name);
    FAIL_IF(!src->known, f->e, ERR_UNSUPPORTED,
            "%s: tensor %s is of type %.32s; supported are F32, F16 and BF16", s->file.path,
            src->name, src->dtype_name);
    FAIL_IF(src->dims < 1 || src->dims > 2 || src->bytes == 0, f->e, ERR_FORMAT,
            "%s: tensor %s has %u dimensions and %llu bytes, expected a vector or a matrix",
            s->file.path, src->name, src->dims, (unsigned long long)src->bytes);
    model_base_name(base, kind, block);
    snprintf(name, sizeof name, "%s%s", base, model_rule(kind)->suffix);
    TRY(mem_string(&t->name, name, f->e));
    f->w->n_tensors++;
    t->file = s->file.path;
    t->dtype = src->dtype;
    t->bytes = src->bytes;
    t->data = src->data;
    set_shape(t, src);
    uint32_t heads = kind == KIND_Q ? c->heads : kind == KIND_K ? c->kv_heads : 0;
    t->rope_heads = strcmp(c->arch, "llama") == 0 ? heads : 0;
    return OK;
}

static enum status add_tensors(struct folder *f)
{
    const struct weights_private *p = f->w->priv;
    uint64_t total = 0;
    for (uint32_t i = 0; i < p->n_safetensors; i++)
        total += p->safetensors[i].n_tensors;
    TRY(mem_array(&f->w->tensors, total, sizeof *f->w->tensors, "the tensors of the model", f->e));
    for (uint32_t i = 0; i < p->n_safetensors; i++) {
        const struct safetensors *s = &p->safetensors[i];
        for (uint64_t j = 0; j < s->n_tensors; j++)
            if (!is_ignored(f, s->tensors[j].name))
                TRY(add_tensor(f, s, &s->tensors[j]));
    }
    return weights_sort(f->w, f->e);
}

/* Llama 3.1's scaling (transformers, modeling_rope_utils.py, _compute_llama3_parameters): long
 * waves are stretched by the factor, short ones kept, those between interpolated. As divisors of
 * the frequencies. */
static enum status llama3_factors(struct weights *w, struct error *e)
{
    const struct model_config *c = &w->config;
    uint32_t n = c->rope_dim / 2;
    double context = c->rope_original_context, low = c->rope_low_freq, high = c->rope_high_freq;
    if (c->rope_scaling != ROPE_LLAMA3)
        return OK;
    TRY(mem_array(&w->rope_factors, n, sizeof *w->rope_factors, "RoPE factors", e));
    for (uint32_t i = 0; i < n; i++) {
        double wave = 2 * M_PI * pow(c->rope_base, 2.0 * i / c->rope_dim);
        double share = (context / wave - low) / (high - low); /* 0: stretched, 1: kept */
        double smooth = share < 0 ? 0 : share > 1 ? 1 : share;
        w->rope_factors[i] = (float)(1 / ((1 - smooth) / (double)c->rope_factor + smooth));
    }
    return OK;
}

static enum status read_config(struct folder *f)
{
    json_t *config;
    char *path;
    FAIL_IF(!has_file(f, "config.json"), f->e, ERR_IO,
            "folder %s has no config.json: it is not a Hugging Face model", f->w->path);
    TRY(load_json(f, "config.json", &config));
    enum status status = join(&path, f->w->path, "config.json", f->e);
    if (status == OK) {
        status = model_config_from_json(&f->w->config, config, path, f->e);
        free(path);
    }
    json_decref(config);
    return status;
}

enum status weights_open_folder(struct weights *w, struct error *e)
{
    XXH3_state_t hash;
    struct folder f = {.w = w, .hash = &hash, .e = e};
    XXH3_64bits_reset(&hash);
    TRY(read_config(&f));
    TRY(open_all(&f));
    w->header_hash = XXH3_64bits_digest(&hash);
    TRY(add_tensors(&f));
    return llama3_factors(w, e);
}
