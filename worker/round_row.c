#include "worker/round_row.h"

#include <stdlib.h>

#include "common/codebook.h"
#include "common/forms.h"
#include "common/mem.h"
#include "kernels/kernels.h"
#include "worker/quantise_blocks.h"
#include "worker/quantise_code.h"

struct row_rounder {
    enum dtype dtype;
    int cols;
    uint8_t *encoded;             /* a row; of codes a band, whose first row it is */
    struct code_encoder *encoder; /* of codes, or NULL */
    const struct codebook *book;
    float *scratch;
};

static enum status open_codes(struct row_rounder *r, uint32_t d, struct error *e)
{
    r->book = codebook_for(d);
    FAIL_IF(!r->book, e, ERR_UNSUPPORTED,
            "embeddings cannot be stored as codes of %u weights: there is no codebook", d);
    TRY(code_encoder_create(&r->encoder, r->book, r->cols, NULL, e));
    TRY(mem_array(&r->scratch, code_encoder_scratch(r->encoder), sizeof *r->scratch,
                  "a row of embeddings", e));
    size_t groups = ((size_t)r->cols + d - 1) / d;
    return mem_array(&r->encoded, groups, FORM_BAND, "a row of embeddings", e);
}

static enum status open_blocks(struct row_rounder *r, enum unit_method method, struct error *e)
{
    uint64_t bytes;
    FAIL_IF(method != UNIT_F32 && method != UNIT_F16 && method != UNIT_BF16 &&
                method != UNIT_Q8_0 && method != UNIT_Q4_0,
            e, ERR_UNSUPPORTED, "embeddings cannot be stored as %s", form_name(method));
    r->dtype = form_dtype(method);
    TRY(dtype_row_bytes(r->dtype, (uint64_t)r->cols, &bytes, e));
    return mem_array(&r->encoded, bytes, 1, "a row of embeddings", e);
}

enum status row_rounder_create(struct row_rounder **out, struct row_form form, uint32_t cols,
                               struct error *e)
{
    struct row_rounder *r;
    TRY(mem_array(&r, 1, sizeof *r, "rows of embeddings", e));
    r->cols = (int)cols;
    enum status status =
        form.method == UNIT_CODE ? open_codes(r, form.d, e) : open_blocks(r, form.method, e);
    if (status != OK) {
        row_rounder_free(r);
        return status;
    }
    *out = r;
    return OK;
}

void row_rounder_free(struct row_rounder *r)
{
    if (!r)
        return;
    code_encoder_free(r->encoder);
    free(r->scratch);
    free(r->encoded);
    free(r);
}

static bool round_code(struct row_rounder *r, const float *row, float *x)
{
    struct row_error ignored;
    uint16_t scale;
    if (!code_encode_row(r->encoder, row, r->scratch, r->encoded, FORM_BAND, &scale, &ignored))
        return false;
    struct matrix m = {.type = MATRIX_CODE,
                       .rows = 1,
                       .cols = r->cols,
                       .d = (int)r->book->d,
                       .data = r->encoded,
                       .codebook = r->book->vector,
                       .out = &scale};
    kernels.row[MATRIX_CODE](&m, 0, x);
    return true;
}

bool row_rounder_round(struct row_rounder *r, const float *row, float *x)
{
    struct row_error ignored;
    if (r->encoder)
        return round_code(r, row, x);
    if (!blocks_encode_row(r->dtype, row, r->cols, r->encoded, &ignored))
        return false;
    dtype_to_f32(r->dtype, r->encoded, (uint64_t)r->cols, x);
    return true;
}
