/* A compression in miniature, with a clock. Owns nothing beyond one measurement; must never know how many
 * ranks and blocks there are. */
#include "worker/probe.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "common/calib_memory.h"
#include "common/codebook.h"
#include "common/forms.h"
#include "common/mem.h"
#include "worker/calib.h"
#include "worker/curvature.h"
#include "worker/search_blocks.h"
#include "worker/search_code.h"

enum { BANDS = 4 }; /* of a matrix, per thread: enough for even shares */

struct probe {
    struct loop *loop;
    const struct msg_calib *asked;
    struct recipe recipe;
    const struct weights *weights;
    struct calib *calib;
    struct curvature *curvature;
    struct code_search *code;
    struct block_search *blocks;
    float *target;  /* [64][n] */
    float *scratch; /* [threads][scratch_floats] */
    size_t scratch_floats;
    uint32_t tokens;
    struct msg_probed result;
};

static enum status open_model(struct probe *p, const struct message *m, struct error *e)
{
    const uint32_t *words = m->payload;
    struct calib_text text = {words + m->calib.windows, words, 1, m->calib.context};
    p->tokens = words[0];
    curvature_init();
    TRY(recipe_parse(&p->recipe, m->calib.recipe, e));
    TRY(calib_create(&p->calib, p->weights, &text, 0, MOMENT_LANES, (struct row_form){UNIT_F32, 0},
                     false, (int)m->calib.threads, false, e));
    return calib_block(p->calib, 0, e);
}

/* Seconds for the window through a step, into m or onwards. The first time also reads the weights and wakes
 * the threads, which the work has once for many windows: the better of two counts. */
static enum status pass(struct probe *p, enum calib_step step, struct moments *m, double *seconds,
                        struct error *e)
{
    double best = INFINITY;
    for (int i = 0; i < 2; i++) {
        double start = loop_now();
        bool more = true;
        while (more)
            TRY(m ? calib_observe(p->calib, step, m, &more, e)
                  : calib_advance(p->calib, step, &more, e));
        best = fmin(best, loop_now() - start);
        TRY(loop_alive(p->loop, e));
    }
    *seconds += best / p->tokens;
    return OK;
}

/* Curvature and correction; any cross moments cost the same. */
static enum status factor(struct probe *p, struct moments *m, struct error *e)
{
    struct moments_node nodes[MOMENT_NODES_MAX];
    float *correction = NULL;
    FAIL_IF(moments_nodes(m, nodes) != 1, e, ERR_PEER, "the moments of a window are not whole");
    nodes[0].c = nodes[0].h;
    int threads = (int)p->asked->threads;
    double start = loop_now();
    if (p->recipe.qep > 0)
        TRY(curvature_qep(&correction, &nodes[0], p->recipe.qep, 0.01, threads, "blk.0", e));
    free(correction);
    TRY(loop_alive(p->loop, e));
    TRY(curvature_create(&p->curvature, &nodes[0], p->recipe.shrink, p->recipe.damp,
                         p->recipe.feedback, threads, "blk.0", e));
    p->result.factor = loop_now() - start;
    return OK;
}

static enum status take_step(struct probe *p, enum calib_step step, struct error *e)
{
    struct moments *m;
    int n = calib_cols(p->calib, step);
    int width = (int)calib_block_columns((uint32_t)n, p->asked->moment_floats);
    TRY(moments_create(&m, n, width, false, (int)p->asked->threads, e));
    enum status status = pass(p, step, m, &p->result.moments, e);
    if (status == OK && step == CALIB_QKV)
        status = factor(p, m, e);
    moments_free(m);
    TRY(status);
    return pass(p, step, NULL, &p->result.forward, e);
}

