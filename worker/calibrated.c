/* The order of a calibrated compression: which phase follows which, and what is waited for. Owns the job; must
 * never know how a moment is added or a code is found. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/calibrated_private.h"

struct shared_unit *calibrated_unit_at(const struct calibrated *c, uint32_t block, int step, int i)
{
    return &c->units[((size_t)block * CALIB_STEPS + (size_t)step) * PRODUCT_MAX + (size_t)i];
}

struct shared_unit *calibrated_unit(const struct calibrated *c, int i)
{
    return calibrated_unit_at(c, c->block, (int)c->step, i);
}

bool calibrated_cross(const struct calibrated *c)
{
    return !c->measuring && c->recipe.qep > 0;
}

int calibrated_count(const struct calibrated *c)
{
    enum tensor_kind kinds[PRODUCT_MAX];
    return calib_kinds(c->step, kinds);
}

const struct tensor *calibrated_tensor(const struct calibrated *c, int i)
{
    enum tensor_kind kinds[PRODUCT_MAX];
    char base[64];
    calib_kinds(c->step, kinds);
    model_base_name(base, kinds[i], c->block);
    return weights_find2(c->weights, base, ".weight");
}

/* Making the job */

static enum status take_text(struct calibrated *c, const struct message *m, struct error *e)
{
    uint64_t tokens = 0;
    c->text.windows = m->calib.windows;
    c->text.context = m->calib.context;
    TRY(mem_array(&c->windows, m->payload_bytes / sizeof *c->windows, sizeof *c->windows,
                  "the calibration text", e));
    memcpy(c->windows, m->payload, m->payload_bytes / sizeof *c->windows * sizeof *c->windows);
    for (uint32_t w = 0; w < c->text.windows; w++)
        tokens += c->windows[w];
    FAIL_IF((tokens + c->text.windows) * sizeof *c->windows != m->payload_bytes, e, ERR_PEER,
            "a calibration text of %llu tokens came with %zu bytes", (unsigned long long)tokens,
            m->payload_bytes);
    c->text.length = c->windows;
    c->text.tokens = c->windows + c->text.windows;
    return OK;
}

static enum status open_job(struct calibrated *c, const struct message *m, struct error *e)
{
    const struct msg_calib *a = &m->calib;
    TRY(recipe_parse(&c->recipe, a->recipe, e));
    c->threads = (int)a->threads;
    c->spill = a->spill;
    c->moment_floats = a->moment_floats;
    c->embeddings = (struct row_form){(enum unit_method)a->embeddings, a->embeddings_d};
    c->measuring = a->measure;
    c->phase = a->measure ? PHASE_OPEN : PHASE_WAIT;
    TRY(take_text(c, m, e));
    size_t blocks = c->weights->config.block_count, units = blocks * CALIB_STEPS * PRODUCT_MAX;
    TRY(mem_array(&c->units, units, sizeof *c->units, "the units of the model", e));
    TRY(mem_array(&c->norm_units, 2 * blocks + 1, sizeof *c->norm_units, "norms", e));
    for (size_t i = 0; i < 2 * blocks + 1; i++)
        c->norm_units[i] = NO_UNIT;
    return calibrated_want_text(c, e);
}

enum status calibrated_create(struct calibrated **out, struct loop *loop, struct source *source,
                              const struct message *m, struct error *e)
{
    struct calibrated *c;
    TRY(mem_array(&c, 1, sizeof *c, "a compression job", e));
    c->loop = loop;
    c->source = source;
    c->weights = source_weights(source);
    curvature_init();
    enum status status = open_job(c, m, e);
    if (status != OK) {
        calibrated_free(c);
        return status;
    }
    *out = c;
    return OK;
}

static void free_units(struct calibrated *c)
{
    size_t n = c->units ? (size_t)c->weights->config.block_count * CALIB_STEPS * PRODUCT_MAX : 0;
    for (size_t i = 0; i < n; i++) {
        student_close(&c->units[i].student);
        free(c->units[i].loss);
    }
    free(c->units);
}

void calibrated_free(struct calibrated *c)
{
    if (!c)
        return;
    calibrated_close_search(c);
    calibrated_forget(c);
    calibrated_close_tuning(c);
    calibrated_close_importance(c);
    free_units(c);
    free(c->norm_units);
    calib_free(c->calib);
    moments_free(c->moments);
    queue_clear(&c->early);
    free(c->windows);
    free(c);
}

