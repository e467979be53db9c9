/* What the two readers of model descriptions share: the limits that every description must keep.
 * For model.c, model_hf.c and nobody else. */
#ifndef SBIT_COMMON_MODEL_PRIVATE_H
#define SBIT_COMMON_MODEL_PRIVATE_H

#include "common/model.h"

/* Checks a filled description against the limits; path names its file in messages. Errors:
 * ERR_FORMAT. */
enum status model_config_check(const struct model_config *c, const char *path, struct error *e);

#endif
