/* Every kind of message through encode and decode, and frames that must be refused, each with
 * its sentence. */
#include <math.h>
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

/* Bodies are compared as bytes, so that padding must be zeros, which only static data promise. */
#define SET(to, type, ...)                                                                         \
    do {                                                                                           \
        static const type value = __VA_ARGS__;                                                     \
        memcpy(&(to), &value, sizeof value);                                                       \
    } while (0)

/* The messages by which the source travels. */
static void fill_source(struct message *m, enum message_kind kind)
{
    static const uint32_t entries[10] = {1, 2, 0, 4, 13, 0, 30, 0}; /* two, then a float */
    static const uint64_t ranges[4] = {0, 4194303, 1ull << 40, 1};
    switch (kind) {
    case MSG_SOURCE:
        strcpy(m->source.path, "/models/source");
        m->source.model_hash = 0xfedcba9876543210u;
        m->source.tensors = 2;
        m->source.rope_factors = true;
        SET(m->source.config, struct model_config,
            {"qwen3", 32, 4096, 11008, 32, 8, 128, 32000, 8192, 1e-6f, 500000, 4, ROPE_LLAMA3, 8, 1,
             4, 8192, true, true, true, true, 1024});
        m->payload = entries;
        m->payload_bytes = sizeof entries;
        break;
    case MSG_OPENED:
        m->opened.missing = true;
        break;
    case MSG_FETCH:
        m->fetch = (struct msg_fetch){KIND_DOWN, 31};
        m->payload = ranges;
        m->payload_bytes = sizeof ranges;
        break;
    case MSG_FETCHED:
        m->fetched = (struct msg_fetch){KIND_DOWN, 31};
        m->payload = entries;
        m->payload_bytes = 7;
        break;
    case MSG_STATE:
    case MSG_KEEP:
        m->state = (struct msg_state){12, 1ull << 34};
        m->payload = entries;
        m->payload_bytes = 5;
        break;
    default: /* no body */
        break;
    }
}

