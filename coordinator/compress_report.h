/* What a compression achieved: as text on stdout, as JSON, and as a page with plots. */
#ifndef SBIT_COORDINATOR_COMPRESS_REPORT_H
#define SBIT_COORDINATOR_COMPRESS_REPORT_H

#include <jansson.h>

#include "common/error.h"
#include "common/weights.h"
#include "coordinator/cluster.h"
#include "coordinator/compress_file.h"
#include "coordinator/compress_plan.h"

struct compress_report {
    const struct weights *source;
    const struct plan_settings *settings;
    const struct plan_totals *totals;
    const struct plan_unit *units;         /* [n] */
    const struct compress_result *results; /* [n] */
    uint32_t n;
    const struct compress_calibration *calibration; /* NULL: none */
    const char *output;
    uint64_t file_bytes;
    uint32_t files;
    double seconds;
};

/* The tables for people; c holds the ranks' numbers (cluster_gather_stats). */
void compress_report_print(const struct compress_report *r, const struct cluster *c);
/* Keys: file_bytes, source_bytes (both of whole files), parameters, ratio_f32, ratio_source,
 * bits_per_weight, matrix_bits_per_weight, error, seconds, method, bits_asked (code), over_budget,
 * files, notes[], matrices[] {name, type, d, bits, error, seconds}, blocks[] {block, bits, error,
 * seconds}, ranks[]. Calibrated: loss, recipe, calibration {tokens, context, hash}, and in matrices
 * and blocks loss_rounded, loss_fed, loss, the relative losses (struct compress_sums). *out is a
 * new reference. */
enum status compress_report_json(const struct compress_report *r, const struct cluster *c,
                                 json_t **out, struct error *e);
/* One self-contained page: the same numbers, and plots of error and bits by depth and kind. *page
 * is the caller's, free. Errors: ERR_MEMORY. */
enum status compress_report_html(const struct compress_report *r, const struct cluster *c,
                                 char **page, size_t *size, struct error *e);

#endif
