/* Role dns with libunbound on our loop, against a small name server in this program (UDP and TCP,
 * loopback): the answers, the three results, truncation, the cache, name servers without DNSSEC, a
 * peer that dies. */
#include "base/tap.h"
#include "conf/conf.h"
#include "net/conn.h"
#include "net/dns.h"
#include "net/dns_test_util.h"
#include "roles/role.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PACKET_MAX = 65535, MANY = 120 };

struct server {
	struct loop *loop;
	int udp, tcp;
	struct watch udp_watch, tcp_watch;
	struct addr at;
	int questions, over_tcp;
	bool is_mute;
};

struct test {
	struct role role;
	struct server server, second;
	struct chan *here, *there; /* dns's end, the peer's */
	struct arena *arena;
	char **questions; /* for another name server, instead of the tests */
	bool done;
};

/* ---- the name server ---- */

static const char soa[] = "\2ns\4test\0\1h\4test\0\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0\x3c";

static void put_soa(struct buf *b)
{
	put_record(b, S("test"), 6, 300, str_of(soa, sizeof(soa) - 1));
}

static void put_many(struct buf *b, unsigned id, str name, bool is_tcp)
{
	if (!is_tcp) {
		put_head(b, id, 0x8380, 0, 0, name, DNS_TYPE_MX); /* TC: ask again over TCP */
		return;
	}
	put_head(b, id, 0x8180, MANY, 0, name, DNS_TYPE_MX);
	for (unsigned i = 0; i < MANY; i++) {
		struct buf data;
		char host[32];

		buf_init(&data, 100);
		put_be16(&data, i);
		snprintf(host, sizeof(host), "mx%u.many.test", i);
		put_name(&data, str_from_c(host));
		put_record(b, name, DNS_TYPE_MX, 300, buf_str(&data));
		buf_free(&data);
	}
}

/* The answer to a question; nothing: no answer. */
static void answer(struct server *s, unsigned id, str name, unsigned type, bool is_tcp,
		   struct buf *b)
{
	s->questions++;
	s->over_tcp += is_tcp;
	if (s->is_mute || str_eq(name, S("silent.test")))
		return;
	if (str_eq(name, S("a.test")) && type == DNS_TYPE_A) {
		put_head(b, id, 0x8180, 1, 0, name, type);
		put_record(b, name, type, 300, S("\xc0\0\2\1"));
	} else if (str_eq(name, S("cname.test")) && type == DNS_TYPE_A) {
		put_head(b, id, 0x8180, 2, 0, name, type);
		put_record(b, name, DNS_TYPE_CNAME, 60, S("\1a\4test\0"));
		put_record(b, S("a.test"), type, 300, S("\xc0\0\2\1"));
	} else if (str_eq(name, S("many.test")) && type == DNS_TYPE_MX) {
		put_many(b, id, name, is_tcp);
	} else if (str_eq(name, S("txt.test")) && type == DNS_TYPE_TXT) {
		put_head(b, id, 0x8180, 1, 0, name, type);
		put_record(b, name, type, 300, S("\7v=spf1 \4-all"));
	} else if (str_eq(name, S("1.2.0.192.in-addr.arpa")) && type == DNS_TYPE_PTR) {
		put_head(b, id, 0x8180, 1, 0, name, type);
		put_record(b, name, type, 300, S("\1a\4test\0"));
	} else if (str_eq(name, S("a.test"))) {
		put_head(b, id, 0x8180, 0, 1, name, type);
		put_soa(b);
	} else if (str_eq(name, S("no.test"))) {
		put_head(b, id, 0x8183, 0, 1, name, type);
		put_soa(b);
	} else if (name.n == 0 && type == 2) { /* . NS, but no DNSKEY: a server without DNSSEC */
		put_head(b, id, 0x8180, 1, 0, name, type);
		put_record(b, name, type, 300, S("\1a\4root\0"));
	} else {
		put_head(b, id, 0x8182, 0, 0, name, type); /* SERVFAIL */
	}
}

