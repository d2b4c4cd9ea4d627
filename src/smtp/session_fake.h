/* A world for session tests: a real loop, real channels and sockets, and fakes of auth, store and
 * filter at their other ends, which record what they were told and answer as the test says. The
 * test itself is a fiber and speaks as the client. */
#ifndef SMTP_SESSION_FAKE_H
#define SMTP_SESSION_FAKE_H

#include "smtp/session.h"

#include "base/tap.h"
#include "store/types.h"

#include <stdlib.h>

enum { FAKE_BODY_MAX = 1024 * 1024, FAKE_PATIENCE_SECONDS = 20 };

struct world {
	struct loop *loop;
	struct log log;
	struct msgid_source msgids;
	struct arena *arena;
	struct conf *conf;
	struct smtp_server server;
	struct chan *front[3], *fake[3]; /* auth, store, filter: our end and theirs */
	struct chan *filters[1];
	struct conn *client;
	void (*story)(struct world *w);
	bool known_is_gone; /* auth refuses what begins with "known" */

	/* What they were told. */
	unsigned mails, rcpts, commits, resets, bodies, cancels, checks, conn_ends;
	uint64_t txn;
	bool sizes_match; /* every body had the size that was said */
	char sender[512], rcpt[512], envid[128], mechanism[32], initial[128];
	bool smtputf8;
	struct buf body;
	bool body_was_fd;
	uint32_t body_rcpts;

	/* What they answer. */
	struct msg_txn_reply reply;
	bool store_dies;
	unsigned sasl_rounds; /* challenges before the end */
	uint8_t sasl_state;
};

enum { FAKE_AUTH, FAKE_STORE, FAKE_FILTER };

static void fake_copy(char *to, size_t size, str s)
{
	s = str_head(s, size - 1);
	if (s.n)
		memcpy(to, s.p, s.n);
	to[s.n] = 0;
}

static void fake_verdict(struct chan *c, uint32_t id, unsigned code, const char *status,
			 const char *text)
{
	OK(!REPLY(c, id, auth_verdict, .code = (uint16_t)code, .status = str_from_c(status),
		  .text = str_from_c(text), .begun = true));
}

static void fake_sasl(struct world *w, struct chan *c, uint32_t id)
{
	if (w->sasl_rounds) {
		w->sasl_rounds--;
		OK(!REPLY(c, id, auth_sasl_reply, .state = AUTH_SASL_CONTINUE,
			  .challenge = S("what?")));
		return;
	}
	OK(!REPLY(c, id, auth_sasl_reply, .state = w->sasl_state,
		  .address = S("alice@example.test")));
}

/* Addresses that begin with "bad" do not exist, with "later" cannot be looked up, with "lost" get
 * no answer; one that begins with "known" is granted to everybody. */
static void fake_rcpt(struct world *w, struct chan *c, uint32_t id, str address)
{
	if (w->known_is_gone ? str_starts(address, S("known")) : str_starts(address, S("bad")))
		fake_verdict(c, id, 550, "5.1.1", "No such user");
	else if (str_starts(address, S("later")))
		fake_verdict(c, id, 451, "4.3.0", "Lookup failed");
	else if (str_starts(address, S("lost")))
		OK(!REPLY_FAILED(c, id, ERR_TIMEOUT, STR_EMPTY));
	else {
		w->rcpts++;
		fake_copy(w->rcpt, sizeof(w->rcpt), address);
		OK(!REPLY(c, id, auth_verdict, .code = 250, .status = S("2.1.5"), .text = S("Ok"),
			  .begun = true, .holds = str_starts(address, S("known"))));
	}
}

