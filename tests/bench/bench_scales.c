/* What quantising the activations of byte-code products to int8 costs in accuracy, by the rule that
 * chooses the scales: one scale per row, one with the largest channels apart, one per group of
 * columns. Real activations of a small model, made as wide as a 7B model's rows and given massive
 * channels by a rescaling that keeps the function. Results and decision: docs/activation-scales.md.
 *
 *     bench_scales [MODEL [TEXT [WEIGHTS-PER-BYTE]]]
 *
 * MODEL is a Llama without biases. Everything is computed here in plain floats, except that the
 * rule in force is checked against the kernels and its cost measured on them. No test. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/tokenizer.h"
#include "kernels/blocks.h"
#include "tests/bench/scales_model.h"
#include "tests/bench/scales_rule.h"

#define WINDOWS 2
#define TOKENS  (WINDOWS * POSITIONS)
#define WIDTH   4096 /* hidden size that rows are widened to */
#define STRIDE  37   /* between the tokens that share a wide row; odd, so that they differ */
#define SAMPLE  8    /* every so many tokens enter the products' errors */

static const struct rule rules[] = {
    {"one scale per row", 0, 0, false, 0, true},
    {"8 apart, above 8 means", 8, 8, false, 0, false},
    {"16 apart, above 4 means", 16, 4, false, 0, false},
    {"16 apart, above 6 means", 16, 6, false, 0, false},
    {"16 apart, above 8 means", 16, 8, false, 0, false},
    {"16 apart, above 12 means", 16, 12, false, 0, false},
    {"16 apart, above 16 means", 16, 16, false, 0, false},
    {"32 apart, above 8 means", 32, 8, false, 0, true},
    {"64 apart, above 8 means", 64, 8, false, 0, true},
    {"16 apart, above 8 means of the rest", 16, 8, true, 0, true},
    {"32 apart, above 8 means of the rest", 32, 8, true, 0, true},
    {"64 apart, above 8 means of the rest", 64, 8, true, 0, true},
    {"64 apart, above 12 means of the rest", 64, 12, true, 0, true},
    {"64 apart, above 16 means of the rest", 64, 16, true, 0, true},
    {"8 largest apart", 8, 0, false, 0, false},
    {"16 largest apart", 16, 0, false, 0, false},
    {"32 largest apart", 32, 0, false, 0, false},
    {"64 largest apart", 64, 0, false, 0, false},
    {"scale per 256 columns", 0, 0, false, 256, false},
    {"scale per 128 columns", 0, 0, false, 128, true},
    {"scale per 64 columns", 0, 0, false, 64, false},
    {"scale per 32 columns", 0, 0, false, 32, true},
};
#define RULES   (sizeof rules / sizeof *rules)
#define CURRENT 13 /* the rule in force */

/* Massive channels */

struct massive {
    const char *name;
    int count;       /* channels, spread evenly over the row */
    float low, high; /* their factors, from the first to the last */
    bool first_only; /* only at the first token of a text; for the whole model */
};

/* Multiplies the channels of z[n] by their factors, or divides again. */
static void rescale(const struct massive *m, float *z, int n, bool back)
{
    for (int i = 0; i < m->count; i++) {
        float part = m->count > 1 ? (float)i / (float)(m->count - 1) : 0.0f;
        float factor = m->low * powf(m->high / m->low, part);
        size_t c = ((size_t)i * 2 + 1) * (size_t)n / ((size_t)m->count * 2);
        z[c] *= back ? 1.0f / factor : factor;
    }
}

/* One model and text, and what is being tried on it */

struct trial {
    enum set set;
    const struct rule *rule; /* NULL: float activations */
    const struct massive *massive;
    bool record; /* makes seen and reference */
};

struct study {
    struct lab lab;
    uint32_t ids[TOKENS];
    float *(*seen)[INPUTS]; /* [blocks][INPUTS], each [TOKENS][cols]: inputs of the coded weights */
    float *reference;       /* [TOKENS][vocab] log probabilities with float activations */
    float *z, *was;         /* a wide row */
    uint32_t *peak;
    const struct trial *trial;
    int window;
};

