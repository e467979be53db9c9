/* make_massive FOLDER: gives every block's two norms in FOLDER/model.safetensors (BF16) two massive channels, 64
 * times as large as they were, and makes up for it in the columns of the matrices that read them. All of it is
 * powers of two, so that the model computes the same bits as before, but is much harder to compress.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXPONENT = 6, MANTISSA_BITS = 7, HEADER_MAX = 1 << 20 };

static const size_t channels[] = {5, 77};

/* How the channels of a tensor change: +1 norms, -1 columns of the matrices behind them, 0 not. */
static int direction(const char *name)
{
    static const char *const norms[] = {"input_layernorm.", "post_attention_layernorm."};
    static const char *const matrices[] = {"q_proj.", "k_proj.", "v_proj.", "gate_proj.",
                                           "up_proj."};
    for (size_t i = 0; i < sizeof norms / sizeof norms[0]; i++)
        if (strstr(name, norms[i]))
            return 1;
    for (size_t i = 0; i < sizeof matrices / sizeof matrices[0]; i++)
        if (strstr(name, matrices[i]))
            return -1;
    return 0;
}

/* Times 2^(direction EXPONENT). */
static bool scale(FILE *f, long at, int direction)
{
    uint8_t bytes[2];
    if (fseek(f, at, SEEK_SET) != 0 || fread(bytes, 1, 2, f) != 2)
        return false;
    int value = bytes[0] | bytes[1] << 8, exponent = value >> MANTISSA_BITS & 0xff;
    if (exponent > 0) /* zeros stay */
        value += direction * EXPONENT * (1 << MANTISSA_BITS);
    bytes[0] = (uint8_t)value;
    bytes[1] = (uint8_t)(value >> 8);
    return (exponent == 0 || (exponent > EXPONENT && exponent < 255 - EXPONENT)) &&
           fseek(f, at, SEEK_SET) == 0 && fwrite(bytes, 1, 2, f) == 2;
}

static bool change(FILE *f, const json_t *tensor, long data, int direction)
{
    const json_t *shape = json_object_get(tensor, "shape");
    const char *type = json_string_value(json_object_get(tensor, "dtype"));
    long at =
        data + (long)json_integer_value(json_array_get(json_object_get(tensor, "data_offsets"), 0));
    size_t dims = json_array_size(shape);
    bool good = type && strcmp(type, "BF16") == 0 && dims > 0;
    size_t cols = good ? (size_t)json_integer_value(json_array_get(shape, dims - 1)) : 0;
    size_t rows = dims > 1 ? (size_t)json_integer_value(json_array_get(shape, 0)) : 1;
    for (size_t r = 0; r < rows && good; r++)
        for (size_t i = 0; i < sizeof channels / sizeof channels[0] && good; i++)
            good =
                channels[i] < cols && scale(f, at + 2 * (long)(r * cols + channels[i]), direction);
    return good;
}

static bool change_all(FILE *f)
{
    static char header[HEADER_MAX];
    uint8_t size[8];
    const char *name;
    json_t *tensor;
    if (fread(size, 1, sizeof size, f) != sizeof size || size[3] || size[2] >= HEADER_MAX >> 16)
        return false;
    size_t n = (size_t)size[0] | (size_t)size[1] << 8 | (size_t)size[2] << 16;
    if (fread(header, 1, n, f) != n)
        return false;
    json_t *tensors = json_loadb(header, n, 0, NULL);
    bool good = tensors != NULL;
    json_object_foreach(tensors, name, tensor) if (good && direction(name)) good =
        change(f, tensor, (long)(sizeof size + n), direction(name));
    json_decref(tensors);
    return good;
}

int main(int argc, char **argv)
{
    char path[4096];
    if (argc != 2) {
        fprintf(stderr, "make_massive FOLDER\n");
        return 2;
    }
    snprintf(path, sizeof path, "%s/model.safetensors", argv[1]);
    FILE *f = fopen(path, "r+b");
    bool good = f && change_all(f);
    if (f && fclose(f) != 0)
        good = false;
    if (!good)
        fprintf(stderr, "make_massive: %s cannot be changed\n", path);
    return good ? 0 : 1;
}
