#include "coordinator/compress_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/codebook.h"
#include "common/mem.h"

/* How much the model's output suffers from the relative squared error of a matrix, by kind, where
 * it was not measured. In the spirit of the measurements on small trained models (held-out loss per
 * kind: errors of v cost most, those of q and k least); rough. */
static double sensitivity(enum tensor_kind kind)
{
    switch (kind) {
    case KIND_V:
        return 2.0;
    case KIND_O:
    case KIND_DOWN:
        return 1.2;
    case KIND_Q:
    case KIND_K:
        return 0.6;
    default:
        return 1.0;
    }
}

bool plan_is_matrix(const struct plan_unit *u)
{
    return !u->vector && model_rule(u->kind)->per_block;
}

static enum status method_named(const char *name, enum unit_method *out, struct error *e)
{
    for (int m = UNIT_CODE; m <= UNIT_Q1_0; m++) {
        if (strcmp(name, form_name((enum unit_method)m)) == 0) {
            *out = (enum unit_method)m;
            return OK;
        }
    }
    return error_set(e, ERR_USAGE, "there is no method \"%s\"", name);
}

/* What takes the place of a method whose block does not divide the row: the next larger standard
 * type with a smaller block. Q8_0 has the block of Q4_0, so that F16 follows both. */
static enum unit_method next_method(enum unit_method method)
{
    switch (method) {
    case UNIT_Q1_0:
        return UNIT_Q2_0;
    case UNIT_Q2_0:
    case UNIT_SIGN:
        return UNIT_Q4_0;
    default:
        return UNIT_F16;
    }
}

static void fit(struct plan_unit *u)
{
    const struct dtype_info *asked = dtype_info(form_dtype(u->method));
    if (u->cols % asked->block == 0)
        return;
    do {
        u->method = next_method(u->method);
    } while (u->cols % dtype_info(form_dtype(u->method))->block != 0);
    snprintf(u->why, sizeof u->why, "rows of %llu weights are no multiple of %s's %u: stored as %s",
             (unsigned long long)u->cols, asked->name, asked->block,
             dtype_info(form_dtype(u->method))->name);
}

static enum status set_form(struct plan_unit *u, double outliers, struct error *e)
{
    TRY(form_of(&u->form, u->method, u->d, outliers, u->rows, u->cols, u->vector, e));
    if (u->columns && u->method == UNIT_CODE)
        form_add_columns(&u->form, u->cols);
    return OK;
}

/* Choices under a budget: what a measuring pass tries, and F16. */
enum { LONGEST = CODEBOOK_COUNT - 1, CHOICE_F16 = UNIT_CHOICES, CHOICES };

#define Q8_BITS   8.5  /* of Q8_0 */
#define MOST_BITS 16.0 /* of F16 */

/* F16 is for rows that the other types cannot hold, and for budgets that Q8_0 throughout does not use
 * up: within its reach, a matrix in F16 would take from two others what brings most of the gain. */
static bool possible(const struct plan_unit *u, int choice, double bits)
{
    bool whole = u->cols % dtype_info(DTYPE_Q8_0)->block == 0; /* Q4_0's block is the same */
    if (choice == CHOICE_F16)
        return !whole || bits > Q8_BITS;
    return choice < CODEBOOK_COUNT || whole;
}

static enum status choose(struct plan_unit *u, int choice, struct error *e)
{
    u->method = UNIT_F16;
    u->d = 0;
    if (choice != CHOICE_F16)
        u->method = form_choice(choice, &u->d);
    return set_form(u, 0, e);
}

/* Relative squared error of a choice on Gaussian weights. */
static double plain_error(int choice)
{
    uint32_t d;
    enum unit_method method = form_choice(choice, &d);
    return form_error(method, d);
}

/* What a choice costs u, for the choice between matrices.
 *
 * Measured: what the search lost on a sample of rows (the curvature of their inputs, relative to
 * nothing), times what such an error of an output costs the likelihood of the text, per weight.
 *
 * Not measured: sensitivity of the kind x error of the type on Gaussian data. On three small models
 * at 1, 1.5 and 2 bits, counting matrices by their weights gave lower perplexities than counting
 * each of them alike, which starves the feed-forward matrices.
 *
 * F16 counts as without loss: rounding to 11 bits costs an 800th of what Q8_0 does on Gaussian data
 * (3.6e-8 of the energy), less than measured losses are sure of, and its products round no
 * activations. */
static double cost(const struct plan_unit *u, int choice)
{
    if (choice == CHOICE_F16)
        return 0;
    double each = u->measured ? u->loss[choice] : sensitivity(u->kind) * plain_error(choice);
    return each * (double)(u->rows * u->cols);
}

static double block_bits(const struct plan_unit *u, double bits)
{
    double best = possible(u, CHOICE_F16, bits) ? MOST_BITS : Q8_BITS;
    double most = bits > 2 ? 2 * bits : 4;
    return most < best ? most : best;
}

uint64_t plan_most_bytes(const struct plan_unit *u, double bits)
{
    return (uint64_t)(block_bits(u, bits) * (double)(u->rows * u->cols) / 8) +
           2 * (u->rows + u->cols);
}

struct budget {  /* bytes that may still be spent */
    double bits; /* asked for */
    uint64_t all;
    uint64_t *block; /* [blocks] */
};

static uint64_t room(const struct budget *b, const struct plan_unit *u)
{
    return b->block[u->block] < b->all ? b->block[u->block] : b->all;
}

static void pay(struct budget *b, const struct plan_unit *u, int64_t bytes)
{
    uint64_t *block = &b->block[u->block];
    b->all -= (uint64_t)bytes;
    *block = bytes > 0 && (uint64_t)bytes > *block ? 0 : *block - (uint64_t)bytes;
}

