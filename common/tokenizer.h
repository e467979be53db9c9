/* Text to token ids and back, as the model's own tokenizer does it.
 *
 * Two algorithms: byte-level BPE (GPT-2, Llama 3, Qwen2, SmolLM2: a regular expression cuts the
 * text, then ranked merges over byte symbols) and SentencePiece BPE with byte fallback (Llama 2,
 * Mistral: spaces become U+2581, best-scored pair first, unknown characters become byte tokens).
 * Three sources: GGUF keys tokenizer.ggml.*, tokenizer.json, tokenizer.model (a protobuf). */
#ifndef SBIT_COMMON_TOKENIZER_H
#define SBIT_COMMON_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/gguf.h"

struct tokenizer;

/* All three: *out is the caller's, tokenizer_free. Errors name the file and the fact (a merge of
 * unknown parts, an id out of range, an unknown pre-tokenizer). */
enum status tokenizer_from_gguf(struct tokenizer **out, const struct gguf *g, struct error *e);
/* A Hugging Face folder: tokenizer.json, else tokenizer.model; tokenizer_config.json is consulted
 * for add_bos_token and the special tokens where present. */
enum status tokenizer_from_folder(struct tokenizer **out, const char *folder, struct error *e);
/* Any path that "sbit tokenize" accepts: a folder, a GGUF file (vocabulary-only too), a
 * tokenizer.json or a tokenizer.model file. */
enum status tokenizer_open(struct tokenizer **out, const char *path, struct error *e);
void tokenizer_free(struct tokenizer *t);

/* ids of the n bytes at text. add_bos: put the BOS token first if this tokenizer does so.
 * parse_special: special tokens written out in the text become their ids, else they are plain
 * text. *ids is the caller's, free(). Any bytes are accepted: invalid UTF-8 goes through byte
 * tokens or unknown. */
enum status tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, bool add_bos,
                             bool parse_special, uint32_t **ids, size_t *count, struct error *e);

/* The text of one token as bytes (a view with a NUL behind it, valid while t lives): "" for
 * control tokens unless special is true. SentencePiece's U+2581 is already a space. */
const char *tokenizer_piece(const struct tokenizer *t, uint32_t id, bool special, size_t *size);

uint32_t tokenizer_vocab(const struct tokenizer *t);
/* Adds unused tokens until there are vocab of them: models round their number of embedding rows
 * up, and a GGUF file needs a token for every row. Errors: ERR_FORMAT when there are more tokens
 * than vocab. */
enum status tokenizer_pad(struct tokenizer *t, uint32_t vocab, struct error *e);
bool tokenizer_adds_bos(const struct tokenizer *t);
uint32_t tokenizer_bos(const struct tokenizer *t);     /* UINT32_MAX: none */
uint32_t tokenizer_eos(const struct tokenizer *t);     /* UINT32_MAX: none */
bool tokenizer_is_end(const struct tokenizer *t, uint32_t id); /* EOS, EOT and their like */
const char *tokenizer_describe(const struct tokenizer *t); /* "byte-level BPE, gpt-2", a view */

/* Writes the tokenizer.ggml.* keys as other GGUF runtimes expect them. */
enum status tokenizer_to_gguf(const struct tokenizer *t, struct gguf_writer *w, struct error *e);

/* Streaming decode: feeds tokens one by one and gives out only whole UTF-8 characters; bytes of
 * an unfinished character wait for the next token. Invalid bytes come out as U+FFFD. The
 * SentencePiece leading space of a text that starts with BOS is dropped. */
struct text_stream {
    const struct tokenizer *tokenizer;
    char held[8];    /* unfinished character */
    size_t n_held;
    bool at_start;   /* nothing given out yet: drop one leading space if the tokenizer adds one */
    char out[4096];  /* what the last call gave out, NUL-terminated */
};
/* at_start: the stream begins a text (else it continues one, as after a prompt). */
void text_stream_init(struct text_stream *s, const struct tokenizer *t, bool at_start);
/* The text that the token completes, in s->out (may be ""). */
const char *text_stream_push(struct text_stream *s, uint32_t id);
/* What is left at the end: U+FFFD for an unfinished character, else "". */
const char *text_stream_finish(struct text_stream *s);

#endif
