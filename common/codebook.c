#include "common/codebook.h"

#include <stddef.h>

const struct codebook *codebook_for(uint32_t d)
{
    for (int i = 0; i < CODEBOOK_COUNT; i++)
        if (codebook_table[i].d == d)
            return &codebook_table[i];
    return NULL;
}
