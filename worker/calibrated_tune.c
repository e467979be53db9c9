/* Distillation at the end of a calibrated compression: row scales, norms and byte codes of the whole model are tuned so
 * that its logits come near the original's (docs/compression.md, section 4). A step takes one window of each of
 * recipe.batch lanes, evenly spread; ranks take those of their lanes, and rank 0 adds the gradients up in the order of
 * lanes. It alone keeps latent weights and chooses codes; all get these and the sum of the other gradients, by which
 * every rank moves its own copy of scales and norms. Must never know how gradients are computed. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/calib_memory.h"
#include "common/codebook.h"
#include "common/forms.h"
#include "common/mem.h"
#include "worker/calibrated_tune_private.h"

/* Which windows a step takes */

/* The batch's lanes of a step: number i of them. */
static int lane_of(const struct calibrated *c, uint32_t step, uint32_t i)
{
    uint32_t groups = MOMENT_LANES / c->recipe.batch;
    return (int)(i * groups + step % groups);
}

/* Number i of the step's windows in the text, or UINT32_MAX where its lane has no more. */
static uint32_t window_of(const struct calibrated *c, uint32_t step, uint32_t i)
{
    uint32_t groups = MOMENT_LANES / c->recipe.batch, n = c->text.windows;
    int lane = lane_of(c, step, i);
    uint32_t w = moments_first_window(lane, n) + step % c->tuning->steps_per_pass / groups;
    return w < moments_first_window(lane + 1, n) ? w : UINT32_MAX;
}

static uint32_t count_steps(const struct calibrated *c)
{
    uint32_t most = 0, n = c->text.windows;
    for (int lane = 0; lane < MOMENT_LANES; lane++) {
        uint32_t own = moments_first_window(lane + 1, n) - moments_first_window(lane, n);
        most = own > most ? own : most;
    }
    return most * (MOMENT_LANES / c->recipe.batch);
}

/* 1 / (tokens of the step); 0 when it has none. */
static double token_weight(const struct calibrated *c)
{
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < c->recipe.batch; i++) {
        uint32_t w = window_of(c, c->tuning->step, i);
        tokens += w == UINT32_MAX ? 0 : c->text.length[w];
    }
    return tokens > 0 ? 1.0 / (double)tokens : 0;
}

/* Opening */

/* How far the multipliers of a matrix have to go is in proportion to what its form gets wrong; the recipe's rate is
 * that of codes of 1 bit, and of worse. At 8 bits such steps would do more harm than good. */
static float pace_of(const struct compress_unit *u)
{
    double share = form_error((enum unit_method)u->method, u->d) / codebook_for(8)->error;
    return share < 1 ? (float)sqrt(share) : 1.0f;
}

static enum status bind_students(struct calibrated *c, struct tuning *t, struct error *e)
{
    uint32_t blocks = c->weights->config.block_count;
    t->binder.weights = c->weights;
    TRY(mem_array(&t->blocks, blocks, sizeof *t->blocks, "blocks to tune", e));
    TRY(mem_array(&t->matrix, (size_t)blocks * TUNE_MATRICES, sizeof *t->matrix, "matrices to tune",
                  e));
    for (uint32_t b = 0; b < blocks; b++) {
        struct block_weights *w = &t->blocks[b];
        TRY(bind_block(&t->binder, b, w, e));
        struct product *const products[] = {&w->qkv, &w->o, &w->gate_up, &w->down};
        for (int s = 0, k = 0; s < CALIB_STEPS; s++) {
            for (int i = 0; i < products[s]->count; i++, k++) {
                struct tuned_matrix *m = &t->matrix[(size_t)b * TUNE_MATRICES + (size_t)k];
                m->unit = calibrated_unit_at(c, b, s, i);
                m->pace = pace_of(&m->unit->unit);
                products[s]->m[i] = student_view(&m->unit->student);
                size_t scales = tune_matrix_scales(&products[s]->m[i]);
                TRY(mem_array(&m->base, scales, sizeof *m->base, "scales to tune", e));
                tune_matrix_base(&products[s]->m[i], m->base);
            }
            product_plan(products[s]);
        }
    }
    return OK;
}

