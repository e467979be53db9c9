/* The command line: defaults, every kind of value, and sentences for everything that is not
 * allowed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/options.h"

#define MAX_WORDS 32

/* Parses a line of words separated by single spaces; the words live until the next call. */
static enum status parse(struct options *o, const char *line, struct error *e)
{
    static char copy[1024];
    static char *words[MAX_WORDS];
    int n = 0;
    assert_true(strlen(line) < sizeof copy);
    strcpy(copy, line);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) {
        assert_true(n + 1 < MAX_WORDS);
        words[n++] = word;
    }
    words[n] = NULL;
    *e = (struct error){0};
    return options_parse(o, n, words, e);
}

static void good(struct options *o, const char *line)
{
    struct error e;
    enum status status = parse(o, line, &e);
    if (status != OK)
        fail_msg("%s: %s", line, e.text);
}

/* The line is refused as wrong usage, with a sentence that holds part. */
static void bad(const char *line, const char *part)
{
    struct options o;
    struct error e;
    assert_int_equal(parse(&o, line, &e), ERR_USAGE);
    if (!strstr(e.text, part))
        fail_msg("%s: \"%s\" does not hold \"%s\"", line, e.text, part);
}

static void test_defaults(void **state)
{
    (void)state;
    struct options o;
    good(&o, "sbit run m.gguf");
    assert_int_equal(o.command, CMD_RUN);
    assert_string_equal(o.model, "m.gguf");
    assert_null(o.prompt);
    assert_true(o.n_predict == -1 && o.batch == 64 && o.threads == 0 && o.context == 0);
    assert_true(o.temp == 0.8 && o.top_k == 40 && o.top_p == 0.95 && o.min_p == 0.05);
    assert_true(o.repeat_penalty == 1 && !o.has_seed && !o.ignore_eos && !o.stats);
    assert_true(o.wire == WIRE_F32 && o.kv == CACHE_F16 && o.timeout == 60);
    good(&o, "sbit compress src -o out.gguf");
    assert_string_equal(o.method, "code");
    assert_string_equal(o.embeddings, "q8_0");
    assert_true(!o.has_bits && o.outliers == 0.02 && o.shard_bytes == 0);
    assert_true(o.calib.n == 0 && o.calib_tokens == 131072 && o.calib_context == 0 && !o.recipe);
    assert_true(options_calibrated(&o));
}

static void test_calibration(void **state)
{
    (void)state;
    struct options o;
    good(&o, "sbit compress src -o out.gguf --calib a --calib=b --calib-tokens 16 --calib-ctx 2 "
             "--recipe plain --method q1_0 --html page");
    assert_true(o.calib.n == 2 && o.calib_tokens == 16 && o.calib_context == 2);
    assert_string_equal(o.calib.at[1], "b");
    assert_string_equal(o.recipe, "plain");
    assert_string_equal(o.html, "page");
    assert_true(options_calibrated(&o));
    good(&o, "sbit compress src -o out.gguf --calib none");
    assert_false(options_calibrated(&o));
    good(&o, "sbit compress src -o out.gguf --method sign");
    assert_false(options_calibrated(&o));
    good(&o, "sbit compress src -o out.gguf --method sign --calib none");
    bad("sbit compress src -o o --calib none --calib a", "exclude each other");
    bad("sbit compress src -o o --calib a --calib none", "exclude each other");
    bad("sbit compress src -o o --method sign --calib a", "sign is never calibrated");
    bad("sbit compress src -o o --method sign --recipe plain", "method sign has none");
    bad("sbit compress src -o o --calib none --calib-tokens 99", "leave --calib none out");
    bad("sbit compress src -o o --method q2_0 --calib none", "q2_0 needs a calibration text");
    bad("sbit compress src -o o --calib-tokens 15", "16 to 16777216");
    bad("sbit compress src -o o --calib 1 --calib 2 --calib 3 --calib 4 --calib 5 --calib 6 "
        "--calib 7 --calib 8 --calib 9",
        "8 times at most");
}

