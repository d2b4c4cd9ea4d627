/* DNS in its wire format: RFC 1035 4.1 and the data of the record types that mail needs.
 *
 *	header 12 bytes: id, flags (QR .. TC .. RCODE), counts of questions, answers, authorities,
 * additionals question         name, type, class record           name, type, class, ttl (4), length
 * of data (2), data name             labels (length 1..63, bytes), ended by a zero byte or a pointer
 * (two bytes, 11 in the top bits) to an earlier place
 *
 * Every length is checked against what is left of its own container. Pointers must point before
 * the place where the name began, and each one before the last, so a loop cannot be written; a
 * name has at most 255 bytes. The packet comes from our own libunbound, which has parsed it once
 * already; we trust it no further for that.
 *
 * Comparing names is ASCII's lower case (RFC 4343).
 */
#include "net/dns_wire.h"

#include "base/msg.h"

#include <assert.h>

enum { HEADER = 12, CLASS_IN = 1, TYPE_SOA = 6, TTL_MAX = 86400 * 7 };

struct wire_name {
	uint8_t p[DNS_WIRE_NAME_MAX]; /* lower case */
	size_t n;
};

static unsigned be16(const char *p)
{
	return (unsigned)(uint8_t)p[0] << 8 | (uint8_t)p[1];
}

static uint32_t be32(const char *p)
{
	return (uint32_t)be16(p) << 16 | be16(p + 2);
}

/* One label into the name. */
static enum err add_label(struct wire_name *out, const char *p, size_t length)
{
	if (out->n + 1 + length >= sizeof(out->p)) /* room for the zero byte */
		return ERR_SYNTAX;
	out->p[out->n++] = (uint8_t)length;
	for (size_t i = 0; i < length; i++)
		out->p[out->n++] = (uint8_t)ascii_lower(p[i]);
	return ERR_OK;
}

/* The name at `at`, pointers followed; *after is the first byte behind it. */
static enum err packet_name(str packet, size_t at, struct wire_name *out, size_t *after)
{
	size_t limit = at; /* pointers must lead before this */
	bool has_jumped = false;

	out->n = 0;
	for (;;) {
		size_t length;

		if (at >= packet.n)
			return ERR_SYNTAX;
		length = (uint8_t)packet.p[at];
		if (length >= 0xc0) { /* RFC 1035 4.1.4 */
			if (packet.n - at < 2)
				return ERR_SYNTAX;
			if (!has_jumped)
				*after = at + 2;
			has_jumped = true;
			at = be16(packet.p + at) & 0x3fff;
			if (at >= limit || at < HEADER)
				return ERR_SYNTAX;
			limit = at;
			continue;
		}
		if (length >= 0x40 || length > packet.n - at - 1)
			return ERR_SYNTAX;
		if (length == 0)
			break;
		if (add_label(out, packet.p + at + 1, length))
			return ERR_SYNTAX;
		at += 1 + length;
	}
	out->p[out->n++] = 0;
	if (!has_jumped)
		*after = at + 1;
	return ERR_OK;
}

static bool is_host_char(char c)
{
	return ascii_is_alnum(c) || c == '-' || c == '_';
}

enum err dns_wire_name(str *rest, struct dns_name *out)
{
	enum err err = ERR_OK;
	size_t at = 0, length;

	out->n = 0;
	for (;;) {
		if (at >= rest->n)
			return ERR_SYNTAX;
		length = (uint8_t)rest->p[at++];
		if (length == 0)
			break;
		if (length >= 0x40 || length > rest->n - at || at + length >= DNS_WIRE_NAME_MAX)
			return ERR_SYNTAX;
		if (out->n)
			out->text[out->n++] = '.';
		for (size_t i = 0; i < length; i++, at++) {
			if (!is_host_char(rest->p[at]))
				err = ERR_UNSUPPORTED;
			out->text[out->n++] = ascii_lower(rest->p[at]);
		}
		assert(out->n <= DNS_NAME_MAX);
	}
	out->text[out->n] = '\0';
	*rest = str_from(*rest, at);
	return err;
}

/* ---- packets ---- */

struct record {
	struct wire_name owner;
	unsigned type, class;
	uint32_t ttl;
	size_t data, size; /* in the packet */
	size_t after;
};

static enum err read_record(str packet, size_t at, struct record *r)
{
	size_t p;

	if (packet_name(packet, at, &r->owner, &p) || packet.n - p < 10)
		return ERR_SYNTAX;
	r->type = be16(packet.p + p);
	r->class = be16(packet.p + p + 2);
	r->ttl = be32(packet.p + p + 4);
	if (r->ttl > TTL_MAX) /* RFC 2181 8: the top bit set is 0, much too long is our choice */
		r->ttl = r->ttl >> 31 ? 0 : TTL_MAX;
	r->size = be16(packet.p + p + 8);
	r->data = p + 10;
	if (r->size > packet.n - r->data)
		return ERR_SYNTAX;
	r->after = r->data + r->size;
	return ERR_OK;
}

