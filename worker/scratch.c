/* Allocation of a slice's working memory. Must never know what is computed in it. */
#include "worker/scratch.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

static enum status allocate(struct scratch *s, const struct model_config *c,
                            const size_t room[PRODUCT_MAX], struct error *e)
{
    size_t heads = (size_t)c->heads * c->head_dim, kv_heads = (size_t)c->kv_heads * c->head_dim;
    const struct {
        float **array;
        size_t rows, cols;
    } arrays[] = {
        {&s->x, (size_t)s->batch, c->hidden},
        {&s->normed, (size_t)s->batch, c->hidden},
        {&s->delta, (size_t)s->batch, c->hidden},
        {&s->q, (size_t)s->batch, heads},
        {&s->attended, (size_t)s->batch, heads},
        {&s->k, (size_t)s->batch, kv_heads},
        {&s->v, (size_t)s->batch, kv_heads},
        {&s->gate, (size_t)s->batch, c->ffn},
        {&s->up, (size_t)s->batch, c->ffn},
        {&s->cosine, (size_t)s->batch, c->rope_dim / 2},
        {&s->sine, (size_t)s->batch, c->rope_dim / 2},
        {&s->scores, (size_t)s->threads * (c->heads / c->kv_heads), s->positions},
    };
    const char *what = "working memory of a micro-batch";
    TRY(mem_array(&s->row, (size_t)s->batch, sizeof *s->row, what, e));
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        TRY(mem_array(arrays[i].array, arrays[i].rows, arrays[i].cols * sizeof(float), what, e));
    for (int i = 0; i < PRODUCT_MAX; i++)
        TRY(mem_array(&s->prepared[i], (size_t)s->batch, room[i], what, e));
    return OK;
}

enum status scratch_create(struct scratch *s, const struct model_config *c, uint32_t batch,
                           uint32_t threads, uint32_t context, const size_t room[PRODUCT_MAX],
                           struct error *e)
{
    memset(s, 0, sizeof *s);
    s->batch = (int)batch;
    s->threads = (int)threads;
    s->positions = context;
    if (c->sliding_window > 0 && c->sliding_window < context)
        s->positions = c->sliding_window;
    enum status status = allocate(s, c, room, e);
    if (status != OK)
        scratch_free(s);
    return status;
}

void scratch_free(struct scratch *s)
{
    float *const arrays[] = {s->x, s->normed, s->delta, s->q,      s->attended, s->k,
                             s->v, s->gate,   s->up,    s->cosine, s->sine,     s->scores};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        free(arrays[i]);
    for (int i = 0; i < PRODUCT_MAX; i++)
        free(s->prepared[i]);
    free(s->row);
    memset(s, 0, sizeof *s);
}
