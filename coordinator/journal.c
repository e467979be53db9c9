#define _GNU_SOURCE /* vasprintf */
#include "coordinator/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/mem.h"
#include "coordinator/output_path.h"

enum { SUM_DIGITS = 16, FILE_BYTES_MAX = 256 << 20 };

struct journal {
    char *path;
    int fd;
    char *text;  /* of the file as it was opened; line breaks are terminators */
    char **line; /* [lines] into text, behind the checksums */
    uint32_t lines;
    off_t end;    /* of what is valid in the file */
    uint64_t sum; /* of the last line, added ones included */
    char *added;  /* [added_bytes] lines for the next commit */
    size_t added_bytes, room;
};

static enum status lock(const struct journal *j, struct error *e)
{
    if (flock(j->fd, LOCK_EX | LOCK_NB) == 0)
        return OK;
    FAIL_IF(errno == EWOULDBLOCK, e, ERR_IO,
            "another sbit is at work on this output and holds %s: wait for it, or name another "
            "file with -o",
            j->path);
    return OK; /* a file system without locks */
}

/* Whether path still names the file that is open here: its holder may just have removed it. */
static bool is_current(const struct journal *j)
{
    struct stat mine, named;
    return fstat(j->fd, &mine) == 0 && stat(j->path, &named) == 0 && mine.st_dev == named.st_dev &&
           mine.st_ino == named.st_ino;
}

