/* The command line, parsed: one struct for all commands, filled from a table of options
 * (options.c). */
#ifndef SBIT_COORDINATOR_OPTIONS_H
#define SBIT_COORDINATOR_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/wire.h"

enum command {
    CMD_HELP,
    CMD_VERSION,
    CMD_COMPRESS,
    CMD_RUN,
    CMD_EVAL,
    CMD_INSPECT,
    CMD_TOKENIZE,
    CMD_BENCH_KERNELS,
    CMD_BENCH_MODEL
};

struct options { /* strings are borrowed from argv */
    enum command command;
    enum command help_for;   /* CMD_HELP: of which command, CMD_HELP itself for the overview */
    const char *model;       /* MODEL or SRC */
    const char *output;      /* -o */
    const char *json;        /* --json FILE */
    const char *prompt;      /* -p */
    const char *prompt_file; /* -f */
    const char *text;        /* eval --text */
    const char *against;     /* eval --against */
    /* compress */
    const char *method;      /* "code", "sign", "q8_0", "q4_0" */
    double bits;             /* --bits, 0.5 to 4 */
    bool has_bits;
    double outliers;         /* --outliers, share, default 0.02 */
    const char *embeddings;  /* --embeddings: type of embeddings and head, default q8_0 */
    uint64_t shard_bytes;    /* --shard-size, 0: one file */
    /* run */
    int64_t n_predict;       /* -n; -1: until the end token or the context is full */
    double temp, top_p, min_p, repeat_penalty;
    uint32_t top_k;
    uint64_t seed;
    bool has_seed;           /* else the command draws one and says which */
    const char *stop[8];     /* --stop, repeatable */
    uint32_t n_stop;
    bool ignore_eos;
    /* bench */
    const char *shape;       /* --shape, default tinyllama-1.1b */
    const char *type;        /* --type of the matrices, default code for a model; NULL: all kernels */
    uint32_t prompt_tokens;  /* --prompt, default 512 */
    uint32_t decode_tokens;  /* --decode, default 128 */
    const char *cache;       /* --cache DIR, NULL: the user's */
    const char *cpu;         /* --cpu LEVEL, NULL: all levels */
    bool quick;
    /* execution */
    uint32_t context;        /* --ctx; 0: min(model's, 4096) for run, min(model's, 512) for eval */
    uint32_t threads;        /* --threads; 0: cores of the host divided by the ranks on it */
    uint32_t batch;          /* --batch: most tokens in a micro-batch, default 64 */
    enum wire_type wire;     /* --wire f32|f16|q8 */
    enum cache_type kv;      /* --kv f16|q8 */
    bool stats;              /* --stats */
    bool no_verify;          /* --no-verify */
    double timeout;          /* --timeout: seconds a rank may be silent, default 60 */
};

/* Fills *o from argv. Errors: ERR_USAGE with a sentence that names the word, what is allowed, and
 * "see sbit COMMAND --help". */
enum status options_parse(struct options *o, int argc, char **argv, struct error *e);
/* The text of "sbit COMMAND --help" or of "sbit --help", to stdout. */
void options_print_help(enum command command);

#endif
