/* SASLprep (RFC 4013): one spelling for a name or a password, whatever keyboard it came from.
 *
 *	err = saslprep(password, prepared, sizeof(prepared), &n);
 *
 * Writes into the caller's bytes, since they may be a secret that the caller wipes; what is used on
 * the way is wiped here. ERR_SYNTAX: not UTF-8, a character that is prohibited, or one that mixes
 * directions; ERR_TOO_LONG: more than `size`; ERR_NO_MEMORY. ASCII without control characters comes
 * out as it is. The result may be empty (a text of soft hyphens alone); callers that need a name
 * check for that. Nothing blocks.
 */
#ifndef AUTH_SASLPREP_H
#define AUTH_SASLPREP_H

#include "base/str.h"

enum { SASLPREP_INPUT_MAX = 1024 };

MUST_USE enum err saslprep(str text, char *out, size_t size, size_t *n);

#endif
