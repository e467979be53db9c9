#define _GNU_SOURCE /* fallocate, sync_file_range */
#include "coordinator/gguf_output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "common/mem.h"
#include "common/weights.h"
#include "coordinator/output_path.h"

/* Unwritten bytes of a file that may gather: what fsync has to wait for in the end. */
enum { WRITE_BACK_BYTES = 32 << 20, READ_BYTES = 1 << 20 };

struct out_tensor {
    char name[65];
    enum dtype dtype;
    uint32_t dims;
    uint64_t dim[4];
    uint64_t bytes, written;
    uint32_t file, place; /* which file, and the tensor's number in it */
    XXH3_state_t *hash;   /* while parts arrive */
    uint64_t digest;      /* when written == bytes */
};

struct out_file {
    struct gguf_writer *writer;
    char *path, *target, *part; /* as named; behind links; target while it is not complete */
    int fd;
    bool made, renamed, dirty; /* dirty: written since the last sync */
    uint64_t n_tensors, header_bytes, unwritten;
};

struct kept_file {
    dev_t device;
    ino_t inode;
};

struct gguf_output {
    char *path;
    struct out_tensor *tensors;
    uint32_t n_tensors, room;
    struct out_file *files;
    uint32_t n_files;
    struct gguf_writer *first; /* files[0].writer once laid out */
    uint64_t set_hash;         /* 0 until all tensors are complete */
    struct kept_file *kept;
    size_t n_kept;
    bool resumable, left; /* files are NAME.part; stay when this process ends */
    enum gguf_parts parts;
    uint64_t layout;
};

/* Says early what begin finds out for every single file. */
static enum status check_path(const char *path, struct error *e)
{
    char *target;
    FAIL_IF(!*path, e, ERR_USAGE, "-o needs the name of a file");
    FAIL_IF(strcmp(path, "-") == 0, e, ERR_USAGE,
            "-o needs the name of a file: a model cannot go to standard output");
    TRY(output_path_resolve(&target, path, e));
    free(target);
    return OK;
}

enum status gguf_output_create(struct gguf_output **out, const char *path, struct error *e)
{
    struct gguf_output *o;
    TRY(check_path(path, e));
    TRY(mem_array(&o, 1, sizeof *o, "the output file", e));
    enum status status = mem_string(&o->path, path, e);
    if (status == OK)
        status = gguf_writer_create(&o->first, GGUF_OUTPUT_ALIGNMENT, e);
    if (status != OK) {
        gguf_output_free(o);
        return status;
    }
    *out = o;
    return OK;
}

void gguf_output_free(struct gguf_output *o)
{
    if (!o)
        return;
    for (uint32_t i = 0; i < o->n_files; i++) {
        struct out_file *f = &o->files[i];
        if (f->made && f->fd >= 0)
            close(f->fd);
        if (f->made && !f->renamed && !o->left)
            unlink(f->part);
        if (i > 0)
            gguf_writer_free(f->writer);
        free(f->path);
        free(f->target);
        free(f->part);
    }
    for (uint32_t i = 0; i < o->n_tensors; i++)
        XXH3_freeState(o->tensors[i].hash);
    gguf_writer_free(o->first);
    free(o->files);
    free(o->tensors);
    free(o->kept);
    free(o->path);
    free(o);
}

struct gguf_writer *gguf_output_writer(struct gguf_output *o)
{
    return o->first;
}

enum status gguf_output_keep(struct gguf_output *o, const char *path, struct error *e)
{
    struct stat st;
    if (stat(path, &st) != 0) /* a link to nothing: nothing can be lost */
        return OK;
    struct kept_file *more = realloc(o->kept, (o->n_kept + 1) * sizeof *more);
    FAIL_IF(!more, e, ERR_MEMORY, "out of memory: a list of %zu files", o->n_kept + 1);
    o->kept = more;
    o->kept[o->n_kept++] = (struct kept_file){st.st_dev, st.st_ino};
    return OK;
}

