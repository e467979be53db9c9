/* Running slices: the same bits however the work is cut, the right values, and refusals of what
 * does not fit the job. The model is models/demo. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/tokenizer.h"
#include "kernels/kernels.h"
#include "tests/unit/naive.h"
#include "tests/unit/ring.h"

#define DEMO  SBIT_SOURCE_DIR "/models/demo"
#define COUNT 40

/* BOS and "Once upon a time, there was a little girl named Lily. She loved to play outside in the
 * ..." */
static const uint32_t story[COUNT] = {0,   406,  413, 261, 382, 47,  384, 285, 261, 377,
                                      438, 403,  326, 49,  327, 441, 267, 332, 580, 320,
                                      265, 1993, 49,  444, 336, 47,  349, 509, 261, 369,
                                      47,  782,  563, 49,  327, 285, 374, 386, 269, 431};
#define PROMPT 5 /* BOS, "Once upon a time" */

static const struct ring_setup one = {
    .path = DEMO, .ranks = 1, .threads = 1, .batch = 64, .context = 128, .sequences = 3};

/* Logits of the story from one rank, one thread, one micro-batch. */
static float *reference(uint32_t *vocab)
{
    struct ring r;
    ring_open(&r, &one);
    size_t bytes = (size_t)COUNT * r.vocab * sizeof(float);
    float *out = malloc(bytes);
    assert_non_null(out);
    memcpy(out, ring_logits(&r, story, COUNT, COUNT), bytes);
    *vocab = r.vocab;
    ring_close(&r);
    return out;
}

static void agrees_with_double_precision(void **state)
{
    (void)state;
    uint32_t vocab;
    struct error e = {0};
    struct weights *w;
    float *logits = reference(&vocab);
    assert_int_equal(weights_open(&w, DEMO, &e), OK);
    double *exact = naive_forward(w, story, COUNT);
    double distance = naive_distance(logits, exact, (size_t)COUNT * vocab);
    print_message("distance from double precision: %.2e\n", distance);
    assert_true(distance < 1e-3); /* keys and values are F16 */
    assert_true(distance > 0);
    free(exact);
    free(logits);
    weights_close(w);
}

static void same_bits_for_all_cuts(void **state)
{
    (void)state;
    static const uint32_t cuts[] = {1, 3, 7, COUNT};
    static const struct {
        int ranks;
        uint32_t blocks[RING_MAX];
    } rings[] = {{1, {0}}, {2, {0}}, {3, {0}}, {3, {0, 5, 3}}, {2, {7, 1}}};
    uint32_t vocab;
    float *expected = reference(&vocab);
    for (size_t i = 0; i < sizeof rings / sizeof *rings; i++) {
        for (uint32_t threads = 1; threads <= 2; threads++) {
            struct ring r;
            struct ring_setup setup = one;
            setup.ranks = rings[i].ranks;
            setup.threads = threads;
            memcpy(setup.blocks, rings[i].blocks, sizeof setup.blocks);
            ring_open(&r, &setup);
            for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++)
                assert_memory_equal(ring_logits(&r, story, COUNT, cuts[c]), expected,
                                    (size_t)COUNT * vocab * sizeof(float));
            ring_close(&r);
        }
    }
    free(expected);
}

static uint32_t best(const float *logits, uint32_t n)
{
    uint32_t id = 0;
    for (uint32_t i = 1; i < n; i++)
        if (logits[i] > logits[id])
            id = i;
    return id;
}

static void tells_the_known_story(void **state)
{
    (void)state;
    const char *expected = ", there was a little girl named Lily. She loved to play outside in the "
                           "sunshine. One day, she found a big, red ball. She was so happy and "
                           "wanted to play with it.";
    struct tokenizer *tokenizer;
    struct error e = {0};
    struct ring r;
    struct ring_setup setup = one;
    char text[4096] = "";
    if (tokenizer_open(&tokenizer, DEMO, &e) != OK)
        fail_msg("%s", e.text);
    setup.ranks = 2;
    ring_open(&r, &setup);
    ring_feed(&r, &(struct run){1, 0, PROMPT, 1}, 1, story);
    ring_wait(&r);
    for (uint32_t position = PROMPT; strlen(text) < strlen(expected); position++) {
        assert_int_equal(r.rows, 1);
        uint32_t id = best(r.logits, r.vocab);
        size_t size;
        const char *piece = tokenizer_piece(tokenizer, id, true, &size);
        strncat(text, piece, size);
        r.rows = 0;
        ring_feed(&r, &(struct run){1, position, 1, 1}, 1, &id);
        ring_wait(&r);
    }
    assert_string_equal(text, expected);
    ring_close(&r);
    tokenizer_free(tokenizer);
}

