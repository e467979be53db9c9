/* See scales_rule.h. */
#include "tests/bench/scales_rule.h"

#include <math.h>

#include "kernels/prepare.h"
#include "kernels/reduce.h"

static uint32_t magnitude(float z)
{
    return half_float_bits(z) & 0x7fffffff;
}

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* peak[i] = the largest magnitude of z[16 i ..): what all later steps look at first. */
static void find_peaks(const float *z, int n, uint32_t *peak)
{
    for (int i = 0; i * LANES < n; i++) {
        uint32_t max = 0;
        for (int c = i * LANES; c < least(n, (i + 1) * LANES); c++)
            max = magnitude(z[c]) > max ? magnitude(z[c]) : max;
        peak[i] = max;
    }
}

/* The k-th largest |z|, or floor if that is larger. */
static float kth_largest(const float *z, int n, int k, float floor, const uint32_t *peak)
{
    float top[RULE_APART_MAX]; /* ascending */
    for (int i = 0; i < k; i++)
        top[i] = floor;
    for (int first = 0; first < n; first += LANES) {
        if (peak[first / LANES] <= magnitude(top[0]))
            continue;
        for (int c = first; c < least(n, first + LANES); c++) {
            float a = fabsf(z[c]);
            int i = 0;
            for (; i + 1 < k && top[i + 1] < a; i++)
                top[i] = top[i + 1];
            top[i] = a > top[i] ? a : top[i];
        }
    }
    return top[0];
}

/* The mean of those |z| that are not above the limit. */
static float mean(const float *z, int n, float limit)
{
    float sum[LANES] = {0}, count[LANES] = {0};
    for (int first = 0; first < n; first += LANES)
        for (int j = 0; j < least(LANES, n - first); j++) {
            float a = fabsf(z[first + j]);
            sum[j] += a <= limit ? a : 0.0f;
            count[j] += a <= limit ? 1.0f : 0.0f;
        }
    return reduce_fold(sum) / reduce_fold(count);
}

/* A channel is kept apart when |z| is above this. (Equal magnitudes may make them more
 * than the rule says.) */
static float bound(const struct rule *r, const float *z, int n, const uint32_t *peak)
{
    if (r->apart == 0)
        return INFINITY;
    float limit = r->times > 0 ? r->times * mean(z, n, INFINITY) : 0.0f;
    if (r->rest)
        limit = r->times * mean(z, n, limit);
    float least_apart = kth_largest(z, n, r->apart, limit, peak);
    return least_apart > limit ? nextafterf(least_apart, 0.0f) : limit;
}

static float group_scale(const float *z, int from, int to, uint32_t limit, const uint32_t *peak,
                         float *inverse)
{
    uint32_t max = 0;
    for (int first = from; first < to; first += LANES) {
        uint32_t all = peak[first / LANES];
        if (all <= limit)
            max = all > max ? all : max;
        for (int c = first; all > limit && c < least(to, first + LANES); c++)
            if (magnitude(z[c]) <= limit && magnitude(z[c]) > max)
                max = magnitude(z[c]);
    }
    return prepare_scale(max, inverse);
}

int rule_quantise(const struct rule *r, float *z, int n, int from, int to, uint32_t *peak)
{
    find_peaks(z, n, peak);
    uint32_t limit = magnitude(bound(r, z, n, peak));
    int apart = 0, group = r->group ? r->group : n;
    for (int first = from / group * group; first < to; first += group) {
        int end = least(n, first + group);
        float inverse, scale = group_scale(z, first, end, limit, peak, &inverse);
        for (int c = first > from ? first : from; c < least(end, to); c++) {
            float q = scale * (float)prepare_int8(z[c], inverse);
            apart += magnitude(z[c]) > limit;
            z[c] = magnitude(z[c]) > limit ? z[c] : q;
        }
    }
    return apart;
}
