/* What an error in the outputs of each matrix costs, at the end of the measuring pass: the mean over tokens and rows
 * of the squared gradient of the text's likelihood by these outputs (the diagonal of the empirical Fisher
 * information; half of it times an error's square is the loss of likelihood). One window of each of some lanes
 * goes back through the original, block by block, so that every weight is read once. Must never know of bits. */
#include <stdlib.h>
#include <string.h>

#include "common/calib_memory.h"
#include "common/mem.h"
#include "worker/calibrated_private.h"
#include "worker/tune_block.h"
#include "worker/tune_head.h"

struct sample { /* a window of this rank */
    bool own;
    uint32_t window; /* number among this rank's */
    uint32_t rows;
    float *x;      /* [block_count][rows][hidden] what went into each block */
    float *dx;     /* [rows][hidden] */
    float *energy; /* [block_count][tune_block_size]; at rank 0 those of others too */
};

struct importance {
    uint32_t samples, rows; /* calib_memory.h; of the longest */
    struct sample sample[MOMENT_LANES];
    float *unused;            /* gradients by parameters */
    struct tune_block *block;
    struct binder binder;
    size_t size; /* floats of an energy */
    uint32_t next; /* blocks before this one are still to be passed; one more: the head too */
};

static int lane_of(const struct importance *m, uint32_t i)
{
    return (int)(i * (MOMENT_LANES / m->samples));
}

/* The first window of each sampled lane of this rank. */
static enum status choose_windows(struct calibrated *c, struct importance *m, struct error *e)
{
    size_t hidden = c->weights->config.hidden, blocks = c->weights->config.block_count;
    for (uint32_t i = 0; i < m->samples; i++) {
        struct sample *s = &m->sample[i];
        for (uint32_t w = 0; w < calib_windows(c->calib) && !s->own; w++) {
            if (calib_lane(c->calib, w) != lane_of(m, i))
                continue;
            s->own = true;
            s->window = w;
            s->rows = calib_rows(c->calib, w) < m->rows ? calib_rows(c->calib, w) : m->rows;
            TRY(mem_array(&s->x, blocks, s->rows * hidden * sizeof(float), "sampled activations",
                          e));
            TRY(mem_array(&s->dx, s->rows, hidden * sizeof(float), "sampled gradients", e));
            TRY(mem_array(&s->energy, m->size, sizeof(float), "squares of gradients", e));
        }
    }
    return OK;
}

enum status calibrated_open_importance(struct calibrated *c, struct error *e)
{
    const struct model_config *config = &c->weights->config;
    TRY(mem_array(&c->importance, 1, sizeof *c->importance, "importances", e));
    struct importance *m = c->importance;
    struct calib_samples chosen = calib_samples(config, c->text.context, c->moment_floats);
    m->samples = chosen.lanes;
    m->rows = chosen.rows;
    m->size = tune_block_size(config) * config->block_count;
    m->next = config->block_count + 1;
    return choose_windows(c, m, e);
}

void calibrated_close_importance(struct calibrated *c)
{
    struct importance *m = c->importance;
    if (!m)
        return;
    for (int i = 0; i < MOMENT_LANES; i++) {
        free(m->sample[i].x);
        free(m->sample[i].dx);
        free(m->sample[i].energy);
    }
    tune_block_free(m->block);
    bind_free(&m->binder);
    free(m->unused);
    free(m);
    c->importance = NULL;
}

enum status calibrated_keep_inputs(struct calibrated *c, struct error *e)
{
    size_t hidden = c->weights->config.hidden;
    for (uint32_t i = 0; i < c->importance->samples; i++) {
        struct sample *s = &c->importance->sample[i];
        const float *x;
        uint32_t rows;
        if (!s->own)
            continue;
        TRY(calib_hidden(c->calib, s->window, false, &x, &rows, e));
        memcpy(s->x + c->block * s->rows * hidden, x, s->rows * hidden * sizeof *x);
    }
    return OK;
}

/* dx of a sample from the likelihood of its tokens; the last one has no successor. */
static enum status pass_head(struct calibrated *c, struct tune_head *h, struct sample *s,
                             struct error *e)
{
    const float *x;
    uint32_t rows;
    TRY(calib_hidden(c->calib, s->window, false, &x, &rows, e));
    FAIL_IF(!tune_head_likelihood(h, x, calib_tokens(c->calib, s->window) + 1, s->rows - 1, s->dx),
            e, ERR_LIMIT,
            "the logits of %s run out of range on the calibration text: is the model sound?",
            c->weights->path);
    return OK;
}

static enum status pass_heads(struct calibrated *c, struct error *e)
{
    const struct head_weights *head = calib_head(c->calib);
    const struct tune_output output = {head->output_norm, &head->output};
    struct importance *m = c->importance;
    struct tune_head *h;
    TRY(tune_head_create(&h, &c->weights->config, &output, &output, c->threads, e));
    enum status status = OK;
    for (uint32_t i = 0; i < m->samples && status == OK; i++)
        if (m->sample[i].own && m->sample[i].rows > 1)
            status = pass_head(c, h, &m->sample[i], e);
    tune_head_free(h);
    return status;
}

