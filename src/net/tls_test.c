/* TLS end to end: both sides in one process on fibers, the private key behind a channel. */
#include "net/conn_priv.h"
#include "net/tls_test_util.h"

enum { TEXT_MAX = 64, HELD_MAX = 64 };

struct held {
	uint32_t id;
	unsigned char signature[KEYRING_SIGNATURE_MAX];
	size_t n;
};

struct test {
	struct loop *loop;
	struct log log;
	struct chan *front, *keys; /* the channel's two ends */
	struct keyring *ring;
	uint32_t version;
	struct tls_context *server, *client;
	int signatures;
	bool refuse; /* keys answers with an error */
	size_t hold; /* answers are kept until there are so many, then given in reverse */
	struct held held[HELD_MAX];
	size_t held_n;
	void (*body)(struct test *t);
	struct fiber *fiber;
	bool done;
};

/* ---- the fake role keys ---- */

static void release_held(struct test *t)
{
	while (t->held_n) {
		struct held *h = &t->held[--t->held_n];

		if (h->n)
			EQ(REPLY(t->keys, h->id, keys_signature,
				 .signature = str_of(h->signature, h->n)),
			   ERR_OK);
		else
			EQ(REPLY_FAILED(t->keys, h->id, ERR_DENIED, S("no")), ERR_OK);
	}
}

static void keys_sign(struct test *t, struct chan *c, struct msg *m)
{
	const struct msg_keys_sign *s = &m->u.keys_sign;
	struct held h = { .id = m->id, .n = KEYRING_SIGNATURE_MAX };
	enum err err;

	t->signatures++;
	if (s->version != t->version)
		err = ERR_STALE;
	else
		err = t->refuse ? ERR_DENIED
				: keyring_sign(t->ring, s->key, s->digest, s->pss, s->text,
					       h.signature, &h.n);
	if (err == ERR_STALE) {
		EQ(REPLY_FAILED(c, m->id, err, S("no")), ERR_OK);
		return;
	}
	if (err)
		h.n = 0;
	/* While holding, every third is refused: failures among successes. */
	if (t->hold && t->signatures % 3 == 0)
		h.n = 0;
	t->held[t->held_n++] = h;
	if (t->held_n >= t->hold)
		release_held(t);
}

static void keys_message(void *arg, struct chan *c, struct msg *m)
{
	struct test *t = arg;
	struct buf chains;

	if (m->type == MSG_keys_sign) {
		keys_sign(t, c, m);
		return;
	}
	EQ(m->type, MSG_keys_chains);
	buf_init(&chains, MSG_MAX);
	if (t->ring)
		keyring_chains(t->ring, &chains);
	EQ(REPLY(c, m->id, keys_chains_reply, .version = t->version, .chains = buf_str(&chains)),
	   ERR_OK);
	buf_free(&chains);
}

static void on_message(void *arg, struct chan *c, struct msg *m)
{
	(void)arg;
	(void)c;
	EQ(m->type, MSG_none);
}

static void on_down(void *arg, struct chan *c, enum err why)
{
	(void)arg;
	(void)c;
	(void)why;
}

static void set_ring(struct test *t, const char *type, const char *name, const char *type2,
		     const char *name2)
{
	struct test_pem pem = test_pem_new(type, name, 90);
	const char *why;

	keyring_free(t->ring);
	EQ(keyring_new(&t->ring), ERR_OK);
	EQ(keyring_add(t->ring, buf_str(&pem.certificate), buf_str(&pem.key), &why), ERR_OK);
	test_pem_free(&pem);
	if (type2) {
		pem = test_pem_new(type2, name2, 90);
		EQ(keyring_add(t->ring, buf_str(&pem.certificate), buf_str(&pem.key), &why),
		   ERR_OK);
		test_pem_free(&pem);
	}
	t->version++;
}

static enum err load(struct test *t)
{
	return tls_server_load(t->server, loop_now(t->loop) + SECONDS(10));
}

static void fiber_main(void *arg)
{
	struct test *t = arg;

	t->fiber = fiber_current(t->loop);
	t->body(t);
	t->done = true;
	loop_stop(t->loop);
}

