/* Opens a model for the coordinator: headers and tokenizer, no weights. */
#include "coordinator/open_model.h"

#include <stdio.h>

enum status open_model(struct open_model *m, const char *path, uint32_t wanted, uint32_t usual,
                       struct error *e)
{
    *m = (struct open_model){0};
    enum status status = weights_open(&m->weights, path, e);
    if (status == OK)
        status = tokenizer_open(&m->tokenizer, path, e);
    if (status != OK) {
        open_model_close(m);
        return status;
    }
    uint32_t trained = m->weights->config.context;
    m->context = wanted ? wanted : trained < usual ? trained : usual;
    if (m->context > trained)
        fprintf(stderr,
                "sbit: a context of %u is more than the %u positions that %s was trained for\n",
                m->context, trained, path);
    return OK;
}

void open_model_close(struct open_model *m)
{
    tokenizer_free(m->tokenizer);
    weights_close(m->weights);
    *m = (struct open_model){0};
}

enum status open_model_check_ids(const struct open_model *m, const uint32_t *ids, size_t n,
                                 struct error *e)
{
    for (size_t i = 0; i < n; i++)
        FAIL_IF(ids[i] >= m->weights->config.vocab, e, ERR_FORMAT,
                "%s: the tokenizer knows token %u but the model has only %u: they do not belong "
                "together",
                m->weights->path, ids[i], m->weights->config.vocab);
    return OK;
}
