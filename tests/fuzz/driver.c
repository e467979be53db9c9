/* Replays a fuzz target's corpus without libFuzzer: every file of the folders given, as it is, cut
 * short at many lengths, and with bytes changed (a fixed seed, so that every run is the same run).
 * It knows nothing of what the bytes mean. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/random.h"

enum { MAX_FILE = 1 << 20, MUTATIONS = 300, CUTS = 100, SEED = 20240229 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The target sees a block of exactly that size, so that a sanitizer sees every byte read past its
 * end. */
static void run_copy(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        abort();
    memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static void run_changed(uint8_t *data, size_t size)
{
    static const uint8_t extremes[] = {0, 1, 0x7f, 0x80, 0xff};
    for (int i = 0; i < MUTATIONS && size > 0; i++) {
        /* half of the changes fall into the first 64 bytes, where counts and sizes stand */
        size_t range = i % 2 && size > 64 ? 64 : size;
        size_t at = random_next() % range;
        uint8_t kept = data[at];
        data[at] = i % 3 ? extremes[random_next() % sizeof extremes] : (uint8_t)random_next();
        run_copy(data, size);
        data[at] = kept;
    }
}

static void run_file(const char *path, uint8_t *data)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        exit(1);
    }
    size_t size = fread(data, 1, MAX_FILE, f);
    fclose(f);
    run_copy(data, size);
    for (int i = 0; i < CUTS; i++)
        run_copy(data, size ? random_next() % size : 0);
    run_changed(data, size);
}

static int run_folder(const char *folder, uint8_t *data)
{
    DIR *d = opendir(folder);
    if (!d) {
        perror(folder);
        exit(1);
    }
    int files = 0;
    for (struct dirent *entry; (entry = readdir(d));) {
        char path[4096];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        run_file(path, data);
        files++;
    }
    closedir(d);
    return files;
}

int main(int argc, char **argv)
{
    uint8_t *data = malloc(MAX_FILE);
    int files = 0;
    random_state = SEED;
    if (!data)
        return 1;
    for (int i = 1; i < argc; i++)
        files += run_folder(argv[i], data);
    free(data);
    printf("%d files, each with %d cuts and %d changes, seed %d\n", files, CUTS, MUTATIONS, SEED);
    return files > 0 ? 0 : 1; /* an empty corpus tests nothing */
}