static int columns(const struct study *s, enum input in)
{
    return s->lab.block[0].code[lab_first_matrix[in]].cols;
}

static float *seen(const struct study *s, int b, enum input in, int token)
{
    return s->seen[b][in] + (size_t)token * (size_t)columns(s, in);
}

/* s->z = x of this token with those of other tokens beside it, WIDTH / hidden in all. *at: where x
 * begins. Returns columns. */
static int widen(struct study *s, int b, enum input in, int token, const float *x, int *at)
{
    int cols = columns(s, in), pieces = WIDTH / (int)s->lab.c->hidden;
    int mine = (token + 5 * b + 11 * (int)in) % pieces;
    for (int j = 0; j < pieces; j++) {
        int other = (token + STRIDE * (j - mine + pieces)) % TOKENS;
        memcpy(s->z + (size_t)j * (size_t)cols, j == mine ? x : seen(s, b, in, other),
               (size_t)cols * sizeof *x);
    }
    *at = mine * cols;
    return cols * pieces;
}

/* lab_input_fn: the rows become what the trial's rule leaves of them. */
static void treat(void *self, int b, enum input in, float *x)
{
    struct study *s = self;
    const struct trial *t = s->trial;
    size_t cols = (size_t)columns(s, in);
    for (int p = 0; p < POSITIONS; p++, x += cols) {
        int at, token = s->window * POSITIONS + p;
        bool massive = t->massive && (p == 0 || !t->massive->first_only);
        if (t->record)
            memcpy(seen(s, b, in, token), x, cols * sizeof *x);
        if (!t->rule)
            continue;
        int n = widen(s, b, in, token, x, &at);
        if (massive)
            rescale(t->massive, s->z, n, false);
        rule_quantise(t->rule, s->z, n, at, at + (int)cols, s->peak);
        if (massive)
            rescale(t->massive, s->z, n, true);
        memcpy(x, s->z + at, cols * sizeof *x);
    }
}

struct score {
    double perplexity, kl; /* kl: from the reference */
};

static struct score run(struct study *s, const struct trial *t)
{
    size_t vocab = s->lab.c->vocab;
    double nll = 0, kl = 0;
    s->trial = t;
    for (s->window = 0; s->window < WINDOWS; s->window++) {
        const uint32_t *ids = s->ids + s->window * POSITIONS;
        float *mine = s->lab.logits;
        float *right = s->reference + (size_t)s->window * POSITIONS * vocab;
        lab_forward(&s->lab, t->set, ids, treat, s);
        if (t->record)
            memcpy(right, mine, POSITIONS * vocab * sizeof *mine);
        for (size_t p = 0; p + 1 < POSITIONS; p++)
            nll -= (double)mine[p * vocab + ids[p + 1]];
        for (size_t i = 0; i < POSITIONS * vocab; i++)
            kl += (double)(expf(right[i]) * (right[i] - mine[i]));
    }
    return (struct score){exp(nll / (WINDOWS * (POSITIONS - 1))), kl / TOKENS};
}

/* Errors of single products */

struct sums {
    double error2[INPUTS], value2[INPUTS], apart, rows;
};

/* A wide row is multiplied by [W -W W W ...]: the pieces may be added before. */
static void one_row(struct study *s, const struct rule *r, const struct massive *m, int b,
                    enum input in, int token, float *delta, float *value, struct sums *sums)
{
    int cols = columns(s, in), at, n = widen(s, b, in, token, seen(s, b, in, token), &at);
    memcpy(s->was, s->z, (size_t)n * sizeof *s->z);
    rescale(m, s->z, n, false);
    sums->apart += rule_quantise(r, s->z, n, 0, n, s->peak);
    sums->rows++;
    rescale(m, s->z, n, true);
    for (int first = 0; first < n; first += cols) {
        float sign = first / cols % 3 == 1 ? -1.0f : 1.0f;
        for (int c = 0; c < cols; c++) {
            delta[c] += sign * (s->z[first + c] - s->was[first + c]);
            value[c] += sign * s->was[first + c];
        }
    }
}

