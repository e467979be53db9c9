/* Output files: complete or absent, whatever happens; shards as other runtimes expect them. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

#include "coordinator/gguf_output.h"

enum { TENSORS = 5, BYTES = 1000 };

static const char path[] = SBIT_TEST_DIR "/out.gguf";
static const char shard1[] = SBIT_TEST_DIR "/out-00001-of-00003.gguf";
static const char shard2[] = SBIT_TEST_DIR "/out-00002-of-00003.gguf";
static const char shard3[] = SBIT_TEST_DIR "/out-00003-of-00003.gguf";

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
        if (unlink(name) != 0)
            rmdir(name);
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

/* Not begun yet; kept: a file that must not be written over, or NULL. */
static struct gguf_output *create_output(const char *kept)
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
    if (kept)
        assert_int_equal(gguf_output_keep(o, kept, &e), OK);
    return o;
}

static struct gguf_output *open_output(uint64_t shard_bytes)
{
    struct error e = {0};
    struct gguf_output *o = create_output(NULL);
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
    check_file(shard1, 2);
    check_file(shard2, 2);
    check_file(shard3, 1);
    assert_int_equal(gguf_open(&g, shard2, false, &e), OK);
    assert_true(gguf_get_u64(&g, "split.no", &no) && no == 1);
    assert_true(gguf_get_u64(&g, "split.count", &count) && count == 3);
    assert_true(gguf_get_u64(&g, "split.tensors.count", &all) && all == TENSORS);
    assert_int_equal(gguf_find_key(&g, "split.no")->type, GGUF_U16);
    assert_int_equal(gguf_find_key(&g, "split.tensors.count")->type, GGUF_I32);
    assert_true(g.file.size <= 3500);
    gguf_close(&g);
    assert_int_equal(clear_folder(), 3);
}

/* The set's hash in a file; the hashes of its tensors go to hashes[*n...]. */
static uint64_t set_hash(const char *name, uint64_t *hashes, size_t *n)
{
    struct gguf g;
    struct error e = {0};
    uint64_t set;
    assert_int_equal(gguf_open(&g, name, false, &e), OK);
    const struct gguf_key *k = gguf_find_key(&g, "singularbit.tensor_hash");
    for (uint64_t i = 0; i < g.n_tensors; i++)
        assert_true(gguf_array_u64(k, i, &hashes[(*n)++]));
    assert_true(gguf_get_u64(&g, "singularbit.set_hash", &set));
    gguf_close(&g);
    return set;
}

static void test_set_hash(void **state)
{
    struct error e = {0};
    struct gguf_output *o = open_output(3500);
    uint64_t hashes[TENSORS];
    size_t n = 0;
    (void)state;
    write_tensors(o, TENSORS);
    assert_int_equal(gguf_output_finish(o, &e), OK);
    gguf_output_free(o);
    uint64_t first = set_hash(shard1, hashes, &n);
    assert_true(set_hash(shard2, hashes, &n) == first);
    assert_true(set_hash(shard3, hashes, &n) == first);
    assert_int_equal(n, TENSORS);
    assert_true(first == XXH3_64bits(hashes, sizeof hashes));
    assert_int_equal(clear_folder(), 3);
}

static void make_file(const char *name)
{
    FILE *f = fopen(name, "wb");
    assert_non_null(f);
    fputs("old", f);
    assert_int_equal(fclose(f), 0);
}

static off_t size_of(const char *name)
{
    struct stat st;
    assert_int_equal(lstat(name, &st), 0);
    return st.st_size;
}

/* A name that cannot be taken, or one of a file to be kept, shows before any work. */
static void refuse_begin(const char *kept, enum status status, const char *says)
{
    struct error e = {0};
    struct gguf_output *o = create_output(kept);
    assert_int_equal(gguf_output_begin(o, 3500, &e), status);
    assert_non_null(strstr(e.text, says));
    gguf_output_free(o);
}

