/* Mail addresses as the directory knows them.
 *
 * One parser makes every address that the directory stores, looks up or delivers to; its grammar is
 * mime/address.h's:
 *
 *	struct auth_address a;
 *	err = auth_address_parse(S("\"Bob\"@Bücher.Example"), arena, &a);
 *	a.whole   Bob@xn--bcher-kva.example     as written, domain in its canonical form
 *	a.key     bob@xn--bcher-kva.example     what it is matched by
 *
 * The domain is in lower case, IDNA labels in their ASCII form (RFC 5891), so that a client with
 * SMTPUTF8 and one without name the same domain. The local part keeps its case in `whole`, for it
 * is another host's to interpret (RFC 5321 2.4); quotes that are not needed are gone (RFC 5321
 * 4.1.2). In `key` it is folded (ASCII lower case; otherwise NFC and full case folding), since our
 * own mailboxes do not differ by case.
 *
 * Results live in the arena; `key` and `whole` are NUL-terminated there. ERR_SYNTAX, ERR_TOO_LONG
 * or ERR_NO_MEMORY. Nothing blocks. A domain that has an address literal's form ("[192.0.2.1]") is
 * taken and never ours.
 */
#ifndef AUTH_ADDRESS_H
#define AUTH_ADDRESS_H

#include "base/arena.h"

enum {
	AUTH_ADDRESS_LOCAL_MAX = 64,   /* RFC 5321 4.5.3.1.1 */
	AUTH_ADDRESS_DOMAIN_MAX = 255, /* RFC 5321 4.5.3.1.2 */
	AUTH_ADDRESS_MAX = 254,	     /* RFC 5321 4.5.3.1.3: a path of 256 less its angle brackets */
	AUTH_ADDRESS_LABEL_MAX = 63, /* RFC 1035 2.3.4 */
};

struct auth_address {
	str whole, key;
	str local, domain; /* of `whole` */
	str key_local;	   /* of `key`; its domain is the same */
};

MUST_USE enum err auth_address_parse(str text, struct arena *a, struct auth_address *out);

/* The canonical form of a domain. An address literal is ERR_SYNTAX here. */
MUST_USE enum err auth_domain_parse(str text, struct arena *a, str *out);

/* The address whose local part is this folded one, unquoted text, in `domain` (canonical both):
 * what is left of "bob+lists" when the detail is cut off. */
MUST_USE enum err auth_address_join(str key_local, str domain, struct arena *a, str *key);

#endif
