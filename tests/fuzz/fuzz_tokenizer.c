/* Tokenizer files of all three formats. The first byte says which: 'j' tokenizer.json, 'm'
 * tokenizer.model, 'g' GGUF. What loads must encode any bytes, decode them, and survive being
 * written as GGUF keys. */
#include <stdint.h>
#include <stdlib.h>

#include "common/tokenizer.h"
#include "common/tokenizer_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum status load(struct tokenizer **t, const uint8_t *data, size_t size, struct error *e)
{
    struct gguf g;
    *t = NULL;
    if (data[0] == 'j')
        return tokenizer_from_json_text(t, "fuzz.json", (const char *)data + 1, size - 1, e);
    if (data[0] == 'm')
        return tokenizer_from_model_bytes(t, "fuzz.model", data + 1, size - 1, e);
    /* The header's numbers are aligned in no file: the copy is not, either. */
    if (gguf_parse(&g, data + 1, size - 1, "fuzz.gguf", true, e) != OK)
        return e->status;
    enum status status = tokenizer_from_gguf(t, &g, e);
    gguf_close(&g);
    return status;
}

static void use(struct tokenizer *t, const uint8_t *text, size_t size)
{
    struct error e = {0};
    struct text_stream s;
    struct gguf_writer *w;
    uint32_t *ids;
    size_t count;
    if (tokenizer_encode(t, (const char *)text, size, true, true, &ids, &count, &e) == OK) {
        text_stream_init(&s, t, true);
        for (size_t i = 0; i < count; i++) {
            if (ids[i] >= tokenizer_vocab(t))
                abort();
            (void)text_stream_push(&s, ids[i]);
        }
        (void)text_stream_finish(&s);
        free(ids);
    }
    e = (struct error){0};
    if (gguf_writer_create(&w, 32, &e) == OK) {
        (void)tokenizer_to_gguf(t, w, &e);
        gguf_writer_free(w);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tokenizer *t;
    struct error e = {0};
    if (size == 0)
        return 0;
    enum status status = load(&t, data, size, &e);
    if ((status == OK) != (t != NULL) || (status != OK && !e.text[0]))
        abort();
    if (t)
        use(t, data, size < 4096 ? size : 4096);
    tokenizer_free(t);
    return 0;
}
