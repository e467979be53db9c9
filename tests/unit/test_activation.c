/* Payloads of hidden states: lossless f32, rounding of f16 and q8, damaged and hostile payloads. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <xxhash.h>

#include "common/dtype.h"
#include "common/wire.h"

enum { SEED = 11, ROWS = 7, COLS = 173 };

static float input[ROWS * COLS], output[ROWS * COLS];

/* Values like activations: mostly small, some outliers. */
static void fill_input(void)
{
    srand(SEED);
    for (size_t i = 0; i < ROWS * COLS; i++) {
        float x = ((float)rand() / (float)RAND_MAX - 0.5f) * 2;
        input[i] = i % 97 == 0 ? 300 * x : x;
    }
}

/* Packs rows x cols of x and makes the message that would arrive. */
static struct message packed(const float *x, uint32_t rows, uint32_t cols, enum wire_type type,
                             bool raw)
{
    struct message m = {.kind = MSG_HIDDEN};
    struct error e = {0};
    m.hidden.rows = rows;
    m.hidden.cols = cols;
    if (activation_pack(&m.hidden, x, type, raw, &m.bytes, &m.payload_bytes, &e) != OK)
        fail_msg("%s", e.text);
    m.payload = m.bytes;
    return m;
}

static void test_f32_lossless(void **unused)
{
    (void)unused;
    fill_input();
    memset(&input[3], 0xff, 4); /* a NaN, whose bits must survive too */
    input[4] = -0.0f;
    input[5] = INFINITY;
    for (int raw = 0; raw < 2; raw++) {
        struct error e = {0};
        struct message m = packed(input, ROWS, COLS, WIRE_F32, raw);
        assert_int_equal(m.hidden.type, WIRE_F32);
        assert_int_equal(m.hidden.raw_bytes, sizeof input);
        memset(output, 0, sizeof output);
        assert_int_equal(activation_unpack(&m, output, &e), OK);
        assert_memory_equal(input, output, sizeof input);
        assert_true(raw ? m.hidden.codec == CODEC_RAW : m.payload_bytes < sizeof input);
        message_release(&m);
    }
}

static void test_raw_overrides_type(void **unused)
{
    (void)unused;
    fill_input();
    struct message m = packed(input, ROWS, COLS, WIRE_Q8, true);
    assert_int_equal(m.hidden.type, WIRE_F32);
    assert_memory_equal(m.payload, input, sizeof input);
    message_release(&m);
}

static void test_incompressible(void **unused)
{
    (void)unused;
    srand(SEED);
    for (size_t i = 0; i < ROWS * COLS; i++) {
        uint32_t bits = (uint32_t)rand() * 2654435761u ^ (uint32_t)rand() << 16;
        memcpy(&input[i], &bits, 4);
    }
    struct error e = {0};
    struct message m = packed(input, ROWS, COLS, WIRE_F32, false);
    assert_int_equal(m.hidden.codec, CODEC_RAW);
    assert_int_equal(m.payload_bytes, sizeof input);
    assert_int_equal(activation_unpack(&m, output, &e), OK);
    assert_memory_equal(input, output, sizeof input);
    message_release(&m);
}

static void test_f16(void **unused)
{
    struct error e = {0};
    (void)unused;
    fill_input();
    struct message m = packed(input, ROWS, COLS, WIRE_F16, false);
    assert_int_equal(m.hidden.raw_bytes, sizeof input / 2);
    assert_int_equal(activation_unpack(&m, output, &e), OK);
    for (size_t i = 0; i < ROWS * COLS; i++)
        assert_true(output[i] == f16_to_f32(f32_to_f16(input[i])));
    message_release(&m);
}

