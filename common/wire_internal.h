/* What the parts of the wire share: wire.c frames and dispatches, wire_control.c,
 * wire_calib.c and wire_activation.c turn one body each into protobuf and back. Private to common/wire*.c. */
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
        Sbit__Part part;
        Sbit__UnitDone unit_done;
        Sbit__Error error;
        Sbit__Stop stop;
        Sbit__Calib calib;
        Sbit__Moments moments;
        Sbit__Measured measured;
        Sbit__Gradient gradient;
        Sbit__Tuned tuned;
        Sbit__Want want;
        Sbit__Probed probed;
        Sbit__Source source;
        Sbit__Opened opened;
        Sbit__Fetch fetch;
        Sbit__State state;
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

extern const char wire_too_long[], wire_not_finite[]; /* what is wrong, as phrases */

/* text of size bytes as protobuf-c wants it; notes in *s when its terminator is missing. */
char *wire_pack_text(struct wire_scratch *s, const char *text, size_t size);
/* Copies a string into its array of size bytes; false when it does not fit with its terminator. */
bool wire_take_name(char *out, size_t size, const char *in);

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
void wire_pack_part(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_unit_done(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_error(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_stop(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_calib(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_moments(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_measured(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_gradient(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_tuned(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_want(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_probed(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_source(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_opened(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_fetch(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_state(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_tokens(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_hidden(const struct message *m, Sbit__Header *h, struct wire_scratch *s);
void wire_pack_logits(const struct message *m, Sbit__Header *h, struct wire_scratch *s);

const char *wire_unpack_hello(struct message *m, const Sbit__Header *h);
const char *wire_unpack_assign(struct message *m, const Sbit__Header *h);
const char *wire_unpack_ready(struct message *m, const Sbit__Header *h);
const char *wire_unpack_pong(struct message *m, const Sbit__Header *h);
const char *wire_unpack_stats(struct message *m, const Sbit__Header *h);
const char *wire_unpack_compress(struct message *m, const Sbit__Header *h);
const char *wire_unpack_part(struct message *m, const Sbit__Header *h);
const char *wire_unpack_unit_done(struct message *m, const Sbit__Header *h);
const char *wire_unpack_error(struct message *m, const Sbit__Header *h);
const char *wire_unpack_stop(struct message *m, const Sbit__Header *h);
const char *wire_unpack_calib(struct message *m, const Sbit__Header *h);
const char *wire_unpack_moments(struct message *m, const Sbit__Header *h);
const char *wire_unpack_measured(struct message *m, const Sbit__Header *h);
const char *wire_unpack_gradient(struct message *m, const Sbit__Header *h);
const char *wire_unpack_tuned(struct message *m, const Sbit__Header *h);
const char *wire_unpack_want(struct message *m, const Sbit__Header *h);
const char *wire_unpack_probed(struct message *m, const Sbit__Header *h);
const char *wire_unpack_source(struct message *m, const Sbit__Header *h);
const char *wire_unpack_opened(struct message *m, const Sbit__Header *h);
const char *wire_unpack_fetch(struct message *m, const Sbit__Header *h);
const char *wire_unpack_state(struct message *m, const Sbit__Header *h);
const char *wire_unpack_tokens(struct message *m, const Sbit__Header *h);
const char *wire_unpack_hidden(struct message *m, const Sbit__Header *h);
const char *wire_unpack_logits(struct message *m, const Sbit__Header *h);

#endif
