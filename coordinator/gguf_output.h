/* A GGUF file, or a set of shards, on its way to disk: laid out before the first byte of data
 * exists, filled as parts arrive, and given its name only when it is complete. Files are written
 * beside their final place as NAME.part-PID; gguf_output_free removes what was not finished. For a job
 * that may be continued by another process (gguf_output_resume) they are NAME.part, what is complete
 * can be made to last, and may be left in place and taken over later.
 *
 * Order of calls: create, keys on gguf_output_writer, add all tensors, begin, write parts, keys
 * again (with values of the same size), finish. Knows nothing of models and methods. */
#ifndef SBIT_COORDINATOR_GGUF_OUTPUT_H
#define SBIT_COORDINATOR_GGUF_OUTPUT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/dtype.h"
#include "common/error.h"
#include "common/gguf.h"

enum { GGUF_OUTPUT_ALIGNMENT = 64 };

struct gguf_output;

/* For a file at path; where that is a symbolic link, what it points to is written. *out is the
 * caller's, gguf_output_free. Errors: ERR_USAGE without a name, ERR_IO as output_path_resolve. */
enum status gguf_output_create(struct gguf_output **out, const char *path, struct error *e);
/* Removes unfinished files. NULL is fine. */
void gguf_output_free(struct gguf_output *o);

/* The header of the first file, which holds the metadata. Borrowed. */
struct gguf_writer *gguf_output_writer(struct gguf_output *o);

/* Keeps the file at path from being written over: begin refuses to, by whatever name. */
enum status gguf_output_keep(struct gguf_output *o, const char *path, struct error *e);

/* What begin finds at NAME.part. */
enum gguf_parts {
    GGUF_PARTS_NONE,     /* nothing; a file there is somebody else's, and refused */
    GGUF_PARTS_OLD,      /* nothing that is of use */
    GGUF_PARTS_SOME,     /* files of the same layout, from which tensors are adopted */
    GGUF_PARTS_SEALED    /* files that are complete; some may already have their names */
};
/* Makes it a job that may be continued: before begin. The files are left where they are when
 * gguf_output_leave has been called before gguf_output_free. */
void gguf_output_resume(struct gguf_output *o, enum gguf_parts parts);
void gguf_output_leave(struct gguf_output *o);
/* Whether the file may be written there, as far as it is one of those to be kept: what begin checks for
 * each shard, for the file alone. *target (the caller's, free) = path behind links. */
enum status gguf_output_check(const struct gguf_output *o, char **target, struct error *e);

/* Refuses where begin will find a file in its way if it makes one file without anything of use (GGUF_PARTS_NONE);
 * target as above. Errors: ERR_IO. */
enum status gguf_output_check_part(const char *target, struct error *e);
/* Removes what such a job may have left at target. */
void gguf_output_remove_part(const char *target);

/* Adds a tensor behind those added before; *index is its number for gguf_output_write. */
enum status gguf_output_add(struct gguf_output *o, const char *name, enum dtype dtype,
                            uint32_t dims, const uint64_t *dim, uint32_t *index, struct error *e);

/* Lays out the files, of at most shard_bytes each where the tensors allow it (0: one file), and
 * opens them at their full size, so that a full disk shows now where the file system can tell.
 * Errors: ERR_USAGE for a file to be kept, ERR_IO for a name that cannot be written. */
enum status gguf_output_begin(struct gguf_output *o, uint64_t shard_bytes, struct error *e);
/* The first half of begin, in its place: to know how large files would be. Nothing is written then. */
enum status gguf_output_lay_out(struct gguf_output *o, uint64_t shard_bytes, struct error *e);
/* Bytes of all files together, and how many there are; valid after begin or lay_out. */
uint64_t gguf_output_bytes(const struct gguf_output *o);
uint32_t gguf_output_files(const struct gguf_output *o);
/* Path of the first file: path itself, or its shard 00001; a view, valid after begin. */
const char *gguf_output_path(const struct gguf_output *o);

/* Writes size bytes of a tensor at offset. The parts of one tensor come in order without gaps;
 * different tensors may alternate. Errors: ERR_PEER for a part out of order or beyond the
 * tensor, ERR_IO. */
enum status gguf_output_write(struct gguf_output *o, uint32_t index, uint64_t offset,
                              const void *data, uint64_t size, struct error *e);

/* Number of the layout: XXH3 over all headers, hashes of tensors taken as zeros; valid after begin. Files
 * with equal numbers hold the same tensors at the same places. */
uint64_t gguf_output_layout(const struct gguf_output *o);
/* XXH3 of a tensor that is complete. */
uint64_t gguf_output_hash(const struct gguf_output *o, uint32_t index);
/* Takes a tensor over that an earlier process has written: *same tells whether its bytes have that
 * hash; else it is still to be written. Errors: ERR_IO, ERR_MEMORY. */
enum status gguf_output_adopt(struct gguf_output *o, uint32_t index, uint64_t hash, bool *same,
                              struct error *e);
/* Takes a tensor as not written yet. */
void gguf_output_forget(struct gguf_output *o, uint32_t index);
/* data [size] = bytes of a tensor from offset on, which must have been written. Errors: ERR_IO. */
enum status gguf_output_read(const struct gguf_output *o, uint32_t index, uint64_t offset,
                             void *data, uint64_t size, struct error *e);
/* Returns when all that was written is on disk. Errors: ERR_IO. */
enum status gguf_output_sync(struct gguf_output *o, struct error *e);

/* Fills the hashes, writes and seals the headers, and syncs; on a slow disk this takes a while. Nothing
 * can be written after it. Errors: ERR_PEER naming a tensor that is not complete, ERR_IO. */
enum status gguf_output_seal(struct gguf_output *o, struct error *e);
/* Gives sealed files their names. Errors: ERR_IO. Files that have their names when a later one fails
 * keep them. */
enum status gguf_output_publish(struct gguf_output *o, struct error *e);
/* Both. */
enum status gguf_output_finish(struct gguf_output *o, struct error *e);

#endif
