/* Parses the command line by the table in options_table.c. Knows words and numbers, not what they
 * are for. */
#include "coordinator/options.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/options_table.h"

static const char size_units[] = "KMGTP"; /* powers of 1024 */

struct parser {
    struct options *o;
    const struct command_rule *command;
    int argc, next;
    char **argv;
};

static void set_defaults(struct options *o)
{
    *o = (struct options){
        .method = "code",
        .bits = 1,
        .outliers = 0.02,
        .embeddings = "q8_0",
        .calib_tokens = 131072,
        .n_predict = -1,
        .temp = 0.8,
        .top_k = 40,
        .top_p = 0.95,
        .min_p = 0.05,
        .repeat_penalty = 1,
        .shape = "tinyllama-1.1b",
        .prompt_tokens = 512,
        .decode_tokens = 128,
        .batch = 64,
        .wire = WIRE_F32,
        .kv = CACHE_F16,
        .timeout = 60,
    };
}

/* Edit distance of two short words, capped by their length: for "did you mean". */
static size_t word_distance(const char *a, const char *b)
{
    enum { LONGEST = 31 };
    size_t n = strlen(b), row[LONGEST + 1];
    if (n > LONGEST)
        return SIZE_MAX;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[n];
}

static enum status unknown_option(const struct parser *p, const char *word, struct error *e)
{
    const char *nearest = NULL;
    size_t least = 3; /* more than two letters apart is another word */
    for (const struct option_rule *r = option_rules; r->name; r++) {
        size_t d = word_distance(word, r->name);
        if ((r->commands & 1u << p->command->command) && d < least && d < strlen(r->name)) {
            least = d;
            nearest = r->name;
        }
    }
    if (nearest)
        return error_set(e, ERR_USAGE, "unknown option --%s: did you mean --%s? See sbit %s --help",
                         word, nearest, p->command->name);
    return error_set(e, ERR_USAGE, "unknown option --%s; see sbit %s --help", word,
                     p->command->name);
}

static enum status bad_value(const struct parser *p, const struct option_rule *r, const char *text,
                             const char *wanted, struct error *e)
{
    return error_set(e, ERR_USAGE, "--%s takes %s, not \"%s\"; see sbit %s --help", r->name, wanted,
                     text, p->command->name);
}

/* A limit as the user would write it: "1M" for sizes. */
static const char *limit_text(const struct option_rule *r, double value, char out[32])
{
    size_t unit = 0;
    double v = value;
    while (r->kind == OPTION_SIZE && unit < strlen(size_units) && v >= 1024 && fmod(v, 1024) == 0) {
        v /= 1024;
        unit++;
    }
    snprintf(out, 32, "%.10g%.*s", v, unit > 0, unit > 0 ? &size_units[unit - 1] : "");
    return out;
}

static enum status check_range(const struct parser *p, const struct option_rule *r,
                               const char *text, double value, struct error *e)
{
    char low[32], high[32];
    FAIL_IF(!(value >= r->min && value <= r->max), e, ERR_USAGE,
            "--%s %s is out of range: %s to %s is allowed; see sbit %s --help", r->name, text,
            limit_text(r, r->min, low), limit_text(r, r->max, high), p->command->name);
    return OK;
}

static enum status parse_real(const struct parser *p, const struct option_rule *r, const char *text,
                              struct error *e)
{
    char *end;
    double v = strtod(text, &end);
    /* strtod also takes "inf", "nan", hexadecimal and leading space. */
    if (!*text || *end || strspn(text, "0123456789+-.eE") != strlen(text) || !isfinite(v))
        return bad_value(p, r, text, "a number", e);
    TRY(check_range(p, r, text, v, e));
    *(double *)((char *)p->o + r->offset) = v;
    return OK;
}

/* Digits only, below 2^64. */
static bool parse_digits(const char *text, size_t n, uint64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9' || __builtin_mul_overflow(*out, 10u, out) ||
            __builtin_add_overflow(*out, (uint64_t)(text[i] - '0'), out))
            return false;
    }
    return n > 0;
}

