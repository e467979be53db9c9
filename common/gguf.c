/* The GGUF reader: checks a header and lays out views of it. Everything it reads is hostile until
 * checked. It never reads tensor data and knows nothing of models; values of keys are in
 * gguf_value.c. */
#include "common/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

enum {
    GGUF_VERSION = 3,
    ALIGNMENT_DEFAULT = 32,
    ALIGNMENT_MAX = 1 << 20,
    KEY_NAME_MAX = 65535, /* docs/gguf.md */
    TENSOR_NAME_MAX = 64, /* docs/gguf.md */
    KEY_BYTES_MIN = 8 + 4 + 1,
    TENSOR_BYTES_MIN = 8 + 4 + 8 + 4 + 8,
};

bool gguf_shard_name(const char *path, size_t *stem, uint32_t *no, uint32_t *count)
{
    size_t size = strlen(path);
    int read = 0;
    if (size <= GGUF_SHARD_SUFFIX)
        return false;
    *stem = size - GGUF_SHARD_SUFFIX;
    return sscanf(path + *stem, "-%5u-of-%5u.gguf%n", no, count, &read) == 2 &&
           read == GGUF_SHARD_SUFFIX;
}

struct cursor {
    const uint8_t *data;
    uint64_t size, at;
    const char *file;
    struct error *e;
};

static enum status take(struct cursor *c, uint64_t n, const char *what, const uint8_t **p)
{
    *p = NULL;
    FAIL_IF(n > c->size - c->at, c->e, ERR_FORMAT,
            "%s is truncated or damaged: %s at byte %llu needs %llu bytes, only %llu are left",
            c->file, what, (unsigned long long)c->at, (unsigned long long)n,
            (unsigned long long)(c->size - c->at));
    *p = c->data + c->at;
    c->at += n;
    return OK;
}

static enum status take_u32(struct cursor *c, const char *what, uint32_t *v)
{
    const uint8_t *p;
    TRY(take(c, sizeof *v, what, &p));
    memcpy(v, p, sizeof *v);
    return OK;
}

static enum status take_u64(struct cursor *c, const char *what, uint64_t *v)
{
    const uint8_t *p;
    TRY(take(c, sizeof *v, what, &p));
    memcpy(v, p, sizeof *v);
    return OK;
}

static enum status take_string(struct cursor *c, const char *what, struct gguf_string *s)
{
    const uint8_t *p;
    TRY(take_u64(c, what, &s->size));
    TRY(take(c, s->size, what, &p));
    s->data = (const char *)p;
    return OK;
}

/* Names are printed in messages and copied as C strings: no control characters in them. */
static enum status take_name(struct cursor *c, const char *what, uint64_t max,
                             struct gguf_string *s)
{
    uint64_t start = c->at;
    TRY(take_string(c, what, s));
    bool plain = s->size > 0 && s->size <= max;
    for (uint64_t i = 0; plain && i < s->size; i++)
        plain = (uint8_t)s->data[i] >= 0x20 && s->data[i] != 0x7f;
    FAIL_IF(!plain, c->e, ERR_FORMAT,
            "%s is damaged: %s at byte %llu is empty, longer than %llu bytes or not printable",
            c->file, what, (unsigned long long)start, (unsigned long long)max);
    return OK;
}

uint32_t gguf_type_bytes(uint32_t type)
{
    static const uint8_t bytes[GGUF_TYPES] = {
        [GGUF_U8] = 1,  [GGUF_I8] = 1,  [GGUF_U16] = 2, [GGUF_I16] = 2,
        [GGUF_U32] = 4, [GGUF_I32] = 4, [GGUF_F32] = 4, [GGUF_BOOL] = 1,
        [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
    };
    return type < GGUF_TYPES ? bytes[type] : 0;
}

static enum status take_elements(struct cursor *c, struct gguf_key *k)
{
    uint64_t start = c->at, bytes;
    const uint8_t *p = c->data + c->at;
    if (k->element == GGUF_STRING) {
        struct gguf_string s;
        for (uint64_t i = 0; i < k->count; i++) /* ends at the end of the file at the latest */
            TRY(take_string(c, "a string", &s));
    } else {
        FAIL_IF(!mul_fits(k->count, gguf_type_bytes(k->element), &bytes), c->e, ERR_FORMAT,
                "%s is damaged: key %.*s claims %llu elements", c->file, (int)k->name.size,
                k->name.data, (unsigned long long)k->count);
        TRY(take(c, bytes, "the value of a key", &p));
    }
    k->value = c->data + start;
    k->value_bytes = c->at - start;
    for (uint64_t i = 0; k->element == GGUF_BOOL && i < k->count; i++)
        FAIL_IF(k->value[i] > 1, c->e, ERR_FORMAT,
                "%s is damaged: key %.*s is neither true nor false", c->file, (int)k->name.size,
                k->name.data);
    return OK;
}

static enum status take_key(struct cursor *c, struct gguf_key *k)
{
    uint32_t type;
    TRY(take_name(c, "the name of a key", KEY_NAME_MAX, &k->name));
    TRY(take_u32(c, "the type of a key", &type));
    FAIL_IF(type >= GGUF_TYPES, c->e, ERR_FORMAT, "%s is damaged: key %.*s has unknown type %u",
            c->file, (int)k->name.size, k->name.data, type);
    k->type = k->element = (enum gguf_type)type;
    k->count = 1;
    if (k->type == GGUF_ARRAY) {
        TRY(take_u32(c, "the element type of an array", &type));
        FAIL_IF(type == GGUF_ARRAY, c->e, ERR_UNSUPPORTED,
                "%s: key %.*s is an array of arrays, which sbit does not read", c->file,
                (int)k->name.size, k->name.data);
        FAIL_IF(type >= GGUF_TYPES, c->e, ERR_FORMAT,
                "%s is damaged: array %.*s has unknown element type %u", c->file, (int)k->name.size,
                k->name.data, type);
        k->element = (enum gguf_type)type;
        TRY(take_u64(c, "the length of an array", &k->count));
    }
    return take_elements(c, k);
}

static int compare_strings(struct gguf_string a, struct gguf_string b)
{
    int order = memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);
    return order ? order : (a.size > b.size) - (a.size < b.size);
}