/* A question's packet to the packet of its answer. */
static void serve(struct server *s, str q, bool is_tcp, struct buf *out)
{
	struct buf name;
	size_t at = 12;

	if (q.n < 17)
		return;
	buf_init(&name, 256);
	while (at + 5 <= q.n && q.p[at]) {
		size_t n = MIN((size_t)(uint8_t)q.p[at], q.n - at - 5);

		if (buf_len(&name))
			buf_add_char(&name, '.');
		for (size_t i = 0; i < n; i++)
			buf_add_char(&name, ascii_lower(q.p[at + 1 + i]));
		at += 1 + n;
	}
	answer(s, (unsigned)(uint8_t)q.p[0] << 8 | (uint8_t)q.p[1], buf_str(&name),
	       (unsigned)(uint8_t)q.p[at + 1] << 8 | (uint8_t)q.p[at + 2], is_tcp, out);
	buf_free(&name);
}

static void on_udp(void *arg, unsigned ready)
{
	struct server *s = arg;
	struct sockaddr_storage from;
	socklen_t from_n = sizeof(from);
	char room[4096];
	ssize_t n;

	(void)ready;
	while ((n = recvfrom(s->udp, room, sizeof(room), MSG_DONTWAIT, (struct sockaddr *)&from,
			     &from_n)) > 0) {
		struct buf out;

		buf_init(&out, PACKET_MAX);
		serve(s, str_of(room, (size_t)n), false, &out);
		if (buf_len(&out))
			sendto(s->udp, buf_str(&out).p, buf_len(&out), 0, (struct sockaddr *)&from,
			       from_n);
		buf_free(&out);
		from_n = sizeof(from);
	}
}

struct client {
	struct server *server;
	struct conn *c;
};

static void tcp_fiber(void *arg)
{
	struct client *k = arg;
	struct buf out;
	str s;

	conn_set_deadline(k->c, loop_now(k->server->loop) + SECONDS(10));
	while (!conn_read_exact(k->c, 2, &s) &&
	       !conn_read_exact(k->c, (size_t)(uint8_t)s.p[0] << 8 | (uint8_t)s.p[1], &s)) {
		char head[2];

		buf_init(&out, PACKET_MAX);
		serve(k->server, s, true, &out);
		head[0] = (char)(buf_len(&out) >> 8);
		head[1] = (char)buf_len(&out);
		/* In two pieces, so that the resolver has to come back for the rest. */
		conn_write(k->c, str_of(head, 2));
		conn_write(k->c, str_head(buf_str(&out), 700));
		(void)!conn_flush(k->c);
		(void)!fiber_sleep(k->server->loop, MILLISECONDS(2));
		conn_write(k->c, str_from(buf_str(&out), 700));
		(void)!conn_flush(k->c);
		buf_free(&out);
	}
	conn_free(k->c);
	free(k);
}

static void on_tcp(void *arg, unsigned ready)
{
	struct server *s = arg;
	struct addr from;
	int fd;

	(void)ready;
	while (!os_accept(s->tcp, &from, &fd)) {
		struct client *k = malloc(sizeof(*k));

		k->server = s;
		if (conn_new(s->loop, fd, &from, &k->c) || fiber_spawn(s->loop, tcp_fiber, k))
			panic("the name server has no room");
	}
}

static void server_start(struct server *s, struct loop *l)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };

	s->loop = l;
	EQ(addr_parse(S("127.0.0.1:0"), &s->at), ERR_OK);
	EQ(os_listen(&s->at, 0, &s->tcp), ERR_OK);
	EQ(os_local_addr(s->tcp, &s->at), ERR_OK);
	at.sin_port = htons(s->at.port);
	s->udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	EQ(bind(s->udp, (struct sockaddr *)&at, sizeof(at)), 0);
	EQ(loop_watch(l, &s->udp_watch, s->udp, on_udp, s), ERR_OK);
	EQ(loop_watch_listener(l, &s->tcp_watch, s->tcp, on_tcp, s), ERR_OK);
}

