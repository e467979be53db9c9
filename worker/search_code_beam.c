/* Several ways at a time through one block of columns: the nearest word is the best for its own columns, but
 * a slightly worse one may leave less error to the columns that follow. For each row the PATHS cheapest
 * beginnings are kept from group to group, each tried with its two nearest words (K-best search, as for
 * integer least squares); at the block's end the cheapest stands. Costs are in units of the squared
 * row scale. */
#include <string.h>

#include "worker/search_code_private.h"

enum { TRIALS = 2, BLOCK_GROUPS = BLOCK_MAX / 2 };

struct beam {
    const struct code_search *s;
    const struct code_factor *factor;
    int paths;
    const float *from; /* [paths][cols][64]: each path's targets with all corrections */
    float *to;
    size_t stride;
    float cost[PATHS][ROWS];
    uint8_t code[BLOCK_GROUPS][PATHS][ROWS], parent[BLOCK_GROUPS][PATHS][ROWS];
};

struct proposals {
    float y[PATHS][CODEBOOK_MAX_D * ROWS]; /* target S / a */
    int32_t word[PATHS][TRIALS][ROWS];
    float cost[PATHS][TRIALS][ROWS];
};

/* The two nearest words for each path, and what each path would cost with them. */
static void propose(const struct beam *m, int g, int column, const float over[ROWS],
                    struct proposals *out)
{
    const struct code_search *s = m->s;
    int d = s->d, width = group_width(s, g);
    for (int p = 0; p < m->paths; p++) {
        const float *t = m->from + (size_t)p * m->stride + (size_t)column * ROWS;
        float *y = out->y[p], base[ROWS];
        memset(y, 0, sizeof out->y[p]);
        memcpy(base, m->cost[p], sizeof base);
        nearest_spread(s->nearest, m->factor->square + (size_t)g * (size_t)(d * d), (size_t)d,
                       width, t, width, y);
        for (int i = 0; i < width * ROWS; i++) {
            y[i] *= over[i % ROWS];
            base[i % ROWS] += y[i] * t[i] * over[i % ROWS];
        }
        nearest_two(s->nearest, m->factor->norm + (size_t)g * CODEBOOK_WORDS, y, out->word[p],
                    out->cost[p]);
        for (int i = 0; i < TRIALS; i++)
            for (int r = 0; r < ROWS; r++)
                out->cost[p][i][r] = base[r] - 2 * out->cost[p][i][r];
    }
}

/* The keep cheapest proposals of row r, in rising order: their numbers path * TRIALS + trial. */
static void cheapest(const struct beam *m, const struct proposals *from, int r, int keep,
                     int chosen[PATHS], float cost[PATHS])
{
    int count = 0;
    for (int i = 0; i < m->paths * TRIALS; i++) {
        float c = from->cost[i / TRIALS][i % TRIALS][r];
        int at = count < keep ? count++ : keep;
        while (at > 0 && c < cost[at - 1]) {
            if (at < keep) {
                cost[at] = cost[at - 1];
                chosen[at] = chosen[at - 1];
            }
            at--;
        }
        if (at < keep) {
            cost[at] = c;
            chosen[at] = i;
        }
    }
}

static uint8_t signed_code(const struct code_search *s, int width, const float *y, int r, int word)
{
    float dot = 0;
    for (int j = 0; j < width; j++)
        dot += y[j * ROWS + r] * s->words[word * s->d + j];
    return (uint8_t)(word | (dot < 0 ? 0x80 : 0));
}

static void keep_cheapest(struct beam *m, int g, int step, const struct proposals *from)
{
    int width = group_width(m->s, g), keep = m->paths * TRIALS < PATHS ? m->paths * TRIALS : PATHS;
    for (int r = 0; r < ROWS; r++) {
        int chosen[PATHS];
        float cost[PATHS];
        cheapest(m, from, r, keep, chosen, cost);
        for (int i = 0; i < keep; i++) {
            int path = chosen[i] / TRIALS, word = from->word[path][chosen[i] % TRIALS][r];
            m->cost[i][r] = cost[i];
            m->parent[step][i][r] = (uint8_t)path;
            m->code[step][i][r] = signed_code(m->s, width, from->y[path], r, word);
        }
    }
    m->paths = keep;
}

/* Path p's targets from its parents', for the columns from column on. */
static void inherit(const struct beam *m, int p, int step, int column, int cols)
{
    float *to = m->to + (size_t)p * m->stride;
    size_t from[ROWS];
    for (int r = 0; r < ROWS; r++)
        from[r] = m->parent[step][p][r] * m->stride + (size_t)r;
    for (int c = column; c < cols; c++)
        for (int r = 0; r < ROWS; r++)
            to[c * ROWS + r] = m->from[from[r] + (size_t)(c * ROWS)];
}

/* Each kept path's targets from its parent's, with the error of its new word carried on. */
static void carry_on(struct beam *m, int g, int step, int column, int cols, const float a[ROWS])
{
    const struct code_search *s = m->s;
    const float *u = factor_at(m->factor, g * s->d);
    int d = s->d, width = group_width(s, g), after = column + width;
    for (int p = 0; p < m->paths; p++) {
        float e[CODEBOOK_MAX_D * ROWS], x[CODEBOOK_MAX_D * ROWS] = {0};
        float *to = m->to + (size_t)p * m->stride;
        inherit(m, p, step, column, cols);
        for (int j = 0; j < width; j++)
            for (int r = 0; r < ROWS; r++) {
                uint8_t code = m->code[step][p][r];
                float word = s->words[(code & 0x7f) * d + j];
                e[j * ROWS + r] = a[r] * (code & 0x80 ? -word : word) - to[(column + j) * ROWS + r];
            }
        nearest_spread(s->nearest, m->factor->inverse + (size_t)g * (size_t)(d * d), (size_t)d,
                       width, e, width, x);
        nearest_spread(s->nearest, u + width, m->factor->stride, cols - after, x, width,
                       to + (size_t)after * ROWS);
    }
}

/* The codes of each row's cheapest path; after the last step paths are in rising order of cost. */
static void trace(const struct beam *m, const float a[ROWS], int steps, uint8_t *codes)
{
    for (int r = 0; r < ROWS; r++) {
        int path = 0;
        for (int step = steps - 1; step >= 0; step--) {
            if (a[r] > 0)
                codes[step * ROWS + r] = m->code[step][path][r];
            path = m->parent[step][path][r];
        }
    }
}

void band_beam(struct band *b, const struct code_factor *factor, int first, int end,
               const float over[ROWS], uint8_t *codes)
{
    const struct code_search *s = b->s;
    size_t stride = (size_t)s->block * ROWS;
    float *buffer[2] = {b->paths, b->paths + PATHS * stride};
    struct beam m = {
        .s = s, .factor = factor, .paths = 1, .from = b->work, .to = buffer[0], .stride = stride};
    struct proposals proposals;
    int steps = 0;
    memset(m.cost, 0, sizeof m.cost);
    for (int c = first; c < end; c += s->d, steps++) {
        int g = c / s->d;
        propose(&m, g, c - first, over, &proposals);
        keep_cheapest(&m, g, steps, &proposals);
        carry_on(&m, g, steps, c - first, end - first, b->a);
        m.from = buffer[steps % 2];
        m.to = buffer[1 - steps % 2];
    }
    trace(&m, b->a, steps, codes);
}
