/* A resolver: libunbound on our loop, set up for mail. Used by role dns alone.
 *
 * Callbacks may come before dns_resolver_ask returns (local names, the cache), and otherwise from
 * the loop. */
#ifndef ROLES_DNS_RESOLVER_H
#define ROLES_DNS_RESOLVER_H

#include "base/addr.h"
#include "base/loop.h"

enum { RESOLVER_SERVERS_MAX = 8 };

struct dns_resolver;

struct dns_resolver_answer {
	enum err err; /* ERR_OK: `packet` is there, with rcode 0 or 3; or ERR_TEMPORARY */
	str packet;   /* RFC 1035; lasts until the callback returns */
	bool is_secure, is_bogus;
	str text; /* why it failed, for the log */
};

typedef void dns_resolver_fn(void *arg, const struct dns_resolver_answer *answer);

/* servers_n 0: recursion from the root. anchor: text of a trust anchor file (records DS or DNSKEY,
 * one per line); empty: no validation. After this it opens no file. */
MUST_USE enum err dns_resolver_new(struct loop *l, const struct addr *servers, size_t servers_n,
				   str anchor, struct dns_resolver **out);
/* Callbacks that have not come yet never will. */
void dns_resolver_free(struct dns_resolver *r);
/* ERR_TEMPORARY, ERR_SYNTAX: the callback will not come. A question cannot be taken back. */
MUST_USE enum err dns_resolver_ask(struct dns_resolver *r, str name, uint16_t type,
				   dns_resolver_fn *fn, void *arg);

#endif
