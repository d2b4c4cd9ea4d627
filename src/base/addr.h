/* Internet addresses: IPv4, IPv6, and UNIX socket paths for listeners. IPv4-mapped IPv6 addresses
 * are turned into IPv4 when they are made, so that one client has one spelling. */
#ifndef BASE_ADDR_H
#define BASE_ADDR_H

#include "base/str.h"

enum addr_family { ADDR_NONE, ADDR_IP4, ADDR_IP6, ADDR_UNIX };

struct addr {
	uint8_t family; /* enum addr_family */
	uint16_t port;	/* 0 where there is none */
	uint8_t ip[16]; /* the first 4 or all 16 bytes, network order */
	char path[92];	/* ADDR_UNIX: NUL-terminated */
};

enum { ADDR_TEXT_MAX = 112 };

/* "192.0.2.1" or "2001:db8::1", no brackets, no port. */
MUST_USE enum err addr_parse_ip(str s, struct addr *out);
/* "192.0.2.1:25", "[2001:db8::1]:25", "unix:/path". */
MUST_USE enum err addr_parse(str s, struct addr *out);
/* The address alone / with its port, into `text` of ADDR_TEXT_MAX bytes. */
str addr_ip_text(const struct addr *a, char *text);
str addr_text(const struct addr *a, char *text);
bool addr_ip_eq(const struct addr *a, const struct addr *b);
/* RFC 4632: is `a` inside net/bits? False across families. */
bool addr_in_net(const struct addr *a, const struct addr *net, unsigned bits);
bool addr_is_loopback(const struct addr *a);

#endif
