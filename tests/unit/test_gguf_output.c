/* Output files: complete or absent, whatever happens; shards as other runtimes expect them. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

#include "coordinator/gguf_output.h"

enum { TENSORS = 5, BYTES = 1000 };

static const char path[] = SBIT_TEST_DIR "/out.gguf";

/* Removes what a test left; returns how many files there were. */
static int clear_folder(void)
{
    DIR *d = opendir(SBIT_TEST_DIR);
    int n = 0;
    assert_non_null(d);
    for (struct dirent *entry; (entry = readdir(d));) {
        char name[4096];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s/%s", SBIT_TEST_DIR, entry->d_name);
        unlink(name);
        n++;
    }
    closedir(d);
    return n;
}

static int start(void **state)
{
    (void)state;
    clear_folder();
    return 0;
}

static struct gguf_output *open_output(uint64_t shard_bytes)
{
    struct gguf_output *o;
    struct error e = {0};
    uint64_t dim = BYTES;
    assert_int_equal(gguf_output_create(&o, path, &e), OK);
    assert_int_equal(gguf_set_string(gguf_output_writer(o), "general.name", "test", &e), OK);
    for (int i = 0; i < TENSORS; i++) {
        char name[16];
        uint32_t index;
        snprintf(name, sizeof name, "t%d", i);
        assert_int_equal(gguf_output_add(o, name, DTYPE_I8, 1, &dim, &index, &e), OK);
        assert_int_equal(index, i);
    }
    assert_int_equal(gguf_output_begin(o, shard_bytes, &e), OK);
    return o;
}

/* Tensor i is full of byte i + 1; written in two parts, the tensors taking turns. */
static void write_tensors(struct gguf_output *o, int n)
{
    struct error e = {0};
    for (int part = 0; part < 2; part++) {
        for (int i = 0; i < n; i++) {
            uint8_t bytes[BYTES / 2];
            memset(bytes, i + 1, sizeof bytes);
            assert_int_equal(gguf_output_write(o, (uint32_t)i, (uint64_t)part * sizeof bytes, bytes,
                                               sizeof bytes, &e),
                             OK);
        }
    }
}

static void check_tensor(const struct gguf *g, uint64_t at)
{
    const struct gguf_tensor *t = &g->tensors[at];
    const struct gguf_key *hashes = gguf_find_key(g, "singularbit.tensor_hash");
    uint64_t hash;
    assert_non_null(hashes);
    assert_int_equal(hashes->count, g->n_tensors);
    assert_true(gguf_array_u64(hashes, at, &hash));
    assert_true(hash == XXH3_64bits(t->data, t->bytes));
    assert_int_equal(t->bytes, BYTES);
    assert_int_equal((t->data - g->file.data) % GGUF_OUTPUT_ALIGNMENT, 0);
    for (int i = 0; i < BYTES; i++)
        assert_int_equal(t->data[i], t->name.data[1] - '0' + 1);
}

static void check_file(const char *name, uint64_t tensors)
{
    struct gguf g;
    struct error e = {0};
    uint64_t stated;
    assert_int_equal(gguf_open(&g, name, false, &e), OK);
    assert_int_equal(g.n_tensors, tensors);
    assert_true(gguf_get_u64(&g, GGUF_HEADER_HASH, &stated));
    assert_true(stated == gguf_header_hash(&g));
    for (uint64_t i = 0; i < tensors; i++)
        check_tensor(&g, i);
    gguf_close(&g);
}

static void test_one_file(void **state)
{
    struct error e = {0};
    struct gguf_output *o = open_output(0);
    (void)state;
    write_tensors(o, TENSORS);
    assert_true(access(path, F_OK) != 0);
    assert_int_equal(gguf_output_finish(o, &e), OK);
    assert_int_equal(gguf_output_files(o), 1);
    gguf_output_free(o);
    check_file(path, TENSORS);
    assert_int_equal(clear_folder(), 1);
}

static void test_shards(void **state)
{
    struct error e = {0};
    struct gguf_output *o = open_output(3500); /* two tensors a file */
    struct gguf g;
    uint64_t no, count, all;
    (void)state;
    write_tensors(o, TENSORS);
    assert_int_equal(gguf_output_finish(o, &e), OK);
    assert_int_equal(gguf_output_files(o), 3);
    gguf_output_free(o);
    check_file(SBIT_TEST_DIR "/out-00001-of-00003.gguf", 2);
    check_file(SBIT_TEST_DIR "/out-00002-of-00003.gguf", 2);
    check_file(SBIT_TEST_DIR "/out-00003-of-00003.gguf", 1);
    assert_int_equal(gguf_open(&g, SBIT_TEST_DIR "/out-00002-of-00003.gguf", false, &e), OK);
    assert_true(gguf_get_u64(&g, "split.no", &no) && no == 1);
    assert_true(gguf_get_u64(&g, "split.count", &count) && count == 3);
    assert_true(gguf_get_u64(&g, "split.tensors.count", &all) && all == TENSORS);
    assert_int_equal(gguf_find_key(&g, "split.no")->type, GGUF_U16);
    assert_int_equal(gguf_find_key(&g, "split.tensors.count")->type, GGUF_I32);
    assert_true(g.file.size <= 3500);
    gguf_close(&g);
    assert_int_equal(clear_folder(), 3);
}

static void test_unfinished(void **state)
{
    struct error e = {0};
    struct gguf_output *o = open_output(3500);
    (void)state;
    write_tensors(o, TENSORS - 1);
    assert_int_equal(gguf_output_finish(o, &e), ERR_PEER);
    assert_non_null(strstr(e.text, "t4"));
    gguf_output_free(o);
    assert_int_equal(clear_folder(), 0);
}

static void refuse_part(struct gguf_output *o, uint32_t tensor, uint64_t offset, uint64_t size)
{
    static const uint8_t bytes[BYTES + 1];
    struct error e = {0};
    assert_int_equal(gguf_output_write(o, tensor, offset, bytes, size, &e), ERR_PEER);
}

static void test_wrong_parts(void **state)
{
    struct gguf_output *o = open_output(0);
    (void)state;
    refuse_part(o, TENSORS, 0, 1);
    refuse_part(o, 0, 1, 1);
    refuse_part(o, 0, 0, BYTES + 1);
    refuse_part(o, 0, UINT64_MAX, 1);
    write_tensors(o, 1);
    refuse_part(o, 0, 0, 1);
    refuse_part(o, 0, BYTES, 1);
    gguf_output_free(o);
    assert_int_equal(clear_folder(), 0);
}

static void refuse_path(const char *name)
{
    struct gguf_output *o;
    struct error e = {0};
    assert_int_equal(gguf_output_create(&o, name, &e), ERR_IO);
    assert_non_null(strstr(e.text, name));
}

static void test_bad_paths(void **state)
{
    (void)state;
    refuse_path(SBIT_TEST_DIR);
    refuse_path(SBIT_TEST_DIR "/missing/out.gguf");
    refuse_path("/dev/full");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_one_file, start),
        cmocka_unit_test_setup(test_shards, start),
        cmocka_unit_test_setup(test_unfinished, start),
        cmocka_unit_test_setup(test_wrong_parts, start),
        cmocka_unit_test_setup(test_bad_paths, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
