/* The door: greeting, refusals, SASL exchanges carried to a fake auth, connections handed to a fake
 * session. */
#include "imap/prelogin.h"

#include "base/tap.h"
#include "imap/imap.h"
#include "store/types.h"

#include <stdio.h>
#include <stdlib.h>

struct world {
	struct loop *loop;
	struct log log;
	struct arena *arena;
	struct conf *conf;
	struct imap_front front;
	struct chan *auth, *session; /* the fakes' ends */
	struct conn *client;
	struct buf got;
	void (*story)(struct world *w);
	/* What the fakes heard, and what auth answers. */
	char mechanism[32], initial[256], response[256], input[256], service[32];
	unsigned rounds, conns, ended, ends;
	uint8_t state;
	int socket;
};

static void copy(char *to, size_t size, str s)
{
	s = str_head(s, size - 1);
	if (s.n)
		memcpy(to, s.p, s.n);
	to[s.n] = 0;
}

static void auth_answers(struct world *w, uint32_t id)
{
	struct msg_auth_sasl_reply r = { .state = w->state,
					 .text = S("Wrong."),
					 .address = S("a@example.test") };

	if (w->rounds) {
		w->rounds--;
		r.state = AUTH_SASL_CONTINUE;
		r.challenge = S("who?");
	}
	memset(r.ticket, 7, sizeof(r.ticket));
	if (chan_reply(w->auth, id, MSG_auth_sasl_reply, &r))
		panic("reply");
}

static void fake_message(void *arg, struct chan *c, struct msg *m)
{
	struct world *w = arg;

	(void)c;
	if (m->type == MSG_auth_sasl) {
		copy(w->mechanism, sizeof(w->mechanism), m->u.auth_sasl.mechanism);
		memset(w->initial, 0, sizeof(w->initial));
		for (size_t i = 0; i < m->u.auth_sasl.initial.n && i < sizeof(w->initial) - 1; i++)
			w->initial[i] =
				m->u.auth_sasl.initial.p[i] ? m->u.auth_sasl.initial.p[i] : '|';
		auth_answers(w, m->id);
	} else if (m->type == MSG_auth_sasl_step) {
		copy(w->response, sizeof(w->response), m->u.auth_sasl_step.response);
		auth_answers(w, m->id);
	} else if (m->type == MSG_auth_conn_end) {
		w->ends++;
	} else if (m->type == MSG_session_conn) {
		w->conns++;
		copy(w->input, sizeof(w->input), m->u.session_conn.input);
		copy(w->service, sizeof(w->service), m->u.session_conn.service);
		w->socket = m->u.session_conn.socket;
		m->u.session_conn.socket = -1;
	}
}

static void fake_down(void *arg, struct chan *c, enum err why)
{
	(void)arg, (void)c, (void)why;
}

static void ended(void *arg, const struct addr *client)
{
	(void)client;
	((struct world *)arg)->ended++;
}

static void channel(struct world *w, enum role_kind peer, struct chan **ours, struct chan **theirs)
{
	static const struct chan_ops ops = { fake_message, fake_down };
	int pair[2];

	if (os_socketpair(true, pair) || chan_new(w->loop, ROLE_FRONT, peer, 0, &ops, w, ours) ||
	    chan_new(w->loop, peer, ROLE_FRONT, 0, &ops, w, theirs) ||
	    chan_attach(*ours, pair[0]) || chan_attach(*theirs, pair[1]))
		panic("channel");
}

static void join(struct world *w)
{
	struct addr peer = { .family = ADDR_IP4, .ip = { 192, 0, 2, 1 }, .port = 99 };
	struct conn *conn;
	int pair[2];

	conn_free(w->client);
	if (os_socketpair(false, pair) || conn_new(w->loop, pair[0], &peer, &w->client) ||
	    conn_new(w->loop, pair[1], &peer, &conn) ||
	    imap_prelogin_start(&w->front, conn, IMAP_SERVICE_IMAP))
		panic("join");
	conn_set_deadline(w->client, loop_now(w->loop) + SECONDS(20));
}

static str until(struct world *w, const char *begin)
{
	str line;

	buf_clear(&w->got);
	while (!conn_read_line(w->client, 8000, &line)) {
		buf_add(&w->got, line);
		buf_add_char(&w->got, '\n');
		if (str_starts(line, str_from_c(begin)))
			break;
	}
	return buf_str(&w->got);
}

static str say(struct world *w, const char *text, const char *begin)
{
	conn_write(w->client, str_from_c(text));
	conn_write(w->client, S("\r\n"));
	if (conn_flush(w->client))
		printf("# cannot write\n");
	return until(w, begin);
}

static bool has(str s, const char *what)
{
	bool found = str_find(s, str_from_c(what)) != STR_NONE;

	if (!found)
		tap_str("got", s);
	return found;
}
#define HAS(s, what) OK(has((s), (what)))

