/* The messages between ranks as plain structs, and their form on the wire (docs/wire.md):
 *
 *   u32 header length | protobuf header (at most 64 KiB) | payload, raw bytes
 *
 * Everything is little-endian and of fixed width. A frame that is not exactly that is refused
 * with a sentence; unknown protocol versions and kinds too. */
#ifndef SBIT_COMMON_WIRE_H
#define SBIT_COMMON_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/cache.h"
#include "common/codebook.h"
#include "common/error.h"
#include "common/model.h"
#include "common/recipe.h"
#include "common/transport.h"

#define WIRE_VERSION 5u
#define WIRE_HEADER_MAX 65536u
#define WIRE_PAYLOAD_MAX (1u << 30)                      /* bytes of f32 activations or logits */
#define WIRE_FRAME_MAX (WIRE_PAYLOAD_MAX + WIRE_HEADER_MAX + 4u) /* bytes of a whole frame */
#define WIRE_TEXT_MAX 1024   /* strings in headers, terminator included */
#define WIRE_RUNS_MAX 256    /* runs in one micro-batch */
#define WIRE_UNITS_MAX 256   /* units in one MSG_COMPRESS */
#define WIRE_PIECE_MAX (UINT64_C(4) << 20) /* bytes of the source that one MSG_FETCH asks for */

enum message_kind {
    MSG_HELLO = 1, /* every rank -> 0, first of all: who I am */
    MSG_ASSIGN,    /* 0 -> rank: open this model, take these blocks */
    MSG_READY,     /* rank -> 0: slice loaded and verified */
    MSG_TOKENS,    /* 0 -> 0: a micro-batch enters the pipeline; payload u32 token ids */
    MSG_HIDDEN,    /* stage -> next stage, last stage -> 0: activations */
    MSG_LOGITS,    /* 0 -> 0: rows of logits; payload f32 [rows][cols] */
    MSG_PING,      /* 0 -> rank: are you alive */
    MSG_PONG,      /* rank -> 0: yes, and what I am doing */
    MSG_ASK_STATS, /* 0 -> rank */
    MSG_STATS,     /* rank -> 0 */
    MSG_COMPRESS,  /* 0 -> rank: compress these units (several messages; the final one says so) */
    MSG_TENSOR,    /* rank -> 0: bytes of a finished tensor or of a part of it */
    MSG_UNIT_DONE, /* rank -> 0: a unit is complete; its error sums */
    MSG_ERROR,     /* rank -> 0: I failed, and why */
    MSG_STOP,      /* 0 -> rank: the job is over */
    MSG_CALIB,     /* 0 -> rank, before COMPRESS: the calibration text; payload u32, see below */
    MSG_MOMENTS,   /* rank <-> 0: floats of a node of moments, or of the sum of all */
    MSG_PART,      /* rank -> every other rank: bytes of a tensor that all work on together */
    MSG_MEASURED,  /* rank -> 0: what the measuring pass says of a matrix */
    MSG_GRADIENT,  /* rank <-> 0: gradients of a window while distilling, or their sum; f32 */
    MSG_TUNED,     /* 0 -> 0: a step of distilling is done */
    MSG_WANT,      /* rank -> 0: send me the finished units of this block, as PART */
    MSG_PROBED,    /* rank -> 0: how long parts of a calibrated compression take */
    MSG_SOURCE,    /* 0 -> rank: the model to compress, as described by its headers */
    MSG_OPENED,    /* rank -> 0: whether it has the model's files */
    MSG_FETCH,     /* rank without them -> 0: bytes of a tensor of the source are wanted */
    MSG_FETCHED,   /* 0 -> rank: they */
    MSG_STATE,     /* 0 -> rank: bytes of a state of distilling to go on from */
    MSG_KEEP,      /* 0 -> 0: bytes of a state of distilling that another run may go on from */
    MSG_KINDS
};

struct msg_hello {
    uint32_t protocol;
    char version[64];  /* program version */
    char host[128];
    char cpu[64];      /* kernel variant */
    uint32_t cores;    /* usable by this process */
    uint64_t ram_bytes;
    uint64_t available_bytes; /* of them, when the rank began; 0: unknown */
};

enum wire_type { WIRE_F32, WIRE_F16, WIRE_Q8 };
enum wire_codec { CODEC_RAW, CODEC_PLANES_LZ4, CODEC_LZ4 };

struct msg_assign {
    uint32_t job;          /* 0: the model; 1: the reference of eval --against */
    char path[WIRE_TEXT_MAX];
    uint64_t model_hash;   /* weights.header_hash at rank 0 */
    uint32_t first_block, block_count;
    uint32_t stage;        /* this rank's place in the ring, 0-based */
    uint32_t stages;       /* how many ranks the ring has */
    uint32_t next_rank;    /* receives this stage's output; rank 0 after the last */
    bool has_head;         /* embeddings, final norm and head: rank 0 */
    uint32_t context;      /* positions per sequence */
    uint32_t sequences;    /* KV slots */
    uint32_t batch;        /* most tokens in a micro-batch */
    uint32_t threads;
    enum wire_type wire;
    bool verify;           /* check tensor hashes while loading */
    enum cache_type cache;
};