/* The same for the messages of a calibrated compression. */
static void fill_calibrated(struct message *m, enum message_kind kind)
{
    static const float values[6] = {1, -2, 3, -4, 5, -6};
    static const uint32_t text[5] = {2, 1, 7, 8, 9}; /* two windows, of 2 tokens and of 1 */
    switch (kind) {
    case MSG_CALIB:
        strcpy(m->calib.recipe, "qep=0.75,descent=2");
        m->calib.context = 512;
        m->calib.windows = 2;
        m->calib.threads = 4;
        m->calib.embeddings = UNIT_Q1_0;
        m->calib.embeddings_d = 3;
        m->calib.measure = true;
        m->calib.probe = true;
        m->calib.method = UNIT_Q4_0;
        m->calib.d = 12;
        m->calib.spill = true;
        m->calib.moment_floats = 1ull << 33;
        m->payload = text;
        m->payload_bytes = sizeof text;
        break;
    case MSG_MOMENTS:
        SET(m->moments, struct msg_moments, {3, 2, true, 8, 4, 1ull << 40, true, 1ull << 34});
        m->payload = values;
        m->payload_bytes = sizeof values;
        break;
    case MSG_PART:
        SET(m->part, struct msg_part, {7, ".code_in", 1ull << 33});
        m->payload = values;
        m->payload_bytes = 7;
        break;
    case MSG_MEASURED:
        SET(m->measured, struct msg_measured,
            {3, 5, true, {11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, true, 0.25});
        break;
    case MSG_GRADIENT:
        SET(m->gradient, struct msg_gradient, {12, 16, 0.75});
        m->payload = values;
        m->payload_bytes = sizeof values;
        break;
    case MSG_TUNED:
        SET(m->tuned, struct msg_tuned, {12, 128, 0.5});
        break;
    case MSG_WANT:
        SET(m->want, struct msg_want, {31, true, 1ull << 34});
        break;
    case MSG_PROBED:
        m->probed = (struct msg_probed){0.25, 0.5, 2, 0.125};
        break;
    default:
        fill_source(m, kind);
        break;
    }
}

/* A message of that kind with every field set. */
static void fill(struct message *m, enum message_kind kind)
{
    static const uint32_t tokens[5] = {1, 2, 3, 0xffffffff, 5};
    static const float values[6] = {1, -2, 3, -4, 5, -6};
    memset(m, 0, sizeof *m);
    m->kind = kind;
    switch (kind) {
    case MSG_HELLO:
        SET(m->hello, struct msg_hello, {1, "0.1.0", "pi3", "avx2", 4, 8000000000u, 7000000000u});
        break;
    case MSG_ASSIGN:
        SET(m->assign, struct msg_assign,
            {1, "/models/a.gguf", 0xfedcba9876543210u, 3, 4, 1, 3, 2, true, 4096, 2, 64, 4, WIRE_Q8,
             true, CACHE_Q8});
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
        SET(m->logits, struct msg_logits, {1, 7, 2, 3});
        m->payload = values;
        m->payload_bytes = sizeof values;
        break;
    case MSG_PONG:
        strcpy(m->pong.doing, "computing block 3 of micro-batch 12");
        break;
    case MSG_STATS:
        SET(m->stats, struct msg_stats, {"pi3", 1, 2, 3000000000u, 0.25, 1.5, 4, 5, 6});
        break;
    case MSG_COMPRESS:
        m->compress.outliers = 0.02;
        m->compress.threads = 2;
        m->compress.last = true;
        m->compress.n_units = 2;
        SET(m->compress.units[0], struct compress_unit,
            {"blk.3.ffn_up.weight", UNIT_CODE, 8, 5, true, true, true});
        SET(m->compress.units[1], struct compress_unit,
            {"blk.3.attn_norm.weight", UNIT_F32, 0, 6, false, false, false});
        break;
    case MSG_TENSOR:
        SET(m->tensor, struct msg_part, {7, ".code_out", 1ull << 33});
        m->payload = values;
        m->payload_bytes = 5;
        break;
    case MSG_UNIT_DONE:
        SET(m->unit_done, struct msg_unit_done, {7, 0.125, 64, 2.5, 9, 3, 2, 1});
        break;
    case MSG_ERROR:
        m->error.status = ERR_IO;
        strcpy(m->error.text, "a.gguf does not exist: copy it to this machine");
        break;
    case MSG_STOP:
        m->stop.failed = true;
        break;
    default:
        fill_calibrated(m, kind);
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

/* A header of that kind, whose body is to be set. */
static Sbit__Header header_of(enum message_kind kind)
{
    Sbit__Header h = SBIT__HEADER__INIT;
    h.version = WIRE_VERSION;
    h.kind = kind;
    h.body_case = (Sbit__Header__BodyCase)(10 + kind);
    return h;
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
    refused(frame_from(&h, 0), "wire protocol 6 and this rank 5: install the same version");
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
    unit.method = UNIT_Q1_0 + 1;
    refused(frame_from(&h, 0), "unknown method");
    unit.method = UNIT_CODE;
    unit.d = 17;
    refused(frame_from(&h, 0), "unknown length");
    unit.method = UNIT_Q2_0;
    unit.columns = true;
    refused(frame_from(&h, 0), "column scales");
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

/* A frame of CALIB with a payload of n words. */
static struct frame calib_frame(uint32_t context, uint32_t windows, const uint32_t *words, size_t n)
{
    Sbit__Header h = header_of(MSG_CALIB);
    Sbit__Calib b = SBIT__CALIB__INIT;
    h.calib = &b;
    b.context = context;
    b.windows = windows;
    struct frame f = frame_from(&h, n * sizeof *words);
    memcpy(f.bytes + f.size - n * sizeof *words, words, n * sizeof *words);
    return f;
}

static void test_bad_calib(void **unused)
{
    static const uint32_t text[5] = {2, 1, 7, 8, 9}, empty[3] = {0, 1, 7};
    static const uint32_t overflow[4] = {0xffffffff, 3, 7, 8}; /* add up to 2 in 32 bits */
    (void)unused;
    struct frame odd = calib_frame(2, 2, text, 5);
    odd.size--;
    refused(odd, "do not fit its payload");
    refused(calib_frame(2, 0, text, 5), "do not fit its payload");
    refused(calib_frame(2, 6, text, 5), "do not fit its payload");
    refused(calib_frame(2, 0xffffffff, text, 5), "do not fit its payload");
    refused(calib_frame(1, 2, text, 5), "empty or too long");
    refused(calib_frame(9, 2, empty, 3), "empty or too long");
    refused(calib_frame(2, 2, text, 4), "add up to its tokens");
    refused(calib_frame(2, 1, text, 5), "add up to its tokens");
    refused(calib_frame(0xffffffff, 2, overflow, 4), "add up to its tokens");
}

static void test_bad_calib_header(void **unused)
{
    char recipe[RECIPE_TEXT_MAX + 1];
    Sbit__Header h = header_of(MSG_CALIB);
    Sbit__Calib b = SBIT__CALIB__INIT;
    (void)unused;
    h.calib = &b;
    b.embeddings = UNIT_Q1_0 + 1;
    refused(frame_from(&h, 8), "unknown method");
    b.embeddings = UNIT_F32;
    memset(recipe, 'x', sizeof recipe);
    recipe[RECIPE_TEXT_MAX] = 0;
    b.recipe = recipe;
    refused(frame_from(&h, 8), "too long");
}

static void test_bad_moments(void **unused)
{
    Sbit__Header h = header_of(MSG_MOMENTS);
    Sbit__Moments b = SBIT__MOMENTS__INIT;
    (void)unused;
    h.moments = &b;
    refused(frame_from(&h, 4), "lanes do not exist");
    b.count = 2;
    b.first = 0x7fffffff;
    refused(frame_from(&h, 4), "lanes do not exist");
    b.first = 0;
    refused(frame_from(&h, 6), "not of floats");
    b.offset = 1ull << 62;
    refused(frame_from(&h, 4), "beyond any matrix");
}

static void test_bad_source(void **unused)
{
    Sbit__Header h = header_of(MSG_SOURCE);
    Sbit__Source b = SBIT__SOURCE__INIT;
    char text[WIRE_TEXT_MAX + 1];
    (void)unused;
    h.source = &b;
    b.tensors = 2;
    refused(frame_from(&h, 31), "do not fit its payload");
    b.tensors = 0x10000002; /* of 16 bytes each */
    refused(frame_from(&h, 32), "do not fit its payload");
    b.tensors = 2;
    b.rope_factors = true;
    b.rope_dim = 4;
    refused(frame_from(&h, 32), "do not fit its payload");
    b.rope_factors = false;
    b.rope_scaling = ROPE_LLAMA3 + 1;
    refused(frame_from(&h, 32), "scaling is unknown");
    b.rope_scaling = ROPE_PLAIN;
    b.rms_eps = NAN;
    refused(frame_from(&h, 32), "not finite");
    b.rms_eps = 0;
    b.arch = (char *)"sixteen letters!";
    refused(frame_from(&h, 32), "too long");
    b.arch = (char *)"llama";
    memset(text, 'x', sizeof text);
    text[WIRE_TEXT_MAX] = 0;
    b.path = text;
    refused(frame_from(&h, 32), "too long");
}

static struct frame fetch_frame(const uint64_t *words, size_t bytes)
{
    Sbit__Header h = header_of(MSG_FETCH);
    Sbit__Fetch b = SBIT__FETCH__INIT;
    h.fetch = &b;
    struct frame f = frame_from(&h, bytes);
    memcpy(f.bytes + f.size - bytes, words, bytes);
    return f;
}

static void test_bad_fetch(void **unused)
{
    static const uint64_t many[4] = {0, 1, 8, WIRE_PIECE_MAX}, none[2] = {8, 0};
    static const uint64_t large[2] = {0, WIRE_PIECE_MAX + 1}, far[2] = {1ull << 63, 1};
    Sbit__Header h = header_of(MSG_FETCHED);
    Sbit__Fetch b = SBIT__FETCH__INIT;
    (void)unused;
    refused(fetch_frame(many, 0), "not of ranges");
    refused(fetch_frame(many, 24), "not of ranges");
    refused(fetch_frame(many, 32), "too much at once");
    refused(fetch_frame(none, 16), "asks for nothing");
    refused(fetch_frame(large, 16), "or for too much");
    refused(fetch_frame(far, 16), "or for too much");
    h.fetched = &b;
    refused(frame_from(&h, WIRE_PIECE_MAX + 1), "too much at once");
    Sbit__Header keep = header_of(MSG_KEEP);
    Sbit__State state = SBIT__STATE__INIT;
    keep.keep = &state;
    refused(frame_from(&keep, WIRE_PIECE_MAX + 1), "more bytes than a piece has");
}

static void test_bad_measured(void **unused)
{
    Sbit__Header h = header_of(MSG_MEASURED);
    Sbit__Measured b = SBIT__MEASURED__INIT;
    Sbit__UnitDone done = SBIT__UNIT_DONE__INIT;
    (void)unused;
    double loss[UNIT_CHOICES] = {0};
    h.measured = &b;
    refused(frame_from(&h, 0), "another number of losses");
    b.loss = loss;
    b.n_loss = CODEBOOK_COUNT;
    refused(frame_from(&h, 0), "another number of losses");
    b.n_loss = UNIT_CHOICES;
    loss[3] = NAN;
    refused(frame_from(&h, 0), "not finite");
    loss[3] = 0;
    b.energy = INFINITY;
    refused(frame_from(&h, 0), "not finite");
    b.energy = -1;
    refused(frame_from(&h, 0), "negative");
    h.kind = MSG_UNIT_DONE;
    h.body_case = SBIT__HEADER__BODY_UNIT_DONE;
    h.unit_done = &done;
    done.final = NAN;
    refused(frame_from(&h, 0), "not finite");
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
        cmocka_unit_test(test_bad_assign),       cmocka_unit_test(test_bad_calib),
        cmocka_unit_test(test_bad_calib_header), cmocka_unit_test(test_bad_moments),
        cmocka_unit_test(test_bad_measured),     cmocka_unit_test(test_bad_source),
        cmocka_unit_test(test_bad_fetch),
    };
    return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
