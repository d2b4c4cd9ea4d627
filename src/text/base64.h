/* Base64 (RFC 4648 section 4).
 *
 * Two decoders: the strict one for protocols (SASL), where every byte counts, and a streaming
 * lenient one for mail bodies (RFC 2045 6.8: other characters must be ignored).
 *
 *	struct base64_decoder d = { 0 };
 *	while (...)
 *		base64_decode_piece(&d, piece, &out);
 */
#ifndef TEXT_BASE64_H
#define TEXT_BASE64_H

#include "base/buf.h"

/* RFC 2045 6.8: encoded lines of at most 76 characters. */
#define BASE64_LINE 76

/* Strict: canonical alphabet, full padding, zero spare bits, nothing else. On ERR_SYNTAX `out`
 * holds what was decoded before the fault; ERR_NO_MEMORY when it does not fit. */
MUST_USE enum err base64_decode(str s, struct buf *out);

struct base64_decoder {
	uint32_t bits;
	uint8_t count; /* of characters in bits, 0..3 */
};

/* Lenient: skips foreign bytes. Padding ends a group and decoding goes on behind it, for bodies
 * that were joined from several encodings. A last group of 2 or 3 characters without padding needs
 * base64_decode_end. */
void base64_decode_piece(struct base64_decoder *d, str piece, struct buf *out);
void base64_decode_end(struct base64_decoder *d, struct buf *out);

/* `line`: characters per line before a CRLF (a multiple of 4), 0 for one endless line. With lines,
 * a CRLF also ends the last one. */
void base64_encode(str s, size_t line, struct buf *out);

#endif