static void server_stop(struct server *s)
{
	loop_unwatch(s->loop, &s->udp_watch);
	loop_unwatch(s->loop, &s->tcp_watch);
	os_close(s->udp);
	os_close(s->tcp);
}

/* ---- the frame's part ---- */

static void role_message(void *arg, struct chan *c, struct msg *m)
{
	struct test *t = arg;

	role_dns_ops.message(&t->role, c, m);
}

static void role_down(void *arg, struct chan *c, enum err why)
{
	struct test *t = arg;

	(void)why;
	if (role_dns_ops.peer_down)
		role_dns_ops.peer_down(&t->role, c);
}

static void peer_message(void *arg, struct chan *c, struct msg *m)
{
	(void)arg;
	(void)c;
	EQ(m->type, MSG_none); /* an answer that nobody waits for */
}

static void peer_down(void *arg, struct chan *c, enum err why)
{
	(void)arg;
	(void)c;
	(void)why;
}

static struct conf *conf_for(struct test *t, const struct server *s)
{
	struct buf problems;
	char text[ADDR_TEXT_MAX];
	struct conf *conf = NULL;
	str source = arena_printf(t->arena, "myhostname = mx.test\ndns_servers = %.*s\n",
				  STR_ARGS(addr_text(&s->at, text)));

	buf_init(&problems, CONF_PROBLEMS_MAX);
	if (!EQ(conf_parse(source, S("posthorn.conf"), t->arena, &problems, &conf), ERR_OK))
		tap_str("problems", buf_str(&problems));
	buf_free(&problems);
	return conf;
}

static bool status_has(struct test *t, str what)
{
	struct buf status;
	bool has;

	buf_init(&status, 1000);
	role_dns_ops.status(&t->role, &status);
	has = str_find(buf_str(&status), what) != STR_NONE;
	buf_free(&status);
	return has;
}

static int64_t soon(struct test *t)
{
	return loop_now(t->role.loop) + SECONDS(15);
}

/* ---- tests ---- */

static void answers(struct test *t)
{
	struct dns_answer a;
	struct addr ip;

	tap_group("answers");
	EQ(dns_a(t->there, S("a.test"), t->arena, soon(t), &a), ERR_OK);
	EQ(a.result, DNS_FOUND);
	EQ(a.count, 1);
	EQ(a.address[0].ip[0], 192);
	OK(!a.is_secure);
	OK(a.ttl > 0 && a.ttl <= 300);
	EQ(dns_a(t->there, S("cname.test"), t->arena, soon(t), &a), ERR_OK);
	EQ(a.result, DNS_FOUND);
	STR_EQ(a.canonical, S("a.test"));
	EQ(dns_aaaa(t->there, S("a.test"), t->arena, soon(t), &a), ERR_OK);
	EQ(a.result, DNS_NO_DATA);
	EQ(dns_mx(t->there, S("no.test"), t->arena, soon(t), &a), ERR_OK);
	EQ(a.result, DNS_NO_NAME);
	EQ(dns_txt(t->there, S("TXT.test."), t->arena, soon(t), &a), ERR_OK);
	STR_EQ(a.count ? a.text[0] : STR_EMPTY, S("v=spf1 -all"));
	EQ(addr_parse_ip(S("192.0.2.1"), &ip), ERR_OK);
	EQ(dns_ptr(t->there, &ip, t->arena, soon(t), &a), ERR_OK);
	STR_EQ(a.count ? a.text[0] : STR_EMPTY, S("a.test"));
	EQ(dns_a(t->there, S("localhost"), t->arena, soon(t), &a), ERR_OK);
	EQ(a.count ? a.address[0].ip[0] : 0, 127);
	/* A failure is none of these. */
	EQ(dns_a(t->there, S("fail.test"), t->arena, soon(t), &a), ERR_TEMPORARY);
}

