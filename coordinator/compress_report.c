#define _GNU_SOURCE /* asprintf */
#include "coordinator/compress_report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/calibration.h"
#include "coordinator/compress_sums.h"

#define GREAT_LOSS 0.1 /* relative squared error from which nobody should be surprised */

static double bits_per_weight(const struct compress_report *r)
{
    return 8.0 * (double)r->file_bytes / (double)r->source->parameters;
}

static double matrix_bits(const struct compress_report *r)
{
    return 8.0 * (double)r->totals->matrix_bytes / (double)r->totals->matrix_weights;
}

static double ratio_f32(const struct compress_report *r)
{
    return 4.0 * (double)r->source->parameters / (double)r->file_bytes;
}

static double ratio_source(const struct compress_report *r)
{
    return (double)r->source->file_bytes / (double)r->file_bytes;
}

static struct compress_sums sums(const struct compress_report *r, int kind, int64_t block)
{
    return compress_sums_of(r->units, r->results, r->n, kind, block);
}

static bool is_code(const struct compress_report *r)
{
    return strcmp(r->settings->method, "code") == 0;
}

static void print_sizes(const struct compress_report *r)
{
    char f32[128], source[128];
    printf("%s -> %s\n", r->source->path, r->output);
    printf("  method           %s", r->settings->method);
    if (is_code(r))
        printf(", at most %g bit%s per weight asked for", r->settings->bits,
               r->settings->bits == 1 ? "" : "s");
    if (r->calibration)
        printf("\n  calibrated on    %llu tokens in windows of %u",
               (unsigned long long)r->calibration->tokens, r->calibration->context);
    printf("\n  before           %.2f MB, %.2f MB as F32\n", (double)r->source->file_bytes / 1e6,
           4e-6 * (double)r->source->parameters);
    printf("  after            %.2f MB", (double)r->file_bytes / 1e6);
    if (r->files > 1)
        printf(" in %u files", r->files);
    printf(": %s, %s\n",
           report_ratio(f32, r->file_bytes, 4.0 * (double)r->source->parameters, "F32"),
           report_ratio(source, r->file_bytes, (double)r->source->file_bytes, "the source"));
    printf("  bits per weight  %.3f in the matrices of the blocks, %.3f in the whole file\n",
           matrix_bits(r), bits_per_weight(r));
}

/* The columns that all tables share: bits and errors. */
static void print_losses(const struct compress_report *r, const struct compress_sums *t)
{
    printf(" %9.3f", compress_sums_bits(t));
    if (r->calibration && t->loss > 0)
        printf(" %10.5f %10.5f %10.5f", t->rounded, t->fed, t->loss);
    else if (r->calibration) /* embeddings and head are rounded, with no curvature */
        printf(" %32s", "");
    printf(" %10.6f", t->error);
}

static void print_heads(const struct compress_report *r, const char *first)
{
    printf("  %-12s %8s %9s", first, "matrices", "bits");
    if (r->calibration)
        printf(" %10s %10s %10s", "rounded", "fed back", "loss");
    printf(" %10s\n", "error");
}

/* Of which form the matrices are: lengths of codes, and what stands beside them. */
static void print_forms(const struct compress_sums *t)
{
    if (t->d_low < t->d_high)
        printf("   %u to %u weights a byte", t->d_low, t->d_high);
    else if (t->d_high > 0)
        printf("   %u weights a byte", t->d_high);
    const char *between = t->d_high > 0 ? ", " : "   ";
    for (int m = UNIT_CODE + 1; m <= UNIT_Q1_0; m++) {
        if (t->of[m] == 0)
            continue;
        printf("%s%u %s", between, t->of[m], form_name((enum unit_method)m));
        between = ", ";
    }
}