/* The place of a unit by its name; false for what is no matrix of a block. */
static bool place_of(const char *name, uint32_t *block, int *step, int *i)
{
    enum tensor_kind kind, kinds[PRODUCT_MAX];
    if (!model_kind_of(name, &kind, block))
        return false;
    for (*step = 0; *step < CALIB_STEPS; ++*step) {
        int n = calib_kinds((enum calib_step)*step, kinds);
        for (*i = 0; *i < n; ++*i)
            if (kinds[*i] == kind)
                return true;
    }
    return false;
}

static enum status check_units(const struct calibrated *c, struct error *e)
{
    enum tensor_kind kinds[PRODUCT_MAX];
    for (uint32_t b = 0; b < c->weights->config.block_count; b++)
        for (int s = 0; s < CALIB_STEPS; s++)
            for (int i = 0; i < calib_kinds((enum calib_step)s, kinds); i++)
                FAIL_IF(!calibrated_unit_at(c, b, s, i)->there, e, ERR_PEER,
                        "asked to compress without matrix %s of block %u",
                        model_rule(kinds[i])->label, b);
    return OK;
}

/* Where a norm stands in norm_units; false for anything else. */
static bool norm_place(const struct calibrated *c, const char *name, uint32_t *place)
{
    uint32_t block, blocks = c->weights->config.block_count;
    enum tensor_kind kind;
    if (!model_kind_of(name, &kind, &block) || (model_rule(kind)->per_block && block >= blocks))
        return false;
    *place = kind == KIND_OUTPUT_NORM ? 2 * blocks : 2 * block + (kind == KIND_FFN_NORM);
    return kind == KIND_OUTPUT_NORM || kind == KIND_FFN_NORM || kind == KIND_ATTN_NORM;
}

static enum status take_unit(struct calibrated *c, const struct compress_unit *u, struct error *e)
{
    uint32_t block, place;
    int step, i;
    if (c->recipe.distill > 0 && norm_place(c, u->name, &place)) {
        c->norm_units[place] = u->index;
        return OK;
    }
    FAIL_IF(!place_of(u->name, &block, &step, &i) || block >= c->weights->config.block_count, e,
            ERR_PEER, "asked to calibrate %s, which is no matrix of a block", u->name);
    calibrated_unit_at(c, block, step, i)->unit = *u;
    calibrated_unit_at(c, block, step, i)->there = true;
    return OK;
}

enum status calibrated_units(struct calibrated *c, const struct msg_compress *m, struct error *e)
{
    for (uint32_t i = 0; i < m->n_units; i++)
        if (m->units[i].shared)
            TRY(take_unit(c, &m->units[i], e));
    if (!m->last)
        return OK;
    c->have_units = true;
    if (c->phase == PHASE_WAIT) /* else rank 0 has measured the last product before this rank */
        c->phase = PHASE_OPEN;
    return check_units(c, e);
}

/* Phases */

static enum status open_streams(struct calibrated *c, struct error *e)
{
    const struct transport *t = c->loop->transport;
    calib_free(c->calib);
    c->calib = NULL;
    c->block = 0;
    c->step = CALIB_QKV;
    c->phase = PHASE_BLOCK;
    c->loop->stats.first_block = 0;
    c->loop->stats.block_count = c->weights->config.block_count;
    TRY(calib_create(&c->calib, c->weights, &c->text, moments_first_lane(t->rank, t->size),
                        moments_first_lane(t->rank + 1, t->size), c->embeddings, !c->measuring,
                        c->threads, c->spill, e));
    TRY(calibrated_want_vectors(c, 0, e));
    return c->measuring ? calibrated_open_importance(c, e) : OK;
}

static enum status open_students(struct calibrated *c, struct error *e)
{
    for (int i = 0; i < calibrated_count(c); i++) {
        struct shared_unit *u = calibrated_unit(c, i);
        const struct tensor *t = calibrated_tensor(c, i);
        TRY(student_open(&u->student, (enum unit_method)u->unit.method, u->unit.d, u->unit.columns,
                         (int)t->rows, (int)t->cols, e));
        TRY(mem_array(&u->loss, (size_t)calibrated_bands(u), sizeof *u->loss, "losses of bands", e));
    }
    return OK;
}

/* The first matrix of the step from i on that no earlier run has made; the count of them: none. */
static int next_unmade(const struct calibrated *c, int i)
{
    while (i < calibrated_count(c) && calibrated_unit(c, i)->unit.done)
        i++;
    return i;
}

