/* Text from files and from standard input. */
#ifndef SBIT_COORDINATOR_TEXT_INPUT_H
#define SBIT_COORDINATOR_TEXT_INPUT_H

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"
#include "coordinator/cluster.h"

struct text {    /* any bytes, NUL-terminated besides */
    char *bytes; /* owned; text_free */
    size_t size;
};

/* The whole file at path, "-" being standard input. Turns the cluster's loop while waiting, so that
 * the other ranks see that this one lives; c may be NULL. Errors: ERR_IO, ERR_MEMORY,
 * ERR_LIMIT above 256 MiB, ERR_INTERRUPTED. */
enum status text_read(struct text *t, const char *path, struct cluster *c, struct error *e);
/* Says on standard error how much of a text, by name, is no UTF-8, if anything is: it is no text then,
 * or one in another encoding. A character that the end cuts off does not count. */
void text_note_foreign(const struct text *t, const char *name);
/* A copy of a string. */
enum status text_copy(struct text *t, const char *string, struct error *e);
void text_free(struct text *t);

struct line_reader { /* lines of standard input, read without blocking the loop; zero to begin */
    struct text held;
    bool ended;
};

/* The next line without its newline into *line (text_free); line->bytes NULL at the end of the
 * input. Turns the cluster's loop while waiting. Errors: also ERR_INTERRUPTED. */
enum status line_read(struct line_reader *r, struct cluster *c, struct text *line, struct error *e);
void line_reader_free(struct line_reader *r);

#endif
