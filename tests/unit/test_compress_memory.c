/* The plan of memory: blocks as large as fit, the same for any ranks and threads; what is told of
 * it, as text; and limits that are too small, refused with what is missing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/compress_memory.h"
#include "tests/unit/test_files.h"

#define MIB ((uint64_t)1 << 20)

enum { RANKS = 4, UNITS = 14 };

/* Two blocks in the shape of a model of 7 billion weights. */
static struct model_config shape(void)
{
    return (struct model_config){.arch = "llama",
                                 .block_count = 2,
                                 .hidden = 4096,
                                 .ffn = 11008,
                                 .heads = 32,
                                 .kv_heads = 32,
                                 .head_dim = 128,
                                 .vocab = 32000,
                                 .context = 4096,
                                 .rope_dim = 128};
}

struct setting {
    struct weights source;
    struct plan_unit units[UNITS];
    struct recipe recipe;
    struct calibration text;
    struct msg_hello hello[RANKS];
    struct options options;
    struct cluster cluster;
    struct memory_job job;
};

static void fill_units(struct setting *s)
{
    static const enum tensor_kind kinds[UNITS / 2] = {KIND_Q,  KIND_K,    KIND_V,   KIND_O,
                                                      KIND_UP, KIND_GATE, KIND_DOWN};
    struct plan_settings settings = {"code", "q8_0", 1, 0};
    struct plan_totals totals;
    struct error e = {0};
    for (int i = 0; i < UNITS; i++) {
        struct plan_unit *u = &s->units[i];
        u->kind = kinds[i % 7];
        u->block = (uint32_t)i / 7;
        model_shape(&s->source.config, u->kind, &u->rows, &u->cols);
        model_base_name(u->name, u->kind, u->block);
        strcat(u->name, ".weight");
    }
    test_ok(plan_compression(s->units, UNITS, &settings, &totals, &e), &e);
}

/* Ranks 0 and 1 on one host, each other on its own; 8 cores and available bytes each. */
static void open_setting(struct setting *s, uint64_t available, uint64_t ram)
{
    memset(s, 0, sizeof *s);
    struct error e = {0};
    s->source.config = shape();
    fill_units(s);
    test_ok(recipe_parse(&s->recipe, NULL, &e), &e);
    s->text = (struct calibration){.windows = 256, .context = 512, .tokens = 131072};
    for (int r = 0; r < RANKS; r++) {
        snprintf(s->hello[r].host, sizeof s->hello[r].host, "pi%d", r < 2 ? 1 : r);
        s->hello[r].cores = 8;
        s->hello[r].available_bytes = available;
    }
    s->options.ram = ram;
    s->cluster = (struct cluster){.options = &s->options, .size = RANKS, .hello = s->hello};
    s->job = (struct memory_job){&s->source, s->units, UNITS, false, &s->recipe, &s->text, 1, NULL};
}

static struct rank_memory *plan(const struct setting *s)
{
    struct rank_memory *m;
    struct error e = {0};
    test_ok(compress_memory(&m, &s->cluster, &s->job, &e), &e);
    return m;
}

static void blocks_are_even(void **state)
{
    (void)state;
    assert_int_equal(calib_block_columns(11008, 0), 11008);
    assert_int_equal(calib_block_columns(11008, 11008 * 11008), 11008);
    assert_int_equal(calib_block_columns(11008, 11008 * 11008 - 1), 5632);
    assert_int_equal(calib_block_columns(11008, 5632 * 5632 + 5376 * 5376), 5632);
    assert_int_equal(calib_block_columns(11008, 5632 * 5632 + 5376 * 5376 - 1), 3840);
    assert_int_equal(calib_block_columns(11008, 1), 256);
    assert_int_equal(calib_block_columns(300, 89999), 256);
    assert_int_equal(calib_block_columns(300, 90000), 300);
    assert_int_equal(calib_block_columns(100, 1), 100);
}

static struct calib_job job_of(const struct model_config *config)
{
    return (struct calib_job){.config = config,
                              .context = 512,
                              .text_tokens = 131072,
                              .rank_tokens = 131072,
                              .threads = 2,
                              .cross = true,
                              .feedback = true,
                              .source_bytes = 172 * MIB,
                              .student_bytes = 100 * MIB};
}

