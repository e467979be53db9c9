/* What the files of the weights module share: for weights*.c and nobody else. */
#ifndef SBIT_COMMON_WEIGHTS_PRIVATE_H
#define SBIT_COMMON_WEIGHTS_PRIVATE_H

#include "common/safetensors.h"
#include "common/weights.h"

struct coded_matrix {
    char *name; /* base; owned */
    uint32_t d; /* 0: listed, but not stored as a code */
};

struct weights_private {
    struct safetensors *safetensors; /* [n_safetensors], of a folder */
    uint32_t n_safetensors;
    struct coded_matrix *codes; /* [n_codes], sorted by name */
    uint64_t n_codes;
    void *reserved; /* addresses of a remote model (weights_remote.c), or NULL */
    size_t reserved_bytes;
};

/* Order of struct coded_matrix by name, for qsort and bsearch. */
int weights_compare_codes(const void *a, const void *b);

/* Each fills config, tensors (unsorted) and header_hash of *w, whose path is set. */
enum status weights_open_gguf(struct weights *w, struct error *e);
enum status weights_open_folder(struct weights *w, struct error *e);

/* Sorts the tensors by name, refuses doubles. */
enum status weights_sort(struct weights *w, struct error *e);
/* Checks forms and shapes of sorted tensors against config; counts bytes and parameters. */
enum status weights_check(struct weights *w, struct error *e);

#endif
