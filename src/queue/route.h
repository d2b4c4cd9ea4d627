/* Where mail for an address goes next: the transport table, then relayhost, then the MX of its
 * domain.
 *
 * Two steps. `route_find` picks the next hop's text from the settings; it is what out_deliver
 * carries and what destinations are told apart by. `route_parse` reads that text where the
 * connection is made.
 *
 *	TRANSPORT:HOST         the MX of HOST; TRANSPORT:HOST:PORT the same on another port
 *	TRANSPORT:[HOST]:PORT  HOST itself (a name or an address), no MX
 *	TRANSPORT:             the MX of the recipient's domain
 *	lmtp:unix:/PATH        a socket of this machine
 *
 * TRANSPORT is smtp (relay is the same) or lmtp (RFC 2033; never asks for MX; port 24). Empty text
 * is "smtp:".
 */
#ifndef QUEUE_ROUTE_H
#define QUEUE_ROUTE_H

#include "base/arena.h"

enum {
	ROUTE_TEXT_MAX = 512,
	ROUTE_LMTP_PORT = 24,
	ROUTE_PATH_MAX = 91, /* what an address of a UNIX socket holds (base/addr.h) */
};

struct route_pair {
	str pattern, hop;
};

struct route_table {
	const struct route_pair *pairs; /* transport_maps */
	size_t count;
	str relayhost; /* empty: none */
};

/* The next hop's text; lives in the arena or borrows from the table. Patterns as in transport(5),
 * in this order: the whole address, its domain, ".parent" for subdomains from the longest on, "*".
 * ERR_NO_MEMORY. */
MUST_USE enum err route_find(const struct route_table *t, str address, struct arena *a, str *hop);

struct route_hop {
	bool is_lmtp;
	bool asks_mx;  /* otherwise the host itself */
	str path;      /* of a UNIX socket; empty: it is a host */
	str host;      /* a name or an address, no brackets; borrows */
	uint16_t port; /* 0: the standard one */
};

/* ERR_UNSUPPORTED: no such transport; ERR_SYNTAX. */
MUST_USE enum err route_parse(str hop, str domain, struct route_hop *out);

/* Behind the last '@'; empty when there is none. Borrows. */
str route_domain(str address);

#endif