static double square(struct study *s, const struct matrix *w, const float *x, int count)
{
    float *y = s->lab.delta;
    double sum = 0;
    lab_multiply(&s->lab, w, x, count, y);
    for (int i = 0; i < count * w->rows; i++)
        sum += (double)y[i] * (double)y[i];
    return sum;
}

static void product_errors(struct study *s, const struct rule *r, const struct massive *m, int b,
                           enum input in, struct sums *sums)
{
    const struct matrix *w = &s->lab.block[b].m[CODED][lab_first_matrix[in]];
    size_t cols = (size_t)w->cols, count = TOKENS / SAMPLE;
    float *delta = s->lab.gate, *value = s->lab.up; /* scratch with room for more rows */
    memset(delta, 0, count * cols * sizeof *delta);
    memset(value, 0, count * cols * sizeof *value);
    for (size_t i = 0; i < count; i++)
        one_row(s, r, m, b, in, (int)i * SAMPLE, delta + i * cols, value + i * cols, sums);
    sums->error2[in] += square(s, w, delta, (int)count);
    sums->value2[in] += square(s, w, value, (int)count);
}

static const struct massive product_cases[] = {
    {"none", 0, 1, 1, false},
    {"1 x 1000", 1, 1000, 1000, false},
    {"4 x 100..1000", 4, 100, 1000, false},
    {"16 x 100..1000", 16, 100, 1000, false},
    {"16 x 10..10000", 16, 10, 10000, false},
    {"40 x 100..1000", 40, 100, 1000, false},
    {"64 x 20", 64, 20, 20, false},
};
#define PRODUCT_CASES (int)(sizeof product_cases / sizeof *product_cases)

static void print_head(const char *title, const char *unit, const struct massive *m, int count)
{
    printf("\n%s\n\n| %s |", title, unit);
    for (int i = 0; i < count; i++)
        printf(" %s%s |", m[i].name, m[i].first_only ? ", first token" : "");
    printf("\n|---|");
    for (int i = 0; i < count; i++)
        printf("---|");
    printf("\n");
}

/* in: INPUTS for the root of the mean square over all kinds. */
static double relative(const struct sums *s, int in)
{
    double mean = 0;
    for (int i = 0; i < INPUTS; i++)
        mean += s->error2[i] / s->value2[i] / INPUTS;
    return 100 * sqrt(in == INPUTS ? mean : s->error2[in] / s->value2[in]);
}

static void product_tables(struct study *s)
{
    static const char *const titles[INPUTS + 1] = {
        "Inputs of q, k, v", "Inputs of o", "Inputs of gate, up", "Inputs of down",
        "All kinds (root of the mean square); in brackets: channels kept apart, mean"};
    static struct sums all[RULES][PRODUCT_CASES];
    for (size_t r = 0; r < RULES; r++)
        for (int m = 0; m < PRODUCT_CASES; m++)
            for (int b = 0; b < (int)s->lab.c->block_count; b++)
                for (int in = 0; in < INPUTS; in++)
                    product_errors(s, &rules[r], &product_cases[m], b, (enum input)in, &all[r][m]);
    for (int in = 0; in <= INPUTS; in++) {
        print_head(titles[in], "error of the product, %", product_cases, PRODUCT_CASES);
        for (size_t r = 0; r < RULES; r++) {
            printf("| %s |", rules[r].name);
            for (int m = 0; m < PRODUCT_CASES; m++)
                if (in == INPUTS && rules[r].apart)
                    printf(" %.2f (%.1f) |", relative(&all[r][m], in),
                           all[r][m].apart / all[r][m].rows);
                else
                    printf(" %.2f |", relative(&all[r][m], in));
            printf("\n");
        }
    }
}

