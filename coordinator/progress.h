/* How far a long job is, on stderr: a bar with the remaining time on a terminal, now and then a
 * plain line elsewhere. Knows nothing of the job. */
#ifndef SBIT_COORDINATOR_PROGRESS_H
#define SBIT_COORDINATOR_PROGRESS_H

#include <stdbool.h>

struct progress {
    const char *what; /* "compressing"; borrowed */
    bool terminal;
    double start, shown; /* seconds (loop_now) */
    int shown_percent;
};

void progress_start(struct progress *p, const char *what);
/* fraction in 0..1, never falling. detail: what is being worked on, for the terminal. */
void progress_update(struct progress *p, double fraction, const char *detail);
/* Clears the bar. */
void progress_end(struct progress *p);

#endif
