/* Parts of compressed matrices: any order, nothing beyond the form, and views that compute what the
 * bytes say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/codebook.h"
#include "common/mem.h"
#include "common/random_weights.h"
#include "tests/unit/test_files.h"
#include "worker/student.h"

#define SEED 4711u
enum { ROWS = 130, COLS = 256 };

static struct random_weights random_state = {SEED};

static float next(void)
{
    return (float)(random_weights_next(&random_state) >> 40) * 0x1p-24f - 0.5f;
}

/* Bytes of tensor i of the form that mean something. */
static uint8_t *tensor_bytes(const struct form_tensor *t)
{
    uint8_t *data = malloc(t->bytes);
    assert_non_null(data);
    if (strcmp(t->suffix, ".code_out") == 0 || strcmp(t->suffix, ".code_in") == 0)
        for (uint64_t j = 0; j < t->bytes / 2; j++)
            memcpy(data + 2 * j, &(uint16_t){f32_to_f16(1.0f + next())}, 2);
    else
        random_weights_fill(&random_state, t->dtype, COLS, data, t->bytes);
    return data;
}

/* Sends the tensor in three parts, the last first. */
static void send_parts(struct student_matrix *m, const struct form_tensor *t, const uint8_t *data)
{
    uint64_t a = t->bytes / 3, b = t->bytes / 2;
    struct error e = {0};
    test_ok(student_part(m, t->suffix, b, data + b, t->bytes - b, &e), &e);
    test_ok(student_part(m, t->suffix, 0, data, a, &e), &e);
    assert_false(student_complete(m));
    test_ok(student_part(m, t->suffix, a, data + a, b - a, &e), &e);
}

static float decoded(const struct student_matrix *m, uint8_t *const *sent, int r, int c)
{
    if (m->method != UNIT_CODE) {
        float row[COLS];
        uint64_t bytes = m->form.tensor[0].bytes / ROWS;
        dtype_to_f32(m->form.tensor[0].dtype, sent[0] + (uint64_t)r * bytes, COLS, row);
        return row[c];
    }
    int d = (int)m->d, groups = (COLS + d - 1) / d;
    uint8_t code = sent[0][(r / 64 * groups + c / d) * 64 + r % 64];
    int v = codebook_for(m->d)->vector[(code & 127) * d + c % d];
    uint16_t out, in = f32_to_f16(1.0f);
    memcpy(&out, sent[1] + 2 * r, 2);
    if (sent[2])
        memcpy(&in, sent[2] + 2 * c, 2);
    return f16_to_f32(out) * f16_to_f32(in) * (float)(code & 128 ? -v : v);
}

/* The product with a vector that is one at channel c, else zero: column c of the matrix. */
static void check_column(const struct student_matrix *m, uint8_t *const *sent, int c)
{
    static float x[COLS], y[ROWS];
    void *prepared;
    struct error e = {0};
    struct matrix view = student_view(m);
    assert_true(view.rows == ROWS && view.cols == COLS);
    test_ok(mem_array(&prepared, 1, act_bytes(&view), "test", &e), &e);
    memset(x, 0, sizeof x);
    x[c] = 1.0f;
    kernels.prepare[view.type](&view, x, prepared);
    kernels.product[view.type](&view, prepared, x, 1, 0, ROWS, y, ROWS);
    for (int r = 0; r < ROWS; r++) {
        float want = decoded(m, sent, r, c), off = y[r] - want;
        if (!(off <= 1e-3f && off >= -1e-3f))
            fail_msg("form %d, d %u, row %d, column %d: %g instead of %g", (int)m->method, m->d, r,
                     c, (double)y[r], (double)want);
    }
    free(prepared);
}

static void check_form(enum unit_method method, uint32_t d, bool in)
{
    struct student_matrix m = {0};
    struct error e = {0};
    uint8_t *sent[FORM_TENSORS_MAX] = {NULL};
    test_ok(student_open(&m, method, d, in, ROWS, COLS, &e), &e);
    assert_int_equal(m.form.n, method == UNIT_CODE ? 2 + in : 1);
    for (uint32_t i = m.form.n; i-- > 0;) {
        assert_false(student_complete(&m));
        sent[i] = tensor_bytes(&m.form.tensor[i]);
        send_parts(&m, &m.form.tensor[i], sent[i]);
        assert_memory_equal(m.part[i], sent[i], m.form.tensor[i].bytes);
    }
    assert_true(student_complete(&m));
    check_column(&m, sent, 0);
    check_column(&m, sent, 77);
    check_column(&m, sent, COLS - 1);
    for (int i = 0; i < FORM_TENSORS_MAX; i++)
        free(sent[i]);
    student_close(&m);
    student_close(&m);
}

static void all_forms(void **state)
{
    static const enum unit_method methods[] = {UNIT_Q8_0, UNIT_Q4_0, UNIT_Q2_0, UNIT_Q1_0,
                                               UNIT_F16,  UNIT_F32,  UNIT_BF16};
    (void)state;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        check_form(methods[i], 0, false);
    for (size_t i = 0; i < CODEBOOK_COUNT; i++) {
        check_form(UNIT_CODE, codebook_table[i].d, false);
        check_form(UNIT_CODE, codebook_table[i].d, true);
    }
}

static void refusals(void **state)
{
    (void)state;
    struct student_matrix m = {0};
    struct error e = {0};
    uint8_t data[64] = {0};
    test_refused(student_open(&m, UNIT_SIGN, 0, false, ROWS, COLS, &e), ERR_UNSUPPORTED, &e,
                 "form 1");
    memset(&e, 0, sizeof e);
    test_refused(student_open(&m, UNIT_CODE, 7, false, ROWS, COLS, &e), ERR_UNSUPPORTED, &e,
                 "no codebook");
    memset(&e, 0, sizeof e);
    test_refused(student_open(&m, UNIT_Q8_0, 0, false, ROWS, 40, &e), ERR_UNSUPPORTED, &e, "32");
    assert_false(student_complete(&m));
    memset(&e, 0, sizeof e);
    test_ok(student_open(&m, UNIT_CODE, 8, false, ROWS, COLS, &e), &e);
    test_refused(student_part(&m, ".code_in", 0, data, 2, &e), ERR_PEER, &e, ".code_in");
    memset(&e, 0, sizeof e);
    test_refused(student_part(&m, ".weight", 0, data, 2, &e), ERR_PEER, &e, ".weight");
    memset(&e, 0, sizeof e);
    test_refused(student_part(&m, ".code_out", 2 * ROWS - 2, data, 4, &e), ERR_PEER, &e,
                 "that has 260");
    memset(&e, 0, sizeof e);
    test_refused(student_part(&m, ".code_out", UINT64_MAX, data, 4, &e), ERR_PEER, &e, "that has");
    memset(&e, 0, sizeof e);
    for (uint64_t at = 0; at + 64 <= 256; at += 64)
        test_ok(student_part(&m, ".code_out", at, data, 64, &e), &e);
    test_refused(student_part(&m, ".code_out", 0, data, 5, &e), ERR_PEER, &e, "twice");
    assert_false(student_complete(&m));
    student_close(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_forms), cmocka_unit_test(refusals)};
    const char *problem = kernels_init(getenv("SBIT_CPU"));
    if (problem) {
        fprintf(stderr, "%s\n", problem);
        return 1;
    }
    printf("seed %u\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
