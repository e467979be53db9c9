/* Payloads of hidden states: element type, byte planes, LZ4 block, hash (docs/wire.md,
 * "Activations"). Everything works on rows alone, so that a row's bytes do not depend on the
 * rows beside it. Knows nothing of messages' routes. */
#include <endian.h>
#include <lz4.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/dtype.h"
#include "common/wire.h"

#define Q8_BLOCK 32u
#define F16_MAX  65504.0f

uint64_t activation_raw_bytes(enum wire_type type, uint32_t rows, uint32_t cols)
{
    uint64_t elements = (uint64_t)rows * cols;
    uint64_t scales = (uint64_t)rows * (((uint64_t)cols + Q8_BLOCK - 1) / Q8_BLOCK);
    if (elements > UINT64_MAX / 8)
        return 0;
    if (type == WIRE_Q8)
        return elements + 2 * scales;
    return elements * (type == WIRE_F16 ? 2 : 4);
}

/* dst = width planes of count bytes each: all first bytes of the elements, then all second ones
 * ... */
static void to_planes(const uint8_t *src, size_t count, size_t width, uint8_t *dst)
{
    for (size_t plane = 0; plane < width; plane++)
        for (size_t i = 0; i < count; i++)
            dst[plane * count + i] = src[i * width + plane];
}

static void from_planes(const uint8_t *src, size_t count, size_t width, uint8_t *dst)
{
    for (size_t plane = 0; plane < width; plane++)
        for (size_t i = 0; i < count; i++)
            dst[i * width + plane] = src[plane * count + i];
}

static void put_u16(uint8_t *p, uint16_t v)
{
    v = htole16(v);
    memcpy(p, &v, sizeof v);
}

static uint16_t get_u16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return le16toh(v);
}

static void put_f32(const float *x, size_t count, uint8_t *out)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits = htole32(bits);
        memcpy(out + 4 * i, &bits, sizeof bits);
    }
}

static void get_f32(const uint8_t *in, size_t count, float *x)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, in + 4 * i, sizeof bits);
        bits = le32toh(bits);
        memcpy(&x[i], &bits, sizeof bits);
    }
}

/* False when a value does not fit. */
static bool put_f16(const float *x, size_t count, uint8_t *out)
{
    for (size_t i = 0; i < count; i++) {
        if (!(fabsf(x[i]) <= F16_MAX))
            return false;
        put_u16(out + 2 * i, f32_to_f16(x[i]));
    }
    return true;
}

/* One row: scales[] of 2 bytes, q[cols]. The scale is the largest magnitude over 127, rounded to
 * F16. */
static bool put_q8_row(const float *x, uint32_t cols, uint8_t *scales, uint8_t *q)
{
    for (uint32_t start = 0; start < cols; start += Q8_BLOCK) {
        uint32_t end = cols - start < Q8_BLOCK ? cols : start + Q8_BLOCK;
        float largest = 0;
        for (uint32_t i = start; i < end; i++) {
            if (!(fabsf(x[i]) <= F16_MAX))
                return false;
            largest = fmaxf(largest, fabsf(x[i]));
        }
        uint16_t half = f32_to_f16(largest / 127.0f);
        float scale = f16_to_f32(half);
        put_u16(scales + 2 * (start / Q8_BLOCK), half);
        for (uint32_t i = start; i < end; i++) {
            float level = scale > 0 ? rintf(x[i] / scale) : 0;
            q[i] = (uint8_t)(int8_t)fmaxf(-127.0f, fminf(127.0f, level));
        }
    }
    return true;
}

static bool put_q8(const float *x, uint32_t rows, uint32_t cols, uint8_t *out)
{
    size_t blocks = ((size_t)cols + Q8_BLOCK - 1) / Q8_BLOCK;
    uint8_t *q = out + 2 * blocks * rows;
    for (size_t r = 0; r < rows; r++)
        if (!put_q8_row(x + r * cols, cols, out + 2 * blocks * r, q + r * cols))
            return false;
    return true;
}

static void get_q8(const uint8_t *in, uint32_t rows, uint32_t cols, float *x)
{
    size_t blocks = ((size_t)cols + Q8_BLOCK - 1) / Q8_BLOCK;
    const uint8_t *q = in + 2 * blocks * rows;
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++) {
            float scale = f16_to_f32(get_u16(in + 2 * (blocks * r + c / Q8_BLOCK)));
            x[r * cols + c] = scale * (float)(int8_t)q[r * cols + c];
        }
}

static bool put_elements(const struct msg_hidden *h, const float *x, uint8_t *out)
{
    size_t count = (size_t)h->rows * h->cols;
    if (h->type == WIRE_F16)
        return put_f16(x, count, out);
    if (h->type == WIRE_Q8)
        return put_q8(x, h->rows, h->cols, out);
    put_f32(x, count, out);
    return true;
}

static void get_elements(const struct msg_hidden *h, const uint8_t *in, float *x)
{
    size_t count = (size_t)h->rows * h->cols;
    if (h->type == WIRE_F32)
        get_f32(in, count, x);
    else if (h->type == WIRE_F16)
        for (size_t i = 0; i < count; i++)
            x[i] = f16_to_f32(get_u16(in + 2 * i));
    else
        get_q8(in, h->rows, h->cols, x);
}

