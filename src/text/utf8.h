/* UTF-8, strictly (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF.
 *
 * Everything here is pure and allocates nothing. */
#ifndef TEXT_UTF8_H
#define TEXT_UTF8_H

#include "base/str.h"

#define UTF8_MAX	 4
#define UTF8_REPLACEMENT 0xFFFDu

bool utf8_is_ascii(str s); /* no byte above 0x7F; NUL and controls count as ASCII */
bool utf8_is_valid(str s);

/* How many leading bytes of s are valid UTF-8: s.n when all are. */
size_t utf8_valid_prefix(str s);

/* Reads the character at the front of s. Returns its length in bytes, or 0 when s is empty or does
 * not begin with a whole valid character. */
size_t utf8_decode(str s, uint32_t *code);

/* Writes one character and returns its length; 0 for what is not a character (surrogates too). */
size_t utf8_encode(uint32_t code, char out[UTF8_MAX]);

#endif