static bool same_name(const struct wire_name *a, const struct wire_name *b)
{
	return a->n == b->n && memcmp(a->p, b->p, a->n) == 0;
}

/* Undoes compression in the data: of the types that we ask for, MX and PTR have names that may be
 * compressed (RFC 3597 4). The data is `fixed` bytes and a name. */
static enum err expand_data(str packet, const struct record *r, size_t fixed, char *out, size_t *n)
{
	struct wire_name name;
	size_t after;

	if (r->size <= fixed || packet_name(packet, r->data + fixed, &name, &after) ||
	    after != r->after)
		return ERR_SYNTAX;
	memcpy(out, packet.p + r->data, fixed);
	memcpy(out + fixed, name.p, name.n);
	*n = fixed + name.n;
	return ERR_OK;
}

static enum err add_record(str packet, const struct record *r, struct buf *records,
			   struct dns_packet *out)
{
	str data = str_of(packet.p + r->data, r->size);
	char expanded[2 + DNS_WIRE_NAME_MAX];
	size_t n = 0;

	if (r->type == DNS_TYPE_MX || r->type == DNS_TYPE_PTR) {
		if (expand_data(packet, r, r->type == DNS_TYPE_MX ? 2 : 0, expanded, &n))
			return ERR_SYNTAX;
		data = str_of(expanded, n);
	}
	/* 4: the length before it. */
	if (out->count == DNS_RECORDS_MAX || data.n > DNS_RDATA_MAX ||
	    buf_len(records) + data.n + 4 > records->max)
		return ERR_OK;
	rec_dns_rdata_put(records, &(struct rec_dns_rdata){ .data = data });
	out->ttl = out->count++ ? MIN(out->ttl, r->ttl) : r->ttl;
	return ERR_OK;
}

struct parse {
	str packet;
	unsigned type;
	size_t answers, authorities; /* where they begin */
	unsigned answers_n, authorities_n;
};

/* The header and the question: *name is what was asked. */
static enum err read_header(struct parse *p, struct wire_name *name, struct dns_packet *out)
{
	unsigned flags;
	size_t at;

	if (p->packet.n < HEADER || be16(p->packet.p + 4) != 1)
		return ERR_SYNTAX;
	flags = be16(p->packet.p + 2);
	if (!(flags & 0x8000))
		return ERR_SYNTAX;
	out->is_truncated = flags & 0x0200;
	out->rcode = flags & 15;
	p->answers_n = be16(p->packet.p + 6);
	p->authorities_n = be16(p->packet.p + 8);
	if (packet_name(p->packet, HEADER, name, &at) || p->packet.n - at < 4 ||
	    be16(p->packet.p + at) != p->type || be16(p->packet.p + at + 2) != CLASS_IN)
		return ERR_SYNTAX;
	p->answers = at + 4;
	return ERR_OK;
}

/* The first record of the type that this name owns among the answers: ERR_NOT_FOUND, ERR_SYNTAX. */
static enum err find_record(const struct parse *p, const struct wire_name *owner, unsigned type,
			    struct record *r)
{
	size_t at = p->answers;

	for (unsigned i = 0; i < p->answers_n; i++, at = r->after) {
		if (read_record(p->packet, at, r))
			return ERR_SYNTAX;
		if (r->type == type && r->class == CLASS_IN && same_name(&r->owner, owner))
			return ERR_OK;
	}
	return ERR_NOT_FOUND;
}

/* RFC 1034 3.6.2: *name becomes the end of the chain of CNAMEs. */
static enum err follow_cnames(const struct parse *p, struct wire_name *name, uint32_t *ttl,
			      bool *has_cname)
{
	struct record r;
	enum err err;
	size_t after;

	*has_cname = false;
	for (int i = 0; i <= DNS_CNAMES_MAX; i++) {
		err = find_record(p, name, p->type, &r);
		if (err == ERR_NOT_FOUND)
			err = find_record(p, name, DNS_TYPE_CNAME, &r);
		else if (!err)
			return ERR_OK;
		if (err)
			return err == ERR_NOT_FOUND ? ERR_OK : err;
		if (packet_name(p->packet, r.data, name, &after) || after != r.after)
			return ERR_SYNTAX;
		*ttl = *has_cname ? MIN(*ttl, r.ttl) : r.ttl;
		*has_cname = true;
	}
	return ERR_SYNTAX;
}

