/* Arithmetic on flat arrays: the only place where models are computed. No allocation, no threads, no I/O, no
 * globals except the dispatch table; callers share rows among threads.
 *
 * Every variant returns the same bits as the scalar one, which is the specification (kernels/README.md):
 * integer inner sums are exact in any order; float reductions go through 16 partial sums, lane j taking
 * elements j, j+16, ..., folded by one fixed tree; every multiply-add is an explicit fmaf; the files are
 * compiled with -ffp-contract=off. Pointers need no alignment beyond their element's unless stated; weight
 * data from files needs none at all.
 */
#ifndef SBIT_KERNELS_KERNELS_H
#define SBIT_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum matrix_type {
    MATRIX_F32,
    MATRIX_F16,
    MATRIX_BF16,
    MATRIX_Q8_0, /* 32 weights: F16 d, int8 q[32]; w = d q */
    MATRIX_Q4_0, /* 32 weights: F16 d, 16 bytes; weight j < 16 in low nibbles, j >= 16 in high; w = d (q - 8) */
    MATRIX_Q1_0, /* 128 weights: F16 d, 16 bytes, bit j LSB first; w = bit ? d : -d */
    MATRIX_Q2_0, /* 64 weights: F16 d, 16 bytes, weight j in bits 2 (j % 4) of byte j / 4; w = d (q - 1) */
    MATRIX_CODE, /* one byte per d weights of a row; see struct matrix */
    MATRIX_TYPES
};

/* A view of weights W[rows][cols]; owns nothing.
 *
 * CODE (DESIGN section 5): data holds bands of 64 rows, [ceil(rows/64)][G = ceil(cols/d)][64] bytes; the
 * byte of row 64b+i, group g is at (b*G + g)*64 + i. Bits 0-6 choose a codeword of d small integers from
 * codebook, bit 7 negates it; W[r][dg+k] = out[r] * (+-codebook[index][k]) * in[dg+k]. Elements past cols
 * meet activations that act_prepare made zero. Columns of the block types are whole blocks. */
struct matrix {
    enum matrix_type type;
    int rows, cols;
    const void *data;
    int d;                  /* CODE: weights per byte, one of 2 3 4 5 6 8 10 12 16 */
    const int8_t *codebook; /* CODE: [128][d]; no -128, magnitudes of a codeword sum to 257 at most */
    const uint16_t *out;    /* CODE: F16 [rows] */
    const uint16_t *in;     /* CODE: F16 [cols] multiplied into the activations, or NULL for ones */
    /* Sparse correction added to the product in float, sorted by row; outlier_start NULL: none. Row r owns
     * entries outlier_start[r] .. outlier_start[r+1]-1 and adds value * x[column] in that order. */
    const uint32_t *outlier_start;  /* [rows + 1] */
    const void *outlier_column;     /* int16 or int32 per entry, see outlier_column_bytes */
    int outlier_column_bytes;       /* 2 or 4 */
    const uint16_t *outlier_value;  /* F16 */
};

/* Bands: a call to the product handles rows [row_first, row_first + row_count) where row_first is a multiple of
 * this, so that threads can share any matrix. */
#define MATRIX_BAND 64

/* Bytes of one prepared row of activations for products with m: what act_prepare writes. A multiple of
 * 64; depends on type and cols only. */
size_t act_bytes(const struct matrix *m);

/* Whether activations prepared for a may be used for b: the same form (F32, F16 and BF16 share one; Q8_0,
 * Q4_0, Q1_0 and Q2_0 another), cols and column scales. */
bool act_same(const struct matrix *a, const struct matrix *b);

/* prepared = x[cols] in the form that products with m read: floats as they are for F32, F16 and BF16; int8 with
 * one F32 scale per 32 (Q8_0, Q4_0, Q1_0, Q2_0); int8 with one scale per row and the few largest channels
 * apart, after multiplying by in[] (CODE). A row's result depends on that row alone. prepared is
 * 64-byte aligned. */
typedef void act_prepare_fn(const struct matrix *m, const float *x, void *prepared);

/* y[t * y_stride + r] = sum over c of W[r][c] * x[t][c] for t in [0, tokens), r in [row_first, row_first +
 * row_count), the sparse correction included. prepared: [tokens][act_bytes(m)]; x: [tokens][cols] the
 * floats they were made from (read for the correction only). What depends on the activations alone (the
 * look-up tables of CODE) is worked out once per call, so give a thread one long run of bands, not one band
 * after the other. y outside these rows is left alone; inside, it may hold unfinished sums meanwhile.
 * CODE: cols <= 65536 d, so that the integer sums fit 32 bits. */
