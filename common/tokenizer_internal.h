/* The inside of a tokenizer, shared by the files tokenizer*.c and text_stream.c only.
 *
 * A loader (tokenizer_gguf.c, tokenizer_hf.c, tokenizer_model.c) calls tok_create, tok_set for
 * each token, tok_index, tok_merges where the source has merges, sets the options and ends with
 * tok_finish. After that nothing changes, so one tokenizer serves any number of threads. */
#ifndef SBIT_COMMON_TOKENIZER_INTERNAL_H
#define SBIT_COMMON_TOKENIZER_INTERNAL_H

#include "common/tokenizer.h"

#define TOK_NONE      UINT32_MAX
#define TOK_MAX_VOCAB (1u << 24)     /* tokens, and merges: ranks stay exact in a float */
#define TOK_MAX_PIECE 1024           /* bytes of one token; real ones stay below 300 */
#define TOK_MAX_SPLIT 8              /* pre-tokenizer regular expressions in a row */
#define TOK_SPACE     "\xE2\x96\x81" /* U+2581, SentencePiece's space */

/* Numbers as in GGUF tokenizer.ggml.token_type and in tokenizer.model. */
enum tok_type {
    TOK_NORMAL = 1,
    TOK_UNKNOWN = 2,
    TOK_CONTROL = 3, /* written out in a text it counts only where special tokens are parsed */
    TOK_USER = 4,    /* written out in a text it always counts, before anything else */
    TOK_UNUSED = 5,
    TOK_BYTE = 6, /* "<0x41>" */
};

struct tok_piece {
    uint32_t text, text_size;   /* in texts: as the source writes it */
    uint32_t shown, shown_size; /* in shown: the bytes it stands for */
    float score;
    uint8_t type;                 /* 0: a hole so far */
    bool strip_left, strip_right; /* an added token that swallows the white space beside it */
    bool ends;                    /* generation stops here */
};

struct tok_bytes {
    char *data;
    size_t size, capacity;
};

struct tok_ids {
    uint32_t *id;
    size_t count, capacity;
};

struct tok_merge {
    uint32_t left, right, result;
};

struct tokenizer {
    char *source; /* the file, for messages */
    char describe[96];
    bool spm; /* else byte-level BPE */
    uint32_t n;
    struct tok_piece *pieces; /* [n] */
    struct tok_bytes texts, shown;
    uint32_t *by_text; /* hash table of ids, TOK_NONE is empty */
    uint32_t text_mask;
    uint32_t n_merges;
    struct tok_merge *merges; /* in order of rank */
    uint32_t *by_pair;        /* hash table of merge numbers */
    uint32_t pair_mask;
    uint32_t byte_id[256]; /* TOK_NONE where there is no such token */
    bool byte_fallback;
    uint32_t n_added;
    uint32_t *added; /* tokens that are found in the raw text: by first byte, longest first */
    uint32_t added_start[257];        /* where each first byte begins */
    uint32_t bos, eos, eot, unk, pad; /* TOK_NONE where there is none */
    bool add_bos, add_eos;

    /* Byte-level BPE. */
    char pre[32]; /* its name in GGUF */
    uint32_t n_split;
    char *pattern[TOK_MAX_SPLIT];
    struct pcre2_real_code_8 *split[TOK_MAX_SPLIT];
    bool nfc;           /* the text is brought to Unicode's form C first */
    bool ignore_merges; /* a word that is a token needs no merges */

    /* SentencePiece BPE. */
    bool fuse_unk;            /* a run of unknown characters is one token */
    bool dummy_prefix;        /* a space is put in front of the text */
    bool prefix_first_only;   /* not again after special tokens */
    bool prefix_after_user;   /* also after user-defined tokens */
    bool prefix_unless_space; /* not where the text begins with a space anyway */
    bool remove_extra_spaces;
    bool rank_pairs; /* the pairs listed in merges and no others; else any pair that is a token */
    bool cut_words;  /* no token has a space after something else: words are independent */
};

/* tokenizer_vocab.c */

/* A tokenizer of n tokens, all holes. Errors: ERR_LIMIT when n is 0 or above TOK_MAX_VOCAB. */
enum status tok_create(struct tokenizer **out, const char *source, uint64_t n, bool spm,
                       struct error *e);
/* Fills token id. Errors: ERR_FORMAT for an id out of range or used twice, a token too long, a
 * score that is not a number, an unknown type. */
enum status tok_set(struct tokenizer *t, uint64_t id, const char *text, size_t size, int type,
                    float score, struct error *e);