/* Two sequences in the same micro-batches, at different positions, give what each gives alone; so
 * does a slot that another sequence has used before. */
static void sequences_do_not_mix(void **state)
{
    (void)state;
    uint32_t vocab, tokens[COUNT];
    float *expected = reference(&vocab);
    struct ring r;
    struct ring_setup setup = one;
    setup.ranks = 2;
    ring_open(&r, &setup);
    for (uint32_t i = 0; i < COUNT; i++)
        tokens[i] = 1000 + i;
    ring_feed(&r, &(struct run){2, 0, COUNT, 0}, 1, tokens); /* fills slot 2 with other values */
    ring_feed(&r, &(struct run){0, 0, 10, 0}, 1, story);
    r.rows = 0;
    for (uint32_t i = 0; i < COUNT / 2; i++) {
        const struct run runs[] = {{2, i, 1, 1}, {0, 10 + i, 1, 1}};
        ring_feed(&r, runs, 2, (uint32_t[]){story[i], story[10 + i]});
    }
    ring_wait(&r);
    assert_int_equal(r.rows, COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t position = i % 2 ? 10 + i / 2 : i / 2;
        assert_memory_equal(r.logits + (size_t)i * vocab, expected + (size_t)position * vocab,
                            vocab * sizeof(float));
    }
    ring_close(&r);
    free(expected);
}

/* Only rows that want logits come back, in the order of the runs; none is an answer too. */
static void answers_what_was_asked(void **state)
{
    (void)state;
    uint32_t vocab;
    float *expected = reference(&vocab);
    for (int ranks = 1; ranks <= 3; ranks++) {
        struct ring r;
        struct ring_setup setup = one;
        setup.ranks = ranks;
        ring_open(&r, &setup);
        ring_feed(&r, &(struct run){0, 0, 4, 0}, 1, story);
        ring_wait(&r);
        assert_int_equal(r.rows, 0);
        const struct run runs[] = {{0, 4, 6, 2}, {1, 0, 5, 0}, {2, 0, 3, 1}};
        uint32_t tokens[14];
        memcpy(tokens, story + 4, 6 * sizeof *tokens);
        memcpy(tokens + 6, story, 5 * sizeof *tokens);
        memcpy(tokens + 11, story, 3 * sizeof *tokens);
        ring_feed(&r, runs, 3, tokens);
        ring_wait(&r);
        static const size_t positions[] = {8, 9, 2};
        assert_int_equal(r.rows, 3);
        for (size_t i = 0; i < 3; i++)
            assert_memory_equal(r.logits + i * vocab, expected + positions[i] * vocab,
                                vocab * sizeof(float));
        ring_close(&r);
    }
    free(expected);
}

static void counts_what_it_sends(void **state)
{
    (void)state;
    struct ring r;
    struct ring_setup setup = one;
    ring_open(&r, &setup);
    ring_logits(&r, story, COUNT, 10);
    assert_int_equal(r.loop[0]->stats.messages, 0); /* nothing leaves a single rank */
    assert_int_equal(r.loop[0]->stats.block_count, 8);
    ring_close(&r);
    setup.ranks = 2;
    ring_open(&r, &setup);
    ring_logits(&r, story, COUNT, 10);
    for (int i = 0; i < 2; i++) {
        const struct msg_stats *stats = &r.loop[i]->stats;
        assert_int_equal(stats->messages, 4);
        assert_int_equal(stats->sent_raw_bytes, COUNT * 128 * sizeof(float));
        assert_true(stats->sent_bytes > 0 && stats->sent_bytes <= stats->sent_raw_bytes);
        assert_true(stats->compute_s > 0);
    }
    ring_close(&r);
}

