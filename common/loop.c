/* The event loop: polls, dispatches, steps, waits. Owns deadlines and the answers that need
 * neither worker nor coordinator. Must not know what models or prompts are, nor how frames
 * travel. */
#include "common/loop.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "common/mem.h"
#include "common/sysinfo.h"

#define FRAMES_PER_TURN 64     /* so that a flood of messages does not starve the steps */
#define EMPTY_POLLS     2      /* MPI over TCP takes several polls to bring in one frame */
#define SPIN_S          200e-6 /* how long an idle rank polls without sleeping */
#define SLEEP_MIN_S     20e-6
#define SLEEP_MAX_S     1e-3
#define SLEEP_PENDING_S                                                                            \
    100e-6 /* longest sleep while own frames are on their way: MPI moves them in polls */
#define WAIT_KNOWN_S  0.25   /* a longer wait says nothing about the next one */
#define SLACK_NS      5000ul /* by which the kernel may prolong a sleep; its default is 50 us */
#define NEAR_MIN_S    20e-6
#define NEAR_MAX_S    100e-6
#define GAP_S         0.5  /* a pause between turns that is not charged to silent ranks */
#define FAILED_WAIT_S 30.0 /* how long a failed rank waits for STOP */
#define STOP_WAIT_S   5.0

static volatile sig_atomic_t interrupted;

static void note_signal(int number)
{
    (void)number;
    interrupted = 1;
}

void loop_catch_signals(void)
{
    /* SA_RESETHAND: the second signal finds the default action and kills. No SA_RESTART: waiting
     * for a person at the terminal ends with EINTR. */
    struct sigaction action = {.sa_handler = note_signal, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    /* The terminal is closed or the connection lost; nohup has it ignored. */
    struct sigaction hangup;
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN)
        sigaction(SIGHUP, &action, NULL);
}

bool loop_interrupted(void)
{
    return interrupted != 0;
}

void loop_clear_interrupt(void)
{
    interrupted = 0;
    loop_catch_signals();
}

double loop_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void loop_free(struct loop *loop)
{
    free(loop->last_heard);
    free(loop->last_pinged);
    free(loop->host_of);
    free(loop->doing);
    free(loop);
}

static enum status allocate_peers(struct loop *loop, size_t size, struct error *e)
{
    TRY(mem_array(&loop->last_heard, size, sizeof *loop->last_heard, "ranks", e));
    TRY(mem_array(&loop->last_pinged, size, sizeof *loop->last_pinged, "ranks", e));
    TRY(mem_array(&loop->host_of, size, sizeof *loop->host_of, "ranks", e));
    return mem_array(&loop->doing, size, sizeof *loop->doing, "ranks", e);
}

enum status loop_open(struct loop **out, struct transport *t, struct error *e)
{
    struct loop *loop = calloc(1, sizeof *loop);
    *out = NULL;
    if (!loop || allocate_peers(loop, (size_t)t->size, e) != OK) {
        if (loop)
            loop_free(loop);
        transport_close(t);
        return error_set(e, ERR_MEMORY, "out of memory: the event loop");
    }
    loop->transport = t;
    loop->timeout_s = 60;
    loop->turned = loop->progress = loop_now();
    sysinfo_host(loop->host);
    (void)prctl(PR_SET_TIMERSLACK, SLACK_NS, 0, 0, 0); /* refused: sleeps are a little longer */
    for (int i = 0; i < t->size; i++) {
        loop->last_heard[i] = loop->last_pinged[i] = loop->turned;
        snprintf(loop->doing[i], sizeof loop->doing[i], "starting");
    }
    *out = loop;
    return OK;
}

void loop_close(struct loop *loop)
{
    if (!loop)
        return;
    if (loop->peer_lost)
        transport_abort(loop->transport, 1);
    transport_close(loop->transport);
    loop_free(loop);
}

enum status loop_send(struct loop *loop, int to, const struct message *m, struct error *e)
{
    uint8_t *bytes;
    size_t size;
    TRY(message_encode(m, &bytes, &size, e));
    return transport_send(loop->transport, to, bytes, size, e);
}

/* "rank 2 (host pi3)", or "rank 2" before its HELLO. */
static const char *peer_name(const struct loop *loop, int rank, char out[192])
{
    const char *host = loop->host_of[rank];
    snprintf(out, 192, host[0] ? "rank %d (host %s)" : "rank %d", rank, host);
    return out;
}

