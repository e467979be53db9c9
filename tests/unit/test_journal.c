/* Journals: every line that was committed is there again, whatever happens to the end of the file, and
 * nothing else is ever taken for one. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "coordinator/journal.h"

enum { LINES = 6, FILE_MAX = 4096 };

static const char path[] = SBIT_TEST_DIR "/out.gguf.journal";

static const char *text_of(int i, char out[64])
{
    snprintf(out, 64, "unit %d of the job, %.*s", i, i * 5, "abcdefghijklmnopqrstuvwxyzabcdefgh");
    return out;
}

static void make(int lines)
{
    struct journal *j;
    struct error e = {0};
    char text[64];
    unlink(path);
    assert_int_equal(journal_open(&j, path, &e), OK);
    assert_int_equal(journal_lines(j), 0);
    for (int i = 0; i < lines; i++) {
        assert_int_equal(journal_add(j, &e, "%s", text_of(i, text)), OK);
        if (i % 2)
            assert_int_equal(journal_commit(j, &e), OK);
    }
    assert_int_equal(journal_commit(j, &e), OK);
    journal_close(j);
}

/* The journal opens with the first so many lines. */
static struct journal *reopen(uint32_t lines)
{
    struct journal *j;
    struct error e = {0};
    char text[64];
    if (journal_open(&j, path, &e) != OK)
        fail_msg("%s", e.text);
    assert_int_equal(journal_lines(j), lines);
    for (uint32_t i = 0; i < lines; i++)
        assert_string_equal(journal_line(j, i), text_of((int)i, text));
    return j;
}

static void refuse(enum status status, const char *says)
{
    struct journal *j;
    struct error e = {0};
    assert_int_equal(journal_open(&j, path, &e), status);
    if (!strstr(e.text, says) || !strstr(e.text, path))
        fail_msg("\"%s\" does not say \"%s\"", e.text, says);
}

static size_t read_file(uint8_t bytes[FILE_MAX])
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t size = fread(bytes, 1, FILE_MAX, f);
    fclose(f);
    return size;
}

static void write_file(const void *bytes, size_t size)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    fclose(f);
}

static void test_lines(void **state)
{
    struct error e = {0};
    char text[64];
    (void)state;
    make(LINES - 1);
    struct journal *j = reopen(LINES - 1);
    assert_int_equal(journal_add(j, &e, "%s", text_of(LINES - 1, text)), OK);
    assert_int_equal(journal_commit(j, &e), OK);
    journal_close(j);
    journal_close(reopen(LINES));
    journal_remove(reopen(LINES));
    assert_true(access(path, F_OK) != 0);
}

static void test_uncommitted(void **state)
{
    struct error e = {0};
    (void)state;
    make(2);
    struct journal *j = reopen(2);
    assert_int_equal(journal_add(j, &e, "never committed"), OK);
    journal_close(j);
    journal_close(reopen(2));
}

static void test_reset(void **state)
{
    struct error e = {0};
    char text[64];
    (void)state;
    make(LINES);
    struct journal *j = reopen(LINES);
    journal_reset(j);
    assert_int_equal(journal_add(j, &e, "%s", text_of(0, text)), OK);
    assert_int_equal(journal_commit(j, &e), OK);
    journal_close(j);
    journal_close(reopen(1));
}

/* Cut anywhere, it holds the lines that are whole; and goes on from there. */
static void test_cut(void **state)
{
    uint8_t bytes[FILE_MAX];
    (void)state;
    make(LINES);
    size_t size = read_file(bytes);
    for (size_t cut = 0; cut <= size; cut++) {
        struct error e = {0};
        char text[64];
        uint32_t whole = 0;
        for (size_t i = 0; i < cut; i++)
            whole += bytes[i] == '\n';
        write_file(bytes, cut);
        struct journal *j = reopen(whole);
        assert_int_equal(journal_add(j, &e, "%s", text_of((int)whole, text)), OK);
        assert_int_equal(journal_commit(j, &e), OK);
        journal_close(j);
        journal_close(reopen(whole + 1));
    }
}

/* What a power cut may leave behind the last commit: zeros, or part of a line and zeros. */
static void test_zeros(void **state)
{
    uint8_t bytes[FILE_MAX] = {0};
    (void)state;
    make(LINES);
    size_t size = read_file(bytes);
    memset(bytes + size, 0, 300);
    write_file(bytes, size + 300);
    journal_close(reopen(LINES));
    write_file(bytes + size, 300);
    journal_close(reopen(0));
}

/* Every flipped bit shows: before the last line as damage, in it as a line that is not there. */
static void test_flips(void **state)
{
    uint8_t bytes[FILE_MAX];
    (void)state;
    make(LINES);
    size_t size = read_file(bytes), last = size - 1;
    while (bytes[last - 1] != '\n')
        last--;
    for (size_t i = 0; i < size; i++) {
        for (int bit = 0; bit < 8; bit++) {
            bytes[i] ^= (uint8_t)(1 << bit);
            write_file(bytes, size);
            if (i >= last)
                journal_close(reopen(LINES - 1));
            else if (i + 1 == last) /* two lines in one: both are gone */
                journal_close(reopen(LINES - 2));
            else
                refuse(ERR_FORMAT, i < 17 ? "no journal of sbit" : "remove it");
            bytes[i] ^= (uint8_t)(1 << bit);
        }
    }
}

/* Lines that are whole but not in their places. */
static void test_order(void **state)
{
    uint8_t bytes[FILE_MAX], other[FILE_MAX];
    (void)state;
    make(LINES);
    size_t size = read_file(bytes),
           first = (size_t)((uint8_t *)memchr(bytes, '\n', size) - bytes) + 1;
    memcpy(other, bytes, first); /* the first line twice */
    memcpy(other + first, bytes, size);
    write_file(other, first + size);
    refuse(ERR_FORMAT, "damaged in line 2");
    write_file(bytes + first, size - first); /* and not at all */
    refuse(ERR_FORMAT, "no journal");
}

static void test_foreign(void **state)
{
    static const char own[] = "Dear diary,\nnothing happened.\n", one[] = "Dear diary";
    struct stat st;
    (void)state;
    write_file(own, sizeof own - 1);
    refuse(ERR_FORMAT, "no journal of sbit");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, sizeof own - 1);
    write_file(one, sizeof one - 1);
    refuse(ERR_FORMAT, "no journal of sbit");
    unlink(path);
    assert_int_equal(mkdir(path, 0777), 0);
    refuse(ERR_IO, "cannot write");
    rmdir(path);
}

/* One process at a time, and the next when it has ended in whatever way. */
static void test_lock(void **state)
{
    int ready[2], status;
    char byte;
    (void)state;
    make(2);
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        struct journal *j;
        struct error e = {0};
        bool opened = journal_open(&j, path, &e) == OK;
        (void)!write(ready[1], &opened, 1);
        pause();
        _exit(0);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(byte, 1);
    refuse(ERR_IO, "another sbit");
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    journal_close(reopen(2));
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines), cmocka_unit_test(test_uncommitted),
        cmocka_unit_test(test_reset), cmocka_unit_test(test_cut),
        cmocka_unit_test(test_zeros), cmocka_unit_test(test_flips),
        cmocka_unit_test(test_order), cmocka_unit_test(test_foreign),
        cmocka_unit_test(test_lock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