/* Whole models */

static const struct massive whole_cases[] = {
    {"none", 0, 1, 1, false},
    {"4 x 100..1000", 4, 100, 1000, false},
    {"16 x 100..1000", 16, 100, 1000, false},
    {"16 x 10..10000", 16, 10, 10000, false},
    {"40 x 100..1000", 40, 100, 1000, false},
    {"64 x 20", 64, 20, 20, false},
    {"40 x 100..1000", 40, 100, 1000, true},
};
#define WHOLE_CASES (int)(sizeof whole_cases / sizeof *whole_cases)

static void whole_table(struct study *s)
{
    print_head("The whole model: KL in thousandths, and perplexity", "rule", whole_cases,
               WHOLE_CASES);
    for (size_t r = 0; r < RULES; r++) {
        if (!rules[r].whole)
            continue;
        printf("| %s |", rules[r].name);
        for (int m = 0; m < WHOLE_CASES; m++) {
            struct score got = run(s, &(struct trial){CODED, &rules[r], &whole_cases[m], false});
            printf(" %.2f, %.3f |", 1000 * got.kl, got.perplexity);
            fflush(stdout);
        }
        printf("\n");
    }
}

/* Weights coded after the rescaling without column scales: the columns of massive channels hold small
 * weights then, which a code with one scale per row cannot say. With stats, the encoder knows how much
 * they matter. The factors are folded back, so that the inputs remain as they were. */
static enum status blind_code(struct study *s, const struct massive *m, bool stats, int b, int i,
                              struct error *e)
{
    struct block *block = &s->lab.block[b];
    struct matrix w = block->m[ORIGINAL][i], code, *to = &block->m[REPLACED][i];
    size_t rows = (size_t)w.rows, cols = (size_t)w.cols;
    enum input in = i < 3 ? IN_QKV : i == 3 ? IN_O : i < 6 ? IN_GATE_UP : IN_DOWN;
    float *scaled, *diagonal;
    TRY(lab_array(&s->lab, &scaled, rows * cols, sizeof *scaled, e));
    TRY(lab_array(&s->lab, &diagonal, cols, sizeof *diagonal, e));
    memcpy(scaled, w.data, rows * cols * sizeof *scaled);
    for (size_t r = 0; r < rows; r++)
        rescale(m, scaled + r * cols, w.cols, true);
    for (size_t j = 0; j < TOKENS * cols; j++)
        diagonal[j % cols] += s->seen[b][in][j] * s->seen[b][in][j] / TOKENS;
    rescale(m, diagonal, w.cols, false);
    rescale(m, diagonal, w.cols, false);
    w.data = scaled;
    struct input_stats known = {w.cols, diagonal};
    TRY(lab_encode(&s->lab, &w, stats ? &known : NULL, &code, to, e));
    for (size_t r = 0; r < rows; r++)
        rescale(m, (float *)to->data + r * cols, w.cols, false);
    return OK;
}

static enum status blind_lines(struct study *s, struct error *e)
{
    static const struct massive cases[] = {{"", 0, 1, 1, false},
                                           {"", 1, 10, 10, false},
                                           {"", 1, 100, 100, false},
                                           {"", 4, 100, 1000, false}};
    printf("\nPerplexity with codes made of rescaled weights without column scales, float "
           "activations\n"
           "\n| massive channels of %u | plain | column errors weighted |\n|---|---|---|\n",
           s->lab.c->hidden);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        printf("| %d x %g..%g |", cases[i].count, (double)cases[i].low, (double)cases[i].high);
        for (int stats = 0; stats < 2; stats++) {
            for (int m = 0; m < MATRICES * (int)s->lab.c->block_count; m++)
                TRY(blind_code(s, &cases[i], stats, m / MATRICES, m % MATRICES, e));
            printf(" %.2f |", run(s, &(struct trial){REPLACED, NULL, NULL, false}).perplexity);
        }
        printf("\n");
    }
    return OK;
}

/* The kernels themselves */