/* What an incoming message tells about its sender. */
static void note_peer(struct loop *loop, const struct message *m)
{
    double now = loop_now();
    char *doing = loop->doing[m->peer];
    loop->last_heard[m->peer] = now;
    if (m->kind == MSG_HELLO)
        memcpy(loop->host_of[m->peer], m->hello.host, sizeof m->hello.host);
    if (m->kind == MSG_PONG)
        memcpy(doing, m->pong.doing, sizeof m->pong.doing);
    else
        snprintf(doing, sizeof loop->doing[0], "on its way after a %s message",
                 message_name(m->kind));
    if (m->kind != MSG_PING && (m->kind != MSG_PONG || strcmp(doing, "waiting") != 0))
        loop->progress = now;
}

static void say_doing(struct loop *loop, char out[128])
{
    if (loop->failed)
        snprintf(out, 128, "waiting to be stopped after a failure");
    else if (loop->worker.self && loop->worker.doing)
        loop->worker.doing(loop->worker.self, out);
    else
        snprintf(out, 128, "waiting");
}

static enum status answer_ping(struct loop *loop, int to, struct error *e)
{
    struct message m = {.kind = MSG_PONG};
    say_doing(loop, m.pong.doing);
    /* Steps may begin and end between two looks at the messages: then none is seen at work. */
    if (loop->worked && strcmp(m.pong.doing, "waiting") == 0)
        snprintf(m.pong.doing, sizeof m.pong.doing, "at work a moment ago");
    loop->worked = false;
    return loop_send(loop, to, &m, e);
}

static enum status answer_stats(struct loop *loop, int to, struct error *e)
{
    struct message m = {.kind = MSG_STATS, .stats = loop->stats};
    snprintf(m.stats.host, sizeof m.stats.host, "%s", loop->host);
    m.stats.peak_rss_bytes = sysinfo_peak_rss();
    return loop_send(loop, to, &m, e);
}

static enum status take_error(struct loop *loop, const struct message *m, struct error *e)
{
    char name[192];
    if (loop->transport->rank != 0)
        return error_set(e, ERR_PEER, "rank %d sent an ERROR to rank %d: they go to rank 0 only",
                         m->peer, loop->transport->rank);
    /* A rank that was told to stop by a signal is no failure: the job ends as after Ctrl-C. */
    enum status status = m->error.status == ERR_INTERRUPTED ? ERR_INTERRUPTED : ERR_PEER;
    return error_set(e, status, "%s: %s", peer_name(loop, m->peer, name), m->error.text);
}

/* Hands m to an endpoint, or says that there is none. */
static enum status give(struct loop *loop, struct endpoint *to, const char *what, struct message *m,
                        struct error *e)
{
    FAIL_IF(!to->self, e, ERR_PEER, "rank %d sent %s to rank %d, which has no %s", m->peer,
            message_name(m->kind), loop->transport->rank, what);
    return to->handle(to->self, m, e);
}

static enum status dispatch(struct loop *loop, struct message *m, struct error *e)
{
    switch (m->kind) {
    case MSG_PING:
        return answer_ping(loop, m->peer, e);
    case MSG_ASK_STATS:
        return answer_stats(loop, m->peer, e);
    case MSG_STOP:
        loop->stopped = true;
        loop->stop_failed = m->stop.failed;
        return OK;
    case MSG_ERROR:
        return take_error(loop, m, e);
    case MSG_ASSIGN:
    case MSG_TOKENS:
    case MSG_HIDDEN:
    case MSG_COMPRESS:
    case MSG_CALIB:
    case MSG_MOMENTS:
    case MSG_PART:
    case MSG_GRADIENT:
    case MSG_SOURCE:
    case MSG_FETCHED:
    case MSG_STATE:
        return loop->failed ? OK : give(loop, &loop->worker, "worker", m, e);
    default:
        return give(loop, &loop->coordinator, "coordinator", m, e);
    }
}

/* Takes what has come, up to a bound. */
static enum status receive(struct loop *loop, bool *busy, struct error *e)
{
    int empty = 0;
    for (int i = 0; i < FRAMES_PER_TURN && !loop->stopped; i++) {
        struct frame f;
        struct message m;
        TRY(transport_poll(loop->transport, &f, e));
        if (!f.bytes && ++empty < EMPTY_POLLS)
            continue;
        if (!f.bytes)
            break;
        *busy = true;
        TRY(message_decode(&m, &f, e));
        note_peer(loop, &m);
        enum status status = dispatch(loop, &m, e);
        message_release(&m);
        TRY(status);
    }
    return OK;
}

