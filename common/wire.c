/* Frames: length, header, payload. Owns the limits on a header (size, memory, version, kind) and
 * the table of kinds; what stands in a body is the business of wire_control.c,
 * wire_calib.c and wire_activation.c. Knows nothing of who sends what when. */
#include "common/wire.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire_internal.h"

#define BODY_BASE    10u        /* field number of a body: this + kind (proto/control.proto) */
#define PARSE_BUDGET (1u << 20) /* bytes that parsing one header may allocate */
#define LENGTH_BYTES 4u

static const struct {
    const char *name;
    wire_pack pack; /* NULL: no body */
    wire_unpack unpack;
    bool payload; /* may carry one */
} kinds[MSG_KINDS] = {
    [MSG_HELLO] = {"HELLO", wire_pack_hello, wire_unpack_hello, false},
    [MSG_ASSIGN] = {"ASSIGN", wire_pack_assign, wire_unpack_assign, false},
    [MSG_READY] = {"READY", wire_pack_ready, wire_unpack_ready, false},
    [MSG_TOKENS] = {"TOKENS", wire_pack_tokens, wire_unpack_tokens, true},
    [MSG_HIDDEN] = {"HIDDEN", wire_pack_hidden, wire_unpack_hidden, true},
    [MSG_LOGITS] = {"LOGITS", wire_pack_logits, wire_unpack_logits, true},
    [MSG_PING] = {"PING", NULL, NULL, false},
    [MSG_PONG] = {"PONG", wire_pack_pong, wire_unpack_pong, false},
    [MSG_ASK_STATS] = {"ASK_STATS", NULL, NULL, false},
    [MSG_STATS] = {"STATS", wire_pack_stats, wire_unpack_stats, false},
    [MSG_COMPRESS] = {"COMPRESS", wire_pack_compress, wire_unpack_compress, false},
    [MSG_TENSOR] = {"TENSOR", wire_pack_part, wire_unpack_part, true},
    [MSG_UNIT_DONE] = {"UNIT_DONE", wire_pack_unit_done, wire_unpack_unit_done, false},
    [MSG_ERROR] = {"ERROR", wire_pack_error, wire_unpack_error, false},
    [MSG_STOP] = {"STOP", wire_pack_stop, wire_unpack_stop, false},
    [MSG_CALIB] = {"CALIB", wire_pack_calib, wire_unpack_calib, true},
    [MSG_MOMENTS] = {"MOMENTS", wire_pack_moments, wire_unpack_moments, true},
    [MSG_PART] = {"PART", wire_pack_part, wire_unpack_part, true},
    [MSG_MEASURED] = {"MEASURED", wire_pack_measured, wire_unpack_measured, false},
    [MSG_GRADIENT] = {"GRADIENT", wire_pack_gradient, wire_unpack_gradient, true},
    [MSG_TUNED] = {"TUNED", wire_pack_tuned, wire_unpack_tuned, false},
    [MSG_WANT] = {"WANT", wire_pack_want, wire_unpack_want, false},
    [MSG_PROBED] = {"PROBED", wire_pack_probed, wire_unpack_probed, false},
    [MSG_SOURCE] = {"SOURCE", wire_pack_source, wire_unpack_source, true},
    [MSG_OPENED] = {"OPENED", wire_pack_opened, wire_unpack_opened, false},
    [MSG_FETCH] = {"FETCH", wire_pack_fetch, wire_unpack_fetch, true},
    [MSG_FETCHED] = {"FETCHED", wire_pack_fetch, wire_unpack_fetch, true},
    [MSG_STATE] = {"STATE", wire_pack_state, wire_unpack_state, true},
    [MSG_KEEP] = {"KEEP", wire_pack_state, wire_unpack_state, true},
};

const char *message_name(enum message_kind kind)
{
    return kind >= MSG_HELLO && kind < MSG_KINDS ? kinds[kind].name : "unknown";
}

/* Zeroed memory, because protobuf-c up to 1.5.0 may free members that a failed parse never set. */
static void *budget_alloc(void *data, size_t size)
{
    size_t *left = data;
    if (size > *left)
        return NULL;
    *left -= size;
    return calloc(1, size ? size : 1);
}

static void budget_free(void *data, void *block)
{
    (void)data;
    free(block);
}

/* How many entries m keeps in fixed arrays: false when a count is beyond its array. */
static bool counts_fit(const struct message *m)
{
    switch (m->kind) {
    case MSG_TOKENS:
        return m->tokens.n_runs <= WIRE_RUNS_MAX;
    case MSG_HIDDEN:
        return m->hidden.n_runs <= WIRE_RUNS_MAX;
    case MSG_COMPRESS:
        return m->compress.n_units <= WIRE_UNITS_MAX;
    default:
        return true;
    }
}

