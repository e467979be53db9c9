/* SentencePiece's tokenizer.model, a protobuf message. Of its kinds only BPE, and of its
 * normalisers only "identity" (the Llama family's) are accepted: another one would silently give
 * other tokens. */
#include "common/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

#include "common/mapfile.h"
#include "common/mem.h"
#include "proto/sentencepiece.pb-c.h"

#define MAX_FILE (64u << 20)

typedef Sentencepiece__Model Model;

/* Unpacking may need many times the size of a hostile file (each empty field becomes a
 * structure): what it may take is bounded. Zeroed blocks, because the library frees fields of
 * half-built messages. */
struct budget {
    size_t left;
};

static void *budget_alloc(void *data, size_t size)
{
    struct budget *b = data;
    if (size > b->left)
        return NULL;
    b->left -= size;
    return calloc(1, size);
}

static void budget_free(void *data, void *block)
{
    (void)data;
    free(block);
}

static enum status check_model(const struct tokenizer *t, const Model *m, struct error *e)
{
    const Sentencepiece__TrainerSpec *trainer = m->trainer_spec;
    const Sentencepiece__NormalizerSpec *normal = m->normalizer_spec;
    FAIL_IF(!trainer || trainer->model_type != SENTENCEPIECE__TRAINER_SPEC__MODEL_TYPE__BPE, e,
            ERR_UNSUPPORTED,
            "%s: it is not a SentencePiece model of the type BPE, the only one that is supported",
            t->source);
    FAIL_IF(trainer->treat_whitespace_as_suffix, e, ERR_UNSUPPORTED,
            "%s: spaces at the end of words (treat_whitespace_as_suffix) are not supported",
            t->source);
    FAIL_IF(normal && !normal->escape_whitespaces, e, ERR_UNSUPPORTED,
            "%s: unescaped spaces (escape_whitespaces false) are not supported", t->source);
    FAIL_IF(
        normal && normal->precompiled_charsmap.len > 0, e, ERR_UNSUPPORTED,
        "%s: its text normaliser replaces characters; only models with the normaliser \"identity\" "
        "are supported",
        t->source);
    return OK;
}

/* A special id of the trainer's: negative means none. */
static uint32_t special_id(const struct tokenizer *t, int32_t id, enum tok_type type)
{
    bool fits = id >= 0 && (uint32_t)id < t->n && t->pieces[id].type == type;
    return fits ? (uint32_t)id : TOK_NONE;
}

static enum status fill(struct tokenizer *t, const Model *m, const char *folder, struct error *e)
{
    TRY(check_model(t, m, e));
    for (size_t i = 0; i < m->n_pieces; i++) {
        const Sentencepiece__Piece *p = m->pieces[i];
        TRY(tok_set(t, i, (const char *)p->piece.data, p->piece.len, (int)p->type, p->score, e));
        if ((int)p->type == TOK_UNKNOWN)
            t->unk = (uint32_t)i;
    }
    TRY(tok_index(t, e));
    t->bos = special_id(t, m->trainer_spec->bos_id, TOK_CONTROL);
    t->eos = special_id(t, m->trainer_spec->eos_id, TOK_CONTROL);
    t->pad = special_id(t, m->trainer_spec->pad_id, TOK_CONTROL);
    t->add_bos = t->bos != TOK_NONE;
    const Sentencepiece__NormalizerSpec *normal = m->normalizer_spec;
    t->dummy_prefix = !normal || normal->add_dummy_prefix;
    t->remove_extra_spaces = !normal || normal->remove_extra_whitespaces;
    if (folder)
        TRY(tok_read_config(t, folder, e));
    return tok_finish(t, e);
}

static enum status from_bytes(struct tokenizer **out, const char *name, const void *data,
                              size_t size, const char *folder, struct error *e)
{
    *out = NULL;
    FAIL_IF(size > MAX_FILE, e, ERR_LIMIT, "%s has %zu bytes; a tokenizer.model may have %u", name,
            size, MAX_FILE);
    struct budget budget = {(size_t)1 << 20};
    budget.left += size * 16; /* real files need about six times their size */
    ProtobufCAllocator allocator = {budget_alloc, budget_free, &budget};
    Model *m = sentencepiece__model__unpack(&allocator, size, data);
    FAIL_IF(!m, e, ERR_FORMAT, "%s is not a SentencePiece model (its protobuf message is damaged)",
            name);
    enum status status = tok_create(out, name, m->n_pieces, true, e);
    if (status == OK)
        status = fill(*out, m, folder, e);
    sentencepiece__model__free_unpacked(m, &allocator);
    return status == OK ? OK : tok_drop(out, status);
}

enum status tokenizer_from_model_bytes(struct tokenizer **out, const char *name, const void *data,
                                       size_t size, struct error *e)
{
    return from_bytes(out, name, data, size, NULL, e);
}

enum status tokenizer_from_model(struct tokenizer **out, const char *path, const char *folder,
                                 struct error *e)
{
    struct mapfile file;
    *out = NULL;
    TRY(mapfile_open(&file, path, e));
    enum status status = from_bytes(out, path, file.data, file.size, folder, e);
    mapfile_close(&file);
    return status;
}
