/* IMAP before login; see prelogin.h. RFC 3501 6.1, 6.2; SASL-IR 4959; STARTTLS as RFC 3501 6.2.1
 * and RFC 8314 want it.
 *
 * The client's bytes go through the same collector and parser as after login, so a fuzzer of those
 * covers this door. What arrived before STARTTLS is thrown away by conn_tls_accept and here. After
 * the tagged OK of a login what the client sent behind it travels to the session with the
 * connection, so pipelining works across the change of process.
 *
 * Each connection is on a list of its front, so that stopping can close it.
 */
#include "auth/sasl.h"
#include "imap/command.h"
#include "imap/input.h"
#include "imap/prelogin.h"
#include "store/types.h"
#include "text/base64.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { INPUT_MAX = 32768, /* messages.def: session_conn */ ARENA_BUDGET = 1024 * 1024 };

struct imap_prelogin {
	struct imap_front *front;
	struct imap_prelogin *next, **link;
	struct conn *conn;
	struct addr client;
	uint64_t id;
	enum imap_service service;
	struct imap_input input;
	str chunk; /* read, not yet handled */
	struct arena *arena;
	int64_t login_by;
	unsigned bad, failures;
	bool is_greeted, is_ending, is_running, is_parked, is_handed_over;
};

static void run(void *arg);
static void parked(void *arg, enum err why);

/* ---- beginning and end ---- */

enum err imap_prelogin_start(struct imap_front *front, struct conn *conn, enum imap_service service)
{
	struct imap_prelogin *p = calloc(1, sizeof(*p));
	enum err err;

	if (!p)
		return ERR_NO_MEMORY;
	p->front = front;
	p->conn = conn;
	p->client = *conn_peer(conn);
	p->service = service;
	p->id = ++front->next_conn | (uint64_t)1 << 63;
	p->login_by = loop_now(front->loop) + SECONDS(IMAP_LOGIN_SECONDS);
	imap_input_init(&p->input);
	p->is_running = true;
	if ((err = fiber_spawn(front->loop, run, p))) {
		free(p);
		return err;
	}
	p->next = front->first;
	p->link = &front->first;
	if (p->next)
		p->next->link = &p->next;
	front->first = p;
	front->connections++;
	return ERR_OK;
}

static void unlink_from_front(struct imap_prelogin *p)
{
	*p->link = p->next;
	if (p->next)
		p->next->link = p->link;
}

/* Where auth is away there is nothing to forget. */
static void forget_at_auth(struct imap_prelogin *p)
{
	if (SEND(p->front->auth, auth_conn_end, .conn = p->id))
		log_debug(p->front->log, "auth-away", "conn=%llu", (unsigned long long)p->id);
}

/* The connection is somebody else's already where it was handed over. */
static void end(struct imap_prelogin *p)
{
	struct imap_front *front = p->front;
	struct addr client = p->client;
	bool is_relayed = p->is_handed_over && !p->conn;

	unlink_from_front(p);
	forget_at_auth(p);
	if (!p->is_handed_over)
		conn_free(p->conn);
	imap_input_free(&p->input);
	arena_free(p->arena);
	free(p);
	if (is_relayed)
		return; /* relay_done counts it */
	front->connections--;
	if (front->ended)
		front->ended(front->arg, &client);
}

void imap_front_stop(struct imap_front *front)
{
	struct imap_prelogin *next;

	front->is_stopping = true;
	for (struct imap_prelogin *p = front->first; p; p = next) {
		next = p->next;
		if (!p->is_parked)
			continue; /* it sees is_stopping when its command is done */
		conn_unpark(p->conn);
		conn_write(p->conn, S("* BYE Server shutting down.\r\n"));
		end(p);
	}
}

/* ---- saying ---- */

static bool plaintext_is_allowed(const struct imap_prelogin *p)
{
	return conn_is_tls(p->conn) || !conf_bool(p->front->conf, CONF_disable_plaintext_auth);
}

static bool can_starttls(const struct imap_prelogin *p)
{
	return p->front->tls && !conn_is_tls(p->conn) && tls_server_is_ready(p->front->tls);
}

static void write_capabilities(struct imap_prelogin *p)
{
	conn_write(p->conn, S(IMAP_CAPABILITY_BASE));
	if (can_starttls(p))
		conn_write(p->conn, S(" STARTTLS"));
	if (plaintext_is_allowed(p))
		conn_write(p->conn, S(" AUTH=PLAIN AUTH=LOGIN"));
	else
		/* RFC 3501 6.2.3 */
		conn_write(p->conn, S(" LOGINDISABLED"));
	if (plaintext_is_allowed(p) && p->front->offers_scram)
		conn_write(p->conn, S(" AUTH=SCRAM-SHA-256"));
}

