/* The stored forms of a matrix: which tensors of which type and shape a matrix of rows x cols
 * becomes under a method (docs/format.md). The coordinator lays out files by it and the workers
 * size their parts by it, so that both always agree. Knows no data. */
#ifndef SBIT_COMMON_FORMS_H
#define SBIT_COMMON_FORMS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/dtype.h"
#include "common/error.h"
#include "common/wire.h"

enum { FORM_TENSORS_MAX = 4, FORM_BAND = 64 };

struct form_tensor {
    const char *suffix; /* appended to the base name: ".weight", ".code", ".outlier_row"; static */
    enum dtype dtype;
    uint32_t dims;
    uint64_t dim[4];
    uint64_t bytes;
};

struct form {
    uint32_t n;
    struct form_tensor tensor[FORM_TENSORS_MAX];
    uint64_t bytes;    /* of all of them */
    uint64_t outliers; /* UNIT_SIGN: entries of the correction; its tensors are absent when 0 */
};

/* Fills *f for a matrix of rows x cols; rows 1 and vector true for a vector of cols elements. d:
 * UNIT_CODE only; outliers: UNIT_SIGN only, the share of weights restored, floor(outliers * rows
 * * cols) of them. Errors: ERR_UNSUPPORTED for cols that are no multiple of the type's block and
 * for a d without codebook, ERR_LIMIT for sizes beyond 2^31 rows or columns. */
enum status form_of(struct form *f, enum unit_method method, uint32_t d, double outliers,
                    uint64_t rows, uint64_t cols, bool vector, struct error *e);

/* Adds the column scales ".code_in" [cols] to the form of a UNIT_CODE matrix, behind ".code_out".
 * cols as given to form_of. */
void form_add_columns(struct form *f, uint64_t cols);

/* What matrices choose among under a budget, 0 <= i < UNIT_CHOICES: codes in the order of codebook_table (*d
 * weights a byte), then Q4_0 and Q8_0 (*d 0). */
enum unit_method form_choice(int i, uint32_t *d);

/* Relative squared error of Gaussian weights in a form, each block or group stored by itself as well as can be; 0
 * for floats. d: UNIT_CODE only, one that has a codebook. */
double form_error(enum unit_method method, uint32_t d);

/* The element type of a method's main tensor (I8 for codes). */
enum dtype form_dtype(enum unit_method method);
/* "code", "sign", "q8_0", ... */
const char *form_name(enum unit_method method);
/* The other way round. *d = 0, but for "code4", "code2.67", "code2", ...: codes of so many bits, *d weights a byte.
 * False for unknown names. */
bool form_named(const char *name, enum unit_method *method, uint32_t *d);

#endif
