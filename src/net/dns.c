/* The client side of DNS: one question over the channel, its answer into an arena.
 *
 * The one rule that matters (a failed look-up is not a "not found") is kept in one place, dns_ask:
 * whatever the channel or the role says other than an answer becomes ERR_TEMPORARY. A record that
 * cannot be read makes the whole answer a failure, since something is wrong on the way; one that
 * can be read but names no host (a space or a NUL in it) is left out.
 */
#include "net/dns.h"

#include "net/dns_wire.h"

#include <stdio.h>

enum { RCODE_NO_ERROR = 0, RCODE_NO_NAME = 3, REVERSE_MAX = 80 };

bool dns_name_is_askable(str name)
{
	size_t label = 0;

	if (str_ends(name, S(".")))
		name.n--;
	if (!name.n || name.n > DNS_NAME_MAX)
		return false;
	for (size_t i = 0; i < name.n; i++) {
		char c = name.p[i];

		if (c == '.') {
			if (label == 0)
				return false;
			label = 0;
			continue;
		}
		if (c <= ' ' || c > '~' || c == '\\' || c == '"' || ++label > 63)
			return false;
	}
	return label > 0;
}

/* ERR_TEMPORARY for every failure but those that are ours. */
static enum err dns_ask(struct chan *dns, str name, uint16_t type, struct arena *a,
			int64_t deadline, struct msg_dns_reply *reply)
{
	enum err err;

	if (!dns_name_is_askable(name))
		return ERR_SYNTAX;
	err = CALL(dns, dns_query, dns_reply, reply, a, deadline, .name = name, .type = type);
	if (err == ERR_CANCELLED || err == ERR_NO_MEMORY)
		return err;
	if (err || (reply->rcode != RCODE_NO_ERROR && reply->rcode != RCODE_NO_NAME))
		return ERR_TEMPORARY;
	return ERR_OK;
}

static size_t element_size(uint16_t type)
{
	return type == DNS_TYPE_MX			     ? sizeof(struct dns_mx)
	       : type == DNS_TYPE_TLSA			     ? sizeof(struct dns_tlsa)
	       : type == DNS_TYPE_A || type == DNS_TYPE_AAAA ? sizeof(struct addr)
							     : sizeof(str);
}

static enum err read_one(str data, uint16_t type, struct arena *a, struct dns_answer *out)
{
	size_t i = out->count;

	switch (type) {
	case DNS_TYPE_MX:
		return dns_rdata_mx(data, a, &out->mx[i]);
	case DNS_TYPE_A:
	case DNS_TYPE_AAAA:
		return dns_rdata_address(data, type, &out->address[i]);
	case DNS_TYPE_TXT:
		return dns_rdata_txt(data, a, &out->text[i]);
	case DNS_TYPE_TLSA:
		return dns_rdata_tlsa(data, a, &out->tlsa[i]);
	default:
		return dns_rdata_name(data, a, &out->text[i]);
	}
}

static enum err read_records(str records, uint16_t type, struct arena *a, struct dns_answer *out)
{
	struct rec_dns_rdata r;
	size_t count = 0;
	str rest = records;
	enum err err;
	void *list;

	while (!(err = rec_dns_rdata_get(&rest, &r)))
		count++;
	if (err != ERR_EOF || count > DNS_RECORDS_MAX)
		return ERR_TEMPORARY;
	list = arena_array(a, MAX(count, (size_t)1), element_size(type));
	if (!list)
		return ERR_NO_MEMORY;
	if (type == DNS_TYPE_MX)
		out->mx = list;
	else if (type == DNS_TYPE_TLSA)
		out->tlsa = list;
	else if (type == DNS_TYPE_A || type == DNS_TYPE_AAAA)
		out->address = list;
	else
		out->text = list;
	while (!rec_dns_rdata_get(&records, &r)) {
		err = read_one(r.data, type, a, out);
		if (!err)
			out->count++;
		else if (err != ERR_UNSUPPORTED)
			return err == ERR_NO_MEMORY ? err : ERR_TEMPORARY;
	}
	/* Records, but none that can be used: not the same as no data. */
	return count && !out->count ? ERR_TEMPORARY : ERR_OK;
}

static enum err look_up(struct chan *dns, str name, uint16_t type, struct arena *a,
			int64_t deadline, struct dns_answer *out)
{
	struct msg_dns_reply reply;
	enum err err;

	*out = (struct dns_answer){ .result = DNS_NO_DATA };
	if ((err = dns_ask(dns, name, type, a, deadline, &reply)))
		return err;
	out->is_secure = reply.secure;
	out->ttl = reply.ttl;
	out->canonical = reply.canonical;
	if (reply.rcode == RCODE_NO_NAME) {
		out->result = DNS_NO_NAME;
		return ERR_OK;
	}
	err = read_records(reply.records, type, a, out);
	if (!err && out->count)
		out->result = DNS_FOUND;
	return err;
}

enum err dns_mx(struct chan *dns, str name, struct arena *a, int64_t deadline,
		struct dns_answer *out)
{
	return look_up(dns, name, DNS_TYPE_MX, a, deadline, out);
}

enum err dns_a(struct chan *dns, str name, struct arena *a, int64_t deadline,
	       struct dns_answer *out)
{
	return look_up(dns, name, DNS_TYPE_A, a, deadline, out);
}

enum err dns_aaaa(struct chan *dns, str name, struct arena *a, int64_t deadline,
		  struct dns_answer *out)
{
	return look_up(dns, name, DNS_TYPE_AAAA, a, deadline, out);
}

enum err dns_txt(struct chan *dns, str name, struct arena *a, int64_t deadline,
		 struct dns_answer *out)
{
	return look_up(dns, name, DNS_TYPE_TXT, a, deadline, out);
}

enum err dns_ptr(struct chan *dns, const struct addr *address, struct arena *a, int64_t deadline,
		 struct dns_answer *out)
{
	static const char hex[] = "0123456789abcdef";
	const uint8_t *ip = address->ip;
	char room[REVERSE_MAX];
	struct buf name = { .p = room, .size = sizeof(room), .max = sizeof(room) };

	*out = (struct dns_answer){ .result = DNS_NO_DATA };
	if (address->family == ADDR_IP4) {
		int n = snprintf(room, sizeof(room), "%u.%u.%u.%u.in-addr.arpa", ip[3], ip[2],
				 ip[1], ip[0]);

		return look_up(dns, str_of(room, (size_t)n), DNS_TYPE_PTR, a, deadline, out);
	}
	if (address->family != ADDR_IP6)
		return ERR_SYNTAX;
	for (size_t i = 16; i-- > 0;) {
		buf_add_char(&name, hex[ip[i] & 15]);
		buf_add_char(&name, '.');
		buf_add_char(&name, hex[ip[i] >> 4]);
		buf_add_char(&name, '.');
	}
	buf_add(&name, S("ip6.arpa"));
	return look_up(dns, buf_str(&name), DNS_TYPE_PTR, a, deadline, out);
}

enum err dns_tlsa(struct chan *dns, uint16_t port, str host, struct arena *a, int64_t deadline,
		  struct dns_answer *out)
{
	str name = arena_printf(a, "_%u._tcp.%.*s", port, STR_ARGS(host));

	*out = (struct dns_answer){ .result = DNS_NO_DATA };
	if (!name.p)
		return ERR_NO_MEMORY;
	return look_up(dns, name, DNS_TYPE_TLSA, a, deadline, out);
}
