/* Where an output file may go. Follows symbolic links, so that the link stays and what it points to
 * is written. Knows nothing of what the file will hold. */
#ifndef SBIT_COORDINATOR_OUTPUT_PATH_H
#define SBIT_COORDINATOR_OUTPUT_PATH_H

#include "common/error.h"

/* *out = the file to be written for path: path itself, or what the symbolic link at path leads to.
 * It may exist as an ordinary file; the caller frees it. Errors: ERR_IO for a folder, a device, a
 * link to nothing, a folder that refuses, and whatever lies in /dev (but /dev/shm), /proc or /sys
 * or is reached through them: renaming over such a name would break it for the whole machine. */
enum status output_path_resolve(char **out, const char *path, struct error *e);

/* Syncs the folder of path, so that a file made or renamed there keeps its name after a power cut. A
 * file system that cannot is no error. Errors: ERR_IO when the disk fails. */
enum status output_path_sync_folder(const char *path, struct error *e);

#endif
