/* Activations that rest between two steps of a calibration: floats by their place, in memory, or in
 * an unlinked temporary file when they do not fit. The file lies on this host, in $TMPDIR or else
 * in /var/tmp (/tmp is memory on many systems), and vanishes with the process. What is read is what
 * was written, bit for bit. Knows nothing of models, windows and streams. */
#ifndef SBIT_WORKER_ACT_STORE_H
#define SBIT_WORKER_ACT_STORE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"

struct act_store;

/* Room for floats numbers, zeros at first. The disk's space is taken at once where the file system
 * can, so that a disk too small is known before the work. what: as in "activations of the
 * calibration text". *out is the caller's, act_store_free. Errors: ERR_MEMORY; ERR_IO naming
 * folder, bytes and remedy. */
enum status act_store_create(struct act_store **out, size_t floats, bool on_disk, const char *what,
                             struct error *e);
void act_store_free(struct act_store *s);
bool act_store_on_disk(const struct act_store *s);

/* Copies count floats from place first on. Errors: ERR_LIMIT beyond the room; ERR_IO. */
enum status act_store_read(const struct act_store *s, size_t first, size_t count, float *to,
                           struct error *e);
enum status act_store_write(struct act_store *s, size_t first, size_t count, const float *from,
                            struct error *e);
/* *view: count floats from place first on, for reading, until they are written again: in memory
 * where they are, else copied into room. Errors as above. */
enum status act_store_view(const struct act_store *s, size_t first, size_t count, float *room,
                           const float **view, struct error *e);

#endif
