/* The event loop with ranks as threads: dispatch, answers, failures, deadlines, signals. Every
 * rank but 0 runs a small worker that answers ASSIGN with READY; what else it does is the case's
 * choice. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "common/loop.h"

enum { MAX_RANKS = 4 };

enum mood { HELPFUL, REFUSES, HANGS, LOADS, CHATTERS };

struct rank {
    struct loop *loop;
    enum mood mood; /* what it does with an ASSIGN */
    int busy_steps; /* steps of "computing" after an ASSIGN */
    int steps_done;
    double timeout_s;
    enum status status; /* of loop_serve */
    char text[1000];
    pthread_t thread;
};

struct boss { /* the coordinator */
    int hellos, readies, stats, wanted;
    struct msg_stats last_stats;
};

static struct rank ranks[MAX_RANKS];
static struct boss boss;

static enum status work(void *self, struct message *m, struct error *e)
{
    struct rank *r = self;
    struct message ready = {.kind = MSG_READY};
    if (m->kind != MSG_ASSIGN || r->mood == HANGS) {
        r->busy_steps = r->mood == HANGS ? -1 : r->busy_steps;
        return OK;
    }
    FAIL_IF(r->mood == REFUSES, e, ERR_IO, "model.gguf does not exist: copy it there");
    r->steps_done = 0;
    /* Long work inside one call: 1.5 s, three times the deadline of the test. */
    for (int i = 0; r->mood == LOADS && i < 150; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        TRY(loop_alive(r->loop, e));
    }
    return loop_send(r->loop, 0, &ready, e);
}

static enum status work_step(void *self, bool *busy, struct error *e)
{
    struct rank *r = self;
    struct message ready = {.kind = MSG_READY};
    *busy = r->steps_done < r->busy_steps;
    r->steps_done += *busy;
    if (*busy && r->mood == CHATTERS) {
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
        TRY(loop_send(r->loop, 0, &ready, e));
    }
    /* A hanging step: longer than the deadline of the test. */
    if (r->busy_steps < 0) {
        nanosleep(&(struct timespec){.tv_sec = 1, .tv_nsec = 500000000}, NULL);
        r->busy_steps = 0;
    }
    return OK;
}

static void work_doing(void *self, char out[128])
{
    struct rank *r = self;
    snprintf(out, 128,
             r->steps_done < r->busy_steps ? "computing block 3 of micro-batch 12" : "waiting");
}

static void *serve(void *arg)
{
    struct rank *r = arg;
    struct error e = {0};
    struct message hello = {.kind = MSG_HELLO, .hello.protocol = WIRE_VERSION};
    snprintf(hello.hello.host, sizeof hello.hello.host, "pi%d", r->loop->transport->rank);
    if (loop_send(r->loop, 0, &hello, &e) == OK)
        loop_serve(r->loop, r->timeout_s, &e);
    r->status = e.status;
    memcpy(r->text, e.text, sizeof r->text);
    return NULL;
}

static enum status coordinate(void *self, struct message *m, struct error *e)
{
    struct boss *b = self;
    (void)e;
    b->hellos += m->kind == MSG_HELLO;
    b->readies += m->kind == MSG_READY;
    if (m->kind == MSG_STATS) {
        b->stats++;
        b->last_stats = m->stats;
    }
    return OK;
}

static bool all_hellos(void *self)
{
    const struct boss *b = self;
    return b->hellos == b->wanted;
}

static bool all_ready(void *self)
{
    const struct boss *b = self;
    return b->readies == b->wanted;
}

static bool all_stats(void *self)
{
    const struct boss *b = self;
    return b->stats == b->wanted;
}

/* Opens n ranks, without starting their threads. */
static void open_job(int n, const struct transport_faults *faults)
{
    struct transport *t[MAX_RANKS];
    struct error e = {0};
    memset(ranks, 0, sizeof ranks);
    boss = (struct boss){.wanted = n - 1};
    assert_int_equal(transport_local_open(t, n, faults, &e), OK);
    for (int i = 0; i < n; i++) {
        assert_int_equal(loop_open(&ranks[i].loop, t[i], &e), OK);
        ranks[i].timeout_s = 20;
        ranks[i].loop->worker = (struct endpoint){&ranks[i], work, work_step, work_doing};
    }
    ranks[0].loop->coordinator = (struct endpoint){&boss, coordinate, NULL, NULL};
}

static void start_threads(int n)
{
    struct error e = {0};
    for (int i = 1; i < n; i++)
        assert_int_equal(pthread_create(&ranks[i].thread, NULL, serve, &ranks[i]), 0);
    assert_int_equal(loop_until(ranks[0].loop, all_hellos, &boss, 10, &e), OK);
}

static void close_job(int n)
{
    for (int i = 1; i < n; i++)
        pthread_join(ranks[i].thread, NULL);
    for (int i = 0; i < n; i++)
        loop_close(ranks[i].loop);
}

static void send_to_all(int n, enum message_kind kind)
{
    struct message m = {.kind = kind};
    struct error e = {0};
    for (int i = 1; i < n; i++)
        assert_int_equal(loop_send(ranks[0].loop, i, &m, &e), OK);
}