static void reply(struct imap_prelogin *p, str tag, const char *fmt, ...) PRINTF_LIKE(3, 4);
static void reply(struct imap_prelogin *p, str tag, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	conn_write(p->conn, tag.n ? tag : S("*"));
	conn_write(p->conn, S(" "));
	conn_write(p->conn, str_from_c(text));
	conn_write(p->conn, S("\r\n"));
}

static void bad(struct imap_prelogin *p, str tag, const char *text)
{
	reply(p, tag, "BAD %s", text);
	if (++p->bad >= IMAP_BAD_MAX) {
		reply(p, STR_EMPTY, "BYE Too many invalid IMAP commands.");
		p->is_ending = true;
	}
}

static void greet(struct imap_prelogin *p)
{
	conn_write(p->conn, S("* OK [CAPABILITY "));
	write_capabilities(p);
	conn_write(p->conn, S("] Posthorn ready.\r\n"));
}

/* ---- reading ---- */

/* One step of input. ERR_AGAIN: nothing was begun and nothing is there. */
static enum err next_step(struct imap_prelogin *p, enum imap_input_step *step)
{
	enum err err;
	size_t used;

	for (;;) {
		if (p->chunk.n == 0) {
			if (imap_input_is_idle(&p->input) && !p->input.is_raw &&
			    !conn_pending(p->conn).n) {
				if ((err = conn_flush(p->conn)) || (err = conn_fill(p->conn)))
					return err;
			}
			if ((err = conn_read_some(p->conn, CONN_IN_MAX, &p->chunk)))
				return err;
		}
		*step = imap_input_feed(&p->input, p->chunk, &used);
		p->chunk = str_from(p->chunk, used);
		if (*step == IMAP_INPUT_CONTINUE)
			conn_write(p->conn, S("+ OK\r\n"));
		else if (*step != IMAP_INPUT_MORE)
			return ERR_OK;
	}
}

/* A line that is no command: a SASL response. In the arena. */
static enum err read_raw(struct imap_prelogin *p, str *line)
{
	enum imap_input_step step;
	enum err err;

	imap_input_next(&p->input);
	p->input.is_raw = true;
	if ((err = next_step(p, &step)))
		return err;
	*line = arena_str(p->arena, p->input.text);
	if (step != IMAP_INPUT_COMMAND)
		return ERR_TOO_LONG;
	return line->p || p->input.text.n == 0 ? ERR_OK : ERR_NO_MEMORY;
}

/* ---- SASL ---- */

static void challenge(struct imap_prelogin *p, str bytes)
{
	struct buf b;

	buf_init(&b, 2 * SASL_WIRE_MAX);
	base64_encode(bytes, 0, &b);
	conn_write(p->conn, S("+ "));
	conn_write(p->conn, buf_str(&b));
	conn_write(p->conn, S("\r\n"));
	buf_free(&b);
}

/* The client's answer to a challenge. False: the exchange is over, and answered. */
static bool read_response(struct imap_prelogin *p, str tag, str *response)
{
	enum err err;
	str line;

	if ((err = read_raw(p, &line)) == ERR_TOO_LONG) {
		bad(p, tag, "Authentication response is too long.");
		return false;
	}
	if (err) {
		p->is_ending = true;
		return false;
	}
	/* RFC 3501 6.2.2: the client cancels. */
	if (str_eq(line, S("*")) || sasl_text_decode(line, false, p->arena, response)) {
		bad(p, tag,
		    str_eq(line, S("*")) ? "Authentication aborted by client."
					 : "Invalid base64 data.");
		return false;
	}
	return true;
}

static str client_text(const struct imap_prelogin *p, char *text)
{
	return addr_text(&p->client, text);
}

static str service_name(const struct imap_prelogin *p)
{
	return p->service == IMAP_SERVICE_IMAPS ? S("imaps") : S("imap");
}

static int64_t auth_deadline(const struct imap_prelogin *p)
{
	return loop_now(p->front->loop) + SECONDS(IMAP_AUTH_SECONDS);
}

static void login_failed(struct imap_prelogin *p, str tag, str user, enum err err,
			 const struct msg_auth_sasl_reply *r)
{
	str text = r->text.n ? r->text : S("Authentication failed.");

	if (err || r->state != AUTH_SASL_FAILED) {
		/* RFC 5530 3 */
		reply(p, tag, "NO [UNAVAILABLE] Temporary authentication failure.");
		return;
	}
	if (p->front->refused)
		p->front->refused(p->front->arg, &p->client, r->address.n ? r->address : user,
				  text);
	reply(p, tag, "NO [AUTHENTICATIONFAILED] %.*s", STR_ARGS(text));
	if (++p->failures >= IMAP_LOGIN_FAILURES_MAX) {
		reply(p, STR_EMPTY, "BYE Too many failed logins.");
		p->is_ending = true;
	}
}