enum status gguf_output_add(struct gguf_output *o, const char *name, enum dtype dtype,
                            uint32_t dims, const uint64_t *dim, uint32_t *index, struct error *e)
{
    if (o->n_tensors == o->room) {
        uint32_t room = o->room ? 2 * o->room : 256;
        struct out_tensor *more = realloc(o->tensors, room * sizeof *more);
        FAIL_IF(!more, e, ERR_MEMORY, "out of memory: a list of %u tensors", room);
        o->tensors = more;
        o->room = room;
    }
    struct out_tensor t = {.dtype = dtype, .dims = dims};
    FAIL_IF(strlen(name) >= sizeof t.name, e, ERR_LIMIT, "the tensor name %s is too long for GGUF",
            name);
    snprintf(t.name, sizeof t.name, "%s", name);
    TRY(dtype_row_bytes(dtype, dim[0], &t.bytes, e));
    for (uint32_t i = 0; i < dims; i++) {
        t.dim[i] = dim[i];
        FAIL_IF(i > 0 && !mul_fits(t.bytes, dim[i], &t.bytes), e, ERR_LIMIT, "%s is too large",
                name);
    }
    *index = o->n_tensors;
    o->tensors[o->n_tensors++] = t;
    return OK;
}

/* What a tensor adds to its file: description, hash, and data with padding. */
static uint64_t tensor_cost(const struct out_tensor *t)
{
    return 8 + strlen(t->name) + 4 + 8 * t->dims + 4 + 8 + 8 + t->bytes + GGUF_OUTPUT_ALIGNMENT;
}

/* Assigns tensors to files in order, each file as full as the limit allows. */
static enum status cut(struct gguf_output *o, uint64_t shard_bytes, struct error *e)
{
    enum { SPLIT_KEYS = 512 }; /* more than the keys that every shard has */
    uint8_t *header;
    uint64_t used;
    TRY(gguf_writer_header(o->first, &header, &used, e));
    free(header);
    used += SPLIT_KEYS;
    uint32_t file = 0;
    bool empty = true;
    for (uint32_t i = 0; i < o->n_tensors; i++) {
        struct out_tensor *t = &o->tensors[i];
        if (shard_bytes && !empty && used + tensor_cost(t) > shard_bytes) {
            file++;
            used = SPLIT_KEYS;
        }
        empty = false;
        used += tensor_cost(t);
        t->file = file;
    }
    o->n_files = 0;
    TRY(mem_array(&o->files, file + 1, sizeof *o->files, "the output files", e));
    o->n_files = file + 1;
    FAIL_IF(o->n_files > 4096, e, ERR_USAGE,
            "--shard-size would cut %s into %u files: 4096 are most", o->path, o->n_files);
    return OK;
}

static enum status name_file(struct gguf_output *o, uint32_t i, struct error *e)
{
    struct out_file *f = &o->files[i];
    size_t stem = strlen(o->path), room = stem + 64;
    if (stem > 5 && strcmp(o->path + stem - 5, ".gguf") == 0)
        stem -= 5;
    TRY(mem_array(&f->path, room, 1, "a file name", e));
    if (o->n_files == 1)
        snprintf(f->path, room, "%s", o->path);
    else
        snprintf(f->path, room, "%.*s-%05u-of-%05u.gguf", (int)stem, o->path, i + 1, o->n_files);
    TRY(output_path_resolve(&f->target, f->path, e));
    room = strlen(f->target) + 32;
    TRY(mem_array(&f->part, room, 1, "a file name", e));
    if (o->resumable)
        snprintf(f->part, room, "%s.part", f->target);
    else
        snprintf(f->part, room, "%s.part-%ld", f->target, (long)getpid());
    return OK;
}

/* Over a file that is being read, the output would destroy what the user may have only once. */
static enum status check_kept(const struct gguf_output *o, const char *path, const char *target,
                              struct error *e)
{
    struct stat st;
    if (stat(target, &st) != 0)
        return OK;
    for (size_t i = 0; i < o->n_kept; i++)
        FAIL_IF(o->kept[i].device == st.st_dev && o->kept[i].inode == st.st_ino, e, ERR_USAGE,
                "%s is a file that this compression reads: name another file with -o", path);
    return OK;
}

void gguf_output_resume(struct gguf_output *o, enum gguf_parts parts)
{
    o->resumable = true;
    o->parts = parts;
}

void gguf_output_leave(struct gguf_output *o)
{
    o->left = true;
}