static enum status write_frame(const struct message *m, const Sbit__Header *h, uint8_t **bytes,
                               size_t *size, struct error *e)
{
    size_t header = sbit__header__get_packed_size(h);
    FAIL_IF(
        header > WIRE_HEADER_MAX, e, ERR_LIMIT,
        "a %s message needs a header of %zu bytes, more than the limit of %u: use shorter names",
        kinds[m->kind].name, header, WIRE_HEADER_MAX);
    FAIL_IF(m->payload_bytes > WIRE_FRAME_MAX - LENGTH_BYTES - header, e, ERR_LIMIT,
            "a %s message with a payload of %zu bytes is over the limit of 1 GiB: use a smaller "
            "--batch",
            kinds[m->kind].name, m->payload_bytes);
    *size = LENGTH_BYTES + header + m->payload_bytes;
    *bytes = malloc(*size);
    FAIL_IF(!*bytes, e, ERR_MEMORY, "out of memory: a message of %zu bytes", *size);
    uint32_t length = htole32((uint32_t)header);
    memcpy(*bytes, &length, LENGTH_BYTES);
    sbit__header__pack(h, *bytes + LENGTH_BYTES);
    if (m->payload_bytes)
        memcpy(*bytes + LENGTH_BYTES + header, m->payload, m->payload_bytes);
    return OK;
}

enum status message_encode(const struct message *m, uint8_t **bytes, size_t *size, struct error *e)
{
    Sbit__Header h = SBIT__HEADER__INIT;
    struct wire_scratch scratch;
    *bytes = NULL;
    *size = 0;
    FAIL_IF(m->kind < MSG_HELLO || m->kind >= MSG_KINDS, e, ERR_UNSUPPORTED,
            "there is no message of kind %d", (int)m->kind);
    FAIL_IF(m->payload_bytes && !kinds[m->kind].payload, e, ERR_UNSUPPORTED,
            "a %s message carries no payload", kinds[m->kind].name);
    FAIL_IF(!counts_fit(m), e, ERR_LIMIT,
            "a %s message holds more entries than fit one message: send several",
            kinds[m->kind].name);
    h.version = WIRE_VERSION;
    h.kind = m->kind;
    scratch.bad_text = false;
    if (kinds[m->kind].pack) {
        h.body_case = (Sbit__Header__BodyCase)(BODY_BASE + m->kind);
        kinds[m->kind].pack(m, &h, &scratch);
    }
    FAIL_IF(scratch.bad_text, e, ERR_LIMIT, "a text in a %s message is too long",
            kinds[m->kind].name);
    return write_frame(m, &h, bytes, size, e);
}

/* Checks the header's version and kind, then fills m. The first thing that is wrong, or NULL. */
static const char *read_header(struct message *m, const Sbit__Header *h)
{
    if (h->kind < MSG_HELLO || h->kind >= MSG_KINDS)
        return "its kind is unknown";
    m->kind = (enum message_kind)h->kind;
    if (m->payload_bytes && !kinds[m->kind].payload)
        return "it carries a payload where none belongs";
    if (!kinds[m->kind].unpack)
        return NULL;
    if ((unsigned)h->body_case != BODY_BASE + m->kind)
        return "its body does not belong to its kind";
    return kinds[m->kind].unpack(m, h);
}

/* Moves the payload to the front of the frame, where malloc's alignment holds for any type. */
static void align_payload(struct message *m)
{
    if (m->payload_bytes)
        memmove(m->bytes, m->payload, m->payload_bytes);
    m->payload = m->bytes;
}

static enum status refuse(struct message *m, const char *what, struct error *e)
{
    int peer = m->peer;
    const char *name = m->kind ? kinds[m->kind].name : "unreadable";
    message_release(m);
    return error_set(e, ERR_PEER,
                     "rank %d sent a broken message (%s: %s): run the same build of sbit on every "
                     "machine and check the network",
                     peer, name, what);
}

static enum status read_frame(struct message *m, size_t size, struct error *e)
{
    uint32_t length;
    size_t budget = PARSE_BUDGET;
    ProtobufCAllocator allocator = {budget_alloc, budget_free, &budget};
    if (size < LENGTH_BYTES)
        return refuse(m, "shorter than its length field", e);
    memcpy(&length, m->bytes, LENGTH_BYTES);
    length = le32toh(length);
    if (length > WIRE_HEADER_MAX || length > size - LENGTH_BYTES)
        return refuse(m, "its header is longer than allowed", e);
    Sbit__Header *h = sbit__header__unpack(&allocator, length, m->bytes + LENGTH_BYTES);
    if (!h)
        return refuse(m, "its header is no valid protobuf", e);
    if (h->version != WIRE_VERSION) {
        uint32_t version = h->version;
        int peer = m->peer;
        sbit__header__free_unpacked(h, &allocator);
        message_release(m);
        return error_set(e, ERR_PEER,
                         "rank %d speaks wire protocol %u and this rank %u: install the same "
                         "version of sbit on every machine",
                         peer, version, WIRE_VERSION);
    }
    m->payload = m->bytes + LENGTH_BYTES + length;
    m->payload_bytes = size - LENGTH_BYTES - length;
    const char *wrong = read_header(m, h);
    sbit__header__free_unpacked(h, &allocator);
    if (wrong)
        return refuse(m, wrong, e);
    align_payload(m);
    return OK;
}

enum status message_decode(struct message *m, struct frame *f, struct error *e)
{
    size_t size = f->size;
    memset(m, 0, sizeof *m);
    m->bytes = f->bytes;
    m->peer = f->peer;
    f->bytes = NULL;
    f->size = 0;
    if (size > WIRE_FRAME_MAX)
        return refuse(m, "longer than 1 GiB", e);
    return read_frame(m, size, e);
}

void message_release(struct message *m)
{
    free(m->bytes);
    m->bytes = NULL;
    m->payload = NULL;
    m->payload_bytes = 0;
}