static void test_values(void **state)
{
    (void)state;
    struct options o;
    good(&o, "sbit run --temp=0 -n 12 m --top-k 7 --seed 18446744073709551615 --stop a --stop b "
             "--wire q8 --kv q8 --ignore-eos --ctx 2 -p -x");
    assert_true(o.temp == 0 && o.n_predict == 12 && o.top_k == 7 && o.seed == UINT64_MAX);
    assert_true(o.has_seed && o.stop.n == 2 && o.wire == WIRE_Q8 && o.ignore_eos && o.context == 2);
    assert_true(o.kv == CACHE_Q8);
    assert_string_equal(o.stop.at[1], "b");
    assert_string_equal(o.prompt, "-x");
    assert_string_equal(o.model, "m");
    good(&o, "sbit compress s --bits 2.5 --output o --shard-size 3G");
    assert_true(o.bits == 2.5 && o.has_bits && o.shard_bytes == UINT64_C(3) << 30);
    good(&o, "sbit compress s --method sign -o o --outliers 0.05 --shard-size=512M");
    assert_string_equal(o.method, "sign");
    assert_true(o.outliers == 0.05 && o.shard_bytes == UINT64_C(512) << 20);
    good(&o, "sbit compress s -o o --shard-size 1P");
    assert_true(o.shard_bytes == UINT64_C(1) << 50);
    good(&o, "sbit run -- -m");
    assert_string_equal(o.model, "-m");
    good(&o, "sbit eval m --text t --against r --json j");
    assert_string_equal(o.against, "r");
}

static void test_help(void **state)
{
    (void)state;
    struct options o;
    good(&o, "sbit --help");
    assert_true(o.command == CMD_HELP && o.help_for == CMD_HELP);
    good(&o, "sbit help eval");
    assert_true(o.command == CMD_HELP && o.help_for == CMD_EVAL);
    good(&o, "sbit run --help");
    assert_true(o.command == CMD_HELP && o.help_for == CMD_RUN);
    good(&o, "sbit --version");
    assert_int_equal(o.command, CMD_VERSION);
}

static void test_unknown(void **state)
{
    (void)state;
    bad("sbit", "no command");
    bad("sbit rum m", "did you mean run?");
    bad("sbit nonsense", "there are compress, run");
    bad("sbit help nonsense", "unknown command");
    bad("sbit run m --tmp 1", "did you mean --temp?");
    bad("sbit run m --bits 1", "unknown option --bits");
    bad("sbit run m -z", "unknown option -z");
    bad("sbit run m --stats=yes", "takes no value");
    bad("sbit run m -n", "needs a value");
    bad("sbit run a b", "\"b\" follows \"a\"");
    bad("sbit run", "no MODEL given");
    bad("sbit compress", "no SRC given");
    bad("sbit compress a", "-o FILE is missing");
    bad("sbit eval m", "--text FILE or --tasks FILE is missing");
    bad("sbit eval m --text a --tasks b", "--text and --tasks exclude each other");
    bad("sbit run m -p a -f b", "exclude each other");
    bad("sbit compress a -o b --method sign --bits 1", "--bits belongs to --method code");
}

static void test_bad_values(void **state)
{
    (void)state;
    bad("sbit compress a -o b --bits 0.4", "out of range: 0.5 to 16 ");
    bad("sbit compress a -o b --bits 16.1", "out of range: 0.5 to 16 ");
    bad("sbit compress a -o b --bits nan", "takes a number");
    bad("sbit compress a -o b --bits 1x", "takes a number");
    bad("sbit compress a -o b --bits 0x1", "takes a number");
    bad("sbit compress a -o b --method best", "code, sign, q8_0, q4_0, q2_0 or q1_0");
    bad("sbit compress a -o b --shard-size 5X", "size such as 500M");
    bad("sbit compress a -o b --shard-size 300K", "out of range: 1M to 1P is");
    bad("sbit compress a -o b --shard-size 18446744073709551615G", "out of range");
    bad("sbit run m --top-p 1.01", "out of range: 0 to 1");
    bad("sbit run m --temp -1", "out of range");
    bad("sbit run m --temp inf", "takes a number");
    bad("sbit run m --ctx 1", "out of range: 2 to");
    bad("sbit run m --ctx 4294967298", "out of range");
    bad("sbit run m --threads 0", "out of range");
    bad("sbit run m --threads two", "takes a whole number");
    bad("sbit run m --seed -1", "takes a whole number");
    bad("sbit run m --seed 18446744073709551616", "takes a whole number");
    bad("sbit run m -n -2", "out of range: -1 to");
    bad("sbit run m -n 1.5", "takes a whole number");
    bad("sbit run m --wire f64", "f32, f16 or q8");
    bad("sbit run m --stop 1 --stop 2 --stop 3 --stop 4 --stop 5 --stop 6 --stop 7 --stop 8 --stop "
        "9",
        "8 times at most");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),    cmocka_unit_test(test_values),
        cmocka_unit_test(test_calibration), cmocka_unit_test(test_help),
        cmocka_unit_test(test_unknown),     cmocka_unit_test(test_bad_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
