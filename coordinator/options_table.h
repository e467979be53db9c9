/* The table of all options: what options.c parses and options_help.c prints. */
#ifndef SBIT_COORDINATOR_OPTIONS_TABLE_H
#define SBIT_COORDINATOR_OPTIONS_TABLE_H

#include <stddef.h>

#include "coordinator/options.h"

enum option_kind {
    OPTION_FLAG,   /* bool */
    OPTION_STRING, /* const char * */
    OPTION_LIST,   /* struct word_list */
    OPTION_CHOICE, /* const char *, one of choices */
    OPTION_WIRE,   /* enum wire_type: the place among choices */
    OPTION_CACHE,  /* enum cache_type, likewise */
    OPTION_REAL,   /* double */
    OPTION_U32,
    OPTION_U64,
    OPTION_I64,
    OPTION_SIZE, /* uint64_t bytes, with K, M, G, T or P */
};

struct option_rule {
    const char *name; /* without "--"; "" when there is only the letter */
    char letter;      /* 0: none */
    enum option_kind kind;
    size_t offset;              /* of the field in struct options */
    size_t given_offset;        /* of a bool that tells that the option was given; 0: none */
    double min, max;            /* numbers */
    const char *const *choices; /* NULL-terminated */
    unsigned commands;          /* bit 1 << enum command */
    const char *value;          /* "FILE", "N", for the help */
    const char *help;           /* lines separated by '\n' */
};

struct command_rule {
    const char *name;
    enum command command;
    const char *argument; /* "MODEL", "SRC"; NULL: takes none */
    const char *summary;  /* one line */
    const char *about;    /* what sbit COMMAND --help says above the options */
};

extern const struct option_rule option_rules[];   /* ends with name NULL */
extern const struct command_rule command_rules[]; /* ends with name NULL */

/* The row of a command, or NULL for CMD_HELP and CMD_VERSION. */
const struct command_rule *command_rule(enum command command);

#endif