enum status gguf_output_check(const struct gguf_output *o, char **target, struct error *e)
{
    TRY(output_path_resolve(target, o->path, e));
    enum status status = check_kept(o, o->path, *target, e);
    if (status == OK)
        return OK;
    free(*target);
    *target = NULL;
    return status;
}

/* A key of a type that has no setter of its own; value: its little-endian bytes. */
static enum status set_key(struct gguf_writer *w, const char *name, enum gguf_type type,
                           const void *value, uint64_t bytes, struct error *e)
{
    struct gguf_key key = {{name, strlen(name)}, type, type, 1, value, bytes};
    return gguf_copy_key(w, &key, e);
}

/* llama.cpp's keys for shards. */
static enum status set_split_keys(struct gguf_output *o, uint32_t i, struct error *e)
{
    uint16_t no = (uint16_t)i, count = (uint16_t)o->n_files;
    int32_t tensors = (int32_t)o->n_tensors;
    struct gguf_writer *w = o->files[i].writer;
    TRY(set_key(w, "split.no", GGUF_U16, &no, sizeof no, e));
    TRY(set_key(w, "split.count", GGUF_U16, &count, sizeof count, e));
    return set_key(w, "split.tensors.count", GGUF_I32, &tensors, sizeof tensors, e);
}

/* One number for the whole set: shards of two runs may fit each other in everything else. */
static enum status hash_set(struct gguf_output *o, struct error *e)
{
    XXH3_state_t *state = XXH3_createState();
    FAIL_IF(!state, e, ERR_MEMORY, "out of memory: the hash of the files");
    XXH3_64bits_reset(state);
    for (uint32_t i = 0; i < o->n_tensors; i++) {
        uint8_t bytes[8];
        for (int b = 0; b < 8; b++)
            bytes[b] = (uint8_t)(o->tensors[i].digest >> 8 * b);
        XXH3_64bits_update(state, bytes, sizeof bytes);
    }
    o->set_hash = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return OK;
}

/* The tensors' hashes, or zeros where they are not known yet. */
static enum status set_hashes(struct gguf_output *o, uint32_t file, struct error *e)
{
    struct out_file *f = &o->files[file];
    uint64_t *hashes;
    TRY(mem_array(&hashes, f->n_tensors, sizeof *hashes, "tensor hashes", e));
    for (uint32_t i = 0; i < o->n_tensors; i++)
        if (o->tensors[i].file == file)
            hashes[o->tensors[i].place] = o->tensors[i].digest;
    enum status status =
        gguf_set_array(f->writer, WEIGHTS_TENSOR_HASH, GGUF_U64, hashes, f->n_tensors, e);
    free(hashes);
    if (status == OK && o->n_files > 1)
        status = gguf_set_u64(f->writer, WEIGHTS_SET_HASH, o->set_hash, e);
    if (status == OK)
        status = gguf_set_u64(f->writer, GGUF_HEADER_HASH, 0, e);
    return status;
}

static enum status lay_out(struct gguf_output *o, uint32_t i, struct error *e)
{
    struct out_file *f = &o->files[i];
    uint8_t *header;
    TRY(name_file(o, i, e));
    TRY(check_kept(o, f->path, f->target, e));
    f->writer = o->first;
    if (i > 0)
        TRY(gguf_writer_create(&f->writer, GGUF_OUTPUT_ALIGNMENT, e));
    for (uint32_t t = 0; t < o->n_tensors; t++) {
        struct out_tensor *tensor = &o->tensors[t];
        if (tensor->file != i)
            continue;
        tensor->place = (uint32_t)f->n_tensors++;
        TRY(gguf_add_tensor(f->writer, tensor->name, tensor->dtype, tensor->dims, tensor->dim, e));
    }
    if (o->n_files > 1)
        TRY(set_split_keys(o, i, e));
    TRY(set_hashes(o, i, e));
    TRY(gguf_writer_header(f->writer, &header, &f->header_bytes, e));
    o->layout = XXH3_64bits_withSeed(header, f->header_bytes, o->layout);
    free(header);
    return OK;
}

