/* IMAP's modified UTF-7 for mailbox names (RFC 3501 5.1.3). */
#ifndef TEXT_MUTF7_H
#define TEXT_MUTF7_H

#include "base/buf.h"

/* Strict: printable ASCII alone outside of shifts, no shift for what needs none, no superfluous
 * shifts ("&...-&...-"), zero spare bits, no lone surrogates. Every name thus has one encoding.
 * ERR_SYNTAX; ERR_NO_MEMORY when `out` is full. */
MUST_USE enum err mutf7_decode(str s, struct buf *out);

/* ERR_SYNTAX when s is not UTF-8. */
MUST_USE enum err mutf7_encode(str s, struct buf *out);

#endif
