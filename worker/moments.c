/* Sums over lanes. A node is whole when all of it is there; whole nodes that together cover a
 * node of the tree become that node at once, so that few are alive at a time. */
#include "worker/moments.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/linear.h"

enum {
    ROWS = 512, /* vectors taken at a time */
    TOKEN_BITS = 48,
};

struct live {
    struct moments_node node;
    bool whole;
    uint64_t h_seen,
        c_seen; /* of another rank's node: elements of h's upper triangle and of c so far */
};

struct moments {
    int n, threads;
    struct diagonal shape;
    bool cross;
    int lane;  /* the last lane that was added to; -1 before the first */
    bool open; /* more may be added to that lane */
    uint32_t
        covered; /* lanes of whole nodes, and lanes passed over while adding, which are zeros */
    float *difference; /* [ROWS][n] */
    int count;
    struct live live[MOMENT_LANES]; /* in no order */
};

static uint32_t lanes_mask(int first, int count)
{
    return ((1u << count) - 1) << first;
}

int moments_lane(uint32_t w, uint32_t windows)
{
    return (int)((uint64_t)MOMENT_LANES * w / windows);
}

uint32_t moments_first_window(int lane, uint32_t windows)
{
    return (uint32_t)(((uint64_t)lane * windows + MOMENT_LANES - 1) / MOMENT_LANES);
}

int moments_first_lane(int rank, int ranks)
{
    return (int)((int64_t)MOMENT_LANES * rank / ranks);
}

uint32_t moments_rank_window(int rank, int ranks, uint32_t windows)
{
    return moments_first_window(moments_first_lane(rank, ranks), windows);
}

enum status moments_create(struct moments **out, int n, int width, bool cross, int threads,
                           struct error *e)
{
    struct moments *m;
    TRY(mem_array(&m, 1, sizeof *m, "a table of moments", e));
    m->n = n;
    m->shape = (struct diagonal){n, width};
    m->cross = cross;
    m->threads = threads;
    m->lane = -1;
    *out = m;
    return OK;
}

void moments_free(struct moments *m)
{
    if (!m)
        return;
    for (int i = 0; i < m->count; i++) {
        free(m->live[i].node.h);
        free(m->live[i].node.c);
    }
    free(m->difference);
    free(m);
}

static size_t elements(const struct moments *m)
{
    return diagonal_floats(m->shape);
}

/* calloc, because pages that only the lower triangle of h touches then take no memory. */
static enum status add_node(struct moments *m, int first, int count, uint64_t tokens,
                            struct live **out, struct error *e)
{
    struct live *l = &m->live[m->count]; /* a lane has one node at most, so there is room */
    float *h = calloc(elements(m), sizeof *h);
    float *c = m->cross ? calloc(elements(m), sizeof *c) : NULL;
    if (!h || (m->cross && !c)) {
        free(h);
        free(c);
        return error_set(e, ERR_MEMORY,
                         "out of memory: the second moments of %d inputs need %zu bytes", m->n,
                         elements(m) * sizeof *h * (m->cross ? 2 : 1));
    }
    *l = (struct live){.node = {first, count, m->n, m->shape.width, tokens, h, c}};
    m->count++;
    *out = l;
    return OK;
}

/* a += b, and b goes. */
static void add_up(struct moments *m, struct live *a, struct live *b)
{
    int n = m->n;
#pragma omp parallel for num_threads(m->threads) schedule(dynamic, 16)
    for (int row = 0; row < n; row++) {
        size_t start = diagonal_row(m->shape, row),
               end = start + diagonal_row_floats(m->shape, row);
        for (size_t i = start + (size_t)(row % m->shape.width); i < end; i++)
            a->node.h[i] += b->node.h[i];
        for (size_t i = start; m->cross && i < end; i++)
            a->node.c[i] += b->node.c[i];
    }
    a->node.tokens += b->node.tokens;
    free(b->node.h);
    free(b->node.c);
    *b = m->live[--m->count];
}

/* The one or two nodes within lanes [first, first + count), children of that node of the tree,
 * become it; a child that is not there is zeros. */
