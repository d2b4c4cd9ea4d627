/* Which servers take mail for a domain, in the order to try them (RFC 5321 5.1, RFC 7505).
 *
 * Look-ups are asked of the caller's function, so that this decides and does not talk.
 */
#ifndef SMTP_CLIENT_HOSTS_H
#define SMTP_CLIENT_HOSTS_H

#include "base/addr.h"
#include "base/arena.h"
#include "net/dns.h"
#include "smtp/client.h"

enum {
	SMTP_HOSTS_MAX = 10,	 /* servers of a domain that are looked up; the best ones */
	SMTP_ADDRESSES_MAX = 12, /* addresses tried for one message */
	SMTP_MX_RECORDS_MAX = DNS_RECORDS_MAX,
};

struct smtp_target {
	struct addr address; /* with its port */
	str host;	     /* its name; lives in the arena or borrows from the question */
};

struct smtp_hosts_question {
	str host; /* a domain (asks_mx), a server's name, or an address without brackets */
	bool asks_mx;
	uint16_t port;
	str own_name;		/* myhostname */
	const struct addr *own; /* addresses with ports where we take mail ourselves */
	size_t own_count;
	uint64_t chance; /* for the order among equals */
	/* One look-up of MX, A or AAAA (net/dns.h). Every error means: not known. */
	enum err (*ask)(void *arg, enum dns_type type, str name, struct arena *a,
			struct dns_answer *out);
	void *arg;
};

/* Fills targets[SMTP_ADDRESSES_MAX]; *count is at least 1 with ERR_OK. Otherwise *why is the result
 * for everybody: ERR_TEMPORARY, or ERR_NOT_FOUND (for good). */
MUST_USE enum err smtp_hosts_find(const struct smtp_hosts_question *q, struct arena *a,
				  struct smtp_target *targets, size_t *count,
				  struct smtp_result *why);

#endif