/* With more memory the blocks are no smaller, and what is chosen fits. */
static void more_memory_larger_blocks(void **state)
{
    struct model_config config = shape();
    struct calib_job job = job_of(&config);
    struct calib_memory m;
    uint32_t before = 0;
    (void)state;
    for (uint64_t ram = 900 * MIB; ram < 7000 * MIB; ram += 100 * MIB) {
        uint64_t floats;
        assert_true(calib_memory_fit(&job, ram, &floats));
        uint32_t width = calib_block_columns(config.ffn, floats);
        job.threads = CALIB_USUAL_THREADS;
        calib_memory_need(&m, &job, floats, true);
        assert_true(m.total <= ram);
        assert_true(width >= before);
        before = width;
    }
    assert_int_equal(before, config.ffn);
    assert_int_equal(m.columns, 0);
}

/* Moments that fit stay full where others do not. */
static void products_on_their_own(void **state)
{
    struct model_config config = shape();
    struct calib_job job = job_of(&config);
    uint64_t floats;
    (void)state;
    assert_true(calib_memory_fit(&job, 2048 * MIB, &floats));
    assert_true(calib_block_columns(config.ffn, floats) < config.ffn);
    assert_int_equal(calib_block_columns(config.hidden, floats), config.hidden);
}

/* Threads, ranks and their tokens have no say in the blocks, which change the result. */
static void blocks_depend_on_ram_alone(void **state)
{
    struct model_config config = shape();
    struct calib_job job = job_of(&config);
    uint64_t floats, other;
    (void)state;
    assert_true(calib_memory_fit(&job, 2048 * MIB, &floats));
    job.threads = 64;
    job.rank_tokens = 8192;
    assert_true(calib_memory_fit(&job, 2048 * MIB, &other));
    assert_true(floats > 0);
    assert_int_equal(floats, other);
}

/* A square of all inputs of down is 462 MiB: five pairs of nodes are in memory at one time. */
static void full_moments_are_counted(void **state)
{
    struct model_config config = shape();
    struct calib_job job = job_of(&config);
    struct calib_memory m;
    uint64_t square = (uint64_t)11008 * 11008 * 4;
    (void)state;
    calib_memory_need(&m, &job, 0, false);
    assert_true(m.moments >= 10 * square && m.moments < 10 * square + 100 * MIB);
    assert_int_equal(m.activations, 2ull * 131072 * (4096 + 11008) * 4);
    assert_true(m.total > m.moments + m.activations);
    job.cross = false;
    calib_memory_need(&m, &job, 0, true);
    assert_int_equal(m.moments, 5 * square);
}

/* What the measuring pass goes back through: all of it where moments are full, less where they are not. */
static void samples_depend_on_ram_alone(void **state)
{
    struct model_config config = shape();
    struct calib_samples s = calib_samples(&config, 512, 0);
    struct calib_job job = job_of(&config);
    struct calib_memory full, scarce;
    (void)state;
    assert_true(s.lanes == 16 && s.rows == 512);
    s = calib_samples(&config, 512, 1);
    assert_true(s.lanes == 16 && s.rows == 128);
    s = calib_samples(&config, 100, 1);
    assert_true(s.lanes == 16 && s.rows == 100);
    config.block_count = 32;
    s = calib_samples(&config, 512, 0);
    assert_true(s.lanes == 1 && s.rows == 512);
    job.measure = true;
    job.back_bytes = 400 * MIB;
    calib_memory_need(&full, &job, 0, true);
    calib_memory_need(&scarce, &job, 1 << 22, true);
    uint64_t states = 512ull * 4096 * 33 * 4; /* before each block, and a gradient */
    assert_true(full.sampled >= states && full.sampled < states + 16 * MIB);
    assert_true(scarce.sampled < full.sampled / 3);
    assert_true(full.back > 400 * MIB + scarce.back / 3 && scarce.back > 400 * MIB);
    job.measure = false;
    calib_memory_need(&full, &job, 0, true);
    assert_true(full.sampled == 0 && full.back == 0);
}

static void ram_is_kept_on_all_ranks(void **state)
{
    static const uint64_t limits[] = {1024 * MIB, 2048 * MIB, 16384 * MIB};
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct setting s;
        open_setting(&s, 1 << 20, limits[i]);
        struct rank_memory *m = plan(&s);
        for (int r = 0; r < RANKS; r++) {
            assert_true(m[r].need.total <= limits[i]);
            assert_int_equal(m[r].moment_floats, m[0].moment_floats);
            assert_int_equal(m[r].threads, r < 2 ? 4 : 8);
            assert_int_equal(m[r].need.on_disk, i < 2);
        }
        assert_int_equal(m[0].moment_floats == 0, i == 2);
        free(m);
    }
}