static void truncated(struct test *t)
{
	struct dns_answer a;

	tap_group("over TCP");
	EQ(dns_mx(t->there, S("many.test"), t->arena, soon(t), &a), ERR_OK);
	EQ(a.count, MANY);
	OK(t->server.over_tcp > 0);
	STR_EQ(str_head(a.count ? a.mx[0].host : STR_EMPTY, 2), S("mx"));
}

static void cached(struct test *t)
{
	struct dns_answer a;
	int before = 0;

	tap_group("cache");
	for (int i = 0; i < 5; i++) {
		if (i == 1)
			before = t->server.questions;
		EQ(dns_a(t->there, S("a.test"), t->arena, soon(t), &a), ERR_OK);
		EQ(dns_mx(t->there, S("no.test"), t->arena, soon(t), &a), ERR_OK);
		EQ(a.result, DNS_NO_NAME);
	}
	EQ(t->server.questions, before);
}

static void without_dnssec(struct test *t)
{
	struct dns_answer a;

	tap_group("name servers without DNSSEC");
	/* The probe finds that the root has no key there, and that the servers answer otherwise. */
	for (int i = 0; i < 2000 && !status_has(t, S("\"dnssec\":false")); i++)
		EQ(fiber_sleep(t->role.loop, MILLISECONDS(10)), ERR_OK);
	OK(status_has(t, S("\"dnssec\":false")));
	EQ(dns_a(t->there, S("a.test"), t->arena, soon(t), &a), ERR_OK);
	EQ(a.result, DNS_FOUND);
	OK(!a.is_secure);
}

static void peer_dies(struct test *t)
{
	struct dns_answer a;
	int fd[2], before = t->server.questions;

	tap_group("a peer that dies");
	EQ(dns_a(t->there, S("silent.test"), t->arena, loop_now(t->role.loop) + MILLISECONDS(20),
		 &a),
	   ERR_TEMPORARY);
	OK(t->server.questions > before);
	OK(status_has(t, S("\"waiting\":1")));
	/* Its successor's first question has the same number as the one that still waits. */
	EQ(os_socketpair(true, fd), ERR_OK);
	chan_free(t->there);
	EQ(fiber_sleep(t->role.loop, MILLISECONDS(2)), ERR_OK);
	EQ(chan_attach(t->here, fd[0]), ERR_OK);
	static const struct chan_ops ops = { .on_message = peer_message, .on_down = peer_down };
	EQ(chan_new(t->role.loop, ROLE_OUT, ROLE_DNS, 0, &ops, t, &t->there), ERR_OK);
	EQ(chan_attach(t->there, fd[1]), ERR_OK);
	EQ(dns_a(t->there, S("a.test"), t->arena, soon(t), &a), ERR_OK);
	EQ(a.result, DNS_FOUND);
}

static void reload(struct test *t)
{
	struct dns_answer a;

	tap_group("reload");
	t->role.conf = conf_for(t, &t->second);
	role_dns_ops.reload(&t->role);
	EQ(dns_a(t->there, S("a.test"), t->arena, soon(t), &a), ERR_OK);
	OK(t->second.questions > 0);
}

/* `dns_test ADDRESS:PORT TYPE NAME ...`: asks another name server, and prints what the role says;
 * for tests/interop. */