static int compare_keys(const void *a, const void *b)
{
    const struct gguf_key *const *x = a, *const *y = b;
    return compare_strings((*x)->name, (*y)->name);
}

static int compare_tensors(const void *a, const void *b)
{
    const struct gguf_tensor *const *x = a, *const *y = b;
    return compare_strings((*x)->name, (*y)->name);
}

static int compare_places(const void *a, const void *b)
{
    const struct gguf_tensor *const *x = a, *const *y = b;
    return ((*x)->data > (*y)->data) - ((*x)->data < (*y)->data);
}

static enum status parse_keys(struct gguf *g, struct cursor *c)
{
    TRY(mem_array(&g->keys, g->n_keys, sizeof *g->keys, "GGUF keys", c->e));
    TRY(mem_array(&g->keys_by_name, g->n_keys, sizeof *g->keys_by_name, "GGUF keys", c->e));
    for (uint64_t i = 0; i < g->n_keys; i++) {
        TRY(take_key(c, &g->keys[i]));
        g->keys_by_name[i] = &g->keys[i];
    }
    qsort(g->keys_by_name, g->n_keys, sizeof *g->keys_by_name, compare_keys);
    for (uint64_t i = 1; i < g->n_keys; i++) {
        struct gguf_string name = g->keys_by_name[i]->name;
        FAIL_IF(compare_keys(&g->keys_by_name[i - 1], &g->keys_by_name[i]) == 0, c->e, ERR_FORMAT,
                "%s is damaged: key %.*s occurs twice", c->file, (int)name.size, name.data);
    }
    return OK;
}

static enum status read_alignment(struct gguf *g, struct cursor *c)
{
    uint64_t alignment = ALIGNMENT_DEFAULT;
    bool stated = gguf_find_key(g, "general.alignment") != NULL;
    bool read = gguf_get_u64(g, "general.alignment", &alignment);
    FAIL_IF((stated && !read) || alignment < 1 || alignment > ALIGNMENT_MAX ||
                (alignment & (alignment - 1)) != 0,
            c->e, ERR_FORMAT, "%s is damaged: general.alignment must be a power of two up to %d",
            c->file, ALIGNMENT_MAX);
    g->alignment = (uint32_t)alignment;
    return OK;
}

/* Names of the ggml types that are common in files but not read here (ggml.h, enum ggml_type). */
static const char *foreign_type(uint32_t dtype)
{
    static const char *const names[] = {
        [3] = "Q4_1",     [6] = "Q5_0",    [7] = "Q5_1",     [9] = "Q8_1",   [10] = "Q2_K",
        [11] = "Q3_K",    [12] = "Q4_K",   [13] = "Q5_K",    [14] = "Q6_K",  [15] = "Q8_K",
        [16] = "IQ2_XXS", [17] = "IQ2_XS", [18] = "IQ3_XXS", [19] = "IQ1_S", [20] = "IQ4_NL",
        [21] = "IQ3_S",   [22] = "IQ2_S",  [23] = "IQ4_XS",  [27] = "I64",   [28] = "F64",
        [29] = "IQ1_M",   [34] = "TQ1_0",  [35] = "TQ2_0",   [39] = "MXFP4",
    };
    bool known = dtype < sizeof names / sizeof names[0] && names[dtype];
    return known ? names[dtype] : "unknown";
}