static void join(struct moments *m, int first, int count)
{
    struct live *low = NULL, *high = NULL;
    for (int i = 0; i < m->count; i++) {
        struct live *l = &m->live[i];
        if (l->node.first < first || l->node.first + l->node.count > first + count)
            continue;
        if (l->node.first < first + count / 2)
            low = l;
        else
            high = l;
    }
    struct live *kept = low ? low : high;
    if (!kept)
        return;
    kept->node.first = first;
    kept->node.count = count;
    if (!low || !high)
        return;
    add_up(m, low, high);
}

static void fold(struct moments *m, uint32_t covered)
{
    for (int count = 2; count <= MOMENT_LANES; count *= 2)
        for (int first = 0; first < MOMENT_LANES; first += count)
            if ((covered & lanes_mask(first, count)) == lanes_mask(first, count))
                join(m, first, count);
}

/* Marks what has become whole since the last call, of another rank's nodes and, with close, of
 * the lane that is added to; and folds. */
static void settle(struct moments *m, bool close)
{
    uint64_t all = elements(m), upper = (all + (uint64_t)m->n) / 2;
    for (int i = 0; i < m->count; i++) {
        struct live *l = &m->live[i];
        bool own = m->open && l->node.first == m->lane;
        l->whole |= own ? close : l->h_seen == upper && (!m->cross || l->c_seen == all);
        if (l->whole)
            m->covered |= lanes_mask(l->node.first, l->node.count);
    }
    if (close)
        m->open = false;
    fold(m, m->covered);
}

/* The lanes that belong to some node, whole or not. */
static uint32_t claimed(const struct moments *m)
{
    uint32_t mask = m->covered;
    for (int i = 0; i < m->count; i++)
        mask |= lanes_mask(m->live[i].node.first, m->live[i].node.count);
    return mask;
}

static enum status open_lane(struct moments *m, int lane, struct error *e)
{
    settle(m, true);
    FAIL_IF(lane <= m->lane || lane >= MOMENT_LANES || (claimed(m) & lanes_mask(lane, 1)), e,
            ERR_LIMIT, "a window of lane %d comes out of order: it must follow those of lane %d",
            lane, m->lane);
    if (m->lane >= 0)
        m->covered |= lanes_mask(m->lane + 1, lane - m->lane - 1) & ~claimed(m);
    fold(m, m->covered);
    struct live *l;
    TRY(add_node(m, lane, 1, 0, &l, e));
    m->lane = lane;
    m->open = true;
    return OK;
}

static struct moments_node *open_node(struct moments *m)
{
    int i = 0;
    while (m->live[i].node.first != m->lane)
        i++;
    return &m->live[i].node;
}

static void subtract(struct moments *m, const float *t, const float *x, int rows)
{
#pragma omp parallel for num_threads(m->threads) schedule(static)
    for (int row = 0; row < rows; row++) {
        size_t start = (size_t)row * (size_t)m->n;
        for (size_t i = start; i < start + (size_t)m->n; i++)
            m->difference[i] = t[i] - x[i];
    }
}

static void add_rows(struct moments *m, struct moments_node *node, const float *x, int rows)
{
    for (int b = 0; b < diagonal_blocks(m->shape); b++) {
        int first = b * m->shape.width, order = diagonal_order(m->shape, b);
        size_t at = diagonal_start(m->shape, b);
        linear_gram(node->h + at, x + first, m->n, order, rows, m->threads);
        if (m->cross)
            linear_cross(node->c + at, m->difference + first, x + first, m->n, order, rows,
                         m->threads);
    }
}

enum status moments_add(struct moments *m, int lane, const float *x, const float *t, int rows,
                        struct error *e)
{
    if (rows <= 0)
        return OK;
    if (m->cross && !m->difference)
        TRY(mem_array(&m->difference, ROWS * (size_t)m->n, sizeof *m->difference,
                      "the differences between two streams", e));
    if (!m->open || lane != m->lane)
        TRY(open_lane(m, lane, e));
    struct moments_node *node = open_node(m);
    node->tokens += (uint64_t)rows;
    for (int done = 0; done < rows; done += ROWS) {
        size_t start = (size_t)done * (size_t)m->n;
        int part = rows - done < ROWS ? rows - done : ROWS;
        if (m->cross)
            subtract(m, t + start, x + start, part);
        add_rows(m, node, x + start, part);
    }
    return OK;
}

