/* Small random models as GGUF files for tests: every shape right, every value finite, nothing to say. */
#ifndef SBIT_TESTS_RANDOM_MODEL_H
#define SBIT_TESTS_RANDOM_MODEL_H

#include <stdint.h>

#include "common/dtype.h"
#include "common/model.h"

/* Writes the model c to path: matrices of type dtype, vectors F32. The same arguments give the same
 * file. A failure fails the test. */
void random_model_write(const char *path, const struct model_config *c, enum dtype dtype,
                        uint64_t seed);

#endif
