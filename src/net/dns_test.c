/* The client side of DNS: packets and data of records at their edges, and the three results over a
 * channel. */
#include "net/dns.h"

#include "base/tap.h"
#include "net/dns_test_util.h"
#include "net/dns_wire.h"

#include <stdlib.h>

enum { PACKET_MAX = 65535 };

struct fixture {
	struct buf packet, records;
	struct dns_packet out;
	struct arena *arena;
};

static void begin(struct fixture *f)
{
	buf_clear(&f->packet);
	buf_clear(&f->records);
	arena_reset(f->arena);
}

static enum err parse(struct fixture *f, unsigned type)
{
	return dns_packet_parse(buf_str(&f->packet), (uint16_t)type, &f->records, &f->out);
}

/* The nth record's data. */
static str record(struct fixture *f, size_t n)
{
	str rest = buf_str(&f->records);
	struct rec_dns_rdata r = { .data = STR_EMPTY };

	for (size_t i = 0; i <= n; i++)
		if (rec_dns_rdata_get(&rest, &r))
			return STR_EMPTY;
	return r.data;
}

static str canonical(const struct fixture *f)
{
	return str_of(f->out.canonical.text, f->out.canonical.n);
}

static void packets(struct fixture *f)
{
	tap_group("packets");
	begin(f);
	put_head(&f->packet, 7, 0x8180, 2, 0, S("Example.test"), DNS_TYPE_A);
	put_record(&f->packet, S("example.TEST"), DNS_TYPE_A, 300, S("\xc0\x00\x02\x01"));
	put_record(&f->packet, S("example.test"), DNS_TYPE_A, 60, S("\xc0\x00\x02\x02"));
	EQ(parse(f, DNS_TYPE_A), ERR_OK);
	EQ(f->out.count, 2);
	EQ(f->out.ttl, 60);
	EQ(f->out.rcode, 0);
	STR_EQ(canonical(f), S("example.test"));
	STR_EQ(record(f, 1), S("\xc0\x00\x02\x02"));
	/* Cut anywhere it is refused, and nothing is read behind its end. */
	for (size_t n = 0; n < buf_len(&f->packet); n++) {
		char *copy = malloc(n + !n);
		struct buf none;

		memcpy(copy, buf_str(&f->packet).p, n);
		buf_init(&none, 1000);
		EQ(dns_packet_parse(str_of(copy, n), DNS_TYPE_A, &none, &f->out), ERR_SYNTAX);
		buf_free(&none);
		free(copy);
	}
	EQ(parse(f, DNS_TYPE_MX), ERR_SYNTAX); /* an answer to another question */

	begin(f);
	put_head(&f->packet, 7, 0x8183, 0, 1, S("no.test"), DNS_TYPE_A);
	put_record(&f->packet, S("test"), 6, 900,
		   S("\0\0\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0\x3c"));
	EQ(parse(f, DNS_TYPE_A), ERR_OK);
	EQ(f->out.rcode, 3);
	EQ(f->out.count, 0);
	EQ(f->out.ttl, 60);

	begin(f);
	put_head(&f->packet, 7, 0x0100, 0, 0, S("no.test"), DNS_TYPE_A);
	EQ(parse(f, DNS_TYPE_A), ERR_SYNTAX); /* a question */
}

static void cnames(struct fixture *f)
{
	char name[32];

	tap_group("CNAMEs");
	begin(f);
	put_head(&f->packet, 7, 0x8180, 4, 0, S("www.test"), DNS_TYPE_A);
	/* Out of order, with a record of a name that nobody asked for. */
	put_record(&f->packet, S("evil.test"), DNS_TYPE_A, 300, S("\x06\x06\x06\x06"));
	put_record(&f->packet, S("b.test"), DNS_TYPE_A, 300, S("\x01\x02\x03\x04"));
	put_record(&f->packet, S("a.test"), DNS_TYPE_CNAME, 20, S("\1b\4test\0"));
	put_record(&f->packet, S("www.test"), DNS_TYPE_CNAME, 30, S("\1a\4test\0"));
	EQ(parse(f, DNS_TYPE_A), ERR_OK);
	EQ(f->out.count, 1);
	STR_EQ(canonical(f), S("b.test"));
	STR_EQ(record(f, 0), S("\x01\x02\x03\x04"));
	EQ(f->out.ttl, 20);

	begin(f);
	put_head(&f->packet, 7, 0x8180, 2, 0, S("a.test"), DNS_TYPE_A);
	put_record(&f->packet, S("a.test"), DNS_TYPE_CNAME, 20, S("\1b\4test\0"));
	put_record(&f->packet, S("b.test"), DNS_TYPE_CNAME, 20, S("\1a\4test\0"));
	EQ(parse(f, DNS_TYPE_A), ERR_SYNTAX); /* a circle */

	for (int n = DNS_CNAMES_MAX - 1; n <= DNS_CNAMES_MAX + 1; n++) {
		begin(f);
		put_head(&f->packet, 7, 0x8180, (unsigned)n, 0, S("n0.test"), DNS_TYPE_A);
		for (int i = 0; i < n; i++) {
			struct buf to;

			buf_init(&to, 100);
			snprintf(name, sizeof(name), "n%d.test", i + 1);
			put_name(&to, str_from_c(name));
			snprintf(name, sizeof(name), "n%d.test", i);
			put_record(&f->packet, str_from_c(name), DNS_TYPE_CNAME, 20, buf_str(&to));
			buf_free(&to);
		}
		EQ(parse(f, DNS_TYPE_A), n <= DNS_CNAMES_MAX ? ERR_OK : ERR_SYNTAX);
		EQ(f->out.count, 0);
	}
}

