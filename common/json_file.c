/* JSON documents. Owns the call to the parser; knows nothing of what the documents mean. */
#include "common/json_file.h"

#include "common/mapfile.h"

enum status json_file_parse(json_t **out, const char *data, uint64_t size, const char *name,
                            enum json_integers integers, struct error *e)
{
    json_error_t problem;
    size_t flags = JSON_REJECT_DUPLICATES;
    if (integers == JSON_FILE_REALS)
        flags |= JSON_DECODE_INT_AS_REAL;
    *out = json_loadb(size > 0 ? data : "", size, flags, &problem);
    FAIL_IF(!*out, e, ERR_FORMAT, "%s is not valid JSON: line %d, column %d: %s", name,
            problem.line, problem.column, problem.text);
    return OK;
}

enum status json_file_load(json_t **out, const char *path, uint64_t max_bytes,
                           enum json_integers integers, struct error *e)
{
    struct mapfile file;
    *out = NULL;
    TRY(mapfile_open(&file, path, e));
    enum status status =
        file.size > max_bytes
            ? error_set(e, ERR_LIMIT,
                        "%s has %llu bytes, more than the %llu that such a file may have", path,
                        (unsigned long long)file.size, (unsigned long long)max_bytes)
            : json_file_parse(out, (const char *)file.data, file.size, path, integers, e);
    mapfile_close(&file);
    return status;
}
