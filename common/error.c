#include "common/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A very long name in the sentence shall not push the fact behind it out: the middle is left out.
 * And names from hostile files shall not steer the terminal. */
static void write_text(struct error *e, const char *format, va_list args, const char *reason)
{
    enum { ROOM = sizeof e->text - 1, HALF = (ROOM - 3) / 2 };
    char whole[16384]; /* three paths and the sentence, of which 256 bytes are for the reason */
    size_t most = sizeof whole - 256;
    int n = vsnprintf(whole, most, format, args);
    size_t used = n < 0 ? 0 : (size_t)n < most ? (size_t)n : most - 1;
    if (reason)
        used += (size_t)snprintf(whole + used, 256, ": %.200s", reason);
    whole[used] = '\0';
    if (used <= ROOM)
        memcpy(e->text, whole, used + 1);
    else
        snprintf(e->text, sizeof e->text, "%.*s...%s", HALF, whole, whole + used - HALF);
    for (unsigned char *c = (unsigned char *)e->text; *c; c++)
        if (*c < ' ' || *c == 0x7f)
            *c = '?';
}

enum status error_set(struct error *e, enum status status, const char *format, ...)
{
    if (e->status != OK)
        return e->status;
    va_list args;
    va_start(args, format);
    write_text(e, format, args, NULL);
    va_end(args);
    e->status = status;
    return status;
}

enum status error_set_errno(struct error *e, enum status status, const char *format, ...)
{
    int saved = errno;
    if (e->status != OK)
        return e->status;
    va_list args;
    va_start(args, format);
    write_text(e, format, args, strerror(saved));
    va_end(args);
    e->status = status;
    return status;
}