static int by_first(const void *a, const void *b)
{
    return ((const struct moments_node *)a)->first - ((const struct moments_node *)b)->first;
}

int moments_nodes(struct moments *m, struct moments_node out[MOMENT_NODES_MAX])
{
    int count = 0;
    settle(m, true);
    for (int i = 0; i < m->count; i++)
        if (m->live[i].whole) /* at most one of two neighbours: a pair would have become one node */
            out[count++] = m->live[i].node;
    qsort(out, (size_t)count, sizeof *out, by_first);
    return count;
}

void moments_drop_cross(struct moments *m)
{
    m->cross = false;
    for (int i = 0; i < m->count; i++) {
        free(m->live[i].node.c);
        m->live[i].node.c = NULL;
    }
}

/* How many of the first elements belong to the upper triangles of the blocks. */
static uint64_t upper_before(struct diagonal d, uint64_t elements_before)
{
    uint64_t square = (uint64_t)d.width * (uint64_t)d.width, whole = elements_before / square;
    uint64_t sum = whole * (square + (uint64_t)d.width) / 2,
             rest = elements_before - whole * square;
    if (rest == 0)
        return sum;
    uint64_t n = (uint64_t)diagonal_order(d, (int)whole), row = rest / n, column = rest % n;
    return sum + row * n - row * (row - 1) / 2 + (column > row ? column - row : 0);
}

/* The node of another rank that these bytes belong to, created if it is new. */
static enum status find_node(struct moments *m, int first, int count, uint64_t tokens,
                             struct live **out, struct error *e)
{
    bool valid = count >= 1 && count <= MOMENT_LANES && !(count & (count - 1)) && first >= 0 &&
                 first <= MOMENT_LANES - count && first % count == 0 && !(tokens >> TOKEN_BITS);
    FAIL_IF(!valid, e, ERR_PEER,
            "a rank sent moments of lanes %d + %d, which are no node of the tree", first, count);
    for (int i = 0; i < m->count; i++) {
        struct live *l = &m->live[i];
        bool own = m->open && l->node.first == m->lane;
        if (l->whole || own || l->node.first != first || l->node.count != count)
            continue;
        FAIL_IF(l->node.tokens != tokens, e, ERR_PEER,
                "a rank sent moments of lanes %d + %d twice, of different texts", first, count);
        *out = l;
        return OK;
    }
    FAIL_IF(claimed(m) & lanes_mask(first, count), e, ERR_PEER,
            "a rank sent moments of lanes %d + %d, of which some are there already", first, count);
    return add_node(m, first, count, tokens, out, e);
}

enum status moments_receive(struct moments *m, int first, int count, uint64_t tokens, bool cross,
                            uint64_t offset, uint64_t size, float **to, struct error *e)
{
    uint64_t all = elements(m), n = (uint64_t)m->n;
    FAIL_IF(cross && !m->cross, e, ERR_PEER, "a rank sent cross moments that nobody asked for");
    FAIL_IF(size == 0 || offset >= all || size > all - offset, e, ERR_PEER,
            "a rank sent moments of inputs %llu + %llu, beyond the %llu of this matrix",
            (unsigned long long)offset, (unsigned long long)size, (unsigned long long)all);
    settle(m, false);
    struct live *l;
    TRY(find_node(m, first, count, tokens, &l, e));
    uint64_t *seen = cross ? &l->c_seen : &l->h_seen;
    uint64_t more =
        cross ? size : upper_before(m->shape, offset + size) - upper_before(m->shape, offset);
    FAIL_IF(more > (cross ? all : (all + n) / 2) - *seen, e, ERR_PEER,
            "a rank sent moments of lanes %d + %d twice", first, count);
    *seen += more;
    *to = (cross ? l->node.c : l->node.h) + offset;
    return OK;
}

enum status moments_merge(struct moments *m, struct error *e)
{
    settle(m, true);
    FAIL_IF(m->count == 0, e, ERR_PEER, "no rank has seen any window of the calibration text");
    for (int i = 0; i < m->count; i++)
        FAIL_IF(!m->live[i].whole, e, ERR_PEER, "moments of lanes %d + %d have not arrived in full",
                m->live[i].node.first, m->live[i].node.count);
    m->covered = lanes_mask(0, MOMENT_LANES);
    fold(m, m->covered);
    return OK;
}
