/* Mail addresses.
 *
 * Two kinds. `struct addr_spec` is an address that mail can be sent to: only its parsers make one,
 * so who holds one need not check it again. `struct address` is what stands in a header field,
 * however broken, as IMAP's ENVELOPE shows it. */
#ifndef MIME_ADDRESS_H
#define MIME_ADDRESS_H

#include "base/arena.h"
#include "base/buf.h"

/* RFC 5321 4.5.3.1.1 to 3: in octets. The path's counts its brackets. */
#define ADDR_LOCAL_MAX	64
#define ADDR_DOMAIN_MAX 255
#define ADDR_PATH_MAX	256

/* RFC 1035 2.3.4 */
#define ADDR_LABEL_MAX 63

struct addr_spec {
	str local;    /* without quotes and escapes; the case as written */
	str domain;   /* "example.org", "[192.0.2.1]", "[IPv6:2001:db8::1]"; the case as written */
	bool is_utf8; /* some byte is not ASCII: needs SMTPUTF8 (RFC 6531) */
};

enum {
	/* "<>": local and domain are empty (RFC 5321 4.5.5) */
	ADDR_ALLOW_NULL = 1,
	/* "<postmaster>", any case: the domain is empty (RFC 5321 4.1.1.3) */
	ADDR_ALLOW_NO_DOMAIN = 2,
	/* RFC 6531 */
	ADDR_ALLOW_UTF8 = 4,
};

/* A path of MAIL or RCPT, at the front of *rest, which becomes what follows the '>'. A source route
 * is read and forgotten (RFC 5321 appendix C: SHOULD be ignored). The result borrows from *rest,
 * but for quoted local parts, which live in the arena. ERR_SYNTAX, ERR_TOO_LONG, ERR_UNSUPPORTED
 * (UTF-8 without ADDR_ALLOW_UTF8), ERR_NO_MEMORY. */
MUST_USE enum err addr_parse_path(str *rest, unsigned flags, struct arena *a,
				  struct addr_spec *out);

/* All of s as local@domain. */
MUST_USE enum err addr_spec_parse(str s, unsigned flags, struct arena *a, struct addr_spec *out);

static inline bool addr_is_null(struct addr_spec s)
{
	return s.local.n == 0 && s.domain.n == 0;
}

/* Is s a domain name that an address may have (no literal)? */
bool addr_domain_is_valid(str s);

/* The canonical text: the local part quoted only where it must be, no brackets. */
void addr_write(struct addr_spec s, struct buf *out);

/* ---- Header fields ---- */

/* An entry of an address list. A slice with p NULL is absent (NIL in an ENVELOPE). A group opens
 * with an entry that has a mailbox (the group's name) and no domain, and ends with one that has
 * neither. */
struct address {
	str name;    /* the phrase, or the last comment behind a bare address; encoded words as they
			are */
	str route;   /* "@a,@b" */
	str mailbox; /* the local part, unquoted */
	str domain;
	const struct address *next;
};

/* More entries of a field than this are not read (but for the end of a group that is open then): a
 * field with more is an attack on whoever shows it. */
#define ADDRESS_LIST_MAX 10000

struct address_list {
	struct address *first, *last;
	size_t count;
};

/* Adds the addresses of a field's raw value to the list. Broken input never fails: what is missing
 * reads "MISSING_MAILBOX" or "MISSING_DOMAIN" and what cannot be read has the domain
 * "SYNTAX_ERROR", as Dovecot has it. ERR_NO_MEMORY alone. */
MUST_USE enum err address_list_parse(str value, struct arena *a, struct address_list *list);

/* The entry as an address to send to: ERR_SYNTAX for groups and broken ones. */
MUST_USE enum err address_to_addr(const struct address *e, struct arena *a, struct addr_spec *out);

#endif