static void expect_refusal(const struct message *m, const char *words)
{
    struct ring r;
    struct error e = {0};
    ring_open(&r, &one);
    assert_int_equal(loop_send(r.loop[0], 0, m, &e), OK);
    assert_int_equal(ring_turns(&r, &e), ERR_PEER);
    if (!strstr(e.text, words))
        fail_msg("\"%s\" does not say \"%s\"", e.text, words);
    ring_close(&r);
}

static void refuses_bad_tokens(void **state)
{
    (void)state;
    static const struct {
        struct run run;
        uint32_t first_token, job;
        const char *words;
    } cases[] = {
        {{0, 128, 1, 1}, 0, 0, "beyond the context of 128"},
        {{0, 127, 2, 1}, 0, 0, "beyond the context of 128"},
        {{3, 0, 1, 1}, 0, 0, "sequence 3"},
        {{0, 0, 65, 1}, 0, 0, "65 rows"},
        {{0, 0, 1, 1}, 2048, 0, "the vocabulary has 2048"},
        {{0, 0, 1, 1}, 0, 1, "job 1"},
        {{0, 0, 1, 1}, 0, 7, "job 7"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t tokens[65] = {cases[i].first_token};
        struct message m = {.kind = MSG_TOKENS,
                            .payload = tokens,
                            .payload_bytes = cases[i].run.count * sizeof *tokens};
        m.tokens.job = cases[i].job;
        m.tokens.n_runs = 1;
        m.tokens.runs[0] = cases[i].run;
        expect_refusal(&m, cases[i].words);
    }
}

static void refuses_bad_activations(void **state)
{
    (void)state;
    static const struct {
        uint32_t stage, cols;
        const char *words;
    } cases[] = {{0, 64, "activations are 1 x 64"}, {2, 128, "stage 2"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float x[128] = {0};
        struct error e = {0};
        struct message m = {.kind = MSG_HIDDEN};
        uint8_t *payload;
        m.hidden.n_runs = 1;
        m.hidden.runs[0] = (struct run){0, 0, 1, 1};
        m.hidden.rows = 1;
        m.hidden.cols = cases[i].cols;
        m.hidden.stage = cases[i].stage;
        assert_int_equal(
            activation_pack(&m.hidden, x, WIRE_F32, false, &payload, &m.payload_bytes, &e), OK);
        m.payload = payload;
        expect_refusal(&m, cases[i].words);
        free(payload);
    }
}

static void refuses_bad_assignments(void **state)
{
    (void)state;
    static const struct {
        uint32_t blocks, next_rank, threads, batch;
        uint64_t hash_change;
        const char *words;
    } cases[] = {
        {9, 0, 1, 1, 0, "blocks 0 to 9"},    {8, 1, 1, 1, 0, "rank 1 of 1"},
        {8, 0, 0, 1, 0, "0 threads"},        {8, 0, 1, 0, 0, "0 rows"},
        {8, 0, 1, 1, 1, "another model at"},
    };
    struct weights *w;
    struct error e = {0};
    assert_int_equal(weights_open(&w, DEMO, &e), OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct message m = {.kind = MSG_ASSIGN};
        m.assign = (struct msg_assign){.path = DEMO,
                                       .model_hash = w->header_hash + cases[i].hash_change,
                                       .block_count = cases[i].blocks,
                                       .stages = 1,
                                       .next_rank = cases[i].next_rank,
                                       .has_head = true,
                                       .context = 16,
                                       .sequences = 1,
                                       .batch = cases[i].batch,
                                       .threads = cases[i].threads};
        expect_refusal(&m, cases[i].words);
    }
    weights_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_double_precision), cmocka_unit_test(same_bits_for_all_cuts),
        cmocka_unit_test(tells_the_known_story),        cmocka_unit_test(sequences_do_not_mix),
        cmocka_unit_test(answers_what_was_asked),       cmocka_unit_test(counts_what_it_sends),
        cmocka_unit_test(refuses_bad_tokens),           cmocka_unit_test(refuses_bad_activations),
        cmocka_unit_test(refuses_bad_assignments),
    };
    const char *problem = kernels_init(getenv("SBIT_CPU"));
    if (problem) {
        fprintf(stderr, "%s\n", problem);
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