typedef void matrix_product_fn(const struct matrix *m, const void *prepared, const float *x, int tokens,
                               int row_first, int row_count, float *y, size_t y_stride);

/* Whether the product of a CODE matrix with so many tokens, or fewer, works by look-up tables, which cost as
 * much for a few rows as for all: threads then had better share tokens than rows, where there are enough. */
typedef bool code_by_tables_fn(const struct matrix *m, int tokens);

/* y[n] = x[n] / sqrt(mean(x^2) + eps) * weight[n] (RMSNorm, Zhang & Sennrich 2019). y may be x. */
typedef void rms_norm_fn(float *y, const float *x, const float *weight, int n, float eps);

/* Rotates the first 2*pairs elements of each of heads vectors x[heads][head_dim] (RoPE, Su et al. 2021):
 * pair i by the angle whose cosine and sine are given. interleaved: pair i is (2i, 2i+1), else
 * (i, i + pairs). */
typedef void rope_fn(float *x, int heads, int head_dim, int pairs, bool interleaved,
                     const float *cosine, const float *sine);

/* How past keys and values are kept. */
enum kv_type {
    KV_F16, /* [n][head_dim] binary16 */
    KV_Q8   /* [n][head_dim] int8 and [n][kv_scales(head_dim)] F16 scales, one per 32 dimensions */
};

static inline int kv_scales(int head_dim)
{
    return (head_dim + 31) / 32;
}

/* One head of the cache over n positions; owns nothing. Q8: element d of a position is its scale d / 32
 * times its int8 d, rounded once to binary32. */
struct kv {
    enum kv_type type;
    int n, head_dim; /* n >= 1, 1 <= head_dim <= 1024 */
    const void *keys, *values;
    const uint16_t *key_scale, *value_scale; /* Q8 */
};

/* out[h] = softmax(scale * q[h] . K^T) V for the heads query heads that share one head of the cache
 * (grouped queries, Ainslie et al. 2023): keys and values are read once for all. out, q: [heads][head_dim];
 * scores: heads * n floats of scratch. A head's result depends on that head alone. */
typedef void attention_fn(float *out, const float *q, int heads, const struct kv *kv, float scale,
                          float *scores);

/* gate[i] = silu(gate[i]) * up[i], silu(x) = x / (1 + exp(-x)) (SwiGLU, Shazeer 2020). */
typedef void swiglu_fn(float *gate, const float *up, int n);

/* y[i] += x[i] */
typedef void add_fn(float *y, const float *x, int n);

/* h[i] = F16 of x[i], round to nearest even (to store keys and values). */
typedef void to_f16_fn(uint16_t *h, const float *x, int n);

/* q[n], d[kv_scales(n)] = x[n] as int8 and F16 scales (to store keys and values): per 32 values d = F16 of
 * max |x| / 127, q = round to nearest even of x * (1 / d), limited to +-127; where d is not finite, or below
 * the smallest normal binary16 and thus set to 0, all q are 0. */
typedef void to_q8_fn(int8_t *q, uint16_t *d, const float *x, int n);

/* out[cols] = row r of m (embedding gather). */
typedef void matrix_row_fn(const struct matrix *m, int r, float *out);

struct kernels { /* filled once by kernels_init, read-only afterwards */
    act_prepare_fn *prepare[MATRIX_TYPES];
    matrix_product_fn *product[MATRIX_TYPES];
    code_by_tables_fn *code_by_tables;
    matrix_row_fn *row[MATRIX_TYPES];
    rms_norm_fn *rms_norm;
    rope_fn *rope;
    attention_fn *attention;
    swiglu_fn *swiglu;
    add_fn *add;
    to_f16_fn *to_f16;
    to_q8_fn *to_q8;
    const char *variant; /* the best level in use: "scalar", "avx2", ... */
};

extern struct kernels kernels;

/* Fills the table for this CPU. mask NULL: the best there is; else the highest level allowed, one of
 * kernels_levels() (environment SBIT_CPU). Returns NULL, or a sentence (static) when mask names an unknown
 * level or one that this CPU or build lacks. Not thread-safe; call once at start (tests: again). */
const char *kernels_init(const char *mask);

/* The levels that this CPU can run, lowest first, NULL-terminated; for tests and --version. */
const char *const *kernels_levels(void);

#endif