static enum status step(struct loop *loop, bool *busy, struct error *e)
{
    struct endpoint *const both[] = {&loop->worker, &loop->coordinator};
    for (int i = 0; i < 2; i++) {
        bool did = false;
        if (!both[i]->self || !both[i]->step || (i == 0 && loop->failed))
            continue;
        TRY(both[i]->step(both[i]->self, &did, e));
        if (did) {
            *busy = loop->worked = true;
            loop->progress = loop_now();
        }
    }
    return OK;
}

/* Rank 0: asks each rank now and then, also those that it hears from: the last stage of a ring
 * talks to rank 0 all the time and would otherwise hear nothing from it, which is how a rank tells
 * that rank 0 is gone. */
static enum status ping_all(struct loop *loop, double now, struct error *e)
{
    double patience = loop->timeout_s / 10;
    struct message ping = {.kind = MSG_PING};
    for (int i = 1; i < loop->transport->size; i++) {
        if (now - loop->last_pinged[i] < patience)
            continue;
        loop->last_pinged[i] = now;
        TRY(loop_send(loop, i, &ping, e));
    }
    return OK;
}

/* A rank of a pipeline waits about as long for each micro-batch as for the one before. Around that
 * time it sleeps for a sixty-fourth of it only, so that a hop is late by less than what anybody
 * notices, and still sleeps. Returns the longest sleep. */
static double sleep_limit(const struct loop *loop, double idle)
{
    double early = loop->waited * 7 / 8, late = loop->waited * 5 / 4, near = loop->waited / 64;
    if (loop->waited <= 0 || idle > late)
        return SLEEP_MAX_S;
    if (near > NEAR_MAX_S)
        near = NEAR_MAX_S;
    if (near < NEAR_MIN_S)
        near = NEAR_MIN_S;
    return idle + near < early ? early - idle : near;
}

/* Idle: polls on for a while, then sleeps ever longer, because latency matters most just after work
 * and when work is due. */
static void wait_idle(struct loop *loop, double now)
{
    double idle = now - loop->idle_since, sleep_s = idle - SPIN_S;
    double longest = sleep_limit(loop, idle);
    if (idle < SPIN_S) {
        sched_yield();
        return;
    }
    if (transport_pending(loop->transport) && longest > SLEEP_PENDING_S)
        longest = SLEEP_PENDING_S;
    if (sleep_s < SLEEP_MIN_S)
        sleep_s = SLEEP_MIN_S;
    if (sleep_s > longest)
        sleep_s = longest;
    if (sleep_s > SLEEP_MAX_S)
        sleep_s = SLEEP_MAX_S;
    nanosleep(&(struct timespec){.tv_nsec = (long)(sleep_s * 1e9)}, NULL);
}

/* Time in which this rank did not turn (a long step, a stopped process) is nobody's silence. The
 * others have waited all the same: pings stay due. */
static void forgive_gap(struct loop *loop, double now)
{
    double gap = now - loop->turned;
    if (gap < GAP_S)
        return;
    loop->progress += gap;
    for (int i = 0; i < loop->transport->size; i++)
        loop->last_heard[i] += gap;
}

/* A wait ends. */
static void note_wait(struct loop *loop, double now)
{
    if (loop->idle_since <= 0)
        return;
    loop->waited = now - loop->idle_since;
    if (loop->waited > WAIT_KNOWN_S)
        loop->waited = 0;
}

enum status loop_turn(struct loop *loop, struct error *e)
{
    bool busy = false;
    double start = loop_now();
    FAIL_IF(interrupted, e, ERR_INTERRUPTED, "stopped by a signal");
    forgive_gap(loop, start);
    loop->turned = start;
    TRY(receive(loop, &busy, e));
    if (!loop->stopped)
        TRY(step(loop, &busy, e));
    if (loop->transport->rank == 0)
        TRY(ping_all(loop, start, e));
    if (busy) {
        note_wait(loop, start);
        loop->idle_since = 0;
    } else {
        if (loop->idle_since <= 0)
            loop->idle_since = start;
        wait_idle(loop, loop_now());
        loop->stats.wait_s += loop_now() - start;
    }
    return OK;
}

