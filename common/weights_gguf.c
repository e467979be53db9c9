/* Weights from GGUF: one file, or shards NAME-00001-of-0000N.gguf of which any may be named. Checks
 * the hashes of headers of ours and reads what files of ours add (hashes of tensors, sizes of
 * codes). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "common/mem.h"
#include "common/model_private.h"
#include "common/weights_private.h"

enum { SHARDS_MAX = 4096 };

static bool is_ours(const struct gguf *g)
{
    static const char prefix[] = "singularbit.";
    for (uint64_t i = 0; i < g->n_keys; i++)
        if (g->keys[i].name.size >= sizeof prefix - 1 &&
            memcmp(g->keys[i].name.data, prefix, sizeof prefix - 1) == 0)
            return true;
    return false;
}

/* Opens file i; files already open count in n_files, so that weights_close finds them. */
static enum status open_file(struct weights *w, const char *path, struct error *e)
{
    TRY(gguf_open(&w->gguf[w->n_files], path, false, e));
    const struct gguf *g = &w->gguf[w->n_files++];
    uint64_t stated = 0;
    bool states = gguf_get_u64(g, GGUF_HEADER_HASH, &stated);
    FAIL_IF(
        (states || is_ours(g)) && stated != gguf_header_hash(g), e, ERR_FORMAT,
        "%s is damaged: its header does not have the hash that it states; copy or make the file "
        "again",
        path);
    uint64_t version = WEIGHTS_VERSION;
    gguf_get_u64(g, WEIGHTS_VERSION_KEY, &version);
    FAIL_IF(version != WEIGHTS_VERSION, e, ERR_UNSUPPORTED,
            "%s has version %llu of sbit's format, this sbit reads version %d; make the file again "
            "or use a newer sbit",
            path, (unsigned long long)version, WEIGHTS_VERSION);
    return OK;
}

static enum status open_shards(struct weights *w, size_t stem, uint32_t no, uint32_t count,
                               struct error *e)
{
    FAIL_IF(no < 1 || no > count || count > SHARDS_MAX, e, ERR_LIMIT,
            "%s claims by its name to be file %u of %u; 1 to %d files are supported", w->path, no,
            count, SHARDS_MAX);
    char *path;
    size_t room = stem + GGUF_SHARD_SUFFIX + 1;
    enum status status = OK;
    TRY(mem_array(&w->gguf, count, sizeof *w->gguf, "the files of the model", e));
    TRY(mem_array(&path, room, 1, "a file name", e));
    for (uint32_t i = 1; i <= count && status == OK; i++) {
        snprintf(path, room, "%.*s-%05u-of-%05u.gguf", (int)stem, w->path, i, count);
        status =
            access(path, F_OK) == 0
                ? open_file(w, path, e)
                : error_set(e, ERR_IO, "%s: file %u of %u is missing; put %s beside the others",
                            w->path, i, count, path);
    }
    free(path);
    return status;
}

/* Shards say which they are; a shard under another name would be taken for a whole model. */
static enum status check_split_keys(const struct weights *w, struct error *e)
{
    uint64_t total = 0, number;
    for (uint32_t i = 0; i < w->n_files; i++) {
        const struct gguf *g = &w->gguf[i];
        uint64_t no = i, count = w->n_files;
        gguf_get_u64(g, "split.no", &no);
        gguf_get_u64(g, "split.count", &count);
        bool merged = count == 0 && w->n_files == 1; /* a tool put the shards back together */
        FAIL_IF(
            no != i || (count != w->n_files && !merged), e, ERR_FORMAT,
            "%s is file %llu of %llu by its header, but file %u of %u by its name; give the files "
            "their names back",
            g->file.path, (unsigned long long)no + 1, (unsigned long long)count, i + 1, w->n_files);
        total += g->n_tensors;
    }
    FAIL_IF(gguf_get_u64(&w->gguf[0], "split.tensors.count", &number) && number != total, e,
            ERR_FORMAT, "%s: its files hold %llu tensors together, but the header says %llu",
            w->path, (unsigned long long)total, (unsigned long long)number);
    return OK;
}

/* Shards of two runs over the same model have the same names and shapes. */
static enum status check_set(const struct weights *w, struct error *e)
{
    uint64_t first = 0;
    bool has_first = gguf_get_u64(&w->gguf[0], WEIGHTS_SET_HASH, &first);
    for (uint32_t i = 1; i < w->n_files; i++) {
        uint64_t own = 0;
        bool has = gguf_get_u64(&w->gguf[i], WEIGHTS_SET_HASH, &own);
        FAIL_IF(has != has_first || own != first, e, ERR_FORMAT,
                "%s: file %u of %u belongs to another compression than file 1: copy the whole set "
                "again",
                w->gguf[i].file.path, i + 1, w->n_files);
    }
    return OK;
}

static enum status add_tensor(struct weights *w, const struct gguf_tensor *src, struct error *e)
{
    struct tensor *t = &w->tensors[w->n_tensors];
    TRY(mem_array(&t->name, src->name.size + 1, 1, "the name of a tensor", e));
    memcpy(t->name, src->name.data, src->name.size);
    w->n_tensors++;
    t->dtype = (enum dtype)src->dtype;
    t->dims = src->dims;
    memcpy(t->dim, src->dim, sizeof t->dim);
    t->cols = t->dim[0];
    t->rows = t->dim[1] * t->dim[2] * t->dim[3]; /* fits: the bytes are in the file */
    t->bytes = src->bytes;
    t->data = src->data;
    return OK;
}

