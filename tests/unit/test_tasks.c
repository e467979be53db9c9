/* Multiple-choice questions: what their file may look like, what it may not, how question and
 * choice are joined, and accuracies computed by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/task_file.h"
#include "coordinator/task_score.h"

#define GOOD "{\"question\": \"Is it?\", \"choices\": [\"yes\", \"no\"], \"answer\": 1}"

static void parse(struct task_file *f, const char *text)
{
    struct error e = {0};
    if (task_file_parse(f, text, strlen(text), "t.jsonl", &e) != OK)
        fail_msg("%s: %s", text, e.text);
}

static void test_forms(void **state)
{
    (void)state;
    struct task_file f;
    parse(&f, "\xef\xbb\xbf" GOOD "\r\n \t\r\n\n"
              "{\"answer\": 2, \"id\": 7, \"choices\": [\"a\", \" b\", \"\\u00e4\"], "
              "\"question\": \"\"}");
    assert_int_equal(f.n_questions, 2);
    assert_int_equal(f.n_choices, 5);
    const struct task_question *q = f.questions;
    assert_true(q->line == 1 && q->first == 0 && q->n_choices == 2 && q->answer == 1);
    assert_string_equal(q->question, "Is it?");
    assert_string_equal(task_choice(q, 1), "no");
    q++;
    assert_true(q->line == 4 && q->first == 2 && q->n_choices == 3 && q->answer == 2);
    assert_string_equal(q->question, "");
    assert_int_equal(task_choice_bytes(q, 1), 1);
    assert_int_equal(task_choice_bytes(q, 2), 2);
    task_file_free(&f);
    parse(&f, GOOD);
    assert_int_equal(f.n_questions, 1);
    task_file_free(&f);
}

static void check_text(const char *question, const char *choice, const char *want)
{
    struct error e = {0};
    struct task_file f;
    char line[200], *text;
    snprintf(line, sizeof line,
             "{\"question\": \"%s\", \"choices\": [\"%s\", \"x\"], \"answer\": 0}", question,
             choice);
    parse(&f, line);
    assert_int_equal(task_text(&text, f.questions, 0, &e), OK);
    assert_string_equal(text, want);
    free(text);
    task_file_free(&f);
}

static void test_joint(void **state)
{
    (void)state;
    check_text("a dog", "ran.", "a dog ran.");
    check_text("a dog ", "ran.", "a dog ran.");
    check_text("a dog", " ran.", "a dog ran.");
    check_text("a dog ", " ran.", "a dog  ran.");
    check_text("a dog\\n", "ran.", "a dog\nran.");
    check_text("", "ran.", "ran.");
    check_text("a dog", "\\u00e4", "a dog \xc3\xa4");
}

/* The text is refused with a sentence that holds part. */
static void bad(const char *text, size_t size, const char *part)
{
    struct error e = {0};
    struct task_file f;
    assert_int_equal(task_file_parse(&f, text, size, "t.jsonl", &e), ERR_FORMAT);
    if (!strstr(e.text, part))
        fail_msg("%s: \"%s\" does not hold \"%s\"", text, e.text, part);
    task_file_free(&f);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"", "t.jsonl has no questions"},
        {"\xef\xbb\xbf\n \n", "t.jsonl has no questions"},
        {GOOD "\nhello\n", "t.jsonl, line 2 is not valid JSON"},
        {"\n\n" GOOD GOOD, "t.jsonl, line 3 is not valid JSON"},
        {"{\"question\": \"a", "t.jsonl, line 1 is not valid JSON"},
        {"{\"question\": \"a\", \"question\": \"b\"}", "line 1 is not valid JSON"},
        {"{\"question\": \"\xff\"}", "line 1 is not valid JSON"},
        {"[1, 2]", "line 1 is no JSON object"},
        {"{}", "\"question\" is missing"},
        {"{\"question\": 5}", "\"question\" is no text"},
        {"{\"question\": \"a\"}", "\"choices\" is missing"},
        {"{\"question\": \"a\", \"choices\": \"b\"}", "\"choices\" is no list"},
        {"{\"question\": \"a\", \"choices\": []}", "has 0 texts: give at least 2"},
        {"{\"question\": \"a\", \"choices\": [\"b\"]}", "has 1 text: give at least 2"},
        {"{\"question\": \"a\", \"choices\": [\"b\", 3]}", "choice 1 is no text"},
        {"{\"question\": \"a\", \"choices\": [\"\", \"b\"]}", "choice 0 is empty"},
        {"{\"question\": \"a\", \"choices\": [\"b\", \" \\n\"]}", "choice 1 is empty"},
        {"{\"question\": \"a\", \"choices\": [\"b\", \"c\"]}", "\"answer\" is missing"},
        {"{\"question\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": \"b\"}",
         "\"answer\" is no whole number: give the place of the right choice, 0 to 1"},
        {"{\"question\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 1.0}", "no whole number"},
        {"{\"question\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": true}", "no whole number"},
        {"{\"question\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 2}",
         "is 2 but there are 2"},
        {"{\"question\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": -1}", "is -1 but"},
        {"{\"question\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 99999999999999999999}",
         "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        bad(cases[i].text, strlen(cases[i].text), cases[i].part);
    bad("\0\0", 2, "line 1 is not valid JSON");
}

static void test_pick(void **state)
{
    (void)state;
    const double nll[4] = {6, 5, 9, 5};
    const uint32_t bytes[4] = {6, 2, 10, 5};
    assert_int_equal(task_pick(nll, NULL, 4), 1);  /* the first of equals */
    assert_int_equal(task_pick(nll, bytes, 4), 2); /* 1, 2.5, 0.9, 1 */
    assert_int_equal(task_pick(nll, bytes, 2), 0);
}

static void test_accuracy(void **state)
{
    (void)state;
    struct task_accuracy a = task_accuracy(3, 5);
    assert_true(fabs(a.share - 0.6) < 1e-15);
    /* Values 1, 1, 1, 0, 0: variance of the sample (3 * 0.16 + 2 * 0.36) / 4 = 0.3. */
    assert_true(fabs(a.error - sqrt(0.3 / 5)) < 1e-15);
    a = task_accuracy(1, 1);
    assert_true(a.share == 1 && isnan(a.error));
    a = task_accuracy(0, 2);
    assert_true(a.share == 0 && a.error == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),    cmocka_unit_test(test_joint),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_pick),
        cmocka_unit_test(test_accuracy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