static enum status keep_norms(struct calibrated *c, struct tuning *t, struct error *e)
{
    size_t blocks = c->weights->config.block_count, hidden = c->weights->config.hidden;
    TRY(mem_array(&t->norm, 2 * blocks + 1, sizeof *t->norm, "norms to tune", e));
    TRY(mem_array(&t->norm_base, 2 * blocks + 1, hidden * sizeof(float), "norms to tune", e));
    TRY(mem_array(&t->output_norm, hidden, sizeof(float), "norms to tune", e));
    memcpy(t->output_norm, calib_head(c->calib)->output_norm, hidden * sizeof(float));
    for (size_t b = 0; b < blocks; b++) {
        t->norm[2 * b] = t->blocks[b].attn_norm;
        t->norm[2 * b + 1] = t->blocks[b].ffn_norm;
    }
    t->norm[2 * blocks] = t->output_norm;
    for (size_t i = 0; i < 2 * blocks + 1; i++)
        memcpy(t->norm_base + i * hidden, t->norm[i], hidden * sizeof(float));
    return OK;
}

/* Parameters and latents, and where those of each matrix are. */
static void lay_out(struct calibrated *c, struct tuning *t)
{
    bool recode = calib_recodes(&t->config, c->recipe.recode);
    t->parameters = t->size = tuned_model_size(&t->config);
    t->news_bytes = t->parameters * sizeof(float);
    for (size_t i = 0; recode && i < (size_t)t->config.block_count * TUNE_MATRICES; i++) {
        struct matrix view = student_view(&t->matrix[i].unit->student);
        t->matrix[i].latents = t->size;
        t->size += tune_codes_size(&view);
        t->news_bytes += tune_codes_bytes(&view);
    }
}

static enum status open_latents(struct tuning *t, struct error *e)
{
    for (int i = 0; i < CODEBOOK_COUNT; i++)
        TRY(nearest_create(&t->nearest[i], &codebook_table[i], e));
    for (size_t i = 0; i < (size_t)t->config.block_count * TUNE_MATRICES; i++) {
        struct matrix view = student_view(&t->matrix[i].unit->student);
        tune_codes_start(&view, t->value + t->matrix[i].latents);
    }
    return OK;
}

static enum status open_values(struct calibrated *c, struct tuning *t, struct error *e)
{
    bool first = c->loop->transport->rank == 0;
    size_t values = first ? t->size : t->parameters;
    TRY(mem_array(&t->value, values, sizeof *t->value, "parameters to tune", e));
    TRY(mem_array(&t->gradient, first ? c->recipe.batch : 1, t->size * sizeof *t->gradient,
                  "gradients", e));
    TRY(tune_adam_create(&t->adam, values, e));
    if (first && c->loop->transport->size > 1)
        TRY(mem_array(&t->news, t->news_bytes, 1, "codes to send", e));
    return first && t->size > t->parameters ? open_latents(t, e) : OK;
}

static enum status open_model(struct calibrated *c, struct tuning *t, struct error *e)
{
    const struct head_weights *head = calib_head(c->calib);
    const struct tune_output teacher = {head->output_norm, &head->output};
    const struct tune_output student = {t->output_norm, &head->output};
    t->config = *calib_config(c->calib, true);
    lay_out(c, t);
    TRY(open_values(c, t, e));
    return tuned_model_open(&t->model, &t->config, t->blocks, c->weights->rope_factors, &teacher,
                            &student, c->text.context, t->size > t->parameters, c->threads, e);
}

enum status calibrated_open_tuning(struct calibrated *c, struct error *e)
{
    TRY(mem_array(&c->tuning, 1, sizeof *c->tuning, "tuning", e));
    struct tuning *t = c->tuning;
    t->steps_per_pass = count_steps(c);
    t->steps = t->steps_per_pass * c->recipe.distill;
    TRY(bind_students(c, t, e));
    TRY(keep_norms(c, t, e));
    TRY(open_model(c, t, e));
    return calibrated_open_state(c, e);
}

void calibrated_close_tuning(struct calibrated *c)
{
    struct tuning *t = c->tuning;
    if (!t)
        return;
    size_t matrices = (size_t)c->weights->config.block_count * TUNE_MATRICES;
    for (size_t i = 0; t->matrix && i < matrices; i++)
        free(t->matrix[i].base);
    for (int i = 0; i < CODEBOOK_COUNT; i++)
        nearest_free(t->nearest[i]);
    tuned_model_free(&t->model);
    tune_adam_free(&t->adam);
    tune_state_free(&t->state);
    bind_free(&t->binder);
    free(t->blocks);
    free(t->matrix);
    free(t->norm);
    free(t->norm_base);
    free(t->output_norm);
    free(t->value);
    free(t->gradient);
    free(t->news);
    free(t);
    c->tuning = NULL;
}