static enum status add_file(struct weights *w, const struct gguf *g, struct error *e)
{
    const struct gguf_key *hashes = gguf_find_key(g, WEIGHTS_TENSOR_HASH);
    FAIL_IF(hashes && (hashes->element != GGUF_U64 || hashes->count != g->n_tensors), e, ERR_FORMAT,
            "%s is damaged: key %s does not hold one hash for each of %llu tensors", g->file.path,
            WEIGHTS_TENSOR_HASH, (unsigned long long)g->n_tensors);
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        struct tensor *t = &w->tensors[w->n_tensors];
        TRY(add_tensor(w, &g->tensors[i], e));
        t->file = g->file.path;
        t->has_hash = hashes && gguf_array_u64(hashes, i, &t->hash);
    }
    return OK;
}

static enum status add_files(struct weights *w, struct error *e)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < w->n_files; i++)
        total += w->gguf[i].n_tensors;
    FAIL_IF(total == 0, e, ERR_FORMAT, "%s holds no tensors: it is a vocabulary, not a model",
            w->path);
    TRY(mem_array(&w->tensors, total, sizeof *w->tensors, "the tensors of the model", e));
    for (uint32_t i = 0; i < w->n_files; i++)
        TRY(add_file(w, &w->gguf[i], e));
    return weights_sort(w, e);
}

static void hash_headers(struct weights *w)
{
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    for (uint32_t i = 0; i < w->n_files; i++)
        XXH3_64bits_update(&state, w->gguf[i].file.data, w->gguf[i].data_start);
    w->header_hash = XXH3_64bits_digest(&state);
}

static enum status read_codes(struct weights *w, struct error *e)
{
    const struct gguf_key *names = gguf_find_key(&w->gguf[0], WEIGHTS_MATRIX_NAMES);
    const struct gguf_key *sizes = gguf_find_key(&w->gguf[0], WEIGHTS_MATRIX_D);
    struct weights_private *p = w->priv;
    struct gguf_string name;
    uint64_t state = 0, d = 0;
    if (!names && !sizes)
        return OK;
    FAIL_IF(!names || !sizes || names->element != GGUF_STRING || sizes->element != GGUF_U32 ||
                names->count != sizes->count,
            e, ERR_FORMAT, "%s is damaged: keys %s and %s do not belong together", w->path,
            WEIGHTS_MATRIX_NAMES, WEIGHTS_MATRIX_D);
    TRY(mem_array(&p->codes, names->count, sizeof *p->codes, "the coded matrices", e));
    while (gguf_next_string(names, &state, &name)) {
        struct coded_matrix *m = &p->codes[p->n_codes];
        TRY(mem_array(&m->name, name.size + 1, 1, "the name of a matrix", e));
        memcpy(m->name, name.data, name.size);
        gguf_array_u64(sizes, p->n_codes++, &d);
        m->d = (uint32_t)d;
    }
    qsort(p->codes, p->n_codes, sizeof *p->codes, weights_compare_codes);
    return OK;
}

/* rope_freqs.weight: divisors of the frequencies, the form in which llama3 scaling is stored. */
static enum status read_rope_factors(struct weights *w, struct error *e)
{
    const struct tensor *t = weights_find(w, "rope_freqs.weight");
    uint64_t n = w->config.rope_dim / 2;
    if (!t)
        return OK;
    FAIL_IF(t->dtype != DTYPE_F32 || t->cols != n || t->rows != 1, e, ERR_FORMAT,
            "%s: tensor rope_freqs.weight is not %llu values of F32", w->path,
            (unsigned long long)n);
    TRY(mem_array(&w->rope_factors, n, sizeof *w->rope_factors, "RoPE factors", e));
    TRY(weights_rows_f32(t, 0, 1, w->rope_factors, e));
    for (uint64_t i = 0; i < n; i++)
        FAIL_IF(!(w->rope_factors[i] > 0), e, ERR_FORMAT,
                "%s is damaged: tensor rope_freqs.weight holds %g, a factor must be positive",
                w->path, (double)w->rope_factors[i]);
    return OK;
}

/* The description depends on which tensors there are, and shards hold them anywhere. */
static enum status read_config(struct weights *w, struct error *e)
{
    struct model_config *c = &w->config;
    TRY(model_config_from_gguf(c, &w->gguf[0], e));
    c->tied = !weights_find(w, "output.weight") && !weights_find(w, "output.code");
    if (strcmp(c->arch, "llama") == 0)
        c->qkv_bias = weights_find(w, "blk.0.attn_q.bias") != NULL;
    const struct tensor *embedding = weights_find(w, "token_embd.weight");
    if (embedding && embedding->rows <= UINT32_MAX)
        c->vocab = (uint32_t)embedding->rows;
    return model_config_check(c, w->path, e);
}

enum status weights_open_gguf(struct weights *w, struct error *e)
{
    size_t stem;
    uint32_t no, count;
    if (gguf_shard_name(w->path, &stem, &no, &count)) {
        TRY(open_shards(w, stem, no, count, e));
    } else {
        TRY(mem_array(&w->gguf, 1, sizeof *w->gguf, "the file of the model", e));
        TRY(open_file(w, w->path, e));
    }
    TRY(check_split_keys(w, e));
    TRY(check_set(w, e));
    TRY(add_files(w, e));
    hash_headers(w);
    TRY(read_codes(w, e));
    TRY(read_config(w, e));
    return read_rope_factors(w, e);
}