static enum status parse_whole(const struct parser *p, const struct option_rule *r,
                               const char *text, struct error *e)
{
    uint64_t v;
    bool negative = r->kind == OPTION_I64 && *text == '-';
    if (!parse_digits(text + negative, strlen(text + negative), &v))
        return bad_value(p, r, text, "a whole number", e);
    if (r->kind != OPTION_U64) /* a seed is any 64-bit number */
        TRY(check_range(p, r, text, negative ? -(double)v : (double)v, e));
    void *field = (char *)p->o + r->offset;
    if (r->kind == OPTION_U32)
        *(uint32_t *)field = (uint32_t)v;
    else if (r->kind == OPTION_I64)
        *(int64_t *)field = negative ? -(int64_t)v : (int64_t)v;
    else
        *(uint64_t *)field = v;
    return OK;
}

static enum status parse_size(const struct parser *p, const struct option_rule *r, const char *text,
                              struct error *e)
{
    size_t n = strlen(text);
    const char *unit = n ? strchr(size_units, text[n - 1]) : NULL;
    uint64_t v;
    if (!parse_digits(text, unit ? n - 1 : n, &v))
        return bad_value(p, r, text, "a size such as 500M or 4G", e);
    uint64_t factor = unit ? UINT64_C(1024) << 10 * (unit - size_units) : 1;
    TRY(check_range(p, r, text, (double)v * (double)factor, e));
    *(uint64_t *)((char *)p->o + r->offset) = v * factor;
    return OK;
}

static enum status parse_choice(const struct parser *p, const struct option_rule *r,
                                const char *text, struct error *e)
{
    char wanted[64] = "";
    for (int i = 0; r->choices[i]; i++) {
        if (!strcmp(text, r->choices[i])) {
            void *field = (char *)p->o + r->offset;
            if (r->kind == OPTION_WIRE)
                *(enum wire_type *)field = (enum wire_type)i;
            else if (r->kind == OPTION_CACHE)
                *(enum cache_type *)field = (enum cache_type)i;
            else
                *(const char **)field = r->choices[i];
            return OK;
        }
        size_t used = strlen(wanted);
        snprintf(wanted + used, sizeof wanted - used, "%s%s",
                 !i                  ? ""
                 : r->choices[i + 1] ? ", "
                                     : " or ",
                 r->choices[i]);
    }
    return bad_value(p, r, text, wanted, e);
}

static enum status parse_list(const struct parser *p, const struct option_rule *r, const char *text,
                              struct error *e)
{
    struct word_list *list = (struct word_list *)((char *)p->o + r->offset);
    size_t most = sizeof list->at / sizeof list->at[0];
    FAIL_IF(list->n == most, e, ERR_USAGE,
            "--%s may be given %zu times at most; see sbit %s --help", r->name, most,
            p->command->name);
    if (!*text)
        return bad_value(p, r, text, "some text", e);
    list->at[list->n++] = text;
    return OK;
}

static enum status parse_value(const struct parser *p, const struct option_rule *r,
                               const char *text, struct error *e)
{
    switch (r->kind) {
    case OPTION_FLAG:
        *(bool *)((char *)p->o + r->offset) = true;
        break;
    case OPTION_STRING:
        *(const char **)((char *)p->o + r->offset) = text;
        break;
    case OPTION_LIST:
        TRY(parse_list(p, r, text, e));
        break;
    case OPTION_CHOICE:
    case OPTION_WIRE:
    case OPTION_CACHE:
        TRY(parse_choice(p, r, text, e));
        break;
    case OPTION_REAL:
        TRY(parse_real(p, r, text, e));
        break;
    case OPTION_SIZE:
        TRY(parse_size(p, r, text, e));
        break;
    case OPTION_U32:
    case OPTION_U64:
    case OPTION_I64:
        TRY(parse_whole(p, r, text, e));
        break;
    }
    if (r->given_offset)
        *(bool *)((char *)p->o + r->given_offset) = true;
    return OK;
}

