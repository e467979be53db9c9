/* What a Hugging Face folder says about special tokens beside its tokenizer:
 * tokenizer_config.json first, then the ids in config.json, then the usual names. A missing file
 * says nothing. */
#include "common/tokenizer_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/json_file.h"

#define MAX_CONFIG (64u << 20)

/* *out = the document, NULL when the folder has no such file. */
static enum status load(json_t **out, const char *folder, const char *name,
                        enum json_integers integers, struct error *e)
{
    char path[4096];
    *out = NULL;
    int size = snprintf(path, sizeof path, "%s/%s", folder, name);
    if (size < 0 || (size_t)size >= sizeof path || access(path, F_OK) != 0)
        return OK;
    return json_file_load(out, path, MAX_CONFIG, integers, e);
}

/* A special token as a string or as an object with "content". */
static void read_token(const struct tokenizer *t, const json_t *config, const char *key,
                       uint32_t *id)
{
    const json_t *v = json_object_get(config, key);
    if (json_is_object(v))
        v = json_object_get(v, "content");
    uint32_t found = TOK_NONE;
    if (json_is_string(v))
        found = tok_find(t, json_string_value(v), json_string_length(v));
    if (found != TOK_NONE)
        *id = found;
}

static void read_flag(const json_t *config, const char *key, bool *flag)
{
    const json_t *v = json_object_get(config, key);
    if (json_is_boolean(v))
        *flag = json_is_true(v);
}

/* An id, or the first of a list of ids. */
static void read_id(const struct tokenizer *t, const json_t *config, const char *key, uint32_t *id)
{
    const json_t *v = json_object_get(config, key);
    if (json_is_array(v))
        v = json_array_get(v, 0);
    if (*id == TOK_NONE && json_is_integer(v) && json_integer_value(v) >= 0 &&
        json_integer_value(v) < t->n)
        *id = (uint32_t)json_integer_value(v);
}

/* Every id of a list ends a text, not the first alone. */
static void read_ends(struct tokenizer *t, const json_t *config)
{
    const json_t *list = json_object_get(config, "eos_token_id");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        if (json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < t->n)
            t->pieces[json_integer_value(v)].ends = true;
    }
}

static void use_name(const struct tokenizer *t, const char *name, uint32_t *id)
{
    uint32_t found = tok_find(t, name, strlen(name));
    if (*id == TOK_NONE && found != TOK_NONE && t->pieces[found].type == TOK_CONTROL)
        *id = found;
}

enum status tok_read_config(struct tokenizer *t, const char *folder, struct error *e)
{
    static const char *const models[] = {"config.json", "generation_config.json"};
    json_t *config = NULL;
    /* "model_max_length" is often 10^30, and no integer of this file is needed. */
    if (folder)
        TRY(load(&config, folder, "tokenizer_config.json", JSON_FILE_REALS, e));
    read_token(t, config, "bos_token", &t->bos);
    read_token(t, config, "eos_token", &t->eos);
    read_token(t, config, "unk_token", &t->unk);
    read_token(t, config, "pad_token", &t->pad);
    read_flag(config, "add_bos_token", &t->add_bos);
    read_flag(config, "add_eos_token", &t->add_eos);
    json_decref(config);
    for (int i = 0; i < 2 && folder; i++) {
        TRY(load(&config, folder, models[i], JSON_FILE_INTEGERS, e));
        read_id(t, config, "bos_token_id", &t->bos);
        read_id(t, config, "eos_token_id", &t->eos);
        read_ends(t, config);
        json_decref(config);
    }
    use_name(t, "<s>", &t->bos);
    use_name(t, "</s>", &t->eos);
    return OK;
}
