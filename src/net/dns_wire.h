/* DNS in its wire format (RFC 1035 4.1): answers and the data of records. No input or output;
 * hostile bytes.
 *
 * An answer packet goes through dns_packet_parse in role dns, which undoes compression and packs
 * the data of the records for the channel (RECORD dns_rdata); their data goes through dns_rdata_*
 * in whoever asked. All of these take any bytes, and return ERR_SYNTAX for what is no such thing.
 */
#ifndef NET_DNS_WIRE_H
#define NET_DNS_WIRE_H

#include "net/dns.h"

enum {
	DNS_WIRE_NAME_MAX = 255,   /* RFC 1035 2.3.4 */
	DNS_CNAMES_MAX = 12,	   /* in a row */
	DNS_RDATA_MAX = 16384,	   /* messages.def, dns_rdata */
	DNS_RECORDS_BYTES = 49152, /* messages.def, dns_reply */
};

/* A name as text, lower case, no final dot; the root is "". */
struct dns_name {
	size_t n;
	char text[DNS_NAME_MAX + 1];
};

/* What a packet answers to a question of one type. */
struct dns_packet {
	unsigned rcode; /* RFC 1035 4.1.1, the four bits */
	bool is_truncated;
	uint32_t ttl; /* the least of the records used; without one: of the negative answer (RFC
			 2308 5) */
	size_t count;
	struct dns_name canonical;
};

/* Appends a RECORD dns_rdata to *records for each record of the type at the end of the chain of
 * CNAMEs; what would pass DNS_RECORDS_MAX or the buffer's maximum is left out. */
MUST_USE enum err dns_packet_parse(str packet, uint16_t type, struct buf *records,
				   struct dns_packet *out);

/* The host name at the beginning of *rest, not compressed; *rest becomes what follows. ERR_SYNTAX
 * when it is no name at all; ERR_UNSUPPORTED when it is one, but of no host. */
MUST_USE enum err dns_wire_name(str *rest, struct dns_name *out);

/* Data of a record of this type into the arena. ERR_SYNTAX, ERR_UNSUPPORTED (a name that is no
 * host's), ERR_NO_MEMORY. */
MUST_USE enum err dns_rdata_mx(str data, struct arena *a, struct dns_mx *out);
MUST_USE enum err dns_rdata_address(str data, uint16_t type, struct addr *out);
MUST_USE enum err dns_rdata_txt(str data, struct arena *a, str *out);
MUST_USE enum err dns_rdata_name(str data, struct arena *a, str *out);
MUST_USE enum err dns_rdata_tlsa(str data, struct arena *a, struct dns_tlsa *out);

#endif