static void test_shard_names(void **state)
{
    (void)state;
    assert_int_equal(mkdir(shard2, 0777), 0);
    refuse_begin(NULL, ERR_IO, "out-00002-of-00003.gguf is a folder");
    assert_int_equal(clear_folder(), 1);
    make_file(shard3);
    assert_int_equal(link(shard3, SBIT_TEST_DIR "/source"), 0);
    refuse_begin(SBIT_TEST_DIR "/source", ERR_USAGE, "out-00003-of-00003.gguf is a file that this");
    assert_int_equal(size_of(shard3), 3);
    assert_int_equal(clear_folder(), 2);
}

/* What replaced a file of an older set is not taken away when a later file fails. */
static void test_failed_rename(void **state)
{
    struct error e = {0};
    struct gguf_output *o;
    (void)state;
    make_file(shard1);
    o = open_output(3500);
    write_tensors(o, TENSORS);
    assert_int_equal(mkdir(shard2, 0777), 0);
    assert_int_equal(gguf_output_finish(o, &e), ERR_IO);
    assert_non_null(strstr(e.text, "The first 1 of 3 files are in place"));
    gguf_output_free(o);
    check_file(shard1, 2);
    assert_int_equal(clear_folder(), 2);
}

static void test_link(void **state)
{
    static const char real[] = SBIT_TEST_DIR "/real";
    struct error e = {0};
    char target[16];
    (void)state;
    make_file(real);
    assert_int_equal(symlink("real", path), 0);
    struct gguf_output *o = open_output(0);
    write_tensors(o, TENSORS);
    assert_int_equal(gguf_output_finish(o, &e), OK);
    assert_string_equal(gguf_output_path(o), path);
    gguf_output_free(o);
    assert_int_equal(readlink(path, target, sizeof target), 4);
    check_file(real, TENSORS);
    assert_int_equal(clear_folder(), 2);
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

/* Another process goes on with what one has left. */
static void continue_output(struct gguf_output **o, enum gguf_parts parts, uint64_t shard_bytes)
{
    struct error e = {0};
    *o = create_output(NULL);
    gguf_output_resume(*o, parts);
    if (gguf_output_begin(*o, shard_bytes, &e) != OK)
        fail_msg("%s", e.text);
}

static void write_one(struct gguf_output *o, uint32_t i)
{
    uint8_t bytes[BYTES];
    struct error e = {0};
    memset(bytes, (int)i + 1, sizeof bytes);
    assert_int_equal(gguf_output_write(o, i, 0, bytes, sizeof bytes, &e), OK);
}

static void test_resume(void **state)
{
    struct error e = {0};
    struct gguf_output *o;
    uint8_t bytes[BYTES];
    uint64_t hash[3], layout;
    bool same;
    (void)state;
    continue_output(&o, GGUF_PARTS_NONE, 3500);
    for (uint32_t i = 0; i < 3; i++) {
        write_one(o, i);
        hash[i] = gguf_output_hash(o, i);
    }
    layout = gguf_output_layout(o);
    assert_int_equal(gguf_output_sync(o, &e), OK);
    gguf_output_leave(o);
    gguf_output_free(o);
    continue_output(&o, GGUF_PARTS_SOME, 3500);
    assert_true(gguf_output_layout(o) == layout);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(gguf_output_adopt(o, i, hash[i] ^ (i == 1), &same, &e), OK);
        assert_int_equal(same, i != 1);
    }
    assert_int_equal(gguf_output_read(o, 2, 10, bytes, 20, &e), OK);
    assert_int_equal(bytes[0] + bytes[19], 3 + 3);
    for (uint32_t i = 1; i < TENSORS; i += 1 + (i == 1))
        write_one(o, i);
    gguf_output_forget(o, 0);
    write_one(o, 0);
    assert_int_equal(gguf_output_finish(o, &e), OK);
    gguf_output_free(o);
    check_file(shard1, 2);
    check_file(shard2, 2);
    check_file(shard3, 1);
    assert_int_equal(clear_folder(), 3);
}

