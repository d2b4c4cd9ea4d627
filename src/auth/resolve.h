/* What an address leads to: the final recipients behind it, and who may send as it.
 *
 *	struct resolver *r;
 *	err = resolver_new(directory, &options, seed, &r);
 *	err = directory_refresh(directory);		// once per turn of the loop
 *	err = resolve(r, S("team+news@example.test"), arena, &found);
 *	for (i = 0; i < found.count; i++)		// local accounts and remote addresses
 *
 * An address is looked up in this order, and the first that is there wins: an account; an alias;
 * the same two without the detail ("+news"); the domain's catch-all; for postmaster, the configured
 * postmaster. Aliases lead on until only accounts and addresses in other domains are left; each is
 * in the result once.
 *
 * Answers about our own domains are remembered until the directory changes, at most `cache_max` of
 * them; what was used longest ago goes first. An answer from memory takes under a microsecond.
 * BLOCKING: others take a few queries, 10 to 50 microseconds; an alias of a thousand targets some
 * ten milliseconds.
 *
 * A resolver belongs to one thread and uses its directory's handle, which must outlive it.
 */
#ifndef AUTH_RESOLVE_H
#define AUTH_RESOLVE_H

#include "auth/directory.h"

enum {
	RESOLVE_DEPTH_MAX = 20,	       /* aliases in a row */
	RESOLVE_RECIPIENTS_MAX = 1000, /* final ones of one address */
	RESOLVE_ADDRESSES_MAX = 10000, /* looked at on the way, doubles not counted */
	RESOLVE_CACHE_MAX = 20000,     /* a good cache_max: about 300 bytes each */
	RESOLVE_CACHED_RECIPIENTS =
		64, /* larger results are not kept, so that the bound is one of bytes too */
	RESOLVE_SEED_SIZE = 16,
};

struct resolver;

struct resolver_options {
	str delimiters; /* as Postfix's recipient_delimiter: a set, "+" as a rule; empty: none */
	str postmaster; /* where postmaster's mail goes when nothing else takes it, or empty */
	size_t cache_max;
};

/* How the address itself was found; its recipients may be behind further aliases. */
enum resolved_by {
	RESOLVED_ACCOUNT,
	RESOLVED_ALIAS,
	RESOLVED_DETAIL_ACCOUNT, /* without its detail */
	RESOLVED_DETAIL_ALIAS,
	RESOLVED_CATCH_ALL,
	RESOLVED_POSTMASTER,
	RESOLVED_REMOTE, /* not in our domains: one recipient, the address */
};

struct resolved_recipient {
	uint64_t account; /* 0: remote */
	uint64_t quota;	  /* of the account, bytes; 0: none */
	str address;	  /* the account's, or the remote one as it shall stand in RCPT */
	str detail;	  /* "news", where the account was found without it (RFC 5233) */
};

struct resolution {
	enum resolved_by by;
	const struct resolved_recipient *recipients;
	size_t count;	   /* 1 or more */
	size_t unresolved; /* targets on the way that are unknown or disabled: log them */
};

/* Copies the options. ERR_NO_MEMORY; ERR_SYNTAX for a postmaster that is no address. */
MUST_USE enum err resolver_new(struct directory *d, const struct resolver_options *options,
			       const uint8_t seed[RESOLVE_SEED_SIZE], struct resolver **out);
void resolver_free(struct resolver *r); /* NULL is allowed */

/* ERR_OK: one recipient or more. Otherwise
 *	ERR_NOT_FOUND   no such user here (SMTP: 550 5.1.1)
 *	ERR_DENIED      all accounts it leads to are disabled (550 5.2.1)
 *	ERR_CONFIG      aliases that lead in a circle and nowhere else (5.4.6)
 *	ERR_TOO_MANY    past one of the limits above (5.4.6, 5.5.3)
 *	ERR_SYNTAX, ERR_TOO_LONG   not an address (501 5.1.3); "postmaster" alone is one
 *	                           (RFC 5321 4.1.1.3)
 *	ERR_NO_MEMORY, ERR_TEMPORARY   try again later (451 4.3.0) */
MUST_USE enum err resolve(struct resolver *r, str address, struct arena *a, struct resolution *out);

enum send_as {
#define SEND_AS(name, text) SEND_AS_##name,
#include "auth/send_as.def"
#undef SEND_AS
	SEND_AS_COUNT
};

/* May this account use this address as its sender? *reason says why or why not; true from
 * SEND_AS_OWN on. ERR_NO_MEMORY, ERR_TEMPORARY: it could not be found out (451). */
MUST_USE enum err may_send_as(struct resolver *r, uint64_t account, str address,
			      enum send_as *reason);
bool send_as_is_allowed(enum send_as reason);
const char *send_as_text(enum send_as reason);

/* For `posthorn status`. */
size_t resolver_cached(const struct resolver *r);

#endif
