/* GGUF version 3: reader and writer of one file (specification: ggml-org/ggml docs/gguf.md).
 *
 *   "GGUF" u32 version  u64 tensor count  u64 key count
 *   key count   x { string key, u32 type, value }
 *   tensor count x { string name, u32 dims, u64 dim[dims], u32 dtype, u64 offset }
 *   padding to general.alignment, then tensor data; offsets count from here
 *
 * The reader trusts nothing: every count, length and offset is checked against the file before it
 * is used, tensors may not overlap or leave the file. dim[0] is the row length (GGUF order). */
#ifndef SBIT_COMMON_GGUF_H
#define SBIT_COMMON_GGUF_H

#include <stdbool.h>
#include <stdint.h>

#include "common/dtype.h"
#include "common/error.h"
#include "common/mapfile.h"

enum gguf_type {
    GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL,
    GGUF_STRING, GGUF_ARRAY, GGUF_U64, GGUF_I64, GGUF_F64, GGUF_TYPES
};

struct gguf_string { /* a view into the file, not terminated */
    const char *data;
    uint64_t size;
};

struct gguf_key {
    struct gguf_string name;
    enum gguf_type type;     /* GGUF_ARRAY: see element */
    enum gguf_type element;  /* type of the elements; equal to type for a scalar */
    uint64_t count;          /* elements; 1 for a scalar */
    const uint8_t *value;    /* first element in the file, unaligned */
    uint64_t value_bytes;    /* all elements */
};

struct gguf_tensor {
    struct gguf_string name;
    uint32_t dims;       /* 1..4 */
    uint64_t dim[4];     /* unused ones are 1; dim[0] is the fastest */
    uint32_t dtype;      /* one that dtype_info knows, unless opened for vocabulary only */
    uint64_t bytes;      /* 0 where dtype_info does not know the type */
    const uint8_t *data; /* inside the mapping; NULL where bytes is 0 */
};

struct gguf {
    struct mapfile file;
    uint32_t alignment;
    uint64_t n_keys, n_tensors;
    struct gguf_key *keys;       /* [n_keys] in file order */
    struct gguf_tensor *tensors; /* [n_tensors] in file order */
    uint64_t header_bytes;       /* everything before the padding in front of the tensor data */
    uint64_t data_start;         /* the same with the padding: where tensor data begins */
    const struct gguf_key **keys_by_name;       /* [n_keys], sorted */
    const struct gguf_tensor **tensors_by_name; /* [n_tensors], sorted */
    bool borrowed;               /* file.data is the caller's (gguf_parse) */
};

/* The key that holds the XXH3 (64 bits, seed 0) of a header of ours: of the bytes [0, data_start),
 * the eight bytes of the key's own value taken as zeros. */
#define GGUF_HEADER_HASH "singularbit.header_hash"

/* The name of a shard, "NAME-00002-of-00003.gguf": the size of NAME, 2 and 3; false for a name of
 * another form. */
enum { GGUF_SHARD_SUFFIX = sizeof "-00001-of-00002.gguf" - 1 };
bool gguf_shard_name(const char *path, size_t *stem, uint32_t *no, uint32_t *count);

/* Opens and checks the file at path. Views stay valid until gguf_close. On failure *g is zeroed.
 * A tensor type that dtype_info does not know is refused with its name and number
 * (ERR_UNSUPPORTED) only when vocabulary_only is false. */
enum status gguf_open(struct gguf *g, const char *path, bool vocabulary_only, struct error *e);
/* The same over bytes in memory, for tests and fuzzing; name appears in messages; data stays the
 * caller's and must outlive *g. */
enum status gguf_parse(struct gguf *g, const void *data, uint64_t size, const char *name,
                       bool vocabulary_only, struct error *e);
void gguf_close(struct gguf *g);

/* Bytes of one element; 0 for strings, arrays and unknown numbers. */
uint32_t gguf_type_bytes(uint32_t type);
/* The header's hash as GGUF_HEADER_HASH defines it, computed from the bytes; without the key, the
 * plain hash of [0, data_start). */
