/* Any bytes as a packet, and as the data of each type of record. The first byte chooses. */
#include "base/msg.h"
#include "net/dns_wire.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void check_host(str host)
{
	if (host.n > DNS_NAME_MAX)
		panic("a name of %zu bytes", host.n);
	for (size_t i = 0; i < host.n; i++)
		if (!ascii_is_alnum(host.p[i]) && host.p[i] != '-' && host.p[i] != '_' &&
		    host.p[i] != '.')
			panic("a byte that no host's name has");
}

static void rdata(str data, uint16_t type, struct arena *a)
{
	struct dns_tlsa tlsa;
	struct dns_mx mx;
	struct addr at;
	str s;

	if (type == DNS_TYPE_MX && !dns_rdata_mx(data, a, &mx))
		check_host(mx.host);
	if (type == DNS_TYPE_PTR && !dns_rdata_name(data, a, &s))
		check_host(s);
	if (type == DNS_TYPE_TXT && !dns_rdata_txt(data, a, &s) && s.n >= data.n)
		panic("a text that grew");
	if (type == DNS_TYPE_TLSA && !dns_rdata_tlsa(data, a, &tlsa) && tlsa.data.n + 3 != data.n)
		panic("a TLSA of another size");
	if ((type == DNS_TYPE_A || type == DNS_TYPE_AAAA) && !dns_rdata_address(data, type, &at) &&
	    !at.family)
		panic("an address of no family");
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static const uint16_t types[] = { DNS_TYPE_A,	DNS_TYPE_PTR,  DNS_TYPE_MX,
					  DNS_TYPE_TXT, DNS_TYPE_AAAA, DNS_TYPE_TLSA };
	struct arena *a = arena_new(1 << 20);
	struct rec_dns_rdata r;
	struct dns_packet packet;
	struct buf records;
	uint16_t type;
	str data, rest;

	if (!n || !a) {
		arena_free(a);
		return 0;
	}
	type = types[p[0] % ARRAY_LEN(types)];
	data = str_of(p + 1, n - 1);
	rdata(data, type, a);
	buf_init(&records, DNS_RECORDS_BYTES);
	if (!dns_packet_parse(data, type, &records, &packet)) {
		size_t count = 0;

		check_host(str_of(packet.canonical.text, packet.canonical.n));
		if (buf_failed(&records))
			panic("the buffer was passed");
		for (rest = buf_str(&records); !rec_dns_rdata_get(&rest, &r); count++)
			rdata(r.data, type, a);
		if (count != packet.count || rest.n)
			panic("%zu records, %zu said", count, packet.count);
	}
	buf_free(&records);
	arena_free(a);
	return 0;
}
