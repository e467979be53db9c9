/* make_model TOKENIZER_FOLDER OUT.gguf BLOCKS HIDDEN FFN HEADS KV_HEADS: writes a Llama-family GGUF of
 * random F16 matrices with the folder's tokenizer, for tests of memory and of size. The same arguments
 * give the same file. It says nothing sensible, but every value is finite and every shape is right.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/gguf.h"
#include "common/mem.h"
#include "common/model.h"
#include "common/tokenizer.h"

enum { CHUNK = 1 << 16, MAX_TENSORS = 4096 };

static uint32_t tensor_dtype[MAX_TENSORS]; /* in file order */

static uint64_t random_state = 0x9e3779b97f4a7c15u;

/* xorshift64* (Vigna 2016): speed matters here, quality does not. */
static uint64_t next_random(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 0x2545f4914f6cdd1du;
}

/* Magnitudes 2^-6 to 2^-5 with random signs: products of 1024 of them stay near one. */
static void fill_f16(uint16_t *out, size_t n)
{
    for (size_t i = 0; i < n; i += 4) {
        uint64_t bits = next_random();
        for (size_t j = i; j < n && j < i + 4; j++, bits >>= 16)
            out[j] = (uint16_t)((bits & 0x83ff) | 0x2400);
    }
}

static int write_tensor(FILE *file, uint32_t dtype, uint64_t bytes)
{
    static uint16_t halves[CHUNK];
    static float ones[CHUNK / 2];
    for (size_t i = 0; i < CHUNK / 2; i++)
        ones[i] = 1.0f;
    while (bytes) {
        size_t part = bytes < sizeof halves ? bytes : sizeof halves;
        if (dtype == DTYPE_F16)
            fill_f16(halves, part / 2);
        if (fwrite(dtype == DTYPE_F16 ? (void *)halves : (void *)ones, 1, part, file) != part)
            return -1;
        bytes -= part;
    }
    return 0;
}

static enum status add_tensor(struct gguf_writer *w, const struct model_config *c,
                              enum tensor_kind kind, uint32_t block, struct error *e)
{
    const struct tensor_rule *rule = model_rule(kind);
    char base[64], name[96];
    uint64_t rows, cols;
    if (!model_shape(c, kind, &rows, &cols))
        return OK;
    model_base_name(base, kind, block);
    snprintf(name, sizeof name, "%s%s", base, rule->suffix);
    uint64_t dim[2] = {cols, rows}, index = gguf_writer_tensor_count(w);
    FAIL_IF(index >= MAX_TENSORS, e, ERR_LIMIT, "at most %d tensors", MAX_TENSORS);
    tensor_dtype[index] = rule->matrix ? DTYPE_F16 : DTYPE_F32;
    return gguf_add_tensor(w, name, tensor_dtype[index], rule->matrix ? 2 : 1, dim, e);
}

static enum status add_tensors(struct gguf_writer *w, const struct model_config *c, struct error *e)
{
    for (int kind = 0; kind < KIND_ROPE_FACTORS; kind++) {
        uint32_t blocks = model_rule((enum tensor_kind)kind)->per_block ? c->block_count : 1;
        for (uint32_t b = 0; b < blocks; b++)
            TRY(add_tensor(w, c, (enum tensor_kind)kind, b, e));
    }
    return OK;
}

static struct model_config shape_from(char **argv, uint32_t vocab)
{
    struct model_config c = {.arch = "llama", .block_count = (uint32_t)atoi(argv[3])};
    c.hidden = (uint32_t)atoi(argv[4]);
    c.ffn = (uint32_t)atoi(argv[5]);
    c.heads = (uint32_t)atoi(argv[6]);
    c.kv_heads = (uint32_t)atoi(argv[7]);
    c.head_dim = c.hidden / c.heads;
    c.rope_dim = c.head_dim;
    c.vocab = vocab;
    c.context = 2048;
    c.rms_eps = 1e-5f;
    c.rope_base = 10000.0f;
    c.rope_factor = 1.0f;
    c.rope_interleaved = true;
    c.tied = true;
    return c;
}

static enum status write_file(const struct gguf_writer *w, const char *path, const uint8_t *header,
                              uint64_t size, struct error *e)
{
    FILE *file = fopen(path, "wb");
    if (!file)
        return error_set_errno(e, ERR_IO, "%s: cannot create", path);
    bool bad = fwrite(header, 1, size, file) != size;
    for (uint64_t i = 0; !bad && i < gguf_writer_tensor_count(w); i++) {
        bad = fseek(file, (long)gguf_writer_offset(w, i), SEEK_SET) != 0 ||
              write_tensor(file, tensor_dtype[i], gguf_writer_bytes(w, i)) != 0;
    }
    bad |= fclose(file) != 0;
    FAIL_IF(bad, e, ERR_IO, "%s: writing failed", path);
    return OK;
}

static enum status make(char **argv, struct error *e)
{
    struct tokenizer *tokenizer = NULL;
    struct gguf_writer *w = NULL;
    uint8_t *header = NULL;
    uint64_t size;
    enum status status = tokenizer_from_folder(&tokenizer, argv[1], e);
    if (status == OK)
        status = gguf_writer_create(&w, 64, e);
    if (status == OK) {
        struct model_config c = shape_from(argv, tokenizer_vocab(tokenizer));
        status = model_config_to_gguf(&c, w, e);
        if (status == OK)
            status = tokenizer_to_gguf(tokenizer, w, e);
        if (status == OK)
            status = add_tensors(w, &c, e);
    }
    if (status == OK)
        status = gguf_set_u64(w, GGUF_HEADER_HASH, 0, e);
    if (status == OK)
        status = gguf_writer_header(w, &header, &size, e);
    if (status == OK)
        status = gguf_writer_seal(w, header, size, e);
    if (status == OK)
        status = write_file(w, argv[2], header, size, e);
    free(header);
    gguf_writer_free(w);
    tokenizer_free(tokenizer);
    return status;
}

int main(int argc, char **argv)
{
    struct error e = {0};
    if (argc != 8) {
        fprintf(stderr, "make_model TOKENIZER_FOLDER OUT.gguf BLOCKS HIDDEN FFN HEADS KV_HEADS\n");
        return 2;
    }
    if (make(argv, &e) != OK) {
        fprintf(stderr, "make_model: %s\n", e.text);
        return 1;
    }
    return 0;
}
