/* Encoded words in header fields (RFC 2047): =?charset?B|Q?text?= */
#ifndef TEXT_RFC2047_H
#define TEXT_RFC2047_H

#include "base/buf.h"

/* RFC 2047 2: an encoded word has at most 75 characters. We read up to this many, since many
 * senders ignore the limit. */
#define RFC2047_WORD_MAX 75
#define RFC2047_READ_MAX 4096

/* A header field's value as UTF-8: line breaks removed, encoded words decoded, white space between
 * two adjacent ones dropped, a character split over two of them in the same charset put together.
 * Bytes outside of encoded words that are not UTF-8, and words in an unknown charset, become U+FFFD
 * or stay as they are. Never fails but for a full `out`. */
void rfc2047_decode(str value, struct buf *out);

/* UTF-8 text as a header field's value, folded with CRLF SP; `column` is where the text begins on
 * its first line ("Subject: " is 9). Plain ASCII is written as it is, folded at spaces; anything
 * else becomes encoded words in UTF-8 that never split a character. CR and LF become spaces. */
void rfc2047_encode(str text, size_t column, struct buf *out);

#endif