/* Without a limit moments are full, and hosts with little memory spill. */
static void hosts_decide_about_spilling_alone(void **state)
{
    struct setting s;
    (void)state;
    open_setting(&s, 16384 * MIB, 0);
    struct rank_memory *m = plan(&s);
    for (int r = 0; r < RANKS; r++) {
        assert_int_equal(m[r].moment_floats, 0);
        assert_int_equal(m[r].need.on_disk, r < 2); /* which share what is available */
    }
    free(m);
    open_setting(&s, 0, 0); /* unknown */
    m = plan(&s);
    assert_false(m[0].need.on_disk);
    free(m);
}

static void told_as_text(void **state)
{
    static const char *const want[] = {
        "at most 1865 of 2048 MiB: second moments 1569 (in blocks of at most 3840 columns)",
        "4 threads", "windows 154", "activations 3776 on disk", "compressed 24"};
    struct setting s;
    char text[512];
    (void)state;
    open_setting(&s, 0, 2048 * MIB);
    struct rank_memory *m = plan(&s);
    compress_memory_text(&m[0], text);
    print_message("%s\n", text);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        if (!strstr(text, want[i]))
            fail_msg("\"%s\" is missing", want[i]);
    free(m);
}

static void too_little_is_refused(void **state)
{
    struct setting s;
    struct rank_memory *m;
    struct error e = {0};
    (void)state;
    open_setting(&s, 0, 300 * MIB);
    assert_int_equal(compress_memory(&m, &s.cluster, &s.job, &e), ERR_LIMIT);
    print_message("%s\n", e.text);
    double missing, need;
    assert_int_equal(sscanf(e.text, "--ram 300 MiB is %lf MiB too little", &missing), 1);
    const char *end = strstr(e.text, "a rank needs ");
    assert_non_null(end);
    assert_int_equal(sscanf(end, "a rank needs %lf MiB", &need), 1);
    assert_true(need - missing - 300 < 2 && need - missing - 300 > -2);
    s.options.ram = (uint64_t)(need + 1) * MIB; /* as it says */
    memset(&e, 0, sizeof e);
    test_ok(compress_memory(&m, &s.cluster, &s.job, &e), &e);
    free(m);
}

/* A rank without a copy of the source keeps more of it, a block in the backward pass; the moments, on which the result
 * depends, are those of all others. */
static void copies_do_not_change_moments(void **state)
{
    bool missing[RANKS] = {false, false, true, false};
    struct setting s;
    char text[512];
    struct error e = {0};
    (void)state;
    open_setting(&s, 0, 2048 * MIB);
    s.job.measure = true;
    struct rank_memory *with = plan(&s);
    s.job.missing = missing;
    struct rank_memory *without = plan(&s);
    for (int r = 0; r < RANKS; r++) {
        assert_int_equal(with[r].moment_floats, without[r].moment_floats);
        assert_true(without[r].need.total <= 2048 * MIB);
    }
    assert_int_equal(with[2].need.sent, 0);
    assert_int_equal(without[0].need.sent, 12 * MIB); /* two pieces on their way and one in work */
    assert_int_equal(without[1].need.sent, 0);
    assert_true(without[2].need.sent >= 8 * MIB);
    assert_non_null(strstr(compress_memory_text(&without[2], text), "source sent 8,"));
    free(with);
    free(without);
    /* A head that would not fit beside the rest. */
    struct tensor head = {.name = (char *)"output.weight", .bytes = 2048 * MIB};
    struct rank_memory *none;
    s.source.tensors = &head;
    s.source.n_tensors = 1;
    test_refused(compress_memory(&none, &s.cluster, &s.job, &e), ERR_LIMIT, &e,
                 "too little for rank 2, which gets the source from rank 0");
    s.job.missing = NULL;
    memset(&e, 0, sizeof e);
    test_ok(compress_memory(&none, &s.cluster, &s.job, &e), &e);
    free(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_even),
        cmocka_unit_test(more_memory_larger_blocks),
        cmocka_unit_test(products_on_their_own),
        cmocka_unit_test(blocks_depend_on_ram_alone),
        cmocka_unit_test(full_moments_are_counted),
        cmocka_unit_test(ram_is_kept_on_all_ranks),
        cmocka_unit_test(samples_depend_on_ram_alone),
        cmocka_unit_test(hosts_decide_about_spilling_alone),
        cmocka_unit_test(told_as_text),
        cmocka_unit_test(too_little_is_refused),
        cmocka_unit_test(copies_do_not_change_moments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
