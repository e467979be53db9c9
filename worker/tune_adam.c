/* Adam's two moments and their use. */
#include "worker/tune_adam.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/exactmath.h"
#include "common/mem.h"

/* The paper's, but for beta1 and eps: 0.9 takes longer to turn than a run of some dozen steps has, and
 * gradients of a mean over tokens by single rows of a large model are far below the paper's 1e-8. */
static const double beta1 = 0.8, beta2 = 0.999;
static const float eps = 1e-12f;

enum status tune_adam_create(struct tune_adam *a, size_t n, struct error *e)
{
    memset(a, 0, sizeof *a);
    a->n = n;
    TRY(mem_array(&a->m, n, sizeof *a->m, "Adam's moments", e));
    return mem_array(&a->v, n, sizeof *a->v, "Adam's moments", e);
}

void tune_adam_free(struct tune_adam *a)
{
    free(a->m);
    free(a->v);
    memset(a, 0, sizeof *a);
}

void tune_adam_begin(struct tune_adam *a)
{
    a->step++;
    a->m_scale = 1 / (1 - exact_pow(beta1, a->step));
    a->v_scale = 1 / (1 - exact_pow(beta2, a->step));
}

bool tune_adam_update(struct tune_adam *a, float *p, const float *gradient, size_t first,
                      size_t count, float rate)
{
    const float b1 = (float)beta1, b2 = (float)beta2;
    const float m_scale = (float)a->m_scale, v_scale = (float)a->v_scale;
    for (size_t i = first; i < first + count; i++)
        if (!isfinite(gradient[i]))
            return false;
    for (size_t i = first; i < first + count; i++) {
        float g = gradient[i];
        a->m[i] = b1 * a->m[i] + (1.0f - b1) * g;
        a->v[i] = b2 * a->v[i] + (1.0f - b2) * (g * g);
        p[i] -= rate * (a->m[i] * m_scale) / (sqrtf(a->v[i] * v_scale) + eps);
    }
    return true;
}

float tune_adam_rate(float rate, uint32_t step, uint32_t steps)
{
    return (float)((double)rate * (1 - (double)step / steps));
}
