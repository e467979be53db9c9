/* See random_model.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/gguf.h"
#include "common/random_weights.h"
#include "tests/unit/random_model.h"
#include "tests/unit/test_files.h"

/* Norms are near one, biases near zero. */
static void fill_vector(struct random_weights *r, bool bias, uint8_t *out, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i += sizeof(float)) {
        float v = (float)(random_weights_next(r) >> 40) * 0x1p-24f - 0.5f + (bias ? 0.0f : 1.0f);
        memcpy(out + i, &v, sizeof v);
    }
}

struct builder {
    struct gguf_writer *w;
    const struct model_config *c;
    enum dtype dtype;
    struct random_weights random;
    uint8_t *file; /* NULL while tensors are being described */
    uint64_t n;    /* tensors so far */
};

/* Describes the tensor, or in the second pass fills it. */
static void visit(struct builder *b, enum tensor_kind kind, uint32_t block)
{
    const struct tensor_rule *rule = model_rule(kind);
    struct error e = {0};
    char base[64], name[96];
    uint64_t rows, cols;
    if (!model_shape(b->c, kind, &rows, &cols))
        return;
    if (!b->file) {
        model_base_name(base, kind, block);
        snprintf(name, sizeof name, "%s%s", base, rule->suffix);
        test_ok(gguf_add_tensor(b->w, name, rule->matrix ? b->dtype : DTYPE_F32,
                                rule->matrix ? 2 : 1, (uint64_t[2]){cols, rows}, &e),
                &e);
        return;
    }
    uint8_t *data = b->file + gguf_writer_offset(b->w, b->n);
    uint64_t bytes = gguf_writer_bytes(b->w, b->n++);
    if (rule->matrix)
        random_weights_fill(&b->random, b->dtype, cols, data, bytes);
    else
        fill_vector(&b->random, strcmp(rule->suffix, ".bias") == 0, data, bytes);
}

static void visit_all(struct builder *b)
{
    for (int kind = 0; kind < KIND_ROPE_FACTORS; kind++)
        for (uint32_t i = 0;
             i < (model_rule((enum tensor_kind)kind)->per_block ? b->c->block_count : 1); i++)
            visit(b, (enum tensor_kind)kind, i);
}

void random_model_write(const char *path, const struct model_config *c, enum dtype dtype,
                        uint64_t seed)
{
    struct builder b = {.c = c, .dtype = dtype, .random = {seed}};
    struct error e = {0};
    uint8_t *header;
    uint64_t size;
    test_ok(gguf_writer_create(&b.w, 64, &e), &e);
    test_ok(model_config_to_gguf(c, b.w, &e), &e);
    visit_all(&b);
    test_ok(gguf_writer_header(b.w, &header, &size, &e), &e);
    b.file = calloc(gguf_writer_file_bytes(b.w), 1);
    assert_non_null(b.file);
    memcpy(b.file, header, size);
    visit_all(&b);
    test_write(path, b.file, gguf_writer_file_bytes(b.w));
    gguf_writer_free(b.w);
    free(header);
    free(b.file);
}
