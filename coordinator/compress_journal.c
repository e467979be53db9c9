#include "coordinator/compress_journal.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "common/mapfile.h"
#include "common/mem.h"
#include "coordinator/compress_units.h"

#define FIRST_LINE     "sbit journal 1"
#define COMMIT_SECONDS 0.25 /* of finished work at most are lost; a commit waits for the disk */

/* What the job is: everything that determines the bytes of its output. */

enum { IDENTITY_MAX = 16, IDENTITY_TEXT = 320 };

struct identity {
    uint32_t n;
    struct {
        const char *name;
        char value[IDENTITY_TEXT];
    } entry[IDENTITY_MAX];
};

/* Some bytes of every tensor: the headers alone do not tell a model from another training of it, and
 * reading all of them would take minutes. */
static uint64_t sample_weights(const struct weights *w)
{
    enum { SPOTS = 4, SPOT_BYTES = 4096 };
    uint64_t hash = 0;
    for (uint64_t i = 0; i < w->n_tensors; i++) {
        const struct tensor *t = &w->tensors[i];
        uint64_t size = t->bytes < SPOT_BYTES ? t->bytes : SPOT_BYTES;
        for (uint64_t s = 0; s < SPOTS; s++)
            hash = XXH3_64bits_withSeed(t->data + (t->bytes - size) / (SPOTS - 1) * s, size, hash);
        mapfile_drop(t->data, t->bytes);
    }
    return hash;
}

__attribute__((format(printf, 3, 4))) static void identify(struct identity *id, const char *name,
                                                           const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vsnprintf(id->entry[id->n].value, IDENTITY_TEXT, format, values);
    va_end(values);
    id->entry[id->n++].name = name;
}

static void identify_job(struct identity *id, const struct compress_journal *j)
{
    const struct options *o = j->options;
    const struct compress_calibration *c = j->calibration;
    identify(id, "sbit version", "%s", SBIT_VERSION);
    identify(id, "source model", "%016" PRIx64, j->source->header_hash);
    identify(id, "weights of the source", "%016" PRIx64, sample_weights(j->source));
    identify(id, "--method", "%s", o->method);
    identify(id, "--bits", "%.17g", o->bits);
    identify(id, "--outliers", "%.17g", o->outliers);
    identify(id, "--embeddings", "%s", o->embeddings);
    identify(id, "--shard-size", "%" PRIu64, o->shard_bytes);
    identify(id, "calibration", "%s", c ? "yes" : "none");
    identify(id, "--calib-ctx", "%u", c ? c->context : 0);
    identify(id, "tokens of calibration", "%" PRIu64, c ? c->tokens : 0);
    identify(id, "calibration text", "%016" PRIx64, c ? c->hash : 0);
    identify(id, "the size of second moments, by --ram,", "%" PRIu64, j->moment_floats);
    identify(id, "--recipe", "%s", c ? c->recipe : "none");
}

/* Reading */

static enum status refuse_line(const struct compress_journal *j, uint32_t i, struct error *e)
{
    return error_set(e, ERR_FORMAT,
                     "%s.journal has a line %u that this version of sbit does not know: remove it "
                     "and the .part files beside it to begin again",
                     j->target, i + 1);
}

/* The identity's lines; *i = the first line behind them. A journal of which not even they were written
 * has none. */
static enum status compare(struct compress_journal *j, const struct identity *id, uint32_t *i,
                           struct error *e)
{
    for (uint32_t k = 0; k < id->n; k++) {
        char expected[IDENTITY_TEXT + 64];
        int name = snprintf(expected, sizeof expected, "job %s: ", id->entry[k].name);
        const char *line = *i < journal_lines(j->journal) ? journal_line(j->journal, (*i)++) : "";
        if (strncmp(line, expected, (size_t)name) != 0)
            return refuse_line(j, *i - 1, e);
        FAIL_IF(strcmp(line + name, id->entry[k].value) != 0, e, ERR_USAGE,
                "%s.journal is of another job: %s was %s there and is %s now; repeat the command "
                "that began it, or remove it and the .part files beside it to begin again",
                j->target, id->entry[k].name, line + name, id->entry[k].value);
    }
    return OK;
}