static enum status open_locked(struct journal *j, struct error *e)
{
    for (;;) {
        j->fd = open(j->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (j->fd < 0)
            return error_set_errno(e, ERR_IO, "cannot write %s", j->path);
        TRY(lock(j, e));
        if (is_current(j))
            return OK;
        close(j->fd);
    }
}

static enum status read_all(struct journal *j, size_t *size, struct error *e)
{
    struct stat st;
    if (fstat(j->fd, &st) != 0)
        return error_set_errno(e, ERR_IO, "cannot read %s", j->path);
    FAIL_IF(!S_ISREG(st.st_mode) || st.st_size > FILE_BYTES_MAX, e, ERR_FORMAT,
            "%s is no journal of sbit: move it away, or name another file with -o", j->path);
    TRY(mem_array(&j->text, (size_t)st.st_size + 1, 1, "the journal", e));
    *size = 0;
    while (*size < (size_t)st.st_size) {
        ssize_t n = pread(j->fd, j->text + *size, (size_t)st.st_size - *size, (off_t)*size);
        if (n < 0 && errno != EINTR)
            return error_set_errno(e, ERR_IO, "cannot read %s", j->path);
        if (n == 0)
            break;
        *size += n > 0 ? (size_t)n : 0;
    }
    return OK;
}

static uint64_t sum_of(const char *text, uint64_t before)
{
    return XXH3_64bits_withSeed(text, strlen(text), before);
}

/* Whether line, terminated, stands behind a line of checksum j->sum. */
static bool is_valid(const struct journal *j, const char *line, size_t size)
{
    char digits[SUM_DIGITS + 1];
    if (size <= SUM_DIGITS || strlen(line) != size || line[SUM_DIGITS] != ' ')
        return false;
    snprintf(digits, sizeof digits, "%0*" PRIx64, SUM_DIGITS,
             sum_of(line + SUM_DIGITS + 1, j->sum));
    return memcmp(line, digits, SUM_DIGITS) == 0;
}

/* What follows the last valid line: nothing, the torn end of a line, or, where whole lines follow that
 * are not valid, damage. A file without any valid line may be somebody else's. */
static enum status check_tail(const struct journal *j, const char *tail, size_t size,
                              struct error *e)
{
    const char *cut = memchr(tail, '\n', size);
    bool more = cut && (size_t)(cut + 1 - tail) < size;
    bool ours = size == 0 || !*tail || strspn(tail, "0123456789abcdef") > 0;
    FAIL_IF(j->lines == 0 && (!ours || cut), e, ERR_FORMAT,
            "%s is no journal of sbit, or its first line is damaged: remove it if it is not yours, "
            "with the .part file beside it, or name another file with -o",
            j->path);
    FAIL_IF(more, e, ERR_FORMAT,
            "%s is damaged in line %u: remove it and the .part files beside it to begin again",
            j->path, j->lines + 1);
    return OK;
}

static enum status parse(struct journal *j, size_t size, struct error *e)
{
    size_t most = 1;
    for (size_t i = 0; i < size; i++)
        most += j->text[i] == '\n';
    TRY(mem_array(&j->line, most, sizeof *j->line, "the journal", e));
    char *at = j->text, *cut;
    while ((cut = memchr(at, '\n', size - (size_t)(at - j->text)))) {
        *cut = '\0';
        bool valid = is_valid(j, at, (size_t)(cut - at));
        if (!valid)
            *cut = '\n';
        if (!valid)
            break;
        j->line[j->lines] = at + SUM_DIGITS + 1;
        j->sum = sum_of(j->line[j->lines++], j->sum);
        at = cut + 1;
    }
    j->end = at - j->text;
    return check_tail(j, at, size - (size_t)j->end, e);
}

enum status journal_open(struct journal **out, const char *path, struct error *e)
{
    struct journal *j;
    size_t size = 0;
    TRY(mem_array(&j, 1, sizeof *j, "the journal", e));
    j->fd = -1;
    enum status status = mem_string(&j->path, path, e);
    if (status == OK)
        status = open_locked(j, e);
    if (status == OK)
        status = read_all(j, &size, e);
    if (status == OK)
        status = parse(j, size, e);
    if (status == OK)
        status = output_path_sync_folder(path, e);
    if (status != OK) {
        journal_close(j);
        return status;
    }
    *out = j;
    return OK;
}

void journal_close(struct journal *j)
{
    if (!j)
        return;
    if (j->fd >= 0)
        close(j->fd);
    free(j->path);
    free(j->text);
    free(j->line);
    free(j->added);
    free(j);
}

void journal_remove(struct journal *j)
{
    if (j)
        unlink(j->path);
    journal_close(j);
}

uint32_t journal_lines(const struct journal *j)
{
    return j->lines;
}

const char *journal_line(const struct journal *j, uint32_t i)
{
    return j->line[i];
}

void journal_reset(struct journal *j)
{
    j->lines = 0;
    j->end = 0;
    j->sum = 0;
    j->added_bytes = 0;
}

static enum status append(struct journal *j, const char *text, struct error *e)
{
    size_t size = SUM_DIGITS + 1 + strlen(text) + 1;
    if (j->room - j->added_bytes <= size) {
        size_t room = 2 * j->room + size + 1;
        char *more = realloc(j->added, room);
        FAIL_IF(!more, e, ERR_MEMORY, "out of memory: lines of the journal");
        j->added = more;
        j->room = room;
    }
    j->sum = sum_of(text, j->sum);
    snprintf(j->added + j->added_bytes, size + 1, "%0*" PRIx64 " %s\n", SUM_DIGITS, j->sum, text);
    j->added_bytes += size;
    return OK;
}

enum status journal_add(struct journal *j, struct error *e, const char *format, ...)
{
    char *text;
    va_list values;
    va_start(values, format);
    int n = vasprintf(&text, format, values);
    va_end(values);
    FAIL_IF(n < 0, e, ERR_MEMORY, "out of memory: a line of the journal");
    enum status status = append(j, text, e);
    free(text);
    return status;
}

enum status journal_commit(struct journal *j, struct error *e)
{
    size_t done = 0;
    if (ftruncate(j->fd, j->end) != 0)
        return error_set_errno(e, ERR_IO, "cannot write %s", j->path);
    while (done < j->added_bytes) {
        ssize_t n = pwrite(j->fd, j->added + done, j->added_bytes - done, j->end + (off_t)done);
        if (n < 0 && errno != EINTR)
            return error_set_errno(e, ERR_IO, "cannot write %s", j->path);
        done += n > 0 ? (size_t)n : 0;
    }
    if (fdatasync(j->fd) != 0)
        return error_set_errno(e, ERR_IO, "cannot write %s", j->path);
    j->end += (off_t)j->added_bytes;
    j->added_bytes = 0;
    return OK;
}