/* The rule of "--name", "--name=value" or "-x" for this command; *value points behind '='. */
static const struct option_rule *find_rule(const struct parser *p, const char *word,
                                           const char **value)
{
    const char *name = word + 2, *equals = strchr(word, '=');
    size_t n = word[1] != '-' ? 0 : equals ? (size_t)(equals - name) : strlen(name);
    *value = n && equals ? equals + 1 : NULL;
    for (const struct option_rule *r = option_rules; r->name; r++) {
        bool match = n ? strlen(r->name) == n && !memcmp(r->name, name, n)
                       : r->letter && word[1] == r->letter && !word[2];
        if (match && r->commands & 1u << p->command->command)
            return r;
    }
    return NULL;
}

static enum status parse_option(struct parser *p, const char *word, struct error *e)
{
    const char *value;
    const struct option_rule *r = find_rule(p, word, &value);
    if (!r && word[1] == '-') {
        char name[32];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(word + 2, "="), word + 2);
        return unknown_option(p, name, e);
    }
    FAIL_IF(!r, e, ERR_USAGE, "unknown option %s; see sbit %s --help", word, p->command->name);
    FAIL_IF(r->kind == OPTION_FLAG && value, e, ERR_USAGE,
            "--%s takes no value; see sbit %s --help", r->name, p->command->name);
    if (r->kind != OPTION_FLAG && !value) {
        FAIL_IF(p->next == p->argc, e, ERR_USAGE, "%s needs a value (%s); see sbit %s --help", word,
                r->value, p->command->name);
        value = p->argv[p->next++];
    }
    return parse_value(p, r, value, e);
}

static enum status parse_positional(struct parser *p, const char *word, struct error *e)
{
    FAIL_IF(!p->command->argument, e, ERR_USAGE,
            "\"%s\" is one word too many; see sbit %s --help", word, p->command->name);
    FAIL_IF(p->o->model, e, ERR_USAGE, "one %s only, but \"%s\" follows \"%s\"; see sbit %s --help",
            p->command->argument, word, p->o->model, p->command->name);
    FAIL_IF(!*word, e, ERR_USAGE, "the %s is an empty name; see sbit %s --help",
            p->command->argument, p->command->name);
    p->o->model = word;
    return OK;
}

static bool no_calibration(const struct options *o)
{
    return o->calib.n > 0 && !strcmp(o->calib.at[0], "none");
}

bool options_calibrated(const struct options *o)
{
    return strcmp(o->method, "sign") && !no_calibration(o);
}

/* What compress says of its calibration. */
static enum status check_calibration(const struct options *o, struct error *e)
{
    bool sign = !strcmp(o->method, "sign");
    for (uint32_t i = 0; i < o->calib.n; i++)
        FAIL_IF(o->calib.n > 1 && !strcmp(o->calib.at[i], "none"), e, ERR_USAGE,
                "--calib none and --calib FILE exclude each other; see sbit compress --help");
    FAIL_IF(sign && o->calib.n > 0 && !no_calibration(o), e, ERR_USAGE,
            "method sign is never calibrated: leave --calib out, or take --method q1_0");
    FAIL_IF(no_calibration(o) && (!strcmp(o->method, "q2_0") || !strcmp(o->method, "q1_0")), e,
            ERR_USAGE, "method %s needs a calibration text: leave --calib none out", o->method);
    bool asked = o->recipe || o->has_distill || o->has_calib_tokens || o->calib_context || o->ram;
    FAIL_IF(!options_calibrated(o) && asked, e, ERR_USAGE,
            "--recipe, --distill, --calib-tokens, --calib-ctx and --ram need a calibration: %s",
            sign ? "method sign has none" : "leave --calib none out");
    return OK;
}

