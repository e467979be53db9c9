/* Floats by pread and pwrite. The file's pages stay the system's: it keeps them cached while memory
 * is free, gives them up before anything of this process, and they never count as resident. */
#define _GNU_SOURCE
#include "worker/act_store.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/mem.h"

struct act_store {
    size_t floats;
    const char *what; /* static */
    float *memory;    /* [floats], NULL: in the file */
    int file;         /* -1: in memory */
    char folder[512];
};

enum { PATH_BYTES = 560 };

static enum status fail_file(const struct act_store *s, const char *doing, struct error *e)
{
    return error_set_errno(e, ERR_IO,
                           "cannot %s a temporary file in %s for the %s, %zu bytes (set TMPDIR "
                           "to a folder with more room, raise --ram or lower --calib-tokens)",
                           doing, s->folder, s->what, s->floats * sizeof(float));
}

/* File systems that cannot take space in advance give it as it is written. */
static enum status take_space(struct act_store *s, struct error *e)
{
    off_t bytes = (off_t)(s->floats * sizeof(float));
    if (bytes == 0 || fallocate(s->file, 0, 0, bytes) == 0)
        return OK;
    if ((errno != EOPNOTSUPP && errno != ENOSYS) || ftruncate(s->file, bytes) != 0)
        return fail_file(s, "get room for", e);
    return OK;
}

static enum status open_file(struct act_store *s, struct error *e)
{
    char path[PATH_BYTES];
    const char *folder = getenv("TMPDIR");
    int n = snprintf(s->folder, sizeof s->folder, "%s", folder && *folder ? folder : "/var/tmp");
    FAIL_IF(n >= (int)sizeof s->folder, e, ERR_LIMIT, "the path in TMPDIR is longer than %zu bytes",
            sizeof s->folder - 1);
    snprintf(path, sizeof path, "%s/sbit-XXXXXX", s->folder);
    signal(SIGXFSZ, SIG_IGN); /* a file size limit shall be an error, not the end */
    s->file = mkostemp(path, O_CLOEXEC);
    if (s->file < 0)
        return fail_file(s, "create", e);
    unlink(path);
    return take_space(s, e);
}

enum status act_store_create(struct act_store **out, size_t floats, bool on_disk, const char *what,
                             struct error *e)
{
    struct act_store *s;
    uint64_t bytes;
    FAIL_IF(!mul_fits(floats, sizeof(float), &bytes) || bytes > INT64_MAX, e, ERR_MEMORY,
            "the %s need more bytes than any machine has", what);
    TRY(mem_array(&s, 1, sizeof *s, what, e));
    s->floats = floats;
    s->what = what;
    s->file = -1;
    enum status status =
        on_disk ? open_file(s, e) : mem_array(&s->memory, floats, sizeof(float), what, e);
    if (status != OK) {
        act_store_free(s);
        return status;
    }
    *out = s;
    return OK;
}

void act_store_free(struct act_store *s)
{
    if (!s)
        return;
    if (s->file >= 0)
        close(s->file);
    free(s->memory);
    free(s);
}

bool act_store_on_disk(const struct act_store *s)
{
    return s->file >= 0;
}

static enum status check_range(const struct act_store *s, size_t first, size_t count,
                               struct error *e)
{
    FAIL_IF(first > s->floats || count > s->floats - first, e, ERR_LIMIT,
            "place %zu + %zu lies beyond the %s", first, count, s->what);
    return OK;
}

static enum status read_file(const struct act_store *s, size_t first, size_t count, float *to,
                             struct error *e)
{
    size_t left = count * sizeof *to, at = first * sizeof *to;
    for (char *next = (char *)to; left > 0;) {
        ssize_t n = pread(s->file, next, left, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            errno = EIO; /* somebody cut the file */
        if (n <= 0)
            return fail_file(s, "read", e);
        next += n;
        at += (size_t)n;
        left -= (size_t)n;
    }
    return OK;
}

static enum status write_file(struct act_store *s, size_t first, size_t count, const float *from,
                              struct error *e)
{
    size_t left = count * sizeof *from, at = first * sizeof *from;
    for (const char *next = (const char *)from; left > 0;) {
        ssize_t n = pwrite(s->file, next, left, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return fail_file(s, "write", e);
        next += n;
        at += (size_t)n;
        left -= (size_t)n;
    }
    return OK;
}

enum status act_store_read(const struct act_store *s, size_t first, size_t count, float *to,
                           struct error *e)
{
    TRY(check_range(s, first, count, e));
    if (!s->memory)
        return read_file(s, first, count, to, e);
    memcpy(to, s->memory + first, count * sizeof *to);
    return OK;
}

enum status act_store_write(struct act_store *s, size_t first, size_t count, const float *from,
                            struct error *e)
{
    TRY(check_range(s, first, count, e));
    if (!s->memory)
        return write_file(s, first, count, from, e);
    memcpy(s->memory + first, from, count * sizeof *from);
    return OK;
}

enum status act_store_view(const struct act_store *s, size_t first, size_t count, float *room,
                           const float **view, struct error *e)
{
    TRY(check_range(s, first, count, e));
    *view = s->memory ? s->memory + first : room;
    return s->memory ? OK : read_file(s, first, count, room, e);
}