static void compression(struct fixture *f)
{
	struct dns_mx mx;

	tap_group("compression");
	begin(f);
	put_head(&f->packet, 7, 0x8180, 1, 0, S("ex.test"), DNS_TYPE_MX);
	buf_add(&f->packet, S("\xc0\x0c\0\x0f\0\1\0\0\0\x3c\0\x09\0\x0a\4mail\xc0\x0c"));
	EQ(parse(f, DNS_TYPE_MX), ERR_OK);
	EQ(f->out.count, 1);
	EQ(dns_rdata_mx(record(f, 0), f->arena, &mx), ERR_OK);
	EQ(mx.preference, 10);
	STR_EQ(mx.host, S("mail.ex.test"));

	static const struct {
		const char *what;
		str tail;
	} bad[] = {
		{ "to itself", S("\xc0\x19\0\x0f\0\1\0\0\0\x3c\0\3\0\x0a\0") },
		{ "forward", S("\xc0\x20\0\x0f\0\1\0\0\0\x3c\0\3\0\x0a\0") },
		{ "into the header", S("\xc0\x02\0\x0f\0\1\0\0\0\x3c\0\3\0\x0a\0") },
		{ "reserved bits", S("\x80\x0c\0\x0f\0\1\0\0\0\x3c\0\3\0\x0a\0") },
		{ "name shorter than the data", S("\xc0\x0c\0\x0f\0\1\0\0\0\x3c\0\4\0\x0a\0\0") },
		{ "name longer than the data",
		  S("\xc0\x0c\0\x0f\0\1\0\0\0\x3c\0\4\0\x0a\4mail\0") },
		{ "no data", S("\xc0\x0c\0\x0f\0\1\0\0\0\x3c\0\0") },
		{ "a loop in the data", S("\xc0\x0c\0\x0f\0\1\0\0\0\x3c\0\5\0\x0a\1a\xc0\x27") },
	};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		begin(f);
		put_head(&f->packet, 7, 0x8180, 1, 0, S("ex.test"), DNS_TYPE_MX);
		buf_add(&f->packet, bad[i].tail);
		if (!OK(parse(f, DNS_TYPE_MX) == ERR_SYNTAX))
			printf("# %s\n", bad[i].what);
	}
}