static enum status open_search(struct probe *p, const struct tensor *t, int rows, struct error *e)
{
    FAIL_IF(p->asked->method == UNIT_CODE && !codebook_for(p->asked->d), e, ERR_PEER,
            "asked to measure codes of %u weights, for which there is no codebook", p->asked->d);
    if (p->asked->method == UNIT_CODE) {
        TRY(code_search_create(&p->code, codebook_for(p->asked->d), p->curvature, &p->recipe, e));
        p->scratch_floats = code_search_scratch(p->code);
    } else {
        TRY(block_search_create(&p->blocks, form_dtype((enum unit_method)p->asked->method),
                                p->curvature, &p->recipe, e));
        p->scratch_floats = block_search_scratch(p->blocks);
    }
    TRY(mem_array(&p->target, (size_t)rows * t->cols, sizeof *p->target, "rows of a matrix", e));
    TRY(mem_array(&p->scratch, p->asked->threads * p->scratch_floats, sizeof *p->scratch,
                  "the search of a matrix", e));
    return weights_rows_f32(t, 0, (uint64_t)rows, p->target, e);
}

static void search_bands(const struct probe *p, int rows, uint8_t *bytes, size_t band_bytes)
{
    int n = (int)p->asked->threads;
#pragma omp parallel for num_threads(n) schedule(dynamic, 1)
    for (int b = 0; b < n * BANDS; b++) {
        struct band_loss loss;
        uint16_t scale[FORM_BAND];
        int thread = omp_get_thread_num();
        float *scratch = p->scratch + (size_t)thread * p->scratch_floats;
        uint8_t *out = bytes + (size_t)thread * band_bytes;
        if (p->code)
            (void)code_search_band(p->code, p->target, rows, scratch, out, scale, &loss);
        else
            (void)block_search_band(p->blocks, p->target, rows, scratch, out, &loss);
    }
}

static enum status search(struct probe *p, struct error *e)
{
    const struct tensor *t = weights_find(p->weights, "blk.0.attn_q.weight");
    FAIL_IF(!t, e, ERR_FORMAT, "%s has no matrix q to measure with", p->weights->path);
    enum unit_method method = (enum unit_method)p->asked->method;
    if (method == UNIT_F16 || method == UNIT_F32 || method == UNIT_BF16 || method == UNIT_SIGN)
        return OK; /* rounded */
    int rows = t->rows < FORM_BAND ? (int)t->rows : FORM_BAND;
    size_t band_bytes = FORM_BAND * t->cols * sizeof(float); /* more than any form needs */
    uint8_t *bytes;
    TRY(open_search(p, t, rows, e));
    TRY(mem_array(&bytes, p->asked->threads, band_bytes, "compressed rows", e));
    double start = loop_now();
    search_bands(p, rows, bytes, band_bytes);
    p->result.search = (loop_now() - start) / ((double)p->asked->threads * BANDS * rows);
    free(bytes);
    return OK;
}

static enum status measure(struct probe *p, const struct message *m, struct error *e)
{
    TRY(open_model(p, m, e));
    for (int step = 0; step < CALIB_STEPS; step++)
        TRY(take_step(p, (enum calib_step)step, e));
    TRY(search(p, e));
    struct message out = {.kind = MSG_PROBED, .probed = p->result};
    return loop_send(p->loop, 0, &out, e);
}

enum status probe_want(struct source *source, const struct message *m, struct error *e)
{
    const uint32_t *words = m->payload;
    TRY(source_want_tokens(source, words + m->calib.windows, words[0], e));
    TRY(source_want(source, KIND_OUTPUT_NORM, 0, e));
    for (int k = 0; k < KIND_COUNT; k++)
        if (model_rule((enum tensor_kind)k)->per_block)
            TRY(source_want(source, (enum tensor_kind)k, 0, e));
    return OK;
}

enum status probe_run(struct loop *loop, const struct source *source, const struct message *m,
                      struct error *e)
{
    struct probe p = {.loop = loop, .asked = &m->calib, .weights = source_weights(source)};
    enum status status = measure(&p, m, e);
    code_search_free(p.code);
    block_search_free(p.blocks);
    curvature_free(p.curvature);
    calib_free(p.calib);
    free(p.target);
    free(p.scratch);
    return status;
}
