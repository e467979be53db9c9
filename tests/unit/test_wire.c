/* Every kind of message through encode and decode, and frames that must be refused, each with
 * its sentence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/wire.h"
#include "proto/control.pb-c.h"

/* A message of that kind with every field set. */
static void fill(struct message *m, enum message_kind kind)
{
    static const uint32_t tokens[5] = {1, 2, 3, 0xffffffff, 5};
    static const float values[6] = {1, -2, 3, -4, 5, -6};
    memset(m, 0, sizeof *m);
    m->kind = kind;
    switch (kind) {
    case MSG_HELLO:
        m->hello = (struct msg_hello){1, "0.1.0", "pi3", "avx2", 4, 8000000000u};
        break;
    case MSG_ASSIGN:
        m->assign = (struct msg_assign){1,
                                        "/models/a.gguf",
                                        0xfedcba9876543210u,
                                        3,
                                        4,
                                        1,
                                        3,
                                        2,
                                        true,
                                        4096,
                                        2,
                                        64,
                                        4,
                                        WIRE_Q8,
                                        true,
                                        CACHE_Q8};
        break;
    case MSG_READY:
        m->ready.job = 1;
        break;
    case MSG_TOKENS:
        m->tokens.job = 1;
        m->tokens.batch = 1ull << 40;
        m->tokens.n_runs = 2;
        m->tokens.runs[0] = (struct run){0, 100, 4, 1};
        m->tokens.runs[1] = (struct run){1, 0, 1, 0};
        m->payload = tokens;
        m->payload_bytes = sizeof tokens;
        break;
    case MSG_HIDDEN:
        m->hidden.batch = 7;
        m->hidden.stage = 2;
        m->hidden.n_runs = 1;
        m->hidden.runs[0] = (struct run){0, 9, 2, 2};
        m->hidden.rows = 2;
        m->hidden.cols = 3;
        m->hidden.raw_bytes = sizeof values;
        m->hidden.hash = 0x8000000000000001u;
        m->payload = values;
        m->payload_bytes = sizeof values;
        break;
    case MSG_LOGITS:
        m->logits = (struct msg_logits){1, 7, 2, 3};
        m->payload = values;
        m->payload_bytes = sizeof values;
        break;
    case MSG_PONG:
        strcpy(m->pong.doing, "computing block 3 of micro-batch 12");
        break;
    case MSG_STATS:
        m->stats = (struct msg_stats){"pi3", 1, 2, 3000000000u, 0.25, 1.5, 4, 5, 6};
        break;
    case MSG_COMPRESS:
        strcpy(m->compress.path, "/models/source");
        m->compress.model_hash = 99;
        m->compress.outliers = 0.02;
        m->compress.threads = 2;
        m->compress.last = true;
        m->compress.n_units = 2;
        m->compress.units[0] = (struct compress_unit){"blk.3.ffn_up.weight", UNIT_CODE, 8, 5};
        m->compress.units[1] = (struct compress_unit){"blk.3.attn_norm.weight", UNIT_F32, 0, 6};
        break;
    case MSG_TENSOR:
        m->tensor = (struct msg_tensor){7, ".code_out", 1ull << 33};
        m->payload = values;
        m->payload_bytes = 5;
        break;
    case MSG_UNIT_DONE:
        m->unit_done = (struct msg_unit_done){7, 0.125, 64, 2.5};
        break;
    case MSG_ERROR:
        m->error.status = ERR_IO;
        strcpy(m->error.text, "a.gguf does not exist: copy it to this machine");
        break;
    case MSG_STOP:
        m->stop.failed = true;
        break;
    default: /* no body */
        break;
    }
}

static struct frame encode(const struct message *m)
{
    struct frame f = {.peer = 3};
    struct error e = {0};
    if (message_encode(m, &f.bytes, &f.size, &e) != OK)
        fail_msg("%s", e.text);
    return f;
}

