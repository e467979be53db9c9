/* Makes common/codebook_table.c: for each d, 128 vectors of d small integers that, with their
 * negatives, quantise N(0, I_d) with the least squared error found. Run once; not part of the
 * build:
 *
 *    cc -O3 -march=native -ffast-math tools/make_codebooks.c -lm -o make_codebooks
 *    ./make_codebooks > common/codebook_table.c            (about 5 minutes on one core)
 *
 * Method: generalised Lloyd (Linde, Buzo, Gray 1980) with the sign of the codeword free; first
 * on new Gaussian samples in each iteration and with noise of falling strength added to the
 * centroids, which leaves poor local minima (stochastic relaxation: Zeger, Vaisey, Gersho 1992),
 * then on one large fixed set (4 million: with 300,000 the error on other samples was 1 % above
 * that on the set). Then the vectors are multiplied by the factor whose rounding to integers
 * costs least, kept within the limits below, and the error is measured on samples not used
 * before. tests/unit/test_quantise.c measures it again. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { K = 128, MAX_D = 16, BATCH = 300000, TRAIN = 4000000, NOISY = 400, PLAIN = 30 };
enum { MAX_SUM = 257 }; /* so that |codeword . x| <= 257 * 127 fits int16 */

static const int dims[] = {2, 3, 4, 5, 6, 8, 10, 12, 16};
static uint64_t random_state = 20240229;

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint64_t random_next(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* n independent N(0, 1), n even (Box, Muller 1958) */
static void gaussian(float *x, size_t n)
{
    for (size_t i = 0; i + 1 < n; i += 2) {
        double u = ((random_next() >> 11) + 1) * 0x1p-53, v = (random_next() >> 11) * 0x1p-53;
        double r = sqrt(-2 * log(u));
        x[i] = (float)(r * cos(2 * M_PI * v));
        x[i + 1] = (float)(r * sin(2 * M_PI * v));
    }
}

/* The nearest of the codewords +-c and the sign; *gain = 2 |x.c| - |c|^2, what it saves of
 * |x|^2. */
static int nearest(const float *x, int d, float (*ct)[K], const float *half_norm, float *gain,
                   int *negative)
{
    float dot[K] = {0};
    for (int j = 0; j < d; j++)
        for (int k = 0; k < K; k++)
            dot[k] += x[j] * ct[j][k];
    float score[K], best = -1e30f;
    int at = 0;
    for (int k = 0; k < K; k++)
        score[k] = fabsf(dot[k]) - half_norm[k];
    for (int k = 0; k < K; k++)
        best = score[k] > best ? score[k] : best;
    while (at < K - 1 && score[at] != best)
        at++;
    *negative = dot[at] < 0;
    *gain = 2 * best;
    return at;
}

static void transpose(float (*c)[MAX_D], int d, float (*ct)[K], float *half_norm)
{
    for (int k = 0; k < K; k++) {
        half_norm[k] = 0;
        for (int j = 0; j < d; j++) {
            ct[j][k] = c[k][j];
            half_norm[k] += c[k][j] * c[k][j] / 2;
        }
    }
}

/* One Lloyd iteration; returns the error before it, relative to |x|^2. */
static double lloyd(float (*c)[MAX_D], int d, const float *x, size_t n, double noise)
{
    static float ct[MAX_D][K];
    float half_norm[K];
    double sum[K][MAX_D] = {{0}}, left = 0, all = 0;
    long count[K] = {0};
    transpose(c, d, ct, half_norm);
    for (size_t i = 0; i < n; i++) {
        const float *v = x + i * d;
        float gain;
        int negative, k = nearest(v, d, ct, half_norm, &gain, &negative);
        count[k]++;
        for (int j = 0; j < d; j++) {
            all += v[j] * v[j];
            sum[k][j] += negative ? -v[j] : v[j];
        }
        left -= gain;
    }
    for (int k = 0; k < K; k++) {
        float g[MAX_D];
        gaussian(g, MAX_D);
        for (int j = 0; j < d; j++)
            c[k][j] = (count[k] ? (float)(sum[k][j] / count[k]) : c[(k + 1) % K][j]) +
                      (float)noise * g[j];
    }
    return (left + all) / all;
}

/* Rounds c * scale to integers. Returns false when a vector is over the limits. */
static int round_codebook(float (*c)[MAX_D], int d, double scale, int8_t (*q)[MAX_D])
{
    for (int k = 0; k < K; k++) {
        int sum = 0;
        for (int j = 0; j < d; j++) {
            double v = nearbyint(c[k][j] * scale);
            if (fabs(v) > 127)
                return 0;
            q[k][j] = (int8_t)v;
            sum += abs(q[k][j]);
        }
        if (sum > MAX_SUM)
            return 0;
    }
    return 1;
}

/* Error of the integers with the best single scale on n samples, and that scale. */
static double measure(int8_t (*q)[MAX_D], int d, const float *x, size_t n, double start,
                      double *scale)
{
    static float ct[MAX_D][K];
    float c[K][MAX_D], half_norm[K];
    double error = 1;
    *scale = start;
    for (int round = 0; round < 3; round++) {
        double all = 0, num = 0, den = 0;
        for (int k = 0; k < K; k++)
            for (int j = 0; j < d; j++)
                c[k][j] = q[k][j] * (float)*scale;
        transpose(c, d, ct, half_norm);
        for (size_t i = 0; i < n; i++) {
            const float *v = x + i * d;
            float gain;
            int negative, k = nearest(v, d, ct, half_norm, &gain, &negative);
            for (int j = 0; j < d; j++)
                all += v[j] * v[j];
            num += gain / 2 + half_norm[k];
            den += 2 * half_norm[k];
        }
        error = 1 - num * num / den / all;
        *scale *= num / den;
    }
    return error;
}

static double choose_scale(float (*c)[MAX_D], int d, const float *x, int8_t (*best)[MAX_D])
{
    double best_error = 2, unit = 0;
    for (double s = 100; s > 2; s *= 0.97) {
        int8_t q[K][MAX_D] = {{0}};
        double scale;
        if (!round_codebook(c, d, s, q))
            continue;
        double error = measure(q, d, x, BATCH, 1 / s, &scale);
        if (error < best_error) {
            best_error = error;
            unit = scale;
            memcpy(best, q, sizeof q);
        }
    }
    return unit;
}

static void print_codebook(int d, int8_t (*q)[MAX_D])
{
    printf("\nstatic const int8_t codewords_%d[CODEBOOK_WORDS * %d] = {\n", d, d);
    int per_line = 16 / d; /* at most 16 entries, 100 columns */
    for (int k = 0; k < K; k++) {
        printf(k % per_line ? " " : "    ");
        for (int j = 0; j < d; j++)
            printf("%d,%s", q[k][j], j + 1 < d ? " " : "");
        printf((k + 1) % per_line && k + 1 < K ? "" : "\n");
    }
    printf("};\n");
}

static void train(int d, float *x, float (*c)[MAX_D])
{
    gaussian(x, K * MAX_D);
    for (int k = 0; k < K; k++)
        for (int j = 0; j < d; j++)
            c[k][j] = x[(size_t)k * d + j] * 0.8f;
    double error = 1;
    for (int i = 0; i < NOISY; i++) {
        double t = 1 - (double)i / NOISY;
        gaussian(x, (size_t)BATCH * d);
        error = lloyd(c, d, x, BATCH, sqrt(error) * 0.4 * t * t * t);
    }
    gaussian(x, (size_t)TRAIN * d);
    for (int i = 0; i < PLAIN; i++)
        error = lloyd(c, d, x, TRAIN, 0);
    fprintf(stderr, "d %d: trained %.5f", d, error);
}

int main(void)
{
    float *x = malloc((size_t)TRAIN * MAX_D * sizeof *x);
    float c[K][MAX_D];
    double unit[9], error[9];
    if (!x)
        return 1;
    printf("/* Made by tools/make_codebooks.c; do not edit. */\n#include \"common/codebook.h\"\n");
    for (int i = 0; i < 9; i++) {
        int8_t q[K][MAX_D] = {{0}};
        int d = dims[i];
        train(d, x, c);
        unit[i] = choose_scale(c, d, x, q);
        gaussian(x, (size_t)TRAIN * d);
        error[i] = measure(q, d, x, TRAIN, unit[i], &unit[i]);
        fprintf(stderr, ", integers on fresh samples %.5f, unit %.5f\n", error[i], unit[i]);
        print_codebook(d, q);
    }
    printf("\nconst struct codebook codebook_table[CODEBOOK_COUNT] = {\n");
    for (int i = 0; i < 9; i++)
        printf("    {%d, %.5f, %.5ff, codewords_%d},\n", dims[i], error[i], unit[i], dims[i]);
    printf("};\n");
    free(x);
    return 0;
}
