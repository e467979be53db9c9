/* Parts of compressed matrices, put together. Owns their bytes; must never know who sends them or what
 * they were made from. */
#include "worker/student.h"

#include <stdlib.h>
#include <string.h>

#include "common/codebook.h"
#include "common/mem.h"

static const struct {
    bool known;
    enum matrix_type type;
} types[] = {
    [UNIT_CODE] = {true, MATRIX_CODE}, [UNIT_Q8_0] = {true, MATRIX_Q8_0},
    [UNIT_Q4_0] = {true, MATRIX_Q4_0}, [UNIT_F16] = {true, MATRIX_F16},
    [UNIT_F32] = {true, MATRIX_F32},   [UNIT_BF16] = {true, MATRIX_BF16},
    [UNIT_Q2_0] = {true, MATRIX_Q2_0}, [UNIT_Q1_0] = {true, MATRIX_Q1_0},
};

enum status student_open(struct student_matrix *m, enum unit_method method, uint32_t d, bool in,
                         int rows, int cols, struct error *e)
{
    FAIL_IF((unsigned)method >= sizeof types / sizeof *types || !types[method].known, e,
            ERR_UNSUPPORTED, "no calibrated compression makes matrices of form %u",
            (unsigned)method);
    struct form form;
    TRY(form_of(&form, method, d, 0, (uint64_t)rows, (uint64_t)cols, false, e));
    if (in && method == UNIT_CODE)
        form_add_columns(&form, (uint64_t)cols);
    *m =
        (struct student_matrix){.form = form, .method = method, .d = d, .rows = rows, .cols = cols};
    for (uint32_t i = 0; i < m->form.n; i++) {
        enum status status =
            mem_array(&m->part[i], m->form.tensor[i].bytes, 1, "a compressed matrix", e);
        if (status != OK) {
            student_close(m);
            return status;
        }
    }
    return OK;
}

void student_close(struct student_matrix *m)
{
    for (int i = 0; i < FORM_TENSORS_MAX; i++)
        free(m->part[i]);
    memset(m, 0, sizeof *m);
}

enum status student_part(struct student_matrix *m, const char *suffix, uint64_t offset,
                         const void *data, uint64_t size, struct error *e)
{
    uint32_t i = 0;
    while (i < m->form.n && strcmp(m->form.tensor[i].suffix, suffix) != 0)
        i++;
    FAIL_IF(i == m->form.n, e, ERR_PEER, "a part %.32s came for a matrix that has none such",
            suffix);
    uint64_t bytes = m->form.tensor[i].bytes;
    FAIL_IF(offset > bytes || size > bytes - offset, e, ERR_PEER,
            "bytes %llu to %llu came for a part %s that has %llu", (unsigned long long)offset,
            (unsigned long long)(offset + size), suffix, (unsigned long long)bytes);
    FAIL_IF(size > bytes - m->received[i], e, ERR_PEER, "bytes of a part %s came twice", suffix);
    if (size > 0)
        memcpy(m->part[i] + offset, data, size);
    m->received[i] += size;
    return OK;
}

bool student_complete(const struct student_matrix *m)
{
    for (uint32_t i = 0; i < m->form.n; i++)
        if (m->received[i] < m->form.tensor[i].bytes)
            return false;
    return m->form.n > 0;
}

/* The bytes of the tensor of that suffix as F16, or NULL. */
static const uint16_t *scales(const struct student_matrix *m, const char *suffix)
{
    for (uint32_t i = 0; i < m->form.n; i++)
        if (strcmp(m->form.tensor[i].suffix, suffix) == 0)
            return (const uint16_t *)(const void *)m->part[i];
    return NULL;
}

struct matrix student_view(const struct student_matrix *m)
{
    struct matrix view = {.type = types[m->method].type,
                          .rows = m->rows,
                          .cols = m->cols,
                          .data = m->part[0]}; /* every form begins with its main tensor */
    if (view.type == MATRIX_CODE) {
        view.d = (int)m->d;
        view.codebook = codebook_for(m->d)->vector;
        view.out = scales(m, ".code_out");
        view.in = scales(m, ".code_in");
    }
    return view;
}

void *student_scales(struct student_matrix *m)
{
    return m->part[m->method == UNIT_CODE ? 1 : 0]; /* .code_out follows .code */
}