static void test_q8(void **unused)
{
    struct error e = {0};
    (void)unused;
    fill_input();
    memset(input, 0, 32 * sizeof *input); /* a block of zeros has no scale */
    struct message m = packed(input, ROWS, COLS, WIRE_Q8, false);
    assert_int_equal(m.hidden.raw_bytes, ROWS * (COLS + 2 * 6));
    assert_int_equal(activation_unpack(&m, output, &e), OK);
    for (size_t r = 0; r < ROWS; r++)
        for (size_t c = 0; c < COLS; c++) {
            size_t first = c / 32 * 32, last = first + 32 < COLS ? first + 32 : COLS;
            float largest = 0, x = input[r * COLS + c];
            for (size_t i = first; i < last; i++)
                largest = fmaxf(largest, fabsf(input[r * COLS + i]));
            /* half a level, and the rounding of the scale */
            assert_true(fabsf(output[r * COLS + c] - x) <= largest * (0.5f / 127 + 0.001f));
        }
    message_release(&m);
}

/* A row's values after the hop do not depend on the rows that travelled with it. */
static void test_rows_alone(void **unused)
{
    (void)unused;
    fill_input();
    for (int type = WIRE_F32; type <= WIRE_Q8; type++) {
        struct error e = {0};
        float alone[COLS];
        struct message m = packed(input, ROWS, COLS, (enum wire_type)type, false);
        assert_int_equal(activation_unpack(&m, output, &e), OK);
        message_release(&m);
        for (size_t r = 0; r < ROWS; r++) {
            m = packed(input + r * COLS, 1, COLS, (enum wire_type)type, false);
            assert_int_equal(activation_unpack(&m, alone, &e), OK);
            assert_memory_equal(alone, output + r * COLS, sizeof alone);
            message_release(&m);
        }
    }
}

static void test_unfit_values(void **unused)
{
    static const float bad[] = {NAN, INFINITY, 70000};
    (void)unused;
    for (int type = WIRE_F16; type <= WIRE_Q8; type++)
        for (size_t i = 0; i < 3; i++) {
            struct msg_hidden h = {.rows = 1, .cols = 1};
            struct error e = {0};
            uint8_t *payload;
            size_t bytes;
            assert_int_equal(
                activation_pack(&h, &bad[i], (enum wire_type)type, false, &payload, &bytes, &e),
                ERR_LIMIT);
            assert_null(payload);
        }
}

static void expect_refused(struct message *m, const char *phrase)
{
    struct error e = {0};
    m->peer = 2;
    assert_int_equal(activation_unpack(m, output, &e), ERR_PEER);
    if (!strstr(e.text, "rank 2") || !strstr(e.text, phrase))
        fail_msg("\"%s\" does not say \"%s\"", e.text, phrase);
}

static void test_damage(void **unused)
{
    (void)unused;
    fill_input();
    struct message m = packed(input, ROWS, COLS, WIRE_F32, false);
    assert_int_equal(m.hidden.codec, CODEC_PLANES_LZ4);
    m.bytes[m.payload_bytes / 2] ^= 1;
    expect_refused(&m, "damaged");
    /* The hash is right, the stream is not. */
    m.hidden.hash = XXH3_64bits(m.payload, m.payload_bytes - 10);
    m.payload_bytes -= 10;
    expect_refused(&m, "LZ4");
    /* A stream that unpacks to less than it states. */
    m.payload_bytes = 5;
    memcpy(m.bytes, "\x40zzzz", 5);
    m.hidden.hash = XXH3_64bits(m.payload, m.payload_bytes);
    expect_refused(&m, "LZ4");
    m.hidden.raw_bytes--;
    expect_refused(&m, "shape");
    message_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f32_lossless),
        cmocka_unit_test(test_raw_overrides_type),
        cmocka_unit_test(test_incompressible),
        cmocka_unit_test(test_f16),
        cmocka_unit_test(test_q8),
        cmocka_unit_test(test_rows_alone),
        cmocka_unit_test(test_unfit_values),
        cmocka_unit_test(test_damage),
    };
    print_message("seed %d\n", SEED);
    return cmocka_run_group_tests_name("activation", tests, NULL, NULL);
}