static bool read_measured(struct compress_journal *j, const char *line)
{
    struct msg_measured m = {0};
    struct error ignored = {0};
    unsigned columns;
    int used = 0;
    if (sscanf(line, "measured %" SCNu32 " %" SCNu32 " %u%n", &m.block, &m.kind, &columns, &used) !=
        3)
        return false;
    char *at = (char *)line + used;
    for (int i = 0; i < UNIT_CHOICES; i++) {
        const char *number = at;
        m.loss[i] = strtod(number, &at);
        if (at == number)
            return false;
    }
    if (*at)
        return false;
    m.columns = columns != 0;
    j->n_measured++;
    return compress_take_measured(j->units, j->n, &m, &ignored) == OK;
}

/* The words of a unit's line behind its name. */
static bool read_result(struct compress_result *r, uint64_t hash[FORM_TENSORS_MAX], char *at)
{
    double *const numbers[] = {&r->error2,  &r->weight2, &r->seconds, &r->signal,
                               &r->rounded, &r->fed,     &r->final};
    uint32_t tensors = (uint32_t)strtoul(at, &at, 10);
    if (tensors > FORM_TENSORS_MAX)
        return false;
    for (uint32_t t = 0; t < tensors; t++)
        hash[t] = strtoull(at, &at, 16);
    for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++)
        *numbers[k] = strtod(at, &at);
    return *at == '\0';
}

/* A line of s, behind its first word. */
static bool read_unit(struct compress_journal *j, struct journal_units *s, const char *line)
{
    uint32_t i;
    char name[64], rest[1024];
    int end = 0;
    if (sscanf(line, "%" SCNu32 " %63s %n", &i, name, &end) != 2 || end == 0 || i >= j->n ||
        strcmp(name, j->units[i].name) != 0 || strlen(line + end) >= sizeof rest)
        return false;
    if (s == &j->searched && (!j->aside || !plan_is_matrix(&j->units[i])))
        return false;
    strcpy(rest, line + end);
    if (!read_result(&j->results[i], s->hash[i], rest))
        return false;
    s->n_recorded += !s->recorded[i];
    s->recorded[i] = true;
    return true;
}

static bool read_state(struct compress_journal *j, const char *line)
{
    struct journal_state s = {.there = true};
    uint32_t number;
    int end = 0;
    if (sscanf(line, "%" SCNu32 " %" SCNu32 " %" SCNx64 "%n", &number, &s.step, &s.hash, &end) !=
            3 ||
        line[end] || number > 1 || s.step == 0 || !j->aside)
        return false;
    j->state[number] = s;
    j->newest = (int)number;
    return true;
}

static bool read_line(struct compress_journal *j, const char *line)
{
    int end = 0;
    if (strncmp(line, "measured ", 9) == 0)
        return read_measured(j, line);
    if (strncmp(line, "unit ", 5) == 0)
        return read_unit(j, &j->finished, line + 5);
    if (strncmp(line, "searched ", 9) == 0)
        return read_unit(j, &j->searched, line + 9);
    if (strncmp(line, "tuning ", 7) == 0)
        return read_state(j, line + 7);
    if (sscanf(line, "planned %" SCNx64 "%n", &j->layout, &end) == 1 && !line[end])
        return j->planned = true;
    if (strcmp(line, "sealed") == 0)
        return j->sealed = true;
    return false;
}

/* What was finished, without a look at whose it was. */
static uint32_t count(const struct compress_journal *j, const char *word)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < journal_lines(j->journal); i++)
        n += strncmp(journal_line(j->journal, i), word, strlen(word)) == 0;
    return n;
}

static enum status take_lines(struct compress_journal *j, const struct identity *id,
                              struct error *e)
{
    uint32_t i = 1;
    TRY(compare(j, id, &i, e));
    for (; i < journal_lines(j->journal); i++)
        if (!read_line(j, journal_line(j->journal, i)))
            return refuse_line(j, i, e);
    j->measured = j->n_measured > 0;
    j->accepted = j->resumed = true;
    return OK;
}

static enum status write_identity(struct compress_journal *j, const struct identity *id,
                                  struct error *e)
{
    journal_reset(j->journal);
    TRY(journal_add(j->journal, e, FIRST_LINE));
    for (uint32_t k = 0; k < id->n; k++)
        TRY(journal_add(j->journal, e, "job %s: %s", id->entry[k].name, id->entry[k].value));
    j->accepted = true;
    return journal_commit(j->journal, e);
}

