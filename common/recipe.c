#include "common/recipe.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct recipe recipe_default = {
    .qep = 0.75,
    .feedback = true,
    .rounds = 1,
    .descent = 3,
    .joint = 1,
    .columns = true,
    .measure = true,
    .shrink = 0.05,
    .damp = 0.003,
    .distill = 0,
    .rate = 0.02,
    .recode = 1,
    .batch = 2,
};

enum field_kind { FIELD_REAL, FIELD_FLAG, FIELD_WHOLE };

static const struct field {
    const char *name;
    enum field_kind kind;
    size_t offset;
    double min, max;
} fields[] = {
    {"qep", FIELD_REAL, offsetof(struct recipe, qep), 0, 1},
    {"feedback", FIELD_FLAG, offsetof(struct recipe, feedback), 0, 1},
    {"rounds", FIELD_WHOLE, offsetof(struct recipe, rounds), 1, 100},
    {"descent", FIELD_WHOLE, offsetof(struct recipe, descent), 0, 100},
    {"joint", FIELD_WHOLE, offsetof(struct recipe, joint), 0, 100},
    {"columns", FIELD_FLAG, offsetof(struct recipe, columns), 0, 1},
    {"measure", FIELD_FLAG, offsetof(struct recipe, measure), 0, 1},
    {"shrink", FIELD_REAL, offsetof(struct recipe, shrink), 0, 1},
    {"damp", FIELD_REAL, offsetof(struct recipe, damp), 1e-6, 10},
    {"distill", FIELD_WHOLE, offsetof(struct recipe, distill), 0, 1000},
    {"rate", FIELD_REAL, offsetof(struct recipe, rate), 1e-6, 1},
    {"recode", FIELD_REAL, offsetof(struct recipe, recode), 0, 100},
    {"batch", FIELD_WHOLE, offsetof(struct recipe, batch), 1, 16},
};

enum { FIELDS = sizeof fields / sizeof fields[0] };

static void set(struct recipe *r, const struct field *f, double value)
{
    void *at = (char *)r + f->offset;
    if (f->kind == FIELD_REAL)
        *(double *)at = value;
    else if (f->kind == FIELD_FLAG)
        *(bool *)at = value != 0;
    else
        *(uint32_t *)at = (uint32_t)value;
}

static double get(const struct recipe *r, const struct field *f)
{
    const void *at = (const char *)r + f->offset;
    if (f->kind == FIELD_REAL)
        return *(const double *)at;
    return f->kind == FIELD_FLAG ? *(const bool *)at : *(const uint32_t *)at;
}

static enum status unknown(const char *word, int length, struct error *e)
{
    char names[RECIPE_TEXT_MAX] = "";
    for (int i = 0; i < FIELDS; i++) {
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", fields[i].name);
    }
    return error_set(e, ERR_USAGE,
                     "\"%.*s\" is no part of a recipe: give NAME=VALUE separated by commas, of %s; "
                     "or \"plain\" alone",
                     length, word, names);
}

/* One "name=value" of length bytes. */
static enum status parse_word(struct recipe *r, const char *word, int length, struct error *e)
{
    char text[32], *end;
    const char *equals = memchr(word, '=', (size_t)length);
    const struct field *f = fields;
    if (!equals)
        return unknown(word, length, e);
    size_t name = (size_t)(equals - word), size = (size_t)length - name - 1;
    while (f < fields + FIELDS && (strlen(f->name) != name || memcmp(f->name, word, name) != 0))
        f++;
    if (f == fields + FIELDS)
        return unknown(word, length, e);
    snprintf(text, sizeof text, "%.*s", (int)size, equals + 1);
    double value = strtod(text, &end);
    /* strtod also takes "inf", "nan", hexadecimal and leading space. */
    bool number = size > 0 && size < sizeof text && !*end &&
                  strspn(text, "0123456789+-.eE") == size && isfinite(value);
    FAIL_IF(!number || value < f->min || value > f->max ||
                (f->kind != FIELD_REAL && value != floor(value)),
            e, ERR_USAGE, "\"%.*s\" in the recipe: %s takes a %snumber from %g to %g", length, word,
            f->name, f->kind == FIELD_REAL ? "" : "whole ", f->min, f->max);
    set(r, f, value);
    FAIL_IF(r->batch & (r->batch - 1), e, ERR_USAGE,
            "\"%.*s\" in the recipe: batch takes 1, 2, 4, 8 or 16", length, word);
    return OK;
}

static void set_plain(struct recipe *r)
{
    r->qep = 0;
    r->feedback = r->columns = r->measure = false;
    r->rounds = 1;
    r->descent = r->joint = r->distill = 0;
}

enum status recipe_parse(struct recipe *r, const char *text, struct error *e)
{
    *r = recipe_default;
    if (!text || !*text)
        return OK;
    if (strcmp(text, "plain") == 0) {
        set_plain(r);
        return OK;
    }
    for (const char *word = text;;) {
        int length = (int)strcspn(word, ",");
        TRY(parse_word(r, word, length, e));
        if (!word[length])
            return OK;
        word += length + 1;
    }
}

const char *recipe_text(const struct recipe *r, char out[RECIPE_TEXT_MAX])
{
    size_t used = 0;
    for (int i = 0; i < FIELDS; i++) {
        int n = snprintf(out + used, RECIPE_TEXT_MAX - used, "%s%s=%.9g", i ? "," : "",
                         fields[i].name, get(r, &fields[i]));
        used += (size_t)n;
    }
    return out;
}
