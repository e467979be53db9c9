/* The life of the two streams: embeddings, then block by block and step by step through all
 * windows. Owns the activations, the binding of the original's block and one window's working
 * memory; must never know how the student's matrices came about. */
#include "worker/calib.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/act_store.h"
#include "worker/bind.h"
#include "worker/kvcache.h"
#include "worker/layer.h"
#include "worker/rope.h"
#include "worker/scratch.h"

/* Rows of a window that go through a step together: enough for the kernels to reuse weights, few
 * enough for their working memory to be small beside the activations. Results do not depend on
 * it. */
#define BATCH 256u

enum { TEACHER, STUDENT, STREAMS };

_Static_assert((int)CALIB_QKV == LAYER_ATTEND && (int)CALIB_O == LAYER_OUT &&
                   (int)CALIB_GATE_UP == LAYER_GATE && (int)CALIB_DOWN == LAYER_DOWN,
               "the steps of calibration are those of a block");

struct window {
    int lane;
    size_t first; /* its first row among this rank's */
    uint32_t rows;
};

struct stream {
    struct model_config config; /* the student's differs in the order of rotated rows */
    struct block_weights weights;
    struct act_store *x;    /* [rows][hidden] */
    struct act_store *wide; /* [rows][cols of the step] inputs of CALIB_O or CALIB_DOWN */
    float *normed; /* [context][hidden] inputs of CALIB_QKV or CALIB_GATE_UP of one window */
    float *room;   /* on disk: [context][widest of x and wide] of one window */
};

struct calib {
    const struct weights *source; /* borrowed */
    const uint32_t *tokens;       /* [rows] of this rank's windows, borrowed */
    size_t rows;
    struct window *window; /* [windows] */
    uint32_t windows, context;
    uint32_t next; /* window of the pass under way */
    uint32_t block;
    int streams;
    struct stream stream[STREAMS];
    struct row_rounder *embeddings; /* as the student has them */
    struct binder binder, head_binder;
    struct head_weights head;
    struct rope rope;
    float *cosine, *sine; /* [context][rope_dim / 2] */
    struct kvcache cache; /* one block, one sequence: a window's */
    struct scratch scratch;
};

int calib_kinds(enum calib_step step, enum tensor_kind kinds[PRODUCT_MAX])
{
    static const struct {
        int count;
        enum tensor_kind kind[PRODUCT_MAX];
    } products[CALIB_STEPS] = {
        [CALIB_QKV] = {3, {KIND_Q, KIND_K, KIND_V}},
        [CALIB_O] = {1, {KIND_O}},
        [CALIB_GATE_UP] = {2, {KIND_GATE, KIND_UP}},
        [CALIB_DOWN] = {1, {KIND_DOWN}},
    };
    memcpy(kinds, products[step].kind, sizeof products[step].kind);
    return products[step].count;
}

int calib_cols(const struct calib *c, enum calib_step step)
{
    const struct model_config *m = &c->source->config;
    uint32_t cols = step == CALIB_O      ? m->heads * m->head_dim
                    : step == CALIB_DOWN ? m->ffn
                                         : m->hidden;
    return (int)cols;
}

static struct product *product_of(struct block_weights *w, enum calib_step step)
{
    struct product *const products[CALIB_STEPS] = {&w->qkv, &w->o, &w->gate_up, &w->down};
    return products[step];
}

/* Opening */

