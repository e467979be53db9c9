#include "tests/kernels/guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct guard guard_alloc(size_t bytes, int at_end, size_t slack)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t inner = (bytes + slack + page - 1) / page * page;
    struct guard g = {.bytes = bytes, .map_bytes = inner + 2 * page};
    g.map = mmap(NULL, g.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.map == MAP_FAILED ||
        (inner && mprotect((char *)g.map + page, inner, PROT_READ | PROT_WRITE))) {
        perror("guard_alloc");
        exit(1);
    }
    g.data = (char *)g.map + page + (at_end ? inner - bytes - slack : slack);
    return g;
}

void guard_free(struct guard *g)
{
    if (g->map)
        munmap(g->map, g->map_bytes);
    *g = (struct guard){0};
}
