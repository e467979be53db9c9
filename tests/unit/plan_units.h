/* Units of a plan, made from nothing but a kind and a shape. */
#ifndef SBIT_TESTS_UNIT_PLAN_UNITS_H
#define SBIT_TESTS_UNIT_PLAN_UNITS_H

#include <stdio.h>
#include <string.h>

#include "coordinator/compress_plan.h"

static inline void make_unit(struct plan_unit *u, enum tensor_kind kind, uint32_t block,
                             uint64_t rows, uint64_t cols)
{
    char base[64];
    memset(u, 0, sizeof *u);
    model_base_name(base, kind, block);
    snprintf(u->name, sizeof u->name, "%.50s.weight", base);
    u->kind = kind;
    u->block = block;
    u->rows = rows;
    u->cols = cols;
    u->vector = !model_rule(kind)->matrix;
}

#endif