static enum status open_blocks(struct calibrated *c, struct error *e)
{
    size_t room[PRODUCT_MAX] = {0};
    struct importance *m = c->importance;
    const struct model_config *config = &c->weights->config;
    calib_room(c->calib, room);
    TRY(mem_array(&m->unused, tune_block_size(config), sizeof *m->unused, "gradients", e));
    return tune_block_create(&m->block, config, c->weights->rope_factors, m->rows, room, c->threads,
                             e);
}

static enum status pass_block(struct calibrated *c, uint32_t b, struct error *e)
{
    struct importance *m = c->importance;
    const struct model_config *config = &c->weights->config;
    size_t size = tune_block_size(config);
    struct block_weights w;
    struct tune_vector unused = tune_block_vector(config, m->unused);
    bind_free(&m->binder);
    m->binder.weights = c->weights;
    TRY(bind_block(&m->binder, b, &w, e));
    for (uint32_t i = 0; i < m->samples; i++) {
        struct sample *s = &m->sample[i];
        if (!s->own)
            continue;
        struct tune_vector energy = tune_block_vector(config, s->energy + b * size);
        tune_block_backward(m->block, &w, s->x + (size_t)b * s->rows * config->hidden, s->rows,
                            s->dx, &unused, &energy);
        TRY(loop_alive(c->loop, e));
    }
    return OK;
}

static enum status share(struct calibrated *c, struct error *e)
{
    struct importance *m = c->importance;
    for (uint32_t i = 0; i < m->samples; i++) {
        struct message out = {.kind = MSG_GRADIENT,
                              .payload = m->sample[i].energy,
                              .payload_bytes = m->size * sizeof(float)};
        out.gradient = (struct msg_gradient){.step = UINT32_MAX, .lane = (uint32_t)lane_of(m, i)};
        if (m->sample[i].own && c->loop->transport->rank != 0)
            TRY(loop_send(c->loop, 0, &out, e));
    }
    return OK;
}

enum status calibrated_take_energy(struct calibrated *c, const struct message *in, struct error *e)
{
    struct importance *m = c->importance;
    uint32_t i = in->gradient.lane / (MOMENT_LANES / m->samples);
    FAIL_IF(i >= m->samples || (int)in->gradient.lane != lane_of(m, i) || m->sample[i].energy ||
                in->payload_bytes != m->size * sizeof(float),
            e, ERR_PEER, "rank %d sent squares of gradients that were not expected", in->peer);
    TRY(mem_array(&m->sample[i].energy, m->size, sizeof(float), "squares of gradients", e));
    memcpy(m->sample[i].energy, in->payload, in->payload_bytes);
    return OK;
}

static bool complete(const struct calibrated *c)
{
    const struct importance *m = c->importance;
    uint32_t n = c->text.windows;
    for (uint32_t i = 0; i < m->samples; i++) {
        int lane = lane_of(m, i);
        bool any = moments_first_window(lane, n) < moments_first_window(lane + 1, n);
        if (!m->sample[i].energy && any)
            return false;
    }
    return true;
}

/* The mean over rows, summed over samples in the order of lanes. */
static double mean_energy(const struct calibrated *c, uint32_t block, enum tune_matrix k,
                          uint64_t rows)
{
    const struct importance *m = c->importance;
    size_t size = tune_block_size(&c->weights->config);
    double sum = 0;
    for (uint32_t i = 0; i < m->samples; i++) {
        if (!m->sample[i].energy)
            continue;
        struct tune_vector v =
            tune_block_vector(&c->weights->config, m->sample[i].energy + block * size);
        for (uint64_t r = 0; r < rows; r++)
            sum += (double)v.row[k][r];
    }
    return sum / (double)rows;
}

static enum status send_all(struct calibrated *c, struct error *e)
{
    enum tensor_kind kinds[PRODUCT_MAX];
    for (c->block = 0; c->block < c->weights->config.block_count; c->block++)
        for (int s = 0, k = 0; s < CALIB_STEPS; s++) {
            c->step = (enum calib_step)s;
            int n = calib_kinds(c->step, kinds);
            for (int i = 0; i < n; i++, k++) {
                struct message m = {.kind = MSG_MEASURED};
                double energy =
                    mean_energy(c, c->block, (enum tune_matrix)k, calibrated_tensor(c, i)->rows);
                m.measured = (struct msg_measured){.block = c->block,
                                                   .kind = (uint32_t)kinds[i],
                                                   .importance = true,
                                                   .energy = energy};
                TRY(loop_send(c->loop, 0, &m, e));
            }
        }
    return OK;
}

enum status calibrated_weigh(struct calibrated *c, bool *busy, bool *done, struct error *e)
{
    struct importance *m = c->importance;
    uint32_t blocks = c->weights->config.block_count;
    bool first = c->loop->transport->rank == 0;
    *done = false;
    if (m->next == blocks + 1) {
        m->next--;
        TRY(open_blocks(c, e));
        TRY(pass_heads(c, e));
        calibrated_give_back_head(c);
        return calibrated_want_block(c, m->next - 1, e);
    }
    if (m->next > 0) {
        TRY(pass_block(c, --m->next, e));
        calibrated_give_back_block(c, m->next);
        return m->next > 0 ? calibrated_want_block(c, m->next - 1, e) : share(c, e);
    }
    *done = !first || complete(c);
    *busy = *done;
    return *done && first ? send_all(c, e) : OK;
}
