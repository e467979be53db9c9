#include "coordinator/compress_estimate.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/calib_memory.h"
#include "coordinator/cluster.h"

#define NEAREST 256.0 /* operations per weight: 128 words, a multiplication and an addition */
#define PATHS   8.0   /* that the last round of feedback and the joint search follow at a time */
#define TRIED   64    /* rows of a matrix, by rank 0 alone (worker/calibrated_columns.c) */
#define LANES   16    /* windows are dealt in so many equal shares (worker/moments.h) */

/* The inputs of the four products of a block. */
enum { STEPS = 4 };

static void step_columns(const struct model_config *c, double n[STEPS])
{
    n[0] = n[2] = c->hidden;
    n[1] = (double)c->heads * c->head_dim;
    n[3] = c->ffn;
}

/* Of a block of the moments of n columns. */
static double width_of(const struct estimate_job *job, double n)
{
    return calib_block_columns((uint32_t)n, job->moment_floats);
}

/* Sum over the products of n times its blocks' width to that power. */
static double power_sum(const struct estimate_job *job, int power)
{
    double n[STEPS], sum = 0;
    step_columns(&job->source->config, n);
    for (int i = 0; i < STEPS; i++)
        sum += n[i] * pow(width_of(job, n[i]), power);
    return sum;
}

/* Operations for one row of n columns. */
static double search_row(const struct estimate_job *job, double n)
{
    const struct recipe *r = job->recipe;
    double width = width_of(job, n), fed = r->feedback ? r->rounds : 0;
    double looks = r->rounds + (fed > 0 ? fed - 1 + PATHS : 0) + r->descent + PATHS * r->joint;
    return n * (NEAREST * looks + width * (fed + 2 * (r->descent + r->joint + (r->qep > 0))));
}

/* Of so many rows of each matrix at most. */
static double search_all(const struct estimate_job *job, double most)
{
    double flops = 0;
    for (uint32_t i = 0; i < job->n; i++)
        if (plan_is_matrix(&job->units[i]))
            flops += fmin(most, (double)job->units[i].rows) *
                     search_row(job, (double)job->units[i].cols);
    return flops;
}

/* One token through one block in one stream: its matrices, and attention over half a window. */
static double forward_token(const struct estimate_job *job)
{
    const struct model_config *c = &job->source->config;
    return 2.0 * (double)job->totals->matrix_weights / c->block_count +
           2.0 * c->heads * c->head_dim * job->context;
}

/* The share of the windows that the rank with most of them has. */
static double share(const struct estimate_job *job)
{
    uint32_t lanes = (LANES + job->ranks - 1) / job->ranks;
    return (double)lanes / LANES;
}

void estimate_parts(const struct estimate_job *job, const struct msg_probed *slowest,
                    struct estimate_part part[ESTIMATE_PARTS])
{
    const struct model_config *c = &job->source->config;
    const struct recipe *r = job->recipe;
    double all = (double)job->tokens * c->block_count, mine = all * share(job);
    double cross = r->qep > 0 ? 3 : 1;
    double squares = power_sum(job, 1), cubes = power_sum(job, 2), forward = forward_token(job);
    double first = c->hidden * pow(width_of(job, c->hidden), 2);
    double each = 4.0 / 3 + (r->qep > 0 ? 7.0 / 3 : 0);
    const struct msg_probed none = {0}, *p = slowest ? slowest : &none;
    double row = p->search / search_row(job, c->hidden); /* of an operation of the search */
    double searched = search_all(job, INFINITY), tried = CODEBOOK_COUNT * search_all(job, TRIED);
    int n = 0;
    memset(part, 0, ESTIMATE_PARTS * sizeof *part);
    if (job->measure)
        part[n++] = (struct estimate_part){
            "measuring pass",
            all * (forward + squares) + 4.0 / 3 * cubes * c->block_count * job->ranks + tried,
            mine * (p->forward + p->moments) +
                p->factor * (4.0 / 3 / each) * cubes / first * c->block_count + tried * row / job->ranks};
    part[n++] =
        (struct estimate_part){"forward, two streams", 2 * all * forward, 2 * mine * p->forward};
    part[n++] =
        (struct estimate_part){"second moments", all * cross * squares, mine * cross * p->moments};
    part[n++] = (struct estimate_part){"factorisation", each * cubes * c->block_count * job->ranks,
                                       p->factor * cubes / first * c->block_count};
    part[n++] = (struct estimate_part){"search", searched, searched * row / job->ranks};
    /* Forward, again while going back, the gradients of inputs and scales; those of weights, and codes. */
    double times = calib_recodes(c, r->recode) ? 6 : 4;
    if (r->distill > 0)
        part[n++] = (struct estimate_part){"distillation", r->distill * all * times * forward,
                                           r->distill * mine * times * p->forward};
}