static void run(const char *name, void (*body)(struct test *t))
{
	static const struct chan_ops front_ops = { .on_message = on_message, .on_down = on_down };
	static const struct chan_ops keys_ops = { .on_message = keys_message, .on_down = on_down };
	struct test *t = calloc(1, sizeof(*t));
	int fd[2];

	t->body = body;
	tap_group(name);
	log_init(&t->log, LOG_TO_STDERR, LOG_LEVEL_ERROR, "test");
	t->log.fd = -1;
	EQ(loop_new(&t->loop), ERR_OK);
	EQ(chan_new(t->loop, ROLE_FRONT, ROLE_KEYS, 0, &front_ops, t, &t->front), ERR_OK);
	EQ(chan_new(t->loop, ROLE_KEYS, ROLE_FRONT, 0, &keys_ops, t, &t->keys), ERR_OK);
	EQ(os_socketpair(true, fd), ERR_OK);
	EQ(chan_attach(t->front, fd[0]), ERR_OK);
	EQ(chan_attach(t->keys, fd[1]), ERR_OK);
	EQ(tls_server_new(t->loop, &t->log, t->front, &t->server), ERR_OK);
	EQ(tls_client_new(t->loop, &t->log, STR_EMPTY, &t->client), ERR_OK);
	EQ(fiber_spawn(t->loop, fiber_main, t), ERR_OK);
	EQ(loop_run(t->loop), ERR_OK);
	OK(t->done);
	tls_free(t->server);
	tls_free(t->client);
	chan_free(t->front);
	chan_free(t->keys);
	keyring_free(t->ring);
	loop_free(t->loop);
	free(t);
}

/* ---- a pair of connections ---- */

struct pair {
	struct test *t;
	struct conn *server, *client;
	const char *name; /* the client asks for */
	enum err accepted, connected;
	int ended;
	char echoed[TEXT_MAX];
};

static void open_pair(struct pair *p)
{
	static const struct addr peer = { .family = ADDR_UNIX };
	int fd[2];

	if (os_socketpair(false, fd) || conn_new(p->t->loop, fd[0], &peer, &p->server) ||
	    conn_new(p->t->loop, fd[1], &peer, &p->client))
		panic("no pair");
	conn_set_deadline(p->server, loop_now(p->t->loop) + SECONDS(30));
	conn_set_deadline(p->client, loop_now(p->t->loop) + SECONDS(30));
}

static void close_pair(struct pair *p)
{
	conn_free(p->client);
	conn_free(p->server);
}

static void ended(struct pair *p)
{
	p->ended++;
	fiber_wake(p->t->loop, p->t->fiber);
}

static void server_fiber(void *arg)
{
	struct pair *p = arg;
	str line;

	p->accepted = conn_tls_accept(p->server, p->t->server);
	if (!p->accepted && !conn_read_line(p->server, 100, &line)) {
		conn_printf(p->server, "echo %.*s\r\n", STR_ARGS(line));
		(void)!conn_flush(p->server);
	}
	ended(p);
}

static void client_fiber(void *arg)
{
	struct pair *p = arg;
	str line;

	p->connected = conn_tls_connect(p->client, p->t->client, str_from_c(p->name));
	if (!p->connected) {
		conn_printf(p->client, "%p\r\n", (void *)p->client);
		if (!conn_read_line(p->client, 100, &line))
			snprintf(p->echoed, sizeof(p->echoed), "%.*s", STR_ARGS(line));
	}
	ended(p);
}

static void start_pair(struct pair *p)
{
	EQ(fiber_spawn(p->t->loop, server_fiber, p), ERR_OK);
	EQ(fiber_spawn(p->t->loop, client_fiber, p), ERR_OK);
}

static void wait_pair(struct pair *p)
{
	while (p->ended < 2)
		if (fiber_suspend(p->t->loop, loop_now(p->t->loop) + SECONDS(40)) == ERR_TIMEOUT)
			panic("the pair hangs");
}

static bool echo_is_good(struct pair *p)
{
	char wanted[TEXT_MAX];

	snprintf(wanted, sizeof(wanted), "echo %p", (void *)p->client);
	return !p->accepted && !p->connected && strcmp(wanted, p->echoed) == 0;
}

static struct pair connected_pair(struct test *t, const char *name)
{
	struct pair p = { .t = t, .name = name };

	open_pair(&p);
	start_pair(&p);
	wait_pair(&p);
	return p;
}

