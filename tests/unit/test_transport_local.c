/* The transport inside one process: order, frames to oneself, threads, and the faults that other
 * tests inject. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/transport.h"

enum { RANKS = 4, FRAMES = 2000, SEED = 3 };

static void open_ranks(struct transport **t, int n, const struct transport_faults *faults)
{
    struct error e = {0};
    if (transport_local_open(t, n, faults, &e) != OK)
        fail_msg("%s", e.text);
}

static void send_number(struct transport *t, int to, uint32_t number)
{
    struct error e = {0};
    uint8_t *bytes = malloc(sizeof number);
    if (bytes)
        memcpy(bytes, &number, sizeof number);
    if (!bytes || transport_send(t, to, bytes, sizeof number, &e) != OK)
        abort();
}

/* The number in the next frame, or -1 when there is none. */
static int64_t take_number(struct transport *t, int *from)
{
    struct frame f;
    struct error e = {0};
    uint32_t number;
    if (transport_poll(t, &f, &e) != OK)
        abort();
    if (!f.bytes)
        return -1;
    memcpy(&number, f.bytes, sizeof number);
    *from = f.peer;
    free(f.bytes);
    return number;
}

static void test_self(void **unused)
{
    struct transport *t;
    int from = -1;
    (void)unused;
    open_ranks(&t, 1, NULL);
    assert_int_equal(take_number(t, &from), -1);
    send_number(t, 0, 5);
    send_number(t, 0, 6);
    assert_int_equal(transport_pending(t), 8);
    assert_int_equal(take_number(t, &from), 5);
    assert_int_equal(from, 0);
    assert_int_equal(take_number(t, &from), 6);
    assert_int_equal(take_number(t, &from), -1);
    assert_int_equal(transport_pending(t), 0);
    transport_close(t);
}

static void test_refused(void **unused)
{
    struct transport *t[2];
    struct error e = {0}, e2 = {0};
    (void)unused;
    open_ranks(t, 2, NULL);
    assert_int_equal(transport_send(t[0], 2, malloc(1), 1, &e), ERR_PEER);
    assert_int_equal(transport_send(t[0], -1, malloc(1), 1, &e2), ERR_PEER);
    transport_close(t[0]);
    transport_close(t[1]);
    transport_close(NULL);
}

static void test_closed_peer(void **unused)
{
    struct transport *t[2];
    (void)unused;
    open_ranks(t, 2, NULL);
    send_number(t[0], 1, 1);
    assert_int_equal(transport_pending(t[0]), 4);
    transport_close(t[1]);
    assert_int_equal(transport_pending(t[0]), 0);
    send_number(t[0], 1, 2);
    assert_int_equal(transport_pending(t[0]), 0);
    transport_close(t[0]);
}

/* Each rank sends FRAMES numbers to every rank and receives as many, in order per sender. */
static void *talk(void *arg)
{
    struct transport *t = arg;
    uint32_t expected[RANKS] = {0}, sent = 0;
    uintptr_t wrong = 0;
    for (int received = 0; received < RANKS * FRAMES;) {
        int from = 0;
        if (sent < FRAMES) {
            for (int to = 0; to < RANKS; to++)
                send_number(t, to, sent);
            sent++;
        }
        for (int64_t number; (number = take_number(t, &from)) >= 0; received++)
            wrong += number != expected[from]++;
    }
    return (void *)wrong;
}

static void flood(const struct transport_faults *faults)
{
    struct transport *t[RANKS];
    pthread_t threads[RANKS];
    open_ranks(t, RANKS, faults);
    for (int i = 0; i < RANKS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, talk, t[i]), 0);
    for (int i = 0; i < RANKS; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
    for (int i = 0; i < RANKS; i++)
        transport_close(t[i]);
}

static void test_flood(void **unused)
{
    (void)unused;
    flood(NULL);
}

static void test_delay_keeps_order(void **unused)
{
    const struct transport_faults faults = {.delay_us = 300, .seed = SEED};
    (void)unused;
    flood(&faults);
}

static void test_drop(void **unused)
{
    const struct transport_faults faults = {.drop_from = 1, .drop_number = 2};
    struct transport *t[2];
    int from;
    (void)unused;
    open_ranks(t, 2, &faults);
    for (uint32_t i = 1; i <= 3; i++) {
        send_number(t[0], 1, i);
        send_number(t[1], 0, i);
        send_number(t[1], 1, 10 + i); /* to itself: neither lost nor counted */
    }
    assert_int_equal(take_number(t[0], &from), 1);
    assert_int_equal(take_number(t[0], &from), 3);
    assert_int_equal(take_number(t[0], &from), -1);
    for (int i = 0; i < 6; i++)
        assert_true(take_number(t[1], &from) > 0);
    transport_close(t[0]);
    transport_close(t[1]);
}

static void test_kill(void **unused)
{
    const struct transport_faults faults = {.kill_rank = 1, .kill_after = 2};
    struct transport *t[2];
    int from;
    (void)unused;
    open_ranks(t, 2, &faults);
    send_number(t[0], 1, 9);
    for (uint32_t i = 1; i <= 3; i++)
        send_number(t[1], 0, i);
    assert_int_equal(take_number(t[0], &from), 1);
    assert_int_equal(take_number(t[0], &from), 2);
    assert_int_equal(take_number(t[0], &from), -1);
    assert_int_equal(take_number(t[1], &from), -1); /* it hears nothing either */
    transport_close(t[0]);
    transport_close(t[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_self),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_closed_peer),
        cmocka_unit_test(test_flood),
        cmocka_unit_test(test_delay_keeps_order),
        cmocka_unit_test(test_drop),
        cmocka_unit_test(test_kill),
    };
    print_message("seed %d\n", SEED);
    return cmocka_run_group_tests_name("transport_local", tests, NULL, NULL);
}