/* RFC 2308 5: a negative answer lives as long as the lesser of the SOA's TTL and its last field.
 * Without an SOA: not at all. */
static uint32_t negative_ttl(const struct parse *p, size_t at)
{
	struct record r;

	for (unsigned i = 0; i < p->authorities_n; i++, at = r.after) {
		if (read_record(p->packet, at, &r))
			return 0;
		if (r.type == TYPE_SOA && r.size >= 4)
			return MIN(r.ttl, be32(p->packet.p + r.after - 4));
	}
	return 0;
}

enum err dns_packet_parse(str packet, uint16_t type, struct buf *records, struct dns_packet *out)
{
	struct parse p = { .packet = packet, .type = type };
	struct wire_name name;
	struct record r;
	uint32_t cname_ttl = 0;
	bool has_cname;
	str wire;
	size_t at;

	*out = (struct dns_packet){ .rcode = 0 };
	if (read_header(&p, &name, out))
		return ERR_SYNTAX;
	if (follow_cnames(&p, &name, &cname_ttl, &has_cname))
		return ERR_SYNTAX;
	at = p.answers;
	for (unsigned i = 0; i < p.answers_n; i++, at = r.after)
		if (read_record(packet, at, &r) ||
		    (r.type == type && r.class == CLASS_IN && same_name(&r.owner, &name) &&
		     add_record(packet, &r, records, out)))
			return ERR_SYNTAX;
	if (!out->count)
		out->ttl = negative_ttl(&p, at);
	if (has_cname)
		out->ttl = MIN(out->ttl, cname_ttl);
	wire = str_of(name.p, name.n);
	if (dns_wire_name(&wire, &out->canonical))
		out->canonical =
			(struct dns_name){ .n = 0 }; /* no host's name; nobody may use it as one */
	return ERR_OK;
}

/* ---- the data of records ---- */

static enum err name_into(str *rest, struct arena *a, str *out)
{
	struct dns_name name;
	enum err err = dns_wire_name(rest, &name);

	if (err)
		return err;
	*out = arena_str(a, str_of(name.text, name.n));
	return out->p ? ERR_OK : ERR_NO_MEMORY;
}

enum err dns_rdata_mx(str data, struct arena *a, struct dns_mx *out)
{
	enum err err;

	/* RFC 1035 3.3.9 */
	if (data.n < 3)
		return ERR_SYNTAX;
	out->preference = (uint16_t)be16(data.p);
	data = str_from(data, 2);
	err = name_into(&data, a, &out->host);
	return !err && data.n ? ERR_SYNTAX : err;
}

enum err dns_rdata_name(str data, struct arena *a, str *out)
{
	enum err err = name_into(&data, a, out);

	return !err && data.n ? ERR_SYNTAX : err;
}

enum err dns_rdata_address(str data, uint16_t type, struct addr *out)
{
	static const char mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, (char)0xff, (char)0xff };

	*out = (struct addr){ .family = type == DNS_TYPE_A ? ADDR_IP4 : ADDR_IP6 };
	if (data.n != (type == DNS_TYPE_A ? 4 : 16))
		return ERR_SYNTAX;
	/* RFC 4291 2.5.5.2: an IPv4 address in disguise has no business in an AAAA. */
	if (data.n == 16 && memcmp(data.p, mapped, sizeof(mapped)) == 0)
		return ERR_UNSUPPORTED;
	memcpy(out->ip, data.p, data.n);
	return ERR_OK;
}

enum err dns_rdata_txt(str data, struct arena *a, str *out)
{
	size_t at = 0, n = 0;
	char *p;

	/* RFC 1035 3.3.14: one or more strings; RFC 7208 3.3: put together without spaces. */
	if (!data.n || data.n > DNS_TXT_MAX)
		return ERR_SYNTAX;
	p = arena_alloc(a, data.n);
	if (!p)
		return ERR_NO_MEMORY;
	while (at < data.n) {
		size_t length = (uint8_t)data.p[at++];

		if (length > data.n - at)
			return ERR_SYNTAX;
		memcpy(p + n, data.p + at, length);
		n += length;
		at += length;
	}
	*out = str_of(p, n);
	return ERR_OK;
}

enum err dns_rdata_tlsa(str data, struct arena *a, struct dns_tlsa *out)
{
	/* RFC 6698 2.1 */
	if (data.n < 4 || data.n - 3 > DNS_TLSA_DATA_MAX)
		return ERR_SYNTAX;
	*out = (struct dns_tlsa){ .usage = (uint8_t)data.p[0],
				  .selector = (uint8_t)data.p[1],
				  .matching = (uint8_t)data.p[2],
				  .data = arena_str(a, str_from(data, 3)) };
	return out->data.p ? ERR_OK : ERR_NO_MEMORY;
}
