/* The GGUF writer: builds a header in memory and lays out the tensors behind it. It never sees
 * tensor data and opens no file; the caller writes both. */
#include "common/gguf.h"

#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "common/mem.h"

struct entry { /* one key */
    char *name;
    enum gguf_type type, element;
    uint64_t count;
    uint8_t *value; /* as it stands in the file */
    uint64_t bytes;
};

struct planned { /* one tensor; offset counts from the start of the data */
    char *name;
    uint32_t dtype, dims;
    uint64_t dim[4];
    uint64_t bytes, offset;
};

struct gguf_writer {
    uint32_t alignment;
    struct entry *keys;
    uint64_t n_keys, room_keys;
    struct planned *tensors;
    uint64_t n_tensors, room_tensors;
    uint64_t data_bytes; /* end of the last tensor, from the start of the data */
    uint64_t data_start; /* of the last header made */
    uint64_t hash_at;    /* where the value of GGUF_HEADER_HASH stands in it; 0: key not set */
};

/* Makes room for one more element at the end of an array. */
static enum status grow(void *array, uint64_t n, uint64_t *room, size_t size, struct error *e)
{
    void *old, *bigger;
    uint64_t wanted = *room ? *room * 2 : 64;
    if (n < *room)
        return OK;
    memcpy(&old, array, sizeof old);
    TRY(mem_array(&bigger, wanted, size, "a GGUF header", e));
    if (n > 0)
        memcpy(bigger, old, n * size);
    free(old);
    memcpy(array, &bigger, sizeof bigger);
    *room = wanted;
    return OK;
}

enum status gguf_writer_create(struct gguf_writer **out, uint32_t alignment, struct error *e)
{
    struct gguf_writer *w;
    *out = NULL;
    FAIL_IF(alignment == 0 || (alignment & (alignment - 1)) != 0, e, ERR_USAGE,
            "a GGUF alignment of %u is not a power of two", alignment);
    TRY(mem_array(&w, 1, sizeof *w, "a GGUF header", e));
    w->alignment = alignment;
    enum status status = gguf_set_u32(w, "general.alignment", alignment, e);
    if (status == OK)
        *out = w;
    else
        gguf_writer_free(w);
    return status;
}

void gguf_writer_free(struct gguf_writer *w)
{
    if (!w)
        return;
    for (uint64_t i = 0; i < w->n_keys; i++) {
        free(w->keys[i].name);
        free(w->keys[i].value);
    }
    for (uint64_t i = 0; i < w->n_tensors; i++)
        free(w->tensors[i].name);
    free(w->keys);
    free(w->tensors);
    free(w);
}

static struct entry *find_entry(const struct gguf_writer *w, const char *name, uint64_t size)
{
    for (uint64_t i = 0; i < w->n_keys; i++)
        if (strlen(w->keys[i].name) == size && memcmp(w->keys[i].name, name, size) == 0)
            return &w->keys[i];
    return NULL;
}

/* The key of that name with an empty value, new or emptied. */
static enum status claim_entry(struct gguf_writer *w, const char *name, uint64_t size,
                               struct entry **out, struct error *e)
{
    struct entry *k = find_entry(w, name, size);
    if (!k) {
        TRY(grow(&w->keys, w->n_keys, &w->room_keys, sizeof *w->keys, e));
        k = &w->keys[w->n_keys];
        TRY(mem_array(&k->name, size + 1, 1, "the name of a GGUF key", e));
        memcpy(k->name, name, size);
        w->n_keys++;
    }
    free(k->value);
    k->value = NULL;
    *out = k;
    return OK;
}

/* Sets a key to count elements that stand ready as bytes. */
static enum status set_value(struct gguf_writer *w, struct gguf_string name, struct gguf_key value,
                             struct error *e)
{
    struct entry *k;
    uint8_t *copy;
    TRY(mem_array(&copy, value.value_bytes, 1, "the value of a GGUF key", e));
    if (value.value_bytes > 0)
        memcpy(copy, value.value, value.value_bytes);
    enum status status = claim_entry(w, name.data, name.size, &k, e);
    if (status != OK) {
        free(copy);
        return status;
    }
    k->type = value.type;
    k->element = value.element;
    k->count = value.count;
    k->value = copy;
    k->bytes = value.value_bytes;
    return OK;
}

static struct gguf_string view(const char *text)
{
    return (struct gguf_string){text, strlen(text)};
}

static enum status set_scalar(struct gguf_writer *w, const char *key, enum gguf_type type,
                              const void *v, struct error *e)
{
    struct gguf_key value = {.type = type, .element = type, .count = 1, .value = v};
    value.value_bytes = gguf_type_bytes(type);
    return set_value(w, view(key), value, e);
}