/* What an earlier run has made of the block is in the file, which rank 0 has. */
static enum status want_made(struct calibrated *c, struct error *e)
{
    struct message m = {.kind = MSG_WANT, .want.block = c->block};
    bool made = false;
    for (int s = 0; s < CALIB_STEPS; s++)
        for (int i = 0; i < PRODUCT_MAX; i++)
            made = made || calibrated_unit_at(c, c->block, s, i)->unit.done;
    return made ? loop_send(c->loop, 0, &m, e) : OK;
}

/* All four steps at once: other ranks may be ahead with their parts. */
static enum status open_block(struct calibrated *c, struct error *e)
{
    if (c->measuring)
        TRY(calibrated_keep_inputs(c, e));
    TRY(calib_block(c->calib, c->block, e));
    calibrated_give_back_vectors(c, c->block);
    for (int s = 0; s < CALIB_STEPS && !c->measuring; s++) {
        c->step = (enum calib_step)s;
        TRY(open_students(c, e));
    }
    c->step = CALIB_QKV;
    c->phase = PHASE_OBSERVE;
    TRY(calibrated_want_step(c, e));
    return c->measuring ? OK : want_made(c, e);
}

static enum status observe(struct calibrated *c, struct error *e)
{
    bool more;
    if (!c->measuring && next_unmade(c, 0) == calibrated_count(c)) {
        c->phase = PHASE_COLLECT;
        return OK;
    }
    if (!c->moments)
        TRY(calibrated_open_moments(c, e));
    TRY(calib_observe(c->calib, c->step, c->moments, &more, e));
    if (more)
        return OK;
    c->phase = PHASE_GATHER;
    return calibrated_share_moments(c, e);
}

static void drop_moments(struct calibrated *c)
{
    moments_free(c->moments);
    c->moments = NULL;
}

static enum status gather(struct calibrated *c, bool *busy, struct error *e)
{
    bool done;
    TRY(calibrated_gathered(c, busy, &done, e));
    if (!done)
        return OK;
    if (!c->measuring) {
        c->phase = PHASE_PREPARE;
        return OK;
    }
    TRY(calibrated_measure(c, e));
    drop_moments(c);
    c->phase = PHASE_ADVANCE;
    return OK;
}

static enum status prepare(struct calibrated *c, struct error *e)
{
    TRY(calibrated_prepare(c, e));
    drop_moments(c);
    c->matrix = next_unmade(c, 0);
    c->phase = PHASE_SEARCH;
    return calibrated_open_search(c, e);
}

static enum status search(struct calibrated *c, struct error *e)
{
    bool done;
    TRY(calibrated_search(c, &done, e));
    if (!done)
        return OK;
    calibrated_close_search(c);
    c->matrix = next_unmade(c, c->matrix + 1);
    if (c->matrix < calibrated_count(c))
        return calibrated_open_search(c, e);
    calibrated_forget(c);
    c->phase = PHASE_COLLECT;
    return OK;
}

/* Whether all rows of the product have come, and at rank 0 their losses. */
static bool collected(const struct calibrated *c)
{
    for (int i = 0; i < calibrated_count(c); i++) {
        const struct shared_unit *u = calibrated_unit(c, i);
        bool losses = c->loop->transport->rank != 0 || u->unit.done ||
                      u->losses == (uint32_t)calibrated_bands(u);
        if (!student_complete(&u->student) || !losses)
            return false;
    }
    return true;
}

static enum status collect(struct calibrated *c, bool *busy, struct error *e)
{
    *busy = collected(c);
    if (!*busy)
        return OK;
    for (int i = 0; i < calibrated_count(c); i++) {
        struct matrix view = student_view(&calibrated_unit(c, i)->student);
        calib_set(c->calib, c->step, i, &view);
    }
    c->phase = PHASE_ADVANCE;
    return c->loop->transport->rank == 0 ? calibrated_deliver(c, false, e) : OK;
}

/* Forgets the block's matrices, which only distillation still needs. */
static void close_block(struct calibrated *c)
{
    if (c->recipe.distill > 0)
        return;
    for (int s = 0; s < CALIB_STEPS; s++)
        for (int i = 0; i < PRODUCT_MAX; i++) {
            struct shared_unit *u = calibrated_unit_at(c, c->block, s, i);
            student_close(&u->student);
            free(u->loss);
            u->loss = NULL;
        }
}