/* ---- tests ---- */

static void kinds(struct test *t)
{
	static const char *const types[] = { "P-256", "P-384", "RSA", "ED25519" };
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
	struct pair p = { .t = t };

	/* Before there is a certificate. */
	OK(!tls_server_is_ready(t->server));
	EQ(load(t), ERR_NOT_FOUND);
	open_pair(&p);
	EQ(conn_tls_accept(p.server, t->server), ERR_TEMPORARY);
	close_pair(&p);
	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		set_ring(t, types[i], "mail.example.test", NULL, NULL);
		EQ(load(t), ERR_OK);
		OK(tls_server_is_ready(t->server));
		for (size_t v = 0; v < ARRAY_LEN(versions); v++) {
			int before = t->signatures;

			SSL_CTX_set_max_proto_version(t->client->client, versions[v]);
			p = connected_pair(t, "mail.example.test");
			OK(echo_is_good(&p));
			EQ(t->signatures, before + 1);
			STR_EQ(str_head(conn_tls_text(p.server), 8),
			       versions[v] == TLS1_2_VERSION ? S("TLSv1.2 ") : S("TLSv1.3 "));
			STR_EQ(conn_tls_text(p.client), conn_tls_text(p.server));
			STR_EQ(conn_tls_peer_name(p.client), S("mail.example.test"));
			OK(!conn_tls_is_verified(p.client));
			close_pair(&p);
		}
	}
}

static void refused_versions(struct test *t)
{
	static const char *const ciphers[] = { "AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA" };
	struct pair p;

	set_ring(t, "P-256", "mail.example.test", NULL, NULL);
	EQ(load(t), ERR_OK);
	SSL_CTX_set_max_proto_version(t->client->client, TLS1_2_VERSION);
	/* RFC 9325 4.2: no static RSA, no CBC. */
	for (size_t i = 0; i < ARRAY_LEN(ciphers); i++) {
		SSL_CTX_set_cipher_list(t->client->client, ciphers[i]);
		p = connected_pair(t, "");
		EQ(p.accepted, ERR_PROTOCOL);
		EQ(p.connected, ERR_PROTOCOL);
		close_pair(&p);
	}
	SSL_CTX_set_cipher_list(t->client->client, "ALL:@SECLEVEL=0");
	SSL_CTX_set_min_proto_version(t->client->client, TLS1_VERSION);
	SSL_CTX_set_max_proto_version(t->client->client, TLS1_1_VERSION);
	p = connected_pair(t, "");
	EQ(p.accepted, ERR_PROTOCOL);
	EQ(p.connected, ERR_PROTOCOL);
	close_pair(&p);
}

/* Fifty handshakes wait for their signatures at the same time; the answers come in reverse, every
 * third is a refusal, and none of them takes another's outcome. */
static void fifty(struct test *t)
{
	enum { N = 50 };
	struct pair *all = calloc(N, sizeof(*all));
	int good = 0, bad = 0;

	for (int round = 0; round < 2; round++) {
		set_ring(t, round ? "RSA" : "P-256", "mail.example.test", NULL, NULL);
		EQ(load(t), ERR_OK);
		t->hold = N;
		t->signatures = good = bad = 0;
		for (int i = 0; i < N; i++) {
			all[i] = (struct pair){ .t = t, .name = "mail.example.test" };
			open_pair(&all[i]);
			start_pair(&all[i]);
		}
		for (int i = 0; i < N; i++) {
			wait_pair(&all[i]);
			good += echo_is_good(&all[i]);
			bad += all[i].accepted == ERR_PROTOCOL && all[i].connected == ERR_PROTOCOL;
			close_pair(&all[i]);
		}
		t->hold = 0;
		EQ(t->signatures, N);
		EQ(bad, N / 3);
		EQ(good, N - N / 3);
	}
	free(all);
}

static void server_names(struct test *t)
{
	static const struct {
		const char *asked, *given;
	} rows[] = {
		{ "mail.example.test", "mail.example.test" },
		{ "imap.other.test", "imap.other.test" },
		{ "IMAP.Other.Test.", "imap.other.test" },
		{ "unknown.test", "mail.example.test" },
		{ "", "mail.example.test" },
		{ "192.0.2.1", "mail.example.test" },
	};

	set_ring(t, "P-256", "mail.example.test", "ED25519", "imap.other.test");
	EQ(load(t), ERR_OK);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct pair p = connected_pair(t, rows[i].asked);

		OK(echo_is_good(&p));
		STR_EQ(conn_tls_peer_name(p.client), str_from_c(rows[i].given));
		close_pair(&p);
	}
}

