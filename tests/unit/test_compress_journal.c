/* What a distilled compression keeps beside its output: what was recorded is there for the next run,
 * whatever happened to the ends of the files; what is damaged is made again; nothing stays when the
 * job is done. */
#include "common/mem.h"
#include "coordinator/compress_journal.h"
#include "tests/unit/test_files.h"

enum { UNITS = 4, MATRICES = 3, ROWS = 70, COLS = 48, STATE = 1000, PIECE = 300 };

#define OUTPUT SBIT_TEST_DIR "/out.gguf"
static const char output[] = OUTPUT, part[] = OUTPUT ".part", journal[] = OUTPUT ".journal",
                  aside[] = OUTPUT ".distill.part";

static const struct options fresh = {.method = "code", .embeddings = "q8_0", .bits = 2};
static const struct options resumed = {
    .method = "code", .embeddings = "q8_0", .bits = 2, .resume = true};
static const struct compress_calibration calibration = {7, 100, 10, "distill=1"};

/* One run of a job: three matrices of a block and the final norm. */
struct job {
    struct weights source;
    struct plan_unit units[UNITS];
    struct compress_result results[UNITS];
    struct compress_file file, aside;
    struct compress_journal j;
    struct loop loop;
    struct error e;
};

static void must(struct job *job, enum status status)
{
    if (status != OK)
        fail_msg("%s", job->e.text);
}

static void make_units(struct job *job)
{
    static const enum tensor_kind kinds[UNITS] = {KIND_Q, KIND_K, KIND_V, KIND_OUTPUT_NORM};
    for (uint32_t i = 0; i < UNITS; i++) {
        struct plan_unit *u = &job->units[i];
        bool vector = i == MATRICES;
        u->kind = kinds[i];
        u->block = vector ? UINT32_MAX : 0;
        u->vector = vector;
        u->rows = vector ? 1 : ROWS;
        u->cols = COLS;
        snprintf(u->name, sizeof u->name, vector ? "output_norm.weight" : "blk.0.matrix_%u.weight",
                 i);
        u->method = vector ? UNIT_F32 : UNIT_CODE;
        u->d = vector ? 0 : 4;
        must(job, form_of(&u->form, u->method, u->d, 0, u->rows, u->cols, vector, &job->e));
    }
}

static void describe(struct job *job, const struct options *o, bool distilled)
{
    struct compress_journal *j = &job->j;
    *job = (struct job){.source.path = (char *)"source", .loop.timeout_s = 1e12};
    make_units(job);
    must(job, gguf_output_create(&job->file.out, output, &job->e));
    job->file.units = job->aside.units = job->units;
    job->file.n = job->aside.n = UNITS;
    job->aside.state_bytes = STATE;
    j->options = o;
    j->source = &job->source;
    j->calibration = &calibration;
    j->file = &job->file;
    j->aside = distilled ? &job->aside : NULL;
    j->units = job->units;
    j->results = job->results;
    j->n = UNITS;
}

static void begin_file(struct job *job)
{
    struct compress_file *f = &job->file;
    must(job, mem_array(&f->first_tensor, UNITS, sizeof *f->first_tensor, "test", &job->e));
    for (uint32_t i = 0; i < UNITS; i++)
        for (uint32_t t = 0; t < job->units[i].form.n; t++) {
            const struct form_tensor *form = &job->units[i].form.tensor[t];
            char name[64];
            uint32_t index;
            snprintf(name, sizeof name, "tensor_%u_%u", i, t);
            must(job, gguf_output_add(f->out, name, form->dtype, form->dims, form->dim, &index,
                                      &job->e));
            if (t == 0)
                f->first_tensor[i] = index;
        }
    gguf_output_resume(f->out, compress_journal_parts(&job->j));
    must(job, gguf_output_begin(f->out, 0, &job->e));
}

/* A run up to where ranks would get their units. */
static void begin(struct job *job, const struct options *o)
{
    bool measured;
    describe(job, o, true);
    must(job, compress_journal_open(&job->j, &measured, &job->e));
    begin_file(job);
    if (!job->j.sealed)
        must(job, compress_file_begin_aside(&job->aside, job->j.target,
                                            compress_journal_parts_aside(&job->j), &job->e));
    must(job, compress_journal_begin(&job->j, &job->loop, &job->e));
}

static void end(struct job *job, enum status status)
{
    compress_journal_close(&job->j, status, &job->e);
    gguf_output_free(job->file.out);
    gguf_output_free(job->aside.out);
    free(job->file.first_tensor);
    free(job->aside.first_tensor);
}