/* ---- handing over ---- */

struct relayed {
	struct imap_front *front;
	struct addr client;
};

static void relay_done(void *arg)
{
	struct relayed *x = arg;
	struct imap_front *front = x->front;

	front->relayed--;
	front->connections--;
	if (front->ended)
		front->ended(front->arg, &x->client);
	free(x);
}

static enum err tell_session(struct imap_prelogin *p, const uint8_t ticket[16], bool is_tls, int fd,
			     str input)
{
	char text[ADDR_TEXT_MAX];
	struct msg_session_conn m = {
		.service = service_name(p),
		.client = client_text(p, text),
		.tls = is_tls,
		.socket = fd,
		.input = input,
	};

	memcpy(m.ticket, ticket, sizeof(m.ticket));
	return chan_send(p->front->session, MSG_session_conn, 0, &m);
}

/* Through this process: TLS, or more input than one message holds. */
static enum err hand_over_relayed(struct imap_prelogin *p, const uint8_t ticket[16], str input)
{
	struct relayed *x = malloc(sizeof(*x));
	enum err err = x ? ERR_OK : ERR_NO_MEMORY;
	int pair[2] = { -1, -1 };

	if (!err)
		err = os_socketpair(false, pair);
	if (!err)
		err = conn_flush(p->conn);
	if (!err)
		err = tell_session(p, ticket, conn_is_tls(p->conn), pair[1],
				   str_head(input, INPUT_MAX));
	os_close(pair[1]);
	if (err) {
		os_close(pair[0]);
		free(x);
		return err;
	}
	*x = (struct relayed){ p->front, p->client };
	p->front->relayed++;
	conn_relay_start(p->conn, pair[0], str_from(input, INPUT_MAX), relay_done, x);
	p->conn = NULL;
	p->is_handed_over = true;
	return ERR_OK;
}

static enum err hand_over(struct imap_prelogin *p, const uint8_t ticket[16])
{
	str pending = conn_pending(p->conn);
	struct buf input, late;
	enum err err;
	int fd;

	buf_init(&input, 2 * CONN_IN_MAX);
	buf_init(&late, 2 * CONN_IN_MAX);
	buf_add(&input, p->chunk);
	buf_add(&input, pending);
	conn_take(p->conn, pending.n);
	if (conn_is_tls(p->conn) || buf_len(&input) > INPUT_MAX / 2) {
		err = hand_over_relayed(p, ticket, buf_str(&input));
	} else if (!(err = conn_detach(p->conn, &fd, &late))) {
		p->is_handed_over = true;
		buf_add(&input, str_head(buf_str(&late), INPUT_MAX - buf_len(&input)));
		err = tell_session(p, ticket, false, fd, buf_str(&input));
		os_close(fd);
		/* The memory is gone with conn_detach; `end` counts this one itself. */
	}
	buf_free(&input);
	buf_free(&late);
	return err;
}

static void logged_in(struct imap_prelogin *p, str tag, const struct msg_auth_sasl_reply *r)
{
	char text[ADDR_TEXT_MAX];
	enum err err;

	if (!chan_is_up(p->front->session)) {
		reply(p, tag, "NO [UNAVAILABLE] Mailboxes are not available now.");
		return;
	}
	log_info(p->front->log, "imap-login", "client=%.*s user=<%.*s> tls=%s",
		 STR_ARGS(client_text(p, text)), STR_ARGS(r->address),
		 conn_is_tls(p->conn) ? "yes" : "no");
	reply(p, tag, "OK [CAPABILITY " IMAP_CAPABILITY_SESSION "] Logged in");
	p->is_ending = true;
	if ((err = hand_over(p, r->ticket)))
		log_warn(p->front->log, "imap-handover-failed", "client=%.*s error=%s",
			 STR_ARGS(client_text(p, text)), err_name(err));
}

/* The whole exchange after auth's first answer. */
static void exchange(struct imap_prelogin *p, str tag, str user, enum err err,
		     struct msg_auth_sasl_reply *r)
{
	str response;