static void reload(struct test *t)
{
	struct pair old, p;
	str line;

	set_ring(t, "P-256", "old.example.test", NULL, NULL);
	EQ(load(t), ERR_OK);
	old = connected_pair(t, "");
	OK(echo_is_good(&old));
	set_ring(t, "P-256", "new.example.test", NULL, NULL);
	/* The old version is stale: this handshake fails, and makes the context ask again. */
	p = connected_pair(t, "");
	EQ(p.accepted, ERR_PROTOCOL);
	close_pair(&p);
	while (t->server->is_loading)
		EQ(fiber_sleep(t->loop, MILLISECONDS(1)), ERR_OK);
	p = connected_pair(t, "");
	OK(echo_is_good(&p));
	STR_EQ(conn_tls_peer_name(p.client), S("new.example.test"));
	close_pair(&p);
	/* The connection from before goes on. */
	conn_write(old.client, S("still here\r\n"));
	EQ(conn_flush(old.client), ERR_OK);
	EQ(conn_read_line(old.server, 100, &line), ERR_OK);
	STR_EQ(line, S("still here"));
	close_pair(&old);
	/* And freeing it while it asks is safe. */
	tls_server_reload(t->server);
	tls_free(t->server);
	EQ(fiber_sleep(t->loop, MILLISECONDS(5)), ERR_OK);
	EQ(tls_server_new(t->loop, &t->log, t->front, &t->server), ERR_OK);
}

static void verifying(struct test *t)
{
	struct test_pem good = test_pem_new("P-256", "mx.example.test", 90),
			other = test_pem_new("P-256", "x.test", 90);
	struct test_pem late = test_pem_new("P-256", "mx.example.test", -2);
	const char *why;
	struct pair p;

	EQ(keyring_new(&t->ring), ERR_OK);
	EQ(keyring_add(t->ring, buf_str(&good.certificate), buf_str(&good.key), &why), ERR_OK);
	t->version++;
	EQ(load(t), ERR_OK);
	tls_free(t->client);
	EQ(tls_client_new(t->loop, &t->log, buf_str(&good.certificate), &t->client), ERR_OK);
	p = connected_pair(t, "mx.example.test");
	OK(echo_is_good(&p));
	OK(conn_tls_is_verified(p.client));
	close_pair(&p);
	p = connected_pair(t, "mx2.example.test");
	EQ(p.connected, ERR_PROTOCOL);
	close_pair(&p);
	p = (struct pair){ .t = t };
	open_pair(&p); /* an address has no name that could be verified */
	EQ(conn_tls_connect(p.client, t->client, S("192.0.2.1")), ERR_DENIED);
	close_pair(&p);
	tls_free(t->client);
	EQ(tls_client_new(t->loop, &t->log, buf_str(&other.certificate), &t->client), ERR_OK);
	p = connected_pair(t, "mx.example.test");
	EQ(p.connected, ERR_PROTOCOL);
	close_pair(&p);
	/* Expired, though trusted. */
	keyring_free(t->ring);
	EQ(keyring_new(&t->ring), ERR_OK);
	EQ(keyring_add(t->ring, buf_str(&late.certificate), buf_str(&late.key), &why), ERR_OK);
	t->version++;
	EQ(load(t), ERR_OK);
	tls_free(t->client);
	EQ(tls_client_new(t->loop, &t->log, buf_str(&late.certificate), &t->client), ERR_OK);
	p = connected_pair(t, "mx.example.test");
	EQ(p.connected, ERR_PROTOCOL);
	close_pair(&p);
	tls_free(t->client);
	t->client = NULL;
	EQ(tls_client_new(t->loop, &t->log, S("no certificate here"), &t->client), ERR_CONFIG);
	test_pem_free(&good);
	test_pem_free(&other);
	test_pem_free(&late);
}

/* ---- STARTTLS ---- */

struct inject {
	struct pair pair;
	str seen; /* the first line under TLS */
	char room[TEXT_MAX];
};