static void test_round_trip(void **unused)
{
    (void)unused;
    for (int kind = MSG_HELLO; kind < MSG_KINDS; kind++) {
        static struct message sent, got;
        struct error e = {0};
        fill(&sent, (enum message_kind)kind);
        struct frame f = encode(&sent);
        if (message_decode(&got, &f, &e) != OK)
            fail_msg("%s: %s", message_name((enum message_kind)kind), e.text);
        assert_null(f.bytes);
        assert_int_equal(got.peer, 3);
        assert_int_equal(got.payload_bytes, sent.payload_bytes);
        assert_int_equal((uintptr_t)got.payload % 16, 0);
        if (sent.payload_bytes)
            assert_memory_equal(got.payload, sent.payload, sent.payload_bytes);
        /* Both were zeroed first, so that the bodies can be compared as bytes. */
        size_t body = offsetof(struct message, payload);
        got.peer = sent.peer;
        assert_memory_equal(&got, &sent, body);
        message_release(&got);
    }
}

/* Decodes f (taking it) and expects a refusal that contains both phrases. */
static void refused(struct frame f, const char *phrase)
{
    static struct message m;
    struct error e = {0};
    f.peer = 3;
    assert_int_equal(message_decode(&m, &f, &e), ERR_PEER);
    if (!strstr(e.text, "rank 3") || !strstr(e.text, phrase))
        fail_msg("\"%s\" does not say \"%s\"", e.text, phrase);
    assert_null(m.bytes);
}

static struct frame frame_of(const void *bytes, size_t size)
{
    struct frame f = {malloc(size ? size : 1), size, 0};
    assert_non_null(f.bytes);
    memcpy(f.bytes, bytes, size);
    return f;
}

/* A frame of a header made by hand. */
static struct frame frame_from(const Sbit__Header *h, size_t payload)
{
    size_t size = sbit__header__get_packed_size(h);
    struct frame f = {calloc(1, 4 + size + payload), 4 + size + payload, 0};
    assert_non_null(f.bytes);
    f.bytes[0] = (uint8_t)size;
    f.bytes[1] = (uint8_t)(size >> 8);
    sbit__header__pack(h, f.bytes + 4);
    return f;
}

static void test_framing(void **unused)
{
    static const uint8_t huge[] = {0xff, 0xff, 0xff, 0xff, 0};
    static const uint8_t past_end[] = {2, 0, 0, 0, 8};
    static const uint8_t garbage[] = {2, 0, 0, 0, 0xff, 0xff};
    (void)unused;
    refused(frame_of("", 0), "length");
    refused(frame_of("\1\0\0", 3), "length");
    refused(frame_of(huge, sizeof huge), "longer");
    refused(frame_of(past_end, sizeof past_end), "longer");
    refused(frame_of(garbage, sizeof garbage), "protobuf");
}

static void test_version_and_kind(void **unused)
{
    Sbit__Header h = SBIT__HEADER__INIT;
    Sbit__Ready ready = SBIT__READY__INIT;
    (void)unused;
    h.version = WIRE_VERSION + 1;
    h.kind = MSG_PING;
    refused(frame_from(&h, 0), "wire protocol 3 and this rank 2: install the same version");
    h.version = 0;
    refused(frame_from(&h, 0), "wire protocol 0");
    h.version = WIRE_VERSION;
    h.kind = 0;
    refused(frame_from(&h, 0), "kind is unknown");
    h.kind = MSG_KINDS;
    refused(frame_from(&h, 0), "kind is unknown");
    h.kind = 0xffffffff;
    refused(frame_from(&h, 0), "kind is unknown");
    h.kind = MSG_PING;
    refused(frame_from(&h, 1), "payload where none belongs");
    h.kind = MSG_STOP;
    refused(frame_from(&h, 0), "body does not belong");
    h.body_case = SBIT__HEADER__BODY_READY;
    h.ready = &ready;
    refused(frame_from(&h, 0), "body does not belong");
}