/* Killed between two of the renames at the end. */
static void test_resume_sealed(void **state)
{
    static const char parts[3][64] = {"/out-00001-of-00003.gguf.part",
                                      "/out-00002-of-00003.gguf.part",
                                      "/out-00003-of-00003.gguf.part"};
    struct error e = {0};
    struct gguf_output *o;
    char name[4096];
    (void)state;
    continue_output(&o, GGUF_PARTS_NONE, 3500);
    write_tensors(o, TENSORS);
    assert_int_equal(gguf_output_seal(o, &e), OK);
    gguf_output_leave(o);
    gguf_output_free(o);
    snprintf(name, sizeof name, "%s%s", SBIT_TEST_DIR, parts[0]);
    assert_int_equal(rename(name, shard1), 0);
    continue_output(&o, GGUF_PARTS_SEALED, 3500);
    assert_int_equal(gguf_output_publish(o, &e), OK);
    gguf_output_free(o);
    check_file(shard1, 2);
    check_file(shard3, 1);
    assert_int_equal(unlink(shard2), 0); /* neither name: it is lost */
    o = create_output(NULL);
    gguf_output_resume(o, GGUF_PARTS_SEALED);
    assert_int_equal(gguf_output_begin(o, 3500, &e), ERR_IO);
    assert_non_null(strstr(e.text, "out-00002-of-00003.gguf.part"));
    gguf_output_free(o);
    clear_folder();
}

/* A file at the name of a part is somebody's, unless a journal says otherwise. */
static void test_resume_names(void **state)
{
    static const char part[] = SBIT_TEST_DIR "/out.gguf.part";
    struct error e = {0};
    (void)state;
    make_file(part);
    struct gguf_output *o = create_output(NULL);
    gguf_output_resume(o, GGUF_PARTS_NONE);
    assert_int_equal(gguf_output_begin(o, 0, &e), ERR_IO);
    assert_non_null(strstr(e.text, "in the way"));
    gguf_output_free(o);
    assert_int_equal(size_of(part), 3);
    continue_output(&o, GGUF_PARTS_OLD, 0);
    assert_true(size_of(part) > TENSORS * BYTES);
    gguf_output_free(o);
    assert_int_equal(clear_folder(), 0);
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

static void refuse_link(const char *target)
{
    assert_int_equal(symlink(target, path), 0);
    refuse_path(path);
    assert_int_equal(clear_folder(), 1);
}

static void test_bad_paths(void **state)
{
    struct gguf_output *o;
    struct error e = {0};
    (void)state;
    assert_int_equal(gguf_output_create(&o, "-", &e), ERR_USAGE);
    assert_non_null(strstr(e.text, "-o needs the name of a file"));
    refuse_link("nowhere");
    refuse_link("out.gguf");
    refuse_link("/dev/null");
    refuse_link("/dev/new.gguf");
    refuse_link("/proc/self/new.gguf");
    refuse_path(SBIT_TEST_DIR "/new/");
    refuse_path(SBIT_TEST_DIR);
    refuse_path(SBIT_TEST_DIR "/missing/out.gguf");
    refuse_path("/dev/full");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_one_file, start),
        cmocka_unit_test_setup(test_shards, start),
        cmocka_unit_test_setup(test_set_hash, start),
        cmocka_unit_test_setup(test_shard_names, start),
        cmocka_unit_test_setup(test_failed_rename, start),
        cmocka_unit_test_setup(test_link, start),
        cmocka_unit_test_setup(test_unfinished, start),
        cmocka_unit_test_setup(test_wrong_parts, start),
        cmocka_unit_test_setup(test_resume, start),
        cmocka_unit_test_setup(test_resume_sealed, start),
        cmocka_unit_test_setup(test_resume_names, start),
        cmocka_unit_test_setup(test_bad_paths, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
