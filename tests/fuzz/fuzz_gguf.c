/* Any bytes as a GGUF file: what the reader accepts must be safe to walk and to describe. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "common/gguf.h"
#include "common/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink; /* keeps the reads */

static void walk_key(const struct gguf *g, const struct gguf_key *k)
{
    struct gguf_string s;
    uint64_t state = 0, u;
    double f;
    while (gguf_next_string(k, &state, &s))
        sink += s.size ? (uint8_t)s.data[s.size - 1] : 0;
    for (uint64_t i = 0; i < k->count; i += 1 + k->count / 16) {
        sink += gguf_array_u64(k, i, &u) ? u : 0;
        sink += gguf_array_f64(k, i, &f);
    }
    sink += gguf_header_hash(g);
}

/* A key set again in a writer and read back. */
static void copy_keys(const struct gguf *g)
{
    struct error e = {0};
    struct gguf_writer *w;
    struct gguf copy;
    uint8_t *header;
    uint64_t bytes;
    if (gguf_writer_create(&w, 32, &e) != OK)
        abort();
    for (uint64_t i = 0; i < g->n_keys; i++)
        if (gguf_copy_key(w, &g->keys[i], &e) != OK)
            abort();
    if (gguf_writer_header(w, &header, &bytes, &e) != OK ||
        gguf_parse(&copy, header, bytes, "copy", false, &e) != OK)
        abort(); /* what was read must be readable when written */
    gguf_close(&copy);
    free(header);
    gguf_writer_free(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (int vocabulary_only = 0; vocabulary_only < 2; vocabulary_only++) {
        struct error e = {0};
        struct model_config config;
        struct gguf g;
        if (gguf_parse(&g, data, size, "fuzz", vocabulary_only, &e) != OK)
            continue;
        for (uint64_t i = 0; i < g.n_keys; i++)
            walk_key(&g, &g.keys[i]);
        for (uint64_t i = 0; i < g.n_tensors; i++)
            if (g.tensors[i].bytes > 0)
                sink += g.tensors[i].data[0] + g.tensors[i].data[g.tensors[i].bytes - 1];
        copy_keys(&g);
        model_config_from_gguf(&config, &g, &e);
        gguf_close(&g);
    }
    return 0;
}