/* Turns holes into unused tokens "[PAD7]" and builds the table of texts. */
enum status tok_index(struct tokenizer *t, struct error *e);
/* The token with that text, of any type but unused and byte; TOK_NONE. */
uint32_t tok_find(const struct tokenizer *t, const char *text, size_t size);
/* The same among those that plain text can become. */
uint32_t tok_find_plain(const struct tokenizer *t, const char *text, size_t size);
/* Makes room for count merges, to be given in order of rank. */
enum status tok_merges(struct tokenizer *t, uint64_t count, struct error *e);
/* Adds one. Errors: ERR_FORMAT when a part or the result is not a token. */
enum status tok_merge(struct tokenizer *t, const char *left, size_t left_size, const char *right,
                      size_t right_size, struct error *e);
/* The same with both parts in one string, "th e". */
enum status tok_merge_line(struct tokenizer *t, const char *line, size_t size, struct error *e);
/* The rank of the merge of two tokens, TOK_NONE: there is none. */
uint32_t tok_rank(const struct tokenizer *t, uint32_t left, uint32_t right);
/* What is derived from the rest: shown bytes, byte tokens, added tokens, ends, description. */
enum status tok_finish(struct tokenizer *t, struct error *e);
/* Turns *out into a failed load: frees it. Returns status, for "return tok_drop(...)". */
enum status tok_drop(struct tokenizer **out, enum status status);

enum status tok_append(struct tok_bytes *b, const char *data, size_t size, struct error *e);
enum status tok_push(struct tok_ids *ids, uint32_t id, struct error *e);
/* "<0x41>" -> 0x41, else -1. */
int tok_byte_of(const char *text, size_t size);

/* tokenizer_merge.c: merging of neighbours, best first, leftmost among equals, in O(n log n). */

struct merge_symbol {
    uint32_t start, size; /* bytes of the text; size 0: merged away */
    uint32_t prev, next;  /* TOK_NONE at the ends */
    uint32_t id;          /* TOK_NONE: no such token */
};

struct merge_entry {
    float cost; /* smaller is merged earlier */
    uint32_t left, right, size, id;
};

struct merger { /* zeroed before first use; reusable */
    struct merge_symbol *symbols;
    uint32_t n, capacity;
    struct merge_entry *heap;
    size_t heap_n, heap_capacity;
};

/* Empties the merger and makes room for n symbols. */
enum status merger_reset(struct merger *m, size_t n, struct error *e);
void merger_add(struct merger *m, uint32_t start, uint32_t size, uint32_t id);
/* Merges until nothing fits; then symbol 0 and its chain of next are the result. */
enum status merger_run(struct merger *m, const struct tokenizer *t, const char *text,
                       struct error *e);
void merger_free(struct merger *m);

/* tokenizer_bpe.c */

/* Takes the pre-tokenizer of that GGUF name. Errors: ERR_UNSUPPORTED naming it. */
enum status bpe_use_named(struct tokenizer *t, const char *name, struct error *e);
/* Adds and compiles one expression. Errors: ERR_FORMAT, ERR_LIMIT. */
enum status bpe_add_split(struct tokenizer *t, const char *pattern, struct error *e);
const char *bpe_gpt2_pattern(void);
/* Finds the GGUF name for the expressions present, "singularbit-custom" if none has them. */
void bpe_name_splits(struct tokenizer *t);
/* Whether a tokenizer of that GGUF name puts BOS first unless the file says otherwise. */
bool bpe_default_add_bos(const struct tokenizer *t);
void bpe_free(struct tokenizer *t);
/* The character that stands for a byte in the vocabulary; returns its bytes. */
size_t bpe_byte_text(char out[4], uint8_t byte);
/* Bytes that a vocabulary text stands for into out (at least size bytes); -1: not such a text. */
long bpe_decode(char *out, const char *text, size_t size);
/* Tokens of a text without special tokens. */
enum status bpe_encode(const struct tokenizer *t, struct merger *m, const char *text, size_t n,
                       struct tok_ids *ids, struct error *e);

/* tokenizer_spm.c */

/* Tokens of a text without special tokens; prefix: put a space in front. */
enum status spm_encode(const struct tokenizer *t, struct merger *m, const char *text, size_t n,
                       bool prefix, struct tok_ids *ids, struct error *e);
/* After all merges of a tokenizer.json: scores from ranks where every pair that makes a token is
 * listed, as in files converted from tokenizer.model; else the pairs as they are. */
void spm_use_merges(struct tokenizer *t);

/* The loaders of single files. folder: where tokenizer_config.json may be, or NULL. */
enum status tokenizer_from_json(struct tokenizer **out, const char *path, const char *folder,
                                struct error *e);
enum status tokenizer_from_json_text(struct tokenizer **out, const char *name, const char *text,
                                     size_t size, struct error *e);
enum status tokenizer_from_model(struct tokenizer **out, const char *path, const char *folder,
                                 struct error *e);
enum status tokenizer_from_model_bytes(struct tokenizer **out, const char *name, const void *data,
                                       size_t size, struct error *e);
/* BOS, EOS and add_bos as tokenizer_config.json and config.json in folder say, where they exist;
 * folder may be NULL. */
enum status tok_read_config(struct tokenizer *t, const char *folder, struct error *e);
#endif
