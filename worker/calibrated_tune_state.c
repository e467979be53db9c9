/* Distillation that outlives its process: after a step rank 0 now and then hands everything that the next one
 * depends on to the coordinator, and every rank begins with what came so of an earlier run, if anything did. Must
 * never know where it is kept. */
#include <stdlib.h>

#include "common/mem.h"
#include "worker/calibrated_tune_private.h"

#define UNSENT_MAX   ((size_t)16 << 20)
#define KEEP_SECONDS 0.25 /* of work are lost at least */
#define KEEP_SHARE   20   /* the state is kept when so many times its cost has passed: at most 5 % of the time */

/* Values from first on with their moments. */
static void add_values(struct tuning *t, size_t first, size_t count)
{
    float *const arrays[] = {t->value, t->adam.m, t->adam.v};
    for (int i = 0; i < 3; i++)
        tune_state_add(&t->state, arrays[i] + first, count * sizeof(float));
}

static enum status lay_out(const struct calibrated *c, struct tuning *t, struct error *e)
{
    size_t matrices = (size_t)t->config.block_count * TUNE_MATRICES;
    bool recodes = t->size > t->parameters;
    TRY(tune_state_create(&t->state, matrices + 7, e));
    tune_state_add(&t->state, t->head, sizeof t->head);
    add_values(t, 0, t->parameters);
    for (size_t i = 0; recodes && i < matrices; i++) {
        struct student_matrix *s = &t->matrix[i].unit->student;
        struct matrix view = student_view(s);
        tune_state_add(&t->state, s->part[0], tune_codes_bytes(&view));
    }
    t->common_bytes = t->state.bytes;
    if (recodes && c->loop->transport->rank == 0)
        add_values(t, t->parameters, t->size - t->parameters);
    return OK;
}

static enum status want(struct calibrated *c, struct error *e)
{
    struct message m = {.kind = MSG_WANT, .want = {.state = true, .offset = c->tuning->at}};
    return loop_send(c->loop, 0, &m, e);
}

enum status calibrated_open_state(struct calibrated *c, struct error *e)
{
    TRY(lay_out(c, c->tuning, e));
    c->tuning->kept = loop_now();
    return c->loop->transport->rank == 0 ? want(c, e) : OK; /* the others get it from there */
}

/* All of it has come. */
static enum status take_up(struct calibrated *c, struct error *e)
{
    struct tuning *t = c->tuning;
    FAIL_IF(t->head[0] > t->steps || t->head[1] > t->head[0], e, ERR_PEER,
            "distillation cannot go on at step %u of %u", t->head[0], t->steps);
    t->step = t->head[0];
    t->adam.step = t->head[1];
    calibrated_apply_tuned(c);
    return OK;
}

enum status calibrated_take_state(struct calibrated *c, const struct message *m, struct error *e)
{
    struct tuning *t = c->tuning;
    FAIL_IF(!t || t->phase != TUNE_LOAD || m->state.offset != t->at ||
                m->payload_bytes > t->state.bytes - t->at || (m->payload_bytes == 0 && t->at > 0),
            e, ERR_PEER, "rank %d sent a state of distilling that was not expected", m->peer);
    bool first = c->loop->transport->rank == 0;
    tune_state_set(&t->state, t->at, m->payload_bytes, m->payload);
    t->at += m->payload_bytes;
    t->resumed = t->at > 0;
    if (t->resumed && t->at < t->state.bytes)
        return first ? want(c, e) : OK;
    if (t->resumed)
        TRY(take_up(c, e));
    t->phase = first ? TUNE_SHARE : TUNE_STEPS;
    t->at = 0;
    t->to = 1;
    return first ? OK : calibrated_take_early(c, e);
}

/* The next piece of the first size bytes. */
static enum status send_piece(struct calibrated *c, enum message_kind kind, int to, uint64_t size,
                              struct error *e)
{
    struct tuning *t = c->tuning;
    uint64_t left = size - t->at, n = left < WIRE_PIECE_MAX ? left : WIRE_PIECE_MAX;
    struct message m = {.kind = kind, .state = {t->step, t->at}, .payload_bytes = n};
    uint8_t *bytes;
    TRY(mem_array(&bytes, n > 0 ? n : 1, 1, "a piece of what is tuned", e));
    tune_state_get(&t->state, t->at, n, bytes);
    m.payload = bytes;
    enum status status = loop_send(c->loop, to, &m, e);
    free(bytes);
    t->at += n;
    return status;
}

enum status calibrated_share_state(struct calibrated *c, bool *busy, struct error *e)
{
    struct tuning *t = c->tuning;
    uint64_t size = t->resumed ? t->common_bytes : 0;
    *busy = transport_pending(c->loop->transport) <= UNSENT_MAX;
    if (!*busy)
        return OK;
    if (t->to == c->loop->transport->size) {
        t->phase = TUNE_STEPS;
        t->kept = loop_now();
        return calibrated_take_early(c, e);
    }
    TRY(send_piece(c, MSG_STATE, t->to, size, e));
    if (t->at == size) {
        t->to++;
        t->at = 0;
    }
    return OK;
}

void calibrated_end_step(struct calibrated *c)
{
    struct tuning *t = c->tuning;
    double now = loop_now(), least = KEEP_SHARE * t->cost;
    if (now - t->kept < (least > KEEP_SECONDS ? least : KEEP_SECONDS) && t->step < t->steps)
        return;
    t->phase = TUNE_KEEP;
    t->since = now;
    t->at = 0;
    t->head[0] = t->step;
    t->head[1] = t->adam.step;
}

enum status calibrated_keep_state(struct calibrated *c, struct error *e)
{
    struct tuning *t = c->tuning;
    if (t->at < t->state.bytes)
        return send_piece(c, MSG_KEEP, 0, t->state.bytes, e);
    /* A turn later: the coordinator has taken the last piece, disk included. */
    t->kept = loop_now();
    t->cost = t->kept - t->since;
    t->phase = TUNE_STEPS;
    return OK;
}