static void injected_server(void *arg)
{
	struct inject *i = arg;
	struct conn *c = i->pair.server;
	str line;

	if (!conn_read_line(c, 100, &line) && str_eq(line, S("STARTTLS"))) {
		conn_write(c, S("220 go\r\n"));
		i->pair.accepted = conn_tls_accept(c, i->pair.t->server);
		if (!i->pair.accepted && !conn_read_line(c, 100, &line))
			snprintf(i->room, sizeof(i->room), "%.*s", STR_ARGS(line));
		conn_write(c, S("250 safe\r\n"));
		(void)!conn_flush(c);
	}
	ended(&i->pair);
}

static void server_injection(struct test *t)
{
	struct inject i = { .pair = { .t = t, .name = "" } };
	str line;

	set_ring(t, "P-256", "mail.example.test", NULL, NULL);
	EQ(load(t), ERR_OK);
	for (int together = 0; together < 2; together++) {
		i.pair.ended = 0;
		memset(i.room, 0, sizeof(i.room));
		open_pair(&i.pair);
		/* Somebody in the middle adds a command in clear, in the same packet or right
		 * behind. */
		conn_write(i.pair.client,
			   together ? S("STARTTLS\r\nMAIL FROM:<evil@example.test>\r\n")
				    : S("STARTTLS\r\n"));
		EQ(conn_flush(i.pair.client), ERR_OK);
		conn_write(i.pair.client,
			   together ? S("RS") : S("MAIL FROM:<evil@example.test>\r\nRS"));
		EQ(conn_flush(i.pair.client), ERR_OK);
		EQ(fiber_spawn(t->loop, injected_server, &i), ERR_OK);
		EQ(conn_read_line(i.pair.client, 100, &line), ERR_OK);
		STR_EQ(line, S("220 go"));
		EQ(conn_tls_connect(i.pair.client, t->client, S("mail.example.test")), ERR_OK);
		conn_write(i.pair.client, S("EHLO me\r\n"));
		EQ(conn_read_line(i.pair.client, 100, &line), ERR_OK);
		while (!i.pair.ended)
			EQ(fiber_suspend(t->loop, LOOP_NEVER), ERR_OK);
		EQ(i.pair.accepted, ERR_OK);
		STR_EQ(str_from_c(i.room), S("EHLO me"));
		close_pair(&i.pair);
	}
}

static void client_injection(struct test *t)
{
	struct pair p = { .t = t, .name = "mail.example.test" };
	str line;

	set_ring(t, "P-256", "mail.example.test", NULL, NULL);
	EQ(load(t), ERR_OK);
	open_pair(&p);
	/* A reply to EHLO that says there is no AUTH, put behind the 220. */
	conn_write(p.server, S("220 go\r\n250 evil\r\n"));
	EQ(conn_flush(p.server), ERR_OK);
	conn_write(p.server, S("250 more evil\r\n"));
	EQ(conn_read_line(p.client, 100, &line), ERR_OK);
	EQ(conn_flush(p.server), ERR_OK);
	start_pair(&p);
	wait_pair(&p);
	OK(echo_is_good(&p));
	close_pair(&p);
}

/* ---- records ---- */

static void keys_refuses(struct test *t)
{
	struct pair p;

	set_ring(t, "P-256", "mail.example.test", NULL, NULL);
	EQ(load(t), ERR_OK);
	t->refuse = true;
	p = connected_pair(t, "");
	EQ(p.accepted, ERR_PROTOCOL);
	EQ(p.connected, ERR_PROTOCOL);
	close_pair(&p);
	t->refuse = false;
	/* With keys gone the handshake ends as well. */
	p = (struct pair){ .t = t, .name = "" };
	t->hold = HELD_MAX;
	open_pair(&p);
	start_pair(&p);
	while (!t->held_n)
		EQ(fiber_sleep(t->loop, MILLISECONDS(1)), ERR_OK);
	chan_free(t->keys);
	t->keys = NULL;
	wait_pair(&p);
	EQ(p.accepted, ERR_PROTOCOL);
	close_pair(&p);
}