/* One line per kind of matrix. */
static void print_kind(const struct compress_report *r, enum tensor_kind kind)
{
    struct compress_sums t = sums(r, (int)kind, SUMS_ALL);
    if (t.matrices == 0)
        return;
    printf("  %-12s %8u", model_rule(kind)->label, t.matrices);
    print_losses(r, &t);
    if (t.d_high > 0 || (is_code(r) && model_rule(kind)->per_block))
        print_forms(&t);
    printf("\n");
}

/* One line per block, and one for all. */
static void print_blocks(const struct compress_report *r)
{
    print_heads(r, "block");
    for (uint32_t b = 0; b < r->source->config.block_count; b++) {
        struct compress_sums t = sums(r, SUMS_ALL, b);
        printf("  %-12u %8u", b, t.matrices);
        print_losses(r, &t);
        printf("   %.2f s\n", t.seconds);
    }
    struct compress_sums all = sums(r, SUMS_ALL, SUMS_ALL);
    printf("  %-12s %8u", "all", all.matrices);
    print_losses(r, &all);
    printf("   %.2f s\n", all.seconds);
}

/* One line per reason. */
static void print_notes(const struct compress_report *r)
{
    for (uint32_t i = 0; i < r->n; i++) {
        const struct plan_unit *u = &r->units[i];
        uint32_t same = 0;
        bool first = u->why[0] != '\0';
        for (uint32_t k = 0; k < r->n; k++) {
            bool alike = strcmp(r->units[k].why, u->why) == 0;
            same += alike;
            first = first && !(alike && k < i);
        }
        if (first)
            printf("  note: %u matri%s: %s\n", same, same == 1 ? "x" : "ces", u->why);
    }
}

/* What a great loss means, as text of its own; NULL when there is none. The caller's, free. */
static char *loss_hint(const struct compress_report *r)
{
    char *text = NULL;
    struct compress_sums t = sums(r, SUMS_ALL, SUMS_ALL);
    double loss = r->calibration ? t.loss : t.error;
    if (loss > GREAT_LOSS &&
        asprintf(&text,
                 "%.0f %% of the energy of what the matrices %s is lost%s: expect a clear loss of "
                 "quality; measure it with sbit eval %s --text FILE --against %s",
                 100 * loss, r->calibration ? "compute" : "hold",
                 r->calibration ? "" : " (uncalibrated)", r->output, r->source->path) < 0)
        return NULL;
    return text;
}

/* What a short calibration text means, in the same way. */
static char *text_hint(const struct compress_report *r)
{
    char *text = NULL;
    if (r->calibration && r->calibration->tokens < CALIBRATION_FEW &&
        asprintf(&text,
                 "the calibration text had only %llu tokens, which say little about what the model "
                 "computes with",
                 (unsigned long long)r->calibration->tokens) < 0)
        return NULL;
    return text;
}

static void print_hint(char *hint)
{
    if (hint)
        printf("  note: %s\n", hint);
    free(hint);
}

static void print_ranks(const struct compress_report *r, const struct cluster *c)
{
    printf("  %.2f s on %d rank%s, peak RSS", r->seconds, c->size, c->size == 1 ? "" : "s");
    for (int i = 0; i < c->size; i++)
        printf("%s %.1f", i ? "," : "", (double)c->stats[i].peak_rss_bytes / (1 << 20));
    printf(" MiB\n");
}

void compress_report_print(const struct compress_report *r, const struct cluster *c)
{
    print_sizes(r);
    print_heads(r, "kind");
    for (int k = 0; k < KIND_COUNT; k++)
        print_kind(r, (enum tensor_kind)k);
    print_blocks(r);
    print_notes(r);
    print_ranks(r, c);
    print_hint(text_hint(r));
    print_hint(loss_hint(r));
}

static void set_losses(json_t *row, double rounded, double fed, double loss)
{
    json_object_set_new(row, "loss_rounded", json_real(rounded));
    json_object_set_new(row, "loss_fed", json_real(fed));
    json_object_set_new(row, "loss", json_real(loss));
}

