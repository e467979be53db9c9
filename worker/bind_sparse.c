/* Row starts and range checks of sparse corrections, once while loading. Must never know matrices.
 */
#include "worker/bind_sparse.h"

#include <string.h>

static int32_t index_at(const struct tensor *t, uint64_t i)
{
    if (t->dtype == DTYPE_I16) {
        int16_t narrow;
        memcpy(&narrow, t->data + 2 * i, sizeof narrow);
        return narrow;
    }
    int32_t wide;
    memcpy(&wide, t->data + 4 * i, sizeof wide);
    return wide;
}

enum status sparse_starts(const struct tensor *t, const char *path, uint32_t rows, uint32_t *start,
                          struct error *e)
{
    uint32_t row = 0;
    start[0] = 0;
    for (uint64_t i = 0; i < t->cols; i++) {
        int32_t r = index_at(t, i);
        FAIL_IF(r < 0 || (uint32_t)r >= rows || (uint32_t)r < row, e, ERR_FORMAT,
                "tensor %s of %s: entry %llu is %d, but rows must ascend and be below %u", t->name,
                path, (unsigned long long)i, (int)r, rows);
        while (row < (uint32_t)r)
            start[++row] = (uint32_t)i;
    }
    while (row < rows)
        start[++row] = (uint32_t)t->cols;
    return OK;
}

enum status sparse_check_columns(const struct tensor *t, const char *path, uint32_t cols,
                                 struct error *e)
{
    for (uint64_t i = 0; i < t->cols; i++) {
        int32_t c = index_at(t, i);
        FAIL_IF(c < 0 || (uint32_t)c >= cols, e, ERR_FORMAT,
                "tensor %s of %s: entry %llu is column %d of %u", t->name, path,
                (unsigned long long)i, (int)c, cols);
    }
    return OK;
}
