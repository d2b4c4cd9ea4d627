/* Parameters with continuations and charsets (RFC 2231): name*0="a"; name*1*=%20b; name*=utf-8''c
 *
 * `rfc2231_join` puts continuations together, in the form that IMAP shows (RFC 3501 7.4.2 says
 * nothing; ours is Dovecot's): the name ends in '*' when any piece was extended, and the value
 * stays percent-encoded. `rfc2231_decode` reads such a value. */
#ifndef TEXT_RFC2231_H
#define TEXT_RFC2231_H

#include "base/arena.h"
#include "base/buf.h"

struct param {
	str name;
	str value;
};

/* Joins in place: *count shrinks. Parameters without '*' come first and keep their order; joined
 * ones follow, sorted by name. Names are kept as written. Pieces of which one is missing stay
 * apart. New strings live in the arena, the others stay borrowed. ERR_NO_MEMORY. */
MUST_USE enum err rfc2231_join(struct param *params, size_t *count, struct arena *a);

/* The value of an extended parameter ("utf-8'en'%e2%82%ac") as UTF-8. */
void rfc2231_decode(str value, struct buf *out);

#endif
