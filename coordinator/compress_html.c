/* The report as a page: tables, and plots as inline SVG. Nothing is fetched from anywhere. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/mem.h"
#include "coordinator/compress_report.h"
#include "coordinator/compress_sums.h"

enum { WIDTH = 720, HEIGHT = 300, LEFT = 60, RIGHT = 90, TOP = 16, BOTTOM = 40, TICKS_MAX = 12 };

struct line { /* of a plot: one kind of matrix */
    enum tensor_kind kind;
    double *y; /* [blocks]; 0: nothing there */
};

struct plot {
    const char *title, *unit;
    bool logarithmic;
    uint32_t blocks;
    double low, high;
};

static const char *const colours[KIND_COUNT] = {
    [KIND_Q] = "#1f77b4",    [KIND_K] = "#17becf",  [KIND_V] = "#2ca02c",    [KIND_O] = "#9467bd",
    [KIND_GATE] = "#e377c2", [KIND_UP] = "#ff7f0e", [KIND_DOWN] = "#d62728",
};

static void put_text(FILE *f, const char *text)
{
    for (; *text; text++) {
        switch (*text) {
        case '<':
            fputs("&lt;", f);
            break;
        case '>':
            fputs("&gt;", f);
            break;
        case '&':
            fputs("&amp;", f);
            break;
        default:
            fputc((unsigned char)*text < 0x20 ? ' ' : *text, f);
        }
    }
}

static double place_x(const struct plot *p, uint32_t block)
{
    double share = p->blocks > 1 ? (double)block / (p->blocks - 1) : 0.5;
    return LEFT + share * (WIDTH - LEFT - RIGHT);
}

static double place_y(const struct plot *p, double y)
{
    double share = p->logarithmic ? log(y / p->low) / log(p->high / p->low)
                                  : (y - p->low) / (p->high - p->low);
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM);
}

/* The next number 1, 2 or 5 times a power of ten at or below y (above, with up). */
static double round_tick(double y, bool up)
{
    static const double steps[] = {1, 2, 5, 10};
    double power = pow(10, floor(log10(y))), best = power;
    for (int i = 0; i < 4; i++) {
        if (up && steps[i] * power >= y)
            return steps[i] * power;
        if (steps[i] * power <= y)
            best = steps[i] * power;
    }
    return best;
}

/* Limits around all values: whole ticks, or from 0 up. */
static void choose_limits(struct plot *p, const struct line *lines, int n)
{
    double low = INFINITY, high = 0;
    for (int i = 0; i < n; i++) {
        for (uint32_t b = 0; b < p->blocks; b++) {
            double y = lines[i].y[b];
            if (y > 0)
                low = fmin(low, y);
            high = fmax(high, y);
        }
    }
    if (high <= 0)
        low = high = 1;
    p->low = p->logarithmic ? round_tick(low, false) : 0;
    p->high = p->logarithmic ? round_tick(high, true) : high * 1.1;
    if (p->high <= p->low)
        p->high = 10 * p->low;
}

/* A horizontal line with its number. */
static void put_tick(FILE *f, const struct plot *p, double y)
{
    double at = place_y(p, y);
    fprintf(f,
            "<line class=grid x1=%d x2=%d y1=%.1f y2=%.1f /><text class=tick x=%d y=%.1f "
            "text-anchor=end>%g</text>\n",
            LEFT, WIDTH - RIGHT, at, at, LEFT - 6, at + 4, y);
}

