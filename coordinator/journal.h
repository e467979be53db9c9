/* A journal: lines that survive whatever ends the process, each with a checksum that also covers all
 * before it. Owns the file, its lock and its end; knows nothing of what the lines say.
 *
 *   CHECKSUM TEXT\n    16 hexadecimal digits, XXH3 (seed: the checksum before, 0 at first) of TEXT
 *
 * A line is there once journal_commit has returned: it is written and synced. What a power cut or a
 * full disk left of the lines behind the last commit is passed over when the journal is opened. */
#ifndef SBIT_COORDINATOR_JOURNAL_H
#define SBIT_COORDINATOR_JOURNAL_H

#include <stdint.h>

#include "common/error.h"

struct journal;

/* Opens the journal at path, or makes an empty one, and locks it (where the file system can) until
 * journal_close. *out is the caller's. Errors: ERR_IO, also while another process holds it;
 * ERR_FORMAT for a file that is no journal or is damaged before its last line. */
enum status journal_open(struct journal **out, const char *path, struct error *e);
/* Leaves the file. NULL is fine. */
void journal_close(struct journal *j);
/* The same, and removes the file. */
void journal_remove(struct journal *j);

/* The lines that were there when it was opened, without their checksums; views. */
uint32_t journal_lines(const struct journal *j);
const char *journal_line(const struct journal *j, uint32_t i);

/* Forgets all lines: the next commit begins the file anew. */
void journal_reset(struct journal *j);
/* Adds a line for the next commit. No line break in it. Errors: ERR_MEMORY. */
enum status journal_add(struct journal *j, struct error *e, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Writes and syncs the lines added. Errors: ERR_IO; they may then be added to and committed again. */
enum status journal_commit(struct journal *j, struct error *e);

#endif