/* "5 of 60 units done", and what is searched where that is not all. */
static void say_done(const struct compress_journal *j, uint32_t units, uint32_t searched,
                     char out[96])
{
    int n = snprintf(out, 96, "%u of %u units done", units, j->n);
    if (j->aside)
        n += snprintf(out + n, 96 - (size_t)n, " and %u of %u matrices searched", searched,
                      j->n_matrices);
    if (compress_journal_steps(j) > 0)
        snprintf(out + n, 96 - (size_t)n, ", %u steps tuned", compress_journal_steps(j));
}

/* A journal that holds no more than what the job is can be begun anew: nothing is lost. */
static enum status use(struct compress_journal *j, struct error *e)
{
    struct identity id = {0};
    bool resume = j->options->resume;
    char done[96];
    uint32_t units = count(j, "unit "), searched = count(j, "searched ");
    uint32_t worth = units + searched + count(j, "measured ");
    say_done(j, units, searched, done);
    FAIL_IF(worth > 0 && !resume, e, ERR_USAGE,
            "%s.journal is of an unfinished compression into this file, with %s: continue it with "
            "--resume, or remove it and the .part files beside it to begin again",
            j->target, done);
    identify_job(&id, j);
    if (worth > 0)
        TRY(take_lines(j, &id, e));
    /* The measurements are written in one piece; torn, they are none. */
    bool torn = j->n_measured > 0 && j->n_measured < j->n_matrices;
    for (uint32_t i = 0; i < j->n && torn; i++) {
        j->units[i].measured = j->units[i].columns = false;
        memset(j->units[i].loss, 0, sizeof j->units[i].loss);
    }
    if (worth > 0 && !torn)
        return OK;
    if (resume)
        fprintf(stderr, "sbit: there is nothing to resume at %s: beginning from the start\n",
                j->target);
    j->had = journal_lines(j->journal) > 0;
    j->resumed = j->measured = false;
    return write_identity(j, &id, e);
}

static enum status open_at(struct compress_journal *j, struct error *e)
{
    char *path;
    size_t room = strlen(j->target) + sizeof ".journal";
    TRY(mem_array(&path, room, 1, "a file name", e));
    snprintf(path, room, "%s.journal", j->target);
    enum status status = journal_open(&j->journal, path, e);
    free(path);
    return status;
}

static enum status open_units(struct journal_units *s, struct compress_file *file, uint32_t n,
                              struct error *e)
{
    s->file = file;
    TRY(mem_array(&s->hash, n, sizeof *s->hash, "the journal", e));
    TRY(mem_array(&s->recorded, n, sizeof *s->recorded, "the journal", e));
    return mem_array(&s->taken, n, sizeof *s->taken, "the journal", e);
}

static void free_units(struct journal_units *s)
{
    free(s->hash);
    free(s->recorded);
    free(s->taken);
}

/* A file that no journal knows is refused now, before any work. */
static enum status check_parts(const struct compress_journal *j, struct error *e)
{
    char *aside;
    if (compress_journal_parts(j) == GGUF_PARTS_NONE) /* shards' names depend on the plan */
        TRY(gguf_output_check_part(j->target, e));
    if (!j->aside || compress_journal_parts_aside(j) != GGUF_PARTS_NONE)
        return OK;
    TRY(compress_file_aside_path(&aside, j->target, e));
    enum status status = gguf_output_check_part(aside, e);
    free(aside);
    return status;
}

enum status compress_journal_open(struct compress_journal *j, bool *measured, struct error *e)
{
    TRY(open_units(&j->finished, j->file, j->n, e));
    TRY(open_units(&j->searched, j->aside, j->n, e));
    for (uint32_t i = 0; i < j->n; i++)
        j->n_matrices += plan_is_matrix(&j->units[i]);
    TRY(gguf_output_check(j->file->out, &j->target, e));
    TRY(open_at(j, e));
    FAIL_IF(
        journal_lines(j->journal) > 0 && strcmp(journal_line(j->journal, 0), FIRST_LINE) != 0, e,
        ERR_USAGE,
        "%s.journal is of another version of sbit: continue with that one, or remove it and the "
        ".part files beside it to begin again",
        j->target);
    TRY(use(j, e));
    TRY(check_parts(j, e));
    *measured = j->measured;
    return OK;
}

