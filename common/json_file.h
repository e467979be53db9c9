/* JSON from files and memory, by jansson, with errors that name the file and the line. */
#ifndef SBIT_COMMON_JSON_FILE_H
#define SBIT_COMMON_JSON_FILE_H

#include <jansson.h>
#include <stdint.h>

#include "common/error.h"

/* *out = the document of the file at path, to be released with json_decref. A file of more than
 * max_bytes is refused before it is read (ERR_LIMIT). Errors: ERR_IO, ERR_FORMAT with line and
 * column; a key that occurs twice in an object is an error, and so is an integer of more than 63
 * bits, unless integers are asked for as real numbers. */
enum json_integers { JSON_FILE_INTEGERS, JSON_FILE_REALS };
enum status json_file_load(json_t **out, const char *path, uint64_t max_bytes,
                           enum json_integers integers, struct error *e);

/* The same over size bytes in memory; name appears in messages. */
enum status json_file_parse(json_t **out, const char *data, uint64_t size, const char *name,
                            enum json_integers integers, struct error *e);

#endif
