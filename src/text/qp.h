/* Quoted-printable (RFC 2045 6.7).
 *
 * The decoder is lenient and streams: what is not a valid escape stays as it is, white space before
 * a line's end is dropped. The encoder takes text whose lines end in CRLF or LF and writes lines of
 * at most 76 characters that end in CRLF; any other control byte is escaped. */
#ifndef TEXT_QP_H
#define TEXT_QP_H

#include "base/buf.h"

#define QP_LINE 76
/* More white space than this in one run is not held back but written: memory stays bounded, and no
 * line of a legal body is as long. */
#define QP_HELD_MAX 80

struct qp_decoder {
	char held[QP_HELD_MAX]; /* "=", "=X" or white space that may be at a line's end */
	size_t count;
};

void qp_decode_piece(struct qp_decoder *d, str piece, struct buf *out);
void qp_decode_end(struct qp_decoder *d, struct buf *out);

void qp_encode(str s, struct buf *out);

#endif
