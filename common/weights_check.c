/* What the tensors of a model must look like: every one that the architecture needs is there, in a
 * known form (DESIGN section 5) and with the right shape, and none that it does not have. */
#include <stdio.h>
#include <string.h>

#include "common/mem.h"
#include "common/weights_private.h"

enum { BAND = 64, CODEWORDS = 128 };

struct check {
    const struct weights *w;
    struct error *e;
    char base[64];
    uint64_t rows, cols;
};

/* The dimensions as text, "64 x 12 x 3", for messages. */
static const char *shape_text(char out[96], const uint64_t dim[4])
{
    int n = 4;
    while (n > 1 && dim[n - 1] == 1)
        n--;
    size_t used = (size_t)snprintf(out, 96, "%llu", (unsigned long long)dim[0]);
    for (int i = 1; i < n && used < 96; i++)
        used += (size_t)snprintf(out + used, 96 - used, " x %llu", (unsigned long long)dim[i]);
    return out;
}

static enum status check_shape(const struct check *c, const struct tensor *t, uint64_t d0,
                               uint64_t d1, uint64_t d2)
{
    const uint64_t wanted[4] = {d0, d1, d2, 1};
    char have[96], want[96];
    FAIL_IF(memcmp(t->dim, wanted, sizeof wanted) != 0, c->e, ERR_FORMAT,
            "%s: tensor %s is %s, but the model's description asks for %s", c->w->path, t->name,
            shape_text(have, t->dim), shape_text(want, wanted));
    return OK;
}

static enum status check_type(const struct check *c, const struct tensor *t, enum dtype dtype)
{
    FAIL_IF(t->dtype != dtype, c->e, ERR_FORMAT, "%s: tensor %s is of type %s, expected %s",
            c->w->path, t->name, dtype_info(t->dtype)->name, dtype_info(dtype)->name);
    return OK;
}

static bool is_code_d(uint32_t d)
{
    static const uint32_t all[] = {2, 3, 4, 5, 6, 8, 10, 12, 16};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i] == d)
            return true;
    return false;
}

static enum status check_codebook(const struct check *c, uint32_t d)
{
    char name[64];
    snprintf(name, sizeof name, "singularbit.codebook.%u", d);
    const struct tensor *t = weights_find(c->w, name);
    FAIL_IF(!t, c->e, ERR_FORMAT, "%s is damaged: %s needs tensor %s, which is missing", c->w->path,
            c->base, name);
    TRY(check_type(c, t, DTYPE_I8));
    return check_shape(c, t, d, CODEWORDS, 1);
}

static enum status check_code(const struct check *c, const struct tensor *code)
{
    uint32_t d = 0;
    const struct tensor *out = weights_find2(c->w, c->base, ".code_out");
    const struct tensor *in = weights_find2(c->w, c->base, ".code_in");
    FAIL_IF(!weights_code_d(c->w, c->base, &d) || !is_code_d(d), c->e, ERR_FORMAT,
            "%s is damaged: its keys %s and %s give no valid code size for %s", c->w->path,
            WEIGHTS_MATRIX_NAMES, WEIGHTS_MATRIX_D, c->base);
    FAIL_IF(!out, c->e, ERR_FORMAT, "%s is damaged: tensor %s.code_out is missing", c->w->path,
            c->base);
    TRY(check_type(c, code, DTYPE_I8));
    TRY(check_shape(c, code, BAND, (c->cols + d - 1) / d, (c->rows + BAND - 1) / BAND));
    TRY(check_type(c, out, DTYPE_F16));
    TRY(check_shape(c, out, c->rows, 1, 1));
    if (in) {
        TRY(check_type(c, in, DTYPE_F16));
        TRY(check_shape(c, in, c->cols, 1, 1));
    }
    return check_codebook(c, d);
}

/* All three or none, of one length. */
static enum status check_outliers(const struct check *c)
{
    const struct tensor *row = weights_find2(c->w, c->base, ".outlier_row");
    const struct tensor *column = weights_find2(c->w, c->base, ".outlier_column");
    const struct tensor *value = weights_find2(c->w, c->base, ".outlier_value");
    if (!row && !column && !value)
        return OK;
    FAIL_IF(
        !row || !column || !value, c->e, ERR_FORMAT,
        "%s is damaged: %s has some of the tensors outlier_row, outlier_column and outlier_value, "
        "not all three",
        c->w->path, c->base);
    TRY(check_type(c, row, DTYPE_I32));
    if (column->dtype != DTYPE_I16)
        TRY(check_type(c, column, DTYPE_I32));
    TRY(check_type(c, value, DTYPE_F16));
    uint64_t n = row->dim[0];
    FAIL_IF(n > c->rows * c->cols, c->e, ERR_FORMAT,
            "%s is damaged: %s has more outliers than weights", c->w->path, c->base);
    TRY(check_shape(c, row, n, 1, 1));
    TRY(check_shape(c, column, n, 1, 1));
    return check_shape(c, value, n, 1, 1);
}