static json_t *matrices_json(const struct compress_report *r)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < r->n; i++) {
        const struct plan_unit *u = &r->units[i];
        const struct compress_result *result = &r->results[i];
        if (u->vector)
            continue;
        double bits = 8.0 * (double)u->form.bytes / (double)(u->rows * u->cols);
        double error = result->weight2 > 0 ? result->error2 / result->weight2 : 0;
        json_t *row = json_pack("{s:s, s:s, s:i, s:f, s:f, s:f}", "name", u->name, "type",
                                form_name(u->method), "d", (int)u->d, "bits", bits, "error", error,
                                "seconds", result->seconds);
        if (r->calibration && plan_is_matrix(u))
            set_losses(row, compress_relative(result, result->rounded),
                       compress_relative(result, result->fed),
                       compress_relative(result, result->final));
        json_array_append_new(list, row);
    }
    return list;
}

static json_t *blocks_json(const struct compress_report *r)
{
    json_t *list = json_array();
    for (uint32_t b = 0; b < r->source->config.block_count; b++) {
        struct compress_sums t = sums(r, SUMS_ALL, b);
        json_t *row = json_pack("{s:I, s:f, s:f, s:f}", "block", (json_int_t)b, "bits",
                                compress_sums_bits(&t), "error", t.error, "seconds", t.seconds);
        if (r->calibration)
            set_losses(row, t.rounded, t.fed, t.loss);
        json_array_append_new(list, row);
    }
    return list;
}

static void set_calibration(json_t *root, const struct compress_report *r)
{
    char hash[24];
    if (!r->calibration)
        return;
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)r->calibration->hash);
    json_object_set_new(root, "loss", json_real(sums(r, SUMS_ALL, SUMS_ALL).loss));
    json_object_set_new(root, "recipe", json_string(r->calibration->recipe));
    json_object_set_new(root, "calibration",
                        json_pack("{s:I, s:I, s:s}", "tokens", (json_int_t)r->calibration->tokens,
                                  "context", (json_int_t)r->calibration->context, "hash", hash));
}

static void add_hint(json_t *list, char *hint)
{
    if (hint)
        json_array_append_new(list, json_string(hint));
    free(hint);
}

static json_t *notes_json(const struct compress_report *r)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < r->n; i++)
        if (r->units[i].why[0])
            json_array_append_new(list, json_sprintf("%s: %s", r->units[i].name, r->units[i].why));
    add_hint(list, text_hint(r));
    add_hint(list, loss_hint(r));
    return list;
}

enum status compress_report_json(const struct compress_report *r, const struct cluster *c,
                                 json_t **out, struct error *e)
{
    json_t *ranks;
    TRY(cluster_ranks_json(c, &ranks, e));
    *out = json_pack("{s:s, s:s, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:s, s:b, s:i, s:o, "
                     "s:o, s:o, s:o}",
                     "model", r->source->path, "output", r->output, "file_bytes",
                     (json_int_t)r->file_bytes, "source_bytes", (json_int_t)r->source->file_bytes,
                     "parameters", (json_int_t)r->source->parameters, "ratio_f32", ratio_f32(r),
                     "ratio_source", ratio_source(r), "bits_per_weight", bits_per_weight(r),
                     "matrix_bits_per_weight", matrix_bits(r), "error",
                     sums(r, SUMS_ALL, SUMS_ALL).error, "seconds", r->seconds, "method",
                     r->settings->method, "over_budget", (int)r->totals->over_budget, "files",
                     (int)r->files, "notes", notes_json(r), "matrices", matrices_json(r), "blocks",
                     blocks_json(r), "ranks", ranks);
    FAIL_IF(!*out, e, ERR_MEMORY, "the report cannot be put into JSON");
    if (is_code(r))
        json_object_set_new(*out, "bits_asked", json_real(r->settings->bits));
    set_calibration(*out, r);
    return OK;
}