/* The windows of these lanes: a run of the text's, since lanes are. */
static enum status choose_windows(struct calib *c, const struct calib_text *text, int first_lane,
                                  int end_lane, struct error *e)
{
    size_t at = 0;
    TRY(mem_array(&c->window, text->windows, sizeof *c->window, "calibration windows", e));
    c->tokens = text->tokens;
    for (uint32_t w = 0; w < text->windows; w++) {
        int lane = moments_lane(w, text->windows);
        uint32_t rows = text->length[w];
        FAIL_IF(rows == 0 || rows > text->context, e, ERR_USAGE,
                "calibration window %u has %u tokens: 1 to %u are possible", w, rows,
                text->context);
        if (lane < first_lane)
            c->tokens += rows;
        if (lane < first_lane || lane >= end_lane)
            continue;
        c->window[c->windows++] = (struct window){lane, at, rows};
        at += rows;
    }
    c->rows = at;
    for (size_t i = 0; i < at; i++)
        FAIL_IF(c->tokens[i] >= c->source->config.vocab, e, ERR_USAGE,
                "the calibration text has a token %u, but the vocabulary of %s has %u",
                c->tokens[i], c->source->path, c->source->config.vocab);
    return OK;
}

static enum status allocate_streams(struct calib *c, bool on_disk, struct error *e)
{
    const struct model_config *m = &c->source->config;
    size_t hidden = m->hidden, attended = (size_t)m->heads * m->head_dim;
    size_t wide = attended > m->ffn ? attended : m->ffn, widest = wide > hidden ? wide : hidden;
    const char *what = "activations of the calibration text";
    for (int i = 0; i < c->streams; i++) {
        struct stream *s = &c->stream[i];
        s->config = *m;
        TRY(act_store_create(&s->x, c->rows * hidden, on_disk, what, e));
        TRY(act_store_create(&s->wide, c->rows * wide, on_disk, what, e));
        TRY(mem_array(&s->normed, c->context, hidden * sizeof(float), what, e));
        if (on_disk)
            TRY(mem_array(&s->room, c->context, widest * sizeof(float), what, e));
    }
    return OK;
}

void calib_room(const struct calib *c, size_t room[PRODUCT_MAX])
{
    enum tensor_kind kinds[PRODUCT_MAX];
    for (int step = 0; step < CALIB_STEPS; step++) {
        int count = calib_kinds((enum calib_step)step, kinds);
        for (int type = 0; type < MATRIX_TYPES; type++) {
            struct matrix m = {.type = (enum matrix_type)type,
                               .cols = calib_cols(c, (enum calib_step)step)};
            size_t bytes = act_bytes(&m);
            for (int i = 0; i < count; i++)
                room[i] = bytes > room[i] ? bytes : room[i];
        }
    }
}

static enum status allocate_work(struct calib *c, uint32_t threads, struct error *e)
{
    const struct model_config *m = &c->source->config;
    size_t room[PRODUCT_MAX] = {0}, pairs = m->rope_dim / 2;
    calib_room(c, room);
    TRY(scratch_create(&c->scratch, m, c->context < BATCH ? c->context : BATCH, threads, c->context,
                       room, e));
    TRY(kvcache_create(&c->cache, KV_F16, 1, 1, m->kv_heads, c->context, m->head_dim, e));
    TRY(rope_create(&c->rope, m, c->source->rope_factors, e));
    TRY(mem_array(&c->cosine, c->context, pairs * sizeof(float), "RoPE angles", e));
    TRY(mem_array(&c->sine, c->context, pairs * sizeof(float), "RoPE angles", e));
    for (uint32_t i = 0; i < c->context; i++)
        rope_angles(&c->rope, i, c->cosine + i * pairs, c->sine + i * pairs);
    return OK;
}

/* Takes a matrix of the original out of the resident set until it is read again. */
static void drop(const struct calib *c, enum tensor_kind kind)
{
    char base[64];
    model_base_name(base, kind, c->block);
    const struct tensor *t = weights_find2(c->source, base, ".weight");
    if (t)
        weights_drop(t, 0, t->bytes);
}

/* x becomes the row as the compressed file will hold it. */
static enum status round_row(const struct calib *c, float *x, struct error *e)
{
    FAIL_IF(!row_rounder_round(c->embeddings, x, x), e, ERR_LIMIT,
            "%s: the embeddings have values beyond what their type can hold: use --embeddings f32",
            c->source->path);
    return OK;
}

/* Gathered rows whose neighbours may stay in memory: up to 2 MiB each, as file systems of today
 * keep their pages. */
