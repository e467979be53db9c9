/* The state of distilling as one stream, and that both sides of it count the same bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/calib_memory.h"
#include "tests/random.h"
#include "worker/tune_state.h"
#include "worker/tuned_model.h"

enum { PIECES = 9, MOST = 40, ROUNDS = 2000 };

struct pieces { /* some empty; guards between them */
    uint8_t bytes[PIECES][MOST + 1];
    size_t size[PIECES];
    struct tune_state state;
};

static void open_pieces(struct pieces *p)
{
    struct error e = {0};
    assert_int_equal(tune_state_create(&p->state, PIECES, &e), OK);
    memset(p->bytes, 0xee, sizeof p->bytes);
    for (int i = 0; i < PIECES; i++) {
        p->size[i] = random_next() % (MOST + 1);
        tune_state_add(&p->state, p->bytes[i], p->size[i]);
    }
}

/* Set in cuts at random places, it is the same bytes in the same order, and got so. */
static void test_stream(void **state)
{
    (void)state;
    random_state = 1;
    for (int round = 0; round < ROUNDS; round++) {
        uint8_t in[PIECES * MOST], out[PIECES * MOST];
        struct pieces p;
        open_pieces(&p);
        size_t bytes = p.state.bytes, at = 0;
        for (size_t i = 0; i < bytes; i++)
            in[i] = (uint8_t)(random_next() | 1);
        while (at < bytes) {
            size_t n = 1 + random_next() % (bytes - at);
            tune_state_set(&p.state, at, n, in + at);
            at += n;
        }
        at = 0;
        for (int i = 0; i < PIECES; i++) {
            assert_memory_equal(p.bytes[i], in + at, p.size[i]);
            assert_int_equal(p.bytes[i][p.size[i]], 0xee);
            at += p.size[i];
        }
        assert_int_equal(at, bytes);
        for (at = 0; at < bytes; at += 7)
            tune_state_get(&p.state, at, bytes - at < 7 ? bytes - at : 7, out + at);
        assert_memory_equal(out, in, bytes);
        tune_state_free(&p.state);
    }
}

/* The coordinator makes room for what the worker will send. */
static void test_parameters(void **state)
{
    static const struct model_config configs[] = {
        {.block_count = 3, .hidden = 64, .ffn = 176, .heads = 4, .kv_heads = 4, .head_dim = 16},
        {.block_count = 7, .hidden = 96, .ffn = 250, .heads = 6, .kv_heads = 2, .head_dim = 32},
        {.block_count = 1, .hidden = 40, .ffn = 24, .heads = 5, .kv_heads = 1, .head_dim = 8},
    };
    (void)state;
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++)
        assert_int_equal(calib_parameters(&configs[i]), tuned_model_size(&configs[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_stream),
                                       cmocka_unit_test(test_parameters)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