/* Whether a rank, or the whole job, has been silent for too long. */
static enum status check_silence(struct loop *loop, struct error *e)
{
    char name[192];
    double now = loop->turned;
    for (int i = 1; i < loop->transport->size; i++) {
        if (now - loop->last_heard[i] <= loop->timeout_s)
            continue;
        loop->peer_lost = true;
        return error_set(e, ERR_PEER,
                         "%s has not answered for %.3g s; it was: %s. Look whether its machine "
                         "and network are alive, or raise --timeout",
                         peer_name(loop, i, name), loop->timeout_s, loop->doing[i]);
    }
    FAIL_IF(now - loop->progress > loop->timeout_s, e, ERR_PEER,
            "all ranks answer but none has had work for %.3g s: a message was lost; run again",
            loop->timeout_s);
    return OK;
}

enum status loop_until(struct loop *loop, bool (*done)(void *self), void *self, double timeout_s,
                       struct error *e)
{
    loop->timeout_s = timeout_s;
    loop->progress = loop_now(); /* the wait begins now, whatever was before */
    while (!done(self)) {
        TRY(loop_turn(loop, e));
        TRY(check_silence(loop, e));
    }
    return OK;
}

/* Tells rank 0 and waits for its STOP, so that the sentence is not lost in the end of the job.
 * After a signal, which mpirun gave to all ranks, there is nothing to wait for. */
static void report_failure(struct loop *loop, const struct error *why)
{
    struct error ignored = {0};
    struct message m = {.kind = MSG_ERROR, .error.status = (uint32_t)why->status};
    double start = loop_now();
    double patience = loop->timeout_s > FAILED_WAIT_S ? loop->timeout_s : FAILED_WAIT_S;
    snprintf(m.error.text, sizeof m.error.text, "%s", why->text);
    loop->failed = true;
    if (loop_send(loop, 0, &m, &ignored) != OK)
        return;
    loop->reported = true;
    if (why->status == ERR_INTERRUPTED)
        return;
    while (!loop->stopped && loop_now() - start < patience)
        if (loop_turn(loop, &ignored) != OK)
            return;
}

enum status loop_serve(struct loop *loop, double timeout_s, struct error *e)
{
    loop->timeout_s = timeout_s;
    while (!loop->stopped) {
        if (loop_turn(loop, e) != OK) {
            report_failure(loop, e);
            return e->status;
        }
        if (loop->turned - loop->last_heard[0] > timeout_s) {
            loop->peer_lost = true;
            return error_set(e, ERR_PEER,
                             "rank 0 has not been heard of for %.3g s: look whether its machine "
                             "and network are alive, or raise --timeout",
                             timeout_s);
        }
    }
    return OK;
}

enum status loop_alive(struct loop *loop, struct error *e)
{
    double now = loop_now();
    struct message ping = {.kind = MSG_PING}, pong = {.kind = MSG_PONG};
    if (now - loop->alive < loop->timeout_s / 10 || now - loop->turned < loop->timeout_s / 10)
        return OK;
    loop->alive = now;
    if (loop->transport->rank != 0) {
        say_doing(loop, pong.pong.doing);
        if (strcmp(pong.pong.doing, "waiting") == 0) /* it does not know; but it is here */
            snprintf(pong.pong.doing, sizeof pong.pong.doing, "at work");
        return loop_send(loop, 0, &pong, e);
    }
    for (int i = 1; i < loop->transport->size; i++)
        TRY(loop_send(loop, i, &ping, e));
    return OK;
}

void loop_stop(struct loop *loop, bool failed)
{
    struct error ignored = {0};
    struct message m = {.kind = MSG_STOP, .stop.failed = failed};
    struct frame f;
    double start = loop_now();
    if (loop->stopped)
        return;
    for (int i = 1; i < loop->transport->size; i++)
        loop_send(loop, i, &m, &ignored);
    loop->stopped = true;
    while (!loop->peer_lost && transport_pending(loop->transport) &&
           loop_now() - start < STOP_WAIT_S) {
        if (transport_poll(loop->transport, &f, &ignored) != OK)
            return;
        if (!f.bytes)
            nanosleep(&(struct timespec){.tv_nsec = (long)(SLEEP_MIN_S * 1e9)}, NULL);
        free(f.bytes);
    }
}