static void print_time(double seconds)
{
    if (seconds < 120)
        printf("%.3g s", seconds);
    else if (seconds < 7200)
        printf("%.0f minutes", seconds / 60);
    else
        printf("%.1f hours", seconds / 3600);
}

static void print_units(const struct estimate_job *job)
{
    uint32_t matrices = 0;
    double parameters = (double)job->source->parameters;
    char ratio[128];
    printf("  %-28s %14s %-9s %8s %14s\n", "tensor", "shape", "as", "bits", "bytes");
    for (uint32_t i = 0; i < job->n; i++) {
        const struct plan_unit *u = &job->units[i];
        char shape[32], as[16];
        snprintf(shape, sizeof shape, "%" PRIu64 " x %" PRIu64, u->rows, u->cols);
        snprintf(as, sizeof as, u->method == UNIT_CODE ? "%s %u" : "%s", form_name(u->method),
                 u->d);
        matrices += plan_is_matrix(u);
        printf("  %-28s %14s %-9s %8.3f %14" PRIu64 "\n", u->name, shape, as,
               8.0 * (double)u->form.bytes / ((double)u->rows * (double)u->cols), u->form.bytes);
    }
    printf("  %u units, %u of them matrices of blocks at %.3f bits per weight\n"
           "  the whole file: %.1f MB, %s, %.3f bits per weight\n",
           job->n, matrices,
           8.0 * (double)job->totals->matrix_bytes / (double)job->totals->matrix_weights,
           (double)job->file_bytes / 1e6,
           report_ratio(ratio, job->file_bytes, 4 * parameters, "F32"),
           8.0 * (double)job->file_bytes / parameters);
    if (job->aside_bytes > 0)
        printf("  until it is done, distillation needs %.1f MB more on disk\n",
               (double)job->aside_bytes / 1e6);
    if (job->measure)
        printf(
            "  which matrix gets how many bits is decided after a measuring pass; the sum stays\n");
}

void estimate_print(const struct estimate_job *job, const struct msg_probed *slowest)
{
    struct estimate_part part[ESTIMATE_PARTS];
    double flops = 0, seconds = 0;
    print_units(job);
    if (!slowest) {
        printf("  without calibration: takes little longer than reading the model; nothing was "
               "measured\n");
        return;
    }
    estimate_parts(job, slowest, part);
    printf("\n  %-28s %14s %14s\n", "part", "GFLOP", "seconds");
    for (int i = 0; i < ESTIMATE_PARTS && part[i].name; i++) {
        printf("  %-28s %14.4g %14.3g\n", part[i].name, part[i].flops / 1e9, part[i].seconds);
        flops += part[i].flops;
        seconds += part[i].seconds;
    }
    printf("  %-28s %14.4g %14.3g\n", "all", flops / 1e9, seconds);
    printf("  about ");
    print_time(seconds);
    printf(
        " on %u rank%s, by a short measurement on this machine as it is now; nothing was written\n",
        job->ranks, job->ranks == 1 ? "" : "s");
}
