/* Any bytes as a safetensors file, and as a config.json. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/json_file.h"
#include "common/model.h"
#include "common/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink; /* keeps the reads */

static void run_config(const uint8_t *data, size_t size)
{
    struct error e = {0};
    struct model_config config;
    json_t *json;
    if (json_file_parse(&json, (const char *)data, size, "fuzz", JSON_FILE_INTEGERS, &e) != OK)
        return;
    sink += model_config_from_json(&config, json, "fuzz", &e);
    json_decref(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error e = {0};
    struct safetensors s;
    run_config(data, size);
    if (safetensors_parse(&s, data, size, "fuzz", &e) != OK)
        return 0;
    for (uint64_t i = 0; i < s.n_tensors; i++) {
        const struct safetensors_tensor *t = &s.tensors[i];
        if (t->bytes > 0)
            sink += t->data[0] + t->data[t->bytes - 1];
        sink += safetensors_find(&s, t->name) == t;
    }
    safetensors_close(&s);
    return 0;
}