uint64_t gguf_header_hash(const struct gguf *g);

/* The key or tensor of that name, or NULL. */
const struct gguf_key *gguf_find_key(const struct gguf *g, const char *name);
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name);

/* Scalar values with the conversions that do not lose anything. Each returns true and writes *out
 * when the key exists with a fitting type. get_string returns a view. */
bool gguf_get_u64(const struct gguf *g, const char *name, uint64_t *out);
bool gguf_get_f64(const struct gguf *g, const char *name, double *out);
bool gguf_get_bool(const struct gguf *g, const char *name, bool *out);
bool gguf_get_string(const struct gguf *g, const char *name, struct gguf_string *out);
/* Element i of an array key (i < count; the element type must fit, else false). */
bool gguf_array_u64(const struct gguf_key *k, uint64_t i, uint64_t *out);
bool gguf_array_f64(const struct gguf_key *k, uint64_t i, double *out);

/* Walks a string array from its start: state begins at 0; false at the end. O(1) per element. */
bool gguf_next_string(const struct gguf_key *k, uint64_t *state, struct gguf_string *out);

/* Writing. A header is built in memory: keys first, then tensors in file order, then finished. The
 * caller writes header bytes at offset 0 of the file and tensor i at gguf_writer_offset(w, i);
 * gaps are zeros. Setting a key again replaces its value, so that a header laid out with
 * placeholders of the final size can be filled in later without moving any tensor. */
struct gguf_writer;
enum status gguf_writer_create(struct gguf_writer **out, uint32_t alignment, struct error *e);
void gguf_writer_free(struct gguf_writer *w);
enum status gguf_set_u32(struct gguf_writer *w, const char *key, uint32_t v, struct error *e);
enum status gguf_set_u64(struct gguf_writer *w, const char *key, uint64_t v, struct error *e);
enum status gguf_set_f32(struct gguf_writer *w, const char *key, float v, struct error *e);
enum status gguf_set_bool(struct gguf_writer *w, const char *key, bool v, struct error *e);
enum status gguf_set_string(struct gguf_writer *w, const char *key, const char *v, struct error *e);
/* Array of count elements of a fixed-size type, stored little-endian. */
enum status gguf_set_array(struct gguf_writer *w, const char *key, enum gguf_type element,
                           const void *v, uint64_t count, struct error *e);
enum status gguf_set_strings(struct gguf_writer *w, const char *key, const struct gguf_string *v,
                             uint64_t count, struct error *e);
/* Copies a key as it stands in another file; general.alignment, which is the writer's own, is
 * passed over. */
enum status gguf_copy_key(struct gguf_writer *w, const struct gguf_key *key, struct error *e);
enum status gguf_add_tensor(struct gguf_writer *w, const char *name, uint32_t dtype, uint32_t dims,
                            const uint64_t *dim, struct error *e);
uint64_t gguf_writer_tensor_count(const struct gguf_writer *w);
/* The finished header with its padding up to the tensor data: *data is the caller's, free().
 * May be called more than once. */
enum status gguf_writer_header(struct gguf_writer *w, uint8_t **data, uint64_t *size,
                               struct error *e);
/* Fills GGUF_HEADER_HASH, which must have been set (gguf_set_u64, any value), in a header that
 * gguf_writer_header has just made. Errors: ERR_USAGE when the key was not set. */
enum status gguf_writer_seal(const struct gguf_writer *w, uint8_t *data, uint64_t size,
                             struct error *e);
/* Offset of tensor i from the start of the file, and its bytes; valid after gguf_writer_header. */
uint64_t gguf_writer_offset(const struct gguf_writer *w, uint64_t i);
uint64_t gguf_writer_bytes(const struct gguf_writer *w, uint64_t i);
/* Bytes of the whole file; valid after gguf_writer_header. */
uint64_t gguf_writer_file_bytes(const struct gguf_writer *w);

#endif
