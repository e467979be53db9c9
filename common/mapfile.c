/* Read-only mappings of whole files. Owns the mapping and the path; knows nothing of the contents.
 */
#include "common/mapfile.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/mem.h"

static enum status map_open_file(struct mapfile *m, int fd, struct error *e)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return error_set_errno(e, ERR_IO, "cannot examine %s", m->path);
    FAIL_IF(S_ISDIR(st.st_mode), e, ERR_IO, "%s is a folder where a file is expected", m->path);
    FAIL_IF(!S_ISREG(st.st_mode), e, ERR_IO, "%s is not an ordinary file: it cannot be mapped",
            m->path);
    m->size = (uint64_t)st.st_size;
    if (m->size == 0)
        return OK;
    FAIL_IF(m->size > SIZE_MAX / 2, e, ERR_LIMIT, "%s is too large for this machine's addresses",
            m->path);
    void *data = mmap(NULL, m->size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return error_set_errno(e, ERR_IO, "cannot map %s into memory", m->path);
    m->data = data;
    return OK;
}

enum status mapfile_open(struct mapfile *m, const char *path, struct error *e)
{
    memset(m, 0, sizeof *m);
    TRY(mem_string(&m->path, path, e));
    /* O_NONBLOCK: a named pipe opens at once, to be refused, instead of waiting for a writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    enum status status =
        fd < 0 ? error_set_errno(e, ERR_IO, "cannot open %s", path) : map_open_file(m, fd, e);
    if (fd >= 0)
        close(fd); /* the mapping stays */
    if (status != OK)
        mapfile_close(m);
    return status;
}

void mapfile_close(struct mapfile *m)
{
    if (m->data)
        munmap((void *)m->data, m->size);
    free(m->path);
    memset(m, 0, sizeof *m);
}

void mapfile_drop(const void *data, uint64_t size)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t start = ((uintptr_t)data + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)data + size) / page * page;
    if (end > start) /* only a hint: a refusal costs memory, not correctness */
        madvise((void *)start, end - start, MADV_DONTNEED);
}
