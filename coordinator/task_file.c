/* Questions from lines of JSON. */
#include "coordinator/task_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

#define SPACE "\t\n\v\f\r "

struct place { /* what sentences name */
    const char *file;
    size_t line;
};

static size_t leading_space(const char *text)
{
    return strspn(text, SPACE);
}

static enum status check_choices(const json_t *choices, struct place at, struct error *e)
{
    size_t number;
    json_t *choice;
    FAIL_IF(!json_is_array(choices), e, ERR_FORMAT,
            "%s, line %zu: \"choices\" is %s: give a list of texts", at.file, at.line,
            choices ? "no list" : "missing");
    FAIL_IF(json_array_size(choices) < 2, e, ERR_FORMAT,
            "%s, line %zu: \"choices\" has %zu text%s: give at least 2", at.file, at.line,
            json_array_size(choices), json_array_size(choices) == 1 ? "" : "s");
    FAIL_IF(json_array_size(choices) > UINT32_MAX, e, ERR_FORMAT,
            "%s, line %zu: \"choices\" has too many texts", at.file, at.line);
    json_array_foreach(choices, number, choice)
    {
        const char *text = json_string_value(choice);
        FAIL_IF(!text, e, ERR_FORMAT, "%s, line %zu: choice %zu is no text: put it in quotes",
                at.file, at.line, number);
        FAIL_IF(!text[leading_space(text)], e, ERR_FORMAT,
                "%s, line %zu: choice %zu is empty: every choice needs at least one character",
                at.file, at.line, number);
    }
    return OK;
}

static enum status check_answer(const json_t *answer, size_t n, struct place at, struct error *e)
{
    FAIL_IF(!json_is_integer(answer), e, ERR_FORMAT,
            "%s, line %zu: \"answer\" is %s: give the place of the right choice, 0 to %zu", at.file,
            at.line, answer ? "no whole number" : "missing", n - 1);
    json_int_t value = json_integer_value(answer);
    FAIL_IF(value < 0 || (uint64_t)value >= n, e, ERR_FORMAT,
            "%s, line %zu: \"answer\" is %lld but there are %zu choices, counted from 0: give "
            "0 to %zu",
            at.file, at.line, (long long)value, n, n - 1);
    return OK;
}

/* Fills *q, whose object has been read. */
static enum status take_object(struct task_question *q, struct place at, struct error *e)
{
    FAIL_IF(!json_is_object(q->object), e, ERR_FORMAT,
            "%s, line %zu is no JSON object: write {\"question\": \"...\", \"choices\": [\"...\", "
            "\"...\"], \"answer\": 0}",
            at.file, at.line);
    const json_t *question = json_object_get(q->object, "question");
    const json_t *choices = json_object_get(q->object, "choices");
    const json_t *answer = json_object_get(q->object, "answer");
    FAIL_IF(!json_is_string(question), e, ERR_FORMAT,
            "%s, line %zu: \"question\" is %s: give a text in quotes", at.file, at.line,
            question ? "no text" : "missing");
    TRY(check_choices(choices, at, e));
    TRY(check_answer(answer, json_array_size(choices), at, e));
    q->line = at.line;
    q->n_choices = (uint32_t)json_array_size(choices);
    q->answer = (uint32_t)json_integer_value(answer);
    q->question = json_string_value(question);
    return OK;
}

static enum status take_line(struct task_file *f, const char *line, size_t size, struct place at,
                             struct error *e)
{
    json_error_t problem;
    struct task_question *q = &f->questions[f->n_questions];
    q->object = json_loadb(line, size, JSON_REJECT_DUPLICATES, &problem);
    FAIL_IF(!q->object, e, ERR_FORMAT,
            "%s, line %zu is not valid JSON (column %d: %s): write one object on each line",
            at.file, at.line, problem.column, problem.text);
    q->first = f->n_choices;
    f->n_questions++;
    TRY(take_object(q, at, e));
    f->n_choices += q->n_choices;
    return OK;
}

static size_t count_lines(const char *bytes, size_t size)
{
    size_t lines = 1;
    for (size_t i = 0; i < size; i++)
        lines += bytes[i] == '\n';
    return lines;
}

static bool is_blank(const char *line, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (!line[i] || !strchr(SPACE, line[i]))
            return false;
    }
    return true;
}

enum status task_file_parse(struct task_file *f, const char *bytes, size_t size, const char *name,
                            struct error *e)
{
    struct place at = {.file = name};
    size_t from = size >= 3 && !memcmp(bytes, "\xef\xbb\xbf", 3) ? 3 : 0;
    *f = (struct task_file){0};
    TRY(mem_array(&f->questions, count_lines(bytes, size), sizeof *f->questions, "questions", e));
    while (from < size) {
        const char *line = bytes + from, *newline = memchr(line, '\n', size - from);
        size_t n = newline ? (size_t)(newline - line) : size - from;
        at.line++;
        if (!is_blank(line, n))
            TRY(take_line(f, line, n, at, e));
        from += n + 1;
    }
    FAIL_IF(f->n_questions == 0, e, ERR_FORMAT,
            "%s has no questions: write one JSON object on each line, as docs/tasks.md shows",
            name);
    return OK;
}

void task_file_free(struct task_file *f)
{
    for (uint64_t i = 0; i < f->n_questions; i++)
        json_decref(f->questions[i].object);
    free(f->questions);
    *f = (struct task_file){0};
}

const char *task_choice(const struct task_question *q, uint32_t number)
{
    return json_string_value(json_array_get(json_object_get(q->object, "choices"), number));
}

uint32_t task_choice_bytes(const struct task_question *q, uint32_t number)
{
    const char *text = task_choice(q, number);
    return (uint32_t)strlen(text + leading_space(text));
}

enum status task_text(char **text, const struct task_question *q, uint32_t number, struct error *e)
{
    const char *choice = task_choice(q, number);
    size_t asked = strlen(q->question), room = asked + strlen(choice) + 2;
    bool joined = asked == 0 || strchr(SPACE, q->question[asked - 1]) || leading_space(choice) > 0;
    TRY(mem_array(text, room, 1, "the text of a choice", e));
    snprintf(*text, room, "%s%s%s", q->question, joined ? "" : " ", choice);
    return OK;
}