static void refusals(struct world *w)
{
	tap_group("plaintext is off");
	join(w);
	HAS(until(w, "* OK"), "LOGINDISABLED] Posthorn ready.");
	HAS(say(w, "a LOGIN a b", "a "), "a NO [PRIVACYREQUIRED] ");
	HAS(say(w, "b AUTHENTICATE PLAIN", "b "), "b NO [PRIVACYREQUIRED] ");
	HAS(say(w, "c STARTTLS", "c "), "c BAD ");
	HAS(say(w, "d SELECT INBOX", "d "), "d BAD Not logged in.");
	HAS(say(w, "e APPEND INBOX {3+}\r\nabc", "e"), "e BAD ");
	HAS(say(w, "f APPEND INBOX {3}", "f"), "f BAD ");
	HAS(say(w, "g NOOP", "g "), "g OK ");
	HAS(say(w, "h ID NIL", "h "), "* ID (\"name\" \"Posthorn\")");
	EQ(w->mechanism[0], 0);
	HAS(say(w, "i LOGOUT", "i "), "* BYE ");
	until(w, "nothing");
	EQ(w->ended, 1);
}

static void logins(struct world *w)
{
	size_t done;
	char got[64];

	tap_group("login");
	join(w);
	HAS(until(w, "* OK"), "AUTH=PLAIN AUTH=LOGIN] ");
	w->front.offers_scram = true;
	HAS(say(w, "0 CAPABILITY", "0 "), "AUTH=PLAIN AUTH=LOGIN AUTH=SCRAM-SHA-256\n");
	w->state = AUTH_SASL_FAILED;
	HAS(say(w, "a LOGIN {1+}\r\nx \"y z\"", "a "), "a NO [AUTHENTICATIONFAILED] Wrong.");
	STR_EQ(str_from_c(w->initial), S("|x|y z"));
	w->state = AUTH_SASL_TEMPORARY;
	HAS(say(w, "b LOGIN x y", "b "), "b NO [UNAVAILABLE] ");
	w->rounds = 1;
	HAS(say(w, "c AUTHENTICATE PLAIN", "+"), "+ d2hvPw==\n");
	HAS(say(w, "*", "c "), "c BAD ");
	HAS(say(w, "d AUTHENTICATE BOGUS", "d "), "d NO ");
	HAS(say(w, "e AUTHENTICATE PLAIN not!base64", "e "), "e BAD ");
	w->rounds = 2;
	w->state = AUTH_SASL_OK;
	HAS(say(w, "f AUTHENTICATE SCRAM-SHA-256 bixh", "+"), "+ d2hvPw==\n");
	STR_EQ(str_from_c(w->initial), S("n,a"));
	HAS(say(w, "aGVsbG8=", "+"), "+ d2hvPw==\n");
	STR_EQ(str_from_c(w->response), S("hello"));
	HAS(say(w, "\r\ng NOOP", "f "), "f OK [CAPABILITY IMAP4rev1 ");
	while (!w->conns)
		fiber_yield(w->loop);
	/* What came behind the login goes with the connection. */
	STR_EQ(str_from_c(w->input), S("g NOOP\r\n"));
	STR_EQ(str_from_c(w->service), S("imap"));
	EQ(w->ended, 1);
	EQ(os_send(w->socket, "g OK\r\n", 6, &done), ERR_OK);
	HAS(until(w, "g "), "g OK\n");
	conn_write(w->client, S("h NOOP\r\n"));
	EQ(conn_flush(w->client), ERR_OK);
	while (os_recv(w->socket, got, sizeof(got), &done))
		fiber_yield(w->loop);
	STR_EQ(str_of(got, done), S("h NOOP\r\n"));
	os_close(w->socket);
}

static void guesses(struct world *w)
{
	tap_group("guesses");
	join(w);
	until(w, "* OK");
	w->state = AUTH_SASL_FAILED;
	for (int i = 1; i < IMAP_LOGIN_FAILURES_MAX; i++)
		HAS(say(w, "a LOGIN x y", "a "), "a NO ");
	HAS(say(w, "b LOGIN x y", "* BYE"), "b NO ");
	until(w, "nothing");
	EQ(w->ended, 1);
	tap_group("rubbish");
	join(w);
	until(w, "* OK");
	for (int i = 1; i < IMAP_BAD_MAX; i++)
		HAS(say(w, "x", "*"), "* BAD ");
	HAS(say(w, "x", "* BYE"), "* BYE ");
}

static void fiber(void *arg)
{
	struct world *w = arg;

	w->story(w);
	loop_stop(w->loop);
}

static void run(void (*story)(struct world *w), str conf)
{
	struct world *w = calloc(1, sizeof(*w));

	w->story = story;
	w->arena = arena_new(CONF_ARENA_SIZE);
	log_init(&w->log, LOG_TO_STDERR, LOG_LEVEL_ERROR, "test");
	buf_init(&w->got, 1024 * 1024);
	if (conf_parse(conf, S("test.conf"), w->arena, NULL, &w->conf) || loop_new(&w->loop))
		panic("run");
	w->front = (struct imap_front){
		.loop = w->loop, .log = &w->log, .conf = w->conf, .ended = ended, .arg = w
	};
	channel(w, ROLE_AUTH, &w->front.auth, &w->auth);
	channel(w, ROLE_SESSION, &w->front.session, &w->session);
	if (fiber_spawn(w->loop, fiber, w) || loop_run(w->loop))
		panic("run");
	imap_front_stop(&w->front);
	conn_free(w->client);
	chan_free(w->auth);
	chan_free(w->session);
	chan_free(w->front.auth);
	chan_free(w->front.session);
	loop_free(w->loop);
	buf_free(&w->got);
	arena_free(w->arena);
	free(w);
}

int main(void)
{
	run(refusals, S("disable_plaintext_auth = yes\n"));
	run(logins, S("disable_plaintext_auth = no\n"));
	run(guesses, S("disable_plaintext_auth = no\n"));
	return tap_done();
}
