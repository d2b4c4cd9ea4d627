/* The client through STARTTLS to the end of a message: a server with a real handshake, whose key is
 * behind a channel as in the server's own processes. What was said before TLS must not count after
 * it (RFC 3207 4.2), and what was injected behind the 220 must be gone. */
#include "net/tls_test_util.h"
#include "smtp/client.h"
#include "store/types.h"

struct world {
	struct loop *loop;
	struct log log;
	struct chan *front, *keys;
	struct keyring *ring;
	struct tls_context *server, *client;
	struct conn *server_end, *client_end;
	enum err accepted;
	bool server_has_tls;
	const char *mechanisms;	  /* the server's AUTH line; "": none */
	const char *login_answer; /* its last */
	unsigned questions;	  /* 334s before it */
	const char *user, *password;
	struct buf clear, heard; /* the client's lines, before and after TLS */
	enum smtp_open open;
	struct smtp_result why;
	struct smtp_client_rcpt rcpt;
	bool has_tls, was_good;
	size_t read;
	unsigned left; /* fibers */
};

static void must(enum err err)
{
	if (err)
		panic("%s", err_text(err));
}

/* ---- keys ---- */

static void keys_message(void *arg, struct chan *c, struct msg *m)
{
	struct world *w = arg;
	unsigned char signature[KEYRING_SIGNATURE_MAX];
	size_t n = sizeof(signature);
	struct buf chains;

	if (m->type == MSG_keys_sign) {
		const struct msg_keys_sign *s = &m->u.keys_sign;

		must(keyring_sign(w->ring, s->key, s->digest, s->pss, s->text, signature, &n));
		must(REPLY(c, m->id, keys_signature, .signature = str_of(signature, n)));
		return;
	}
	buf_init(&chains, MSG_MAX);
	keyring_chains(w->ring, &chains);
	must(REPLY(c, m->id, keys_chains_reply, .version = 1, .chains = buf_str(&chains)));
	buf_free(&chains);
}

static void no_message(void *arg, struct chan *c, struct msg *m)
{
	(void)arg, (void)c, (void)m;
}

static void no_down(void *arg, struct chan *c, enum err why)
{
	(void)arg, (void)c, (void)why;
}

static void end_of_fiber(struct world *w)
{
	if (!--w->left)
		loop_stop(w->loop);
}

/* ---- the server ---- */

/* The lines of a login; true when this was one. */
static bool answer_login(struct world *w, str line)
{
	bool is_login = str_starts(line, S("AUTH ")) || w->questions;

	if (str_eq(line, S("AUTH LOGIN")))
		w->questions = 3;
	if (is_login && w->questions && --w->questions)
		conn_write(w->server_end, S("334 dGVsbCBtZQ==\r\n"));
	else if (is_login)
		conn_printf(w->server_end, "%s\r\n", w->login_answer);
	return is_login;
}

static void answer(struct world *w, str line)
{
	if (answer_login(w, line))
		return;
	if (str_starts(line, S("EHLO ")) && !w->server_has_tls)
		conn_write(w->server_end,
			   S("250-mx.example.net\r\n250-SIZE 10\r\n250-AUTH PLAIN\r\n250 "
			     "STARTTLS\r\n"));
	else if (str_starts(line, S("EHLO ")))
		conn_printf(w->server_end, "250-mx.example.net\r\n%s250 PIPELINING\r\n",
			    w->mechanisms);
	else if (str_eq(line, S("DATA")))
		conn_write(w->server_end, S("354 go on\r\n"));
	else if (str_eq(line, S("STARTTLS")))
		conn_write(w->server_end, S("220 go on\r\n250-mx.example.net\r\n250 SIZE 1\r\n"));
	else
		conn_write(w->server_end, S("250 2.0.0 Ok\r\n"));
}

static void serve(void *arg)
{
	struct world *w = arg;
	bool in_body = false;
	str line;

	must(tls_server_load(w->server, loop_now(w->loop) + SECONDS(30)));
	conn_write(w->server_end, S("220 mx.example.net ESMTP\r\n"));
	while (!conn_read_line(w->server_end, 4000, &line)) {
		struct buf *to = w->server_has_tls ? &w->heard : &w->clear;
		bool starts = str_eq(line, S("STARTTLS")), ends = str_eq(line, S("."));

		buf_add(to, line);
		buf_add(to, S("\n"));
		if (!in_body || ends)
			answer(w, line);
		in_body = (in_body && !ends) || str_eq(line, S("DATA"));
		if (!starts)
			continue;
		w->accepted = conn_tls_accept(w->server_end, w->server);
		w->server_has_tls = !w->accepted;
		if (w->accepted)
			break;
	}
	conn_free(w->server_end);
	end_of_fiber(w);
}

/* ---- the client ---- */

static enum err read_message(void *arg, char *to, size_t max, size_t *n)
{
	struct world *w = arg;
	str rest = str_head(str_from(S("Subject: x\r\n\r\n.dot\r\n"), w->read), max);

	if (rest.n)
		memcpy(to, rest.p, rest.n);
	w->read += rest.n;
	*n = rest.n;
	return ERR_OK;
}

static void deliver(void *arg)
{
	struct world *w = arg;
	const struct smtp_client_config config = {
		.hostname = S("me.example.org"),
		.server = S("mx.example.net[192.0.2.1]:25"),
		.tls_name = S("mx.example.net"),
		.user = str_from_c(w->user),
		.password = str_from_c(w->password),
		.tls = SMTP_TLS_ENCRYPT,
		.tls_context = w->client,
		.times = smtp_client_times(SECONDS(20)),
	};
	const struct smtp_client_message m = {
		.sender = S("a@example.org"), .size = 20, .read = read_message, .arg = w
	};
	struct smtp_client *c;

	w->open = smtp_client_open(w->client_end, &config, &c, &w->why);
	if (!w->open) {
		w->rcpt.address = S("b@example.net");
		smtp_client_send(c, &m, &w->rcpt, 1);
		w->has_tls =
			smtp_client_has_tls(c) && str_starts(smtp_client_tls_text(c), S("TLSv1.3"));
		w->was_good = smtp_client_is_good(c);
		smtp_client_close(c);
	}
	end_of_fiber(w);
}

