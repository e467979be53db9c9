/* Every level above scalar against scalar, bit for bit, in the manner of checkasm: random and
 * extreme inputs, every tail, odd addresses, unmapped pages around each buffer. */
#include <stdio.h>
#include <string.h>

#include "tests/kernels/cases.h"

static const char *level;
static int failures;

static void compare(const float *want, const float *got, size_t n, const char *what,
                    const int at[6])
{
    case_canonical((float *)want, n);
    case_canonical((float *)got, n);
    if (!memcmp(want, got, n * sizeof *want))
        return;
    size_t i = 0;
    while (!memcmp(want + i, got + i, sizeof *want))
        i++;
    if (failures++ < 20)
        printf("FAIL %s %s (%d %d %d %d %d %d) [%zu]: %a, scalar %a\n", level, what, at[0], at[1],
               at[2], at[3], at[4], at[5], i, (double)got[i], (double)want[i]);
}

static void use(const char *name)
{
    const char *problem = kernels_init(name);
    if (problem) {
        printf("FAIL kernels_init(%s): %s\n", name, problem);
        failures++;
    }
}

/* One product of rows [first, first + count) at both levels, activations included. */
static void product_case(struct random *r, const struct case_matrix *c, enum input_style style,
                         int tokens, int first, int count)
{
    const struct matrix *m = &c->m;
    size_t stride = (size_t)(m->rows + random_below(r, 5)), n = (size_t)tokens;
    int at_end = random_below(r, 4) != 0;
    struct guard x = guard_alloc(n * (size_t)m->cols * 4, at_end, 0);
    struct guard prepared[2], y[2];
    const int at[6] = {m->rows, m->cols, m->d, tokens, first, (int)style};
    for (int t = 0; t < tokens; t++)
        case_fill(r, style, (float *)x.data + t * m->cols, m->cols);
    for (int i = 0; i < 2; i++) {
        prepared[i] = guard_alloc(n * act_bytes(m), at_end, 0);
        y[i] = guard_alloc(((n - 1) * stride + (size_t)m->rows) * 4, at_end, 0);
        memset(y[i].data, 0x5a, y[i].bytes);
        use(i ? level : "scalar");
        case_prepare(m, x.data, tokens, prepared[i].data);
        kernels.product[m->type](m, prepared[i].data, x.data, tokens, first, count, y[i].data,
                                 stride);
    }
    compare(prepared[0].data, prepared[1].data, prepared[0].bytes / 4, "prepare", at);
    compare(y[0].data, y[1].data, y[0].bytes / 4, case_type_names[m->type], at);
    guard_free(&x);
    for (int i = 0; i < 2; i++) {
        guard_free(&prepared[i]);
        guard_free(&y[i]);
    }
}

/* Every extreme weight against every extreme input, in rows long enough for sums to overflow where
 * they could. */
static void product_extremes(struct random *r, enum matrix_type type)
{
    for (int style = 0; style < WEIGHT_STYLES; style++)
        for (int input = 0; input < INPUT_STYLES; input++) {
            int d = case_code_d[(style + input) % 9], cols = type == MATRIX_CODE ? 700 * d : 1024;
            struct case_matrix c =
                case_matrix_make(r, type, 70, cols, d, (enum weight_style)style, false, input % 2);
            product_case(r, &c, (enum input_style)input, 1, 0, 70);
            product_case(r, &c, (enum input_style)input, 9, 0, 70);
            case_matrix_free(&c);
        }
}

static void product_any(struct random *r, enum matrix_type type, int rows, int cols, int d,
                        int tokens)
{
    enum weight_style weights = (enum weight_style)random_below(r, WEIGHT_STYLES);
    enum input_style style = (enum input_style)random_below(r, INPUT_STYLES);
    if (random_bits(r) >> 63) {
        weights = WEIGHT_NORMAL;
        style = random_bits(r) >> 63 ? INPUT_NORMAL : style;
    }
    struct case_matrix c = case_matrix_make(r, type, rows, cols, d, weights,
                                            random_below(r, 4) == 0, random_bits(r) >> 63);
    int bands = (rows + MATRIX_BAND - 1) / MATRIX_BAND;
    int first = random_below(r, bands) * MATRIX_BAND, count = rows - first;
    if (random_below(r, 3) == 0)
        count = 1 + random_below(r, count);
    product_case(r, &c, style, tokens, first, count);
    case_matrix_free(&c);
}