#define EMBED_ROWS 16

/* x[n][hidden] = the embeddings of tokens, of the original or as the student begins. */
static enum status embed(struct calib *c, const uint32_t *tokens, size_t n, int stream, float *x,
                         struct error *e)
{
    const struct matrix *source = &c->head.embedding;
    size_t hidden = c->source->config.hidden;
    enum status status = OK;
    for (size_t r = 0; r < n && status == OK; r++) {
        float *row = x + r * hidden;
        kernels.row[source->type](source, (int)tokens[r], row);
        if (stream == STUDENT)
            status = round_row(c, row, e);
        if (r % EMBED_ROWS == 0 || r + 1 == n)
            drop(c, KIND_EMBEDDING);
    }
    return status;
}

static enum status begin_window(struct calib *c, int stream, const struct window *w,
                                struct error *e)
{
    struct stream *s = &c->stream[stream];
    size_t hidden = s->config.hidden;
    TRY(embed(c, c->tokens + w->first, w->rows, stream, s->normed, e));
    return act_store_write(s->x, w->first * hidden, w->rows * hidden, s->normed, e);
}

static enum status begin_streams(struct calib *c, struct error *e)
{
    c->head_binder.weights = c->source;
    TRY(bind_head(&c->head_binder, &c->head, e));
    for (int i = 0; i < c->streams; i++)
        for (uint32_t w = 0; w < c->windows; w++)
            TRY(begin_window(c, i, &c->window[w], e));
    return OK;
}

static enum status open_streams(struct calib *c, const struct calib_text *text, int first_lane,
                                int end_lane, struct row_form embeddings, int threads, bool on_disk,
                                struct error *e)
{
    FAIL_IF(threads < 1, e, ERR_USAGE, "asked to use %d threads", threads);
    FAIL_IF(text->context == 0, e, ERR_USAGE, "calibration windows have no tokens");
    TRY(choose_windows(c, text, first_lane, end_lane, e));
    TRY(allocate_streams(c, on_disk, e));
    TRY(allocate_work(c, (uint32_t)threads, e));
    TRY(row_rounder_create(&c->embeddings, embeddings, c->source->config.hidden, e));
    return begin_streams(c, e);
}

enum status calib_create(struct calib **out, const struct weights *source,
                         const struct calib_text *text, int first_lane, int end_lane,
                         struct row_form embeddings, bool student, int threads, bool on_disk,
                         struct error *e)
{
    struct calib *c;
    TRY(mem_array(&c, 1, sizeof *c, "calibration", e));
    c->source = c->binder.weights = source;
    c->context = text->context;
    c->streams = student ? STREAMS : 1;
    enum status status =
        open_streams(c, text, first_lane, end_lane, embeddings, threads, on_disk, e);
    if (status != OK) {
        calib_free(c);
        return status;
    }
    *out = c;
    return OK;
}

void calib_free(struct calib *c)
{
    if (!c)
        return;
    for (int i = 0; i < STREAMS; i++) {
        act_store_free(c->stream[i].x);
        act_store_free(c->stream[i].wide);
        free(c->stream[i].normed);
        free(c->stream[i].room);
    }
    scratch_free(&c->scratch);
    kvcache_free(&c->cache);
    rope_free(&c->rope);
    bind_free(&c->binder);
    bind_free(&c->head_binder);
    row_rounder_free(c->embeddings);
    free(c->cosine);
    free(c->sine);
    free(c->window);
    free(c);
}

/* Blocks */

/* Norms and biases are the original's, matrices come by calib_set. Rows of q and k will stand in
 * GGUF's order. (Models whose order that changes have neither biases nor norms of q and k:
 * common/model_hf.c.) */
