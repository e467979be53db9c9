/* Sums of what worker/calib.c, moments.c, curvature.c and the searches allocate. */
#include "common/calib_memory.h"

enum {
    BATCH = 256,    /* rows of a window that go through a step together */
    BAND = 64,      /* rows of a matrix that a thread searches at a time */
    PLANES = 6,     /* bands of floats that a search keeps: target, its image, integers, errors */
    LIVE_NODES = 5, /* sums over lanes that wait for their neighbours: log2(16) + 1 */
    TILE = 256,     /* rows of the factorisation's working memory */
    MOMENT_ROWS = 512, /* of differences between the streams */
    PAGE = 4096,
    TOKEN_BYTES = 160, /* of a token in the vocabulary */
    SAMPLES_MOST = 16, /* windows that the measuring pass goes back through */
    SCARCE_ROWS = 128, /* of each, where memory is scarce */
    TEXT_BYTES = 12,   /* of a token of the text: the message, the copy, rank 0's own */
};

#define PROGRAM_BYTES                                                                              \
    ((uint64_t)112 << 20) /* as measured with Open MPI and OpenBLAS, messages included */
#define LOGIT_BYTES    ((uint64_t)128 << 20) /* that distillation keeps at a time */
#define SAMPLED_FLOATS ((uint64_t)1 << 26)
#define SCARCE_FLOATS  ((uint64_t)1 << 24)
#define THREAD_BYTES   ((uint64_t)2 << 20) /* stack, feedback's paths, OpenBLAS' tiles */

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Bytes of one set of blocks [width][width] that lie one after the other. */
static uint64_t packed(uint64_t n, uint64_t width)
{
    uint64_t last = n % width;
    return (n / width * width * width + last * last) * sizeof(float);
}

/* Of so many equal blocks. */
static uint32_t columns_of(uint32_t n, uint32_t blocks)
{
    uint32_t even = (n - 1) / blocks + 1;
    uint32_t whole = ((even - 1) / CALIB_COLUMNS_STEP + 1) * CALIB_COLUMNS_STEP;
    return blocks > 1 && whole < n ? whole : n;
}

uint32_t calib_block_columns(uint32_t n, uint64_t floats)
{
    uint32_t blocks = 1, width = n;
    while (floats > 0 && width > CALIB_COLUMNS_STEP && packed(n, width) / sizeof(float) > floats)
        width = columns_of(n, ++blocks);
    return width;
}

/* Bytes of the pages of a square [n][n] that its diagonal blocks lie on. */
static uint64_t spread(uint64_t n, uint64_t width)
{
    return width == n ? packed(n, n) : n * (width * sizeof(float) + PAGE);
}

/* The most that moments and what follows from them take for a product of n columns. */
static uint64_t moments_bytes(const struct calib_job *job, uint64_t n, uint64_t width)
{
    uint64_t set = packed(n, width), image = spread(n, width), cross = job->cross ? 1 : 0;
    uint64_t one = width == n ? 0 : packed(width, width); /* a block on its way to its place */
    uint64_t curvature = image * (job->feedback ? 2 : 1);
    uint64_t observe = LIVE_NODES * (1 + cross) * set + cross * MOMENT_ROWS * n * sizeof(float);
    uint64_t correct = cross * (3 * set + packed(width, width));
    uint64_t prepare = (1 + cross) * set + curvature + one + TILE * width * sizeof(float);
    return most(observe, most(correct, prepare));
}

/* The same while searching: bands of all threads beside curvature and correction. */
static uint64_t search_bytes(const struct calib_job *job, uint64_t n)
{
    uint64_t floats = (PLANES + 2) * BAND * n;
    return job->threads * (floats * sizeof(float) + 2 * BAND * n + THREAD_BYTES);
}

/* One stream's activations and its working memory are of these widths. */
struct widths {
    uint64_t hidden, attended, kv, ffn, wide;
};

static struct widths widths_of(const struct model_config *c)
{
    struct widths w = {.hidden = c->hidden,
                       .attended = (uint64_t)c->heads * c->head_dim,
                       .kv = (uint64_t)c->kv_heads * c->head_dim,
                       .ffn = c->ffn};
    w.wide = most(w.attended, w.ffn);
    return w;
}

static uint64_t work_bytes(const struct calib_job *job, bool on_disk)
{
    const struct model_config *c = job->config;
    struct widths w = widths_of(c);
    uint64_t rows = job->context < BATCH ? job->context : BATCH;
    uint64_t normed = 2 * job->context * w.hidden;
    uint64_t room = on_disk ? 2 * job->context * most(w.hidden, w.wide) : 0;
    uint64_t batch = rows * (3 * w.hidden + 2 * w.attended + 2 * w.kv + 2 * w.ffn);
    uint64_t prepared = 2 * rows * (w.wide + 2 * w.hidden);
    uint64_t scores = (uint64_t)job->threads * (c->heads / c->kv_heads) * job->context;
    uint64_t cache = job->context * w.kv; /* keys and values of two bytes */
    return (normed + room + batch + prepared + scores + cache) * sizeof(float);
}

uint64_t calib_parameters(const struct model_config *c)
{
    struct widths w = widths_of(c);
    uint64_t rows = 2 * w.hidden + w.attended + 2 * w.kv + 2 * w.ffn + 2 * w.hidden;
    return rows * c->block_count + w.hidden;
}

