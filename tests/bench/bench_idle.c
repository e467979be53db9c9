/* What an idle rank costs: rank 0 computes (without threads) and turns its loop every now and
 * then, as a rank between two layers does; all others wait in loop_serve. Prints a JSON line
 * with the share of a core that each idle rank used, and how long a message to one of them and
 * back took. Started by idle.sh. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/loop.h"

enum { TRIPS = 200 };

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double last_pong, idle_sum, idle_max;
static int reports;

/* Rank 0's coordinator: PONGs answer trips, STATS carry the CPU seconds in compute_s. */
static enum status handle(void *self, struct message *m, struct error *e)
{
    (void)self;
    (void)e;
    if (m->kind == MSG_PONG)
        last_pong = loop_now();
    if (m->kind == MSG_STATS) {
        double share = m->stats.compute_s;
        idle_sum += share;
        idle_max = share > idle_max ? share : idle_max;
        reports++;
    }
    return OK;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median and worst time of a ping to an idle rank, each after pause_ns of silence. */
static enum status measure_trips(struct loop *loop, long pause_ns, double out[2], struct error *e)
{
    static double trip[TRIPS];
    struct message ping = {.kind = MSG_PING};
    for (int i = 0; i < TRIPS; i++) {
        nanosleep(&(struct timespec){.tv_nsec = pause_ns}, NULL);
        double start = loop_now();
        last_pong = 0;
        TRY(loop_send(loop, 1, &ping, e));
        while (last_pong <= 0) {
            loop->idle_since = 0; /* rank 0 does not sleep here: the other side is measured */
            TRY(loop_turn(loop, e));
        }
        trip[i] = last_pong - start;
    }
    qsort(trip, TRIPS, sizeof *trip, compare);
    out[0] = trip[TRIPS / 2];
    out[1] = trip[TRIPS * 99 / 100];
    return OK;
}

static enum status measure(struct loop *loop, double seconds, struct error *e)
{
    volatile double sink = 1;
    double start = loop_now(), trips[2][2];
    struct message ask = {.kind = MSG_ASK_STATS};
    while (loop_now() - start < seconds) {
        for (int i = 0; i < 5000000; i++)
            sink = sink * 1.0000001;
        TRY(loop_turn(loop, e));
    }
    for (int i = 1; i < loop->transport->size; i++)
        TRY(loop_send(loop, i, &ask, e));
    while (reports < loop->transport->size - 1)
        TRY(loop_turn(loop, e));
    TRY(measure_trips(loop, 100000, trips[0], e));
    TRY(measure_trips(loop, 20000000, trips[1], e));
    printf("{\"idle_ranks\": %d, \"seconds\": %g, \"idle_core_share_mean\": %.4f, "
           "\"idle_core_share_max\": %.4f, \"trip_us_after_0.1ms\": [%.1f, %.1f], "
           "\"trip_us_after_20ms\": [%.1f, %.1f]}\n",
           reports, seconds, idle_sum / reports, idle_max, trips[0][0] * 1e6, trips[0][1] * 1e6,
           trips[1][0] * 1e6, trips[1][1] * 1e6);
    return OK;
}

/* Keeps the share of a core used since the start where ASK_STATS finds it. */
struct idle {
    struct loop *loop;
    double wall, cpu;
};

static enum status keep_share(void *self, bool *busy, struct error *e)
{
    struct idle *idle = self;
    (void)busy;
    (void)e;
    idle->loop->stats.compute_s = (cpu_seconds() - idle->cpu) / (loop_now() - idle->wall);
    return OK;
}

int main(int argc, char **argv)
{
    struct error e = {0};
    struct transport *t;
    struct loop *loop;
    double seconds = argc > 1 ? atof(argv[1]) : 10;
    if (!transport_mpi_launched() || transport_mpi_open(&t, &e) != OK ||
        loop_open(&loop, t, &e) != OK || t->size < 2) {
        fprintf(stderr, "start me by mpirun with 2 ranks or more %s\n", e.text);
        return 1;
    }
    struct idle idle = {loop, loop_now(), cpu_seconds()};
    if (t->rank == 0) {
        loop->coordinator = (struct endpoint){&e, handle, NULL, NULL};
        if (measure(loop, seconds, &e) != OK)
            fprintf(stderr, "%s\n", e.text);
        loop_stop(loop, false);
    } else {
        loop->worker = (struct endpoint){&idle, handle, keep_share, NULL};
        loop_serve(loop, 60, &e);
    }
    loop_close(loop);
    return e.status != OK;
}
