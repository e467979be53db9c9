/* Text from files and from standard input. Knows nothing of tokens. */
#include "coordinator/text_input.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/mem.h"
#include "common/utf8.h"

#define PIECE   65536
#define LONGEST (UINT64_C(256) << 20) /* an endless input (/dev/zero) shall not fill the memory */

void text_free(struct text *t)
{
    free(t->bytes);
    *t = (struct text){0};
}

enum status text_copy(struct text *t, const char *string, struct error *e)
{
    t->size = strlen(string);
    return mem_string(&t->bytes, string, e);
}

/* Appends what one read returns; *ended at the end of the file. */
static enum status append(struct text *t, int fd, const char *path, bool *ended, struct error *e)
{
    FAIL_IF(t->size >= LONGEST, e, ERR_LIMIT, "%s has more than %d MiB: give a shorter text", path,
            (int)(LONGEST >> 20));
    /* The room follows from the size, so that it need not be kept: it doubles. */
    size_t room = PIECE;
    while (room < t->size + PIECE / 2)
        room *= 2;
    char *grown = realloc(t->bytes, room + 1);
    FAIL_IF(!grown, e, ERR_MEMORY, "out of memory: the text of %s has more than %zu bytes", path,
            t->size);
    t->bytes = grown;
    ssize_t got;
    do {
        got = read(fd, grown + t->size, room - t->size);
    } while (got < 0 && errno == EINTR && !loop_interrupted());
    FAIL_IF(got < 0 && errno == EINTR, e, ERR_INTERRUPTED, "stopped by a signal");
    if (got < 0)
        return error_set_errno(e, ERR_IO, "cannot read %s", path);
    t->size += (size_t)got;
    grown[t->size] = '\0';
    *ended = got == 0;
    return OK;
}

/* Turns the loop until there is something to read: a person may take any time, so no deadline. */
static enum status await_input(int fd, struct cluster *c, struct error *e)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (poll(&p, 1, 0) <= 0)
        TRY(loop_turn(c->loop, e));
    return OK;
}

enum status text_read(struct text *t, const char *path, struct cluster *c, struct error *e)
{
    bool is_stdin = !strcmp(path, "-"), ended = false;
    int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    enum status status = OK;
    *t = (struct text){0};
    if (fd < 0)
        return error_set_errno(e, ERR_IO, "cannot open %s", path);
    while (status == OK && !ended) {
        if (c)
            status = await_input(fd, c, e);
        if (status == OK)
            status = append(t, fd, is_stdin ? "standard input" : path, &ended, e);
    }
    if (!is_stdin)
        close(fd);
    if (status != OK)
        text_free(t);
    return status;
}

void text_note_foreign(const struct text *t, const char *name)
{
    size_t foreign = 0, first = 0;
    for (size_t i = 0; i < t->size;) {
        int size = utf8_step(t->bytes + i, t->size - i);
        if (size == 0)
            break;
        if (size < 0 && foreign == 0)
            first = i;
        foreign += size < 0 ? (size_t)-size : 0;
        i += (size_t)abs(size);
    }
    if (foreign > 0)
        fprintf(stderr,
                "sbit: %zu of the %zu bytes of %s are no UTF-8, the first at offset %zu: what "
                "is no text, or in another encoding, says little about a model\n",
                foreign, t->size, name, first);
}

/* Moves the first n held bytes, and one newline that follows them, into *line. */
static enum status cut_line(struct line_reader *r, size_t n, struct text *line, struct error *e)
{
    size_t used = n < r->held.size ? n + 1 : n;
    TRY(mem_array(&line->bytes, n + 1, 1, "a line of input", e));
    memcpy(line->bytes, r->held.bytes, n);
    line->size = n;
    r->held.size -= used;
    memmove(r->held.bytes, r->held.bytes + used, r->held.size);
    return OK;
}

enum status line_read(struct line_reader *r, struct cluster *c, struct text *line, struct error *e)
{
    *line = (struct text){0};
    for (;;) {
        char *newline = r->held.size ? memchr(r->held.bytes, '\n', r->held.size) : NULL;
        if (newline)
            return cut_line(r, (size_t)(newline - r->held.bytes), line, e);
        if (r->ended)
            return r->held.size ? cut_line(r, r->held.size, line, e) : OK;
        TRY(await_input(STDIN_FILENO, c, e));
        TRY(append(&r->held, STDIN_FILENO, "standard input", &r->ended, e));
    }
}

void line_reader_free(struct line_reader *r)
{
    text_free(&r->held);
}
