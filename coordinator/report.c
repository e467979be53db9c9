/* What a command leaves behind besides its result: the --json and --html files and the --stats
 * table. */
#include "coordinator/cluster.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/mem.h"
#include "common/utf8.h"

/* A device or pipe is written directly, anything else beside and renamed. /dev/stdout is what the
 * shell made of it, but its name must not be renamed over even when that is a file. */
static bool is_special(const char *path)
{
    struct stat st;
    bool device = strncmp(path, "/dev/", 5) == 0 || strncmp(path, "/proc/", 6) == 0;
    return stat(path, &st) == 0 && (device || !S_ISREG(st.st_mode));
}

/* Not ".part", which an unfinished compression may have left beside its journal. */
static enum status part_name(char **out, const char *path, struct error *e)
{
    size_t n = strlen(path) + 32;
    TRY(mem_array(out, n, 1, "a file name", e));
    snprintf(*out, n, "%s.report-%ld", path, (long)getpid());
    return OK;
}

const char *report_ratio(char out[128], uint64_t bytes, double others, const char *what)
{
    double larger = (double)bytes / others;
    if (larger < 0.995)
        snprintf(out, 128, "%.2f times smaller than %s", 1 / larger, what);
    else if (larger < 1.005)
        snprintf(out, 128, "as large as %s", what);
    else
        snprintf(out, 128, "%.2f times the size of %s", larger, what);
    return out;
}

static enum status check_target(const char *path, const char *option, struct error *e)
{
    struct stat st;
    char *part;
    if (!path)
        return OK;
    FAIL_IF(!*path, e, ERR_USAGE, "%s needs the name of a file", option);
    FAIL_IF(stat(path, &st) == 0 && S_ISDIR(st.st_mode), e, ERR_IO,
            "%s is a folder: %s needs the name of a file", path, option);
    if (is_special(path))
        return OK;
    TRY(part_name(&part, path, e));
    FILE *f = fopen(part, "wb");
    enum status status = OK;
    if (f) {
        fclose(f);
        unlink(part);
    } else {
        status = error_set_errno(e, ERR_IO, "cannot write %s", path);
    }
    free(part);
    return status;
}

enum status report_check_path(const char *path, struct error *e)
{
    return check_target(path, "--json", e);
}

enum status report_check_page(const char *path, struct error *e)
{
    return check_target(path, "--html", e);
}

