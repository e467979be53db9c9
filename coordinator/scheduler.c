/* The next micro-batch, from positions and counts alone. */
#include "coordinator/scheduler.h"

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* count tokens of a sequence from its position on; logits are wanted for a tail of them. */
static struct run make_run(const struct sched_sequence *s, uint32_t count)
{
    uint32_t end = s->position + count;
    uint32_t from = s->logits_from > s->position ? s->logits_from : s->position;
    return (struct run){.sequence = s->slot,
                        .position = s->position,
                        .count = count,
                        .logits = end > from ? end - from : 0};
}

/* How many decoding sequences may share a micro-batch. */
static uint32_t group_size(const struct sched_sequence *sequences, uint32_t n, uint32_t stages)
{
    uint32_t decoding = 0;
    for (uint32_t i = 0; i < n; i++)
        decoding += sequences[i].decoding;
    return (decoding + stages - 1) / stages;
}

uint32_t scheduler_next(const struct sched_sequence *sequences, uint32_t n,
                        const struct sched_limits *limits, uint32_t in_flight, struct run *runs)
{
    uint32_t n_runs = 0, room = limits->batch;
    if (in_flight >= limits->flying)
        return 0;
    uint32_t group = group_size(sequences, n, limits->stages);
    for (int decoding = 1; decoding >= 0; decoding--) {
        for (uint32_t i = 0; i < n && room > 0 && n_runs < WIRE_RUNS_MAX; i++) {
            const struct sched_sequence *s = &sequences[i];
            if (s->decoding != decoding || s->position >= s->end || (decoding && n_runs == group))
                continue;
            runs[n_runs] = make_run(s, least(room, s->end - s->position));
            room -= runs[n_runs++].count;
        }
    }
    return n_runs;
}

void scheduler_submitted(struct sched_sequence *sequences, uint32_t n, const struct run *runs,
                         uint32_t n_runs)
{
    for (uint32_t r = 0; r < n_runs; r++) {
        for (uint32_t i = 0; i < n; i++) {
            if (sequences[i].slot == runs[r].sequence)
                sequences[i].position = runs[r].position + runs[r].count;
        }
    }
}