static size_t element_width(enum wire_type type)
{
    return type == WIRE_F32 ? 4 : 2;
}

/* Tries LZ4 on raw (h->raw_bytes); *packed gets the smaller form and *bytes its size, or stays NULL
 * when nothing is gained or memory is short: then raw travels as it is. */
static void compress(struct msg_hidden *h, const uint8_t *raw, uint8_t **packed, size_t *bytes)
{
    size_t size = h->raw_bytes;
    bool planes = h->type != WIRE_Q8;
    uint8_t *source = planes ? malloc(size) : NULL;
    uint8_t *out = malloc(size);
    *packed = NULL;
    if (out && (source || !planes)) {
        if (planes)
            to_planes(raw, size / element_width(h->type), element_width(h->type), source);
        /* Room for one byte less than raw: LZ4 gives up when it cannot do better. */
        int written = LZ4_compress_default((const char *)(planes ? source : raw), (char *)out,
                                           (int)size, (int)size - 1);
        if (written > 0) {
            h->codec = planes ? CODEC_PLANES_LZ4 : CODEC_LZ4;
            *packed = out;
            *bytes = (size_t)written;
            out = NULL;
        }
    }
    free(source);
    free(out);
}

enum status activation_pack(struct msg_hidden *h, const float *x, enum wire_type type, bool raw,
                            uint8_t **payload, size_t *bytes, struct error *e)
{
    *payload = NULL;
    h->type = raw ? WIRE_F32 : type;
    h->codec = CODEC_RAW;
    h->raw_bytes = activation_raw_bytes(h->type, h->rows, h->cols);
    FAIL_IF(h->raw_bytes < 1 || activation_raw_bytes(WIRE_F32, h->rows, h->cols) > WIRE_PAYLOAD_MAX,
            e, ERR_LIMIT,
            "activations of %u x %u values are over the limit of 1 GiB: use a smaller "
            "--batch",
            h->rows, h->cols);
    uint8_t *plain = malloc(h->raw_bytes), *packed = NULL;
    FAIL_IF(!plain, e, ERR_MEMORY, "out of memory: activations of %u x %u values", h->rows,
            h->cols);
    if (!put_elements(h, x, plain)) {
        free(plain);
        return error_set(e, ERR_LIMIT,
                         "an activation is not finite or too large for --wire f16 or q8: use "
                         "--wire f32");
    }
    *bytes = h->raw_bytes;
    if (!raw)
        compress(h, plain, &packed, bytes);
    if (packed)
        free(plain);
    *payload = packed ? packed : plain;
    h->hash = XXH3_64bits(*payload, *bytes);
    return OK;
}

/* *raw = the elements before the codec, malloc'd. */
static enum status decompress(const struct message *m, uint8_t **raw, struct error *e)
{
    const struct msg_hidden *h = &m->hidden;
    size_t size = h->raw_bytes, width = element_width(h->type);
    uint8_t *out = malloc(size), *plain = NULL;
    FAIL_IF(!out, e, ERR_MEMORY, "out of memory: activations of %zu bytes", size);
    int got = LZ4_decompress_safe(m->payload, (char *)out, (int)m->payload_bytes, (int)size);
    if (got < 0 || (size_t)got != size) {
        free(out);
        return error_set(e, ERR_PEER,
                         "rank %d sent activations that LZ4 cannot unpack: run the same build of "
                         "sbit on every machine",
                         m->peer);
    }
    if (h->codec == CODEC_LZ4) {
        *raw = out;
        return OK;
    }
    plain = malloc(size);
    if (plain)
        from_planes(out, size / width, width, plain);
    free(out);
    FAIL_IF(!plain, e, ERR_MEMORY, "out of memory: activations of %zu bytes", size);
    *raw = plain;
    return OK;
}

enum status activation_unpack(const struct message *m, float *x, struct error *e)
{
    const struct msg_hidden *h = &m->hidden;
    uint8_t *raw = NULL;
    FAIL_IF(m->kind != MSG_HIDDEN ||
                h->raw_bytes != activation_raw_bytes(h->type, h->rows, h->cols) ||
                h->raw_bytes > WIRE_PAYLOAD_MAX || m->payload_bytes > h->raw_bytes ||
                (h->codec == CODEC_RAW && m->payload_bytes != h->raw_bytes) ||
                (h->codec == CODEC_PLANES_LZ4 && h->type == WIRE_Q8),
            e, ERR_PEER, "rank %d sent activations whose size does not fit their shape", m->peer);
    FAIL_IF(XXH3_64bits(m->payload, m->payload_bytes) != h->hash, e, ERR_PEER,
            "rank %d sent activations that were damaged on the way (hash of micro-batch %llu): "
            "check memory and network of both machines",
            m->peer, (unsigned long long)h->batch);
    if (h->codec == CODEC_RAW) {
        get_elements(h, m->payload, x);
        return OK;
    }
    TRY(decompress(m, &raw, e));
    get_elements(h, raw, x);
    free(raw);
    return OK;
}