struct step { /* from a choice to a better one */
    int from, to;
    double gain;   /* loss saved per bit; none when not above 0 */
    int64_t bytes; /* what it costs; less than nothing where a band of codes is mostly padding */
};

/* The steepest step that the budget has room for. From the cheapest choice on, that is along the lower convex
 * hull of the choices' bytes and costs; towards the end it may leave it for one that still fits. */
static enum status find_step(const struct plan_unit *u, const struct budget *b, struct step *s,
                             struct error *e)
{
    *s = (struct step){.from = s->from};
    for (int to = 0; to < CHOICES; to++) {
        struct plan_unit after = *u;
        double saved = cost(u, s->from) - cost(u, to);
        if (saved <= 0 || !possible(u, to, b->bits))
            continue;
        TRY(choose(&after, to, e));
        int64_t bytes = (int64_t)(after.form.bytes - u->form.bytes);
        double gain = saved / (8.0 * (double)(bytes > 0 ? bytes : 1));
        if (gain > s->gain && (bytes <= 0 || (uint64_t)bytes <= room(b, u)))
            *s = (struct step){s->from, to, gain, bytes};
    }
    return OK;
}

/* Takes steps by gain, earlier matrices first among equals, until none fits the budget any more. */
static enum status spend(struct plan_unit *units, struct step *next, uint32_t n, struct budget *b,
                         struct error *e)
{
    for (;;) {
        uint32_t best = n;
        for (uint32_t i = 0; i < n; i++) {
            if (next[i].gain > 0 && next[i].bytes > 0 &&
                (uint64_t)next[i].bytes > room(b, &units[i]))
                TRY(find_step(&units[i], b, &next[i], e));
            if (next[i].gain > 0 && (best == n || next[i].gain > next[best].gain))
                best = i;
        }
        if (best == n)
            return OK;
        pay(b, &units[best], next[best].bytes);
        TRY(choose(&units[best], next[best].to, e));
        next[best].from = next[best].to;
        TRY(find_step(&units[best], b, &next[best], e));
    }
}

/* Fills the budget for units that have the longest groups, and what they could do with it. */
static enum status open_budget(const struct plan_unit *units, uint32_t n, struct budget *b,
                               struct step *next, bool *over, struct error *e)
{
    uint64_t used = 0, weights = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!plan_is_matrix(&units[i]))
            continue;
        used += units[i].form.bytes;
        weights += units[i].rows * units[i].cols;
        b->block[units[i].block] += plan_most_bytes(&units[i], b->bits);
    }
    uint64_t all = (uint64_t)(b->bits * (double)weights / 8);
    *over = used > all;
    b->all = all; /* pay takes from it what the longest groups cost */
    for (uint32_t i = 0; i < n && !*over; i++)
        if (plan_is_matrix(&units[i]))
            pay(b, &units[i], (int64_t)units[i].form.bytes);
    for (uint32_t i = 0; i < n && !*over; i++) {
        next[i].from = LONGEST;
        if (plan_is_matrix(&units[i]))
            TRY(find_step(&units[i], b, &next[i], e));
    }
    return OK;
}

static enum status allocate_bits(struct plan_unit *units, uint32_t n, double bits,
                                 struct plan_totals *totals, struct error *e)
{
    struct step *next;
    struct budget b = {.bits = bits};
    uint32_t blocks = 0;
    FAIL_IF(!(bits >= 0.5 && bits <= MOST_BITS), e, ERR_USAGE,
            "--bits %g is not possible: matrices have 0.5 to %g bits per weight", bits, MOST_BITS);
    for (uint32_t i = 0; i < n; i++)
        if (plan_is_matrix(&units[i]) && units[i].block >= blocks)
            blocks = units[i].block + 1;
    TRY(mem_array(&next, n, sizeof *next, "the allocation of bits", e));
    enum status status = mem_array(&b.block, blocks, sizeof *b.block, "the allocation of bits", e);
    if (status == OK)
        status = open_budget(units, n, &b, next, &totals->over_budget, e);
    if (status == OK && !totals->over_budget)
        status = spend(units, next, n, &b, e);
    free(b.block);
    free(next);
    return status;
}

enum status plan_compression(struct plan_unit *units, uint32_t n, const struct plan_settings *s,
                             struct plan_totals *totals, struct error *e)
{
    enum unit_method method = UNIT_CODE, embeddings;
    uint32_t embeddings_d;
    *totals = (struct plan_totals){0};
    TRY(method_named(s->method, &method, e));
    FAIL_IF(!form_named(s->embeddings, &embeddings, &embeddings_d) || embeddings == UNIT_SIGN ||
                (embeddings == UNIT_CODE && embeddings_d == 0),
            e, ERR_USAGE,
            "--embeddings %s is not possible: take q8_0, q4_0, f16, f32, code4, code2.67 or code2",
            s->embeddings);
    for (uint32_t i = 0; i < n; i++) {
        struct plan_unit *u = &units[i];
        u->method = u->vector ? UNIT_F32 : plan_is_matrix(u) ? method : embeddings;
        u->d = u->method != UNIT_CODE ? 0 : plan_is_matrix(u) ? CODEBOOK_MAX_D : embeddings_d;
        u->why[0] = '\0';
        fit(u);
        TRY(set_form(u, s->outliers, e));
    }
    if (method == UNIT_CODE)
        TRY(allocate_bits(units, n, s->bits, totals, e));
    totals->none_fits = true;
    for (uint32_t i = 0; i < n; i++) {
        if (!plan_is_matrix(&units[i]))
            continue;
        totals->none_fits = totals->none_fits && units[i].why[0];
        totals->matrix_bytes += units[i].form.bytes;
        totals->matrix_weights += units[i].rows * units[i].cols;
    }
    return OK;
}
