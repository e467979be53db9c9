/* Element types: geometry, conversions (all 65536 half floats), refusals. */
#include "common/dtype.h"

#include <math.h>

#include "tests/unit/test_files.h"

static void test_geometry(void **state)
{
    struct error e = {0};
    uint64_t bytes;
    (void)state;
    assert_int_equal(dtype_row_bytes(DTYPE_F32, 5, &bytes, &e), OK);
    assert_int_equal(bytes, 20);
    assert_int_equal(dtype_row_bytes(DTYPE_Q8_0, 64, &bytes, &e), OK);
    assert_int_equal(bytes, 68);
    assert_int_equal(dtype_row_bytes(DTYPE_Q4_0, 64, &bytes, &e), OK);
    assert_int_equal(bytes, 36);
    assert_int_equal(dtype_row_bytes(DTYPE_Q1_0, 256, &bytes, &e), OK);
    assert_int_equal(bytes, 36);
    assert_string_equal(dtype_info(DTYPE_BF16)->name, "BF16");
    assert_null(dtype_info(12));
    assert_null(dtype_info(UINT32_MAX));
}

static void test_geometry_refused(void **state)
{
    struct error e = {0};
    uint64_t bytes;
    (void)state;
    test_refused(dtype_row_bytes(12, 256, &bytes, &e), ERR_UNSUPPORTED, &e, "12");
    memset(&e, 0, sizeof e);
    test_refused(dtype_row_bytes(DTYPE_Q8_0, 172, &bytes, &e), ERR_FORMAT, &e, "172");
    memset(&e, 0, sizeof e);
    test_refused(dtype_row_bytes(DTYPE_F32, UINT64_MAX / 2, &bytes, &e), ERR_FORMAT, &e,
                 "overflow");
}

/* The value by definition, with ldexp. */
static double f16_value(uint16_t h)
{
    int exponent = (h >> 10) & 31, fraction = h & 0x3ff;
    double v = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return h & 0x8000 ? -v : v;
}

static void test_f16_all(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = f16_to_f32((uint16_t)h);
        if ((h & 0x7c00) == 0x7c00) {
            assert_true((h & 0x3ff) ? isnan(f) : isinf(f));
            assert_true(isnan(f) == isnan(f16_to_f32(f32_to_f16(f))));
            continue;
        }
        assert_true((double)f == f16_value((uint16_t)h));
        assert_int_equal(f32_to_f16(f), h);
    }
}

/* Halfway between two neighbours goes to the even one, a hair beside it to the nearer. */
static void test_f16_rounding(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) {
        float low = f16_to_f32((uint16_t)h), high = f16_to_f32((uint16_t)(h + 1));
        float middle = low + (high - low) / 2;
        assert_int_equal(f32_to_f16(middle), h % 2 ? h + 1 : h);
        assert_int_equal(f32_to_f16(nextafterf(middle, 0)), h);
        assert_int_equal(f32_to_f16(nextafterf(middle, 1e6f)), h + 1);
        assert_int_equal(f32_to_f16(-middle), 0x8000 | (h % 2 ? h + 1 : h));
    }
    assert_int_equal(f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(f32_to_f16(1e-30f), 0);
}

static void test_bf16(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = bf16_to_f32((uint16_t)h);
        if (isnan(f))
            assert_true(isnan(bf16_to_f32(f32_to_bf16(f))));
        else
            assert_int_equal(f32_to_bf16(f), h);
    }
    assert_int_equal(f32_to_bf16(1.00390625f), 0x3f80); /* 1 + 2^-8: a tie, down to even */
    assert_int_equal(f32_to_bf16(1.01171875f), 0x3f82); /* 1 + 3 * 2^-8: a tie, up to even */
    assert_int_equal(f32_to_bf16(3.4028235e38f), 0x7f80);
}

static void test_blocks(void **state)
{
    uint8_t block[1 + 34] = {0}; /* at an odd address */
    uint16_t scale = f32_to_f16(0.5f);
    float out[128];
    (void)state;
    memcpy(block + 1, &scale, 2);
    block[3] = 0xff; /* Q8_0: -1; Q4_0: nibbles 15 and 15; Q1_0: eight times +d; Q2_0: four times +2 d */
    block[4] = 0x81; /* Q8_0: -127; Q4_0: 1 and 8; Q1_0: + - - - - - - +; Q2_0: 0 -d -d d */
    dtype_to_f32(DTYPE_Q8_0, block + 1, 32, out);
    assert_true(out[0] == -0.5f && out[1] == -63.5f && out[2] == 0 && out[31] == 0);
    dtype_to_f32(DTYPE_Q4_0, block + 1, 32, out);
    assert_true(out[0] == 3.5f && out[16] == 3.5f && out[1] == -3.5f && out[17] == 0 &&
                out[2] == -4);
    dtype_to_f32(DTYPE_Q1_0, block + 1, 128, out);
    assert_true(out[0] == 0.5f && out[7] == 0.5f && out[8] == 0.5f && out[9] == -0.5f);
    assert_true(out[15] == 0.5f && out[16] == -0.5f && out[127] == -0.5f);
    dtype_to_f32(DTYPE_Q2_0, block + 1, 64, out);
    assert_true(out[0] == 1 && out[3] == 1 && out[4] == 0 && out[5] == -0.5f && out[7] == 0.5f);
    assert_true(out[8] == -0.5f && out[63] == -0.5f);
    dtype_to_f32(DTYPE_I8, block + 3, 2, out);
    assert_true(out[0] == -1 && out[1] == -127);
}

static void test_plain(void **state)
{
    uint8_t bytes[9];
    const float values[2] = {1.5f, -3.25f};
    uint16_t half[2] = {f32_to_f16(1.5f), f32_to_f16(-3.25f)};
    uint16_t brain[2] = {f32_to_bf16(1.5f), f32_to_bf16(-3.25f)};
    float out[2];
    (void)state;
    memcpy(bytes + 1, values, 8);
    dtype_to_f32(DTYPE_F32, bytes + 1, 2, out);
    assert_memory_equal(out, values, 8);
    memcpy(bytes + 1, half, 4);
    dtype_to_f32(DTYPE_F16, bytes + 1, 2, out);
    assert_memory_equal(out, values, 8);
    memcpy(bytes + 1, brain, 4);
    dtype_to_f32(DTYPE_BF16, bytes + 1, 2, out);
    assert_memory_equal(out, values, 8);
    dtype_to_f32(DTYPE_F32, bytes, 0, out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_geometry), cmocka_unit_test(test_geometry_refused),
        cmocka_unit_test(test_f16_all),  cmocka_unit_test(test_f16_rounding),
        cmocka_unit_test(test_bf16),     cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_plain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