/* What the table cannot say: options that need or exclude each other. */
static enum status check_together(const struct options *o, struct error *e)
{
    const struct command_rule *r = command_rule(o->command);
    FAIL_IF(r->argument && !o->model, e, ERR_USAGE, "no %s given; see sbit %s --help", r->argument,
            r->name);
    FAIL_IF(o->prompt && o->prompt_file, e, ERR_USAGE,
            "-p and -f exclude each other; see sbit %s --help", r->name);
    FAIL_IF(o->command == CMD_EVAL && !o->text && !o->tasks, e, ERR_USAGE,
            "--text FILE or --tasks FILE is missing; see sbit eval --help");
    FAIL_IF(o->command == CMD_EVAL && o->text && o->tasks, e, ERR_USAGE,
            "--text and --tasks exclude each other; see sbit eval --help");
    FAIL_IF(o->command == CMD_COMPRESS && !o->output, e, ERR_USAGE,
            "-o FILE is missing; see sbit compress --help");
    FAIL_IF(o->has_bits && o->type && strcmp(o->type, "code"), e, ERR_USAGE,
            "--bits belongs to --type code; %s has a fixed size; see sbit %s --help", o->type,
            r->name);
    FAIL_IF(o->has_bits && strcmp(o->method, "code"), e, ERR_USAGE,
            "--bits belongs to --method code; %s has a fixed size; see sbit compress --help",
            o->method);
    if (o->command == CMD_COMPRESS)
        TRY(check_calibration(o, e));
    return OK;
}

/* The command that words[0], or words[0] and words[1], of n words name. */
static const struct command_rule *find_command(int n, char **words)
{
    char name[32];
    snprintf(name, sizeof name, "%s %s", words[0], n > 1 ? words[1] : "");
    for (const struct command_rule *r = command_rules; r->name; r++) {
        if (!strcmp(strchr(r->name, ' ') ? name : words[0], r->name))
            return r;
    }
    return NULL;
}

static enum status unknown_command(const char *word, struct error *e)
{
    FAIL_IF(!strcmp(word, "bench"), e, ERR_USAGE,
            "there are bench kernels and bench model; see sbit --help");
    for (const struct command_rule *r = command_rules; r->name; r++) {
        if (word_distance(word, r->name) < 3)
            return error_set(e, ERR_USAGE,
                             "unknown command \"%s\": did you mean %s? See sbit --help", word,
                             r->name);
    }
    return error_set(e, ERR_USAGE,
                     "unknown command \"%s\": there are compress, run, eval, inspect, tokenize, "
                     "bench kernels and bench model; see sbit --help",
                     word);
}

static void ask_help(struct options *o, enum command about)
{
    o->help_for = about;
    o->command = CMD_HELP;
}

/* "sbit help [COMMAND]", "sbit --help", "sbit --version": true when the first word was one of
 * them. */
static bool parse_global(struct options *o, int argc, char **argv, enum status *status,
                         struct error *e)
{
    *status = OK;
    if (!strcmp(argv[1], "--version")) {
        o->command = CMD_VERSION;
        return true;
    }
    bool word = !strcmp(argv[1], "help");
    if (!word && strcmp(argv[1], "--help") && strcmp(argv[1], "-h"))
        return false;
    ask_help(o, CMD_HELP);
    const struct command_rule *rule = word && argc > 2 ? find_command(argc - 2, argv + 2) : NULL;
    if (rule)
        o->help_for = rule->command;
    else if (word && argc > 2)
        *status = unknown_command(argv[2], e);
    return true;
}

enum status options_parse(struct options *o, int argc, char **argv, struct error *e)
{
    enum status status;
    set_defaults(o);
    FAIL_IF(argc < 2, e, ERR_USAGE, "no command given; see sbit --help");
    if (parse_global(o, argc, argv, &status, e))
        return status;
    struct parser p = {
        .o = o, .command = find_command(argc - 1, argv + 1), .argc = argc, .next = 2, .argv = argv};
    if (!p.command)
        return unknown_command(argv[1], e);
    p.next += strchr(p.command->name, ' ') != NULL;
    o->command = p.command->command;
    bool plain = false; /* after "--" every word is a name */
    while (p.next < argc) {
        const char *word = argv[p.next++];
        if (!plain && (!strcmp(word, "--help") || !strcmp(word, "-h"))) {
            ask_help(o, p.command->command);
            return OK;
        }
        if (!plain && !strcmp(word, "--"))
            plain = true;
        else if (!plain && word[0] == '-' && word[1])
            TRY(parse_option(&p, word, e));
        else
            TRY(parse_positional(&p, word, e));
    }
    return check_together(o, e);
}
