/* Errors: the one pattern of the project.
 *
 * A function that can fail returns an enum status (0 is success) and, when it fails, has written one
 * sentence for the user into the caller's struct error: it names the file or rank, the fact and the
 * remedy. Nobody but main.c exits. The first error wins: error_set on a set error keeps the text.
 */
#ifndef SBIT_COMMON_ERROR_H
#define SBIT_COMMON_ERROR_H

enum status {
    OK = 0,
    ERR_USAGE,       /* the command line asks for something that does not exist */
    ERR_IO,          /* the operating system refused: missing file, full disk */
    ERR_FORMAT,      /* a file or message is not what it claims to be */
    ERR_UNSUPPORTED, /* well-formed, but not something this program handles */
    ERR_MEMORY,      /* an allocation failed */
    ERR_LIMIT,       /* a stated limit would be exceeded: context, RAM, size */
    ERR_PEER,        /* another rank failed, refused or vanished */
    ERR_INTERRUPTED, /* the user asked to stop */
};

struct error {
    enum status status; /* OK until set */
    char text[1000];    /* one sentence, no control characters and no rank prefix */
};

/* Writes status and the formatted sentence into *e unless *e already holds an error. Returns the
 * status that *e holds afterwards, so that "return error_set(...)" reads well. */
enum status error_set(struct error *e, enum status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same for a failed system call: appends ": " and strerror(errno). */
enum status error_set_errno(struct error *e, enum status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Returns from the calling function when expr is not OK. */
#define TRY(expr)                                                                                  \
    do {                                                                                           \
        enum status try_status = (expr);                                                           \
        if (try_status != OK)                                                                      \
            return try_status;                                                                     \
    } while (0)

/* Returns from the calling function with an error when cond holds. */
#define FAIL_IF(cond, e, status, ...)                                                              \
    do {                                                                                           \
        if (cond)                                                                                  \
            return error_set(e, status, __VA_ARGS__);                                              \
    } while (0)

#endif