struct msg_ready {
    uint32_t job;
};

struct run { /* count consecutive positions of one sequence inside a micro-batch */
    uint32_t sequence, position, count;
    uint32_t logits; /* how many of the run's last rows want logits: 0, 1, ... count */
};

struct msg_tokens {
    uint32_t job;
    uint64_t batch; /* micro-batch number */
    uint32_t n_runs;
    struct run runs[WIRE_RUNS_MAX];
};

struct msg_hidden {
    uint32_t job;
    uint64_t batch;
    uint32_t stage; /* who shall work on it: 0..stages-1, or stages for the head */
    uint32_t n_runs;
    struct run runs[WIRE_RUNS_MAX];
    uint32_t rows, cols;
    enum wire_type type;
    enum wire_codec codec;
    uint64_t raw_bytes; /* payload before the codec */
    uint64_t hash;      /* XXH3 of the payload as sent */
};

struct msg_logits {
    uint32_t job;
    uint64_t batch;
    uint32_t rows, cols; /* rows: all wanted ones, in order of the runs */
};

struct msg_pong {
    char doing[128]; /* "computing block 3 of micro-batch 12", "waiting" */
};

struct msg_stats {
    char host[128];
    uint32_t first_block, block_count;
    uint64_t peak_rss_bytes;
    double compute_s, wait_s; /* since the slice was ready */
    uint64_t messages, sent_bytes, sent_raw_bytes; /* activations to other ranks */
};

struct compress_unit { /* one matrix, or one tensor copied as it is */
    char name[64];     /* source tensor, "blk.3.ffn_up.weight" */
    uint32_t method;   /* enum unit_method */
    uint32_t d;        /* UNIT_CODE */
    uint32_t index;    /* place in the coordinator's list */
    bool shared;       /* calibrated: all ranks work on it together, and all of them get it */
    bool columns;      /* UNIT_CODE: with column scales (the form has .code_in) */
    bool done;         /* shared: finished by an earlier run; its bytes come on WANT */
};
enum unit_method {
    UNIT_CODE,
    UNIT_SIGN,
    UNIT_Q8_0,
    UNIT_Q4_0,
    UNIT_F16,
    UNIT_F32,
    UNIT_BF16,
    UNIT_Q2_0,
    UNIT_Q1_0
};
/* What a measuring pass tries with every matrix (form_choice of common/forms.h). */
enum { UNIT_CHOICES = CODEBOOK_COUNT + 2 };

struct msg_compress {
    double outliers;    /* UNIT_SIGN: share of weights restored in F16 */
    uint32_t threads;
    bool last;          /* no more units follow */
    uint32_t n_units;
    struct compress_unit units[WIRE_UNITS_MAX];
};

struct msg_part { /* of MSG_TENSOR and MSG_PART */
    uint32_t unit;
    char suffix[32];    /* ".code", ".code_out", ".weight", ...: appended to the base name */
    uint64_t offset;    /* where the payload stands inside the tensor */
};

struct msg_unit_done {
    uint32_t unit;
    double error2, weight2; /* sums over the matrix of (w - w')^2 and w^2 */
    double seconds;
    /* Under the curvature of the inputs (struct band_loss of the workers); zeros uncalibrated. */
    double signal, rounded, fed, final;
};

/* Payload: u32 length[windows], then the tokens of all windows one after the other. */
struct msg_calib {
    char recipe[RECIPE_TEXT_MAX]; /* recipe_text */
    uint32_t context;             /* most tokens of a window */
    uint32_t windows;             /* at least 1 */
    uint32_t threads;
    uint32_t embeddings;          /* enum unit_method in which the file will hold them */
    uint32_t embeddings_d;        /* ... UNIT_CODE */
    bool measure;                 /* MSG_MEASURED of every matrix is wanted before COMPRESS */
    bool probe;                   /* only PROBED is wanted, for matrices of this form: */
    uint32_t method, d;           /* enum unit_method */
    bool spill;                   /* activations rest on disk */
    uint64_t moment_floats; /* of a product's second moments at most, in blocks; 0: they are full */
};

/* Payload: floats. */
struct msg_moments {
    uint32_t block, step;
    bool measuring;        /* of the measuring pass */
    uint32_t first, count; /* lanes of the node */
    uint64_t tokens;       /* that were added to it */
    bool cross;            /* of C, else of H */
    uint64_t offset;       /* where the payload stands inside the matrix, in floats */
};

struct msg_measured {
    uint32_t block, kind; /* enum tensor_kind */
    bool columns;         /* column scales pay */
    double loss[UNIT_CHOICES]; /* per weight, in the order of form_choice, 0 for a type whose block does not
                                * divide the rows and for what other ranks try; zeros with importance */
    bool importance;      /* sent after the losses of all matrices: */
    double energy;        /* ... what a loss of 1 costs */
};

struct msg_gradient {
    uint32_t step;
    uint32_t lane; /* whose window it is; in the sum for all: how many lanes there are */
    double kl;     /* summed over the window's tokens, or over the step's */
};

