#include "coordinator/progress.h"

#include <stdio.h>
#include <unistd.h>

#include "common/loop.h"

#define BAR_SECONDS  0.1 /* between two drawings of the bar */
#define LINE_SECONDS 2.0 /* at least, between two plain lines */

enum { BAR_WIDTH = 30, LINE_PERCENT = 10 };

void progress_start(struct progress *p, const char *what)
{
    *p = (struct progress){.what = what, .terminal = isatty(STDERR_FILENO) == 1};
    p->start = p->shown = loop_now();
}

/* "1:02:03" or "4:05" */
static const char *clock_text(double seconds, char out[32])
{
    unsigned long s = seconds > 0 && seconds < 1e9 ? (unsigned long)(seconds + 0.5) : 0;
    if (s >= 3600)
        snprintf(out, 32, "%lu:%02lu:%02lu", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, 32, "%lu:%02lu", s / 60, s % 60);
    return out;
}

static void draw_bar(const struct progress *p, double fraction, const char *left,
                     const char *detail)
{
    static const char full[] = "##############################";
    int filled = (int)(fraction * BAR_WIDTH);
    fprintf(stderr, "\r%s [%-*.*s] %3.0f %%, %s left  %-32.32s", p->what, BAR_WIDTH, filled, full,
            100 * fraction, left, detail);
    fflush(stderr);
}

void progress_update(struct progress *p, double fraction, const char *detail)
{
    double now = loop_now(), gone = now - p->start;
    int percent = (int)(100 * fraction);
    char left[32];
    if (fraction <= 0 || now - p->shown < (p->terminal ? BAR_SECONDS : LINE_SECONDS))
        return;
    clock_text(gone / fraction * (1 - fraction), left);
    if (p->terminal)
        draw_bar(p, fraction, left, detail);
    else if (percent >= p->shown_percent + LINE_PERCENT)
        fprintf(stderr, "sbit: %s: %d %%, about %s left\n", p->what, percent, left);
    else
        return;
    p->shown = now;
    p->shown_percent = percent;
}

void progress_end(struct progress *p)
{
    if (p->terminal)
        fprintf(stderr, "\r%-100s\r", "");
}