static void rubbish(struct test *t)
{
	struct pair p = { .t = t };

	set_ring(t, "P-256", "mail.example.test", NULL, NULL);
	EQ(load(t), ERR_OK);
	open_pair(&p);
	conn_write(p.client, S("GET / HTTP/1.0\r\n\r\n"));
	EQ(conn_flush(p.client), ERR_OK);
	EQ(conn_tls_accept(p.server, t->server), ERR_PROTOCOL);
	OK(conn_failed(p.server) && !conn_is_tls(p.server));
	close_pair(&p);

	open_pair(&p);
	conn_free(p.client);
	p.client = NULL;
	EQ(conn_tls_accept(p.server, t->server), ERR_CLOSED);
	close_pair(&p);

	open_pair(&p);
	conn_write(p.client, S("\x16\x03\x01\x02"));
	EQ(conn_flush(p.client), ERR_OK);
	conn_set_deadline(p.server, loop_now(t->loop) + MILLISECONDS(3));
	EQ(conn_tls_accept(p.server, t->server), ERR_TIMEOUT);
	close_pair(&p);
}

static void endings(struct test *t)
{
	struct pair p;
	str line;

	set_ring(t, "P-256", "mail.example.test", NULL, NULL);
	EQ(load(t), ERR_OK);
	p = connected_pair(t, "");
	conn_write(p.client, S("last words\r\n"));
	conn_free(p.client); /* sends them and close_notify */
	p.client = NULL;
	EQ(conn_read_line(p.server, 100, &line), ERR_OK);
	STR_EQ(line, S("last words"));
	EQ(conn_read_line(p.server, 100, &line), ERR_EOF);
	close_pair(&p);
	/* RFC 8446 6.1: without close_notify something may have been cut off. */
	p = connected_pair(t, "");
	p.client->tls->is_broken = true;
	conn_free(p.client);
	p.client = NULL;
	EQ(conn_read_line(p.server, 100, &line), ERR_CLOSED);
	close_pair(&p);
	/* A record that was tampered with. */
	p = connected_pair(t, "");
	buf_add(&p.client->tls->wire, S("\x17\x03\x03\x00\x20"
					"0123456789abcdef0123456789abcdef"));
	EQ(conn_flush(p.client), ERR_OK);
	EQ(conn_read_line(p.server, 100, &line), ERR_PROTOCOL);
	close_pair(&p);
}

struct sink {
	struct pair *p;
	size_t total;
	bool is_good;
	enum err end;
};

static void sink_fiber(void *arg)
{
	struct sink *s = arg;
	str some;

	while (!(s->end = conn_read_some(s->p->client, SIZE_MAX, &some))) {
		for (size_t i = 0; i < some.n; i++)
			s->is_good &= some.p[i] == (char)((s->total + i) * 7 >> 3);
		s->total += some.n;
	}
	ended(s->p);
}

static void large(struct test *t)
{
	enum { TOTAL = 5 * 1000 * 1000 };
	struct pair p;
	struct sink s = { .p = &p, .is_good = true };
	char *all = malloc(TOTAL);

	for (size_t i = 0; i < TOTAL; i++)
		all[i] = (char)(i * 7 >> 3);
	set_ring(t, "P-256", "mail.example.test", NULL, NULL);
	EQ(load(t), ERR_OK);
	p = connected_pair(t, "");
	p.ended = 1;
	EQ(fiber_spawn(t->loop, sink_fiber, &s), ERR_OK);
	EQ(conn_write_wait(p.server, str_of(all, TOTAL)), ERR_OK);
	EQ(conn_flush(p.server), ERR_OK);
	OK(p.server->out.size <= 2 * CONN_OUT_FLUSH &&
	   p.server->tls->wire.size <= 4 * CONN_OUT_FLUSH);
	conn_free(p.server);
	p.server = NULL;
	wait_pair(&p);
	EQ(s.total, TOTAL);
	EQ(s.end, ERR_EOF);
	OK(s.is_good);
	close_pair(&p);
	free(all);
}

struct parked {
	struct test *t;
	int calls;
	enum err why;
};

static void on_parked(void *arg, enum err why)
{
	struct parked *k = arg;

	k->calls++;
	k->why = why;
	fiber_wake(k->t->loop, k->t->fiber);
}

