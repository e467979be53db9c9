/* The ranks as the coordinator sees them: who they are, who owns which blocks, what they report. */
#ifndef SBIT_COORDINATOR_CLUSTER_H
#define SBIT_COORDINATOR_CLUSTER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/loop.h"
#include "common/plan.h"
#include "common/weights.h"
#include "coordinator/options.h"

struct cluster {
    struct loop *loop; /* borrowed */
    const struct options *options;
    int size;
    struct msg_hello *hello;  /* [size] */
    struct msg_stats *stats;  /* [size], filled by cluster_gather_stats */
    uint32_t stages;          /* of the model assigned last */
    struct endpoint inner;    /* the command's own handler: gets LOGITS, TENSOR, UNIT_DONE */
    bool *answered;           /* [size] who has answered what is being waited for */
    uint32_t awaited;         /* how many still have to */
    enum message_kind waiting; /* HELLO, READY or STATS; 0: nothing */
    uint32_t ready_job;       /* READY of which job */
};

/* Collects HELLO of all ranks (deadline options->timeout, naming the missing ones) and refuses
 * mixed versions, naming both sides. *out is the caller's, cluster_close. Rank 0 only. */
enum status cluster_open(struct cluster **out, struct loop *loop, const struct options *options,
                         struct error *e);
void cluster_close(struct cluster *c);

/* Cores for each rank: --threads, or the cores of its host divided by the ranks on that host, at
 * least 1. */
uint32_t cluster_threads(const struct cluster *c, int rank);

/* Opens the ring for a model: plans slices (plan_slices), assigns them, waits until all are ready.
 * sequences and context size the KV cache. Says on stderr when ranks stay idle. */
enum status cluster_assign(struct cluster *c, uint32_t job, const struct weights *w,
                           uint32_t context, uint32_t sequences, uint32_t batch, struct error *e);
/* How many ranks form the ring of the model assigned last: those with blocks, and rank 0. */
uint32_t cluster_stages(const struct cluster *c);
/* Runs loop_until with the deadline of the options. */
enum status cluster_wait(struct cluster *c, bool (*done)(void *self), void *self, struct error *e);

/* Asks every rank for its numbers and waits for them. */
enum status cluster_gather_stats(struct cluster *c, struct error *e);

/* The array "ranks" of every --json report: rank, host, blocks, peak_rss_bytes, compute_s, wait_s,
 * messages, sent_bytes, sent_raw_bytes. *out is a new reference. */
enum status cluster_ranks_json(const struct cluster *c, json_t **out, struct error *e);
/* The --stats table on stderr. */
void cluster_print_stats(const struct cluster *c);

/* How bytes compare with those of what: "3.20 times smaller than F32", "1.01 times the size of F32"
 * or "as large as F32". Returns out. */
const char *report_ratio(char out[128], uint64_t bytes, double others, const char *what);
/* Whether report_write_json could write there, as far as can be told before the work. NULL is
 * fine. */
enum status report_check_path(const char *path, struct error *e);
/* The same for report_write_text, where --html names the file. */
enum status report_check_page(const char *path, struct error *e);
/* Refuses a --json or --html FILE that is also the model or a file of its folder, the output or what a
 * compression into it leaves when it is stopped, an input or the other, that has the name of a file
 * of weights, and names that JSON and HTML, which are UTF-8, cannot hold. */
enum status report_check_names(const struct options *o, struct error *e);
/* Writes size bytes to path by way of a temporary file and rename, or directly to a device. */
enum status report_write_text(const char *text, size_t size, const char *path, struct error *e);
/* Writes root to path in the same way. Takes the reference. */
enum status report_write_json(json_t *root, const char *path, struct error *e);

#endif
