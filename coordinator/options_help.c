/* The help texts, laid out from the table of options. */
#include <stdio.h>
#include <string.h>

#include "coordinator/options_table.h"

#define HELP_COLUMN 26

/* "  -o, --output FILE" padded to the column of the explanations, whose further lines are
 * indented. */
static void print_option(const struct option_rule *r)
{
    char left[64];
    snprintf(left, sizeof left, "  %s--%s%s%s",
             r->letter ? (char[]){'-', r->letter, ',', ' ', 0} : "    ", r->name,
             r->value ? " " : "", r->value ? r->value : "");
    printf("%-*s", HELP_COLUMN, left);
    if (strlen(left) >= HELP_COLUMN)
        printf("\n%*s", HELP_COLUMN, "");
    for (const char *c = r->help; *c; c++) {
        putchar(*c);
        if (*c == '\n')
            printf("%*s", HELP_COLUMN, "");
    }
    putchar('\n');
}

static void print_overview(void)
{
    printf("sbit compresses large language models to about one bit per weight and runs them over\n"
           "one or several machines.\n\n"
           "usage: sbit COMMAND ...\n"
           "       mpirun -n RANKS sbit COMMAND ...\n\n");
    for (const struct command_rule *r = command_rules; r->name; r++)
        printf("  %-13s %-6s %s\n", r->name, r->argument ? r->argument : "", r->summary);
    printf(
        "\nsbit COMMAND --help lists the options of a command; sbit --version tells the version.\n"
        "Environment: SBIT_CPU=LEVEL, one that --version lists, limits the instructions used.\n");
}

void options_print_help(enum command command)
{
    const struct command_rule *rule = command_rule(command);
    if (!rule) {
        print_overview();
        return;
    }
    printf("usage: sbit %s %s%s[options]\n\n%s\n\n", rule->name,
           rule->argument ? rule->argument : "", rule->argument ? " " : "", rule->about);
    for (const struct option_rule *r = option_rules; r->name; r++) {
        if (r->commands & 1u << command)
            print_option(r);
    }
}
