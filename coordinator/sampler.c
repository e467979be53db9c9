/* Sampling as sampler.h describes it. */
#include "coordinator/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/exactmath.h"
#include "common/mem.h"

static uint64_t rotate(uint64_t x, int k)
{
    return x << k | x >> (64 - k);
}

/* xoshiro256** */
static uint64_t next_random(uint64_t s[4])
{
    uint64_t result = rotate(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return result;
}

/* splitmix64 */
static void seed_state(uint64_t state[4], uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        state[i] = z ^ z >> 31;
    }
}

enum status sampler_init(struct sampler *s, const struct sampler_config *config, uint32_t vocab,
                         struct error *e)
{
    *s = (struct sampler){.config = *config, .vocab = vocab};
    seed_state(s->state, config->seed);
    return mem_array(&s->candidates, vocab, sizeof *s->candidates, "candidates of the sampler", e);
}

void sampler_free(struct sampler *s)
{
    free(s->candidates);
    s->candidates = NULL;
}

void sampler_accept(struct sampler *s, uint32_t id)
{
    s->recent[s->seen++ % SAMPLER_RECENT] = id;
}

void sampler_forget(struct sampler *s)
{
    s->seen = 0;
}

/* Penalises each recent token once, however often it occurs. */
static void penalise(struct sampler *s)
{
    uint64_t n = s->seen < SAMPLER_RECENT ? s->seen : SAMPLER_RECENT;
    for (uint64_t i = 0; i < n; i++) {
        bool again = false;
        for (uint64_t j = 0; j < i; j++)
            again = again || s->recent[j] == s->recent[i];
        if (again || s->recent[i] >= s->vocab)
            continue;
        double *logit = &s->candidates[s->recent[i]].logit;
        *logit = *logit > 0 ? *logit / s->config.repeat_penalty : *logit * s->config.repeat_penalty;
    }
}

static bool likelier(const struct candidate *a, const struct candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static int compare(const void *a, const void *b)
{
    return likelier(a, b) ? -1 : 1;
}

static void swap(struct candidate *a, struct candidate *b)
{
    struct candidate t = *a;
    *a = *b;
    *b = t;
}

/* Restores the heap of n candidates, the least likely on top, below place i. */
static void sift_down(struct candidate *heap, uint32_t n, uint32_t i)
{
    for (uint64_t child; (child = 2 * (uint64_t)i + 1) < n; i = (uint32_t)child) {
        if (child + 1 < n && likelier(&heap[child], &heap[child + 1]))
            child++;
        if (!likelier(&heap[i], &heap[child]))
            return;
        swap(&heap[i], &heap[child]);
    }
}

/* The k likeliest candidates to the front, likeliest first; returns how many there are. */
static uint32_t keep_top_k(struct candidate *c, uint32_t n, uint32_t k)
{
    if (k == 0 || k > n)
        k = n;
    if (k < n) { /* a heap of k, much smaller than the vocabulary */
        for (uint32_t i = k / 2; i-- > 0;)
            sift_down(c, k, i);
        for (uint32_t i = k; i < n; i++) {
            if (likelier(&c[i], &c[0])) {
                swap(&c[i], &c[0]);
                sift_down(c, k, 0);
            }
        }
    }
    qsort(c, k, sizeof *c, compare);
    return k;
}

/* weight = exp((logit - largest) / temp); returns their sum. The first candidate is likeliest. */
static double weigh(struct candidate *c, uint32_t n, double temp)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += c[i].weight = exact_exp((c[i].logit - c[0].logit) / temp);
    return sum;
}

/* How many of the first n candidates make up share p of the sum; at least one. */
static uint32_t keep_top_p(const struct candidate *c, uint32_t n, double sum, double p)
{
    double reached = 0;
    for (uint32_t i = 0; i < n; i++) {
        reached += c[i].weight;
        if (reached >= p * sum)
            return i + 1;
    }
    return n;
}

static uint32_t keep_min_p(const struct candidate *c, uint32_t n, double min_p)
{
    uint32_t kept = 1;
    while (kept < n && c[kept].weight >= min_p * c[0].weight)
        kept++;
    return kept;
}

static uint32_t likeliest(const struct candidate *c, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++) {
        if (c[i].logit > c[best].logit)
            best = i;
    }
    return best;
}

static uint32_t draw(struct sampler *s, uint32_t n)
{
    const struct candidate *c = s->candidates;
    double sum = weigh(s->candidates, n, s->config.temp);
    double u = (double)(next_random(s->state) >> 11) * 0x1p-53 * sum, reached = 0;
    for (uint32_t i = 0; i + 1 < n; i++) {
        reached += c[i].weight;
        if (u < reached)
            return c[i].id;
    }
    return c[n - 1].id;
}

/* The largest of n logits, of equals the first; NaN counts as minus infinity. */
static uint32_t largest(const float *logits, uint32_t n)
{
    uint32_t best = 0;
    float most = -INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        if (logits[i] > most) {
            most = logits[i];
            best = i;
        }
    }
    return best;
}

uint32_t sampler_pick(struct sampler *s, const float *logits)
{
    struct candidate *c = s->candidates;
    uint32_t n = s->vocab;
    if (s->config.temp == 0 && s->config.repeat_penalty == 1)
        return largest(logits, n);
    for (uint32_t i = 0; i < n; i++)
        c[i] =
            (struct candidate){.id = i, .logit = isnan(logits[i]) ? -INFINITY : (double)logits[i]};
    if (s->config.repeat_penalty != 1)
        penalise(s);
    if (s->config.temp == 0)
        return likeliest(c, n);
    n = keep_top_k(c, n, s->config.top_k);
    if (!isfinite(c[0].logit)) /* nothing to compare with: differences would not be numbers */
        return c[0].id;
    double sum = weigh(c, n, 1);
    if (s->config.top_p < 1)
        n = keep_top_p(c, n, sum, s->config.top_p);
    n = keep_min_p(c, n, s->config.min_p);
    return draw(s, n);
}