static void close_streams(struct calibrated *c)
{
    calib_free(c->calib);
    c->calib = NULL;
    c->phase = c->measuring && c->have_units ? PHASE_OPEN : PHASE_WAIT;
    c->measuring = false;
}

static enum status end_blocks(struct calibrated *c, struct error *e)
{
    if (c->measuring) {
        c->phase = PHASE_WEIGH;
        TRY(calibrated_want_head(c, e));
        return calibrated_take_early(c, e);
    }
    if (c->recipe.distill == 0) {
        close_streams(c);
        return OK;
    }
    c->phase = PHASE_TUNE;
    for (uint32_t b = 0; b < c->weights->config.block_count; b++)
        TRY(calibrated_want_vectors(c, b, e));
    return calibrated_want_head(c, e);
}

static enum status advance(struct calibrated *c, struct error *e)
{
    bool more;
    TRY(calib_advance(c->calib, c->step, &more, e));
    if (more)
        return OK;
    calibrated_give_back_step(c);
    c->step++;
    c->phase = PHASE_OBSERVE;
    if (c->step < CALIB_STEPS)
        return calibrated_want_step(c, e);
    c->step = CALIB_QKV;
    c->phase = PHASE_BLOCK;
    close_block(c);
    if (++c->block < c->weights->config.block_count)
        return calibrated_want_vectors(c, c->block, e);
    return end_blocks(c, e);
}

/* Rank 0: now that nothing changes any more. */
static enum status deliver_tuned(struct calibrated *c, struct error *e)
{
    uint32_t blocks = c->weights->config.block_count;
    for (c->block = 0; c->block < blocks; c->block++)
        for (int s = 0; s < CALIB_STEPS; s++) {
            c->step = (enum calib_step)s;
            TRY(calibrated_deliver(c, true, e));
        }
    for (uint32_t i = 0; i < 2 * blocks + 1; i++)
        if (c->norm_units[i] != NO_UNIT)
            TRY(calibrated_deliver_vector(c, c->norm_units[i], calibrated_tuned_norm(c, i),
                                          c->weights->config.hidden, e));
    return OK;
}

static enum status weigh(struct calibrated *c, bool *busy, struct error *e)
{
    bool done;
    TRY(calibrated_weigh(c, busy, &done, e));
    if (!done)
        return OK;
    calibrated_close_importance(c);
    close_streams(c);
    return OK;
}

static enum status tune(struct calibrated *c, bool *busy, struct error *e)
{
    bool done;
    if (!c->tuning) {
        TRY(calibrated_open_tuning(c, e));
        for (uint32_t b = 0; b < c->weights->config.block_count; b++)
            calibrated_give_back_vectors(c, b);
        return calibrated_take_early(c, e);
    }
    uint32_t step = calibrated_tune_step(c);
    bool waited = calibrated_tune_waits(c);
    TRY(calibrated_tune(c, busy, &done, e));
    /* The sum may have come while this rank was still looking for windows of its own. */
    if (step != calibrated_tune_step(c) || (!waited && calibrated_tune_waits(c)))
        TRY(calibrated_take_early(c, e));
    if (!done)
        return OK;
    if (c->loop->transport->rank == 0)
        TRY(deliver_tuned(c, e));
    calibrated_close_tuning(c);
    calibrated_give_back_head(c);
    close_streams(c);
    return OK;
}

static enum status do_phase(struct calibrated *c, bool *busy, struct error *e)
{
    switch (c->phase) {
    case PHASE_OPEN:
        return open_streams(c, e);
    case PHASE_BLOCK:
        return open_block(c, e);
    case PHASE_OBSERVE:
        return observe(c, e);
    case PHASE_GATHER:
        return gather(c, busy, e);
    case PHASE_PREPARE:
        return prepare(c, e);
    case PHASE_SEARCH:
        return search(c, e);
    case PHASE_COLLECT:
        return collect(c, busy, e);
    case PHASE_ADVANCE:
        return advance(c, e);
    case PHASE_WEIGH:
        return weigh(c, busy, e);
    case PHASE_TUNE:
        return tune(c, busy, e);
    default:
        *busy = false;
        return OK;
    }
}

enum status calibrated_step(struct calibrated *c, bool *busy, struct error *e)
{
    double start = loop_now();
    if (calibrated_lacks_source(c))
        return OK;
    *busy = true;
    enum status status = do_phase(c, busy, e);
    if (*busy)
        c->loop->stats.compute_s += loop_now() - start;
    return status;
}

