/* The process: parses the options, joins the other ranks, starts worker and coordinator, and turns
 * errors into one sentence and an exit code. The only place that exits, and the only file here
 * that knows the worker and the kernels. */
#define _GNU_SOURCE /* sched_getaffinity */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/loop.h"
#include "common/sysinfo.h"
#include "common/transport.h"
#include "coordinator/cluster.h"
#include "coordinator/commands.h"
#include "coordinator/options.h"
#include "kernels/kernels.h"
#include "worker/bench_kernels.h"
#include "worker/worker.h"

#define SPIN_COUNT "2000" /* about 0.1 ms */

static int exit_code(enum status status)
{
    switch (status) {
    case OK:
        return 0;
    case ERR_USAGE:
        return 2;
    case ERR_INTERRUPTED:
        return 130; /* as shells report SIGINT */
    default:
        return 1;
    }
}

static void complain(const struct error *e)
{
    fflush(stdout);
    fprintf(stderr, "sbit: %s\n", e->text);
}

/* A full disk or closed pipe behind stdout shows only when the buffer is written. */
static enum status flush_output(struct error *e)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        return error_set_errno(e, ERR_IO, "cannot write to standard output");
    return OK;
}

static enum status start_kernels(struct error *e)
{
    const char *level = getenv("SBIT_CPU");
    const char *text = kernels_init(level && *level ? level : NULL);
    FAIL_IF(text, e, ERR_UNSUPPORTED, "SBIT_CPU=%s: %s", level, text);
    return OK;
}

static enum status print_version(struct error *e)
{
    enum status status = start_kernels(e);
    if (status != OK) /* still tell which levels there are */
        (void)kernels_init(NULL);
    printf("sbit %s\nwire protocol %u\ncpu variant %s; this machine can run:", SBIT_VERSION,
           WIRE_VERSION, kernels.variant);
    for (const char *const *level = kernels_levels(); *level; level++)
        printf(" %s", *level);
    putchar('\n');
    return status;
}

/* CPUs that this process may use. A launcher binds ranks to single cores, which the worker undoes,
 * so what counts under MPI is what the kernel allows when asked for all. */
static uint32_t usable_cores(void)
{
    cpu_set_t mine, all;
    uint32_t count = sysinfo_cores();
    memset(&all, 0xff, sizeof all);
    if (transport_mpi_launched() && sched_getaffinity(0, sizeof mine, &mine) == 0 &&
        sched_setaffinity(0, sizeof all, &all) == 0) {
        count = sysinfo_cores();
        sched_setaffinity(0, sizeof mine, &mine);
    }
    return count;
}

static enum status run_bench_kernels(const struct options *o, struct error *e)
{
    json_t *report;
    struct bench_kernels setup = {.type = o->type,
                                  .cpu = o->cpu,
                                  .threads = o->threads ? o->threads : usable_cores(),
                                  .quick = o->quick};
    TRY(start_kernels(e));
    TRY(report_check_path(o->json, e));
    TRY(bench_kernels(&setup, &report, e));
    if (o->json)
        return report_write_json(report, o->json, e);
    json_decref(report);
    return OK;
}

/* The commands that one process does alone. */
static bool needs_ranks(enum command command)
{
    return command == CMD_COMPRESS || command == CMD_RUN || command == CMD_EVAL ||
           command == CMD_BENCH_MODEL;
}

static enum status run_alone(const struct options *o, struct error *e)
{
    switch (o->command) {
    case CMD_VERSION:
        TRY(print_version(e));
        break;
    case CMD_INSPECT:
        TRY(report_check_names(o, e));
        TRY(cmd_inspect(o, e));
        break;
    case CMD_TOKENIZE:
        TRY(cmd_tokenize(o, e));
        break;
    case CMD_BENCH_KERNELS:
        TRY(run_bench_kernels(o, e));
        break;
    default:
        options_print_help(o->help_for);
        break;
    }
    return flush_output(e);
}

static enum status send_hello(struct loop *loop, struct error *e)
{
    struct message m = {.kind = MSG_HELLO};
    struct msg_hello *h = &m.hello;
    h->protocol = WIRE_VERSION;
    snprintf(h->version, sizeof h->version, "%s", SBIT_VERSION);
    snprintf(h->host, sizeof h->host, "%s", loop->host);
    snprintf(h->cpu, sizeof h->cpu, "%s", kernels.variant);
    h->cores = usable_cores();
    h->ram_bytes = sysinfo_ram();
    h->available_bytes = sysinfo_available();
    return loop_send(loop, 0, &m, e);
}

static enum status start_rank(struct loop *loop, struct worker **worker, struct error *e)
{
    loop_catch_signals();
    TRY(start_kernels(e));
    TRY(worker_create(worker, loop, e));
    return send_hello(loop, e);
}

static enum status run_command(struct cluster *c, struct error *e)
{
    TRY(report_check_names(c->options, e));
    switch (c->options->command) {
    case CMD_COMPRESS:
        return cmd_compress(c, e);
    case CMD_RUN:
        return cmd_run(c, e);
    case CMD_BENCH_MODEL:
        return cmd_bench_model(c, e);
    default:
        return cmd_eval(c, e);
    }
}