enum status compress_journal_measured(struct compress_journal *j, struct error *e)
{
    for (uint32_t i = 0; i < j->n; i++) {
        const struct plan_unit *u = &j->units[i];
        const double *l = u->loss;
        _Static_assert(UNIT_CHOICES == 11, "as many losses below");
        if (u->measured)
            TRY(journal_add(j->journal, e, "measured %u %u %d %a %a %a %a %a %a %a %a %a %a %a",
                            u->block, (unsigned)u->kind, u->columns, l[0], l[1], l[2], l[3], l[4],
                            l[5], l[6], l[7], l[8], l[9], l[10]));
    }
    TRY(journal_commit(j->journal, e));
    j->measured = true;
    return OK;
}

enum gguf_parts compress_journal_parts(const struct compress_journal *j)
{
    return j->sealed                    ? GGUF_PARTS_SEALED
           : j->finished.n_recorded > 0 ? GGUF_PARTS_SOME
           : j->had || j->resumed       ? GGUF_PARTS_OLD
                                        : GGUF_PARTS_NONE;
}

enum gguf_parts compress_journal_parts_aside(const struct compress_journal *j)
{
    return j->searched.n_recorded > 0 ? GGUF_PARTS_SOME
           : j->had || j->resumed     ? GGUF_PARTS_OLD
                                      : GGUF_PARTS_NONE;
}

/* Taking over */

static enum status check_layout(struct compress_journal *j, struct error *e)
{
    uint64_t layout = gguf_output_layout(j->file->out);
    FAIL_IF(j->planned && j->layout != layout, e, ERR_USAGE,
            "%s.journal is of another job: the output would be laid out differently now, because "
            "the tokenizer, the configuration or the name of %s has changed; restore it, or remove "
            "the journal and the .part files beside it to begin again",
            j->target, j->source->path);
    if (j->planned)
        return OK;
    TRY(journal_add(j->journal, e, "planned %016" PRIx64, layout));
    return journal_commit(j->journal, e);
}

static bool *mark(const struct compress_journal *j, const struct journal_units *s, uint32_t i)
{
    return s == &j->searched ? &j->results[i].searched : &j->results[i].done;
}

static enum status adopt(const struct compress_journal *j, struct journal_units *s, uint32_t i,
                         struct error *e)
{
    bool same = true;
    for (uint32_t t = 0; t < j->units[i].form.n && same; t++)
        TRY(gguf_output_adopt(s->file->out, s->file->first_tensor[i] + t, s->hash[i][t], &same, e));
    s->recorded[i] = same;
    return OK;
}

/* The unit is to be made again. */
static void forget(const struct compress_journal *j, struct journal_units *s, uint32_t i)
{
    for (uint32_t t = 0; t < j->units[i].form.n; t++)
        gguf_output_forget(s->file->out, s->file->first_tensor[i] + t);
    s->recorded[i] = false;
}

/* Which of the recorded units the file really holds. */
static enum status verify(const struct compress_journal *j, struct journal_units *s,
                          struct loop *loop, struct error *e)
{
    s->n_recorded = 0;
    for (uint32_t i = 0; i < j->n; i++) {
        TRY(loop_alive(loop, e));
        if (s->recorded[i] && !j->sealed)
            TRY(adopt(j, s, i, e));
        if (!s->recorded[i] && !j->sealed && (s != &j->searched || plan_is_matrix(&j->units[i])))
            forget(j, s, i);
        s->n_recorded += s->recorded[i];
    }
    return OK;
}

/* What is tuned comes all at once, behind the last step. */
static void drop_tuned(struct compress_journal *j)
{
    struct journal_units *s = &j->finished;
    bool whole = true;
    for (uint32_t i = 0; i < j->n; i++)
        whole = whole && (s->recorded[i] || !compress_is_shared(&j->units[i], true, true));
    for (uint32_t i = 0; i < j->n && !whole; i++) {
        if (!s->recorded[i] || !compress_is_shared(&j->units[i], true, true))
            continue;
        forget(j, s, i);
        s->n_recorded--;
    }
}

