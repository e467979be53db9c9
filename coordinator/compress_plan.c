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

struct upgrade {
    struct form form; /* after it */
    uint32_t d;
    double gain;    /* loss saved per bit */
    uint64_t bytes; /* what it costs */
};

/* What the codes of a book cost u, for the choice between matrices.
 *
 * Measured: what the search lost on a sample of rows (the curvature of their inputs, relative to
 * nothing), times what such an error of an output costs the likelihood of the text, per weight.
 *
 * Not measured: sensitivity of the kind x error of the book on Gaussian data. On three small models
 * at 1, 1.5 and 2 bits, counting matrices by their weights gave lower perplexities than counting
 * each of them alike, which starves the feed-forward matrices. */
static double cost(const struct plan_unit *u, const struct codebook *book)
{
    double each = u->measured ? u->loss[book - codebook_table] : sensitivity(u->kind) * book->error;
    return each * (double)(u->rows * u->cols);
}

/* The step to the next shorter groups that bring anything. Measured losses of two lengths may be
 * alike by chance, and what lies beyond them must stay in reach. */
static enum status next_upgrade(const struct plan_unit *u, struct upgrade *up, struct error *e)
{
    const struct codebook *now = codebook_for(u->d);
    *up = (struct upgrade){.gain = -1};
    for (const struct codebook *book = now; up->gain <= 0 && book > codebook_table;) {
        book--;
        struct plan_unit after = *u;
        after.d = book->d;
        TRY(set_form(&after, 0, e));
        uint64_t bytes = after.form.bytes > u->form.bytes ? after.form.bytes - u->form.bytes : 0;
        double saved = cost(u, now) - cost(u, book);
        double gain = saved / (8.0 * (double)(bytes > 0 ? bytes : 1));
        *up = (struct upgrade){after.form, book->d, gain, bytes};
    }
    return OK;
}

/* Takes upgrades by gain, earlier matrices first among equals, until none fits the budget any
 * more. */
static enum status spend(struct plan_unit *units, struct upgrade *next, uint32_t n, uint64_t budget,
                         uint64_t *used, struct error *e)
{
    for (;;) {
        uint32_t best = n;
        for (uint32_t i = 0; i < n; i++) {
            bool fits = next[i].gain > 0 && next[i].bytes <= budget - *used;
            if (fits && (best == n || next[i].gain > next[best].gain))
                best = i;
        }
        if (best == n)
            return OK;
        *used += next[best].bytes;
        units[best].d = next[best].d;
        units[best].form = next[best].form;
        TRY(next_upgrade(&units[best], &next[best], e));
    }
}

static enum status allocate_bits(struct plan_unit *units, uint32_t n, double bits,
                                 struct plan_totals *totals, struct error *e)
{
    struct upgrade *next;
    uint64_t used = 0, weights = 0;
    FAIL_IF(!(bits >= 0.5 && bits <= 4), e, ERR_USAGE,
            "--bits %g is not possible: byte codes hold 0.5 to 4 bits per weight", bits);
    TRY(mem_array(&next, n, sizeof *next, "the allocation of bits", e));
    enum status status = OK;
    for (uint32_t i = 0; i < n && status == OK; i++) {
        next[i].gain = -1;
        if (!plan_is_matrix(&units[i]))
            continue;
        used += units[i].form.bytes;
        weights += units[i].rows * units[i].cols;
        status = next_upgrade(&units[i], &next[i], e);
    }
    uint64_t budget = (uint64_t)(bits * (double)weights / 8);
    totals->over_budget = used > budget;
    if (status == OK && !totals->over_budget)
        status = spend(units, next, n, budget, &used, e);
    free(next);
    return status;
}

enum status plan_compression(struct plan_unit *units, uint32_t n, const struct plan_settings *s,
                             struct plan_totals *totals, struct error *e)
{
    enum unit_method method = UNIT_CODE, embeddings = UNIT_Q8_0;
    *totals = (struct plan_totals){0};
    TRY(method_named(s->method, &method, e));
    TRY(method_named(s->embeddings, &embeddings, e));
    FAIL_IF(embeddings == UNIT_CODE || embeddings == UNIT_SIGN, e, ERR_USAGE,
            "--embeddings %s is not possible: take q8_0, q4_0, f16 or f32", s->embeddings);
    for (uint32_t i = 0; i < n; i++) {
        struct plan_unit *u = &units[i];
        u->method = u->vector ? UNIT_F32 : plan_is_matrix(u) ? method : embeddings;
        u->d = u->method == UNIT_CODE ? CODEBOOK_MAX_D : 0;
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
