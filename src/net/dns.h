/* The client side of DNS, on fibers: questions go over a channel to role dns, which validates and
 * caches.
 *
 *	struct dns_answer a;
 *	err = dns_mx(channel, S("example.org"), arena, deadline, &a);
 *	if (err) ...                        // ERR_TEMPORARY: it failed and may work later
 *	switch (a.result) {
 *	case DNS_FOUND:   for (i < a.count) a.mx[i].preference, a.mx[i].host ...
 *	case DNS_NO_DATA: ...               // the name exists, records of this type do not
 *	case DNS_NO_NAME: ...               // the name does not exist
 *	}
 *
 * Three results that must never be confused: found, certainly not there (two kinds), and failed. A
 * look-up that fails for whatever reason (no answer, SERVFAIL, bogus signatures, role dns down,
 * too late) is ERR_TEMPORARY, never a "not found". Besides that: ERR_SYNTAX when the name asked
 * for is none, ERR_CANCELLED, ERR_NO_MEMORY (the arena).
 *
 * What comes back was written by strangers. Names are host names in text, lower case, without a
 * final dot (letters, digits, '-', '_', at most 253 bytes); a record whose name has other bytes is
 * left out, and when that leaves none the result is ERR_TEMPORARY. Everything lives in the arena.
 */
#ifndef NET_DNS_H
#define NET_DNS_H

#include "base/addr.h"
#include "base/chan.h"

enum {
	DNS_NAME_MAX = 253,    /* RFC 1035 2.3.4, as text without the final dot */
	DNS_RECORDS_MAX = 256, /* in one answer; more are left out */
	DNS_TXT_MAX = 16384,   /* bytes of one TXT record, put together */
	DNS_TLSA_DATA_MAX = 1024,
};

enum dns_type {
	DNS_TYPE_A = 1,
	DNS_TYPE_CNAME = 5,
	DNS_TYPE_PTR = 12,
	DNS_TYPE_MX = 15,
	DNS_TYPE_TXT = 16,
	DNS_TYPE_AAAA = 28,
	DNS_TYPE_TLSA = 52,
};

enum dns_result { DNS_FOUND, DNS_NO_DATA, DNS_NO_NAME };

struct dns_mx {
	uint16_t preference;
	str host; /* empty: the null MX of RFC 7505, "." */
};

struct dns_tlsa { /* RFC 6698 2.1 */
	uint8_t usage, selector, matching;
	str data;
};

struct dns_answer {
	enum dns_result result;
	bool is_secure; /* DNSSEC: validated; also for the two kinds of "not there" */
	uint32_t ttl;	/* seconds */
	str canonical;	/* the name at the end of the CNAMEs; the one asked for without any */
	size_t count;	/* 0 unless DNS_FOUND */
	/* Of the type that was asked for: */
	struct dns_mx *mx;    /* in the order of the answer: not sorted */
	struct addr *address; /* A, AAAA; port 0 */
	str *text;	      /* TXT: the strings of a record put together; PTR: names */
	struct dns_tlsa *tlsa;
};

/* In a fiber. `name`: text, with or without a final dot. */
MUST_USE enum err dns_mx(struct chan *dns, str name, struct arena *a, int64_t deadline,
			 struct dns_answer *out);
MUST_USE enum err dns_a(struct chan *dns, str name, struct arena *a, int64_t deadline,
			struct dns_answer *out);
MUST_USE enum err dns_aaaa(struct chan *dns, str name, struct arena *a, int64_t deadline,
			   struct dns_answer *out);
MUST_USE enum err dns_txt(struct chan *dns, str name, struct arena *a, int64_t deadline,
			  struct dns_answer *out);
/* The names of an address: in-addr.arpa and ip6.arpa (RFC 1035 3.5, RFC 3596 2.5). */
MUST_USE enum err dns_ptr(struct chan *dns, const struct addr *address, struct arena *a,
			  int64_t deadline, struct dns_answer *out);
/* _port._tcp.host (RFC 7672 2.2). */
MUST_USE enum err dns_tlsa(struct chan *dns, uint16_t port, str host, struct arena *a,
			   int64_t deadline, struct dns_answer *out);

/* Can the name be asked for: labels of 1 to 63 printable ASCII bytes other than '.', '\' and '"',
 * DNS_NAME_MAX in all, with or without a final dot? More than host names, since SPF macros (RFC
 * 7208 7) and DKIM selectors make others. */
bool dns_name_is_askable(str name);

#endif
