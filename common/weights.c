/* The face of the weights: opening, finding, reading rows, verifying. Where tensors come from is
 * the business of weights_gguf.c and weights_folder.c, what they must look like that of
 * weights_check.c. */
#include "common/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "common/mapfile.h"
#include "common/mem.h"
#include "common/weights_private.h"

#define VERIFY_PART (UINT64_C(8) << 20)

static uint64_t count_file_bytes(const struct weights *w)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < w->n_files; i++)
        bytes += w->gguf[i].file.size;
    for (uint32_t i = 0; i < w->priv->n_safetensors; i++)
        bytes += w->priv->safetensors[i].file.size;
    return bytes;
}

static enum status open_source(struct weights *w, struct error *e)
{
    struct stat st;
    if (stat(w->path, &st) != 0)
        return error_set_errno(e, ERR_IO, "cannot open the model %s", w->path);
    w->is_gguf = !S_ISDIR(st.st_mode);
    TRY(w->is_gguf ? weights_open_gguf(w, e) : weights_open_folder(w, e));
    w->file_bytes = count_file_bytes(w);
    return weights_check(w, e);
}

enum status weights_open(struct weights **out, const char *path, struct error *e)
{
    struct weights *w;
    *out = NULL;
    TRY(mem_array(&w, 1, sizeof *w, "the model", e));
    enum status status = mem_array(&w->priv, 1, sizeof *w->priv, "the model", e);
    if (status == OK)
        status = mem_string(&w->path, path, e);
    if (status == OK)
        status = open_source(w, e);
    if (status == OK)
        *out = w;
    else
        weights_close(w);
    return status;
}

static void close_private(struct weights_private *p)
{
    for (uint32_t i = 0; i < p->n_safetensors; i++)
        safetensors_close(&p->safetensors[i]);
    for (uint64_t i = 0; i < p->n_codes; i++)
        free(p->codes[i].name);
    if (p->reserved)
        munmap(p->reserved, p->reserved_bytes);
    free(p->safetensors);
    free(p->codes);
    free(p);
}

void weights_close(struct weights *w)
{
    if (!w)
        return;
    for (uint32_t i = 0; i < w->n_files; i++)
        gguf_close(&w->gguf[i]);
    for (uint64_t i = 0; i < w->n_tensors; i++)
        free(w->tensors[i].name);
    if (w->priv)
        close_private(w->priv);
    free(w->gguf);
    free(w->tensors);
    free(w->rope_factors);
    free(w->path);
    free(w);
}