static void test_product(struct random *r, enum matrix_type type)
{
    static const int tokens[] = {1, 2, 3, 7, 64, 1, 1, 5};
    int before = failures, last = 0;
    for (int n = 1; n <= 257; n++) {
        int cols = case_cols(type, n);
        for (int repeat = 0; cols != last && repeat < (type < MATRIX_Q8_0 ? 1 : 8); repeat++)
            product_any(r, type, 1 + random_below(r, 80), cols, case_code_d[random_below(r, 9)],
                        tokens[repeat]);
        last = cols;
        product_any(r, type, n, case_cols(type, 1 + random_below(r, 300)),
                    case_code_d[random_below(r, 9)], tokens[n % 8]);
    }
    for (int i = 0; i < 10; i++) {
        product_any(r, type, 200, i % 2 ? 5632 : 2048, case_code_d[i % 9], i % 5 + 1);
        product_any(r, type, 130, i % 2 ? 2048 : 5632, case_code_d[i % 9], i == 9 ? 64 : 3 * i + 1);
    }
    product_extremes(r, type);
    printf("%-7s product %s: %s\n", level, case_type_names[type],
           failures == before ? "ok" : "FAILED");
}

static void vector_case(struct random *r, int n)
{
    struct guard x = guard_alloc((size_t)n * 4, 1, 0), w = guard_alloc((size_t)n * 4, 1, 0);
    struct guard y[2], h[2];
    enum input_style style = (enum input_style)random_below(r, INPUT_STYLES);
    const int at[6] = {n, (int)style};
    case_fill(r, style, x.data, n);
    case_fill(r, INPUT_NORMAL, w.data, n);
    for (int i = 0; i < n && style == INPUT_NORMAL; i++)
        ((float *)x.data)[i] *= 40.0f;
    for (int i = 0; i < 2; i++) {
        y[i] = guard_alloc((size_t)n * 4, 1, 0);
        h[i] = guard_alloc((size_t)n * 2, 1, 0);
    }
    for (int i = 0; i < 2; i++) {
        use(i ? level : "scalar");
        kernels.rms_norm(y[i].data, x.data, w.data, n, 1e-5f);
        kernels.to_f16(h[i].data, x.data, n);
    }
    compare(y[0].data, y[1].data, (size_t)n, "rms_norm", at);
    if (memcmp(h[0].data, h[1].data, h[0].bytes)) {
        printf("FAIL %s to_f16 (%d)\n", level, n);
        failures++;
    }
    for (int i = 0; i < 2; i++) {
        use(i ? level : "scalar");
        memcpy(y[i].data, x.data, x.bytes);
        kernels.swiglu(y[i].data, w.data, n);
    }
    compare(y[0].data, y[1].data, (size_t)n, "swiglu", at);
    for (int i = 0; i < 2; i++) {
        guard_free(&y[i]);
        guard_free(&h[i]);
    }
    guard_free(&x);
    guard_free(&w);
}

/* Every binary16 value and its neighbourhood, through to_f16. */
static void test_to_f16(void)
{
    enum { N = 1 << 20 };
    static float x[N];
    static uint16_t h[2][N];
    for (uint32_t i = 0; i < N; i++) {
        uint32_t bits = i << 12 | (i & 3) * 0x555;
        memcpy(&x[i], &bits, sizeof bits);
    }
    for (int i = 0; i < 2; i++) {
        use(i ? level : "scalar");
        kernels.to_f16(h[i], x, N);
    }
    if (memcmp(h[0], h[1], sizeof h[0])) {
        printf("FAIL %s to_f16 over all values\n", level);
        failures++;
    }
}

/* Keys or values: random F16 numbers of magnitude below 2, or int8 and scales of any magnitude that
 * keeps them below 4. */
struct cache {
    struct guard data, scale;
};