bool calibrated_doing(const struct calibrated *c, char out[128])
{
    static const char *const words[] = {"waiting for units",
                                        "beginning",
                                        "reading",
                                        "taking moments of",
                                        "waiting for moments of",
                                        "preparing the search of",
                                        "searching",
                                        "waiting for rows of",
                                        "computing"};
    static const char *const steps[] = {"q, k, v", "the attention's output", "gate and up", "down"};
    if (c->phase == PHASE_WAIT || calibrated_lacks_source(c))
        return false;
    if (c->phase == PHASE_WEIGH) {
        snprintf(out, 128, "weighing errors");
        return true;
    }
    if (c->phase == PHASE_TUNE) {
        snprintf(out, 128, "tuning scales and norms");
        return !c->tuning || !calibrated_tune_waits(c);
    }
    snprintf(out, 128, "%s %s of block %u%s", words[c->phase], steps[c->step], c->block,
             c->measuring ? ", to measure" : "");
    return c->phase != PHASE_GATHER && c->phase != PHASE_COLLECT;
}

/* Messages of other ranks */

/* Of the block in work: what an earlier run has made comes for all its steps at once. */
static struct shared_unit *unit_of_index(const struct calibrated *c, uint32_t index)
{
    for (int s = 0; s < CALIB_STEPS; s++)
        for (int i = 0; i < PRODUCT_MAX; i++) {
            struct shared_unit *u = calibrated_unit_at(c, c->block, s, i);
            if (u->there && u->unit.index == index && u->loss)
                return u;
        }
    return NULL;
}

static enum status take_losses(struct shared_unit *u, const struct message *m, struct error *e)
{
    uint64_t bands = m->payload_bytes / sizeof *u->loss, first = m->part.offset / sizeof *u->loss;
    uint64_t all = (uint64_t)calibrated_bands(u);
    FAIL_IF(m->payload_bytes % sizeof *u->loss || m->part.offset % sizeof *u->loss || first > all ||
                bands > all - first,
            e, ERR_PEER, "rank %d sent losses of bands that are not there", m->peer);
    memcpy(u->loss + first, m->payload, m->payload_bytes);
    u->losses += (uint32_t)bands;
    return OK;
}

static enum status take_part(struct calibrated *c, const struct message *m, struct error *e)
{
    bool working = !c->measuring && c->phase >= PHASE_OBSERVE && c->phase <= PHASE_ADVANCE;
    struct shared_unit *u = working ? unit_of_index(c, m->part.unit) : NULL;
    FAIL_IF(!u, e, ERR_PEER,
            "rank %d sent rows of unit %u, which is not in work", m->peer, m->part.unit);
    if (strcmp(m->part.suffix, ".loss") == 0)
        return take_losses(u, m, e);
    return student_part(&u->student, m->part.suffix, m->part.offset, m->payload, m->payload_bytes,
                        e);
}

enum status calibrated_accept(struct calibrated *c, struct message *m, struct error *e)
{
    if (m->kind == MSG_PART)
        return take_part(c, m, e);
    if (m->kind == MSG_GRADIENT && m->gradient.step == UINT32_MAX)
        return c->phase == PHASE_WEIGH ? calibrated_take_energy(c, m, e)
                                       : queue_put(&c->early, m, e);
    if (m->kind == MSG_STATE)
        return c->tuning ? calibrated_take_state(c, m, e) : queue_put(&c->early, m, e);
    if (m->kind == MSG_GRADIENT)
        return calibrated_tune_ready(c, &m->gradient) ? calibrated_take_gradient(c, m, e)
                                                      : queue_put(&c->early, m, e);
    const struct msg_moments *a = &m->moments;
    bool now = a->block == c->block && a->step == (uint32_t)c->step &&
               a->measuring == c->measuring && c->phase == PHASE_GATHER;
    return now ? calibrated_take_moments(c, m, e) : queue_put(&c->early, m, e);
}

enum status calibrated_take_early(struct calibrated *c, struct error *e)
{
    struct queue early = c->early;
    enum status status = OK;
    c->early = (struct queue){0};
    for (struct message *m; (m = queue_take(&early));) {
        if (status == OK)
            status = calibrated_accept(c, m, e);
        queue_release(m);
    }
    return status;
}
