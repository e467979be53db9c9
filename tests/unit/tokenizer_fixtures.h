/* What the tokenizer tests share: tokenizers made from text in the test, and encoding in one
 * line. */
#ifndef SBIT_TESTS_TOKENIZER_FIXTURES_H
#define SBIT_TESTS_TOKENIZER_FIXTURES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/tokenizer.h"
#include "common/tokenizer_internal.h"

/* A SentencePiece-like tokenizer.json, ' for ", with 256 byte tokens from id 3 on; words from id
 * 259 on. */
#define SPM_WORDS                                                                                  \
    "'\xE2\x96\x81':259,'a':260,'b':261,'\xE2\x96\x81"                                             \
    "a':262,'ab':263,'\xE2\x96\x81"                                                                \
    "ab':264,"                                                                                     \
    "'\xE2\x96\x81\xE2\x96\x81':265"
#define SPM_MERGES                                                                                 \
    "'\xE2\x96\x81 a','a b','\xE2\x96\x81"                                                         \
    "a b','\xE2\x96\x81 ab',"                                                                      \
    "'\xE2\x96\x81 \xE2\x96\x81'"
#define SPM_NORMALISER                                                                             \
    "'normalizer':{'type':'Sequence','normalizers':[{'type':'Prepend','prepend':'\xE2\x96\x81'},"  \
    "{'type':'Replace','pattern':{'String':' '},'content':'\xE2\x96\x81'}]}"
#define SPM_ADDED                                                                                  \
    "{'id':0,'content':'<unk>','special':true},{'id':1,'content':'<s>','special':true},"           \
    "{'id':2,'content':'</s>','special':true}"

/* Both texts into buffer, ' turned into ". */
static inline const char *json_text(char *buffer, size_t capacity, const char *text)
{
    size_t n = strlen(text);
    assert_true(n < capacity);
    for (size_t i = 0; i <= n; i++)
        buffer[i] = text[i] == '\'' ? '"' : text[i];
    return buffer;
}

static inline enum status json_load(struct tokenizer **t, const char *text, struct error *e)
{
    static char buffer[65536];
    *e = (struct error){0};
    json_text(buffer, sizeof buffer, text);
    return tokenizer_from_json_text(t, "test.json", buffer, strlen(buffer), e);
}

static inline struct tokenizer *json_tokenizer(const char *text)
{
    struct tokenizer *t;
    struct error e;
    if (json_load(&t, text, &e) != OK)
        fail_msg("%s", e.text);
    return t;
}

/* The SentencePiece-like one with other words, merges and links. */
static inline const char *spm_json(const char *words, const char *merges, const char *links)
{
    static char text[32768];
    int n =
        snprintf(text, sizeof text,
                 "{'added_tokens':[" SPM_ADDED "],%s,'model':{'type':'BPE','unk_token':'<unk>',"
                 "'byte_fallback':true,'fuse_unk':true,'merges':[%s],'vocab':{'<unk>':0,'<s>':1,"
                 "'</s>':2,%s",
                 links, merges, words);
    for (int b = 0; b < 256; b++)
        n += snprintf(text + n, sizeof text - (size_t)n, ",'<0x%02X>':%d", b, b + 3);
    snprintf(text + n, sizeof text - (size_t)n, "}}}");
    return text;
}

static inline struct tokenizer *demo_tokenizer(void)
{
    struct tokenizer *t;
    struct error e = {0};
    if (tokenizer_open(&t, SBIT_SOURCE_DIR "/models/demo", &e) != OK)
        fail_msg("%s", e.text);
    return t;
}

/* The tokenizer written as GGUF keys and read again; pre replaces its pre-tokenizer's name. NULL
 * and a message when it is refused. */
static inline struct tokenizer *through_gguf(const struct tokenizer *t, const char *pre)
{
    struct error e = {0};
    struct gguf_writer *w;
    struct gguf g;
    struct tokenizer *again;
    uint8_t *data;
    uint64_t size;
    assert_int_equal(gguf_writer_create(&w, 64, &e), OK);
    if (tokenizer_to_gguf(t, w, &e) != OK)
        fail_msg("%s", e.text);
    if (pre)
        assert_int_equal(gguf_set_string(w, "tokenizer.ggml.pre", pre, &e), OK);
    assert_int_equal(gguf_writer_header(w, &data, &size, &e), OK);
    assert_int_equal(gguf_parse(&g, data, size, "test.gguf", true, &e), OK);
    if (tokenizer_from_gguf(&again, &g, &e) != OK)
        print_message("%s\n", e.text);
    gguf_close(&g);
    gguf_writer_free(w);
    free(data);
    return again;
}

/* Checks that text becomes exactly the ids in expected, "1 2 3". */
static inline void expect_ids(const struct tokenizer *t, const char *text, bool special,
                              const char *expected)
{
    struct error e = {0};
    uint32_t *ids;
    size_t count;
    char found[4096] = "";
    if (tokenizer_encode(t, text, strlen(text), false, special, &ids, &count, &e) != OK)
        fail_msg("%s", e.text);
    for (size_t i = 0; i < count && strlen(found) < 4000; i++)
        sprintf(found + strlen(found), i ? " %u" : "%u", ids[i]);
    free(ids);
    if (strcmp(found, expected) != 0)
        fail_msg("\"%s\": expected %s, found %s", text, expected, found);
}

#endif