	for (int round = 0; !err && r->state == AUTH_SASL_CONTINUE && round < IMAP_SASL_ROUNDS_MAX;
	     round++) {
		challenge(p, r->challenge);
		if (!read_response(p, tag, &response)) {
			forget_at_auth(p);
			return;
		}
		err = CALL(p->front->auth, auth_sasl_step, auth_sasl_reply, r, p->arena,
			   auth_deadline(p), .conn = p->id, .response = response);
	}
	if (err || r->state != AUTH_SASL_OK) {
		login_failed(p, tag, user, err, r);
		return;
	}
	logged_in(p, tag, r);
}

static void authenticate(struct imap_prelogin *p, const struct imap_command *c)
{
	struct msg_auth_sasl_reply r = { 0 };
	enum sasl_mechanism known;
	char text[ADDR_TEXT_MAX];
	str initial, tag = arena_str(p->arena, c->tag),
		     mechanism = arena_str(p->arena, c->mechanism);
	enum err err;

	if (!plaintext_is_allowed(p)) {
		reply(p, tag, "NO [PRIVACYREQUIRED] Authentication is allowed under TLS alone.");
		return;
	}
	if (sasl_mechanism_find(mechanism, &known)) {
		reply(p, tag, "NO Unsupported authentication mechanism.");
		return;
	}
	if (c->initial.n && sasl_text_decode(c->initial, true, p->arena, &initial)) {
		bad(p, tag, "Invalid base64 data.");
		return;
	}
	err = CALL(p->front->auth, auth_sasl, auth_sasl_reply, &r, p->arena, auth_deadline(p),
		   .conn = p->id, .service = service_name(p), .client = client_text(p, text),
		   .mechanism = mechanism, .has_initial = c->initial.n > 0,
		   .initial = c->initial.n ? initial : STR_EMPTY);
	exchange(p, tag, STR_EMPTY, err, &r);
}

/* RFC 3501 6.2.3, as a PLAIN exchange (RFC 4616) in one step. */
static void login(struct imap_prelogin *p, const struct imap_command *c)
{
	struct msg_auth_sasl_reply r = { 0 };
	char text[ADDR_TEXT_MAX];
	size_t n = c->user.n + c->password.n + 2;
	char *plain;
	enum err err;

	if (!plaintext_is_allowed(p)) {
		reply(p, c->tag,
		      "NO [PRIVACYREQUIRED] Plaintext authentication is disallowed without TLS.");
		return;
	}
	if (n > SASL_WIRE_MAX || !(plain = arena_alloc(p->arena, n))) {
		reply(p, c->tag, "NO [AUTHENTICATIONFAILED] Authentication failed.");
		return;
	}
	if (c->user.n)
		memcpy(plain + 1, c->user.p, c->user.n);
	if (c->password.n)
		memcpy(plain + 2 + c->user.n, c->password.p, c->password.n);
	err = CALL(p->front->auth, auth_sasl, auth_sasl_reply, &r, p->arena, auth_deadline(p),
		   .conn = p->id, .service = service_name(p), .client = client_text(p, text),
		   .mechanism = S("PLAIN"), .has_initial = true, .initial = str_of(plain, n));
	exchange(p, arena_str(p->arena, c->tag), arena_str(p->arena, c->user), err, &r);
}

/* ---- the other commands ---- */

static enum err tls_accept(struct imap_prelogin *p)
{
	enum err err;
	char text[ADDR_TEXT_MAX];

	conn_set_deadline(p->conn, loop_now(p->front->loop) + SECONDS(IMAP_TLS_SECONDS));
	if ((err = conn_tls_accept(p->conn, p->front->tls)))
		log_info(p->front->log, "tls-failed", "service=%.*s client=%.*s error=%s",
			 STR_ARGS(service_name(p)), STR_ARGS(client_text(p, text)), err_name(err));
	return err;
}

static enum err starttls(struct imap_prelogin *p, str tag)
{
	if (!can_starttls(p)) {
		bad(p, tag,
		    conn_is_tls(p->conn) ? "TLS is already active." : "TLS is not available.");
		return ERR_OK;
	}
	reply(p, tag, "OK Begin TLS negotiation now.");
	/* RFC 3501 6.2.1, RFC 3207 4.2: what came behind the command in clear does not count as
	 * said under TLS. */
	p->chunk = STR_EMPTY;
	conn_discard_input(p->conn);
	imap_input_next(&p->input);
	return tls_accept(p);
}