/* Bytes of the tensor from its type and dimensions; 0 for a foreign type that is let through. */
static enum status tensor_bytes(struct cursor *c, struct gguf_tensor *t, bool vocabulary_only)
{
    struct error inner = {0};
    if (!dtype_info(t->dtype)) {
        FAIL_IF(
            !vocabulary_only, c->e, ERR_UNSUPPORTED,
            "%s: tensor %.*s has type %s (number %u), which sbit does not read; supported are F32, "
            "F16, BF16, Q8_0, Q4_0, Q2_0 and Q1_0: use such a file, or the original model's folder",
            c->file, (int)t->name.size, t->name.data, foreign_type(t->dtype), t->dtype);
        return OK;
    }
    enum status status = dtype_row_bytes(t->dtype, t->dim[0], &t->bytes, &inner);
    FAIL_IF(status != OK, c->e, status, "%s: tensor %.*s: %s", c->file, (int)t->name.size,
            t->name.data, inner.text);
    bool fits = true;
    for (int i = 1; i < 4; i++)
        fits = fits && mul_fits(t->bytes, t->dim[i], &t->bytes);
    FAIL_IF(!fits || t->bytes > c->size, c->e, ERR_FORMAT,
            "%s is truncated or damaged: tensor %.*s would be larger than the file", c->file,
            (int)t->name.size, t->name.data);
    return OK;
}

static enum status take_tensor(struct cursor *c, struct gguf_tensor *t, uint64_t *offset,
                               bool vocabulary_only)
{
    TRY(take_name(c, "the name of a tensor", TENSOR_NAME_MAX, &t->name));
    TRY(take_u32(c, "the dimensions of a tensor", &t->dims));
    FAIL_IF(t->dims < 1 || t->dims > 4, c->e, ERR_FORMAT,
            "%s is damaged: tensor %.*s has %u dimensions instead of 1 to 4", c->file,
            (int)t->name.size, t->name.data, t->dims);
    for (uint32_t i = 0; i < 4; i++) {
        t->dim[i] = 1;
        if (i < t->dims)
            TRY(take_u64(c, "a dimension of a tensor", &t->dim[i]));
        FAIL_IF(t->dim[i] == 0, c->e, ERR_FORMAT, "%s is damaged: tensor %.*s has a dimension of 0",
                c->file, (int)t->name.size, t->name.data);
    }
    TRY(take_u32(c, "the type of a tensor", &t->dtype));
    TRY(take_u64(c, "the offset of a tensor", offset));
    return tensor_bytes(c, t, vocabulary_only);
}

/* offsets[i] becomes a pointer; needs to know where the data starts, hence after all headers. */
static enum status place_tensors(struct gguf *g, struct cursor *c, const uint64_t *offsets)
{
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        struct gguf_tensor *t = &g->tensors[i];
        uint64_t end, room = c->size - g->data_start;
        if (t->bytes == 0)
            continue;
        FAIL_IF(offsets[i] % g->alignment != 0, c->e, ERR_FORMAT,
                "%s is damaged: tensor %.*s does not begin at a multiple of the alignment %u",
                c->file, (int)t->name.size, t->name.data, g->alignment);
        FAIL_IF(!add_fits(offsets[i], t->bytes, &end) || end > room, c->e, ERR_FORMAT,
                "%s is truncated or damaged: tensor %.*s ends beyond the end of the file", c->file,
                (int)t->name.size, t->name.data);
        t->data = c->data + g->data_start + offsets[i];
    }
    return OK;
}

/* Uses tensors_by_name as room to sort by place first. */
static enum status check_tensors(struct gguf *g, struct cursor *c)
{
    const struct gguf_tensor **sorted = g->tensors_by_name;
    qsort(sorted, g->n_tensors, sizeof *sorted, compare_places);
    for (uint64_t i = 1; i < g->n_tensors; i++)
        FAIL_IF(sorted[i - 1]->data && sorted[i - 1]->data + sorted[i - 1]->bytes > sorted[i]->data,
                c->e, ERR_FORMAT, "%s is damaged: tensors %.*s and %.*s overlap", c->file,
                (int)sorted[i - 1]->name.size, sorted[i - 1]->name.data, (int)sorted[i]->name.size,
                sorted[i]->name.data);
    qsort(sorted, g->n_tensors, sizeof *sorted, compare_tensors);
    for (uint64_t i = 1; i < g->n_tensors; i++)
        FAIL_IF(compare_tensors(&sorted[i - 1], &sorted[i]) == 0, c->e, ERR_FORMAT,
                "%s is damaged: tensor %.*s occurs twice", c->file, (int)sorted[i]->name.size,
                sorted[i]->name.data);
    return OK;
}