/* Steps */

static enum status alive(void *loop, struct error *e)
{
    return loop_alive(loop, e);
}

/* This rank's window number w of the text, or -1. */
static int64_t own_window(const struct calibrated *c, uint32_t w)
{
    const struct transport *t = c->loop->transport;
    uint32_t n = c->text.windows;
    uint32_t first = moments_rank_window(t->rank, t->size, n);
    uint32_t end = moments_rank_window(t->rank + 1, t->size, n);
    return w >= first && w < end ? (int64_t)w - first : -1;
}

static enum status send_gradient(struct calibrated *c, int to, uint32_t lane, double kl,
                                 const void *payload, size_t bytes, struct error *e)
{
    struct message m = {.kind = MSG_GRADIENT, .payload = payload, .payload_bytes = bytes};
    m.gradient = (struct msg_gradient){c->tuning->step, lane, kl};
    c->loop->stats.messages++;
    c->loop->stats.sent_bytes += m.payload_bytes;
    c->loop->stats.sent_raw_bytes += m.payload_bytes;
    return loop_send(c->loop, to, &m, e);
}

/* Forward and backward of number i of the step's windows, where it is this rank's. */
static enum status take_window(struct calibrated *c, uint32_t i, struct error *e)
{
    struct tuning *t = c->tuning;
    int64_t own = own_window(c, window_of(c, t->step, i));
    bool first = c->loop->transport->rank == 0;
    float *gradient = t->gradient + (first ? i * t->size : 0);
    double kl = 0;
    uint32_t rows;
    if (own < 0)
        return OK;
    const float *teacher;
    TRY(calib_hidden(c->calib, (uint32_t)own, false, &teacher, &rows, e));
    memset(gradient, 0, t->size * sizeof *gradient);
    TRY(calib_embeddings(c->calib, (uint32_t)own, true, tuned_model_input(&t->model), e));
    TRY(tuned_model_backward(&t->model, teacher, rows, token_weight(c), &kl, gradient, alive,
                             c->loop, e));
    t->kl[i] = kl;
    t->there[i] = true;
    return first ? OK
                 : send_gradient(c, 0, (uint32_t)lane_of(c, t->step, i), kl, gradient,
                                 t->size * sizeof *gradient, e);
}

void calibrated_apply_tuned(struct calibrated *c)
{
    struct tuning *t = c->tuning;
    size_t hidden = t->config.hidden, blocks = t->config.block_count;
    for (uint32_t b = 0; b < blocks; b++) {
        struct tune_vector log =
            tune_block_vector(&t->config, t->value + b * tune_block_size(&t->config));
        for (int k = 0; k < TUNE_MATRICES; k++) {
            const struct tuned_matrix *m = &t->matrix[(size_t)b * TUNE_MATRICES + (size_t)k];
            struct matrix *view = tune_block_matrix(&t->blocks[b], (enum tune_matrix)k);
            tune_matrix_apply(view, student_scales(&m->unit->student), m->base, log.row[k]);
        }
        tune_norm_apply(t->norm[2 * b], t->norm_base + 2 * b * hidden, log.attn_norm, hidden);
        tune_norm_apply(t->norm[2 * b + 1], t->norm_base + (2 * b + 1) * hidden, log.ffn_norm,
                        hidden);
    }
    tune_norm_apply(t->norm[2 * blocks], t->norm_base + 2 * blocks * hidden,
                    t->value + t->parameters - hidden, hidden);
}

static enum status out_of_range(struct error *e)
{
    return error_set(e, ERR_LIMIT,
                     "the compressed model runs out of range while it is tuned: use more bits, or "
                     "a lower rate in --recipe");
}

