/* Models described by another rank. Owns a range of addresses as large as the model, of which only
 * tensors that are held have memory, so that pointers into them can be handed out before their
 * bytes are there. Must never know messages. */
#include "common/weights_remote.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/mapfile.h"
#include "common/mem.h"
#include "common/model_private.h"
#include "common/weights_private.h"

enum status weights_list(const struct weights *w, struct weights_entry **list, uint32_t *n,
                         struct error *e)
{
    *n = 0;
    TRY(mem_array(list, w->n_tensors, sizeof **list, "a list of tensors", e));
    for (uint64_t i = 0; i < w->n_tensors; i++) {
        const struct tensor *t = &w->tensors[i];
        struct weights_entry *to = &(*list)[*n];
        enum tensor_kind kind;
        char base[64];
        bool known = model_kind_of(t->name, &kind, &to->block);
        if (known && kind == KIND_ROPE_FACTORS)
            continue;
        if (known)
            model_base_name(base, kind, to->block);
        if (!known || weights_find2(w, base, model_rule(kind)->suffix) != t) {
            free(*list);
            *list = NULL;
            return error_set(e, ERR_UNSUPPORTED, "%s: tensor %s cannot be sent to other ranks",
                             w->path, t->name);
        }
        to->kind = kind;
        to->dtype = t->dtype;
        to->rope_heads = t->rope_heads;
        ++*n;
    }
    return OK;
}

static uint64_t whole_pages(uint64_t bytes)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    return (bytes + page - 1) / page * page;
}

static enum status add_tensor(struct weights *w, const struct weights_entry *from, struct error *e)
{
    struct tensor *t = &w->tensors[w->n_tensors];
    char base[64], name[96];
    uint64_t row;
    FAIL_IF(from->kind >= KIND_COUNT || from->block >= w->config.block_count ||
                !model_shape(&w->config, (enum tensor_kind)from->kind, &t->rows, &t->cols),
            e, ERR_PEER,
            "rank 0 describes a model with a tensor of kind %u in block %u: there is "
            "none",
            from->kind, from->block);
    const struct tensor_rule *rule = model_rule((enum tensor_kind)from->kind);
    model_base_name(base, (enum tensor_kind)from->kind, from->block);
    snprintf(name, sizeof name, "%s%s", base, rule->suffix);
    TRY(dtype_row_bytes(from->dtype, t->cols, &row, e));
    FAIL_IF(from->rope_heads > 0 && ((from->kind != KIND_Q && from->kind != KIND_K) ||
                                     t->rows != (uint64_t)from->rope_heads * w->config.head_dim),
            e, ERR_PEER, "rank 0 describes %s with rows of %u heads", name, from->rope_heads);
    TRY(mem_string(&t->name, name, e));
    w->n_tensors++;
    t->file = w->path;
    t->dtype = (enum dtype)from->dtype;
    t->dims = rule->matrix ? 2 : 1;
    t->dim[0] = t->cols;
    t->dim[1] = t->rows;
    t->dim[2] = t->dim[3] = 1;
    t->bytes = row * t->rows;
    t->rope_heads = from->rope_heads;
    t->remote = true;
    return OK;
}

/* Addresses without memory, a whole number of pages for each tensor. */
static enum status reserve(struct weights *w, struct error *e)
{
    uint64_t all = 0;
    for (uint64_t i = 0; i < w->n_tensors; i++) {
        FAIL_IF(w->tensors[i].bytes > SIZE_MAX / 4 - all, e, ERR_LIMIT,
                "%s is too large for this machine's addresses", w->path);
        all += whole_pages(w->tensors[i].bytes);
    }
    void *at =
        mmap(NULL, (size_t)all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return error_set_errno(e, ERR_MEMORY, "cannot reserve addresses for %s", w->path);
    w->priv->reserved = at;
    w->priv->reserved_bytes = (size_t)all;
    const uint8_t *next = at;
    for (uint64_t i = 0; i < w->n_tensors; i++) {
        w->tensors[i].data = next;
        next += whole_pages(w->tensors[i].bytes);
    }
    return OK;
}

static enum status take_rope(struct weights *w, const float *factors, struct error *e)
{
    uint32_t n = w->config.rope_dim / 2;
    if (!factors)
        return OK;
    for (uint32_t i = 0; i < n; i++)
        FAIL_IF(!(factors[i] > 0 && isfinite(factors[i])), e, ERR_PEER,
                "rank 0 describes a model with RoPE factors that make no sense");
    TRY(mem_array(&w->rope_factors, n, sizeof *w->rope_factors, "RoPE factors", e));
    memcpy(w->rope_factors, factors, n * sizeof *factors);
    return OK;
}

static enum status fill(struct weights *w, const struct weights_entry *list, uint32_t n,
                        const float *rope_factors, struct error *e)
{
    TRY(model_config_check(&w->config, w->path, e));
    TRY(take_rope(w, rope_factors, e));
    TRY(mem_array(&w->tensors, n ? n : 1, sizeof *w->tensors, "the tensors of the model", e));
    for (uint32_t i = 0; i < n; i++)
        TRY(add_tensor(w, &list[i], e));
    TRY(weights_sort(w, e));
    TRY(weights_check(w, e));
    return reserve(w, e);
}

enum status weights_from_list(struct weights **out, const char *path,
                              const struct model_config *config, const struct weights_entry *list,
                              uint32_t n, const float *rope_factors, uint64_t header_hash,
                              struct error *e)
{
    struct weights *w;
    *out = NULL;
    TRY(mem_array(&w, 1, sizeof *w, "the model", e));
    enum status status = mem_array(&w->priv, 1, sizeof *w->priv, "the model", e);
    if (status == OK)
        status = mem_string(&w->path, path, e);
    w->config = *config;
    w->header_hash = header_hash;
    w->is_gguf = true; /* tensors are called by GGUF's names */
    if (status == OK)
        status = fill(w, list, n, rope_factors, e);
    if (status == OK)
        *out = w;
    else
        weights_close(w);
    return status;
}

enum status weights_hold(const struct tensor *t, uint8_t **data, struct error *e)
{
    *data = (uint8_t *)t->data;
    if (mprotect(*data, (size_t)whole_pages(t->bytes), PROT_READ | PROT_WRITE) != 0)
        return error_set_errno(e, ERR_MEMORY, "no memory for tensor %s", t->name);
    return OK;
}

void weights_forget(const struct tensor *t)
{
    void *data = (void *)t->data;
    size_t bytes = (size_t)whole_pages(t->bytes);
    madvise(data, bytes, MADV_DONTNEED);
    mprotect(data, bytes, PROT_NONE);
}

void weights_forget_bytes(const struct tensor *t, uint64_t first, uint64_t size)
{
    mapfile_drop(t->data + first, size);
}
