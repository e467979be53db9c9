/* What the three parts of the wire share: wire.c frames and dispatches, wire_control.c and
 * wire_activation.c turn one body each into protobuf and back. Private to common/wire*.c. */
#ifndef SBIT_COMMON_WIRE_INTERNAL_H
#define SBIT_COMMON_WIRE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

#include "common/wire.h"
#include "proto/control.pb-c.h"

/* Memory for one header while it is packed: protobuf-c wants arrays of pointers. */
struct wire_scratch {
    bool bad_text; /* a string in the message is not terminated */
    union {
        Sbit__Hello hello;
        Sbit__Assign assign;
        Sbit__Ready ready;
        Sbit__Tokens tokens;
        Sbit__Hidden hidden;
        Sbit__Logits logits;
        Sbit__Pong pong;
        Sbit__Stats stats;
        Sbit__Compress compress;
        Sbit__Tensor tensor;
        Sbit__UnitDone unit_done;
        Sbit__Error error;
        Sbit__Stop stop;
    };
    union {
        struct {
            Sbit__Run run[WIRE_RUNS_MAX], *run_list[WIRE_RUNS_MAX];
        };
        struct {
            Sbit__Unit unit[WIRE_UNITS_MAX], *unit_list[WIRE_UNITS_MAX];
        };
    };
};

/* Points the body of *h at scratch memory that describes m. Counts were checked before. */
typedef void (*wire_pack)(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
/* Fills the body of *m and checks it; m->payload_bytes is known. NULL when all is well, else
 * what is wrong, as a phrase. */
typedef const char *(*wire_unpack)(struct message *m, const Sbit__Header *h);

void wire_pack_hello(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_assign(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_ready(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_pong(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_stats(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_compress(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_tensor(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_unit_done(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_error(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_stop(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_tokens(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_hidden(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_logits(const struct message *m, Sbit__Header *h, struct wire_scratch *s);

const char *wire_unpack_hello(struct message *m, const Sbit__Header *h);
const char *wire_unpack_assign(struct message *m, const Sbit__Header *h);
const char *wire_unpack_ready(struct message *m, const Sbit__Header *h);
const char *wire_unpack_pong(struct message *m, const Sbit__Header *h);
const char *wire_unpack_stats(struct message *m, const Sbit__Header *h);
const char *wire_unpack_compress(struct message *m, const Sbit__Header *h);
const char *wire_unpack_tensor(struct message *m, const Sbit__Header *h);
const char *wire_unpack_unit_done(struct message *m, const Sbit__Header *h);
const char *wire_unpack_error(struct message *m, const Sbit__Header *h);
const char *wire_unpack_stop(struct message *m, const Sbit__Header *h);
const char *wire_unpack_tokens(struct message *m, const Sbit__Header *h);
const char *wire_unpack_hidden(struct message *m, const Sbit__Header *h);
const char *wire_unpack_logits(struct message *m, const Sbit__Header *h);

#endif
