/* One growing text: prompts in, sampled continuations out. Owns the tokens and the sampler; knows
 * the pipeline but neither options nor terminals. */
#ifndef SBIT_COORDINATOR_GENERATE_H
#define SBIT_COORDINATOR_GENERATE_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/open_model.h"
#include "coordinator/pipeline.h"
#include "coordinator/sampler.h"
#include "coordinator/stop_filter.h"

enum turn_end {
    TURN_RUNS,
    TURN_END_TOKEN,
    TURN_STOP_TEXT,
    TURN_LIMIT,   /* as many tokens as asked for */
    TURN_CONTEXT, /* no room for more */
    TURN_HALTED,  /* generate_halt */
};

/* Takes size bytes of whole characters as they are generated. */
typedef enum status generate_text_fn(void *self, const char *text, size_t size, struct error *e);

struct generate_setup {
    const struct open_model *model; /* borrowed, assigned as job 0 with one sequence */
    struct cluster *cluster;
    uint32_t batch;
    struct sampler_config sampling;
    const char *const *stops; /* [n_stops] */
    uint32_t n_stops;
    bool ignore_eos;
    generate_text_fn *text;
    void *self; /* handed to text */
};

struct turn { /* what a turn was like */
    enum turn_end end;
    uint32_t prompt_tokens, generated_tokens;
    uint32_t decoded_tokens; /* gone through the model one by one, during decode_s */
    double prompt_s;         /* until the first logits */
    double decode_s;         /* from then to the last ones */
};

struct generator;

/* *out is the caller's, generator_close. Errors: ERR_MEMORY. */
enum status generator_open(struct generator **out, const struct generate_setup *setup,
                           struct error *e);
void generator_close(struct generator *g);

/* Adds prompt tokens; those of a turn that was halted go first. Errors: ERR_LIMIT when they do not
 * fit into the context. */
enum status generator_add(struct generator *g, const uint32_t *ids, size_t n, struct error *e);
/* Processes what was added and generates at most limit tokens (-1: no limit), turning the loop
 * until the turn ends. Errors: also ERR_INTERRUPTED, after which only generator_halt or
 * generator_close may follow. */
enum status generator_run(struct generator *g, int64_t limit, struct turn *turn, struct error *e);
/* Ends an interrupted turn: waits for what is on its way and forgets it. */
enum status generator_halt(struct generator *g, struct turn *turn, struct error *e);
/* Forgets all tokens, so that the next ones begin a text; the random draws go on. Between turns. */
void generator_reset(struct generator *g);
/* XXH3 of the rows of logits that were sampled from, in order: the same for the same model, prompt
 * and options, however many ranks, threads or micro-batches were used. */
uint64_t generator_logits_hash(const struct generator *g);
/* Tokens in the context. */
uint32_t generator_tokens(const struct generator *g);

#endif
