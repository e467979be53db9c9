/* Values of GGUF keys: numbers converted where nothing is lost, strings as views, the header's
 * hash. Works on what gguf.c has checked. */
#include "common/gguf.h"

#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

static const uint8_t *element(const struct gguf_key *k, uint64_t i)
{
    return k->value + i * gguf_type_bytes(k->element);
}

/* A signed element; false when the element is of another type. */
static bool read_signed(const struct gguf_key *k, uint64_t i, int64_t *out)
{
    const uint8_t *p = element(k, i);
    int16_t v16;
    int32_t v32;
    switch (k->element) {
    case GGUF_I8:
        *out = (int8_t)*p;
        return true;
    case GGUF_I16:
        memcpy(&v16, p, sizeof v16);
        *out = v16;
        return true;
    case GGUF_I32:
        memcpy(&v32, p, sizeof v32);
        *out = v32;
        return true;
    case GGUF_I64:
        memcpy(out, p, sizeof *out);
        return true;
    default:
        return false;
    }
}

bool gguf_array_u64(const struct gguf_key *k, uint64_t i, uint64_t *out)
{
    int64_t v;
    if (i >= k->count)
        return false;
    if (k->element == GGUF_U8 || k->element == GGUF_U16 || k->element == GGUF_U32 ||
        k->element == GGUF_U64) {
        *out = 0;
        memcpy(out, element(k, i), gguf_type_bytes(k->element));
        return true;
    }
    if (!read_signed(k, i, &v) || v < 0)
        return false;
    *out = (uint64_t)v;
    return true;
}

bool gguf_array_f64(const struct gguf_key *k, uint64_t i, double *out)
{
    const int64_t exact = INT64_C(1) << 53;
    uint64_t u;
    int64_t v;
    float f;
    if (i >= k->count)
        return false;
    if (k->element == GGUF_F32) {
        memcpy(&f, element(k, i), sizeof f);
        *out = f;
        return true;
    }
    if (k->element == GGUF_F64) {
        memcpy(out, element(k, i), sizeof *out);
        return true;
    }
    if (gguf_array_u64(k, i, &u)) {
        *out = (double)u;
        return u <= (uint64_t)exact;
    }
    if (!read_signed(k, i, &v) || v < -exact)
        return false;
    *out = (double)v;
    return true;
}

/* The key of that name if it is one value. */
static const struct gguf_key *find_scalar(const struct gguf *g, const char *name)
{
    const struct gguf_key *k = gguf_find_key(g, name);
    return k && k->type != GGUF_ARRAY ? k : NULL;
}

bool gguf_get_u64(const struct gguf *g, const char *name, uint64_t *out)
{
    const struct gguf_key *k = find_scalar(g, name);
    return k && gguf_array_u64(k, 0, out);
}

bool gguf_get_f64(const struct gguf *g, const char *name, double *out)
{
    const struct gguf_key *k = find_scalar(g, name);
    return k && gguf_array_f64(k, 0, out);
}

bool gguf_get_bool(const struct gguf *g, const char *name, bool *out)
{
    const struct gguf_key *k = find_scalar(g, name);
    if (!k || k->type != GGUF_BOOL)
        return false;
    *out = k->value[0] != 0;
    return true;
}

bool gguf_next_string(const struct gguf_key *k, uint64_t *state, struct gguf_string *out)
{
    uint64_t size;
    if (k->element != GGUF_STRING || *state >= k->value_bytes)
        return false;
    memcpy(&size, k->value + *state, sizeof size);
    out->data = (const char *)k->value + *state + sizeof size;
    out->size = size;
    *state += sizeof size + size;
    return true;
}

bool gguf_get_string(const struct gguf *g, const char *name, struct gguf_string *out)
{
    const struct gguf_key *k = find_scalar(g, name);
    uint64_t state = 0;
    return k && gguf_next_string(k, &state, out);
}

uint64_t gguf_header_hash(const struct gguf *g)
{
    static const uint8_t zeros[8];
    const struct gguf_key *k = find_scalar(g, GGUF_HEADER_HASH);
    if (!k || k->type != GGUF_U64)
        return XXH3_64bits(g->file.data, g->data_start);
    uint64_t before = (uint64_t)(k->value - g->file.data), after = before + sizeof zeros;
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, g->file.data, before);
    XXH3_64bits_update(&state, zeros, sizeof zeros);
    XXH3_64bits_update(&state, g->file.data + after, g->data_start - after);
    return XXH3_64bits_digest(&state);
}