static void names(struct fixture *f)
{
	struct dns_name name;
	struct buf b;
	str rest, out;

	tap_group("names");
	rest = S("\4Mail\2eX\0tail");
	EQ(dns_wire_name(&rest, &name), ERR_OK);
	STR_EQ(str_of(name.text, name.n), S("mail.ex"));
	STR_EQ(rest, S("tail"));
	rest = S("\0");
	EQ(dns_wire_name(&rest, &name), ERR_OK);
	EQ(name.n, 0);
	static const str odd[] = { S("\4a b!\0"), S("\3a.b\0"), S("\2a\0\0"), S("\3\r\nx\0"),
				   S("\1\xff\0") };
	for (size_t i = 0; i < ARRAY_LEN(odd); i++) {
		rest = odd[i];
		EQ(dns_wire_name(&rest, &name), ERR_UNSUPPORTED);
		EQ(dns_rdata_name(odd[i], f->arena, &out), ERR_UNSUPPORTED);
	}
	static const str bad[] = { S(""), S("\4mai"), S("\4mail"), S("\xc0\x0c"),
				   S("\x40"
				     "a") };
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		rest = bad[i];
		EQ(dns_wire_name(&rest, &name), ERR_SYNTAX);
	}
	EQ(dns_rdata_name(S("\1a\0x"), f->arena, &out), ERR_SYNTAX);
	/* RFC 1035 2.3.4: 255 bytes on the wire, 63 in a label. */
	for (size_t last = 60; last <= 62; last++) {
		buf_init(&b, 1000);
		for (int i = 0; i < 3; i++) {
			buf_add_char(&b, 63);
			memset(buf_reserve(&b, 63), 'x', 63);
			buf_added(&b, 63);
		}
		buf_add_char(&b, (char)last);
		memset(buf_reserve(&b, last), 'y', last);
		buf_added(&b, last);
		buf_add_char(&b, 0);
		rest = buf_str(&b);
		EQ(dns_wire_name(&rest, &name), last <= 61 ? ERR_OK : ERR_SYNTAX);
		if (last == 61)
			EQ(name.n, DNS_NAME_MAX);
		buf_free(&b);
	}
	OK(dns_name_is_askable(S("a.b")) && dns_name_is_askable(S("a.b.")) &&
	   dns_name_is_askable(S("_x._tcp.a/b+c=d")));
	OK(!dns_name_is_askable(S("")) && !dns_name_is_askable(S(".")) &&
	   !dns_name_is_askable(S("a..b")) && !dns_name_is_askable(S(".a")) &&
	   !dns_name_is_askable(S("a b")) && !dns_name_is_askable(S("a\\b")) &&
	   !dns_name_is_askable(S("a\0b")) && !dns_name_is_askable(S("\xc3\xa9")));
	char label[65];
	memset(label, 'a', sizeof(label));
	OK(dns_name_is_askable(str_of(label, 63)));
	OK(!dns_name_is_askable(str_of(label, 64)));
}

static void data(struct fixture *f)
{
	struct dns_tlsa tlsa;
	struct dns_mx mx;
	struct addr at;
	char text[ADDR_TEXT_MAX];
	str s;

	tap_group("data of records");
	EQ(dns_rdata_mx(S("\0\0\0"), f->arena, &mx), ERR_OK); /* RFC 7505: the null MX */
	EQ(mx.preference, 0);
	EQ(mx.host.n, 0);
	EQ(dns_rdata_mx(S("\0\0"), f->arena, &mx), ERR_SYNTAX);
	EQ(dns_rdata_mx(S("\0\0\1a\0x"), f->arena, &mx), ERR_SYNTAX);
	EQ(dns_rdata_address(S("\xc0\0\2\1"), DNS_TYPE_A, &at), ERR_OK);
	STR_EQ(addr_ip_text(&at, text), S("192.0.2.1"));
	EQ(dns_rdata_address(S("\xc0\0\2"), DNS_TYPE_A, &at), ERR_SYNTAX);
	EQ(dns_rdata_address(S("\xc0\0\2\1\1"), DNS_TYPE_A, &at), ERR_SYNTAX);
	EQ(dns_rdata_address(S("\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"), DNS_TYPE_AAAA, &at),
	   ERR_OK);
	STR_EQ(addr_ip_text(&at, text), S("2001:db8::1"));
	EQ(dns_rdata_address(S("\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\1"), DNS_TYPE_AAAA, &at),
	   ERR_UNSUPPORTED);
	EQ(dns_rdata_txt(S("\6v=spf1\5 -all"), f->arena, &s), ERR_OK);
	STR_EQ(s, S("v=spf1 -all"));
	EQ(dns_rdata_txt(S("\0"), f->arena, &s), ERR_OK);
	EQ(s.n, 0);
	EQ(dns_rdata_txt(S("\6v=spf"), f->arena, &s), ERR_SYNTAX);
	EQ(dns_rdata_txt(S(""), f->arena, &s), ERR_SYNTAX);
	EQ(dns_rdata_tlsa(S("\3\1\1abc"), f->arena, &tlsa), ERR_OK);
	EQ(tlsa.usage * 100 + tlsa.selector * 10 + tlsa.matching, 311);
	STR_EQ(tlsa.data, S("abc"));
	EQ(dns_rdata_tlsa(S("\3\1\1"), f->arena, &tlsa), ERR_SYNTAX);
}

