/* Second moments between ranks: nodes to rank 0, their sum back. Symmetric blocks travel as their
 * upper triangles, row by row. Owns nothing of its own; must never know what moments are for. */
#include <stdlib.h>
#include <string.h>

#include "common/calib_memory.h"
#include "common/mem.h"
#include "worker/calibrated_private.h"

enum {
    MESSAGE_FLOATS = 1 << 20, /* 4 MiB */
    PENDING_BYTES = 4 << 20   /* on their way: with more nothing is added */
};

struct diagonal calibrated_shape(const struct calibrated *c)
{
    uint32_t n = (uint32_t)calib_cols(c->calib, c->step);
    return (struct diagonal){(int)n, (int)calib_block_columns(n, c->moment_floats)};
}

enum status calibrated_open_moments(struct calibrated *c, struct error *e)
{
    struct diagonal shape = calibrated_shape(c);
    return moments_create(&c->moments, shape.n, shape.width, calibrated_cross(c), c->threads, e);
}

/* Floats of row r that travel; those before them in the row do not. */
static size_t row_floats(bool cross, struct diagonal d, size_t r)
{
    size_t all = diagonal_row_floats(d, (int)r);
    return cross ? all : all - r % (size_t)d.width;
}

/* Rows from first on that fit one message. */
static size_t rows_that_fit(bool cross, struct diagonal d, size_t first)
{
    size_t rows = 0, floats = 0;
    while (first + rows < (size_t)d.n) {
        floats += row_floats(cross, d, first + rows);
        if (rows > 0 && floats > MESSAGE_FLOATS)
            break;
        rows++;
    }
    return rows;
}

/* Copies rows between moments, of which from is row first's place, and a payload; to the payload
 * when pack. Returns its floats. */
static size_t copy_rows(bool pack, bool cross, struct diagonal d, size_t first, size_t rows,
                        float *from, float *payload)
{
    size_t at = 0, start = diagonal_row(d, (int)first);
    for (size_t r = first; r < first + rows; r++) {
        size_t count = row_floats(cross, d, r), skip = diagonal_row_floats(d, (int)r) - count;
        float *row = from + (diagonal_row(d, (int)r) - start) + skip;
        memcpy(pack ? payload + at : row, pack ? row : payload + at, count * sizeof *row);
        at += count;
    }
    return at;
}

static struct message describe(const struct calibrated *c, const struct moments_node *node)
{
    struct message m = {.kind = MSG_MOMENTS};
    m.moments = (struct msg_moments){.block = c->block,
                                     .step = (uint32_t)c->step,
                                     .measuring = c->measuring,
                                     .first = (uint32_t)node->first,
                                     .count = (uint32_t)node->count,
                                     .tokens = node->tokens};
    return m;
}

/* The rows of a node from row on that fit a message, *rows of them. */
static enum status send_rows(struct calibrated *c, int to, const struct moments_node *node,
                             bool cross, size_t row, size_t *rows, struct error *e)
{
    struct diagonal d = {node->n, node->width};
    size_t start = diagonal_row(d, (int)row);
    struct message m = describe(c, node);
    float *payload;
    *rows = rows_that_fit(cross, d, row);
    TRY(mem_array(&payload, MESSAGE_FLOATS + (size_t)d.width, sizeof *payload, "moments to send",
                  e));
    m.moments.cross = cross;
    m.moments.offset = start;
    m.payload = payload;
    m.payload_bytes = sizeof *payload * copy_rows(true, cross, d, row, *rows,
                                                  (cross ? node->c : node->h) + start, payload);
    enum status status = loop_send(c->loop, to, &m, e);
    free(payload);
    c->loop->stats.messages++;
    c->loop->stats.sent_bytes += m.payload_bytes;
    c->loop->stats.sent_raw_bytes += m.payload_bytes;
    return status;
}

/* A message without payload. To rank 0: these were all of mine. From it: send yours; later: that
 * was the sum. */
static enum status send_mark(struct calibrated *c, int to, struct error *e)
{
    const struct moments_node none = {.count = 1};
    struct message m = describe(c, &none);
    return loop_send(c->loop, to, &m, e);
}

/* Sends the next rows of the nodes to ranks [first, end), the same ones to each; false when all are
 * gone. */
static enum status send_some(struct calibrated *c, int first, int end, bool *more, struct error *e)
{
    struct moments_node nodes[MOMENT_NODES_MAX];
    struct moments_place *p = &c->place;
    int n = moments_nodes(c->moments, nodes);
    size_t rows;
    *more = p->node < n;
    if (!*more)
        return OK;
    const struct moments_node *node = &nodes[p->node];
    TRY(send_rows(c, first + p->to, node, p->cross, p->row, &rows, e));
    if (++p->to < end - first)
        return OK;
    p->to = 0;
    p->row += rows;
    if (p->row < (size_t)node->n)
        return OK;
    p->row = 0;
    p->cross = !p->cross && node->c;
    p->node += !p->cross;
    return OK;
}