/* A part that belongs to another form than the one stored would be left out silently. */
static enum status refuse_part(const struct check *c, const char *suffix)
{
    FAIL_IF(weights_find2(c->w, c->base, suffix), c->e, ERR_FORMAT,
            "%s is damaged: tensor %s%s does not belong to the form in which %s is stored",
            c->w->path, c->base, suffix, c->base);
    return OK;
}

static enum status check_matrix(const struct check *c)
{
    const struct tensor *plain = weights_find2(c->w, c->base, ".weight");
    const struct tensor *code = weights_find2(c->w, c->base, ".code");
    FAIL_IF(plain && code, c->e, ERR_FORMAT,
            "%s is damaged: %s is stored twice, plain and as a code", c->w->path, c->base);
    if (code) {
        TRY(refuse_part(c, ".outlier_row"));
        TRY(refuse_part(c, ".outlier_column"));
        TRY(refuse_part(c, ".outlier_value"));
        return check_code(c, code);
    }
    TRY(refuse_part(c, ".code_out"));
    TRY(refuse_part(c, ".code_in"));
    FAIL_IF(plain->dtype == DTYPE_I8 || plain->dtype == DTYPE_I16 || plain->dtype == DTYPE_I32,
            c->e, ERR_UNSUPPORTED, "%s: tensor %s is of type %s, which holds no weights",
            c->w->path, plain->name, dtype_info(plain->dtype)->name);
    TRY(check_shape(c, plain, c->cols, c->rows, 1));
    return check_outliers(c);
}

static enum status check_vector(const struct check *c, const struct tensor *t)
{
    FAIL_IF(t->dtype != DTYPE_F32 && t->dtype != DTYPE_F16 && t->dtype != DTYPE_BF16, c->e,
            ERR_UNSUPPORTED, "%s: vector %s is of type %s; supported are F32, F16 and BF16",
            c->w->path, t->name, dtype_info(t->dtype)->name);
    return check_shape(c, t, c->cols, 1, 1);
}

/* One tensor of the model, with its parts; counts its parameters. */
static enum status check_kind(struct check *c, enum tensor_kind kind, uint32_t block,
                              uint64_t *parameters)
{
    const struct tensor_rule *rule = model_rule(kind);
    if (!model_shape(&c->w->config, kind, &c->rows, &c->cols))
        return OK;
    *parameters += c->rows * c->cols;
    model_base_name(c->base, kind, block);
    const struct tensor *t = weights_find2(c->w, c->base, rule->suffix);
    bool coded = rule->matrix && weights_find2(c->w, c->base, ".code");
    char hf[96];
    model_hf_name(hf, kind, block);
    FAIL_IF(!t && !coded && !c->w->is_gguf, c->e, ERR_FORMAT,
            "%s is incomplete: tensor %s is missing", c->w->path, hf);
    FAIL_IF(!t && !coded, c->e, ERR_FORMAT, "%s is incomplete: tensor %s%s is missing", c->w->path,
            c->base, rule->suffix);
    return rule->matrix ? check_matrix(c) : check_vector(c, t);
}

/* A tensor that the architecture does not have would be left out silently: refuse the model. */
static enum status check_known(const struct check *c, const struct tensor *t)
{
    enum tensor_kind kind;
    uint32_t block;
    uint64_t rows, cols;
    if (strncmp(t->name, "singularbit.", 12) == 0)
        return OK;
    bool known = model_kind_of(t->name, &kind, &block) &&
                 (kind == KIND_ROPE_FACTORS || model_shape(&c->w->config, kind, &rows, &cols));
    FAIL_IF(!known, c->e, ERR_UNSUPPORTED,
            "%s holds tensor %s, which a model of architecture %s does not have as sbit knows it",
            c->w->path, t->name, c->w->config.arch);
    FAIL_IF(block >= c->w->config.block_count, c->e, ERR_FORMAT,
            "%s holds tensor %s, but its description says that it has %u blocks", c->w->path,
            t->name, c->w->config.block_count);
    return OK;
}

enum status weights_check(struct weights *w, struct error *e)
{
    struct check c = {.w = w, .e = e};
    for (uint64_t i = 0; i < w->n_tensors; i++) {
        w->bytes += w->tensors[i].bytes;
        TRY(check_known(&c, &w->tensors[i]));
    }
    for (int k = 0; k < KIND_COUNT; k++) {
        uint32_t blocks = model_rule((enum tensor_kind)k)->per_block ? w->config.block_count : 1;
        for (uint32_t b = 0; b < blocks; b++)
            TRY(check_kind(&c, (enum tensor_kind)k, b, &w->parameters));
    }
    return OK;
}
