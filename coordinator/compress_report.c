#define _GNU_SOURCE /* asprintf */
#include "coordinator/compress_report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* Relative squared error of all matrices of the blocks together. */
static double matrix_error(const struct compress_report *r)
{
    double error2 = 0, weight2 = 0;
    for (uint32_t i = 0; i < r->n; i++) {
        if (!plan_is_matrix(&r->units[i]))
            continue;
        error2 += r->results[i].error2;
        weight2 += r->results[i].weight2;
    }
    return weight2 > 0 ? error2 / weight2 : 0;
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

/* One line per kind of matrix: how many, bits, d where codes differ in it, relative squared
 * error. */
static void print_kind(const struct compress_report *r, enum tensor_kind kind)
{
    uint64_t bytes = 0, weights = 0;
    uint32_t count = 0, low = UINT32_MAX, high = 0;
    double error2 = 0, weight2 = 0;
    for (uint32_t i = 0; i < r->n; i++) {
        const struct plan_unit *u = &r->units[i];
        if (u->kind != kind || u->vector)
            continue;
        count++;
        bytes += u->form.bytes;
        weights += u->rows * u->cols;
        low = u->d < low ? u->d : low;
        high = u->d > high ? u->d : high;
        error2 += r->results[i].error2;
        weight2 += r->results[i].weight2;
    }
    if (count == 0)
        return;
    printf("  %-12s %8u %9.3f %22.6f", model_rule(kind)->label, count,
           8.0 * (double)bytes / (double)weights, weight2 > 0 ? error2 / weight2 : 0);
    if (low < high)
        printf("   %u to %u weights a byte", low, high);
    else if (high > 0)
        printf("   %u weights a byte", high);
    printf("\n");
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
    double error = matrix_error(r);
    if (error > GREAT_LOSS &&
        asprintf(&text,
                 "%.0f %% of the weights' energy is lost: expect a clear loss of quality "
                 "(uncalibrated); measure it with sbit eval %s --text FILE --against %s",
                 100 * error, r->output, r->source->path) < 0)
        return NULL;
    return text;
}

static void print_hint(const struct compress_report *r)
{
    char *hint = loss_hint(r);
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
    printf("  %-12s %8s %9s %22s\n", "kind", "matrices", "bits", "relative squared error");
    for (int k = 0; k < KIND_COUNT; k++)
        print_kind(r, (enum tensor_kind)k);
    print_notes(r);
    print_ranks(r, c);
    print_hint(r);
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
        json_array_append_new(list, json_pack("{s:s, s:s, s:i, s:f, s:f}", "name", u->name, "type",
                                              form_name(u->method), "d", (int)u->d, "bits", bits,
                                              "error", error));
    }
    return list;
}

static json_t *notes_json(const struct compress_report *r)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < r->n; i++)
        if (r->units[i].why[0])
            json_array_append_new(list, json_sprintf("%s: %s", r->units[i].name, r->units[i].why));
    char *hint = loss_hint(r);
    if (hint)
        json_array_append_new(list, json_string(hint));
    free(hint);
    return list;
}

enum status compress_report_json(const struct compress_report *r, const struct cluster *c,
                                 json_t **out, struct error *e)
{
    json_t *ranks;
    TRY(cluster_ranks_json(c, &ranks, e));
    *out = json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:s, s:b, s:i, s:o, s:o, s:o}", "model",
        r->source->path, "output", r->output, "file_bytes", (json_int_t)r->file_bytes,
        "source_bytes", (json_int_t)r->source->file_bytes, "parameters",
        (json_int_t)r->source->parameters, "ratio_f32", ratio_f32(r), "ratio_source",
        ratio_source(r), "bits_per_weight", bits_per_weight(r), "matrix_bits_per_weight",
        matrix_bits(r), "seconds", r->seconds, "method", r->settings->method, "over_budget",
        (int)r->totals->over_budget, "files", (int)r->files, "notes", notes_json(r), "matrices",
        matrices_json(r), "ranks", ranks);
    FAIL_IF(!*out, e, ERR_MEMORY, "the report cannot be put into JSON");
    if (is_code(r))
        json_object_set_new(*out, "bits_asked", json_real(r->settings->bits));
    return OK;
}