enum status calibrated_share_moments(struct calibrated *c, struct error *e)
{
    struct moments_node nodes[MOMENT_NODES_MAX];
    moments_nodes(c->moments, nodes); /* which folds what there is, before more comes */
    c->asked = c->ended = 0;
    c->place = (struct moments_place){0};
    return calibrated_take_early(c, e);
}

/* Rows that a payload of so many floats holds from row first on; 0 when it does not end with a
 * row. */
static size_t rows_of(bool cross, struct diagonal d, size_t first, size_t floats)
{
    size_t rows = 0;
    while (first + rows < (size_t)d.n && floats >= row_floats(cross, d, first + rows))
        floats -= row_floats(cross, d, first + rows++);
    return floats == 0 ? rows : 0;
}

/* The row that begins at a place; false when none does. */
static bool row_at(struct diagonal d, uint64_t offset, size_t *row)
{
    uint64_t block = offset / ((uint64_t)d.width * (uint64_t)d.width);
    if (offset >= diagonal_floats(d))
        return false;
    uint64_t rest = offset - diagonal_start(d, (int)block);
    uint64_t order = (uint64_t)diagonal_order(d, (int)block);
    *row = (size_t)(block * (uint64_t)d.width + rest / order);
    return rest % order == 0;
}

enum status calibrated_take_moments(struct calibrated *c, const struct message *m, struct error *e)
{
    const struct msg_moments *a = &m->moments;
    struct diagonal d = calibrated_shape(c);
    size_t first = 0, floats = m->payload_bytes / sizeof(float);
    float *to;
    if (m->payload_bytes == 0) {
        c->ended++;
        return OK;
    }
    size_t rows = row_at(d, a->offset, &first) ? rows_of(a->cross, d, first, floats) : 0;
    FAIL_IF(rows == 0 || (a->cross && !calibrated_cross(c)), e, ERR_PEER,
            "rank %d sent moments that do not fit block %u", m->peer, c->block);
    TRY(moments_receive(c->moments, (int)a->first, (int)a->count, a->tokens, a->cross, a->offset,
                        diagonal_row(d, (int)(first + rows)) - a->offset, &to, e));
    copy_rows(false, a->cross, d, first, rows, to, (float *)(uintptr_t)m->payload);
    return OK;
}

/* This rank's own, once rank 0 has asked; the sum will take their place. */
static enum status hand_over(struct calibrated *c, struct error *e)
{
    bool more;
    TRY(send_some(c, 0, 1, &more, e));
    if (more)
        return OK;
    c->place.open = false;
    TRY(send_mark(c, 0, e));
    moments_free(c->moments);
    c->moments = NULL;
    return calibrated_open_moments(c, e);
}

/* The sum to all others. */
static enum status answer(struct calibrated *c, bool *done, struct error *e)
{
    bool more = false;
    int size = c->loop->transport->size;
    if (size > 1)
        TRY(send_some(c, 1, size, &more, e));
    *done = !more;
    for (int r = 1; r < size && *done; r++)
        TRY(send_mark(c, r, e));
    return OK;
}

/* Rank 0: asks the next rank when the one before has sent all, and adds up at the end. */
static enum status gather_next(struct calibrated *c, bool *busy, struct error *e)
{
    bool last = c->asked == c->loop->transport->size - 1;
    *busy = c->ended == c->asked;
    if (!*busy)
        return OK;
    c->place.open = last;
    return last ? moments_merge(c->moments, e) : send_mark(c, ++c->asked, e);
}

enum status calibrated_gathered(struct calibrated *c, bool *busy, bool *done, struct error *e)
{
    bool first = c->loop->transport->rank == 0;
    *done = !first && c->ended == 2;
    *busy = *done;
    if (*done)
        return OK;
    if (!first && c->asked == 0 && c->ended == 1) {
        c->asked = 1;
        c->place.open = true;
    }
    if (first && !c->place.open)
        return gather_next(c, busy, e);
    *busy = c->place.open && transport_pending(c->loop->transport) <= PENDING_BYTES;
    if (!*busy)
        return OK;
    return first ? answer(c, done, e) : hand_over(c, e);
}

enum status calibrated_node(struct calibrated *c, struct moments_node *out, struct error *e)
{
    struct moments_node nodes[MOMENT_NODES_MAX];
    FAIL_IF(moments_nodes(c->moments, nodes) != 1, e, ERR_PEER,
            "the moments of block %u did not come whole", c->block);
    *out = nodes[0];
    return OK;
}