static struct cache cache_make(struct random *r, enum kv_type type, int n, int head_dim)
{
    size_t count = (size_t)n * (size_t)head_dim;
    size_t scales = type == KV_Q8 ? (size_t)n * (size_t)kv_scales(head_dim) : 0;
    struct cache c = {guard_alloc(count * (type == KV_Q8 ? 1 : 2), 1, 0),
                      guard_alloc(scales * 2, 1, 0)};
    for (size_t i = 0; i < c.data.bytes; i++)
        ((uint8_t *)c.data.data)[i] =
            (uint8_t)(random_bits(r) >> 56 & (type == KV_F16 && i % 2 ? 0xbf : 0xff));
    for (size_t i = 0; i < scales; i++)
        ((uint16_t *)c.scale.data)[i] = (uint16_t)(random_bits(r) >> 48 & 0x27ff); /* below 2^-5 */
    return c;
}

static void cache_free(struct cache *c)
{
    guard_free(&c->data);
    guard_free(&c->scale);
}

static void attention_case(struct random *r, enum kv_type type, int heads, int n, int head_dim,
                           float spread)
{
    struct cache keys = cache_make(r, type, n, head_dim), values = cache_make(r, type, n, head_dim);
    size_t count = (size_t)heads * (size_t)head_dim;
    struct guard q = guard_alloc(count * 4, 1, 0), out[2], scores[2];
    const int at[6] = {n, head_dim, heads, type};
    const struct kv kv = {.type = type,
                          .n = n,
                          .head_dim = head_dim,
                          .keys = keys.data.data,
                          .values = values.data.data,
                          .key_scale = keys.scale.data,
                          .value_scale = values.scale.data};
    case_fill(r, INPUT_NORMAL, q.data, (int)count);
    for (int i = 0; i < 2; i++) {
        out[i] = guard_alloc(count * 4, 1, 0);
        scores[i] = guard_alloc((size_t)heads * (size_t)n * 4, 1, 0);
        use(i ? level : "scalar");
        kernels.attention(out[i].data, q.data, heads, &kv, spread, scores[i].data);
    }
    compare(out[0].data, out[1].data, count, "attention", at);
    for (int i = 0; i < 2; i++) {
        guard_free(&out[i]);
        guard_free(&scores[i]);
    }
    cache_free(&keys);
    cache_free(&values);
    guard_free(&q);
}

static void test_attention(struct random *r)
{
    int before = failures;
    for (int i = 0; i < 2; i++) {
        enum kv_type type = i ? KV_Q8 : KV_F16;
        for (int n = 1; n <= 70; n++)
            attention_case(r, type, 1 + n % 12, n, 1 + random_below(r, 300), n % 3 ? 0.1f : 30.0f);
        for (int head_dim = 1; head_dim <= 257; head_dim++)
            attention_case(r, type, 1 + random_below(r, 12), 1 + random_below(r, 40), head_dim,
                           0.5f);
        for (int heads = 1; heads <= 12; heads++)
            attention_case(r, type, heads, 150 + random_below(r, 100), heads % 2 ? 64 : 80, 0.125f);
        attention_case(r, type, 64, 40, 64, 0.125f);
        attention_case(r, type, 4, 700, 128, 0.09f);
        attention_case(r, type, 3, 300, 1, 1.0f);
        attention_case(r, type, 5, 40, 1024, 0.03f);
        attention_case(r, type, 9, 33, 1023, 0.03f);
    }
    printf("%-7s attention: %s\n", level, failures == before ? "ok" : "FAILED");
}

static void test_vectors(struct random *r)
{
    int before = failures;
    for (int n = 1; n <= 257; n++)
        for (int repeat = 0; repeat < 4; repeat++)
            vector_case(r, n);
    vector_case(r, 5632);
    test_to_f16();
    printf("%-7s vectors: %s\n", level, failures == before ? "ok" : "FAILED");
}

int main(int argc, char **argv)
{
    struct random r = random_start(argc, argv);
    for (const char *const *name = kernels_levels() + 1; *name; name++) {
        level = *name;
        for (int type = 0; type < MATRIX_TYPES; type++)
            test_product(&r, (enum matrix_type)type);
        test_vectors(&r);
        test_attention(&r);
    }
    printf("%d failures\n", failures);
    return failures != 0;
}