static void parking(struct test *t)
{
	struct parked k = { .t = t };
	struct buf wire;
	struct pair p;
	str line;

	set_ring(t, "P-256", "mail.example.test", NULL, NULL);
	EQ(load(t), ERR_OK);
	p = connected_pair(t, "");
	conn_park(p.server, on_parked, &k);
	OK(!p.server->in.p && !p.server->out.p && !p.server->tls->raw.p && !p.server->tls->wire.p);
	/* A record in two pieces: the first one wakes nobody. */
	conn_write(p.client, S("DONE\r\n"));
	EQ(conn_tls_seal(p.client), ERR_OK);
	buf_init(&wire, 1000);
	buf_add(&wire, buf_str(&p.client->tls->wire));
	buf_clear(&p.client->tls->wire);
	buf_add(&p.client->tls->wire, str_head(buf_str(&wire), 10));
	EQ(conn_flush(p.client), ERR_OK);
	EQ(fiber_sleep(t->loop, MILLISECONDS(2)), ERR_OK);
	EQ(k.calls, 0);
	buf_add(&p.client->tls->wire, str_from(buf_str(&wire), 10));
	EQ(conn_flush(p.client), ERR_OK);
	while (!k.calls)
		EQ(fiber_suspend(t->loop, loop_now(t->loop) + SECONDS(5)), ERR_OK);
	EQ(k.why, ERR_OK);
	EQ(conn_next_line(p.server, 100, &line), ERR_OK);
	STR_EQ(line, S("DONE"));
	/* Two lines in one record: the second is not forgotten. */
	conn_write(p.client, S("A\r\nB\r\n"));
	EQ(conn_flush(p.client), ERR_OK);
	EQ(conn_read_line(p.server, 100, &line), ERR_OK);
	k.calls = 0;
	conn_park(p.server, on_parked, &k);
	while (!k.calls)
		EQ(fiber_suspend(t->loop, loop_now(t->loop) + SECONDS(5)), ERR_OK);
	EQ(conn_next_line(p.server, 100, &line), ERR_OK);
	STR_EQ(line, S("B"));
	buf_free(&wire);
	close_pair(&p);
}

static void relayed_end(void *arg)
{
	struct parked *k = arg;

	k->calls++;
	fiber_wake(k->t->loop, k->t->fiber);
}

static void relay(struct test *t)
{
	static const struct addr peer = { .family = ADDR_UNIX };
	struct parked k = { .t = t };
	struct conn *session;
	struct pair p;
	int fd[2];
	str line;

	set_ring(t, "P-256", "mail.example.test", NULL, NULL);
	EQ(load(t), ERR_OK);
	p = connected_pair(t, "");
	EQ(os_socketpair(false, fd), ERR_OK);
	EQ(conn_new(t->loop, fd[1], &peer, &session), ERR_OK);
	conn_relay_start(p.server, fd[0], S("1 SELECT INBOX\r\n"), relayed_end, &k);
	p.server = NULL;
	EQ(conn_read_line(session, 100, &line), ERR_OK);
	STR_EQ(line, S("1 SELECT INBOX"));
	conn_write(session, S("1 OK\r\n"));
	EQ(conn_flush(session), ERR_OK);
	EQ(conn_read_line(p.client, 100, &line), ERR_OK);
	STR_EQ(line, S("1 OK"));
	conn_write(p.client, S("2 LOGOUT\r\n"));
	EQ(conn_flush(p.client), ERR_OK);
	EQ(conn_read_line(session, 100, &line), ERR_OK);
	conn_write(session, S("* BYE\r\n"));
	conn_free(session);
	EQ(conn_read_line(p.client, 100, &line), ERR_OK);
	STR_EQ(line, S("* BYE"));
	EQ(conn_read_line(p.client, 100, &line), ERR_EOF);
	close_pair(&p);
	while (!k.calls)
		EQ(fiber_suspend(t->loop, loop_now(t->loop) + SECONDS(5)), ERR_OK);
	EQ(k.calls, 1);
}

int main(void)
{
	run("kinds of keys", kinds);
	run("refused versions", refused_versions);
	run("fifty at once", fifty);
	run("server names", server_names);
	run("reload", reload);
	run("verifying", verifying);
	run("injection, server", server_injection);
	run("injection, client", client_injection);
	run("keys refuses", keys_refuses);
	run("rubbish", rubbish);
	run("endings", endings);
	run("large", large);
	run("parking", parking);
	run("relay", relay);
	return tap_done();
}
