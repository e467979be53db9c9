/* A sum over memory in plain C: 32 independent sums, of which compilers make vectors, so that no
 * addition waits for another and the bus is the limit. */
#define _GNU_SOURCE /* sched_setaffinity */
#include "common/read_speed.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/mem.h"
#include "common/sysinfo.h"

/* A reading takes the next of so many parts of the buffer: short enough to fall between what other
 * programs do, and long gone from the caches when its turn comes again. */
enum { LANES = 32, PARTS = 4, LEAST_READINGS = 2 * PARTS };
#define BUFFER_BYTES ((uint64_t)256 << 20)

struct reader;

struct team {
    pthread_mutex_t gate; /* closed until all have been started */
    pthread_barrier_t barrier;
    bool alone, stop;
    double seconds; /* to go on for */
    double best;    /* of the readings so far */
    struct reader *readers;
    uint32_t n;
};

struct reader {
    struct team *team;
    pthread_t thread;
    bool leads;        /* decides when to stop */
    uint64_t *own;     /* [PARTS][words] */
    uint64_t words;    /* a multiple of LANES */
    double begin, end; /* of its last reading */
    uint64_t sum;
};

static double clock_seconds(bool alone)
{
    struct timespec t;
    clock_gettime(alone ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static uint64_t sum_words(const uint64_t *p, uint64_t words)
{
    uint64_t lane[LANES] = {0}, sum = 0;
    for (uint64_t i = 0; i < words; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] += p[i + (uint64_t)j];
    for (int j = 0; j < LANES; j++)
        sum += lane[j];
    return sum;
}

/* A launcher may have bound the process to one core, which would make all threads share it. */
static void widen(void)
{
    cpu_set_t all;
    memset(&all, 0xff, sizeof all);
    (void)sched_setaffinity(0, sizeof all, &all);
}

/* From the first to begin to the last to end. */
static void count_reading(struct team *team)
{
    double begin = team->readers[0].begin, end = team->readers[0].end;
    for (uint32_t i = 1; i < team->n; i++) {
        begin = team->readers[i].begin < begin ? team->readers[i].begin : begin;
        end = team->readers[i].end > end ? team->readers[i].end : end;
    }
    if (end > begin) /* a coarse clock may not have moved */
        team->best = end - begin < team->best ? end - begin : team->best;
}

static void read_part(struct reader *r)
{
    struct team *team = r->team;
    memset(r->own, 1, PARTS * r->words * sizeof *r->own); /* makes the pages this thread's own */
    double started = clock_seconds(false);
    for (int reading = 1; !team->stop; reading++) {
        pthread_barrier_wait(&team->barrier);
        r->begin = clock_seconds(team->alone);
        r->sum += sum_words(r->own + (uint64_t)reading % PARTS * r->words, r->words);
        r->end = clock_seconds(team->alone);
        pthread_barrier_wait(&team->barrier);
        if (r->leads) {
            count_reading(team);
            team->stop =
                reading >= LEAST_READINGS && clock_seconds(false) - started >= team->seconds;
        }
        pthread_barrier_wait(&team->barrier);
    }
}

static void *run_reader(void *self)
{
    struct reader *r = self;
    pthread_mutex_lock(&r->team->gate);
    pthread_mutex_unlock(&r->team->gate);
    widen();
    read_part(r);
    return NULL;
}

/* Threads are counted at the barrier, so none may begin before all are known to exist. */
static enum status run_team(struct team *team, struct error *e)
{
    struct reader *readers = team->readers;
    uint32_t n = team->n, started = 0;
    pthread_mutex_init(&team->gate, NULL);
    pthread_barrier_init(&team->barrier, NULL, n);
    pthread_mutex_lock(&team->gate);
    while (started < n &&
           pthread_create(&readers[started].thread, NULL, run_reader, &readers[started]) == 0)
        started++;
    team->stop = started < n;
    pthread_mutex_unlock(&team->gate);
    for (uint32_t i = 0; i < started; i++)
        pthread_join(readers[i].thread, NULL);
    pthread_barrier_destroy(&team->barrier);
    pthread_mutex_destroy(&team->gate);
    FAIL_IF(started < n, e, ERR_LIMIT, "cannot start %u threads: choose fewer with --threads", n);
    return OK;
}

/* A thread's part: of an eighth of the machine's memory at most, and whole vectors. */
static uint64_t words_each(uint32_t threads)
{
    uint64_t ram = sysinfo_ram(), bytes = BUFFER_BYTES;
    if (ram > 0 && ram / 8 < bytes)
        bytes = ram / 8;
    return (bytes / sizeof(uint64_t) / PARTS / threads / LANES + 1) * LANES;
}

enum status read_speed(uint32_t threads, double seconds, double *bytes_per_s, struct error *e)
{
    struct team team = {.alone = threads == 1, .seconds = seconds, .best = 1e30, .n = threads};
    uint64_t *buffer, words = words_each(threads);
    TRY(mem_array(&team.readers, threads, sizeof *team.readers, "threads that read memory", e));
    enum status status =
        mem_array(&buffer, threads * PARTS * words, sizeof *buffer, "memory to read", e);
    if (status != OK) {
        free(team.readers);
        return status;
    }
    for (uint32_t i = 0; i < threads; i++)
        team.readers[i] = (struct reader){
            .team = &team, .leads = i == 0, .own = buffer + i * PARTS * words, .words = words};
    status = run_team(&team, e);
    double bytes = (double)(threads * words * sizeof *buffer);
    *bytes_per_s = status == OK ? bytes / team.best : 0;
    free(buffer);
    free(team.readers);
    return status;
}
