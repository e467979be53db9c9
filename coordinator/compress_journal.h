/* What a compression has finished, in a journal beside its output (docs/journal.md), so that another run
 * can go on from there. Owns the journal and its meaning; knows nothing of messages and quantisers.
 *
 * Order of calls: open, measured (when the energies have just come), begin, then step again and again,
 * sealed, and close in any case. */
#ifndef SBIT_COORDINATOR_COMPRESS_JOURNAL_H
#define SBIT_COORDINATOR_COMPRESS_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/loop.h"
#include "coordinator/compress_file.h"
#include "coordinator/journal.h"
#include "coordinator/options.h"

struct journal_units { /* units whose bytes stand in a file */
    struct compress_file *file;
    uint64_t (*hash)[FORM_TENSORS_MAX]; /* [n] */
    bool *recorded, *taken;             /* [n]; taken: by an earlier run */
    uint32_t n_recorded;
};

struct journal_state { /* of distilling */
    bool there;
    uint32_t step; /* steps done */
    uint64_t hash;
};

struct compress_journal { /* the first part set by the caller, all else zero to begin */
    const struct options *options;
    const struct weights *source;
    const struct compress_calibration *calibration; /* NULL: none */
    struct compress_file *file;
    struct compress_file *aside; /* matrices that wait for distillation; NULL: there is none */
    struct plan_unit *units;         /* [n] */
    struct compress_result *results; /* [n] */
    uint32_t n;
    uint64_t moment_floats; /* of second moments in blocks; 0: they are full */

    struct journal *journal;
    char *target;                       /* the output, behind links */
    bool had;                           /* there was one, of no use any more */
    bool accepted;                      /* it is this job's */
    bool resumed;                       /* and an earlier run has begun it */
    struct journal_units finished, searched; /* in file, and in aside */
    struct journal_state state[2]; /* the two in aside */
    int newest;                    /* of them */
    uint32_t n_measured, n_matrices;
    bool measured, planned, sealed; /* sealed: only the names are missing */
    uint64_t layout;
    double committed; /* when, by loop_now */
};

/* Opens or makes the journal of file->out. With --resume takes the results of finished units from it,
 * and what was measured into the units; *measured tells whether that was there. Errors: ERR_USAGE for
 * an unfinished job without --resume, or of another model, text or option, which it names; those of
 * journal_open; ERR_USAGE as gguf_output_check. */
enum status compress_journal_open(struct compress_journal *j, bool *measured, struct error *e);
/* Records the units' energies. Errors: ERR_IO. */
enum status compress_journal_measured(struct compress_journal *j, struct error *e);
/* What there is for gguf_output_resume of the file, and of the one aside. */
enum gguf_parts compress_journal_parts(const struct compress_journal *j);
enum gguf_parts compress_journal_parts_aside(const struct compress_journal *j);
/* After compress_file_begin and, unless it is sealed, compress_file_begin_aside: reads units back, so that
 * results[].done and searched are true for those, and only those, that the files really hold; says on stderr
 * how many are taken over. Calls loop_alive.
 * Errors: ERR_USAGE when the file is laid out differently now; ERR_IO. */
enum status compress_journal_begin(struct compress_journal *j, struct loop *loop, struct error *e);
/* Records results that have come, a few times a second, or at once. Errors: ERR_IO. */
enum status compress_journal_step(struct compress_journal *j, bool at_once, struct error *e);
/* Takes a piece of a state of distilling after so many steps, in order, and records it when it is complete; of the
 * two that there is room for it replaces the older. Errors: ERR_PEER for a piece that does not fit, ERR_IO. */
enum status compress_journal_keep(struct compress_journal *j, const struct msg_state *at,
                                  const void *data, size_t size, struct error *e);
/* Steps of the newest; 0: there is none. */
uint32_t compress_journal_steps(const struct compress_journal *j);
/* data[size] = its bytes from offset on, which must be within it. Errors: ERR_IO. */
enum status compress_journal_state(const struct compress_journal *j, uint64_t offset, void *data,
                                   size_t size, struct error *e);
/* Records that the file is complete but for its name. Errors: ERR_IO. */
enum status compress_journal_sealed(struct compress_journal *j, struct error *e);
/* After success removes the journal and the file aside, which is closed in any case. After a failure
 * leaves them with the unfinished file, and adds to the sentence how to go on, when something is finished
 * that another run can use. Leaves *j empty, so that calling it twice is fine. */
void compress_journal_close(struct compress_journal *j, enum status status, struct error *e);

#endif
