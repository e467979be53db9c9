/* The source at a rank that has no copy of it: its description, refused where it describes no
 * model, and its tensors, asked for in bounded pieces and given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/weights_remote.h"
#include "coordinator/compress_source.h"
#include "tests/unit/random_model.h"
#include "tests/unit/test_files.h"
#include "worker/source.h"

#define MODEL   SBIT_TEST_DIR "/model.gguf"
#define OTHER   SBIT_TEST_DIR "/other.gguf"
#define MISSING SBIT_TEST_DIR "/nowhere.gguf"

/* Embeddings of more than two pieces, so that three questions are needed. */
static const struct model_config shape = {.arch = "qwen2",
                                          .block_count = 2,
                                          .hidden = 256,
                                          .ffn = 320,
                                          .heads = 8,
                                          .kv_heads = 4,
                                          .head_dim = 32,
                                          .vocab = 10000,
                                          .context = 64,
                                          .rms_eps = 1e-5f,
                                          .rope_base = 10000,
                                          .rope_dim = 32,
                                          .rope_factor = 1,
                                          .qkv_bias = true};

/* Rank 0 with the files and rank 1 without, and what goes on between them. */
struct pair {
    struct weights *weights;
    struct loop *loop[2];
    struct source *source;
    struct compress_source sender;
    struct cluster cluster;
    uint32_t questions; /* so far */
    bool missing;
    struct message description;
    struct weights_entry *list;
};

/* Rank 0. */
static enum status coordinate(void *self, struct message *m, struct error *e)
{
    struct pair *p = self;
    if (m->kind == MSG_OPENED) {
        p->missing = m->opened.missing;
        return OK;
    }
    assert_int_equal(m->kind, MSG_FETCH);
    p->questions++;
    return compress_source_answer(&p->sender, m, e);
}

static enum status work(void *self, struct message *m, struct error *e)
{
    struct pair *p = self;
    assert_true(m->payload_bytes <= WIRE_PIECE_MAX);
    return source_take(p->source, m, e);
}

/* As rank 0 would send it. */
static void describe(struct pair *p, const char *path)
{
    struct error e = {0};
    struct msg_source *a = &p->description.source;
    p->description.kind = MSG_SOURCE;
    snprintf(a->path, sizeof a->path, "%s", path);
    a->model_hash = p->weights->header_hash;
    a->config = p->weights->config;
    test_ok(weights_list(p->weights, &p->list, &a->tensors, &e), &e);
    p->description.payload = p->list;
    p->description.payload_bytes = a->tensors * sizeof *p->list;
}

static void pair_open(struct pair *p, const char *path)
{
    struct error e = {0};
    struct transport *t[2];
    memset(p, 0, sizeof *p);
    random_model_write(MODEL, &shape, DTYPE_F32, 5);
    test_ok(weights_open(&p->weights, MODEL, &e), &e);
    test_ok(transport_local_open(t, 2, NULL, &e), &e);
    for (int i = 0; i < 2; i++)
        test_ok(loop_open(&p->loop[i], t[i], &e), &e);
    p->loop[0]->coordinator = (struct endpoint){.self = p, .handle = coordinate};
    p->loop[1]->worker = (struct endpoint){.self = p, .handle = work};
    p->cluster = (struct cluster){.loop = p->loop[0], .size = 2};
    p->sender = (struct compress_source){.cluster = &p->cluster, .weights = p->weights};
    describe(p, path);
}

static void pair_close(struct pair *p)
{
    source_close(p->source);
    for (int i = 0; i < 2; i++)
        loop_close(p->loop[i]);
    weights_close(p->weights);
    free(p->list);
}

static void turn(struct pair *p)
{
    struct error e = {0};
    bool busy = false;
    test_ok(source_step(p->source, &busy, &e), &e);
    for (int i = 1; i >= 0; i--)
        test_ok(loop_turn(p->loop[i], &e), &e);
}

static void fetch_all(struct pair *p)
{
    for (int i = 0; i < 1000 && !source_ready(p->source); i++)
        turn(p);
    assert_true(source_ready(p->source));
}

static void open_remote(struct pair *p)
{
    struct error e = {0};
    pair_open(p, MISSING);
    test_ok(source_open(&p->source, p->loop[1], &p->description, &e), &e);
    turn(p);
    assert_true(p->missing);
}

static void same_tensor(const struct pair *p, enum tensor_kind kind, uint32_t block)
{
    char base[64];
    model_base_name(base, kind, block);
    const char *suffix = model_rule(kind)->suffix;
    const struct tensor *a = weights_find2(p->weights, base, suffix);
    const struct tensor *b = weights_find2(source_weights(p->source), base, suffix);
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal(a->bytes, b->bytes);
    assert_memory_equal(a->data, b->data, a->bytes);
}