enum status gguf_set_u32(struct gguf_writer *w, const char *key, uint32_t v, struct error *e)
{
    return set_scalar(w, key, GGUF_U32, &v, e);
}

enum status gguf_set_u64(struct gguf_writer *w, const char *key, uint64_t v, struct error *e)
{
    return set_scalar(w, key, GGUF_U64, &v, e);
}

enum status gguf_set_f32(struct gguf_writer *w, const char *key, float v, struct error *e)
{
    return set_scalar(w, key, GGUF_F32, &v, e);
}

enum status gguf_set_bool(struct gguf_writer *w, const char *key, bool v, struct error *e)
{
    uint8_t byte = v ? 1 : 0;
    return set_scalar(w, key, GGUF_BOOL, &byte, e);
}

/* Strings one after the other, each behind its length, as key of type GGUF_STRING or GGUF_ARRAY. */
static enum status set_strings(struct gguf_writer *w, const char *key, enum gguf_type type,
                               const struct gguf_string *v, uint64_t count, struct error *e)
{
    struct gguf_key value = {.type = type, .element = GGUF_STRING, .count = count};
    uint8_t *bytes;
    for (uint64_t i = 0; i < count; i++)
        value.value_bytes += sizeof v[i].size + v[i].size;
    TRY(mem_array(&bytes, value.value_bytes, 1, "the strings of a GGUF key", e));
    uint8_t *p = bytes;
    for (uint64_t i = 0; i < count; i++) {
        memcpy(p, &v[i].size, sizeof v[i].size);
        p += sizeof v[i].size;
        if (v[i].size > 0)
            memcpy(p, v[i].data, v[i].size);
        p += v[i].size;
    }
    value.value = bytes;
    enum status status = set_value(w, view(key), value, e);
    free(bytes);
    return status;
}

enum status gguf_set_string(struct gguf_writer *w, const char *key, const char *v, struct error *e)
{
    struct gguf_string string = view(v);
    return set_strings(w, key, GGUF_STRING, &string, 1, e);
}

enum status gguf_set_strings(struct gguf_writer *w, const char *key, const struct gguf_string *v,
                             uint64_t count, struct error *e)
{
    return set_strings(w, key, GGUF_ARRAY, v, count, e);
}

enum status gguf_set_array(struct gguf_writer *w, const char *key, enum gguf_type element,
                           const void *v, uint64_t count, struct error *e)
{
    struct gguf_key value = {.type = GGUF_ARRAY, .element = element, .count = count, .value = v};
    FAIL_IF(gguf_type_bytes(element) == 0, e, ERR_USAGE,
            "key %s: only arrays of numbers are set this way", key);
    FAIL_IF(!mul_fits(count, gguf_type_bytes(element), &value.value_bytes), e, ERR_LIMIT,
            "key %s: %llu elements are too many", key, (unsigned long long)count);
    return set_value(w, view(key), value, e);
}

enum status gguf_copy_key(struct gguf_writer *w, const struct gguf_key *key, struct error *e)
{
    struct gguf_string alignment = view("general.alignment");
    if (key->name.size == alignment.size &&
        memcmp(key->name.data, alignment.data, alignment.size) == 0)
        return OK;
    return set_value(w, key->name, *key, e);
}

/* Bytes of the tensor, and its place behind the last one. */
static enum status plan_tensor(struct gguf_writer *w, struct planned *t, const char *name,
                               struct error *e)
{
    struct error inner = {0};
    uint64_t end;
    enum status status = dtype_row_bytes(t->dtype, t->dim[0], &t->bytes, &inner);
    FAIL_IF(status != OK, e, status, "tensor %s: %s", name, inner.text);
    bool fits = true;
    for (int i = 1; i < 4; i++)
        fits = fits && mul_fits(t->bytes, t->dim[i], &t->bytes);
    fits = fits && add_fits(w->data_bytes, w->alignment - 1, &t->offset);
    t->offset = t->offset / w->alignment * w->alignment;
    FAIL_IF(!fits || !add_fits(t->offset, t->bytes, &end) || end > INT64_MAX / 2, e, ERR_LIMIT,
            "tensor %s makes the file larger than a file can be", name);
    return OK;
}

