/* A file mapped read-only into memory: pages are read when touched and count as the rank's memory
 * only while they are kept. */
#ifndef SBIT_COMMON_MAPFILE_H
#define SBIT_COMMON_MAPFILE_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct mapfile {
    const uint8_t *data; /* NULL for an empty file */
    uint64_t size;
    char *path; /* as given, for messages; owned */
};

/* Maps the file at path. On failure *m is zeroed. Errors: ERR_IO (missing, a folder, no access). */
enum status mapfile_open(struct mapfile *m, const char *path, struct error *e);
/* Unmaps; accepts a zeroed or half-built *m. */
void mapfile_close(struct mapfile *m);
/* Tells the kernel that [data, data + size) is no longer needed: pages that lie wholly inside leave
 * the resident set and are read again from the file when touched. Any pointer into the mapping. */
void mapfile_drop(const void *data, uint64_t size);

#endif