struct msg_tuned {
    uint32_t step, steps; /* steps that are done, of how many */
    double kl;            /* mean over the tokens of the step, before it */
};

struct msg_want {
    uint32_t block;
    bool state;      /* not a block: STATE from offset on */
    uint64_t offset;
};

/* Of MSG_STATE and MSG_KEEP. Payload: bytes of the state from offset on, at most WIRE_PIECE_MAX of them; STATE
 * without payload: there is none. */
struct msg_state {
    uint32_t step; /* steps that are done */
    uint64_t offset;
};

struct msg_probed { /* seconds, by all threads of the rank */
    double forward; /* a token through a block, in one stream */
    double moments; /* a token into H of the four steps of a block */
    double factor;  /* curvature and correction of q, k, v */
    double search;  /* a row of q */
};

/* Payload: struct weights_entry of every tensor, in u32, then the floats [rope_dim / 2] of RoPE
 * factors, if any. */
struct msg_source {
    char path[WIRE_TEXT_MAX];
    uint64_t model_hash;
    uint32_t tensors;
    bool rope_factors;
    struct model_config config;
};

struct msg_opened {
    bool missing; /* it will FETCH what it needs */
};

/* Of MSG_FETCH and MSG_FETCHED. Payload of FETCH: pairs of u64, offset in the tensor and size, at
 * least one, of together at most WIRE_PIECE_MAX bytes; of FETCHED: those bytes one after the other. */
struct msg_fetch {
    uint32_t kind, block; /* enum tensor_kind */
};

struct msg_error {
    uint32_t status;
    char text[WIRE_TEXT_MAX];
};

struct msg_stop {
    bool failed; /* leave with a non-zero exit code */
};

struct message {
    enum message_kind kind;
    int peer; /* who sent it (received messages) */
    union {
        struct msg_hello hello;
        struct msg_assign assign;
        struct msg_ready ready;
        struct msg_tokens tokens;
        struct msg_hidden hidden;
        struct msg_logits logits;
        struct msg_pong pong;
        struct msg_stats stats;
        struct msg_compress compress;
        struct msg_part tensor, part;
        struct msg_unit_done unit_done;
        struct msg_error error;
        struct msg_stop stop;
        struct msg_calib calib;
        struct msg_moments moments;
        struct msg_measured measured;
        struct msg_gradient gradient;
        struct msg_tuned tuned;
        struct msg_want want;
        struct msg_probed probed;
        struct msg_source source;
        struct msg_opened opened;
        struct msg_fetch fetch, fetched;
        struct msg_state state, keep;
    };
    const void *payload; /* borrowed on sending; inside bytes when received */
    size_t payload_bytes;
    uint8_t *bytes; /* received: the frame, owned; message_release */
};

/* "HELLO" for MSG_HELLO and so on; "unknown" for what is no kind. */
const char *message_name(enum message_kind kind);

/* *bytes (malloc'd, the caller's) = the frame of m. Errors: ERR_MEMORY, ERR_LIMIT (a text without
 * terminator, more runs or units than allowed, a frame over the limits), ERR_UNSUPPORTED. */
enum status message_encode(const struct message *m, uint8_t **bytes, size_t *size, struct error *e);
/* Reads a received frame; takes f->bytes in any case. Strings are terminated, counts within
 * their arrays, sums of run counts equal rows or token counts, sums of window lengths the
 * tokens that came. The payload is aligned for any type (it is moved to the front of the frame).
 * Errors: ERR_PEER naming the sender. */
enum status message_decode(struct message *m, struct frame *f, struct error *e);
/* Frees what decode took; accepts a zeroed message. */
void message_release(struct message *m);

/* Bytes of rows x cols activations before the codec: 4 or 2 each, or for WIRE_Q8 one byte each
 * and two for the scale of every 32 (the last of a row may be fewer). 0 when that does not fit
 * 64 bits. */
uint64_t activation_raw_bytes(enum wire_type type, uint32_t rows, uint32_t cols);

/* Fills type, codec, raw_bytes and hash of *h and gives the payload for x[rows][cols] (malloc'd,
 * the caller's). WIRE_F32 is lossless: the four bytes of the floats as planes, LZ4 where
 * smaller. WIRE_F16 rounds to nearest; WIRE_Q8 stores each 32 values as int8 with an F16 scale.
 * With raw true (a message to oneself) f32 values travel as they are, whatever type says.
 * h->rows and h->cols are set before. Errors: ERR_MEMORY; ERR_LIMIT over 1 GiB, or when a value
 * is not finite or too large for F16 or Q8. */
enum status activation_pack(struct msg_hidden *h, const float *x, enum wire_type type, bool raw,
                            uint8_t **payload, size_t *bytes, struct error *e);
/* x[rows][cols] = the payload of a received MSG_HIDDEN; checks sizes and hash. Errors: ERR_PEER,
 * ERR_MEMORY. */
enum status activation_unpack(const struct message *m, float *x, struct error *e);

#endif