/* How far the rule in force, as simulated here, is from the kernels' own product. */
static double check_kernels(struct study *s, int b, enum input in)
{
    const struct block *block = &s->lab.block[b];
    const struct matrix *code = &block->code[lab_first_matrix[in]];
    float *y = s->lab.gate, *simulated = s->lab.up;
    double difference = 0, value = 0;
    memcpy(s->z, seen(s, b, in, 1), (size_t)code->cols * sizeof *s->z);
    rescale(&product_cases[1 + b % 2], s->z, code->cols, false);
    lab_multiply(&s->lab, code, s->z, 1, y);
    rule_quantise(&rules[CURRENT], s->z, code->cols, 0, code->cols, s->peak);
    lab_multiply(&s->lab, &block->m[CODED][lab_first_matrix[in]], s->z, 1, simulated);
    for (int r = 0; r < code->rows; r++) {
        difference = fmax(difference, fabs((double)y[r] - (double)simulated[r]));
        value = fmax(value, fabs((double)y[r]));
    }
    return difference / value;
}

static double processor_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Microseconds of preparation and product of one row, the best of 50 ms. */
static double kernel_time(const struct matrix *m, const float *x, void *prepared, float *y)
{
    double best = 1e9, start = processor_time();
    do {
        double before = processor_time();
        kernels.prepare[m->type](m, x, prepared);
        kernels.product[m->type](m, prepared, x, 1, 0, m->rows, y, (size_t)m->rows);
        best = fmin(best, 1e6 * (processor_time() - before));
    } while (processor_time() - start < 0.05);
    return best;
}

/* The cost of channels apart: 4096 x 4096 at d = 8 with random codes. */
static enum status kernel_lines(struct study *s, struct error *e)
{
    static const int counts[3] = {0, 4, CODE_OUTLIERS};
    struct matrix m = {MATRIX_CODE, .rows = WIDTH, .cols = WIDTH, .d = 8};
    size_t bytes = WIDTH * WIDTH / 8;
    uint8_t *data;
    uint16_t *out;
    float *x, *y;
    void *prepared;
    TRY(lab_array(&s->lab, &data, bytes, 1, e));
    TRY(lab_array(&s->lab, &out, WIDTH, sizeof *out, e));
    TRY(lab_array(&s->lab, &x, WIDTH, sizeof *x, e));
    TRY(lab_array(&s->lab, &y, WIDTH, sizeof *y, e));
    TRY(lab_array(&s->lab, &prepared, act_bytes(&m), 1, e));
    uint32_t state = 1;
    for (size_t i = 0; i < bytes; i++) {
        state = state * 1664525 + 1013904223;
        data[i] = (uint8_t)(state >> 24);
        out[i % WIDTH] = 0x2000; /* a small scale */
        x[i % WIDTH] = (float)(state >> 16) / 32768.0f - 1.0f;
    }
    m.data = data;
    m.out = out;
    m.codebook = codebook_for(8)->vector;
    printf("\nKernels %s, 4096 x 4096, d = 8, one row, preparation included\n\n", kernels.variant);
    double best[] = {1e9, 1e9, 1e9};
    for (int i = 0; i < 36; i++) { /* in turn, so that all meet the same disturbances */
        struct massive massive = {"", counts[i % 3], 1000, 1000, false};
        rescale(&massive, x, WIDTH, false);
        best[i % 3] = fmin(best[i % 3], kernel_time(&m, x, prepared, y));
        rescale(&massive, x, WIDTH, true);
    }
    for (int i = 0; i < 3; i++)
        printf("%2d channels apart: %.1f us\n", counts[i], best[i]);
    return OK;
}

/* Main */