/* Whether an earlier process has given the file its name; such a file is not touched again. */
static bool is_published(const struct gguf_output *o, const struct out_file *f)
{
    struct stat st;
    return o->parts == GGUF_PARTS_SEALED && access(f->part, F_OK) != 0 &&
           stat(f->target, &st) == 0 && (uint64_t)st.st_size == gguf_writer_file_bytes(f->writer);
}

/* Bytes of another layout must not shine through the gaps between tensors. */
static enum status clear(const struct gguf_output *o, const struct out_file *f, off_t size,
                         struct error *e)
{
    struct stat st;
    if (o->parts >= GGUF_PARTS_SOME && fstat(f->fd, &st) == 0 && st.st_size == size)
        return OK;
    FAIL_IF(o->parts == GGUF_PARTS_SEALED, e, ERR_IO,
            "%s, which was complete, is gone or has changed: remove the .journal file beside it to "
            "begin again",
            f->part);
    return ftruncate(f->fd, 0) == 0 ? OK : error_set_errno(e, ERR_IO, "cannot write %s", f->part);
}

static enum status refuse_part(const char *part, struct error *e)
{
    return error_set(e, ERR_IO,
                     "%s is in the way, and no journal says what it is: remove it, or name another "
                     "file with -o",
                     part);
}

static enum status part_of(const char *target, char **part, struct error *e)
{
    size_t room = strlen(target) + sizeof ".part";
    TRY(mem_array(part, room, 1, "a file name", e));
    snprintf(*part, room, "%s.part", target);
    return OK;
}

enum status gguf_output_check_part(const char *target, struct error *e)
{
    char *part;
    TRY(part_of(target, &part, e));
    enum status status = access(part, F_OK) == 0 ? refuse_part(part, e) : OK;
    free(part);
    return status;
}

void gguf_output_remove_part(const char *target)
{
    struct error ignored = {0};
    char *part;
    if (part_of(target, &part, &ignored) != OK)
        return;
    unlink(part);
    free(part);
}

static enum status open_part(const struct gguf_output *o, struct out_file *f, struct error *e)
{
    bool fresh = !o->resumable || o->parts == GGUF_PARTS_NONE;
    f->fd = open(f->part, O_RDWR | O_CREAT | O_CLOEXEC | (fresh ? O_EXCL : 0), 0666);
    if (f->fd < 0 && errno == EEXIST)
        return refuse_part(f->part, e);
    if (f->fd < 0)
        return error_set_errno(e, ERR_IO, "cannot write %s", f->part);
    f->made = true;
    return OK;
}

static enum status open_file(const struct gguf_output *o, struct out_file *f, struct error *e)
{
    off_t size = (off_t)gguf_writer_file_bytes(f->writer);
    f->renamed = is_published(o, f);
    f->fd = -1;
    if (f->renamed)
        return OK;
    TRY(open_part(o, f, e));
    TRY(clear(o, f, size, e));
    bool reserved = fallocate(f->fd, 0, 0, size) == 0;
    bool cannot_tell = !reserved && (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL);
    if (reserved || (cannot_tell && ftruncate(f->fd, size) == 0))
        return OK;
    return error_set_errno(e, ERR_IO, "cannot write %s, which needs %.1f MB", f->path,
                           (double)size / 1e6);
}

enum status gguf_output_lay_out(struct gguf_output *o, uint64_t shard_bytes, struct error *e)
{
    TRY(cut(o, shard_bytes, e));
    for (uint32_t i = 0; i < o->n_files; i++)
        TRY(lay_out(o, i, e));
    return OK;
}

enum status gguf_output_begin(struct gguf_output *o, uint64_t shard_bytes, struct error *e)
{
    TRY(gguf_output_lay_out(o, shard_bytes, e));
    for (uint32_t i = 0; i < o->n_files; i++)
        TRY(open_file(o, &o->files[i], e));
    return o->resumable ? output_path_sync_folder(o->files[0].target, e) : OK;
}

uint64_t gguf_output_bytes(const struct gguf_output *o)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < o->n_files; i++)
        bytes += gguf_writer_file_bytes(o->files[i].writer);
    return bytes;
}

uint32_t gguf_output_files(const struct gguf_output *o)
{
    return o->n_files;
}

const char *gguf_output_path(const struct gguf_output *o)
{
    return o->files[0].path;
}

