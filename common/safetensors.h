/* The safetensors reader (format: huggingface/safetensors README): u64 length of the header, a JSON
 * object of that many bytes, then the data.
 *
 *   {"name": {"dtype": "BF16", "shape": [4096, 4096], "data_offsets": [begin, end]}, ...}
 *
 * Offsets count from the end of the header. Every length, shape and offset is checked, and tensors
 * may not overlap. shape[0] is the slowest dimension, the reverse of GGUF. */
#ifndef SBIT_COMMON_SAFETENSORS_H
#define SBIT_COMMON_SAFETENSORS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/dtype.h"
#include "common/error.h"
#include "common/mapfile.h"

enum { SAFETENSORS_DIMS = 8 };

struct safetensors_tensor {
    const char *name;       /* a view into the header's JSON */
    const char *dtype_name; /* as the file says: "F8_E4M3"; a view */
    bool known;             /* F32, F16 or BF16, so that dtype holds */
    enum dtype dtype;
    uint32_t dims; /* 0 (one value) to SAFETENSORS_DIMS */
    uint64_t shape[SAFETENSORS_DIMS];
    const uint8_t *data; /* inside the mapping, any alignment */
    uint64_t bytes;
};

struct safetensors {
    struct mapfile file;
    json_t *header;
    uint64_t header_bytes; /* with its length field: where the data starts */
    uint64_t n_tensors;
    struct safetensors_tensor *tensors; /* sorted by name */
    bool borrowed;                      /* file.data is the caller's (safetensors_parse) */
};

/* Opens and checks the file. Views stay valid until safetensors_close. On failure *s is zeroed.
 * Tensors of a type that is not read here are listed with known = false. Errors: ERR_IO,
 * ERR_FORMAT. */
enum status safetensors_open(struct safetensors *s, const char *path, struct error *e);
/* The same over bytes in memory, for tests and fuzzing; data stays the caller's and must outlive
 * *s. */
enum status safetensors_parse(struct safetensors *s, const void *data, uint64_t size,
                              const char *name, struct error *e);
void safetensors_close(struct safetensors *s);

/* The tensor of that name, or NULL. */
const struct safetensors_tensor *safetensors_find(const struct safetensors *s, const char *name);

#endif
