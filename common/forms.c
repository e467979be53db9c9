#include "common/forms.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/codebook.h"
#include "common/mem.h"

static const struct {
    const char *name;
    enum dtype dtype;
} methods[] = {
    [UNIT_CODE] = {"code", DTYPE_I8},   [UNIT_SIGN] = {"sign", DTYPE_Q1_0},
    [UNIT_Q8_0] = {"q8_0", DTYPE_Q8_0}, [UNIT_Q4_0] = {"q4_0", DTYPE_Q4_0},
    [UNIT_F16] = {"f16", DTYPE_F16},    [UNIT_F32] = {"f32", DTYPE_F32},
    [UNIT_BF16] = {"bf16", DTYPE_BF16}, [UNIT_Q2_0] = {"q2_0", DTYPE_Q2_0},
    [UNIT_Q1_0] = {"q1_0", DTYPE_Q1_0},
};

enum { N_METHODS = sizeof methods / sizeof methods[0] };

enum dtype form_dtype(enum unit_method method)
{
    return methods[method].dtype;
}

/* "4", "2.67": bits of a code, to two digits. */
static bool code_bits(const char *text, uint32_t *d)
{
    char *end;
    double bits = strtod(text, &end);
    for (int i = 0; i < CODEBOOK_COUNT && end > text && !*end; i++) {
        *d = codebook_table[i].d;
        if (fabs(8.0 / *d - bits) < 0.005)
            return true;
    }
    return false;
}

bool form_named(const char *name, enum unit_method *method, uint32_t *d)
{
    *d = 0;
    for (int m = 0; m < N_METHODS; m++) {
        *method = (enum unit_method)m;
        if (strcmp(name, methods[m].name) == 0)
            return true;
    }
    *method = UNIT_CODE;
    return strncmp(name, "code", 4) == 0 && code_bits(name + 4, d);
}

const char *form_name(enum unit_method method)
{
    return methods[method].name;
}

enum unit_method form_choice(int i, uint32_t *d)
{
    *d = i < CODEBOOK_COUNT ? codebook_table[i].d : 0;
    return i < CODEBOOK_COUNT ? UNIT_CODE : i == CODEBOOK_COUNT ? UNIT_Q4_0 : UNIT_Q8_0;
}

double form_error(enum unit_method method, uint32_t d)
{
    switch (method) { /* of 600 blocks and more */
    case UNIT_CODE:
        return codebook_for(d)->error;
    case UNIT_Q8_0:
        return 2.86e-5;
    case UNIT_Q4_0:
        return 7.36e-3;
    case UNIT_Q2_0:
        return 0.122;
    case UNIT_Q1_0:
    case UNIT_SIGN:
        return 0.361;
    default:
        return 0;
    }
}

static enum status add(struct form *f, const char *suffix, enum dtype dtype, uint32_t dims,
                       const uint64_t *dim, struct error *e)
{
    struct form_tensor *t = &f->tensor[f->n++];
    *t = (struct form_tensor){suffix, dtype, dims, {1, 1, 1, 1}, 0};
    memcpy(t->dim, dim, dims * sizeof *dim);
    TRY(dtype_row_bytes(dtype, dim[0], &t->bytes, e));
    for (uint32_t i = 1; i < dims; i++)
        FAIL_IF(!mul_fits(t->bytes, dim[i], &t->bytes), e, ERR_LIMIT, "a matrix is too large");
    f->bytes += t->bytes;
    return OK;
}

static enum status code_form(struct form *f, uint32_t d, uint64_t rows, uint64_t cols,
                             struct error *e)
{
    FAIL_IF(!codebook_for(d), e, ERR_UNSUPPORTED, "there is no codebook for %u weights per byte",
            d);
    uint64_t dim[3] = {FORM_BAND, (cols + d - 1) / d, (rows + FORM_BAND - 1) / FORM_BAND};
    TRY(add(f, ".code", DTYPE_I8, 3, dim, e));
    return add(f, ".code_out", DTYPE_F16, 1, &rows, e);
}

static enum status sign_form(struct form *f, double share, uint64_t rows, uint64_t cols,
                             struct error *e)
{
    uint64_t dim[2] = {cols, rows};
    FAIL_IF(!(share >= 0 && share <= 1), e, ERR_USAGE,
            "the share of outliers is %g: it must lie between 0 and 1", share);
    f->outliers = (uint64_t)(share * (double)(rows * cols));
    TRY(add(f, ".weight", DTYPE_Q1_0, 2, dim, e));
    if (f->outliers == 0)
        return OK;
    TRY(add(f, ".outlier_row", DTYPE_I32, 1, &f->outliers, e));
    TRY(add(f, ".outlier_column", cols <= 32768 ? DTYPE_I16 : DTYPE_I32, 1, &f->outliers, e));
    return add(f, ".outlier_value", DTYPE_F16, 1, &f->outliers, e);
}

enum status form_of(struct form *f, enum unit_method method, uint32_t d, double outliers,
                    uint64_t rows, uint64_t cols, bool vector, struct error *e)
{
    *f = (struct form){0};
    FAIL_IF((unsigned)method >= N_METHODS, e, ERR_UNSUPPORTED, "unknown method %u",
            (unsigned)method);
    FAIL_IF(rows == 0 || cols == 0 || rows > INT32_MAX || cols > INT32_MAX, e, ERR_LIMIT,
            "a matrix of %llu x %llu is beyond what this program handles", (unsigned long long)rows,
            (unsigned long long)cols);
    uint32_t block = dtype_info(methods[method].dtype)->block;
    FAIL_IF(cols % block != 0, e, ERR_UNSUPPORTED, "rows of %llu weights are no multiple of %u",
            (unsigned long long)cols, block);
    if (method == UNIT_CODE)
        return code_form(f, d, rows, cols, e);
    if (method == UNIT_SIGN)
        return sign_form(f, outliers, rows, cols, e);
    uint64_t dim[2] = {cols, rows};
    return add(f, ".weight", methods[method].dtype, vector ? 1 : 2, dim, e);
}

void form_add_columns(struct form *f, uint64_t cols)
{
    struct form_tensor *t = &f->tensor[f->n++];
    *t = (struct form_tensor){".code_in", DTYPE_F16, 1, {cols, 1, 1, 1}, cols * sizeof(uint16_t)};
    f->bytes += t->bytes;
}