static void described_as_it_is(void **state)
{
    (void)state;
    struct pair p;
    open_remote(&p);
    const struct weights *w = source_weights(p.source);
    assert_memory_equal(&w->config, &p.weights->config, sizeof w->config);
    assert_int_equal(w->n_tensors, p.weights->n_tensors);
    assert_int_equal(w->bytes, p.weights->bytes);
    assert_int_equal(w->parameters, p.weights->parameters);
    for (uint64_t i = 0; i < w->n_tensors; i++) {
        const struct tensor *a = &p.weights->tensors[i], *b = &w->tensors[i];
        assert_string_equal(a->name, b->name);
        assert_memory_equal(a->dim, b->dim, sizeof a->dim);
        assert_int_equal(a->dtype, b->dtype);
        assert_int_equal(a->rope_heads, b->rope_heads);
    }
    pair_close(&p);
}

/* The description with one word of one entry changed is refused. */
static void wrong_entry(struct pair *p, size_t word, uint32_t value, const char *says)
{
    struct error e = {0};
    uint32_t *words = (uint32_t *)p->list, old = words[word];
    words[word] = value;
    enum status status = source_open(&p->source, p->loop[1], &p->description, &e);
    assert_true(status == ERR_PEER || status == ERR_FORMAT || status == ERR_UNSUPPORTED);
    if (!strstr(e.text, says))
        fail_msg("\"%s\" does not say \"%s\"", e.text, says);
    words[word] = old;
}

static void hostile_descriptions(void **state)
{
    (void)state;
    struct pair p;
    struct error e = {0};
    pair_open(&p, MISSING);
    struct model_config *c = &p.description.source.config, sound = *c;
    wrong_entry(&p, 0, KIND_COUNT, "there is none");
    wrong_entry(&p, 0, KIND_ROPE_FACTORS, "there is none");
    wrong_entry(&p, 1, 2, "there is none");
    wrong_entry(&p, 2, 12345, "12345");
    wrong_entry(&p, 2, DTYPE_I8, "I8");
    wrong_entry(&p, 3, 3, "heads");
    wrong_entry(&p, 4, p.list[0].kind == p.list[1].kind ? p.list[2].kind : p.list[0].kind, "");
    p.description.source.tensors--;
    test_refused(source_open(&p.source, p.loop[1], &p.description, &e), ERR_FORMAT, &e,
                 "is incomplete");
    p.description.source.tensors++;
    c->hidden = 0;
    memset(&e, 0, sizeof e);
    test_refused(source_open(&p.source, p.loop[1], &p.description, &e), ERR_FORMAT, &e,
                 "hidden size");
    *c = sound;
    c->rope_dim = 64;
    memset(&e, 0, sizeof e);
    test_refused(source_open(&p.source, p.loop[1], &p.description, &e), ERR_FORMAT, &e, "rotated");
    p.source = NULL;
    pair_close(&p);
}

static void pieces_are_bounded(void **state)
{
    (void)state;
    struct pair p;
    struct error e = {0};
    open_remote(&p);
    test_ok(source_want(p.source, KIND_EMBEDDING, 0, &e), &e);
    test_ok(source_want(p.source, KIND_DOWN, 1, &e), &e);
    test_ok(source_want(p.source, KIND_Q_BIAS, 1, &e), &e);
    assert_false(source_ready(p.source));
    bool busy = false;
    test_ok(source_step(p.source, &busy, &e), &e);
    test_ok(source_step(p.source, &busy, &e), &e);
    assert_true(busy);
    size_t pending = transport_pending(p.loop[1]->transport);
    assert_true(pending > 0 && pending < 1024); /* two questions, without answers no more */
    fetch_all(&p);
    assert_int_equal(p.questions, 5);
    same_tensor(&p, KIND_EMBEDDING, 0);
    same_tensor(&p, KIND_DOWN, 1);
    same_tensor(&p, KIND_Q_BIAS, 1);
    assert_true(source_has(p.source, KIND_DOWN, 1));
    pair_close(&p);
}

static void given_back_and_again(void **state)
{
    (void)state;
    struct pair p;
    struct error e = {0};
    open_remote(&p);
    test_ok(source_want(p.source, KIND_UP, 0, &e), &e);
    test_ok(source_want(p.source, KIND_UP, 0, &e), &e);
    fetch_all(&p);
    source_give_back(p.source, KIND_UP, 0);
    same_tensor(&p, KIND_UP, 0); /* the other still wants it */
    source_give_back(p.source, KIND_UP, 0);
    test_ok(source_want(p.source, KIND_UP, 0, &e), &e);
    assert_false(source_has(p.source, KIND_UP, 0));
    fetch_all(&p);
    same_tensor(&p, KIND_UP, 0);
    assert_int_equal(p.questions, 2);
    pair_close(&p);
}