static void put_axes(FILE *f, const struct plot *p)
{
    double step = round_tick(p->high / TICKS_MAX, true);
    double y = p->low;
    while (y <= p->high * 1.0001) {
        put_tick(f, p, y);
        y = p->logarithmic ? round_tick(y * 1.5, true) : y + step;
    }
    uint32_t every = (p->blocks + TICKS_MAX - 1) / TICKS_MAX;
    for (uint32_t b = 0; b < p->blocks; b += every)
        fprintf(f, "<text class=tick x=%.1f y=%d text-anchor=middle>%u</text>\n", place_x(p, b),
                HEIGHT - BOTTOM + 16, b);
    fprintf(f, "<text class=tick x=%d y=%d text-anchor=middle>block</text>\n",
            (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6);
}

static void put_line(FILE *f, const struct plot *p, const struct line *l, int number)
{
    const char *colour = colours[l->kind] ? colours[l->kind] : "#7f7f7f";
    bool first = true;
    fprintf(f, "<path fill=none stroke=\"%s\" stroke-width=2 d=\"", colour);
    for (uint32_t b = 0; b < p->blocks; b++) {
        if (l->y[b] <= 0)
            continue;
        fprintf(f, "%c%.1f %.1f", first ? 'M' : 'L', place_x(p, b), place_y(p, l->y[b]));
        first = false;
    }
    fputs("\" />\n", f);
    for (uint32_t b = 0; b < p->blocks; b++)
        if (l->y[b] > 0)
            fprintf(f,
                    "<circle cx=%.1f cy=%.1f r=3 fill=\"%s\"><title>block %u, %s: %.4g</title>"
                    "</circle>\n",
                    place_x(p, b), place_y(p, l->y[b]), colour, b, model_rule(l->kind)->label,
                    l->y[b]);
    fprintf(f, "<text x=%d y=%d fill=\"%s\">%s</text>\n", WIDTH - RIGHT + 12,
            TOP + 12 + 18 * number, colour, model_rule(l->kind)->label);
}

static void put_plot(FILE *f, struct plot *p, const struct line *lines, int n)
{
    choose_limits(p, lines, n);
    fprintf(f, "<h2>%s</h2>\n<svg viewBox=\"0 0 %d %d\" role=img aria-label=\"%s\">\n", p->title,
            WIDTH, HEIGHT, p->title);
    put_axes(f, p);
    for (int i = 0; i < n; i++)
        put_line(f, p, &lines[i], i);
    fprintf(f, "</svg>\n<p class=note>%s</p>\n", p->unit);
}

typedef double plot_value(const struct compress_report *r, const struct compress_sums *s);

static double value_error(const struct compress_report *r, const struct compress_sums *s)
{
    return r->calibration ? s->loss : s->error;
}

static double value_bits(const struct compress_report *r, const struct compress_sums *s)
{
    (void)r;
    return compress_sums_bits(s);
}

/* Fills lines [KIND_COUNT] with the kinds that there are; returns how many. y [KIND_COUNT][blocks].
 * */
static int gather(const struct compress_report *r, plot_value *value, struct line *lines, double *y)
{
    uint32_t blocks = r->source->config.block_count;
    int n = 0;
    for (int k = 0; k < KIND_COUNT; k++) {
        bool there = false;
        lines[n] = (struct line){(enum tensor_kind)k, y + (size_t)n * blocks};
        for (uint32_t b = 0; b < blocks; b++) {
            struct compress_sums s = compress_sums_of(r->units, r->results, r->n, k, b);
            lines[n].y[b] = s.matrices ? value(r, &s) : 0;
            there = there || s.matrices;
        }
        n += there;
    }
    return n;
}

static enum status put_plots(FILE *f, const struct compress_report *r, struct error *e)
{
    struct line lines[KIND_COUNT + 1];
    double *y;
    uint32_t blocks = r->source->config.block_count;
    struct plot error = {.title = r->calibration ? "Loss by depth" : "Error by depth",
                         .unit = r->calibration
                                     ? "Share of the energy of a matrix's outputs on the "
                                       "calibration text that is lost."
                                     : "Share of the weights' squares that is lost.",
                         .logarithmic = true,
                         .blocks = blocks};
    struct plot bits = {.title = "Bits by depth",
                        .unit = "All stored bits of a matrix, scales included, over its weights.",
                        .blocks = blocks};
    TRY(mem_array(&y, (size_t)(KIND_COUNT + 1) * blocks, sizeof *y, "plots", e));
    put_plot(f, &error, lines, gather(r, value_error, lines, y));
    put_plot(f, &bits, lines, gather(r, value_bits, lines, y));
    free(y);
    return OK;
}

static void put_heads(FILE *f, const struct compress_report *r, const char *first,
                      const char *second)
{
    fprintf(f, "<table><tr><th>%s<th>%s<th>bits%s<th>error<th>seconds</tr>\n", first, second,
            r->calibration ? "<th>rounded<th>fed back<th>loss" : "");
}

static void put_numbers(FILE *f, const struct compress_report *r, const struct compress_sums *s)
{
    fprintf(f, "<td>%.3f", compress_sums_bits(s));
    if (r->calibration)
        fprintf(f, "<td>%.5f<td>%.5f<td>%.5f", s->rounded, s->fed, s->loss);
    fprintf(f, "<td>%.6f<td>%.2f</tr>\n", s->error, s->seconds);
}

static void put_groups(FILE *f, const struct compress_report *r)
{
    fputs("<h2>Kinds</h2>\n", f);
    put_heads(f, r, "kind", "matrices");
    for (int k = 0; k < KIND_COUNT; k++) {
        struct compress_sums s = compress_sums_of(r->units, r->results, r->n, k, SUMS_ALL);
        if (s.matrices == 0)
            continue;
        fprintf(f, "<tr><td>%s<td>%u", model_rule((enum tensor_kind)k)->label, s.matrices);
        put_numbers(f, r, &s);
    }
    fputs("</table>\n<h2>Blocks</h2>\n", f);
    put_heads(f, r, "block", "matrices");
    for (int64_t b = 0; b <= r->source->config.block_count; b++) {
        bool all = b == r->source->config.block_count;
        struct compress_sums s =
            compress_sums_of(r->units, r->results, r->n, SUMS_ALL, all ? SUMS_ALL : b);
        if (all)
            fprintf(f, "<tr><td>all<td>%u", s.matrices);
        else
            fprintf(f, "<tr><td>%d<td>%u", (int)b, s.matrices);
        put_numbers(f, r, &s);
    }
    fputs("</table>\n", f);
}

static void put_matrices(FILE *f, const struct compress_report *r)
{
    fputs("<details><summary>Every matrix</summary>\n", f);
    put_heads(f, r, "matrix", "type");
    for (uint32_t i = 0; i < r->n; i++) {
        const struct plan_unit *u = &r->units[i];
        if (u->vector)
            continue;
        struct compress_sums s = compress_sums_of(u, &r->results[i], 1, (int)u->kind, SUMS_ALL);
        fputs("<tr><td>", f);
        put_text(f, u->name);
        fprintf(f, "<td>%s", form_name(u->method));
        if (u->d)
            fprintf(f, ", %u a byte", u->d);
        put_numbers(f, r, &s);
    }
    fputs("</table></details>\n", f);
}

static void put_ranks(FILE *f, const struct cluster *c)
{
    fputs("<h2>Ranks</h2>\n<table><tr><th>rank<th>host<th>peak MiB<th>compute s<th>wait s"
          "<th>sent MiB</tr>\n",
          f);
    for (int i = 0; i < c->size; i++) {
        const struct msg_stats *s = &c->stats[i];
        fprintf(f, "<tr><td>%d<td>", i);
        put_text(f, s->host);
        fprintf(f, "<td>%.1f<td>%.2f<td>%.2f<td>%.2f</tr>\n", (double)s->peak_rss_bytes / (1 << 20),
                s->compute_s, s->wait_s, (double)s->sent_bytes / (1 << 20));
    }
    fputs("</table>\n", f);
}

static void put_summary(FILE *f, const struct compress_report *r)
{
    char ratio[128];
    double matrix_bits = 8.0 * (double)r->totals->matrix_bytes / (double)r->totals->matrix_weights;
    double f32 = 4.0 * (double)r->source->parameters;
    fputs("<h1>", f);
    put_text(f, r->output);
    fputs("</h1>\n<p>", f);
    put_text(f, r->source->path);
    fprintf(f,
            ", %.2f million parameters, by method %s in %.2f s: %.2f MB, %s; %.3f bits per weight "
            "in the matrices of the blocks, %.3f in the whole file.</p>\n",
            (double)r->source->parameters / 1e6, r->settings->method, r->seconds,
            (double)r->file_bytes / 1e6, report_ratio(ratio, r->file_bytes, f32, "F32"),
            matrix_bits, 8.0 * (double)r->file_bytes / (double)r->source->parameters);
    if (r->calibration)
        fprintf(f, "<p>Calibrated on %llu tokens in windows of %u; recipe %s.</p>\n",
                (unsigned long long)r->calibration->tokens, r->calibration->context,
                r->calibration->recipe);
}

static const char head[] =
    "<!DOCTYPE html>\n<html lang=en><meta charset=utf-8>\n"
    "<meta name=viewport content=\"width=device-width\">\n<title>sbit compress</title>\n<style>\n"
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;"
    "background:#fff;color:#222}\n"
    "h1{font-size:1.4em;overflow-wrap:anywhere}h2{font-size:1.1em;margin-top:2em}\n"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}\n"
    "th,td{padding:.15em .8em;text-align:right;border-bottom:1px solid #ddd}\n"
    "th:first-child,td:first-child{text-align:left}\n"
    "svg{width:100%;height:auto;font:12px system-ui,sans-serif}\n"
    ".grid{stroke:#ddd}.tick,.note{fill:#666;color:#666}summary{margin-top:2em;cursor:pointer}\n"
    "</style>\n<body>\n";

static enum status put_page(FILE *f, const struct compress_report *r, const struct cluster *c,
                            struct error *e)
{
    fputs(head, f);
    put_summary(f, r);
    TRY(put_plots(f, r, e));
    put_groups(f, r);
    put_matrices(f, r);
    put_ranks(f, c);
    fputs("</body></html>\n", f);
    return OK;
}

enum status compress_report_html(const struct compress_report *r, const struct cluster *c,
                                 char **page, size_t *size, struct error *e)
{
    *page = NULL;
    FILE *f = open_memstream(page, size);
    FAIL_IF(!f, e, ERR_MEMORY, "out of memory: the report as a page");
    enum status status = put_page(f, r, c, e);
    bool good = fclose(f) == 0;
    if (status == OK && !good)
        status = error_set(e, ERR_MEMORY, "out of memory: the report as a page");
    if (status != OK) {
        free(*page);
        *page = NULL;
    }
    return status;
}