static void world_make(struct world *w)
{
	static const struct chan_ops front_ops = { no_message, no_down },
				     keys_ops = { keys_message, no_down };
	static const struct addr peer = { .family = ADDR_UNIX };
	struct test_pem pem = test_pem_new("P-256", "mx.example.net", 90);
	const char *why;
	int fd[2];

	*w = (struct world){ .left = 2, .mechanisms = "", .login_answer = "250 no", .user = "" };
	log_init(&w->log, LOG_TO_STDERR, LOG_LEVEL_ERROR, "test");
	buf_init(&w->clear, 65536);
	buf_init(&w->heard, 65536);
	must(keyring_new(&w->ring));
	must(keyring_add(w->ring, buf_str(&pem.certificate), buf_str(&pem.key), &why));
	test_pem_free(&pem);
	must(loop_new(&w->loop));
	must(chan_new(w->loop, ROLE_FRONT, ROLE_KEYS, 0, &front_ops, w, &w->front));
	must(chan_new(w->loop, ROLE_KEYS, ROLE_FRONT, 0, &keys_ops, w, &w->keys));
	must(os_socketpair(true, fd));
	must(chan_attach(w->front, fd[0]));
	must(chan_attach(w->keys, fd[1]));
	must(tls_server_new(w->loop, &w->log, w->front, &w->server));
	must(tls_client_new(w->loop, &w->log, STR_EMPTY, &w->client));
	must(os_socketpair(false, fd));
	must(conn_new(w->loop, fd[0], &peer, &w->server_end));
	must(conn_new(w->loop, fd[1], &peer, &w->client_end));
}

static void world_free(struct world *w)
{
	tls_free(w->server);
	tls_free(w->client);
	chan_free(w->front);
	chan_free(w->keys);
	keyring_free(w->ring);
	buf_free(&w->clear);
	buf_free(&w->heard);
	loop_free(w->loop);
}

static void world_run(struct world *w)
{
	must(fiber_spawn(w->loop, serve, w));
	must(fiber_spawn(w->loop, deliver, w));
	must(loop_run(w->loop));
}

/* RFC 4954: under TLS alone, by the mechanisms told there; whatever goes wrong is a deferral. */
static void test_login(void)
{
	static const struct {
		const char *mechanisms, *answer, *said;
		enum smtp_open open;
		const char *status;
	} cases[] = {
		{ "250-AUTH LOGIN PLAIN\r\n", "235 2.7.0 Ok", "AUTH PLAIN AGFsaWNlAHNlY3JldA==\n",
		  SMTP_OPEN_OK, "" },
		{ "250-AUTH CRAM-MD5 LOGIN\r\n", "235 2.7.0 Ok", "AUTH LOGIN\nYWxpY2U=\nc2VjcmV0\n",
		  SMTP_OPEN_OK, "" },
		{ "250-AUTH PLAIN\r\n", "535 5.7.8 No", "AUTH PLAIN AGFsaWNlAHNlY3JldA==\n",
		  SMTP_OPEN_NEXT, "4.7.8" },
		{ "250-AUTH LOGIN\r\n", "334 more", "AUTH LOGIN\nYWxpY2U=\nc2VjcmV0\n",
		  SMTP_OPEN_NEXT, "4.5.0" },
		/* What was offered in clear counts for nothing. */
		{ "", "", "", SMTP_OPEN_NEXT, "4.7.0" },
		{ "250-AUTH GSSAPI\r\n", "", "", SMTP_OPEN_NEXT, "4.7.0" },
	};
	struct world w;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		str heard;

		tap_group(cases[i].mechanisms);
		world_make(&w);
		w.user = "alice";
		w.password = "secret";
		w.mechanisms = cases[i].mechanisms;
		w.login_answer = cases[i].answer;
		world_run(&w);
		EQ(w.open, cases[i].open);
		heard = str_from(buf_str(&w.heard), strlen("EHLO me.example.org\n"));
		STR_EQ(str_head(heard, strlen(cases[i].said)), str_from_c(cases[i].said));
		OK(str_find(buf_str(&w.clear), S("AUTH")) == STR_NONE);
		if (w.open) {
			EQ(w.why.state, QUEUE_DEFERRED);
			STR_EQ(smtp_result_status(&w.why), str_from_c(cases[i].status));
			OK(str_find(heard, S("MAIL")) == STR_NONE);
		}
		world_free(&w);
	}
}

int main(void)
{
	struct world w;

	test_login();
	tap_group("STARTTLS");
	world_make(&w);
	world_run(&w);
	EQ(w.open, SMTP_OPEN_OK);
	EQ(w.accepted, ERR_OK);
	OK(w.server_has_tls);
	OK(w.has_tls);
	OK(w.was_good);
	STR_EQ(buf_str(&w.clear), S("EHLO me.example.org\nSTARTTLS\n"));
	/* Nothing of SIZE: neither the limit from before TLS nor the injected one. */
	STR_EQ(buf_str(&w.heard),
	       S("EHLO me.example.org\nMAIL FROM:<a@example.org>\nRCPT TO:<b@example.net>\nDATA\n"
		 "Subject: x\n\n..dot\n.\nQUIT\n"));
	EQ(w.rcpt.result.state, QUEUE_SENT);
	world_free(&w);
	return tap_done();
}