static void test_bad_hidden(void **unused)
{
    static const struct {
        const char *phrase;
        uint32_t rows, cols, count, logits, position, type, codec;
        uint64_t raw_bytes;
        size_t payload;
    } cases[] = {
        {"add up to its rows", 3, 3, 2, 0, 0, 0, 0, 24, 24},
        {"more logits", 2, 3, 2, 3, 0, 0, 0, 24, 24},
        {"empty or too long", 0, 3, 0, 0, 0, 0, 0, 0, 0},
        {"empty or too long", 2, 3, 2, 0, 0x7fffffff, 0, 0, 24, 24},
        {"empty or too long", 0xffffffff, 3, 0xffffffff, 0, 0, 0, 0, 24, 24},
        {"over 1 GiB", 2, 0, 2, 0, 0, 0, 0, 0, 0},
        {"over 1 GiB", 2, 0x80000000, 2, 0, 0, 0, 0, 24, 24},
        {"over 1 GiB", 0x40000000, 0x40000000, 0x40000000, 0, 0, 0, 0, 0, 0},
        {"element type", 2, 3, 2, 0, 0, 3, 0, 24, 24},
        {"codec", 2, 3, 2, 0, 0, 0, 3, 24, 24},
        {"codec", 2, 3, 2, 0, 0, WIRE_Q8, CODEC_PLANES_LZ4, 10, 9},
        {"fit its shape", 2, 3, 2, 0, 0, WIRE_F16, 0, 24, 24},
        {"fit its shape", 2, 3, 2, 0, 0, 0, CODEC_PLANES_LZ4, 1ull << 60, 24},
        {"the size it states", 2, 3, 2, 0, 0, 0, 0, 24, 23},
        {"the size it states", 2, 3, 2, 0, 0, 0, CODEC_PLANES_LZ4, 24, 24},
    };
    (void)unused;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Sbit__Header h = SBIT__HEADER__INIT;
        Sbit__Hidden b = SBIT__HIDDEN__INIT;
        Sbit__Run run = SBIT__RUN__INIT, *runs = &run;
        h.version = WIRE_VERSION;
        h.kind = MSG_HIDDEN;
        h.body_case = SBIT__HEADER__BODY_HIDDEN;
        h.hidden = &b;
        run.count = cases[i].count;
        run.logits = cases[i].logits;
        run.position = cases[i].position;
        b.n_runs = 1;
        b.runs = &runs;
        b.rows = cases[i].rows;
        b.cols = cases[i].cols;
        b.type = cases[i].type;
        b.codec = cases[i].codec;
        b.raw_bytes = cases[i].raw_bytes;
        refused(frame_from(&h, cases[i].payload), cases[i].phrase);
    }
}

static void test_bad_counts(void **unused)
{
    static Sbit__Run run;
    static Sbit__Run *runs[WIRE_RUNS_MAX + 1];
    static Sbit__Unit unit;
    static Sbit__Unit *units[WIRE_UNITS_MAX + 1];
    Sbit__Header h = SBIT__HEADER__INIT;
    Sbit__Tokens tokens = SBIT__TOKENS__INIT;
    Sbit__Compress compress = SBIT__COMPRESS__INIT;
    (void)unused;
    sbit__run__init(&run);
    sbit__unit__init(&unit);
    run.count = 1;
    unit.method = UNIT_F32;
    for (size_t i = 0; i <= WIRE_RUNS_MAX; i++)
        runs[i] = &run;
    for (size_t i = 0; i <= WIRE_UNITS_MAX; i++)
        units[i] = &unit;
    h.version = WIRE_VERSION;
    h.kind = MSG_TOKENS;
    h.body_case = SBIT__HEADER__BODY_TOKENS;
    h.tokens = &tokens;
    refused(frame_from(&h, 0), "no runs or too many");
    tokens.runs = runs;
    tokens.n_runs = WIRE_RUNS_MAX + 1;
    refused(frame_from(&h, 4 * tokens.n_runs), "no runs or too many");
    tokens.n_runs = 2;
    refused(frame_from(&h, 4), "add up to its tokens");
    h.kind = MSG_COMPRESS;
    h.body_case = SBIT__HEADER__BODY_COMPRESS;
    h.compress = &compress;
    compress.units = units;
    compress.n_units = WIRE_UNITS_MAX + 1;
    refused(frame_from(&h, 0), "too many units");
    compress.n_units = 1;
    unit.method = UNIT_BF16 + 1;
    refused(frame_from(&h, 0), "unknown method");
    unit.method = UNIT_CODE;
    unit.d = 17;
    refused(frame_from(&h, 0), "unknown length");
    compress.outliers = -0.5;
    refused(frame_from(&h, 0), "outliers");
}

