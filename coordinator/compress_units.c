#include "coordinator/compress_units.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/calib_memory.h"
#include "common/mem.h"
#include "common/plan.h"

enum { OUTSIDE_BLOCKS = 4 };

static const enum tensor_kind outside[OUTSIDE_BLOCKS] = {KIND_EMBEDDING, KIND_OUTPUT_NORM,
                                                         KIND_OUTPUT, KIND_ROPE_FACTORS};

static enum status refuse_compressed(const struct weights *w, struct error *e)
{
    for (uint64_t i = 0; i < w->n_tensors; i++) {
        const char *dot = strrchr(w->tensors[i].name, '.');
        bool ours = dot && (strcmp(dot, ".code") == 0 || strcmp(dot, ".outlier_row") == 0);
        enum dtype dtype = w->tensors[i].dtype;
        FAIL_IF(ours || dtype == DTYPE_Q1_0 || dtype == DTYPE_Q2_0, e, ERR_UNSUPPORTED,
                "%s is already compressed (tensor %s): compress the original instead", w->path,
                w->tensors[i].name);
    }
    return OK;
}

/* Appends the tensor of that kind, if the source has it. */
static void append(const struct weights *w, enum tensor_kind kind, uint32_t block,
                   struct plan_unit *units, uint32_t *n)
{
    const struct tensor_rule *rule = model_rule(kind);
    char base[64];
    model_base_name(base, kind, rule->per_block ? block : 0);
    const struct tensor *t = weights_find2(w, base, rule->suffix);
    if (!t || (kind == KIND_OUTPUT && w->config.tied))
        return;
    struct plan_unit *u = &units[(*n)++];
    snprintf(u->name, sizeof u->name, "%s", t->name);
    u->kind = kind;
    u->block = block;
    u->rows = t->rows;
    u->cols = t->cols;
    u->vector = !rule->matrix;
}

enum status compress_units(const struct weights *w, struct plan_unit **units, uint32_t *n,
                           struct error *e)
{
    *n = 0;
    TRY(refuse_compressed(w, e));
    TRY(mem_array(units, OUTSIDE_BLOCKS + (size_t)w->config.block_count * KIND_COUNT,
                  sizeof **units, "the list of tensors", e));
    for (int i = 0; i < OUTSIDE_BLOCKS; i++)
        append(w, outside[i], UINT32_MAX, *units, n);
    for (uint32_t b = 0; b < w->config.block_count; b++)
        for (int k = 0; k < KIND_COUNT; k++)
            if (model_rule((enum tensor_kind)k)->per_block)
                append(w, (enum tensor_kind)k, b, *units, n);
    return OK;
}

enum status compress_take_measured(struct plan_unit *units, uint32_t n,
                                   const struct msg_measured *m, struct error *e)
{
    for (uint32_t i = 0; i < n; i++) {
        struct plan_unit *u = &units[i];
        if (!plan_is_matrix(u) || u->block != m->block || (uint32_t)u->kind != m->kind)
            continue;
        FAIL_IF(m->importance && !u->measured, e, ERR_PEER, "%s was measured out of turn", u->name);
        for (int d = 0; d < UNIT_CHOICES; d++) {
            FAIL_IF(!m->importance && m->loss[d] != 0 && u->loss[d] != 0, e, ERR_PEER,
                    "%s was measured twice", u->name);
            u->loss[d] = m->importance ? u->loss[d] * m->energy : u->loss[d] + m->loss[d];
        }
        u->columns = m->importance ? u->columns : m->columns;
        u->measured = true;
        return OK;
    }
    return error_set(e, ERR_PEER, "a matrix of kind %u in block %u was measured: there is none",
                     m->kind, m->block);
}

bool compress_is_shared(const struct plan_unit *u, bool calibrated, bool distilled)
{
    bool norm =
        u->kind == KIND_ATTN_NORM || u->kind == KIND_FFN_NORM || u->kind == KIND_OUTPUT_NORM;
    return calibrated && (plan_is_matrix(u) || (distilled && norm));
}

uint64_t compress_state_bytes(const struct plan_unit *units, uint32_t n,
                              const struct model_config *config, double recode)
{
    const uint64_t each = 3 * sizeof(float); /* the value and Adam's moments */
    uint64_t bytes = 2 * sizeof(uint32_t) + each * calib_parameters(config);
    for (uint32_t i = 0; i < n && calib_recodes(config, recode); i++) {
        const struct plan_unit *u = &units[i];
        uint64_t rows = (u->rows + FORM_BAND - 1) / FORM_BAND * FORM_BAND;
        if (plan_is_matrix(u) && u->method == UNIT_CODE)
            bytes += u->form.tensor[0].bytes + each * rows * u->cols;
    }
    return bytes;
}

const char *compress_step_name(enum tensor_kind kind)
{
    switch (kind) {
    case KIND_Q:
    case KIND_K:
    case KIND_V:
        return "q, k, v";
    case KIND_GATE:
    case KIND_UP:
        return "gate, up";
    default:
        return model_rule(kind)->label;
    }
}

uint64_t compress_work(const struct plan_unit *u)
{
    /* The search over the codebook costs about 4 times the rounding to a block type (measured). */
    return u->rows * u->cols * (u->method == UNIT_CODE ? 4 : 1);
}

enum status compress_deal(const struct plan_unit *units, uint32_t n, uint32_t blocks,
                          uint32_t ranks, uint32_t *rank_of, struct error *e)
{
    uint64_t *cost, head = 0;
    struct slice *slices = NULL;
    TRY(mem_array(&cost, blocks, sizeof *cost, "the plan", e));
    for (uint32_t i = 0; i < n; i++)
        *(units[i].block < blocks ? &cost[units[i].block] : &head) += compress_work(&units[i]);
    enum status status = mem_array(&slices, ranks, sizeof *slices, "the plan", e);
    if (status == OK)
        status = plan_slices(cost, blocks, head, ranks, slices, e);
    for (uint32_t i = 0; i < n && status == OK; i++) {
        rank_of[i] = 0;
        for (uint32_t r = 0; r < ranks; r++)
            if (units[i].block < blocks &&
                units[i].block - slices[r].first_block < slices[r].block_count)
                rank_of[i] = r;
    }
    free(cost);
    free(slices);
    return status;
}