static enum status coordinate(struct loop *loop, const struct options *o, struct error *e)
{
    struct cluster *c;
    TRY(cluster_open(&c, loop, o, e));
    enum status status = run_command(c, e);
    cluster_close(c);
    return status == OK ? flush_output(e) : status;
}

static int be_rank_zero(struct loop *loop, const struct options *o, enum status started,
                        struct error *e)
{
    enum status status = started == OK ? coordinate(loop, o, e) : started;
    if (status != OK)
        complain(e);
    /* After Ctrl-C the other ranks leave with 0, so that mpirun passes on rank 0's code. */
    loop_stop(loop, status != OK && status != ERR_INTERRUPTED);
    return exit_code(status);
}

/* Tells rank 0, which prints it and stops all. */
static void tell_rank_zero(struct loop *loop, enum status status, const char *text)
{
    struct message m = {.kind = MSG_ERROR, .error.status = (uint32_t)status};
    struct error unsent = {0}; /* if this fails too, rank 0's deadline tells */
    snprintf(m.error.text, sizeof m.error.text, "%s", text);
    loop->failed = true;
    (void)loop_send(loop, 0, &m, &unsent);
}

/* Another rank than 0 speaks only when rank 0 cannot be told any more. */
static int be_other_rank(struct loop *loop, const struct options *o, enum status started,
                         struct error *e)
{
    struct error served = {0};
    if (started != OK)
        tell_rank_zero(loop, started, e->text);
    enum status status = loop_serve(loop, o->timeout, &served);
    if (status == ERR_INTERRUPTED) { /* rank 0 knows of it, or got the signal too, and stops all */
        loop_clear_interrupt();
        served = (struct error){0};
        status = loop_serve(loop, o->timeout, &served);
    }
    if (!loop->stopped && status != OK && !loop->reported)
        fprintf(stderr, "sbit: rank %d (host %s): %s\n", loop->transport->rank, loop->host,
                served.text);
    if (!loop->stopped)
        transport_abort(loop->transport, 1);
    return started != OK ? exit_code(started) : status != OK || loop->stop_failed;
}

/* A rank that cannot read its options joins too, since the others may have been given better ones:
 * they shall hear of it at once, and rank 0 alone say it. */
static int run_rank(const struct options *o, struct transport *t, enum status parsed,
                    struct error *e)
{
    struct loop *loop;
    struct worker *worker = NULL;
    if (loop_open(&loop, t, e) != OK) {
        complain(e);
        return 1;
    }
    enum status started = parsed == OK ? start_rank(loop, &worker, e) : parsed;
    int code =
        t->rank == 0 ? be_rank_zero(loop, o, started, e) : be_other_rank(loop, o, started, e);
    worker_free(worker);
    loop_close(loop);
    return code;
}

/* One process, or a command that rank 0 does alone while the others only join and leave. */
static int run_without_ranks(const struct options *o, enum status status, int rank, struct error *e)
{
    if (rank == 0) {
        if (status == OK)
            status = run_alone(o, e);
        if (status != OK)
            complain(e);
    }
    return exit_code(status);
}

/* OpenMP threads wait for their next work by spinning, for many milliseconds unless the
 * environment says otherwise before the program is loaded: ranks that share a machine would take
 * the cores from each other. So the program starts itself again with a short spin, once; a user's
 * own setting stands. Under a debugger or an emulator this may fail, which is slower but right. */
static void limit_spinning(char **argv)
{
    char path[4096];
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT"))
        return;
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0 || setenv("OMP_WAIT_POLICY", "passive", 1) != 0 ||
        setenv("GOMP_SPINCOUNT", SPIN_COUNT, 1) != 0)
        return;
    path[n] = '\0';
    execv(path, argv);
}

/* A closed standard stream would lend its number to a file that is opened, and what is printed
 * would land in that file. Stand-ins that refuse all reading or writing take their places. */
static void occupy_streams(void)
{
    static const int modes[] = {O_WRONLY, O_RDONLY, O_RDONLY};
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            (void)open("/dev/null", modes[fd]); /* takes the lowest free number */
}

/* Files are read through mappings: a file that was cut short meanwhile, or a disk that fails,
 * shows as this signal. */
static void end_on_lost_file(int number)
{
    static const char text[] = "sbit: a file of the model was cut short, or its disk failed, while "
                               "it was being read: check the file and run again\n";
    (void)number;
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    _exit(1);
}

int main(int argc, char **argv)
{
    occupy_streams();
    signal(SIGBUS, end_on_lost_file);
    struct options o;
    struct error e = {0};
    struct transport *t = NULL;
    enum status parsed = options_parse(&o, argc, argv, &e);
    bool alone = parsed == OK && !needs_ranks(o.command), launched = transport_mpi_launched();
    if (parsed == OK && (!alone || o.command == CMD_BENCH_KERNELS))
        limit_spinning(argv);
    if (!launched && (alone || parsed != OK))
        return run_without_ranks(&o, parsed, 0, &e);
    struct error joining = {0};
    enum status joined =
        launched ? transport_mpi_open(&t, &joining) : transport_local_open(&t, 1, NULL, &joining);
    if (joined != OK) {
        complain(&joining);
        return exit_code(joined);
    }
    if (!alone)
        return run_rank(&o, t, parsed, &e);
    int code = run_without_ranks(&o, parsed, t->rank, &e);
    transport_close(t);
    return code;
}