enum status gguf_add_tensor(struct gguf_writer *w, const char *name, uint32_t dtype, uint32_t dims,
                            const uint64_t *dim, struct error *e)
{
    struct planned t = {.dtype = dtype, .dims = dims, .dim = {1, 1, 1, 1}};
    FAIL_IF(dims < 1 || dims > 4, e, ERR_USAGE, "tensor %s has %u dimensions, GGUF knows 1 to 4",
            name, dims);
    FAIL_IF(strlen(name) < 1 || strlen(name) > 64, e, ERR_USAGE,
            "the tensor name \"%s\" is not 1 to 64 bytes long", name);
    for (uint32_t i = 0; i < dims; i++) {
        t.dim[i] = dim[i];
        FAIL_IF(dim[i] == 0, e, ERR_USAGE, "tensor %s has a dimension of 0", name);
    }
    for (uint64_t i = 0; i < w->n_tensors; i++)
        FAIL_IF(strcmp(w->tensors[i].name, name) == 0, e, ERR_USAGE, "tensor %s is added twice",
                name);
    TRY(plan_tensor(w, &t, name, e));
    TRY(grow(&w->tensors, w->n_tensors, &w->room_tensors, sizeof *w->tensors, e));
    TRY(mem_string(&t.name, name, e));
    w->data_bytes = t.offset + t.bytes;
    w->tensors[w->n_tensors++] = t;
    return OK;
}

uint64_t gguf_writer_tensor_count(const struct gguf_writer *w)
{
    return w->n_tensors;
}

static uint64_t header_size(const struct gguf_writer *w)
{
    uint64_t size = 4 + 4 + 8 + 8;
    for (uint64_t i = 0; i < w->n_keys; i++) {
        const struct entry *k = &w->keys[i];
        size += 8 + strlen(k->name) + 4 + (k->type == GGUF_ARRAY ? 4 + 8 : 0) + k->bytes;
    }
    for (uint64_t i = 0; i < w->n_tensors; i++)
        size += 8 + strlen(w->tensors[i].name) + 4 + 8 * w->tensors[i].dims + 4 + 8;
    return size;
}

static uint8_t *put(uint8_t *p, const void *v, uint64_t bytes)
{
    if (bytes > 0)
        memcpy(p, v, bytes);
    return p + bytes;
}

static uint8_t *put_u32(uint8_t *p, uint32_t v)
{
    return put(p, &v, sizeof v);
}

static uint8_t *put_u64(uint8_t *p, uint64_t v)
{
    return put(p, &v, sizeof v);
}

static uint8_t *put_name(uint8_t *p, const char *name)
{
    return put(put_u64(p, strlen(name)), name, strlen(name));
}

static uint8_t *put_key(uint8_t *p, const struct entry *k)
{
    p = put_u32(put_name(p, k->name), k->type);
    if (k->type == GGUF_ARRAY)
        p = put_u64(put_u32(p, k->element), k->count);
    return put(p, k->value, k->bytes);
}

static uint8_t *put_tensor(uint8_t *p, const struct planned *t)
{
    p = put_u32(put_name(p, t->name), t->dims);
    for (uint32_t i = 0; i < t->dims; i++)
        p = put_u64(p, t->dim[i]);
    return put_u64(put_u32(p, t->dtype), t->offset);
}

enum status gguf_writer_header(struct gguf_writer *w, uint8_t **data, uint64_t *size,
                               struct error *e)
{
    const struct entry *hash = find_entry(w, GGUF_HEADER_HASH, strlen(GGUF_HEADER_HASH));
    uint8_t *p;
    w->data_start = (header_size(w) + w->alignment - 1) / w->alignment * w->alignment;
    w->hash_at = 0;
    TRY(mem_array(data, w->data_start, 1, "a GGUF header", e));
    p = put_u32(put(*data, "GGUF", 4), 3);
    p = put_u64(put_u64(p, w->n_tensors), w->n_keys);
    for (uint64_t i = 0; i < w->n_keys; i++) {
        p = put_key(p, &w->keys[i]);
        if (&w->keys[i] == hash && hash->type == GGUF_U64)
            w->hash_at = (uint64_t)(p - *data) - sizeof(uint64_t);
    }
    for (uint64_t i = 0; i < w->n_tensors; i++)
        p = put_tensor(p, &w->tensors[i]);
    *size = w->data_start;
    return OK;
}

enum status gguf_writer_seal(const struct gguf_writer *w, uint8_t *data, uint64_t size,
                             struct error *e)
{
    FAIL_IF(w->hash_at == 0 || size != w->data_start, e, ERR_USAGE,
            "a header is sealed after %s was set and the header made", GGUF_HEADER_HASH);
    memset(data + w->hash_at, 0, sizeof(uint64_t));
    uint64_t hash = XXH3_64bits(data, size);
    memcpy(data + w->hash_at, &hash, sizeof hash);
    return OK;
}

uint64_t gguf_writer_offset(const struct gguf_writer *w, uint64_t i)
{
    return w->data_start + w->tensors[i].offset;
}

uint64_t gguf_writer_bytes(const struct gguf_writer *w, uint64_t i)
{
    return w->tensors[i].bytes;
}

uint64_t gguf_writer_file_bytes(const struct gguf_writer *w)
{
    return w->data_start + w->data_bytes;
}
