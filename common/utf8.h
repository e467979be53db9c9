/* UTF-8 one character at a time. Knows bytes and code points, nothing of tokens.
 * Well-formed sequences are those of the Unicode Standard, table 3-7. */
#ifndef SBIT_COMMON_UTF8_H
#define SBIT_COMMON_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Looks at the n > 0 bytes at s. Returns the length (1..4) of the well-formed character there; 0
 * when the bytes begin one that the end cuts off; -k when the first k bytes belong to no
 * character (the "maximal subpart" that one U+FFFD stands for). */
int utf8_step(const char *s, size_t n);

/* Code point of the well-formed character of size bytes at s. */
uint32_t utf8_code_point(const char *s, int size);

/* Writes code point cp (at most U+10FFFF) to out, returns its bytes. */
size_t utf8_put(char out[4], uint32_t cp);

#endif
