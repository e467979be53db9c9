/* See calib_fixture.h. */
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "tests/unit/calib_fixture.h"
#include "tests/unit/test_files.h"
#include "worker/layer.h"

const struct model_config fixture_plain = {.arch = "llama",
                                           .block_count = 2,
                                           .hidden = 64,
                                           .ffn = 96,
                                           .heads = 4,
                                           .kv_heads = 2,
                                           .head_dim = 16,
                                           .vocab = 96,
                                           .context = 64,
                                           .rms_eps = 1e-5f,
                                           .rope_base = 10000,
                                           .rope_dim = 16,
                                           .rope_interleaved = true};

struct model_config fixture_family(int number)
{
    struct model_config c = fixture_plain;
    if (number == 1)
        c.sliding_window = 5;
    if (number == 2) { /* biases */
        strcpy(c.arch, "qwen2");
        c.rope_interleaved = false;
        c.qkv_bias = c.tied = true;
    }
    if (number == 3) { /* norms of q and k, heads wider than hidden */
        strcpy(c.arch, "qwen3");
        c.rope_interleaved = false;
        c.qk_norm = true;
        c.head_dim = c.rope_dim = 32;
    }
    return c;
}

struct weights *fixture_model(const char *path)
{
    struct weights *w;
    struct error e = {0};
    test_ok(weights_open(&w, path, &e), &e);
    return w;
}

float *fixture_floats(size_t n)
{
    float *p;
    struct error e = {0};
    test_ok(mem_array(&p, n, sizeof *p, "test", &e), &e);
    return p;
}

void fixture_text(struct fixture_text *t, const uint32_t *lengths, uint32_t vocab)
{
    uint32_t state = FIXTURE_SEED, total = 0;
    memset(t, 0, sizeof *t);
    for (int i = 0; i < WINDOWS_MAX && lengths[i]; i++) {
        t->length[t->text.windows++] = lengths[i];
        t->text.context = lengths[i] > t->text.context ? lengths[i] : t->text.context;
        total += lengths[i];
    }
    assert_true(total <= sizeof t->tokens / sizeof *t->tokens);
    for (uint32_t i = 0; i < total; i++) {
        state = state * 1664525u + 1013904223u;
        t->tokens[i] = (state >> 8) % vocab;
    }
    t->text.tokens = t->tokens;
    t->text.length = t->length;
}

struct product *fixture_product(struct block_weights *w, int step)
{
    struct product *const products[CALIB_STEPS] = {&w->qkv, &w->o, &w->gate_up, &w->down};
    return products[step];
}

void inference_plan(struct inference *m, uint32_t context, uint32_t batch)
{
    struct error e = {0};
    size_t room[PRODUCT_MAX] = {0};
    scratch_free(&m->scratch);
    for (uint32_t i = 0; i < m->weights->config.block_count * CALIB_STEPS; i++) {
        struct product *p = fixture_product(&m->blocks[i / CALIB_STEPS], (int)i % CALIB_STEPS);
        product_plan(p);
        product_room(p, room);
    }
    test_ok(scratch_create(&m->scratch, &m->weights->config, batch, 1, context, room, &e), &e);
}

void inference_open(struct inference *m, const char *path, uint32_t context, uint32_t batch)
{
    struct error e = {0};
    memset(m, 0, sizeof *m);
    m->weights = fixture_model(path);
    m->binder.weights = m->weights;
    const struct model_config *c = &m->weights->config;
    assert_true(c->block_count <= BLOCKS_MAX);
    for (uint32_t i = 0; i < c->block_count; i++)
        test_ok(bind_block(&m->binder, i, &m->blocks[i], &e), &e);
    test_ok(bind_head(&m->binder, &m->head, &e), &e);
    test_ok(
        kvcache_create(&m->cache, KV_F16, c->block_count, 1, c->kv_heads, context, c->head_dim, &e),
        &e);
    test_ok(rope_create(&m->rope, c, m->weights->rope_factors, &e), &e);
    inference_plan(m, context, batch);
}

void inference_close(struct inference *m)
{
    scratch_free(&m->scratch);
    rope_free(&m->rope);
    kvcache_free(&m->cache);
    bind_free(&m->binder);
    weights_close(m->weights);
}

void inference_place(struct inference *m, uint32_t first, uint32_t rows)
{
    struct scratch *s = &m->scratch;
    size_t pairs = (size_t)m->rope.pairs;
    s->rows = (int)rows;
    for (uint32_t r = 0; r < rows; r++) {
        s->row[r] = (struct row){0, first + r};
        rope_angles(&m->rope, first + r, s->cosine + r * pairs, s->sine + r * pairs);
    }
}

float *inference_states(struct inference *m, const uint32_t *tokens, uint32_t n)
{
    size_t hidden = m->weights->config.hidden;
    uint32_t batch = (uint32_t)m->scratch.batch;
    float *out = fixture_floats(n * hidden);
    for (uint32_t first = 0; first < n; first += batch) {
        uint32_t rows = n - first < batch ? n - first : batch;
        inference_place(m, first, rows);
        for (uint32_t r = 0; r < rows; r++)
            kernels.row[m->head.embedding.type](&m->head.embedding, (int)tokens[first + r],
                                                m->scratch.x + r * hidden);
        for (uint32_t b = 0; b < m->weights->config.block_count; b++) {
            struct layer layer = {&m->weights->config, &m->blocks[b], &m->cache, b};
            layer_forward(&layer, &m->scratch);
        }
        memcpy(out + first * hidden, m->scratch.x, rows * hidden * sizeof *out);
    }
    return out;
}

void originals_free(struct originals *o)
{
    for (int i = 0; i < CALIB_STEPS * PRODUCT_MAX; i++)
        free(o->data[i / PRODUCT_MAX][i % PRODUCT_MAX]);
    memset(o, 0, sizeof *o);
}

void originals_set(struct originals *o, struct calib *c, const struct weights *w, uint32_t block)
{
    enum tensor_kind kinds[PRODUCT_MAX];
    struct error e = {0};
    char base[64];
    originals_free(o);
    for (int step = 0; step < CALIB_STEPS; step++)
        for (int i = 0; i < calib_kinds((enum calib_step)step, kinds); i++) {
            model_base_name(base, kinds[i], block);
            const struct tensor *t = weights_find2(w, base, ".weight");
            assert_int_equal(t->cols, calib_cols(c, (enum calib_step)step));
            float *data = o->data[step][i] = fixture_floats(t->rows * t->cols);
            test_ok(weights_rows_f32(t, 0, t->rows, data, &e), &e);
            struct matrix m = {
                .type = MATRIX_F32, .rows = (int)t->rows, .cols = (int)t->cols, .data = data};
            calib_set(c, (enum calib_step)step, i, &m);
        }
}