/* Rank 0: one step of Adam for the latents of matrix i, sum being the gradient of everything, and its codes. */
static bool recode_matrix(struct calibrated *c, size_t i, float *sum)
{
    struct tuning *t = c->tuning;
    struct tuned_matrix *m = &t->matrix[i];
    struct matrix view = student_view(&m->unit->student);
    float first = (float)(c->recipe.recode / sqrt((double)t->steps));
    float rate = tune_adam_rate(first, t->step, t->steps) * tune_codes_unit(&view);
    size_t n = tune_codes_size(&view);
    tune_codes_to_latents(&view, sum + m->latents);
    if (n == 0)
        return true;
    if (!tune_adam_update(&t->adam, t->value, sum, m->latents, n, rate))
        return false;
    tune_codes_choose(&view, t->nearest[codebook_for((uint32_t)view.d) - codebook_table],
                      t->value + m->latents, m->unit->student.part[0]);
    return true;
}

static enum status recode(struct calibrated *c, float *sum, struct error *e)
{
    struct tuning *t = c->tuning;
    int n = (int)(t->config.block_count * TUNE_MATRICES), bad = 0;
#pragma omp parallel for num_threads(c->threads) schedule(dynamic) reduction(+ : bad)
    for (int i = 0; i < n; i++)
        bad += !recode_matrix(c, (size_t)i, sum);
    return bad > 0 ? out_of_range(e) : OK;
}

/* Count parameters from at on, at a rate in the mean of that of n matrices from m on. */
static bool move_range(struct calibrated *c, const float *sum, const float *at, size_t count,
                       const struct tuned_matrix *m, size_t n)
{
    struct tuning *t = c->tuning;
    float pace = 0;
    for (size_t i = 0; i < n; i++)
        pace += m[i].pace / (float)n;
    float rate = pace * tune_adam_rate((float)c->recipe.rate, t->step, t->steps);
    return tune_adam_update(&t->adam, t->value, sum, (size_t)(at - t->value), count, rate);
}

/* The rows of a block's matrices, then its norms, which stand before and among all of these. */
static bool move_block(struct calibrated *c, const float *sum, uint32_t b)
{
    struct tuning *t = c->tuning;
    const struct tuned_matrix *m = &t->matrix[(size_t)b * TUNE_MATRICES];
    struct tune_vector log =
        tune_block_vector(&t->config, t->value + b * tune_block_size(&t->config));
    bool good = true;
    for (int k = 0; k < TUNE_MATRICES && good; k++) {
        size_t rows = (size_t)tune_block_matrix(&t->blocks[b], (enum tune_matrix)k)->rows;
        good = move_range(c, sum, log.row[k], rows, &m[k], 1);
    }
    return good && move_range(c, sum, log.attn_norm, t->config.hidden, m, TUNE_MATRICES) &&
           move_range(c, sum, log.ffn_norm, t->config.hidden, m, TUNE_MATRICES);
}

/* One step of Adam by the sum of the gradients; codes have been chosen before. */
static enum status move(struct calibrated *c, const float *sum, struct error *e)
{
    struct tuning *t = c->tuning;
    size_t hidden = t->config.hidden, blocks = t->config.block_count;
    for (uint32_t b = 0; b < blocks; b++)
        if (!move_block(c, sum, b))
            return out_of_range(e);
    if (!move_range(c, sum, t->value + t->parameters - hidden, hidden, t->matrix,
                    blocks * TUNE_MATRICES))
        return out_of_range(e);
    calibrated_apply_tuned(c);
    t->step++;
    t->next = 0;
    memset(t->there, 0, sizeof t->there);
    return OK;
}

/* Rank 0: the sum in the order of lanes, in place of the first that is there. */
static float *add_up(struct calibrated *c, double *kl)
{
    struct tuning *t = c->tuning;
    float *sum = NULL;
    *kl = 0;
    for (uint32_t i = 0; i < c->recipe.batch; i++) {
        float *g = t->gradient + i * t->size;
        if (!t->there[i])
            continue;
        *kl += t->kl[i];
        for (size_t k = 0; sum && k < t->size; k++)
            sum[k] += g[k];
        sum = sum ? sum : g;
    }
    return sum;
}

/* The codes of all matrices: from news or into it. */
static void copy_codes(struct tuning *t, const uint8_t *from, uint8_t *to)
{
    size_t at = t->parameters * sizeof(float);
    for (size_t i = 0; at < t->news_bytes; i++) {
        struct student_matrix *m = &t->matrix[i].unit->student;
        struct matrix view = student_view(m);
        size_t n = tune_codes_bytes(&view);
        if (n > 0 && from)
            memcpy(m->part[0], from + at, n);
        else if (n > 0)
            memcpy(to + at, m->part[0], n);
        at += n;
    }
}

