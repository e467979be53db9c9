/* sbit eval --tasks: multiple-choice questions answered by log-likelihood (docs/tasks.md). */
#ifndef SBIT_COORDINATOR_EVAL_TASKS_H
#define SBIT_COORDINATOR_EVAL_TASKS_H

#include "common/error.h"
#include "coordinator/cluster.h"

/* The whole command. Each choice is scored as the continuation of its question: the sum of
 * ln p(token | all before) over its tokens, as it is (plain accuracy) and divided by its bytes.
 * The same bits for any number of ranks, threads and sequences at once. Errors: also those of
 * task_file_parse, ERR_LIMIT for a question longer than the context. */
enum status eval_tasks(struct cluster *c, struct error *e);

#endif