/* Makes the disk start early, and waits for what was started the last time: on a slow card fsync
 * would else take minutes in which this rank hears nobody. Only a hint: fsync has the last word. */
static void write_back(struct out_file *f, uint64_t bytes)
{
    f->unwritten += bytes;
    if (f->unwritten < WRITE_BACK_BYTES)
        return;
    f->unwritten = 0;
    (void)sync_file_range(f->fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE);
}

static enum status write_at(const struct out_file *f, uint64_t at, const void *data, uint64_t size,
                            struct error *e)
{
    const uint8_t *p = data;
    while (size > 0) {
        ssize_t n = pwrite(f->fd, p, size, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set_errno(e, ERR_IO, "cannot write %s, which needs %.1f MB", f->path,
                                   (double)gguf_writer_file_bytes(f->writer) / 1e6);
        p += n;
        at += (uint64_t)n;
        size -= (uint64_t)n;
    }
    return OK;
}

enum status gguf_output_read(const struct gguf_output *o, uint32_t index, uint64_t offset,
                             void *data, uint64_t size, struct error *e)
{
    const struct out_tensor *t = &o->tensors[index];
    const struct out_file *f = &o->files[t->file];
    uint64_t at = gguf_writer_offset(f->writer, t->place) + offset;
    for (uint64_t done = 0; done < size;) {
        ssize_t n = pread(f->fd, (uint8_t *)data + done, size - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set_errno(e, ERR_IO, "cannot read %s", f->part);
        FAIL_IF(n == 0, e, ERR_IO, "%s was cut short while it was written", f->part);
        done += (uint64_t)n;
    }
    return OK;
}

/* *hash of the bytes that stand in the file, whoever wrote them. */
static enum status hash_stored(const struct gguf_output *o, uint32_t index, uint64_t *hash,
                               struct error *e)
{
    const struct out_tensor *t = &o->tensors[index];
    uint8_t *chunk = NULL;
    XXH3_state_t *state = XXH3_createState();
    FAIL_IF(!state, e, ERR_MEMORY, "out of memory: a tensor's hash");
    enum status status = mem_array(&chunk, READ_BYTES, 1, "a part of a tensor", e);
    XXH3_64bits_reset(state);
    for (uint64_t at = 0; status == OK && at < t->bytes; at += READ_BYTES) {
        uint64_t size = t->bytes - at < READ_BYTES ? t->bytes - at : READ_BYTES;
        status = gguf_output_read(o, index, at, chunk, size, e);
        if (status == OK)
            XXH3_64bits_update(state, chunk, size);
    }
    *hash = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    free(chunk);
    return status;
}

enum status gguf_output_adopt(struct gguf_output *o, uint32_t index, uint64_t hash, bool *same,
                              struct error *e)
{
    struct out_tensor *t = &o->tensors[index];
    uint64_t stored = 0;
    TRY(hash_stored(o, index, &stored, e));
    *same = stored == hash;
    if (*same) {
        t->written = t->bytes;
        t->digest = hash;
    }
    return OK;
}

void gguf_output_forget(struct gguf_output *o, uint32_t index)
{
    struct out_tensor *t = &o->tensors[index];
    XXH3_freeState(t->hash);
    t->hash = NULL;
    t->written = 0;
    t->digest = 0;
}

uint64_t gguf_output_layout(const struct gguf_output *o)
{
    return o->layout;
}

uint64_t gguf_output_hash(const struct gguf_output *o, uint32_t index)
{
    return o->tensors[index].digest;
}

enum status gguf_output_sync(struct gguf_output *o, struct error *e)
{
    for (uint32_t i = 0; i < o->n_files; i++) {
        struct out_file *f = &o->files[i];
        if (f->dirty && fdatasync(f->fd) != 0)
            return error_set_errno(e, ERR_IO, "cannot write %s", f->path);
        f->dirty = false;
    }
    return OK;
}

static enum status hash_part(struct out_tensor *t, const void *data, uint64_t size, struct error *e)
{
    if (!t->hash) {
        t->hash = XXH3_createState();
        FAIL_IF(!t->hash, e, ERR_MEMORY, "out of memory: a tensor's hash");
        XXH3_64bits_reset(t->hash);
    }
    XXH3_64bits_update(t->hash, data, size);
    t->written += size;
    if (t->written == t->bytes) {
        t->digest = XXH3_64bits_digest(t->hash);
        XXH3_freeState(t->hash);
        t->hash = NULL;
    }
    return OK;
}

enum status gguf_output_write(struct gguf_output *o, uint32_t index, uint64_t offset,
                              const void *data, uint64_t size, struct error *e)
{
    FAIL_IF(index >= o->n_tensors, e, ERR_PEER, "a part of tensor %u came: there are %u", index,
            o->n_tensors);
    struct out_tensor *t = &o->tensors[index];
    struct out_file *f = &o->files[t->file];
    FAIL_IF(offset != t->written || size > t->bytes - t->written, e, ERR_PEER,
            "a part of %s came for bytes %llu to %llu: %llu of %llu are there", t->name,
            (unsigned long long)offset, (unsigned long long)(offset + size),
            (unsigned long long)t->written, (unsigned long long)t->bytes);
    if (size == 0)
        return OK;
    TRY(write_at(f, gguf_writer_offset(f->writer, t->place) + offset, data, size, e));
    f->dirty = true;
    write_back(f, size);
    return hash_part(t, data, size, e);
}

static enum status write_header(struct gguf_output *o, uint32_t i, struct error *e)
{
    struct out_file *f = &o->files[i];
    uint8_t *header;
    uint64_t size;
    TRY(set_hashes(o, i, e));
    TRY(gguf_writer_header(f->writer, &header, &size, e));
    enum status status = OK;
    if (size != f->header_bytes)
        status = error_set(e, ERR_LIMIT, "the header of %s changed its size from %llu to %llu",
                           f->path, (unsigned long long)f->header_bytes, (unsigned long long)size);
    if (status == OK)
        status = gguf_writer_seal(f->writer, header, size, e);
    if (status == OK)
        status = write_at(f, 0, header, size, e);
    free(header);
    return status;
}

static enum status sync_and_close(struct out_file *f, struct error *e)
{
    int failed = fsync(f->fd) != 0;
    failed = close(f->fd) != 0 || failed; /* some file systems tell of a full disk only now */
    f->fd = -1;
    return failed ? error_set_errno(e, ERR_IO, "cannot write %s", f->path) : OK;
}

/* What has its name keeps it, also when a later file fails: it may have replaced a file of an
 * older set, which is gone already. */
static enum status rename_all(struct gguf_output *o, struct error *e)
{
    for (uint32_t i = 0; i < o->n_files; i++) {
        struct out_file *f = &o->files[i];
        f->renamed = f->renamed || rename(f->part, f->target) == 0;
        if (f->renamed)
            continue;
        FAIL_IF(i > 0, e, ERR_IO,
                "cannot write %s: %s. The first %u of %u files are in place and stay, the others "
                "%s",
                f->path, strerror(errno), i, o->n_files,
                o->resumable
                    ? "wait under their names with .part behind: --resume completes the set"
                    : "were removed: compress again to get a whole set");
        return error_set_errno(e, ERR_IO, "cannot write %s", f->path);
    }
    return OK;
}

enum status gguf_output_seal(struct gguf_output *o, struct error *e)
{
    for (uint32_t i = 0; i < o->n_tensors; i++)
        FAIL_IF(o->tensors[i].written != o->tensors[i].bytes, e, ERR_PEER,
                "%s is not complete: %llu of %llu bytes came", o->tensors[i].name,
                (unsigned long long)o->tensors[i].written, (unsigned long long)o->tensors[i].bytes);
    TRY(hash_set(o, e));
    for (uint32_t i = 0; i < o->n_files; i++)
        TRY(write_header(o, i, e));
    for (uint32_t i = 0; i < o->n_files; i++)
        TRY(sync_and_close(&o->files[i], e));
    return OK;
}

enum status gguf_output_publish(struct gguf_output *o, struct error *e)
{
    TRY(rename_all(o, e));
    return output_path_sync_folder(o->files[0].target, e);
}

enum status gguf_output_finish(struct gguf_output *o, struct error *e)
{
    TRY(gguf_output_seal(o, e));
    return gguf_output_publish(o, e);
}