static void fake_auth_message(struct world *w, struct chan *c, struct msg *m)
{
	const struct msg_auth_mail *mail = &m->u.auth_mail;

	switch (m->type) {
	case MSG_auth_mail:
		w->txn = mail->txn;
		w->smtputf8 = mail->smtputf8;
		fake_copy(w->sender, sizeof(w->sender), mail->sender);
		fake_copy(w->envid, sizeof(w->envid), mail->envid);
		if (str_starts(mail->sender, S("bad"))) {
			OK(!REPLY(c, m->id, auth_verdict, .code = 553, .status = S("5.7.1"),
				  .text = S("Not your\r\naddress")));
			return;
		}
		w->mails++;
		if (mail->commit) {
			w->commits++;
			w->rcpts++;
			fake_copy(w->rcpt, sizeof(w->rcpt), mail->rcpt);
		} else if (mail->rcpt.n)
			fake_rcpt(w, c, m->id, mail->rcpt);
		else
			fake_verdict(c, m->id, 250, "2.1.0", "Ok");
		return;
	case MSG_auth_rcpt:
		fake_rcpt(w, c, m->id, m->u.auth_rcpt.address);
		return;
	case MSG_auth_commit:
		w->commits++;
		return;
	case MSG_auth_reset:
		w->resets++;
		return;
	case MSG_auth_conn_end:
		w->conn_ends++;
		return;
	case MSG_auth_sasl:
		fake_copy(w->mechanism, sizeof(w->mechanism), m->u.auth_sasl.mechanism);
		fake_copy(w->initial, sizeof(w->initial), m->u.auth_sasl.initial);
		fake_sasl(w, c, m->id);
		return;
	case MSG_auth_sasl_step:
		fake_sasl(w, c, m->id);
		return;
	default:
		OK(!"a message for auth");
	}
}

static void fake_body(struct world *w, const struct msg_txn_body *b)
{
	uint64_t size = b->inline_body.n;

	w->bodies++;
	w->body_rcpts = b->rcpts;
	w->body_was_fd = b->body > 0;
	buf_clear(&w->body);
	if (w->body_was_fd) {
		char *p;

		OK(!os_memfd_check(b->body, &size));
		p = buf_reserve(&w->body, size);
		OK(p && !os_pread_all(b->body, p, size, 0));
		buf_added(&w->body, size);
	} else {
		buf_add(&w->body, b->inline_body);
	}
	w->sizes_match &= size == b->size;
}

static void fake_on_message(void *arg, struct chan *c, struct msg *m)
{
	struct world *w = arg;

	if (c == w->fake[FAKE_AUTH]) {
		fake_auth_message(w, c, m);
	} else if (m->type == MSG_filter_check) {
		w->checks++;
	} else if (m->type == MSG_txn_cancel) {
		w->cancels++;
	} else if (m->type == MSG_txn_body) {
		fake_body(w, &m->u.txn_body);
		w->reply.txn = m->u.txn_body.txn;
		if (w->store_dies) {
			w->fake[FAKE_STORE] = NULL;
			chan_free(c);
		} else {
			OK(!chan_reply(c, m->id, MSG_txn_reply, &w->reply));
		}
	}
}

static void fake_on_down(void *arg, struct chan *c, enum err why)
{
	(void)arg;
	(void)c;
	OK(why == ERR_CLOSED);
}

static void world_channel(struct world *w, int which, enum role_kind peer)
{
	static const struct chan_ops ops = { fake_on_message, fake_on_down };
	int fd[2];

	OK(!chan_new(w->loop, ROLE_FRONT, peer, 0, &ops, w, &w->front[which]));
	OK(!chan_new(w->loop, peer, ROLE_FRONT, 0, &ops, w, &w->fake[which]));
	OK(!os_socketpair(true, fd));
	OK(!chan_attach(w->front[which], fd[0]) && !chan_attach(w->fake[which], fd[1]));
}

/* A new connection to the server; the one before is closed. */
static void world_connect(struct world *w, enum smtp_service service)
{
	struct addr peer = { .family = ADDR_IP4, .ip = { 192, 0, 2, 1 }, .port = 4711 };
	struct conn *conn;
	int fd[2];

	conn_free(w->client);
	OK(!os_socketpair(false, fd));
	OK(!conn_new(w->loop, fd[0], &peer, &conn) && !conn_new(w->loop, fd[1], &peer, &w->client));
	OK(!smtp_session_start(&w->server, conn, service));
	conn_set_deadline(w->client, loop_now(w->loop) + SECONDS(FAKE_PATIENCE_SECONDS));
}

