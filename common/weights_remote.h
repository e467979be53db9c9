/* A model whose files are on another host: the same face as that of files here, with memory for
 * tensors that is there only while somebody holds it. Knows nothing of how bytes travel. */
#ifndef SBIT_COMMON_WEIGHTS_REMOTE_H
#define SBIT_COMMON_WEIGHTS_REMOTE_H

#include "common/weights.h"

struct weights_entry {    /* a tensor, in the order and with the types of u32 that travel */
    uint32_t kind, block; /* enum tensor_kind; block 0 outside the blocks */
    uint32_t dtype;
    uint32_t rope_heads; /* as struct tensor */
};

/* The entries of a model (*list the caller's, free), all tensors but the RoPE factors. Errors:
 * ERR_UNSUPPORTED for a compressed model, whose tensors have other names. */
enum status weights_list(const struct weights *w, struct weights_entry **list, uint32_t *n,
                         struct error *e);

/* *out = the model of that description; path for messages. rope_factors: [rope_dim / 2] or NULL.
 * Nothing of the arguments is trusted. *out is the caller's, weights_close. Its tensors are marked
 * remote, and touching their data before weights_hold ends the process. Errors: ERR_PEER,
 * ERR_FORMAT, ERR_UNSUPPORTED for what is no model; ERR_MEMORY. */
enum status weights_from_list(struct weights **out, const char *path,
                              const struct model_config *config, const struct weights_entry *list,
                              uint32_t n, const float *rope_factors, uint64_t header_hash,
                              struct error *e);

/* Makes the memory of a remote tensor usable, full of zeros, and gives it back. *data is writable. */
enum status weights_hold(const struct tensor *t, uint8_t **data, struct error *e);
void weights_forget(const struct tensor *t);
/* The same for the whole pages of these bytes, which turn into zeros: the tensor stays usable. */
void weights_forget_bytes(const struct tensor *t, uint64_t first, uint64_t size);

#endif