uint64_t calib_recode_weights(const struct model_config *c)
{
    struct widths w = widths_of(c);
    uint64_t rows =
        w.attended + 2 * w.kv + 2 * w.ffn; /* of five matrices, each of hidden columns */
    return c->block_count *
           ((rows + 5 * BAND) * w.hidden + (w.hidden + BAND) * (w.attended + w.ffn));
}

bool calib_recodes(const struct model_config *c, double recode)
{
    return recode > 0 && calib_recode_weights(c) <= CALIB_RECODE_MOST;
}

/* A window going back through a block and the head. */
static uint64_t back_bytes(const struct model_config *c, uint64_t context)
{
    struct widths w = widths_of(c);
    uint64_t block = context * (8 * w.hidden + 8 * w.attended + 6 * w.kv + 5 * w.ffn);
    uint64_t prepared = 2 * context * (w.wide + 2 * w.hidden);
    uint64_t matrix = TILE * (w.wide + BAND);
    uint64_t logits = 2 * (uint64_t)c->vocab * most(16, context < BATCH ? context : BATCH);
    uint64_t at_a_time = most(LOGIT_BYTES, 2 * 16 * (uint64_t)c->vocab * sizeof(float));
    logits *= sizeof(float);
    return (block + prepared + matrix) * sizeof(float) + (logits < at_a_time ? logits : at_a_time);
}

struct calib_samples calib_samples(const struct model_config *c, uint32_t context, uint64_t floats)
{
    struct calib_samples s = {SAMPLES_MOST, context};
    if (floats > 0 && s.rows > SCARCE_ROWS)
        s.rows = SCARCE_ROWS;
    uint64_t each = (uint64_t)c->block_count * c->hidden * s.rows;
    while (s.lanes > 1 && s.lanes * each > (floats > 0 ? SCARCE_FLOATS : SAMPLED_FLOATS))
        s.lanes /= 2;
    return s;
}

/* The windows that the measuring pass keeps. */
static uint64_t sampled_bytes(const struct model_config *c, struct calib_samples s)
{
    uint64_t each = (uint64_t)s.rows * c->hidden * (c->block_count + 1);
    return s.lanes * (each + calib_parameters(c)) * sizeof(float);
}

static uint64_t distill_bytes(const struct calib_job *job)
{
    const struct model_config *c = job->config;
    uint64_t states = (uint64_t)job->context * c->hidden * (c->block_count + 2);
    uint64_t recoded = calib_recodes(c, job->recode) ? calib_recode_weights(c) : 0;
    return (states + (job->distill + 4) * (calib_parameters(c) + recoded)) * sizeof(float);
}

/* sampled and back, and in total the most that the phases need: measuring, going back, compressing,
 * distilling. */
static void add_back(struct calib_memory *m, const struct calib_job *job, struct calib_samples s)
{
    const struct model_config *c = job->config;
    uint64_t search = m->source + m->moments + m->threads, back = 0, distill = 0;
    if (job->measure) {
        m->sampled = sampled_bytes(c, s);
        back = back_bytes(c, s.rows) + job->back_bytes;
    }
    if (job->distill)
        distill = back_bytes(c, job->context) + distill_bytes(job) + job->back_bytes;
    m->back = most(back, distill);
    m->total = most(m->sampled + most(job->measure ? search : 0, back),
                    m->student + most(search, distill));
}

void calib_memory_need(struct calib_memory *m, const struct calib_job *job, uint64_t floats,
                       bool on_disk)
{
    const struct model_config *c = job->config;
    struct widths w = widths_of(c);
    const uint64_t inputs[] = {w.hidden, w.attended, w.ffn};
    *m = (struct calib_memory){
        .program = PROGRAM_BYTES + (uint64_t)c->vocab * TOKEN_BYTES + job->text_tokens * TEXT_BYTES,
        .source = job->source_bytes,
        .student = job->student_bytes,
        .sent = job->sent_bytes,
        .activations = 2 * job->rank_tokens * (w.hidden + w.wide) * sizeof(float),
        .on_disk = on_disk,
        .work = work_bytes(job, on_disk)};
    for (int i = 0; i < 3; i++) {
        uint64_t n = inputs[i], width = calib_block_columns((uint32_t)n, floats);
        uint64_t before = moments_bytes(job, n, width), threads = search_bytes(job, n);
        uint64_t kept =
            (job->cross ? packed(n, width) : 0) + spread(n, width) * (job->feedback ? 2 : 1);
        if (width < n && width > m->columns)
            m->columns = (uint32_t)width;
        if (most(before, kept + threads) <= m->moments + m->threads)
            continue;
        m->moments = before > kept + threads ? before : kept;
        m->threads = before > kept + threads ? 0 : threads;
    }
    add_back(m, job, calib_samples(c, job->context, floats));
    m->total += m->program + m->sent + m->work + (on_disk ? 0 : m->activations);
}

bool calib_memory_fit(const struct calib_job *job, uint64_t ram, uint64_t *floats)
{
    struct calib_job usual = *job;
    struct calib_memory m;
    uint32_t widest = (uint32_t)most(widths_of(job->config).wide, job->config->hidden);
    usual.threads = CALIB_USUAL_THREADS;
    *floats = 0;
    for (uint32_t blocks = 1, width = widest;; width = columns_of(widest, ++blocks)) {
        calib_memory_need(&m, &usual, *floats, true);
        if (m.total <= ram)
            return true;
        if (width <= CALIB_COLUMNS_STEP)
            return false;
        *floats = packed(widest, columns_of(widest, blocks + 1)) / sizeof(float);
    }
}
