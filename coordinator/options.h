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

struct word_list { /* of an option that may be given several times */
    const char *at[8];
    uint32_t n;
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
    const char *tasks;       /* eval --tasks */
    const char *against;     /* eval --against */
    /* compress */
    const char *method;      /* "code", "sign", "q8_0", "q4_0", "q2_0", "q1_0" */
    double bits;             /* --bits, 0.5 to 16 (bench: 4) */
    bool has_bits;
    double outliers;         /* --outliers, share, default 0.02 */
    const char *embeddings;  /* --embeddings: type of embeddings and head, default q8_0 */
    uint64_t shard_bytes;    /* --shard-size, 0: one file */
    struct word_list calib;  /* --calib; none given: the text inside the program */
    uint32_t calib_tokens;   /* --calib-tokens, default 131072 */
    bool has_calib_tokens;
    uint32_t calib_context;  /* --calib-ctx; 0: the model's, at most 512 */
    uint32_t distill;        /* --distill: passes; where has_distill, before what the recipe says */
    bool has_distill;
    const char *recipe;      /* --recipe, NULL: the default */
    uint64_t ram;            /* --ram: bytes that a rank may use to calibrate; 0: no limit */
    const char *html;        /* --html FILE */
    bool resume;             /* --resume */
    bool dry_run;            /* --dry-run */
    /* run */
    int64_t n_predict;       /* -n; -1: until the end token or the context is full */
    double temp, top_p, min_p, repeat_penalty;
    uint32_t top_k;
    uint64_t seed;
    bool has_seed;           /* else the command draws one and says which */
    struct word_list stop;   /* --stop */
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
    uint32_t context;        /* --ctx; 0: the model's, at most 4096 for run, 512 for eval --text */
    uint32_t threads;        /* --threads; 0: cores of the host divided by the ranks on it */
    uint32_t batch;          /* --batch: most tokens in a micro-batch, default 64 */
    enum wire_type wire;     /* --wire f32|f16|q8 */
    enum cache_type kv;      /* --kv f16|q8 */
    bool stats;              /* --stats */
    bool no_verify;          /* --no-verify */
    double timeout;          /* --timeout: seconds a rank may be silent, default 60 */
};

/* Whether compress shall calibrate: every method but sign does unless --calib none is given. */
bool options_calibrated(const struct options *o);
/* Fills *o from argv. Errors: ERR_USAGE with a sentence that names the word, what is allowed, and
 * "see sbit COMMAND --help". */
enum status options_parse(struct options *o, int argc, char **argv, struct error *e);
/* The text of "sbit COMMAND --help" or of "sbit --help", to stdout. */
void options_print_help(enum command command);

#endif
