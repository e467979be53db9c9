/* Shapes of published models, for sbit bench model: numbers from their config.json files. */
#ifndef SBIT_COORDINATOR_BENCH_SHAPES_H
#define SBIT_COORDINATOR_BENCH_SHAPES_H

#include "common/error.h"
#include "common/model.h"

/* *c = the description of the model of that name. Errors: ERR_USAGE listing all names. */
enum status bench_shape(struct model_config *c, const char *name, struct error *e);
/* The name of shape i, NULL behind the last. */
const char *bench_shape_name(int i);

#endif
