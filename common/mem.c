#include "common/mem.h"

#include <stdlib.h>
#include <string.h>

enum status mem_array(void *out, size_t count, size_t size, const char *what, struct error *e)
{
    uint64_t bytes, padded;
    void *block = NULL;
    if (mul_fits(count, size, &bytes) && add_fits(bytes, 64, &padded))
        block = aligned_alloc(64, (padded / 64) * 64);
    FAIL_IF(!block, e, ERR_MEMORY, "out of memory: %s needs %zu x %zu bytes", what, count, size);
    memset(block, 0, bytes);
    memcpy(out, &block, sizeof block);
    return OK;
}

enum status mem_string(char **out, const char *text, struct error *e)
{
    *out = strdup(text);
    FAIL_IF(!*out, e, ERR_MEMORY, "out of memory: a string of %zu bytes", strlen(text));
    return OK;
}
