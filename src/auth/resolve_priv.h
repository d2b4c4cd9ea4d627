/* Inside the resolver. */
#ifndef AUTH_RESOLVE_PRIV_H
#define AUTH_RESOLVE_PRIV_H

#include "auth/address.h"
#include "auth/lru.h"
#include "auth/resolve.h"

struct resolver {
	struct directory *d;
	struct arena *own;     /* the options' texts */
	struct arena *scratch; /* for what is not part of a result */
	str delimiters;
	struct auth_address postmaster; /* whole.n is 0 when there is none */
	struct lru cache;
	uint64_t cached_changes; /* the state of the directory that the cache is true of */
};

/* Looks an address up and follows aliases, in one read transaction of the caller. */
MUST_USE enum err resolve_expand(struct resolver *r, const struct auth_address *address,
				 struct arena *a, struct resolution *out);

#endif
