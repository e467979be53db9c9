/* The matrices of one block while it is compressed: parts arrive from this and other ranks, and the
 * block can then be computed with what the file will hold. Knows nothing of quantisers and messages. */
#ifndef SBIT_WORKER_STUDENT_H
#define SBIT_WORKER_STUDENT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/forms.h"
#include "kernels/kernels.h"

struct student_matrix { /* one unit; zeroed before student_open */
    struct form form;
    enum unit_method method;
    uint32_t d;
    int rows, cols;
    uint8_t *part[FORM_TENSORS_MAX];     /* the bytes of each tensor of the form; 64-byte aligned */
    uint64_t received[FORM_TENSORS_MAX]; /* bytes so far */
};

/* Allocates the parts. method: UNIT_CODE, Q8_0, Q4_0, Q2_0, Q1_0, F16, F32 or BF16. in: the form has
 * column scales (UNIT_CODE). Errors: ERR_UNSUPPORTED and ERR_LIMIT as form_of, and ERR_UNSUPPORTED for
 * another method; ERR_MEMORY. */
enum status student_open(struct student_matrix *m, enum unit_method method, uint32_t d, bool in,
                         int rows, int cols, struct error *e);
void student_close(struct student_matrix *m);
/* Copies a part; different ranges may come in any order, none twice. Errors: ERR_PEER for an unknown suffix,
 * a range outside it, or more bytes than it has. */
enum status student_part(struct student_matrix *m, const char *suffix, uint64_t offset,
                         const void *data, uint64_t size, struct error *e);
bool student_complete(const struct student_matrix *m);
/* The bytes in which the F16 scales stand (tune_product.h): .code_out of codes, else the main tensor. */
void *student_scales(struct student_matrix *m);
/* A view for the kernels, valid until student_close. */
struct matrix student_view(const struct student_matrix *m);

#endif