static void ask_other(struct test *t, const char *type, str name)
{
	char text[ADDR_TEXT_MAX];
	struct dns_answer a;
	struct addr ip;
	enum err err = ERR_SYNTAX;

	if (strcmp(type, "MX") == 0)
		err = dns_mx(t->there, name, t->arena, soon(t), &a);
	else if (strcmp(type, "A") == 0)
		err = dns_a(t->there, name, t->arena, soon(t), &a);
	else if (strcmp(type, "AAAA") == 0)
		err = dns_aaaa(t->there, name, t->arena, soon(t), &a);
	else if (strcmp(type, "TXT") == 0)
		err = dns_txt(t->there, name, t->arena, soon(t), &a);
	else if (strcmp(type, "TLSA") == 0)
		err = dns_tlsa(t->there, 25, name, t->arena, soon(t), &a);
	else if (strcmp(type, "PTR") == 0 && !addr_parse_ip(name, &ip))
		err = dns_ptr(t->there, &ip, t->arena, soon(t), &a);
	printf("%s %.*s", type, STR_ARGS(name));
	if (err || a.result != DNS_FOUND)
		printf(" %s", err			? err_name(err)
			      : a.result == DNS_NO_NAME ? "no-name"
							: "no-data");
	for (size_t i = 0; !err && i < a.count; i++) {
		if (a.mx)
			printf(" %u:%.*s", a.mx[i].preference, STR_ARGS(a.mx[i].host));
		if (a.address)
			printf(" %.*s", STR_ARGS(addr_ip_text(&a.address[i], text)));
		if (a.text)
			printf(" [%.*s]", STR_ARGS(a.text[i]));
		if (a.tlsa)
			printf(" %u.%u.%u.%zu", a.tlsa[i].usage, a.tlsa[i].selector,
			       a.tlsa[i].matching, a.tlsa[i].data.n);
	}
	printf(" (%.*s)\n", STR_ARGS(err ? STR_EMPTY : a.canonical));
}

static void fiber_main(void *arg)
{
	struct test *t = arg;

	for (char **q = t->questions; q && q[0] && q[1]; q += 2)
		ask_other(t, q[0], str_from_c(q[1]));
	if (t->questions) {
		t->done = true;
		loop_stop(t->role.loop);
		return;
	}
	answers(t);
	truncated(t);
	without_dnssec(t);
	cached(t);
	peer_dies(t);
	reload(t);
	t->done = true;
	loop_stop(t->role.loop);
}

int main(int argc, char **argv)
{
	static const struct chan_ops role_side = { .on_message = role_message,
						   .on_down = role_down };
	static const struct chan_ops peer_side = { .on_message = peer_message,
						   .on_down = peer_down };
	struct test t = { .role = { .ops = &role_dns_ops, .kind = ROLE_DNS } };
	int fd[2];

	tap_group("start");
	log_init(&t.role.log, LOG_TO_STDERR, LOG_LEVEL_ERROR, "dns.0");
	t.role.log.fd = -1;
	t.arena = arena_new(16 << 20);
	EQ(loop_new(&t.role.loop), ERR_OK);
	server_start(&t.server, t.role.loop);
	server_start(&t.second, t.role.loop);
	if (argc > 1) {
		t.questions = argv + 2;
		EQ(addr_parse(str_from_c(argv[1]), &t.server.at), ERR_OK);
	}
	t.role.conf = conf_for(&t, &t.server);
	EQ(role_dns_ops.init(&t.role), ERR_OK);
	EQ(role_dns_ops.prepare(&t.role), ERR_OK);
	OK(status_has(&t, S("\"dnssec\":true"))); /* dns-root-data is installed */
	EQ(role_dns_ops.start(&t.role), ERR_OK);
	EQ(chan_new(t.role.loop, ROLE_DNS, ROLE_OUT, 0, &role_side, &t, &t.here), ERR_OK);
	EQ(chan_new(t.role.loop, ROLE_OUT, ROLE_DNS, 0, &peer_side, &t, &t.there), ERR_OK);
	EQ(os_socketpair(true, fd), ERR_OK);
	EQ(chan_attach(t.here, fd[0]), ERR_OK);
	EQ(chan_attach(t.there, fd[1]), ERR_OK);
	EQ(fiber_spawn(t.role.loop, fiber_main, &t), ERR_OK);
	EQ(loop_run(t.role.loop), ERR_OK);
	OK(t.done);
	role_dns_ops.stop(&t.role, 0);
	OK(t.role.state == NULL);
	server_stop(&t.server);
	server_stop(&t.second);
	chan_free(t.here);
	chan_free(t.there);
	loop_free(t.role.loop);
	arena_free(t.arena);
	return tap_done();
}