/* The file's name, behind the folder. */
static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool same_inode(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static bool same_folder(const char *a, const char *b)
{
    char x[4096], y[4096];
    snprintf(x, sizeof x, "%.*s.", (int)(base_name(a) - a), a);
    snprintf(y, sizeof y, "%.*s.", (int)(base_name(b) - b), b);
    return same_inode(x, y);
}

/* Also before the files exist. */
static bool same_file(const char *a, const char *b)
{
    return same_inode(a, b) || (strcmp(base_name(a), base_name(b)) == 0 && same_folder(a, b));
}

static bool is_utf8(const char *s)
{
    size_t left = strlen(s);
    while (left > 0) {
        int size = utf8_step(s, left);
        if (size <= 0)
            return false;
        s += size;
        left -= (size_t)size;
    }
    return true;
}

/* Refuses a report at path that would replace the file of that name. */
static enum status check_apart(const char *path, const char *option, const char *name,
                               struct error *e)
{
    if (!path || !name)
        return OK;
    FAIL_IF(!is_special(path) && same_file(path, name), e, ERR_USAGE,
            "%s %s would overwrite %s: name another file", option, path, name);
    FAIL_IF(!is_utf8(name), e, ERR_USAGE,
            "the name %s is not UTF-8, so %s cannot report it: rename it or leave out %s", name,
            option, option);
    return OK;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Refuses what would take the place of a file of weights, an output's shard among them, or of another file of the
 * model's folder. */
static enum status check_model(const char *path, const char *option, const char *model,
                               struct error *e)
{
    static const char *const own[] = {"config.json",           "generation_config.json",
                                      "tokenizer.json",        "tokenizer_config.json",
                                      "tokenizer.model",       "special_tokens_map.json",
                                      "added_tokens.json",     "model.safetensors.index.json"};
    char folder[4096];
    if (!path || !model || is_special(path))
        return OK;
    FAIL_IF(ends_with(path, ".gguf") || ends_with(path, ".safetensors"), e, ERR_USAGE,
            "%s %s has the name of a file of weights: name another file", option, path);
    snprintf(folder, sizeof folder, "%.*s.", (int)(base_name(path) - path), path);
    for (size_t i = 0; i < sizeof own / sizeof *own && same_inode(folder, model); i++)
        FAIL_IF(strcmp(base_name(path), own[i]) == 0, e, ERR_USAGE,
                "%s %s would overwrite a file of the model: name another file", option, path);
    return OK;
}

/* Refuses what would take the place of the files of an unfinished compression. */
static enum status check_work(const char *path, const char *option, const char *output,
                              struct error *e)
{
    static const char *const ends[] = {".part", ".journal", ".distill.part"};
    for (size_t i = 0; output && i < sizeof ends / sizeof *ends; i++) {
        char name[4096];
        snprintf(name, sizeof name, "%s%s", output, ends[i]);
        TRY(check_apart(path, option, name, e));
    }
    return OK;
}

static enum status check_report(const char *path, const char *option, const struct options *o,
                                struct error *e)
{
    const char *const names[] = {o->model, o->output, o->against,
                                 o->text,  o->tasks,  o->prompt_file};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        TRY(check_apart(path, option, names[i], e));
    for (uint32_t i = 0; i < o->calib.n; i++)
        TRY(check_apart(path, option, o->calib.at[i], e));
    TRY(check_work(path, option, o->output, e));
    TRY(check_model(path, option, o->model, e));
    return check_model(path, option, o->against, e);
}

enum status report_check_names(const struct options *o, struct error *e)
{
    TRY(check_report(o->json, "--json", o, e));
    TRY(check_report(o->html, "--html", o, e));
    return check_apart(o->json, "--json", o->html, e);
}

static enum status put(const char *text, size_t size, const char *file, const char *mode,
                       const char *path, struct error *e)
{
    FILE *f = fopen(file, mode);
    if (!f)
        return error_set_errno(e, ERR_IO, "cannot write %s", path);
    bool good = fwrite(text, 1, size, f) == size;
    good = fclose(f) == 0 && good;
    return good ? OK : error_set_errno(e, ERR_IO, "cannot write %s", path);
}

static enum status put_beside(const char *text, size_t size, const char *path, struct error *e)
{
    char *part;
    TRY(part_name(&part, path, e));
    enum status status = put(text, size, part, "wb", path, e);
    if (status == OK && rename(part, path) != 0)
        status = error_set_errno(e, ERR_IO, "cannot rename %s to %s", part, path);
    if (status != OK)
        unlink(part);
    free(part);
    return status;
}

enum status report_write_text(const char *text, size_t size, const char *path, struct error *e)
{
    fflush(stdout); /* which may be the same file; "a": it may hold something already */
    return is_special(path) ? put(text, size, path, "ab", path, e)
                            : put_beside(text, size, path, e);
}

enum status report_write_json(json_t *root, const char *path, struct error *e)
{
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_PRESERVE_ORDER) : NULL;
    json_decref(root);
    FAIL_IF(!text, e, ERR_MEMORY, "out of memory: the report for %s", path);
    size_t size = strlen(text);
    text[size++] = '\n'; /* in place of the terminator */
    enum status status = report_write_text(text, size, path, e);
    free(text);
    return status;
}

enum status cluster_ranks_json(const struct cluster *c, json_t **out, struct error *e)
{
    *out = json_array();
    for (int r = 0; r < c->size; r++) {
        const struct msg_stats *s = &c->stats[r];
        json_t *row = json_pack(
            "{s:i, s:s, s:I, s:I, s:I, s:f, s:f, s:I, s:I, s:I}", "rank", r, "host", s->host,
            "first_block", (json_int_t)s->first_block, "blocks", (json_int_t)s->block_count,
            "peak_rss_bytes", (json_int_t)s->peak_rss_bytes, "compute_s", s->compute_s, "wait_s",
            s->wait_s, "messages", (json_int_t)s->messages, "sent_bytes", (json_int_t)s->sent_bytes,
            "sent_raw_bytes", (json_int_t)s->sent_raw_bytes);
        if (json_array_append_new(*out, row) != 0) {
            json_decref(*out);
            *out = NULL;
            return error_set(e, ERR_MEMORY,
                             "the numbers of rank %d (host %s) cannot be put into JSON", r,
                             s->host);
        }
    }
    return OK;
}

/* "0-3", "5" or "-". */
static void block_range(char out[24], const struct msg_stats *s)
{
    if (s->block_count == 0)
        snprintf(out, 24, "-");
    else if (s->block_count == 1)
        snprintf(out, 24, "%u", s->first_block);
    else
        snprintf(out, 24, "%u-%u", s->first_block, s->first_block + s->block_count - 1);
}

void cluster_print_stats(const struct cluster *c)
{
    const double mib = 1 << 20;
    fprintf(stderr, "rank  host              blocks   peak MiB   compute s      wait s  messages"
                    "   sent MiB  before packing MiB\n");
    for (int r = 0; r < c->size; r++) {
        const struct msg_stats *s = &c->stats[r];
        char blocks[24];
        block_range(blocks, s);
        fprintf(stderr, "%4d  %-16.16s %7s %10.1f %11.3f %11.3f %9llu %10.3f %19.3f\n", r, s->host,
                blocks, (double)s->peak_rss_bytes / mib, s->compute_s, s->wait_s,
                (unsigned long long)s->messages, (double)s->sent_bytes / mib,
                (double)s->sent_raw_bytes / mib);
    }
}
