/* A received frame: decoding must refuse or accept it without touching other memory, and what is
 * accepted must survive encoding and decoding again; activations are unpacked too. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { UNPACK_MAX = 1 << 22 }; /* bytes: larger shapes only cost time */

static void unpack(const struct message *m)
{
    struct error e = {0};
    size_t bytes = (size_t)m->hidden.rows * m->hidden.cols * sizeof(float);
    float *x = bytes <= UNPACK_MAX ? malloc(bytes) : NULL;
    if (x)
        activation_unpack(m, x, &e);
    free(x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct message m, again;
    struct error e = {0};
    struct frame f = {malloc(size ? size : 1), size, 1};
    if (!f.bytes)
        return 0;
    memcpy(f.bytes, data, size);
    if (message_decode(&m, &f, &e) != OK)
        return 0;
    if (m.kind == MSG_HIDDEN)
        unpack(&m);
    struct frame copy = {.peer = 1};
    if (message_encode(&m, &copy.bytes, &copy.size, &e) != OK ||
        message_decode(&again, &copy, &e) != OK || again.kind != m.kind ||
        again.payload_bytes != m.payload_bytes ||
        memcmp(again.payload, m.payload, m.payload_bytes) != 0)
        abort();
    message_release(&m);
    message_release(&again);
    return 0;
}