static enum status parse_tensors(struct gguf *g, struct cursor *c, uint64_t *offsets,
                                 bool vocabulary_only)
{
    TRY(mem_array(&g->tensors, g->n_tensors, sizeof *g->tensors, "GGUF tensors", c->e));
    TRY(mem_array(&g->tensors_by_name, g->n_tensors, sizeof *g->tensors_by_name, "GGUF tensors",
                  c->e));
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        TRY(take_tensor(c, &g->tensors[i], &offsets[i], vocabulary_only));
        g->tensors_by_name[i] = &g->tensors[i];
    }
    g->header_bytes = c->at;
    /* a file without tensors may end without padding */
    uint64_t padded = (c->at + g->alignment - 1) / g->alignment * g->alignment;
    g->data_start = padded < c->size ? padded : c->size;
    TRY(place_tensors(g, c, offsets));
    return check_tensors(g, c);
}

static enum status parse_start(struct gguf *g, struct cursor *c)
{
    const uint8_t *magic;
    uint32_t version;
    FAIL_IF(c->size < 4 || memcmp(c->data, "GGUF", 4) != 0, c->e, ERR_FORMAT,
            "%s is not a GGUF file: it does not begin with the letters GGUF", c->file);
    TRY(take(c, 4, "the magic number", &magic));
    TRY(take_u32(c, "the version", &version));
    FAIL_IF(
        version != 0 && (version & 0xffff) == 0, c->e, ERR_UNSUPPORTED,
        "%s is a big-endian GGUF file, sbit reads little-endian ones; convert it again for this "
        "machine",
        c->file);
    FAIL_IF(version != GGUF_VERSION, c->e, ERR_UNSUPPORTED,
            "%s is GGUF version %u, sbit reads version %d; convert it with a current tool", c->file,
            version, GGUF_VERSION);
    TRY(take_u64(c, "the number of tensors", &g->n_tensors));
    TRY(take_u64(c, "the number of keys", &g->n_keys));
    uint64_t left = c->size - c->at;
    FAIL_IF(g->n_tensors > left / TENSOR_BYTES_MIN, c->e, ERR_FORMAT,
            "%s is truncated or damaged: its %llu bytes cannot describe %llu tensors", c->file,
            (unsigned long long)c->size, (unsigned long long)g->n_tensors);
    FAIL_IF(g->n_keys > left / KEY_BYTES_MIN, c->e, ERR_FORMAT,
            "%s is truncated or damaged: its %llu bytes cannot hold %llu keys", c->file,
            (unsigned long long)c->size, (unsigned long long)g->n_keys);
    return OK;
}

static enum status parse(struct gguf *g, bool vocabulary_only, struct error *e)
{
    struct cursor c = {.data = g->file.data, .size = g->file.size, .file = g->file.path, .e = e};
    TRY(parse_start(g, &c));
    TRY(parse_keys(g, &c));
    TRY(read_alignment(g, &c));
    uint64_t *offsets;
    TRY(mem_array(&offsets, g->n_tensors, sizeof *offsets, "GGUF tensors", e));
    enum status status = parse_tensors(g, &c, offsets, vocabulary_only);
    free(offsets);
    return status;
}

enum status gguf_open(struct gguf *g, const char *path, bool vocabulary_only, struct error *e)
{
    memset(g, 0, sizeof *g);
    enum status status = mapfile_open(&g->file, path, e);
    if (status == OK)
        status = parse(g, vocabulary_only, e);
    if (status != OK)
        gguf_close(g);
    return status;
}

enum status gguf_parse(struct gguf *g, const void *data, uint64_t size, const char *name,
                       bool vocabulary_only, struct error *e)
{
    memset(g, 0, sizeof *g);
    TRY(mem_string(&g->file.path, name, e));
    g->borrowed = true;
    g->file.data = data;
    g->file.size = size;
    enum status status = parse(g, vocabulary_only, e);
    if (status != OK)
        gguf_close(g);
    return status;
}

void gguf_close(struct gguf *g)
{
    if (g->borrowed)
        g->file.data = NULL;
    mapfile_close(&g->file);
    free(g->keys);
    free(g->tensors);
    free(g->keys_by_name);
    free(g->tensors_by_name);
    memset(g, 0, sizeof *g);
}

const struct gguf_key *gguf_find_key(const struct gguf *g, const char *name)
{
    struct gguf_key wanted = {.name = {name, strlen(name)}};
    const struct gguf_key *key = &wanted;
    const struct gguf_key **found =
        bsearch(&key, g->keys_by_name, g->n_keys, sizeof *g->keys_by_name, compare_keys);
    return found ? *found : NULL;
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name)
{
    struct gguf_tensor wanted = {.name = {name, strlen(name)}};
    const struct gguf_tensor *key = &wanted;
    const struct gguf_tensor **found = bsearch(&key, g->tensors_by_name, g->n_tensors,
                                               sizeof *g->tensors_by_name, compare_tensors);
    return found ? *found : NULL;
}
