/* Runs to rows. Must never know models or kernels. */
#include "worker/rows.h"

#include <string.h>

enum status rows_check(const struct run *runs, uint32_t n_runs, const struct rows_limits *limits,
                       uint32_t *rows, struct error *e)
{
    uint64_t total = 0;
    FAIL_IF(n_runs == 0 || n_runs > WIRE_RUNS_MAX, e, ERR_PEER, "a micro-batch has %u runs",
            n_runs);
    for (uint32_t i = 0; i < n_runs; i++) {
        const struct run *r = &runs[i];
        FAIL_IF(r->count == 0 || r->logits > r->count, e, ERR_PEER,
                "run %u of a micro-batch has %u tokens and wants logits of %u", i, r->count,
                r->logits);
        FAIL_IF(r->sequence >= limits->sequences, e, ERR_PEER,
                "run %u of a micro-batch is of sequence %u, but there are %u", i, r->sequence,
                limits->sequences);
        FAIL_IF((uint64_t)r->position + r->count > limits->context, e, ERR_PEER,
                "run %u of a micro-batch ends at position %llu, beyond the context of %u", i,
                (unsigned long long)r->position + r->count, limits->context);
        total += r->count;
    }
    FAIL_IF(total > limits->batch, e, ERR_PEER,
            "a micro-batch has %llu rows, at most %u were agreed", (unsigned long long)total,
            limits->batch);
    *rows = (uint32_t)total;
    return OK;
}

void rows_expand(const struct run *runs, uint32_t n_runs, struct row *out)
{
    for (uint32_t i = 0; i < n_runs; i++)
        for (uint32_t j = 0; j < runs[i].count; j++)
            *out++ = (struct row){runs[i].sequence, runs[i].position + j};
}

uint32_t rows_wanted(const struct run *runs, uint32_t n_runs, uint32_t *out)
{
    uint32_t row = 0, n = 0;
    for (uint32_t i = 0; i < n_runs; i++) {
        row += runs[i].count;
        for (uint32_t j = runs[i].logits; j > 0; j--)
            out[n++] = row - j;
    }
    return n;
}

void rows_trim(struct msg_hidden *h, float *x)
{
    size_t cols = h->cols;
    uint32_t row = 0, kept = 0, n_runs = 0;
    for (uint32_t i = 0; i < h->n_runs; i++) {
        struct run run = h->runs[i];
        row += run.count;
        memmove(x + kept * cols, x + (row - run.logits) * cols, run.logits * cols * sizeof *x);
        kept += run.logits;
        run.position += run.count - run.logits;
        run.count = run.logits;
        if (run.count > 0)
            h->runs[n_runs++] = run;
    }
    if (n_runs == 0) {
        h->runs[n_runs++].count = 1;
        kept = 1;
    }
    h->n_runs = n_runs;
    h->rows = kept;
}
