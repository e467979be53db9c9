/* One face over the places a model can live: a Hugging Face folder (config.json and *.safetensors,
 * with or without index), one GGUF file, or GGUF shards NAME-00001-of-0000N.gguf. Tensors appear
 * under their GGUF names whatever the source; files are memory-mapped and nothing is read before it
 * is asked for. */
#ifndef SBIT_COMMON_WEIGHTS_H
#define SBIT_COMMON_WEIGHTS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/dtype.h"
#include "common/error.h"
#include "common/gguf.h"
#include "common/model.h"

/* Keys of files of ours (docs/format.md); GGUF_HEADER_HASH is in common/gguf.h. With shards every
 * shard has the first for its own tensors and the second, and the first shard has the other two. */
#define WEIGHTS_TENSOR_HASH  "singularbit.tensor_hash"  /* u64[tensors]: XXH3, file order */
#define WEIGHTS_SET_HASH     "singularbit.set_hash"     /* u64: XXH3 over all shards' hashes */
#define WEIGHTS_MATRIX_NAMES "singularbit.matrix_names" /* string[n]: base names of matrices */
#define WEIGHTS_MATRIX_D     "singularbit.matrix_d"     /* u32[n]: weights per code byte, or 0 */
#define WEIGHTS_VERSION_KEY  "singularbit.format_version"
#define WEIGHTS_VERSION      1 /* the version that is written, and the newest that is read */

struct tensor {
    char *name;          /* "blk.3.ffn_up.weight"; owned by the weights */
    const char *file;    /* path of the file that holds it, a view */
    enum dtype dtype;
    uint32_t dims;
    uint64_t dim[4];     /* GGUF order: dim[0] is the row length */
    uint64_t rows, cols; /* cols = dim[0], rows = the product of the others */
    uint64_t bytes;
    const uint8_t *data; /* inside a mapping, any alignment */
    uint64_t hash;       /* XXH3 of the bytes as the file states it, where has_hash */
    bool has_hash;
    bool remote;         /* data comes from another rank (common/weights_remote.h) */
    uint32_t rope_heads; /* > 0: q or k rows in Hugging Face order of a model whose GGUF form
                          * interleaves the halves of each of so many heads; see weights_gguf_row */
};

struct weights {
    char *path;
    bool is_gguf;
    struct model_config config;
    float *rope_factors;   /* [rope_dim / 2] divisors of the RoPE frequencies (tensor rope_freqs, or
                            * computed from llama3 scaling), NULL: ones */
    uint64_t n_tensors;
    struct tensor *tensors; /* sorted by name */
    uint64_t header_hash;  /* identifies the model between ranks: XXH3 over the headers (GGUF's,
                            * or config.json and those of safetensors) */
    uint64_t bytes;        /* of all tensors, as stored */
    uint64_t file_bytes;   /* of the GGUF or safetensors files, headers included */
    uint64_t parameters;   /* weights of the model itself: every matrix, vector and bias once */
    struct gguf *gguf;     /* [n_files] when is_gguf: the first holds the metadata */
    uint32_t n_files;
    struct weights_private *priv;
};

/* Opens the model at path: a folder, a .gguf file, or any shard of a set. Checks that every tensor
 * the architecture needs is there with the right shape, in a standard type or as a code, sign or
 * other form of docs/format.md, and for files of ours the header's own hash. Touches headers only
 * (and the few values of rope_freqs): indices inside the data, such as those of outliers, are
 * checked by whoever loads them. A model with tensors that its architecture does not have is
 * refused. *w is the caller's, weights_close. Errors: ERR_IO, ERR_FORMAT, ERR_UNSUPPORTED. */
enum status weights_open(struct weights **w, const char *path, struct error *e);
void weights_close(struct weights *w);

/* The tensor of that name, or NULL. */
const struct tensor *weights_find(const struct weights *w, const char *name);
/* Base name plus suffix, e.g. ("blk.3.ffn_up", ".code"), or NULL. */
const struct tensor *weights_find2(const struct weights *w, const char *base, const char *suffix);
/* Weights per code byte of the coded matrix of that base name ("blk.3.ffn_up"); false when the file
 * does not store it as a code. */
bool weights_code_d(const struct weights *w, const char *base, uint32_t *d);
/* The source row that stands at row r of the GGUF form (r itself unless rope_heads). */
uint64_t weights_gguf_row(const struct tensor *t, uint64_t r);
/* out[count][cols] = rows [first, first + count) of the GGUF form, as floats. Standard types only.
 * Errors: ERR_FORMAT naming the tensor when a value is not finite. */
enum status weights_rows_f32(const struct tensor *t, uint64_t first, uint64_t count, float *out,
                             struct error *e);
/* Compares the tensor's bytes with its hash. OK when it has none. alive, if any, is called after every
 * 8 MiB, because a large tensor on a slow disk takes minutes; its error ends the comparison. Errors:
 * ERR_FORMAT, ERR_MEMORY. */
typedef enum status weights_alive_fn(void *self, struct error *e);
enum status weights_verify(const struct weights *w, const struct tensor *t, weights_alive_fn *alive,
                           void *self, struct error *e);
/* Takes bytes of a tensor out of the resident set until they are read again. What came from another
 * rank stays. */
void weights_drop(const struct tensor *t, uint64_t first, uint64_t size);
/* Bytes stored for all tensors of block b (or, with block = UINT32_MAX, outside the blocks). */
uint64_t weights_block_bytes(const struct weights *w, uint32_t block);

#endif
