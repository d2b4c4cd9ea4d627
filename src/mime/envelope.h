/* IMAP's ENVELOPE, BODY and BODYSTRUCTURE as wire text (RFC 3501 and RFC 9051 7.5.2, 7.4.2).
 *
 * What is written here is final: it is computed once, when a message is delivered, stored, and sent
 * to clients as it is. It never holds a bare CR or LF, a NUL, or a string that is not quoted or
 * counted: strings with 8-bit bytes, or with many quotes, are literals "{n}\r\n..." (no client
 * needs UTF8=ACCEPT to read them). Byte for byte it is what Dovecot 2.3 sends;
 * docs/MIME-DIFFERENCES.md lists where not. */
#ifndef MIME_ENVELOPE_H
#define MIME_ENVELOPE_H

#include "mime/part.h"

/* "(date subject from sender reply-to to cc bcc in-reply-to message-id)" */
void mime_write_envelope(const struct mime_envelope *e, struct buf *out);

/* The structure of a part and what is in it; `extended` makes it BODYSTRUCTURE, otherwise BODY. The
 * enclosing parentheses are written. */
void mime_write_structure(const struct mime_part *p, bool extended, struct buf *out);

/* RFC 3501 9: nstring. p NULL is NIL; else a quoted string or a literal, whichever the bytes need.
 * CR and LF are removed and NUL becomes 0x80. */
void imap_write_nstring(str s, struct buf *out);

/* The same for what people read (subjects, names): white space runs become one space, and none is
 * left at the ends. */
void imap_write_text(str s, struct buf *out);

#endif