static void check_rows(const struct pair *p, const uint32_t *tokens, size_t n)
{
    size_t bytes = shape.hidden * sizeof(float);
    const struct tensor *a = weights_find(p->weights, "token_embd.weight");
    const struct tensor *b = weights_find(source_weights(p->source), "token_embd.weight");
    for (size_t i = 0; i < n; i++)
        assert_memory_equal(a->data + tokens[i] * bytes, b->data + tokens[i] * bytes, bytes);
}

static void rows_of_tokens(void **state)
{
    static const uint32_t tokens[] = {9999, 3, 4, 5, 3, 7000, 0}, more[] = {4, 6, 7001};
    static const float zeros[256];
    (void)state;
    struct pair p;
    struct error e = {0};
    open_remote(&p);
    test_ok(source_want_tokens(p.source, tokens, 7, &e), &e);
    fetch_all(&p);
    assert_int_equal(p.sender.sent, 6 * shape.hidden * sizeof(float)); /* 3 came twice */
    check_rows(&p, tokens, 7);
    const struct tensor *t = weights_find(source_weights(p.source), "token_embd.weight");
    assert_memory_equal(t->data + 5000 * sizeof zeros, zeros, sizeof zeros);
    /* All for a while, then only what was to stay. */
    test_ok(source_want(p.source, KIND_EMBEDDING, 0, &e), &e);
    test_ok(source_want_tokens(p.source, more, 3, &e), &e);
    fetch_all(&p);
    same_tensor(&p, KIND_EMBEDDING, 0);
    source_give_back(p.source, KIND_EMBEDDING, 0);
    check_rows(&p, tokens, 7);
    check_rows(&p, more, 3);
    assert_memory_equal(t->data + 5000 * sizeof zeros, zeros, sizeof zeros);
    assert_int_equal(source_want_tokens(p.source, &shape.vocab, 1, &e), ERR_USAGE);
    pair_close(&p);
}

/* What rank 0 did not say, and what is not there, is refused. */
static void unasked_and_beyond(void **state)
{
    (void)state;
    struct pair p;
    struct error e = {0};
    open_remote(&p);
    struct message piece = {
        .kind = MSG_FETCHED, .fetched = {KIND_UP, 0}, .payload = "abcd", .payload_bytes = 4};
    test_refused(source_take(p.source, &piece, &e), ERR_PEER, &e, "not asked for");
    uint64_t range[2] = {shape.hidden * sizeof(float) - 3, 4};
    struct message question = {.kind = MSG_FETCH,
                               .peer = 1,
                               .fetch = {KIND_ATTN_NORM, 1},
                               .payload = range,
                               .payload_bytes = sizeof range};
    memset(&e, 0, sizeof e);
    test_refused(compress_source_answer(&p.sender, &question, &e), ERR_PEER, &e, "beyond the end");
    question.fetch.block = 2;
    memset(&e, 0, sizeof e);
    test_refused(compress_source_answer(&p.sender, &question, &e), ERR_PEER, &e, "there is none");
    question.fetch.kind = KIND_COUNT;
    memset(&e, 0, sizeof e);
    test_refused(compress_source_answer(&p.sender, &question, &e), ERR_PEER, &e, "there is none");
    pair_close(&p);
}

static void files_are_preferred(void **state)
{
    (void)state;
    struct pair p;
    struct error e = {0};
    pair_open(&p, MODEL);
    test_ok(source_open(&p.source, p.loop[1], &p.description, &e), &e);
    test_ok(source_want(p.source, KIND_UP, 0, &e), &e);
    assert_true(source_ready(p.source));
    turn(&p);
    assert_int_equal(p.questions, 0);
    assert_false(p.missing);
    same_tensor(&p, KIND_UP, 0);
    source_give_back(p.source, KIND_UP, 0);
    same_tensor(&p, KIND_UP, 0);
    pair_close(&p);

    struct model_config other = shape;
    other.ffn = 352;
    random_model_write(OTHER, &other, DTYPE_F32, 5);
    pair_open(&p, OTHER);
    test_refused(source_open(&p.source, p.loop[1], &p.description, &e), ERR_PEER, &e,
                 "sees another model at " OTHER);
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(described_as_it_is),  cmocka_unit_test(hostile_descriptions),
        cmocka_unit_test(pieces_are_bounded),  cmocka_unit_test(given_back_and_again),
        cmocka_unit_test(rows_of_tokens),      cmocka_unit_test(unasked_and_beyond),
        cmocka_unit_test(files_are_preferred),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