static int compare_tensors(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

enum status weights_sort(struct weights *w, struct error *e)
{
    if (w->n_tensors > 0)
        qsort(w->tensors, w->n_tensors, sizeof *w->tensors, compare_tensors);
    for (uint64_t i = 1; i < w->n_tensors; i++)
        FAIL_IF(compare_tensors(&w->tensors[i - 1], &w->tensors[i]) == 0, e, ERR_FORMAT,
                "%s is damaged: tensor %s is stored in two of its files", w->path,
                w->tensors[i].name);
    return OK;
}

const struct tensor *weights_find(const struct weights *w, const char *name)
{
    struct tensor wanted = {.name = (char *)name};
    if (w->n_tensors == 0) /* and the array may be NULL, which bsearch does not take */
        return NULL;
    return bsearch(&wanted, w->tensors, w->n_tensors, sizeof *w->tensors, compare_tensors);
}

const struct tensor *weights_find2(const struct weights *w, const char *base, const char *suffix)
{
    char name[128];
    snprintf(name, sizeof name, "%s%s", base, suffix);
    return weights_find(w, name);
}

int weights_compare_codes(const void *a, const void *b)
{
    const struct coded_matrix *x = a, *y = b;
    return strcmp(x->name, y->name);
}

bool weights_code_d(const struct weights *w, const char *base, uint32_t *d)
{
    struct coded_matrix wanted = {.name = (char *)base};
    const struct weights_private *p = w->priv;
    if (p->n_codes == 0)
        return false;
    const struct coded_matrix *found =
        bsearch(&wanted, p->codes, p->n_codes, sizeof *p->codes, weights_compare_codes);
    if (!found || found->d == 0)
        return false;
    *d = found->d;
    return true;
}

uint64_t weights_gguf_row(const struct tensor *t, uint64_t r)
{
    if (t->rope_heads == 0)
        return r;
    /* GGUF keeps the two values that are rotated together side by side, Hugging Face half a head
     * apart */
    uint64_t head_dim = t->rows / t->rope_heads;
    uint64_t head = r / head_dim, in_head = r % head_dim;
    return head * head_dim + in_head % 2 * (head_dim / 2) + in_head / 2;
}

static bool is_weight_type(enum dtype dtype)
{
    return dtype != DTYPE_I8 && dtype != DTYPE_I16 && dtype != DTYPE_I32;
}

static bool all_finite(const float *v, uint64_t n)
{
    uint32_t bad = 0;
    for (uint64_t i = 0; i < n; i++)
        bad |= !isfinite(v[i]);
    return !bad;
}

enum status weights_rows_f32(const struct tensor *t, uint64_t first, uint64_t count, float *out,
                             struct error *e)
{
    uint64_t row_bytes;
    FAIL_IF(!is_weight_type(t->dtype), e, ERR_UNSUPPORTED, "tensor %s does not hold plain weights",
            t->name);
    FAIL_IF(first > t->rows || count > t->rows - first, e, ERR_LIMIT,
            "tensor %s has %llu rows, rows up to %llu were asked for", t->name,
            (unsigned long long)t->rows, (unsigned long long)(first + count));
    TRY(dtype_row_bytes(t->dtype, t->cols, &row_bytes, e));
    for (uint64_t r = first; r < first + count; r++) {
        float *row = out + (r - first) * t->cols;
        dtype_to_f32(t->dtype, t->data + weights_gguf_row(t, r) * row_bytes, t->cols, row);
        FAIL_IF(!all_finite(row, t->cols), e, ERR_FORMAT,
                "%s is damaged: tensor %s holds a value that is infinite or not a number in row "
                "%llu",
                t->file, t->name, (unsigned long long)r);
    }
    return OK;
}

/* Feeds the tensor's bytes to state, in parts. */
static enum status hash_tensor(XXH3_state_t *state, const struct tensor *t, weights_alive_fn *alive,
                               void *self, struct error *e)
{
    for (uint64_t at = 0; at < t->bytes; at += VERIFY_PART) {
        uint64_t left = t->bytes - at;
        XXH3_64bits_update(state, t->data + at, left < VERIFY_PART ? left : VERIFY_PART);
        if (alive)
            TRY(alive(self, e));
    }
    return OK;
}

enum status weights_verify(const struct weights *w, const struct tensor *t, weights_alive_fn *alive,
                           void *self, struct error *e)
{
    if (!t->has_hash)
        return OK;
    XXH3_state_t *state = XXH3_createState();
    FAIL_IF(!state || XXH3_64bits_reset(state) != XXH_OK, e, ERR_MEMORY, "out of memory: a hash");
    enum status status = hash_tensor(state, t, alive, self, e);
    uint64_t hash = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    TRY(status);
    FAIL_IF(hash != t->hash, e, ERR_FORMAT,
            "%s is damaged: the bytes of tensor %s do not have the hash that its header states; "
            "copy or make the file again",
            w->path, t->name);
    return OK;
}

void weights_drop(const struct tensor *t, uint64_t first, uint64_t size)
{
    if (!t->remote)
        mapfile_drop(t->data + first, size);
}

uint64_t weights_block_bytes(const struct weights *w, uint32_t block)
{
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < w->n_tensors; i++) {
        enum tensor_kind kind;
        uint32_t number;
        bool known = model_kind_of(w->tensors[i].name, &kind, &number);
        bool in_block = known && model_rule(kind)->per_block;
        if (in_block ? number == block : block == UINT32_MAX)
            bytes += w->tensors[i].bytes;
    }
    return bytes;
}
