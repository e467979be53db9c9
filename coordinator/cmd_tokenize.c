/* sbit tokenize: the token ids of a text, one a line. */
#include "coordinator/commands.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/tokenizer.h"
#include "coordinator/text_input.h"

static enum status print_ids(const struct tokenizer *t, const struct text *text, struct error *e)
{
    uint32_t *ids;
    size_t n;
    TRY(tokenizer_encode(t, text->bytes, text->size, false, false, &ids, &n, e));
    for (size_t i = 0; i < n; i++)
        printf("%u\n", ids[i]);
    free(ids);
    return OK;
}

enum status cmd_tokenize(const struct options *o, struct error *e)
{
    struct tokenizer *t;
    struct text text;
    TRY(tokenizer_open(&t, o->model, e));
    const char *path = o->prompt_file ? o->prompt_file : "-";
    enum status status =
        o->prompt ? text_copy(&text, o->prompt, e) : text_read(&text, path, NULL, e);
    if (status == OK) {
        status = print_ids(t, &text, e);
        text_free(&text);
    }
    tokenizer_free(t);
    return status;
}
