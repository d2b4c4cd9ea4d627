/* What goes over the wire between DATA and the dot: the message in pieces in, wire bytes out.
 *
 * Lines end in CRLF, a line that begins with a dot gets another (RFC 5321 4.5.2), none is longer
 * than SMTP_WIRE_LINE_MAX, and neither a bare CR nor a bare LF is ever written. With `to_7bit` a
 * message is converted for a server without 8BITMIME on its way.
 *
 *	struct smtp_wire d;
 *	err = smtp_wire_begin(&d, to_7bit);
 *	while (...) { smtp_wire_add(&d, piece, &out); send and clear out; }
 *	smtp_wire_end(&d, &out);              // and the final dot
 *	smtp_wire_free(&d);
 *
 * Memory is bounded: a line, and with `to_7bit` the header of one part. A piece grows by at most a
 * factor of 3, plus what was held back: `out` must have room for SMTP_WIRE_OUT_MAX(piece) bytes.
 */
#ifndef SMTP_CLIENT_WIRE_H
#define SMTP_CLIENT_WIRE_H

#include "base/buf.h"

enum {
	SMTP_WIRE_LINE_MAX = 998, /* RFC 5321 4.5.3.1.6: 1,000 with the CRLF */
	SMTP_WIRE_HEADER_MAX = 64 * 1024,
};

#define SMTP_WIRE_OUT_MAX(n) (4 * (n) + 4 * (size_t)SMTP_WIRE_HEADER_MAX)

struct smtp_downgrade;

struct smtp_wire {
	char line[SMTP_WIRE_LINE_MAX];
	size_t line_n;
	bool line_began; /* a part of this line went out already */
	bool has_cr;	 /* the last byte was a CR: what it means depends on the next */
	struct smtp_downgrade *downgrade;
};

/* ERR_NO_MEMORY, with `to_7bit` alone. */
MUST_USE enum err smtp_wire_begin(struct smtp_wire *d, bool to_7bit);
void smtp_wire_add(struct smtp_wire *d, str piece, struct buf *out);
/* Ends the last line if nobody did, and writes the dot. */
void smtp_wire_end(struct smtp_wire *d, struct buf *out);
void smtp_wire_free(struct smtp_wire *d);

#endif