/* The newest state that the file really holds, if any. */
static enum status verify_states(struct compress_journal *j, struct loop *loop, struct error *e)
{
    uint32_t steps = compress_journal_steps(j);
    for (int i = 0; i < 2; i++) {
        struct journal_state *s = &j->state[i];
        TRY(loop_alive(loop, e));
        if (s->there)
            TRY(gguf_output_adopt(j->aside->out, j->aside->state + (uint32_t)i, s->hash, &s->there,
                                  e));
    }
    if (!j->state[j->newest].there)
        j->newest = 1 - j->newest;
    if (compress_journal_steps(j) < steps)
        fprintf(stderr,
                "sbit: distillation cannot go on at step %u, which is damaged in %s.distill.part: it "
                "goes on at step %u\n",
                steps, j->target, compress_journal_steps(j));
    return OK;
}

static void report_lost(const struct compress_journal *j, uint32_t units, uint32_t searched)
{
    if (j->finished.n_recorded < units)
        fprintf(stderr,
                "sbit: %u finished units cannot be used as they stand in %s.part: they are made "
                "again\n",
                units - j->finished.n_recorded, j->target);
    if (j->searched.n_recorded < searched)
        fprintf(stderr,
                "sbit: %u searched matrices cannot be used as they stand in %s.distill.part: they "
                "are searched again\n",
                searched - j->searched.n_recorded, j->target);
}

static void take_units(const struct compress_journal *j, struct journal_units *s)
{
    for (uint32_t i = 0; i < j->n; i++)
        *mark(j, s, i) = s->taken[i] = s->recorded[i];
}

enum status compress_journal_begin(struct compress_journal *j, struct loop *loop, struct error *e)
{
    uint32_t units = j->finished.n_recorded, searched = j->searched.n_recorded;
    char done[96];
    TRY(check_layout(j, e));
    TRY(verify(j, &j->finished, loop, e));
    if (j->aside)
        TRY(verify(j, &j->searched, loop, e));
    if (j->aside && !j->sealed)
        TRY(verify_states(j, loop, e));
    report_lost(j, units, searched);
    if (j->aside)
        drop_tuned(j);
    take_units(j, &j->finished);
    take_units(j, &j->searched);
    say_done(j, j->finished.n_recorded, j->searched.n_recorded, done);
    if (units + searched > 0)
        fprintf(stderr, "sbit: continuing with %s\n", done);
    return OK;
}

/* Recording */

static enum status add_unit(struct compress_journal *j, const struct journal_units *s, uint32_t i,
                            struct error *e)
{
    const struct plan_unit *u = &j->units[i];
    const struct compress_result *r = &j->results[i];
    char hashes[FORM_TENSORS_MAX * 17 + 1] = "";
    for (uint32_t t = 0; t < u->form.n; t++)
        snprintf(hashes + 17 * t, 18, " %016" PRIx64,
                 gguf_output_hash(s->file->out, s->file->first_tensor[i] + t));
    return journal_add(j->journal, e, "%s %u %s %u%s %a %a %a %a %a %a %a",
                       s == &j->searched ? "searched" : "unit", i, u->name, u->form.n, hashes,
                       r->error2, r->weight2, r->seconds, r->signal, r->rounded, r->fed, r->final);
}

static uint32_t count_new(const struct compress_journal *j, const struct journal_units *s)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < j->n; i++)
        n += *mark(j, s, i) && !s->recorded[i];
    return n;
}

/* First the bytes, then the word that they are there. */
static enum status add_units(struct compress_journal *j, const struct journal_units *s,
                             struct error *e)
{
    if (count_new(j, s) == 0)
        return OK;
    TRY(gguf_output_sync(s->file->out, e));
    for (uint32_t i = 0; i < j->n; i++)
        if (*mark(j, s, i) && !s->recorded[i])
            TRY(add_unit(j, s, i, e));
    return OK;
}

static void note_recorded(const struct compress_journal *j, struct journal_units *s)
{
    s->n_recorded += count_new(j, s);
    for (uint32_t i = 0; i < j->n; i++)
        s->recorded[i] = *mark(j, s, i);
}

enum status compress_journal_step(struct compress_journal *j, bool at_once, struct error *e)
{
    if (!at_once && loop_now() - j->committed < COMMIT_SECONDS)
        return OK;
    if (count_new(j, &j->searched) + count_new(j, &j->finished) == 0)
        return OK;
    TRY(add_units(j, &j->searched, e));
    TRY(add_units(j, &j->finished, e));
    TRY(journal_commit(j->journal, e));
    note_recorded(j, &j->searched);
    note_recorded(j, &j->finished);
    j->committed = loop_now();
    return OK;
}

