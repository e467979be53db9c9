#include "coordinator/output_path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/mem.h"

enum { LINKS_MAX = 40 }; /* as many as Linux follows */

static bool is_below(const char *path, const char *folder)
{
    size_t size = strlen(folder);
    return strncmp(path, folder, size) == 0 && (path[size] == '/' || path[size] == '\0');
}

static bool is_of_the_system(const char *folder)
{
    return (is_below(folder, "/dev") && !is_below(folder, "/dev/shm")) ||
           is_below(folder, "/proc") || is_below(folder, "/sys");
}

static enum status too_long(const char *path, struct error *e)
{
    return error_set(e, ERR_IO, "the path %.80s... is too long", path);
}

/* folder = that of the name at, without links and relative parts; *last = the name's last part. */
static enum status split(char folder[PATH_MAX], const char **last, const char *at, const char *path,
                         struct error *e)
{
    char start[PATH_MAX];
    const char *slash = strrchr(at, '/');
    *last = slash ? slash + 1 : at;
    FAIL_IF(!**last || !strcmp(*last, ".") || !strcmp(*last, ".."), e, ERR_IO,
            "%s is a folder: -o needs the name of a file to be written", path);
    snprintf(start, sizeof start, "%.*s", slash ? (int)(slash - at) + 1 : 1, slash ? at : ".");
    if (!realpath(start, folder) || access(folder, W_OK | X_OK) != 0)
        return error_set_errno(e, ERR_IO, "cannot write %s: its folder refuses", path);
    FAIL_IF(is_of_the_system(folder), e, ERR_IO,
            "%s is a device or lies among those of the system: -o needs the name of a file to be "
            "written",
            path);
    return OK;
}

/* at = FOLDER/NAME, or NAME where that begins at the root. */
static enum status join(char at[PATH_MAX], const char *folder, const char *name, const char *path,
                        struct error *e)
{
    const char *slash = strcmp(folder, "/") == 0 ? "" : "/";
    int n = name[0] == '/' ? snprintf(at, PATH_MAX, "%s", name)
                           : snprintf(at, PATH_MAX, "%s%s%s", folder, slash, name);
    return n < 0 || n >= PATH_MAX ? too_long(path, e) : OK;
}

/* One step: at becomes what the link there points to, or *end tells that there is no link. */
static enum status follow(char at[PATH_MAX], bool *end, bool linked, const char *path,
                          struct error *e)
{
    char folder[PATH_MAX], full[PATH_MAX], target[PATH_MAX];
    const char *last;
    struct stat st;
    TRY(split(folder, &last, at, path, e));
    TRY(join(full, folder, last, path, e));
    bool exists = lstat(full, &st) == 0;
    if (!exists && errno != ENOENT)
        return error_set_errno(e, ERR_IO, "cannot write %s", path);
    FAIL_IF(!exists && linked, e, ERR_IO,
            "%s is a symbolic link to %s, which does not exist: remove the link or name that file "
            "with -o",
            path, full);
    *end = !exists || !S_ISLNK(st.st_mode);
    if (*end) {
        FAIL_IF(exists && !S_ISREG(st.st_mode), e, ERR_IO,
                "%s is a %s: -o needs the name of a file to be written", path,
                S_ISDIR(st.st_mode) ? "folder" : "device or pipe");
        strcpy(at, full);
        return OK;
    }
    ssize_t n = readlink(full, target, sizeof target - 1);
    if (n < 0)
        return error_set_errno(e, ERR_IO, "cannot write %s", path);
    target[n] = '\0';
    return join(at, folder, target, path, e);
}

enum status output_path_resolve(char **out, const char *path, struct error *e)
{
    char at[PATH_MAX];
    bool end = false;
    if (strlen(path) >= sizeof at)
        return too_long(path, e);
    strcpy(at, path);
    for (int links = 0; links <= LINKS_MAX; links++) {
        TRY(follow(at, &end, links > 0, path, e));
        if (end) /* without links the name as it was given: it is the one to be read in messages */
            return mem_string(out, links > 0 ? at : path, e);
    }
    return error_set(e, ERR_IO, "%s leads through more than %d symbolic links", path, LINKS_MAX);
}

enum status output_path_sync_folder(const char *path, struct error *e)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) /* may be written but not listed */
        return OK;
    bool failed = fsync(fd) != 0 && errno == EIO;
    close(fd);
    FAIL_IF(failed, e, ERR_IO, "cannot write %s: the disk fails", path);
    return OK;
}