static void expect_text(const struct error *e, const char *phrase)
{
    if (!strstr(e->text, phrase))
        fail_msg("\"%s\" does not say \"%s\"", e->text, phrase);
}

static void test_orderly_job(void **unused)
{
    struct error e = {0};
    (void)unused;
    open_job(3, NULL);
    start_threads(3);
    send_to_all(3, MSG_ASSIGN);
    assert_int_equal(loop_until(ranks[0].loop, all_ready, &boss, 10, &e), OK);
    send_to_all(3, MSG_ASK_STATS);
    assert_int_equal(loop_until(ranks[0].loop, all_stats, &boss, 10, &e), OK);
    assert_string_equal(boss.last_stats.host, ranks[0].loop->host);
    assert_true(boss.last_stats.peak_rss_bytes > 0);
    assert_string_equal(ranks[0].loop->host_of[2], "pi2");
    loop_stop(ranks[0].loop, true);
    for (int i = 1; i < 3; i++) {
        pthread_join(ranks[i].thread, NULL);
        assert_int_equal(ranks[i].status, OK);
        assert_true(ranks[i].loop->stop_failed);
    }
    for (int i = 0; i < 3; i++)
        loop_close(ranks[i].loop);
}

static void test_one_rank(void **unused)
{
    struct error e = {0};
    struct message m = {.kind = MSG_ASSIGN};
    (void)unused;
    open_job(1, NULL);
    boss.wanted = 1;
    assert_int_equal(loop_send(ranks[0].loop, 0, &m, &e), OK);
    assert_int_equal(loop_until(ranks[0].loop, all_ready, &boss, 10, &e), OK);
    loop_stop(ranks[0].loop, false);
    loop_close(ranks[0].loop);
}

static void test_worker_fails(void **unused)
{
    struct error e = {0};
    (void)unused;
    open_job(3, NULL);
    ranks[2].mood = REFUSES;
    start_threads(3);
    send_to_all(3, MSG_ASSIGN);
    assert_int_equal(loop_until(ranks[0].loop, all_ready, &boss, 10, &e), ERR_PEER);
    assert_string_equal(e.text, "rank 2 (host pi2): model.gguf does not exist: copy it there");
    loop_stop(ranks[0].loop, true);
    close_job(3);
    assert_int_equal(ranks[1].status, OK);
    assert_int_equal(ranks[2].status, ERR_IO);
}

/* The rank computes on and on: its answers to pings keep it alive, longer than the deadline. */
static void test_busy_is_not_silent(void **unused)
{
    struct error e = {0};
    (void)unused;
    open_job(2, NULL);
    ranks[1].busy_steps = 1 << 30;
    start_threads(2);
    boss.wanted = 2; /* one answer more than will come */
    double start = loop_now();
    while (loop_now() - start < 1)
        assert_int_equal(loop_turn(ranks[0].loop, &e), OK);
    ranks[0].loop->timeout_s = 0.5;
    start = loop_now();
    while (loop_now() - start < 1)
        assert_int_equal(loop_turn(ranks[0].loop, &e), OK);
    assert_true(loop_now() - ranks[0].loop->last_heard[1] < 0.5);
    assert_string_equal(ranks[0].loop->doing[1], "computing block 3 of micro-batch 12");
    loop_stop(ranks[0].loop, false);
    close_job(2);
}

static void test_hanging_rank(void **unused)
{
    struct error e = {0};
    (void)unused;
    open_job(3, NULL);
    ranks[2].mood = HANGS;
    start_threads(3);
    send_to_all(3, MSG_ASSIGN);
    assert_int_equal(loop_until(ranks[0].loop, all_ready, &boss, 0.6, &e), ERR_PEER);
    expect_text(&e, "rank 2 (host pi2) has not answered for 0.6 s; it was: ");
    assert_true(ranks[0].loop->peer_lost);
    loop_stop(ranks[0].loop, true);
    close_job(3);
}

/* The rank loads for longer than the deadline, but gives signs of life. */
static void test_alive(void **unused)
{
    struct error e = {0};
    (void)unused;
    open_job(2, NULL);
    ranks[1].mood = LOADS;
    ranks[1].timeout_s = ranks[1].loop->timeout_s = 0.5;
    start_threads(2);
    send_to_all(2, MSG_ASSIGN);
    if (loop_until(ranks[0].loop, all_ready, &boss, 0.5, &e) != OK)
        fail_msg("%s", e.text);
    loop_stop(ranks[0].loop, false);
    close_job(2);
    assert_int_equal(ranks[1].status, OK);
}

/* The last stage of a ring: rank 0 hears from it all the time and has nothing to say to it. It must not
 * take that for the death of rank 0. */
static void test_heard_is_not_told(void **unused)
{
    struct error e = {0};
    (void)unused;
    open_job(2, NULL);
    ranks[1].mood = CHATTERS;
    ranks[1].busy_steps = 1 << 30;
    ranks[1].timeout_s = 0.5;
    start_threads(2);
    ranks[0].loop->timeout_s = 0.5;
    double start = loop_now();
    while (loop_now() - start < 1.5)
        assert_int_equal(loop_turn(ranks[0].loop, &e), OK);
    loop_stop(ranks[0].loop, false);
    close_job(2);
    assert_int_equal(ranks[1].status, OK);
    assert_true(boss.readies > 50);
}