static enum status send_news(struct calibrated *c, const float *sum, double kl, struct error *e)
{
    struct tuning *t = c->tuning;
    if (!t->news)
        return OK;
    memcpy(t->news, sum, t->parameters * sizeof *sum);
    copy_codes(t, NULL, t->news);
    for (int r = 1; r < c->loop->transport->size; r++)
        TRY(send_gradient(c, r, MOMENT_LANES, kl, t->news, t->news_bytes, e));
    return OK;
}

/* The text ends before all lanes have so many windows. */
static void skip_empty(struct calibrated *c)
{
    while (c->tuning->step < c->tuning->steps && token_weight(c) == 0)
        c->tuning->step++;
}

static enum status finish_step(struct calibrated *c, struct error *e)
{
    struct tuning *t = c->tuning;
    double kl;
    float *sum = add_up(c, &kl);
    struct message m = {.kind = MSG_TUNED};
    m.tuned = (struct msg_tuned){t->step + 1, t->steps, kl * token_weight(c)};
    tune_adam_begin(&t->adam);
    if (t->size > t->parameters)
        TRY(recode(c, sum, e));
    TRY(send_news(c, sum, kl, e));
    TRY(loop_send(c->loop, 0, &m, e));
    TRY(move(c, sum, e));
    skip_empty(c);
    calibrated_end_step(c);
    return OK;
}

/* Rank 0: whether the gradients of all windows of the step are there. */
static bool step_complete(const struct calibrated *c)
{
    for (uint32_t i = 0; i < c->recipe.batch; i++)
        if (!c->tuning->there[i] && window_of(c, c->tuning->step, i) != UINT32_MAX)
            return false;
    return true;
}

enum status calibrated_take_gradient(struct calibrated *c, const struct message *m, struct error *e)
{
    struct tuning *t = c->tuning;
    const struct msg_gradient *g = &m->gradient;
    uint32_t groups = MOMENT_LANES / c->recipe.batch, i = g->lane / groups;
    bool sum = g->lane == MOMENT_LANES && c->loop->transport->rank != 0;
    FAIL_IF(g->step != t->step ||
                m->payload_bytes != (sum ? t->news_bytes : t->size * sizeof(float)) ||
                (!sum &&
                 (i >= c->recipe.batch || (int)g->lane != lane_of(c, t->step, i) || t->there[i])),
            e, ERR_PEER, "rank %d sent a gradient that was not expected", m->peer);
    if (sum) {
        tune_adam_begin(&t->adam);
        copy_codes(t, m->payload, NULL);
        return move(c, m->payload, e);
    }
    memcpy(t->gradient + i * t->size, m->payload, m->payload_bytes);
    t->kl[i] = g->kl;
    t->there[i] = true;
    return OK;
}

static enum status go_on(struct calibrated *c, bool *busy, bool *done, struct error *e)
{
    struct tuning *t = c->tuning;
    skip_empty(c);
    *done = t->step == t->steps;
    if (*done)
        return OK;
    if ((uint32_t)t->next < c->recipe.batch)
        return take_window(c, (uint32_t)t->next++, e);
    *busy = c->loop->transport->rank == 0 && step_complete(c);
    return *busy ? finish_step(c, e) : OK;
}

enum status calibrated_tune(struct calibrated *c, bool *busy, bool *done, struct error *e)
{
    *done = false;
    switch (c->tuning->phase) {
    case TUNE_LOAD:
        *busy = false;
        return OK;
    case TUNE_SHARE:
        return calibrated_share_state(c, busy, e);
    case TUNE_KEEP:
        return calibrated_keep_state(c, e);
    default:
        return go_on(c, busy, done, e);
    }
}

bool calibrated_tune_ready(const struct calibrated *c, const struct msg_gradient *g)
{
    const struct tuning *t = c->tuning;
    bool going = t && (t->phase == TUNE_STEPS || t->phase == TUNE_KEEP);
    return going && g->step == t->step && (g->lane < MOMENT_LANES || calibrated_tune_waits(c));
}

bool calibrated_tune_waits(const struct calibrated *c)
{
    return (uint32_t)c->tuning->next >= c->recipe.batch;
}

const float *calibrated_tuned_norm(const struct calibrated *c, uint32_t i)
{
    return c->tuning->norm[i];
}

uint32_t calibrated_tune_step(const struct calibrated *c)
{
    return c->tuning->step;
}
