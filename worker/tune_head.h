/* The loss of end-to-end tuning: the Kullback-Leibler divergence of the tuned model's next token
 * from the original's (distillation, Hinton et al. 2015, arXiv 1503.02531, at temperature 1),
 * and its gradient through head and final norm:
 *
 *     a = A RMSNorm(teacher's x),  b = B RMSNorm(x),  p = softmax(a),  q = softmax(b)
 *     KL(p || q) = sum p (a - b) - ln Z_a + ln Z_b,   d KL / d b = q - p
 *
 * Some rows at a time, so that logits of a large vocabulary never stand for a whole window. The
 * head's matrix is not tuned (it is often the embedding too), the final norm is. Knows nothing
 * of blocks, messages and files. */
#ifndef SBIT_WORKER_TUNE_HEAD_H
#define SBIT_WORKER_TUNE_HEAD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/model.h"
#include "worker/product.h"

struct tune_output {           /* borrowed */
    const float *norm;         /* [hidden] weights of the final norm */
    const struct product *head; /* one matrix, vocab x hidden */
};

struct tune_head;

/* Keeps teacher and student, which stay valid; weights they point to may change between calls.
 * Memory: at most 128 MiB of logits, but for at least 16 rows. *out is the caller's,
 * tune_head_free. Errors: ERR_MEMORY. */
enum status tune_head_create(struct tune_head **out, const struct model_config *c,
                             const struct tune_output *teacher, const struct tune_output *student,
                             int threads, struct error *e);
/* NULL is fine. */
void tune_head_free(struct tune_head *h);

/* *kl += the sum over rows of KL(teacher || student), nats. x, teacher_x [rows][hidden]: the
 * residual stream after the last block. With dx not NULL: dx[rows][hidden] = gradient of weight
 * * that sum, and norm_gradient[hidden] += that by the logarithms of the norm's weights. weight:
 * 1 / (tokens of the step) makes it that of a mean. The same bits for any number of threads.
 * False when a logit is not finite; *kl and the gradients are then worthless. */
bool tune_head_backward(struct tune_head *h, const float *teacher_x, const float *x, uint32_t rows,
                        double weight, double *kl, float *dx, float *norm_gradient);

/* dx[rows][hidden] = gradient of -sum over rows of ln q[target[row]], q = softmax of the student's logits of
 * x[rows][hidden]: of the text's likelihood, for the empirical Fisher information. False when a logit is not
 * finite. */
bool tune_head_likelihood(struct tune_head *h, const float *x, const uint32_t *target,
                          uint32_t rows, float *dx);

#endif
