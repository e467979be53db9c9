/* Recipes: every name, its range, and that the text of a recipe gives it back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/recipe.h"

static void test_default(void **unused)
{
    struct recipe r;
    struct error e = {0};
    (void)unused;
    assert_int_equal(recipe_parse(&r, NULL, &e), OK);
    assert_true(r.qep == recipe_default.qep && r.descent == recipe_default.descent);
    assert_int_equal(recipe_parse(&r, "", &e), OK);
    assert_true(r.feedback && r.measure && r.columns && r.rounds >= 1);
}

static void test_words(void **unused)
{
    struct recipe r;
    struct error e = {0};
    (void)unused;
    assert_int_equal(recipe_parse(&r, "qep=0.5,descent=7,feedback=0,damp=1e-2,distill=3", &e), OK);
    assert_true(r.qep == 0.5 && r.descent == 7 && !r.feedback && r.damp == 0.01 && r.distill == 3);
    assert_true(r.measure == recipe_default.measure && r.rounds == recipe_default.rounds);
    assert_int_equal(recipe_parse(&r, "plain", &e), OK);
    assert_true(r.qep == 0 && !r.feedback && r.descent == 0 && r.joint == 0 && !r.measure && !r.columns);
    assert_int_equal(r.rounds, 1);
}

static void test_round_trip(void **unused)
{
    static const char text[] = "qep=0.125,feedback=0,rounds=3,descent=9,joint=4,columns=0,measure=0,"
                               "shrink=0.25,damp=0.0625,distill=2,rate=0.003,recode=0.05,batch=8";
    struct recipe r, again;
    struct error e = {0};
    char out[RECIPE_TEXT_MAX];
    (void)unused;
    assert_int_equal(recipe_parse(&r, text, &e), OK);
    assert_string_equal(recipe_text(&r, out), text);
    /* Words in any order, and the last one of a name counts. */
    assert_int_equal(recipe_parse(&again,
                                  "rate=0.003,batch=8,damp=1,distill=2,damp=0.0625,shrink=0.25,"
                                  "measure=0,columns=0,joint=4,descent=9,rounds=3,feedback=0,"
                                  "qep=0.125,recode=0.05",
                                  &e),
                     OK);
    assert_string_equal(recipe_text(&again, out), text);
    /* The longest text of each number still fits. */
    assert_int_equal(recipe_parse(&r,
                                  "qep=0.123456789,shrink=0.0123456789,damp=1.23456789e-05,"
                                  "rate=1.23456789e-05,recode=0.0123456789,rounds=100,descent=100,joint=100,"
                                  "distill=1000",
                                  &e),
                     OK);
    assert_true(strlen(recipe_text(&r, out)) < RECIPE_TEXT_MAX - 32);
    assert_int_equal(recipe_parse(&again, out, &e), OK);
    char second[RECIPE_TEXT_MAX];
    assert_string_equal(recipe_text(&again, second), out);
}

static void test_refusals(void **unused)
{
    static const struct {
        const char *text, *phrase;
    } cases[] = {
        {"speed=1", "\"speed=1\" is no part of a recipe"},
        {"speed=1", "qep, feedback, rounds"},
        {"qep", "no part of a recipe"},
        {"qep=1,", "\"\" is no part of a recipe"},
        {",", "no part of a recipe"},
        {"=1", "no part of a recipe"},
        {"plain,qep=1", "\"plain\" is no part"},
        {"qep=1.5", "qep takes a number from 0 to 1"},
        {"qep=-0.1", "qep takes a number"},
        {"qep=", "qep takes a number"},
        {"qep= 1", "qep takes a number"},
        {"qep=nan", "qep takes a number"},
        {"qep=0x1", "qep takes a number"},
        {"qep=1e999", "qep takes a number"},
        {"qep=1qep=1", "qep takes a number"},
        {"qep=0.0000000000000000000000000000000000000000000001", "qep takes a number"},
        {"rounds=0", "rounds takes a whole number from 1 to 100"},
        {"descent=1.5", "descent takes a whole number"},
        {"feedback=yes", "feedback takes a whole number from 0 to 1"},
        {"damp=0", "damp takes a number from 1e-06"},
    };
    (void)unused;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct recipe r;
        struct error e = {0};
        if (recipe_parse(&r, cases[i].text, &e) != ERR_USAGE || !strstr(e.text, cases[i].phrase))
            fail_msg("\"%s\": \"%s\" does not say \"%s\"", cases[i].text, e.text, cases[i].phrase);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_default),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("recipe", tests, NULL, NULL);
}
