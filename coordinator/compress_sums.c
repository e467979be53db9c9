#include "coordinator/compress_sums.h"

static bool chosen(const struct plan_unit *u, int kind, int64_t block)
{
    if (u->vector || (kind == SUMS_ALL ? !plan_is_matrix(u) : (int)u->kind != kind))
        return false;
    return block == SUMS_ALL || (int64_t)u->block == block;
}

double compress_relative(const struct compress_result *r, double loss)
{
    return r->signal > 0 ? loss / r->signal : 0;
}

double compress_sums_bits(const struct compress_sums *s)
{
    return s->weights ? 8.0 * (double)s->bytes / (double)s->weights : 0;
}

struct compress_sums compress_sums_of(const struct plan_unit *units,
                                      const struct compress_result *results, uint32_t n, int kind,
                                      int64_t block)
{
    struct compress_sums s = {0};
    double error2 = 0, weight2 = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct plan_unit *u = &units[i];
        const struct compress_result *r = &results[i];
        if (!chosen(u, kind, block))
            continue;
        double weights = (double)(u->rows * u->cols);
        s.matrices++;
        s.of[u->method]++;
        s.bytes += u->form.bytes;
        s.weights += u->rows * u->cols;
        s.d_low = u->d && (!s.d_low || u->d < s.d_low) ? u->d : s.d_low;
        s.d_high = u->d > s.d_high ? u->d : s.d_high;
        s.seconds += r->seconds;
        s.rounded += weights * compress_relative(r, r->rounded);
        s.fed += weights * compress_relative(r, r->fed);
        s.loss += weights * compress_relative(r, r->final);
        error2 += r->error2;
        weight2 += r->weight2;
    }
    s.error = weight2 > 0 ? error2 / weight2 : 0;
    double all = s.weights ? (double)s.weights : 1;
    s.rounded /= all;
    s.fed /= all;
    s.loss /= all;
    return s;
}
