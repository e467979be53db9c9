/* One function per command; each runs on rank 0 from start to end of the command, turning the loop
 * where it must wait. Results go to stdout, everything else to stderr. */
#ifndef SBIT_COORDINATOR_COMMANDS_H
#define SBIT_COORDINATOR_COMMANDS_H

#include "common/error.h"
#include "coordinator/cluster.h"
#include "coordinator/options.h"

enum status cmd_compress(struct cluster *c, struct error *e);
enum status cmd_run(struct cluster *c, struct error *e);
enum status cmd_eval(struct cluster *c, struct error *e);
enum status cmd_bench_model(struct cluster *c, struct error *e);
/* These two need no ranks. */
enum status cmd_inspect(const struct options *o, struct error *e);
enum status cmd_tokenize(const struct options *o, struct error *e);

#endif