static void many(struct fixture *f)
{
	tap_group("many records");
	for (unsigned n = DNS_RECORDS_MAX - 1; n <= DNS_RECORDS_MAX + 1; n++) {
		begin(f);
		put_head(&f->packet, 7, 0x8180, n, 0, S("a.test"), DNS_TYPE_A);
		for (unsigned i = 0; i < n; i++)
			put_record(&f->packet, S("a.test"), DNS_TYPE_A, 300, S("\1\2\3\4"));
		EQ(parse(f, DNS_TYPE_A), ERR_OK);
		EQ(f->out.count, MIN(n, (unsigned)DNS_RECORDS_MAX));
	}
}

/* ---- over a channel ---- */

struct test {
	struct loop *loop;
	struct chan *client, *role;
	struct arena *arena;
	bool done;
};

static void answer(struct chan *c, uint32_t id, unsigned rcode, const str *list, size_t n)
{
	struct buf records;

	buf_init(&records, DNS_RECORDS_BYTES);
	for (size_t i = 0; i < n; i++)
		rec_dns_rdata_put(&records, &(struct rec_dns_rdata){ .data = list[i] });
	EQ(REPLY(c, id, dns_reply, .rcode = (uint16_t)rcode, .secure = true, .ttl = 77,
		 .canonical = S("real.test"), .records = buf_str(&records)),
	   ERR_OK);
	buf_free(&records);
}

static void role_message(void *arg, struct chan *c, struct msg *m)
{
	static const str mx[] = { S("\0\x14\2m2\4test\0"), S("\0\x0a\3m o\4test\0"),
				  S("\0\x0a\2m1\4test\0") };
	static const str odd[] = { S("\0\x0a\3m o\4test\0") },
			 damaged[] = { S("\0\x0a\2m1\4test\0"), S("\0") };
	static const str a[] = { S("\xc0\0\2\1") }, txt[] = { S("\3one"), S("\3two\3 2 ") },
			 tlsa[] = { S("\3\1\1x") };
	static const str ptr[] = { S("\4host\4test\0") };
	const struct msg_dns_query *q = &m->u.dns_query;
	static const struct {
		str name;
		unsigned type, rcode;
		const str *list;
		size_t n;
	} rows[] = {
		{ S("ex.test"), DNS_TYPE_MX, 0, mx, 3 },
		{ S("odd.test"), DNS_TYPE_MX, 0, odd, 1 },
		{ S("damaged.test"), DNS_TYPE_MX, 0, damaged, 2 },
		{ S("ex.test"), DNS_TYPE_A, 0, a, 1 },
		{ S("ex.test"), DNS_TYPE_AAAA, 0, NULL, 0 },
		{ S("ex.test"), DNS_TYPE_TXT, 0, txt, 2 },
		{ S("no.test"), DNS_TYPE_A, 3, NULL, 0 },
		{ S("refused.test"), DNS_TYPE_A, 5, NULL, 0 },
		{ S("_25._tcp.mx.test"), DNS_TYPE_TLSA, 0, tlsa, 1 },
		{ S("1.2.0.192.in-addr.arpa"), DNS_TYPE_PTR, 0, ptr, 1 },
		{ S("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"),
		  DNS_TYPE_PTR, 0, ptr, 1 },
	};

	(void)arg;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (str_eq(q->name, rows[i].name) && q->type == rows[i].type) {
			answer(c, m->id, rows[i].rcode, rows[i].list, rows[i].n);
			return;
		}
	if (str_eq(q->name, S("wrong.test")))
		EQ(REPLY_FAILED(c, m->id, ERR_NOT_FOUND, S("must not be believed")), ERR_OK);
	else if (!str_eq(q->name, S("silent.test")))
		EQ(REPLY_FAILED(c, m->id, ERR_TEMPORARY, S("servfail")), ERR_OK);
}

static void client_message(void *arg, struct chan *c, struct msg *m)
{
	(void)arg;
	(void)c;
	(void)m;
}

static void on_down(void *arg, struct chan *c, enum err why)
{
	(void)arg;
	(void)c;
	(void)why;
}