/* Rank 0 looks at its messages only every half second, as a slow machine does between long steps: the others
 * must hear of it all the same. */
static void test_slow_rank_zero(void **unused)
{
    struct error e = {0};
    (void)unused;
    open_job(2, NULL);
    ranks[1].timeout_s = 1.5;
    start_threads(2);
    ranks[0].loop->timeout_s = 1.5;
    for (int i = 0; i < 6; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 550000000}, NULL);
        assert_int_equal(loop_turn(ranks[0].loop, &e), OK);
    }
    loop_stop(ranks[0].loop, false);
    close_job(2);
    assert_int_equal(ranks[1].status, OK);
}

/* A rank vanishes while computing: the sentence says what it did last. */
static void test_vanished_rank(void **unused)
{
    const struct transport_faults faults = {.kill_rank = 1, .kill_after = 6};
    struct error e = {0};
    (void)unused;
    open_job(2, &faults);
    ranks[1].busy_steps = 1 << 30;
    ranks[1].timeout_s = 1.5;
    start_threads(2);
    boss.wanted = 2;
    assert_int_equal(loop_until(ranks[0].loop, all_ready, &boss, 0.8, &e), ERR_PEER);
    expect_text(&e, "rank 1 (host pi1) has not answered for 0.8 s; it was: computing block 3 of "
                    "micro-batch 12");
    loop_stop(ranks[0].loop, true);
    close_job(2);
    /* The rank itself gave up too. */
    assert_int_equal(ranks[1].status, ERR_PEER);
    assert_non_null(strstr(ranks[1].text, "rank 0 has not been heard of for 1.5 s"));
}

/* All ranks answer pings, but the answer that is waited for was lost on the way. */
static void test_lost_message(void **unused)
{
    const struct transport_faults faults = {.drop_from = 1, .drop_number = 2};
    struct error e = {0};
    (void)unused;
    open_job(2, &faults);
    start_threads(2);
    send_to_all(2, MSG_ASSIGN);
    assert_int_equal(loop_until(ranks[0].loop, all_ready, &boss, 0.8, &e), ERR_PEER);
    expect_text(&e, "a message was lost");
    loop_stop(ranks[0].loop, true);
    close_job(2);
}

static void test_stray_messages(void **unused)
{
    struct error e = {0}, e2 = {0};
    struct message m = {.kind = MSG_ASSIGN};
    (void)unused;
    open_job(2, NULL);
    ranks[0].loop->worker = (struct endpoint){0};
    assert_int_equal(loop_send(ranks[0].loop, 0, &m, &e), OK);
    assert_int_equal(loop_turn(ranks[0].loop, &e), ERR_PEER);
    expect_text(&e, "rank 0 sent ASSIGN to rank 0, which has no worker");
    m.kind = MSG_READY;
    assert_int_equal(loop_send(ranks[0].loop, 1, &m, &e2), OK);
    assert_int_equal(loop_turn(ranks[1].loop, &e2), ERR_PEER);
    expect_text(&e2, "which has no coordinator");
    loop_close(ranks[0].loop);
    loop_close(ranks[1].loop);
}

static void test_signal(void **unused)
{
    struct error e = {0}, e2 = {0};
    (void)unused;
    open_job(1, NULL);
    loop_catch_signals();
    assert_false(loop_interrupted());
    raise(SIGINT);
    assert_true(loop_interrupted());
    assert_int_equal(loop_turn(ranks[0].loop, &e), ERR_INTERRUPTED);
    loop_clear_interrupt();
    raise(SIGTERM); /* the handler is in place again */
    assert_int_equal(loop_turn(ranks[0].loop, &e2), ERR_INTERRUPTED);
    loop_clear_interrupt();
    loop_close(ranks[0].loop);
}

static void test_wait_is_counted(void **unused)
{
    struct error e = {0};
    (void)unused;
    open_job(1, NULL);
    double start = loop_now(), waited;
    while ((waited = loop_now() - start) < 0.05)
        assert_int_equal(loop_turn(ranks[0].loop, &e), OK);
    assert_true(ranks[0].loop->stats.wait_s > 0 && ranks[0].loop->stats.wait_s <= waited + 0.01);
    loop_close(ranks[0].loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_orderly_job),  cmocka_unit_test(test_one_rank),
        cmocka_unit_test(test_worker_fails), cmocka_unit_test(test_busy_is_not_silent),
        cmocka_unit_test(test_hanging_rank), cmocka_unit_test(test_vanished_rank),
        cmocka_unit_test(test_lost_message), cmocka_unit_test(test_stray_messages),
        cmocka_unit_test(test_signal),       cmocka_unit_test(test_wait_is_counted),
        cmocka_unit_test(test_alive),        cmocka_unit_test(test_heard_is_not_told),
        cmocka_unit_test(test_slow_rank_zero),
    };
    return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