static void world_say(struct world *w, const char *text)
{
	conn_write(w->client, str_from_c(text));
}

/* The next line begins so. */
#define HEAR(w, text) OK(world_hear((w), (text)))
static UNUSED bool world_hear(struct world *w, const char *text)
{
	enum err err;
	str line;

	conn_set_deadline(w->client, loop_now(w->loop) + SECONDS(FAKE_PATIENCE_SECONDS));
	if ((err = conn_read_line(w->client, 4096, &line))) {
		printf("# wanted %s, got %s\n", text, err_name(err));
		return false;
	}
	if (str_starts(line, str_from_c(text)) && conn_line_had_crlf(w->client))
		return true;
	printf("# wanted %s\n", text);
	tap_str("got", line);
	return false;
}

/* The whole reply: the code of its last line. */
static UNUSED unsigned world_reply(struct world *w)
{
	str line;

	conn_set_deadline(w->client, loop_now(w->loop) + SECONDS(FAKE_PATIENCE_SECONDS));
	do {
		if (conn_read_line(w->client, 4096, &line))
			return 0;
	} while (line.n > 3 && line.p[3] == '-');
	return line.n < 3 ? 0
			  : (unsigned)((line.p[0] - '0') * 100 + (line.p[1] - '0') * 10 +
				       line.p[2] - '0');
}

static UNUSED unsigned world_ask(struct world *w, const char *command)
{
	world_say(w, command);
	return world_reply(w);
}

static bool world_is_closed(struct world *w)
{
	str bytes;

	return conn_read_some(w->client, 1, &bytes) == ERR_EOF;
}

static void world_fiber(void *arg)
{
	struct world *w = arg;

	w->story(w);
	conn_free(w->client);
	w->client = NULL;
	smtp_server_cancel(&w->server);
	/* The sessions' ends are posted; they go first. */
	while (w->server.first)
		fiber_yield(w->loop);
	loop_stop(w->loop);
}

/* Plays one story in a world of its own. */
static void world_run(const char *name, const char *conf, void (*story)(struct world *w))
{
	static const enum role_kind peers[] = { ROLE_AUTH, ROLE_STORE, ROLE_FILTER };
	struct world *w = calloc(1, sizeof(*w));
	struct buf problems;

	tap_group(name);
	buf_init(&problems, 4096);
	buf_init(&w->body, FAKE_BODY_MAX);
	w->story = story;
	w->arena = arena_new(CONF_ARENA_SIZE);
	w->sizes_match = true;
	w->sasl_state = AUTH_SASL_OK;
	w->reply = (struct msg_txn_reply){ .code = 250, .status = S("2.0.0") };
	log_init(&w->log, LOG_TO_STDERR, LOG_LEVEL_ERROR, "test");
	OK(!loop_new(&w->loop));
	OK(!conf_parse(str_from_c(conf), S("test"), w->arena, &problems, &w->conf));
	smtp_server_init(&w->server, w->loop, &w->log, &w->msgids, w->conf);
	for (int i = 0; i < 3; i++)
		world_channel(w, i, peers[i]);
	w->filters[0] = w->front[FAKE_FILTER];
	w->server.auth = w->front[FAKE_AUTH];
	w->server.store = w->front[FAKE_STORE];
	w->server.filters = w->filters;
	w->server.filter_count = 1;
	OK(!fiber_spawn(w->loop, world_fiber, w));
	OK(!loop_run(w->loop));
	OK(w->sizes_match);
	EQ(w->server.sessions, 0);
	EQ(w->server.spool.used, 0);
	for (int i = 0; i < 3; i++) {
		chan_free(w->front[i]);
		if (w->fake[i])
			chan_free(w->fake[i]);
	}
	loop_free(w->loop);
	arena_free(w->arena);
	buf_free(&w->body);
	buf_free(&problems);
	free(w);
}

#define CONF "myhostname = mx.example.test\n"

#endif