static void begin_student(struct calib *c)
{
    struct stream *s = &c->stream[STUDENT];
    char base[64];
    model_base_name(base, KIND_Q, c->block);
    const struct tensor *q = weights_find2(c->source, base, ".weight");
    s->config.rope_interleaved = c->source->config.rope_interleaved || (q && q->rope_heads > 0);
    s->weights = c->stream[TEACHER].weights;
    for (int step = 0; step < CALIB_STEPS; step++) {
        struct product *p = product_of(&s->weights, (enum calib_step)step);
        memset(p->m, 0, sizeof p->m);
    }
}

enum status calib_block(struct calib *c, uint32_t block, struct error *e)
{
    bind_free(&c->binder);
    c->binder.weights = c->source;
    c->block = block;
    TRY(bind_block(&c->binder, block, &c->stream[TEACHER].weights, e));
    if (c->streams > STUDENT)
        begin_student(c);
    return OK;
}

void calib_set(struct calib *c, enum calib_step step, int i, const struct matrix *m)
{
    product_of(&c->stream[STUDENT].weights, step)->m[i] = *m;
}

/* Windows */

/* The next window of the pass, or NULL after the last. */
static const struct window *next_window(struct calib *c, bool *more)
{
    *more = c->next < c->windows;
    if (!*more)
        c->next = 0;
    return *more ? &c->window[c->next++] : NULL;
}

static enum status check_finite(const struct calib *c, int stream, const float *x, size_t n,
                                struct error *e)
{
    int bad = 0;
    for (size_t i = 0; i < n; i++)
        bad |= !isfinite(x[i]);
    FAIL_IF(bad, e, ERR_LIMIT,
            stream == TEACHER
                ? "the activations of %s run out of range in block %u on the calibration text: is "
                  "the model sound?"
                : "the activations of %s as compressed so far run out of range in block %u on the "
                  "calibration text: use more bits",
            c->source->path, c->block);
    return OK;
}

static bool is_normed(enum calib_step step)
{
    return step == CALIB_QKV || step == CALIB_GATE_UP;
}

/* *inputs of a step in one stream, [window's rows][calib_cols]. */
static enum status inputs_of(struct calib *c, int stream, enum calib_step step,
                             const struct window *w, const float **inputs, struct error *e)
{
    struct stream *s = &c->stream[stream];
    int hidden = (int)s->config.hidden;
    size_t cols = (size_t)calib_cols(c, step);
    if (!is_normed(step))
        return act_store_view(s->wide, w->first * cols, w->rows * cols, s->room, inputs, e);
    const float *weight = step == CALIB_QKV ? s->weights.attn_norm : s->weights.ffn_norm, *x;
    TRY(act_store_view(s->x, w->first * cols, w->rows * cols, s->room, &x, e));
#pragma omp parallel for num_threads(c->scratch.threads) schedule(static)
    for (uint32_t r = 0; r < w->rows; r++)
        kernels.rms_norm(s->normed + (size_t)r * (size_t)hidden, x + (size_t)r * (size_t)hidden,
                         weight, hidden, s->config.rms_eps);
    *inputs = s->normed;
    return OK;
}

enum status calib_observe(struct calib *c, enum calib_step step, struct moments *m, bool *more,
                          struct error *e)
{
    const float *inputs[STREAMS] = {NULL};
    const struct window *w = next_window(c, more);
    if (!w)
        return OK;
    for (int i = 0; i < c->streams; i++) {
        TRY(inputs_of(c, i, step, w, &inputs[i], e));
        TRY(check_finite(c, i, inputs[i], w->rows * (size_t)calib_cols(c, step), e));
    }
    bool both = c->streams > STUDENT;
    return moments_add(m, w->lane, inputs[both ? STUDENT : TEACHER], both ? inputs[TEACHER] : NULL,
                       (int)w->rows, e);
}