static void test_bad_texts(void **unused)
{
    char text[WIRE_TEXT_MAX + 1];
    Sbit__Header h = SBIT__HEADER__INIT;
    Sbit__Error b = SBIT__ERROR__INIT;
    static struct message m;
    struct error e = {0};
    (void)unused;
    memset(text, 'x', sizeof text);
    text[WIRE_TEXT_MAX] = 0;
    h.version = WIRE_VERSION;
    h.kind = MSG_ERROR;
    h.body_case = SBIT__HEADER__BODY_ERROR;
    h.error = &b;
    b.text = text;
    refused(frame_from(&h, 0), "too long");
    /* One byte less fits; control characters, which could play with a terminal, become spaces. */
    text[WIRE_TEXT_MAX - 1] = 0;
    text[0] = '\033';
    struct frame f = frame_from(&h, 0);
    assert_int_equal(message_decode(&m, &f, &e), OK);
    assert_int_equal(m.error.text[0], ' ');
    assert_int_equal(strlen(m.error.text), WIRE_TEXT_MAX - 1);
    message_release(&m);
}

static void test_bad_assign(void **unused)
{
    Sbit__Header h = SBIT__HEADER__INIT;
    Sbit__Assign b = SBIT__ASSIGN__INIT;
    (void)unused;
    h.version = WIRE_VERSION;
    h.kind = MSG_ASSIGN;
    h.body_case = SBIT__HEADER__BODY_ASSIGN;
    h.assign = &b;
    b.wire = WIRE_Q8 + 1;
    refused(frame_from(&h, 0), "element type is unknown");
    b.wire = WIRE_Q8;
    b.cache = CACHE_Q8 + 1;
    refused(frame_from(&h, 0), "type of cache is unknown");
}

/* 30000 unknown fields of two bytes each would cost 46 bytes and a block of memory apiece. */
static void test_amplification(void **unused)
{
    size_t header = 60000;
    struct frame f = {malloc(4 + header), 4 + header, 0};
    (void)unused;
    assert_non_null(f.bytes);
    f.bytes[0] = (uint8_t)header;
    f.bytes[1] = (uint8_t)(header >> 8);
    f.bytes[2] = f.bytes[3] = 0;
    for (size_t i = 0; i < header; i += 2) {
        f.bytes[4 + i] = 5 << 3; /* field 5, varint */
        f.bytes[5 + i] = 1;
    }
    refused(f, "protobuf");
}

static void test_encode_refuses(void **unused)
{
    static struct message m;
    struct frame f;
    struct error e = {0}, e2 = {0}, e3 = {0}, e4 = {0};
    (void)unused;
    fill(&m, MSG_TOKENS);
    m.tokens.n_runs = WIRE_RUNS_MAX + 1;
    assert_int_equal(message_encode(&m, &f.bytes, &f.size, &e), ERR_LIMIT);
    fill(&m, MSG_PONG);
    memset(m.pong.doing, 'x', sizeof m.pong.doing);
    assert_int_equal(message_encode(&m, &f.bytes, &f.size, &e2), ERR_LIMIT);
    fill(&m, MSG_TENSOR);
    m.payload_bytes = (size_t)WIRE_PAYLOAD_MAX + WIRE_HEADER_MAX;
    assert_int_equal(message_encode(&m, &f.bytes, &f.size, &e3), ERR_LIMIT);
    m.kind = MSG_KINDS;
    assert_int_equal(message_encode(&m, &f.bytes, &f.size, &e4), ERR_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),       cmocka_unit_test(test_framing),
        cmocka_unit_test(test_version_and_kind), cmocka_unit_test(test_bad_hidden),
        cmocka_unit_test(test_bad_counts),       cmocka_unit_test(test_bad_texts),
        cmocka_unit_test(test_amplification),    cmocka_unit_test(test_encode_refuses),
        cmocka_unit_test(test_bad_assign),
    };
    return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
