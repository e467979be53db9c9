/* Multiple-choice questions, as docs/tasks.md describes their file: one JSON object a line with
 * "question", "choices" and "answer". Knows texts, not tokens. */
#ifndef SBIT_COORDINATOR_TASK_FILE_H
#define SBIT_COORDINATOR_TASK_FILE_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct task_question {
    json_t *object;       /* owns the texts */
    size_t line;          /* in the file, from 1 */
    uint64_t first;       /* its choices are numbers first .. first + n_choices - 1 of the file's */
    uint32_t n_choices;   /* at least 2 */
    uint32_t answer;      /* the right one, below n_choices */
    const char *question; /* may be "" */
};

struct task_file {
    struct task_question *questions; /* [n_questions], at least 1 */
    uint64_t n_questions, n_choices; /* n_choices: of all questions together */
};

/* Reads the size bytes of a file called name. A byte order mark, blank lines, CRLF and a missing
 * newline at the end are fine; keys other than the three are skipped. *f is the caller's,
 * task_file_free, also after an error. Errors: ERR_FORMAT naming file, line, fact and remedy;
 * ERR_MEMORY. */
enum status task_file_parse(struct task_file *f, const char *bytes, size_t size, const char *name,
                            struct error *e);
void task_file_free(struct task_file *f);

/* The text of a choice (a view) as it stands in the file: never empty, never white space alone. */
const char *task_choice(const struct task_question *q, uint32_t number);
/* Its bytes without white space in front, by which its log-likelihood is divided. */
uint32_t task_choice_bytes(const struct task_question *q, uint32_t number);
/* *text = the question followed by the choice, with a space between unless the question is empty
 * or one of the two has white space there; free(). Errors: ERR_MEMORY. */
enum status task_text(char **text, const struct task_question *q, uint32_t number, struct error *e);

#endif