/* Rows [first, first + count) of a window stand in the working memory as the step wants them. */
static enum status load_rows(struct calib *c, const struct stream *s, enum calib_step step,
                             const struct window *w, uint32_t first, uint32_t count,
                             struct error *e)
{
    struct scratch *work = &c->scratch;
    size_t hidden = s->config.hidden, pairs = s->config.rope_dim / 2;
    size_t cols = (size_t)calib_cols(c, step), at = w->first + first;
    work->rows = (int)count;
    TRY(act_store_read(s->x, at * hidden, count * hidden, work->x, e));
    if (!is_normed(step))
        TRY(act_store_read(s->wide, at * cols, count * cols,
                           step == CALIB_O ? work->attended : work->gate, e));
    if (step != CALIB_QKV)
        return OK;
    for (uint32_t r = 0; r < count; r++)
        work->row[r] = (struct row){0, first + r};
    memcpy(work->cosine, c->cosine + first * pairs, count * pairs * sizeof(float));
    memcpy(work->sine, c->sine + first * pairs, count * pairs * sizeof(float));
    return OK;
}

/* The step's results: x, or the inputs of the next step. */
static enum status store_rows(struct calib *c, struct stream *s, enum calib_step step, size_t at,
                              uint32_t count, struct error *e)
{
    const struct scratch *work = &c->scratch;
    size_t hidden = s->config.hidden;
    if (!is_normed(step))
        return act_store_write(s->x, at * hidden, count * hidden, work->x, e);
    size_t cols = (size_t)calib_cols(c, step == CALIB_QKV ? CALIB_O : CALIB_DOWN);
    return act_store_write(s->wide, at * cols, count * cols,
                           step == CALIB_QKV ? work->attended : work->gate, e);
}

static enum status advance_window(struct calib *c, int stream, enum calib_step step,
                                  const struct window *w, struct error *e)
{
    struct stream *s = &c->stream[stream];
    const struct layer layer = {&s->config, &s->weights, &c->cache, 0};
    uint32_t batch = (uint32_t)c->scratch.batch;
    product_plan(product_of(&s->weights, step));
    for (uint32_t first = 0; first < w->rows; first += batch) {
        uint32_t count = w->rows - first < batch ? w->rows - first : batch;
        TRY(load_rows(c, s, step, w, first, count, e));
        layer_step(&layer, (enum layer_step)step, &c->scratch);
        if (step == CALIB_DOWN)
            TRY(check_finite(c, stream, c->scratch.x, count * (size_t)s->config.hidden, e));
        TRY(store_rows(c, s, step, w->first + first, count, e));
    }
    return OK;
}

enum status calib_advance(struct calib *c, enum calib_step step, bool *more, struct error *e)
{
    enum tensor_kind kinds[PRODUCT_MAX];
    const struct window *w = next_window(c, more);
    for (int i = 0; !w && i < calib_kinds(step, kinds); i++)
        drop(c, kinds[i]);
    for (int i = 0; w && i < c->streams; i++)
        TRY(advance_window(c, i, step, w, e));
    return OK;
}

/* Results */

uint32_t calib_windows(const struct calib *c)
{
    return c->windows;
}

enum status calib_hidden(const struct calib *c, uint32_t i, bool student, const float **x,
                         uint32_t *rows, struct error *e)
{
    const struct window *w = &c->window[i];
    const struct stream *s = &c->stream[student ? STUDENT : TEACHER];
    size_t hidden = c->source->config.hidden;
    *rows = w->rows;
    return act_store_view(s->x, w->first * hidden, w->rows * hidden, s->room, x, e);
}

const uint32_t *calib_tokens(const struct calib *c, uint32_t i)
{
    return c->tokens + c->window[i].first;
}

enum status calib_embeddings(struct calib *c, uint32_t i, bool student, float *x, struct error *e)
{
    return embed(c, calib_tokens(c, i), c->window[i].rows, student ? STUDENT : TEACHER, x, e);
}

const struct head_weights *calib_head(const struct calib *c)
{
    return &c->head;
}

int calib_lane(const struct calib *c, uint32_t i)
{
    return c->window[i].lane;
}

const struct model_config *calib_config(const struct calib *c, bool student)
{
    return &c->stream[student ? STUDENT : TEACHER].config;
}

uint32_t calib_rows(const struct calib *c, uint32_t i)
{
    return c->window[i].rows;
}