static enum err do_command(struct imap_prelogin *p, const struct imap_command *c)
{
	switch (c->verb) {
	case IMAP_VERB_capability:
		conn_write(p->conn, S("* CAPABILITY "));
		write_capabilities(p);
		conn_write(p->conn, S("\r\n"));
		reply(p, c->tag,
		      "OK Pre-login capabilities listed, post-login capabilities have more.");
		return ERR_OK;
	case IMAP_VERB_noop:
		reply(p, c->tag, "OK NOOP completed.");
		return ERR_OK;
	case IMAP_VERB_id:
		conn_write(p->conn, S("* ID (\"name\" \"Posthorn\")\r\n"));
		reply(p, c->tag, "OK ID completed.");
		return ERR_OK;
	case IMAP_VERB_logout:
		reply(p, STR_EMPTY, "BYE Logging out");
		reply(p, c->tag, "OK Logout completed.");
		p->is_ending = true;
		return ERR_OK;
	case IMAP_VERB_starttls:
		return starttls(p, arena_str(p->arena, c->tag));
	case IMAP_VERB_authenticate:
		authenticate(p, c);
		return ERR_OK;
	case IMAP_VERB_login:
		login(p, c);
		return ERR_OK;
	default:
		bad(p, c->tag, "Not logged in.");
		return ERR_OK;
	}
}

static enum err handle(struct imap_prelogin *p, enum imap_input_step step)
{
	struct imap_command *c = ARENA_NEW(p->arena, struct imap_command);
	const char *wrong;
	enum err err = ERR_OK;
	unsigned before = p->bad;

	if (!c)
		return ERR_NO_MEMORY;
	if (step == IMAP_INPUT_FLOOD) {
		reply(p, STR_EMPTY, "BYE Too much unwanted data.");
		p->is_ending = true;
		return ERR_OK;
	}
	if (step == IMAP_INPUT_MESSAGE) {
		str rest = p->input.text;

		bad(p, str_cut(&rest, ' '), "Not logged in.");
		if (!imap_input_refuse(&p->input))
			return ERR_OK; /* the message is on its way */
	} else if (!p->input.refused) { /* otherwise it was answered already */
		/* Of a line that is too long the beginning is there, for its tag. */
		err = imap_command_parse(p->input.text, p->arena, c, &wrong);
		if (step == IMAP_INPUT_TOO_LONG) {
			err = ERR_SYNTAX;
			wrong = "Command is too long.";
		}
		if (err)
			bad(p, c->tag, wrong ? wrong : "The command needs too much memory");
		else
			err = do_command(p, c);
	}
	if (p->bad == before && !p->input.refused)
		p->bad = 0;
	if (!p->is_handed_over)
		imap_input_next(&p->input);
	return err == ERR_SYNTAX ? ERR_OK : err;
}

/* ---- the fiber ---- */

static enum err begin(struct imap_prelogin *p)
{
	enum err err;

	if (p->is_greeted)
		return ERR_OK;
	p->is_greeted = true;
	if (p->service == IMAP_SERVICE_IMAPS) {
		if (!p->front->tls)
			return ERR_UNSUPPORTED;
		if ((err = tls_accept(p)))
			return err;
	}
	greet(p);
	return ERR_OK;
}

static enum err serve(struct imap_prelogin *p)
{
	enum imap_input_step step;
	enum err err = begin(p);

	while (!err && !p->is_ending) {
		if (p->front->is_stopping) {
			reply(p, STR_EMPTY, "BYE Server shutting down.");
			break;
		}
		conn_set_deadline(p->conn, p->login_by);
		arena_reset(p->arena);
		if (!(err = next_step(p, &step)))
			err = handle(p, step);
	}
	return err;
}

static void run(void *arg)
{
	struct imap_prelogin *p = arg;
	enum err err = ERR_NO_MEMORY;

	if ((p->arena = arena_new(ARENA_BUDGET)))
		err = serve(p);
	arena_free(p->arena);
	p->arena = NULL;
	p->is_running = false;
	if (err == ERR_AGAIN && !p->is_ending) {
		p->is_parked = true;
		conn_set_deadline(p->conn, p->login_by);
		conn_park(p->conn, parked, p);
		return;
	}
	if (err == ERR_TIMEOUT)
		reply(p, STR_EMPTY, "BYE Disconnected for inactivity.");
	if (!p->is_handed_over)
		err = conn_flush(p->conn);
	end(p);
}

static void parked(void *arg, enum err why)
{
	struct imap_prelogin *p = arg;

	p->is_parked = false;
	if (!why) {
		p->is_running = true;
		if (!fiber_spawn(p->front->loop, run, p))
			return;
		reply(p, STR_EMPTY, "BYE [UNAVAILABLE] Too busy.");
	} else if (why == ERR_TIMEOUT) {
		reply(p, STR_EMPTY, "BYE Disconnected for inactivity.");
	}
	end(p);
}
