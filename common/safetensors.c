/* Reads and checks safetensors headers. Never touches tensor data and knows nothing of models. */
#include "common/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "common/json_file.h"
#include "common/mem.h"

static const uint64_t header_max = 100 * 1000 * 1000; /* the limit of the format's own reader */

/* Bytes of one element; 0 for a name that is not in the format's list. */
static uint64_t element_bytes(const char *dtype)
{
    static const struct {
        const char *name;
        uint64_t bytes;
    } table[] = {
        {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F64", 8},     {"I64", 8},
        {"U64", 8}, {"I32", 4}, {"U32", 4},  {"I16", 2},     {"U16", 2},
        {"I8", 1},  {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(table[i].name, dtype) == 0)
            return table[i].bytes;
    return 0;
}

/* A JSON integer that is not negative. */
static bool read_size(const json_t *v, uint64_t *out)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return false;
    *out = (uint64_t)json_integer_value(v);
    return true;
}

static void read_dtype(struct safetensors_tensor *t)
{
    t->known = true;
    if (strcmp(t->dtype_name, "F32") == 0)
        t->dtype = DTYPE_F32;
    else if (strcmp(t->dtype_name, "F16") == 0)
        t->dtype = DTYPE_F16;
    else if (strcmp(t->dtype_name, "BF16") == 0)
        t->dtype = DTYPE_BF16;
    else
        t->known = false;
}

static enum status read_shape(const struct safetensors *s, struct safetensors_tensor *t,
                              const json_t *shape, struct error *e)
{
    bool good = json_is_array(shape) && json_array_size(shape) <= SAFETENSORS_DIMS;
    t->dims = good ? (uint32_t)json_array_size(shape) : 0;
    for (uint32_t i = 0; good && i < t->dims; i++)
        good = read_size(json_array_get(shape, i), &t->shape[i]);
    FAIL_IF(!good, e, ERR_FORMAT, "%s is damaged: tensor %s has no shape of at most %d sizes",
            s->file.path, t->name, SAFETENSORS_DIMS);
    return OK;
}

static enum status read_place(const struct safetensors *s, struct safetensors_tensor *t,
                              const json_t *offsets, struct error *e)
{
    uint64_t begin, end, wanted = element_bytes(t->dtype_name);
    uint64_t room = s->file.size - s->header_bytes;
    bool fits = true;
    FAIL_IF(json_array_size(offsets) != 2 || !read_size(json_array_get(offsets, 0), &begin) ||
                !read_size(json_array_get(offsets, 1), &end) || begin > end,
            e, ERR_FORMAT, "%s is damaged: tensor %s has no valid data_offsets", s->file.path,
            t->name);
    FAIL_IF(end > room, e, ERR_FORMAT,
            "%s is truncated or damaged: tensor %s ends at byte %llu of the data, which has %llu",
            s->file.path, t->name, (unsigned long long)end, (unsigned long long)room);
    t->bytes = end - begin;
    t->data = s->file.data + s->header_bytes + begin;
    if (wanted == 0)
        return OK; /* a type of the future: its size is not checked, and it is never read */
    for (uint32_t i = 0; i < t->dims; i++)
        fits = fits && mul_fits(wanted, t->shape[i], &wanted);
    FAIL_IF(!fits || wanted != t->bytes, e, ERR_FORMAT,
            "%s is damaged: tensor %s has %llu bytes, which its shape and type do not make",
            s->file.path, t->name, (unsigned long long)t->bytes);
    return OK;
}

static enum status read_tensor(const struct safetensors *s, struct safetensors_tensor *t,
                               const char *name, const json_t *entry, struct error *e)
{
    t->name = name;
    t->dtype_name = json_string_value(json_object_get(entry, "dtype"));
    FAIL_IF(!t->dtype_name, e, ERR_FORMAT, "%s is damaged: tensor %s has no dtype", s->file.path,
            name);
    read_dtype(t);
    TRY(read_shape(s, t, json_object_get(entry, "shape"), e));
    return read_place(s, t, json_object_get(entry, "data_offsets"), e);
}

static int compare_places(const void *a, const void *b)
{
    const struct safetensors_tensor *x = a, *y = b;
    if (x->data != y->data)
        return x->data > y->data ? 1 : -1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); /* empty ones first */
}

static int compare_names(const void *a, const void *b)
{
    const struct safetensors_tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static enum status check_overlap(struct safetensors *s, struct error *e)
{
    qsort(s->tensors, s->n_tensors, sizeof *s->tensors, compare_places);
    for (uint64_t i = 1; i < s->n_tensors; i++)
        FAIL_IF(s->tensors[i - 1].data + s->tensors[i - 1].bytes > s->tensors[i].data, e,
                ERR_FORMAT, "%s is damaged: tensors %s and %s overlap", s->file.path,
                s->tensors[i - 1].name, s->tensors[i].name);
    qsort(s->tensors, s->n_tensors, sizeof *s->tensors, compare_names);
    return OK;
}

static enum status read_header(struct safetensors *s, struct error *e)
{
    uint64_t length;
    FAIL_IF(s->file.size < sizeof length, e, ERR_FORMAT,
            "%s is truncated: a safetensors file begins with an 8-byte length", s->file.path);
    memcpy(&length, s->file.data, sizeof length);
    FAIL_IF(length > header_max || length > s->file.size - sizeof length, e, ERR_FORMAT,
            "%s is truncated or no safetensors file: it claims a header of %llu bytes",
            s->file.path, (unsigned long long)length);
    s->header_bytes = sizeof length + length;
    TRY(json_file_parse(&s->header, (const char *)s->file.data + sizeof length, length,
                        s->file.path, JSON_FILE_INTEGERS, e));
    FAIL_IF(!json_is_object(s->header), e, ERR_FORMAT,
            "%s is damaged: its header is no JSON object", s->file.path);
    return OK;
}

static enum status parse(struct safetensors *s, struct error *e)
{
    const char *name;
    json_t *entry;
    TRY(read_header(s, e));
    TRY(mem_array(&s->tensors, json_object_size(s->header), sizeof *s->tensors,
                  "safetensors header", e));
    json_object_foreach(s->header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        TRY(read_tensor(s, &s->tensors[s->n_tensors], name, entry, e));
        s->n_tensors++;
    }
    return check_overlap(s, e);
}

enum status safetensors_open(struct safetensors *s, const char *path, struct error *e)
{
    memset(s, 0, sizeof *s);
    enum status status = mapfile_open(&s->file, path, e);
    if (status == OK)
        status = parse(s, e);
    if (status != OK)
        safetensors_close(s);
    return status;
}

enum status safetensors_parse(struct safetensors *s, const void *data, uint64_t size,
                              const char *name, struct error *e)
{
    memset(s, 0, sizeof *s);
    TRY(mem_string(&s->file.path, name, e));
    s->borrowed = true;
    s->file.data = data;
    s->file.size = size;
    enum status status = parse(s, e);
    if (status != OK)
        safetensors_close(s);
    return status;
}

void safetensors_close(struct safetensors *s)
{
    if (s->borrowed)
        s->file.data = NULL;
    mapfile_close(&s->file);
    json_decref(s->header);
    free(s->tensors);
    memset(s, 0, sizeof *s);
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *s, const char *name)
{
    struct safetensors_tensor wanted = {.name = name};
    return bsearch(&wanted, s->tensors, s->n_tensors, sizeof *s->tensors, compare_names);
}