/* s->ids = WINDOWS windows, BOS first in each where the model wants one. */
static enum status read_text(struct study *s, const char *model, const char *path, struct error *e)
{
    struct tokenizer *tokenizer;
    char text[8192];
    uint32_t *ids = NULL;
    size_t count = 0, at = 0;
    FILE *f = fopen(path, "rb");
    FAIL_IF(!f, e, ERR_IO, "cannot open %s", path);
    size_t size = fread(text, 1, sizeof text, f);
    fclose(f);
    TRY(tokenizer_open(&tokenizer, model, e));
    enum status status = tokenizer_encode(tokenizer, text, size, false, false, &ids, &count, e);
    if (status == OK && count < TOKENS)
        status = error_set(e, ERR_FORMAT, "%s is too short: take a longer text", path);
    bool bos = tokenizer_adds_bos(tokenizer);
    for (size_t i = 0; status == OK && i < TOKENS; i++)
        s->ids[i] = i % POSITIONS == 0 && bos ? tokenizer_bos(tokenizer) : ids[at++];
    free(ids);
    tokenizer_free(tokenizer);
    return status;
}

static enum status prepare(struct study *s, struct error *e)
{
    size_t pieces = WIDTH / s->lab.c->hidden, widest = 0, blocks = s->lab.c->block_count;
    FAIL_IF(pieces == 0, e, ERR_UNSUPPORTED, "the model's hidden size is above %d", WIDTH);
    TRY(lab_array(&s->lab, &s->seen, blocks, sizeof *s->seen, e));
    for (int in = 0; in < INPUTS; in++) {
        size_t cols = (size_t)columns(s, (enum input)in);
        widest = cols > widest ? cols : widest;
        for (size_t b = 0; b < blocks; b++)
            TRY(lab_array(&s->lab, &s->seen[b][in], TOKENS * cols, sizeof(float), e));
    }
    TRY(lab_array(&s->lab, &s->z, pieces * widest, sizeof *s->z, e));
    TRY(lab_array(&s->lab, &s->was, pieces * widest, sizeof *s->was, e));
    TRY(lab_array(&s->lab, &s->peak, pieces * widest, sizeof *s->peak, e));
    return lab_array(&s->lab, &s->reference, TOKENS * (size_t)s->lab.c->vocab, sizeof(float), e);
}

static enum status bench(struct study *s, const char *model, const char *text, uint32_t d,
                         struct error *e)
{
    const char *problem = kernels_init(NULL);
    FAIL_IF(problem, e, ERR_UNSUPPORTED, "%s", problem);
    TRY(lab_open(&s->lab, model, d, e));
    TRY(prepare(s, e));
    TRY(read_text(s, model, text, e));
    printf("%s, %g bits per weight, %d tokens of %s; rows as wide as at hidden size %d\n", model,
           8.0 / d, TOKENS, text, WIDTH);
    struct score coded = run(s, &(struct trial){CODED, NULL, NULL, true});
    struct score original = run(s, &(struct trial){ORIGINAL, NULL, NULL, false});
    printf("Perplexity with float activations: %.3f, of the original weights %.3f (KL %.3f)\n",
           coded.perplexity, original.perplexity, original.kl);
    double worst = 0;
    for (int i = 0; i < INPUTS * (int)s->lab.c->block_count; i++)
        worst = fmax(worst, check_kernels(s, i / INPUTS, (enum input)(i % INPUTS)));
    printf(
        "The rule in force, as simulated here, differs from the kernels' products by %.1e of the "
        "largest value\n",
        worst);
    product_tables(s);
    whole_table(s);
    TRY(blind_lines(s, e));
    return kernel_lines(s, e);
}

int main(int argc, char **argv)
{
    static struct study s;
    struct error e = {0};
    const char *model = argc > 1 ? argv[1] : SBIT_SOURCE_DIR "/models/demo";
    const char *text = argc > 2 ? argv[2] : SBIT_SOURCE_DIR "/models/demo-eval.txt";
    enum status status = bench(&s, model, text, argc > 3 ? (uint32_t)atoi(argv[3]) : 4, &e);
    if (status != OK)
        fprintf(stderr, "bench_scales: %s\n", e.text);
    lab_close(&s.lab);
    return status != OK;
}