enum status compress_journal_keep(struct compress_journal *j, const struct msg_state *at,
                                  const void *data, size_t size, struct error *e)
{
    struct gguf_output *out = j->aside->out;
    int number = 1 - j->newest;
    uint32_t index = j->aside->state + (uint32_t)number;
    if (at->offset == 0)
        gguf_output_forget(out, index);
    j->state[number].there = false;
    TRY(gguf_output_write(out, index, at->offset, data, size, e));
    if (at->offset + size < j->aside->state_bytes)
        return OK;
    j->state[number] = (struct journal_state){true, at->step, gguf_output_hash(out, index)};
    TRY(gguf_output_sync(out, e));
    TRY(journal_add(j->journal, e, "tuning %d %u %016" PRIx64, number, at->step,
                    j->state[number].hash));
    TRY(journal_commit(j->journal, e));
    j->newest = number;
    return OK;
}

uint32_t compress_journal_steps(const struct compress_journal *j)
{
    return j->state[j->newest].there ? j->state[j->newest].step : 0;
}

enum status compress_journal_state(const struct compress_journal *j, uint64_t offset, void *data,
                                   size_t size, struct error *e)
{
    return gguf_output_read(j->aside->out, j->aside->state + (uint32_t)j->newest, offset, data,
                            size, e);
}

enum status compress_journal_sealed(struct compress_journal *j, struct error *e)
{
    if (j->sealed)
        return OK;
    TRY(journal_add(j->journal, e, "sealed"));
    return journal_commit(j->journal, e);
}

/* What another run would meet again is no reason to keep this one's work; what an earlier run left is
 * not this one's to throw away. */
static bool worth_keeping(const struct compress_journal *j, enum status status)
{
    bool again = status == ERR_FORMAT || status == ERR_LIMIT || status == ERR_UNSUPPORTED ||
                 status == ERR_USAGE;
    bool something = j->measured || j->finished.n_recorded > 0 || j->searched.n_recorded > 0;
    return j->resumed || (something && !again);
}

static void tell(const struct compress_journal *j, struct error *e)
{
    size_t used = strlen(e->text), room = sizeof e->text - used;
    char *end = e->text + used;
    if (compress_journal_steps(j) > 0)
        snprintf(end, room,
                 "; %u steps of distillation are done and kept in %s.distill.part and .journal: the "
                 "same command with --resume goes on from there",
                 compress_journal_steps(j), j->target);
    else if (j->searched.n_recorded > 0)
        snprintf(end, room,
                 "; %u of %u matrices are searched and kept in %s.distill.part and .journal: the "
                 "same command with --resume goes on from there",
                 j->searched.n_recorded, j->n_matrices, j->target);
    else if (j->finished.n_recorded == 0 || j->aside) /* what else there is takes no time */
        snprintf(end, room,
                 "; what was measured is kept in %s.journal: the same command with --resume goes "
                 "on from there",
                 j->target);
    else
        snprintf(end, room,
                 "; %u of %u units are finished and kept in %s.part and .journal: the same command "
                 "with --resume goes on from there",
                 j->finished.n_recorded, j->n, j->target);
}

/* The file aside is of use no more: before its journal, which alone tells what it is. */
static void remove_aside(const struct compress_journal *j)
{
    struct error ignored = {0};
    char *path;
    gguf_output_free(j->aside->out);
    j->aside->out = NULL;
    if (!j->sealed || compress_file_aside_path(&path, j->target, &ignored) != OK)
        return;
    gguf_output_remove_part(path); /* an earlier run's, which this one had no need to open */
    free(path);
}

void compress_journal_close(struct compress_journal *j, enum status status, struct error *e)
{
    struct error ignored = {0};
    if (j->accepted && status != OK && j->file->first_tensor)
        (void)compress_journal_step(j, true, &ignored);
    bool keep = status != OK && (!j->accepted || worth_keeping(j, status));
    if (keep && j->accepted)
        gguf_output_leave(j->file->out);
    if (keep && j->aside && j->aside->out)
        gguf_output_leave(j->aside->out);
    if (!keep && j->aside)
        remove_aside(j);
    if (keep && j->accepted && status != ERR_USAGE) /* that has its own remedy */
        tell(j, e);
    if (keep)
        journal_close(j->journal);
    else
        journal_remove(j->journal);
    free(j->target);
    free_units(&j->finished);
    free_units(&j->searched);
    *j = (struct compress_journal){0};
}