static void ask(struct test *t)
{
	int64_t late = loop_now(t->loop) + SECONDS(10);
	struct dns_answer a;
	struct addr ip;

	EQ(dns_mx(t->client, S("ex.test"), t->arena, late, &a), ERR_OK);
	EQ(a.result, DNS_FOUND);
	EQ(a.count, 2); /* the one that is no host's name is left out */
	EQ(a.mx[0].preference, 20);
	STR_EQ(a.mx[1].host, S("m1.test"));
	OK(a.is_secure);
	EQ(a.ttl, 77);
	STR_EQ(a.canonical, S("real.test"));
	EQ(dns_a(t->client, S("ex.test"), t->arena, late, &a), ERR_OK);
	EQ(a.result, DNS_FOUND);
	EQ(a.address[0].ip[3], 1);
	EQ(dns_aaaa(t->client, S("ex.test"), t->arena, late, &a), ERR_OK);
	EQ(a.result, DNS_NO_DATA);
	EQ(dns_a(t->client, S("no.test"), t->arena, late, &a), ERR_OK);
	EQ(a.result, DNS_NO_NAME);
	EQ(dns_txt(t->client, S("ex.test"), t->arena, late, &a), ERR_OK);
	EQ(a.count, 2);
	STR_EQ(a.text[1], S("two 2 "));
	EQ(dns_tlsa(t->client, 25, S("mx.test"), t->arena, late, &a), ERR_OK);
	EQ(a.tlsa[0].usage, 3);
	EQ(addr_parse_ip(S("192.0.2.1"), &ip), ERR_OK);
	EQ(dns_ptr(t->client, &ip, t->arena, late, &a), ERR_OK);
	STR_EQ(a.text[0], S("host.test"));
	EQ(addr_parse_ip(S("2001:db8::1"), &ip), ERR_OK);
	EQ(dns_ptr(t->client, &ip, t->arena, late, &a), ERR_OK);
	STR_EQ(a.text[0], S("host.test"));
}

/* Every kind of failure is a temporary one; none is a "not found". */
static void fail(struct test *t)
{
	static const str names_failed[] = { S("servfail.test"), S("wrong.test"),
					    S("refused.test") };
	int64_t late = loop_now(t->loop) + SECONDS(10);
	struct dns_answer a;

	tap_group("failures");
	for (size_t i = 0; i < ARRAY_LEN(names_failed); i++)
		EQ(dns_a(t->client, names_failed[i], t->arena, late, &a), ERR_TEMPORARY);
	EQ(dns_mx(t->client, S("odd.test"), t->arena, late, &a), ERR_TEMPORARY);
	EQ(dns_mx(t->client, S("damaged.test"), t->arena, late, &a), ERR_TEMPORARY);
	EQ(dns_a(t->client, S("silent.test"), t->arena, loop_now(t->loop) + MILLISECONDS(3), &a),
	   ERR_TEMPORARY);
	EQ(dns_a(t->client, S("not a name"), t->arena, late, &a), ERR_SYNTAX);
	chan_free(t->role);
	t->role = NULL;
	EQ(dns_a(t->client, S("ex.test"), t->arena, loop_now(t->loop) + MILLISECONDS(3), &a),
	   ERR_TEMPORARY);
}

static void fiber_main(void *arg)
{
	struct test *t = arg;

	ask(t);
	fail(t);
	t->done = true;
	loop_stop(t->loop);
}

static void over_a_channel(void)
{
	static const struct chan_ops role_ops = { .on_message = role_message, .on_down = on_down };
	static const struct chan_ops client_ops = { .on_message = client_message,
						    .on_down = on_down };
	struct test t = { .arena = arena_new(1 << 20) };
	int fd[2];

	tap_group("over a channel");
	EQ(loop_new(&t.loop), ERR_OK);
	EQ(chan_new(t.loop, ROLE_OUT, ROLE_DNS, 0, &client_ops, &t, &t.client), ERR_OK);
	EQ(chan_new(t.loop, ROLE_DNS, ROLE_OUT, 0, &role_ops, &t, &t.role), ERR_OK);
	EQ(os_socketpair(true, fd), ERR_OK);
	EQ(chan_attach(t.client, fd[0]), ERR_OK);
	EQ(chan_attach(t.role, fd[1]), ERR_OK);
	EQ(fiber_spawn(t.loop, fiber_main, &t), ERR_OK);
	EQ(loop_run(t.loop), ERR_OK);
	OK(t.done);
	chan_free(t.client);
	chan_free(t.role);
	loop_free(t.loop);
	arena_free(t.arena);
}

int main(void)
{
	struct fixture f = { .arena = arena_new(1 << 20) };

	buf_init(&f.packet, PACKET_MAX);
	buf_init(&f.records, DNS_RECORDS_BYTES);
	packets(&f);
	cnames(&f);
	compression(&f);
	names(&f);
	data(&f);
	many(&f);
	over_a_channel();
	buf_free(&f.packet);
	buf_free(&f.records);
	arena_free(f.arena);
	return tap_done();
}