static void fill(uint8_t *bytes, uint64_t size, uint32_t unit, uint32_t tensor, bool tuned)
{
    for (uint64_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(i * 7 + unit * 31 + tensor * 101 + tuned);
}

/* All parts of a unit come, into the file or, before it is tuned, the one aside. */
static void deliver(struct job *job, uint32_t i, bool tuned)
{
    struct compress_file *f = tuned ? &job->file : &job->aside;
    for (uint32_t t = 0; t < job->units[i].form.n; t++) {
        const struct form_tensor *form = &job->units[i].form.tensor[t];
        uint8_t *bytes = malloc(form->bytes);
        assert_non_null(bytes);
        fill(bytes, form->bytes, i, t, tuned);
        must(job, compress_file_part(f, i, form->suffix, 0, bytes, form->bytes, &job->e));
        free(bytes);
    }
    if (!tuned)
        job->results[i] = (struct compress_result){
            .error2 = 0.1 * (i + 1), .final = 1.0 / 3, .searched = true};
    job->results[i].done = tuned;
    must(job, compress_journal_step(&job->j, true, &job->e));
}

static void check_unit(const struct job *job, uint32_t i, bool searched)
{
    struct error e = {0};
    uint8_t stored[8192], expected[8192];
    assert_int_equal(job->results[i].searched, searched);
    assert_int_equal(job->j.searched.taken[i], searched);
    assert_false(job->results[i].done);
    for (uint32_t t = 0; searched && t < job->units[i].form.n; t++) {
        uint64_t size = job->units[i].form.tensor[t].bytes;
        assert_true(size <= sizeof stored);
        assert_int_equal(gguf_output_read(job->aside.out, job->aside.first_tensor[i] + t, 0,
                                          stored, size, &e), OK);
        fill(expected, size, i, t, false);
        assert_memory_equal(stored, expected, size);
    }
    if (searched)
        assert_true(job->results[i].error2 == 0.1 * (i + 1) && job->results[i].final == 1.0 / 3);
}

/* Leaves a job of which n matrices are searched, and so many of them tuned. */
static void leave(uint32_t n, uint32_t tuned)
{
    struct job job;
    unlink(part);
    unlink(journal);
    unlink(aside);
    begin(&job, &fresh);
    for (uint32_t i = 0; i < n; i++)
        deliver(&job, i, false);
    for (uint32_t i = 0; i < tuned; i++)
        deliver(&job, i, true);
    end(&job, ERR_IO);
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static void test_searched(void **state)
{
    struct job job;
    (void)state;
    leave(2, 0);
    begin(&job, &resumed);
    for (uint32_t i = 0; i < MATRICES; i++)
        check_unit(&job, i, i < 2);
    deliver(&job, 2, false);
    end(&job, ERR_INTERRUPTED);
    assert_non_null(strstr(job.e.text, "3 of 3 matrices are searched"));
    assert_non_null(strstr(job.e.text, "--resume"));
    begin(&job, &resumed);
    for (uint32_t i = 0; i < MATRICES; i++)
        check_unit(&job, i, true);
    end(&job, OK);
    assert_false(exists(journal) || exists(aside));
}

/* What is tuned is of use only when all of it is there; what was searched is not lost by it. */
static void test_tuned(void **state)
{
    struct job job;
    (void)state;
    leave(MATRICES, 2);
    begin(&job, &resumed);
    for (uint32_t i = 0; i < MATRICES; i++)
        check_unit(&job, i, true);
    for (uint32_t i = 0; i < UNITS; i++)
        deliver(&job, i, true);
    end(&job, ERR_IO);
    begin(&job, &resumed);
    for (uint32_t i = 0; i < UNITS; i++)
        assert_true(job.results[i].done);
    end(&job, OK);
}

/* The journal ends anywhere: as many matrices are searched as it has whole lines of. */
static void test_torn(void **state)
{
    struct job job;
    size_t size;
    (void)state;
    leave(MATRICES, 0);
    uint8_t *bytes = test_read(journal, &size);
    for (size_t cut = size; cut > 0; cut -= cut < 5 ? cut : 5) {
        uint32_t whole = 0;
        for (size_t i = 0; i + 27 < cut; i++)
            whole += memcmp(bytes + i, " searched ", 10) == 0 && memchr(bytes + i, '\n', cut - i);
        test_write(journal, bytes, cut);
        begin(&job, &resumed);
        for (uint32_t i = 0; i < MATRICES; i++)
            check_unit(&job, i, i < whole);
        end(&job, ERR_IO);
        if (whole == 0)
            break;
    }
    free(bytes);
}

/* A flipped bit anywhere in the file aside costs the matrix that it is in, if any. */
static void test_damage(void **state)
{
    struct job job;
    size_t size, lines, at = 0, lost = 0;
    (void)state;
    leave(MATRICES, 0);
    uint8_t *bytes = test_read(aside, &size), *text = test_read(journal, &lines);
    for (; at < size; at += 97) {
        bytes[at] ^= 4;
        test_write(aside, bytes, size);
        test_write(journal, text, lines);
        bytes[at] ^= 4;
        begin(&job, &resumed);
        uint32_t searched = 0;
        for (uint32_t i = 0; i < MATRICES; i++) {
            check_unit(&job, i, job.results[i].searched);
            searched += job.results[i].searched;
        }
        assert_true(searched >= MATRICES - 1);
        lost += MATRICES - searched;
        end(&job, ERR_IO);
    }
    assert_true(lost > size / 97 / 4);
    test_write(aside, bytes, size - 1);
    test_write(journal, text, lines);
    begin(&job, &resumed);
    for (uint32_t i = 0; i < MATRICES; i++)
        check_unit(&job, i, false);
    end(&job, ERR_IO);
    free(bytes);
    free(text);
}

/* Lines that are whole but say what cannot be. */
static void test_nonsense(void **state)
{
    static const char *const lines[] = {
        "searched 3",
        "searched 4 blk.0.matrix_0.weight 0 0x0p+0 0x0p+0 0x0p+0 0x0p+0 0x0p+0 0x0p+0 0x0p+0",
        "searched 1 blk.0.matrix_0.weight 0 0x0p+0 0x0p+0 0x0p+0 0x0p+0 0x0p+0 0x0p+0 0x0p+0",
        "searched 0 blk.0.matrix_0.weight 99 0x0p+0 0x0p+0 0x0p+0 0x0p+0 0x0p+0 0x0p+0 0x0p+0",
        "searched 0 blk.0.matrix_0.weight 0 0x0p+0 0x0p+0 0x0p+0 0x0p+0 0x0p+0 0x0p+0 0x0p+0 x",
        "tuning 2 7 0123456789abcdef",
        "tuning 0 0 0123456789abcdef",
        "tuning 0 7 0123456789abcdef x",
        "tuning 0",
        "searched 3 output_norm.weight 0 0x0p+0 0x0p+0 0x0p+0 0x0p+0 0x0p+0 0x0p+0 0x0p+0",
    };
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct job job;
        struct journal *j;
        bool measured;
        leave(1, 0);
        describe(&job, &resumed, true);
        must(&job, journal_open(&j, journal, &job.e));
        must(&job, journal_add(j, &job.e, "%s", lines[i]));
        must(&job, journal_commit(j, &job.e));
        journal_close(j);
        assert_int_equal(compress_journal_open(&job.j, &measured, &job.e), ERR_FORMAT);
        assert_non_null(strstr(job.e.text, "does not know"));
        end(&job, ERR_FORMAT);
        assert_true(exists(journal) && exists(aside));
    }
}

/* Nothing of another job is touched. */
static void test_others(void **state)
{
    struct job job;
    bool measured;
    size_t size;
    (void)state;
    leave(2, 0);
    describe(&job, &fresh, true);
    assert_int_equal(compress_journal_open(&job.j, &measured, &job.e), ERR_USAGE);
    assert_non_null(strstr(job.e.text, "2 of 3 matrices searched"));
    end(&job, ERR_USAGE);
    assert_true(exists(journal) && exists(aside) && exists(part));
    unlink(journal);
    unlink(part);
    test_write(aside, "mine", 4);
    describe(&job, &fresh, true);
    assert_int_equal(compress_journal_open(&job.j, &measured, &job.e), ERR_IO);
    assert_non_null(strstr(job.e.text, "out.gguf.distill.part is in the way"));
    end(&job, ERR_IO);
    uint8_t *bytes = test_read(aside, &size);
    assert_int_equal(size, 4);
    free(bytes);
    unlink(aside);
}

/* The first bytes of the state after so many steps come. */
static void keep(struct job *job, uint32_t step, uint64_t bytes)
{
    uint8_t state[STATE];
    fill(state, STATE, step, 0, true);
    for (uint64_t at = 0; at < bytes; at += PIECE) {
        struct msg_state m = {step, at};
        uint64_t n = bytes - at < PIECE ? bytes - at : PIECE;
        must(job, compress_journal_keep(&job->j, &m, state + at, n, &job->e));
    }
}

/* The next run goes on at that step. */
static void check_state(uint32_t step)
{
    uint8_t state[STATE], expected[STATE];
    struct job job;
    begin(&job, &resumed);
    assert_int_equal(compress_journal_steps(&job.j), step);
    fill(expected, STATE, step, 0, true);
    if (step > 0) {
        must(&job, compress_journal_state(&job.j, 0, state, PIECE, &job.e));
        must(&job, compress_journal_state(&job.j, PIECE, state + PIECE, STATE - PIECE, &job.e));
        assert_memory_equal(state, expected, STATE);
    }
    end(&job, ERR_IO);
    if (step > 0)
        assert_non_null(strstr(job.e.text, "steps of distillation are done"));
}

/* One that is not complete takes the place of the older one only. */
static void test_states(void **state)
{
    struct job job;
    (void)state;
    leave(MATRICES, 0);
    check_state(0);
    for (uint32_t step = 1; step < 6; step++) {
        begin(&job, &resumed);
        keep(&job, 10 * step, STATE);
        keep(&job, 10 * step + 5, step * 199);
        keep(&job, 10 * step + 6, STATE / 2);
        end(&job, ERR_INTERRUPTED);
        check_state(10 * step);
    }
    begin(&job, &resumed);
    keep(&job, 60, STATE);
    keep(&job, 70, STATE);
    keep(&job, 80, STATE);
    end(&job, ERR_IO);
    check_state(80);
    begin(&job, &resumed);
    end(&job, OK);
    assert_false(exists(journal) || exists(aside));
}

static void test_bad_pieces(void **state)
{
    static const uint8_t bytes[STATE + 1];
    struct job job;
    (void)state;
    leave(MATRICES, 0);
    begin(&job, &resumed);
    const struct msg_state start = {1, 0}, gap = {1, PIECE + 1}, more = {1, PIECE};
    must(&job, compress_journal_keep(&job.j, &start, bytes, PIECE, &job.e));
    assert_int_equal(compress_journal_keep(&job.j, &gap, bytes, 1, &job.e), ERR_PEER);
    assert_int_equal(compress_journal_keep(&job.j, &more, bytes, STATE, &job.e), ERR_PEER);
    end(&job, ERR_IO);
    check_state(0);
}

/* Damage to the newest state brings back the one before, to both the beginning. */
static void test_damaged_states(void **state)
{
    struct job job;
    size_t size, lines;
    uint32_t found[3] = {0};
    (void)state;
    leave(MATRICES, 0);
    begin(&job, &resumed);
    keep(&job, 10, STATE);
    keep(&job, 20, STATE);
    end(&job, ERR_IO);
    uint8_t *bytes = test_read(aside, &size), *text = test_read(journal, &lines);
    for (size_t at = 0; at < size; at += 53) {
        bytes[at] ^= 16;
        test_write(aside, bytes, size);
        test_write(journal, text, lines);
        bytes[at] ^= 16;
        begin(&job, &resumed);
        uint32_t steps = compress_journal_steps(&job.j);
        end(&job, ERR_IO);
        assert_true(steps == 10 || steps == 20);
        check_state(steps);
        found[steps / 10]++;
    }
    assert_true(found[1] >= STATE / 53 - 1 && found[2] > found[1]);
    memset(bytes, 0, size);
    test_write(aside, bytes, size);
    test_write(journal, text, lines);
    check_state(0);
    free(bytes);
    free(text);
}

/* Killed between its name and the end: the file aside is not opened any more, and goes. */
static void test_sealed(void **state)
{
    struct job job;
    (void)state;
    leave(MATRICES, 0);
    begin(&job, &resumed);
    for (uint32_t i = 0; i < UNITS; i++)
        deliver(&job, i, true);
    must(&job, gguf_output_seal(job.file.out, &job.e));
    must(&job, compress_journal_sealed(&job.j, &job.e));
    end(&job, ERR_INTERRUPTED);
    assert_true(exists(journal) && exists(aside));
    begin(&job, &resumed);
    assert_null(job.aside.out);
    must(&job, gguf_output_publish(job.file.out, &job.e));
    end(&job, OK);
    assert_true(exists(output));
    assert_false(exists(part) || exists(journal) || exists(aside));
    unlink(output);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_searched), cmocka_unit_test(test_tuned),
        cmocka_unit_test(test_torn),     cmocka_unit_test(test_damage),
        cmocka_unit_test(test_nonsense), cmocka_unit_test(test_others),
        cmocka_unit_test(test_states),   cmocka_unit_test(test_bad_pieces),
        cmocka_unit_test(test_sealed),   cmocka_unit_test(test_damaged_states),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
