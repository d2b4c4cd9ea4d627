/* The life of a session: greeting, commands one after the other, parking, the end.
 *
 * A session without a command in progress is parked: no fiber, no buffers. Input wakes on_input, on
 * the loop; it waits there for a whole line, so that a client who sends a byte a minute holds no
 * fiber either, and then spawns `serve`, which runs commands until no further one is there. Replies
 * gather in the connection and go out together when it is parked or waits (RFC 2920 3.2).
 *
 * Invariants: a transaction ends in smtp_transaction_end and nowhere else; whether a command is
 * allowed is read from the table (smtp.def), before its handler runs; a handler replies exactly
 * once, but for DATA (354 first) and LMTP's final replies.
 */
#include "smtp/session_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void on_input(void *arg, enum err why);

const char *smtp_service_name(enum smtp_service service)
{
	static const char *const names[] = {
		[SMTP_SERVICE_SMTP] = "smtp",
		[SMTP_SERVICE_SUBMISSION] = "submission",
		[SMTP_SERVICE_SUBMISSIONS] = "submissions",
		[SMTP_SERVICE_LMTP] = "lmtp",
	};

	return names[service];
}

void smtp_server_init(struct smtp_server *server, struct loop *loop, const struct log *log,
		      struct msgid_source *msgids, const struct conf *conf)
{
	*server = (struct smtp_server){
		.loop = loop, .log = log, .msgids = msgids, .conf = conf, .next_conn = 1
	};
	server->spool.max = SMTP_SPOOL_MAX;
}

/* ---- what handlers use ---- */

/* RFC 5321 4.2: a reply's text is printable; what another role, or a remote server through it, put
 * there need not be. */
static void write_text(struct smtp_session *s, str text)
{
	char clean[480]; /* RFC 5321 4.5.3.1.5: a reply line of 512 */
	size_t n = MIN(text.n, sizeof(clean));

	for (size_t i = 0; i < n; i++)
		clean[i] = text.p[i] >= ' ' && text.p[i] < 0x7f ? text.p[i] : '?';
	conn_write(s->conn, str_of(clean, n));
	conn_write(s->conn, S("\r\n"));
}

void smtp_answer(struct smtp_session *s, struct smtp_answer a)
{
	conn_printf(s->conn, "%u %.*s ", a.code, STR_ARGS(a.status));
	write_text(s, a.text);
}

static PRINTF_LIKE(4, 0) void reply_list(struct smtp_session *s, unsigned code, const char *status,
					 const char *fmt, va_list ap)
{
	char text[480];
	int n = vsnprintf(text, sizeof(text), fmt, ap);

	conn_printf(s->conn, "%u %s ", code, status);
	write_text(s, str_of(text, n < 0 ? 0 : MIN((size_t)n, sizeof(text) - 1)));
}

void smtp_reply(struct smtp_session *s, unsigned code, const char *status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	reply_list(s, code, status, fmt, ap);
	va_end(ap);
}

void smtp_count_error(struct smtp_session *s)
{
	s->errors++;
	/* A client that guesses is slowed down. Waiting costs us a fiber, and it the same time. */
	if (s->errors > SMTP_SOFT_ERROR_LIMIT && !smtp_is_lmtp(s) &&
	    fiber_sleep(s->server->loop, SECONDS(1)))
		s->is_closing = true;
}

void smtp_refuse(struct smtp_session *s, unsigned code, const char *status, const char *fmt, ...)
{
	va_list ap;

	smtp_count_error(s);
	va_start(ap, fmt);
	reply_list(s, code, status, fmt, ap);
	va_end(ap);
}

void smtp_trace(struct smtp_session *s, uint64_t message, enum trace_event event, str sender,
		str recipient, const char *fmt, ...)
{
	char text[768];
	va_list ap;
	int n;

	if (!s->server->hooks.trace)
		return;
	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	s->server->hooks.trace(s->server->hooks.arg, message, event, sender, recipient,
			       str_of(text, n < 0 ? 0 : MIN((size_t)n, sizeof(text) - 1)));
}

int64_t smtp_deadline(const struct smtp_session *s, int seconds)
{
	return loop_now(s->server->loop) + SECONDS(seconds);
}

void smtp_await_client(struct smtp_session *s)
{
	int64_t patience = conf_time_ns(s->server->conf, CONF_smtpd_timeout);

	if (s->server->is_busy)
		patience = MIN(patience, SECONDS(SMTP_STRESS_SECONDS));
	conn_set_deadline(s->conn, loop_now(s->server->loop) + patience);
}

str smtp_client(const struct smtp_session *s, char text[ADDR_TEXT_MAX])
{
	return addr_text(conn_peer(s->conn), text);
}

str smtp_session_service(const struct smtp_session *s)
{
	return str_from_c(smtp_service_name(s->service));
}

void smtp_transaction_end(struct smtp_session *s, bool tell_auth)
{
	struct smtp_transaction *t = s->txn;

	if (s->state != SMTP_STATE_NEW)
		s->state = SMTP_STATE_IDLE;
	if (!t)
		return;
	s->txn = NULL;
	if (tell_auth && t->is_begun)
		(void)!SEND(s->server->auth, auth_reset, .txn = t->id);
	if (t->has_message)
		smtp_message_free(&t->message);
	arena_free(t->arena);
}

/* ---- the end ---- */

static void end(struct smtp_session *s)
{
	struct smtp_server *server = s->server;

	smtp_transaction_end(s, true);
	smtp_logout(s);
	if (s->prev)
		s->prev->next = s->next;
	else
		server->first = s->next;
	if (s->next)
		s->next->prev = s->prev;
	server->sessions--;
	if (server->hooks.ended)
		server->hooks.ended(server->hooks.arg, conn_peer(s->conn));
	conn_free(s->conn);
	arena_free(s->work);
	buf_free(&s->helo);
	buf_free(&s->login);
	free(s);
}

/* Why reading ended: said to the client where it still listens. */
static void end_because(struct smtp_session *s, enum err why)
{
	char client[ADDR_TEXT_MAX];

	if (s->txn)
		smtp_trace(s, s->txn->id, TRACE_CLIENT_LOST, s->txn->sender, STR_EMPTY,
			   "client %.*s: %s", STR_ARGS(smtp_client(s, client)), err_text(why));
	/* RFC 5321 3.8: 421 before closing, for whatever reason. */
	if (why == ERR_TIMEOUT)
		smtp_reply(s, 421, "4.4.2", "Timeout; closing the connection");
	else if (why == ERR_CANCELLED)
		smtp_reply(s, 421, "4.3.2", "The server is shutting down");
	else if (why == ERR_PROTOCOL)
		smtp_reply(s, 421, "4.7.0", "Too much that is no command; closing the connection");
	else if (why == ERR_BUSY || why == ERR_NO_MEMORY)
		smtp_reply(s, 421, "4.3.2", "Too busy; try again later");
	log_debug(s->server->log, "smtp-end", "client=%.*s why=%s",
		  STR_ARGS(smtp_client(s, client)), err_name(why));
	end(s);
}

/* ---- commands ---- */

static smtp_handler *const handlers[SMTP_VERB_COUNT] = {
	[SMTP_HELO] = smtp_do_hello, [SMTP_EHLO] = smtp_do_hello,
	[SMTP_LHLO] = smtp_do_hello, [SMTP_MAIL] = smtp_do_mail,
	[SMTP_RCPT] = smtp_do_rcpt,  [SMTP_DATA] = smtp_do_data,
	[SMTP_BDAT] = smtp_do_bdat,  [SMTP_RSET] = smtp_do_rset,
	[SMTP_NOOP] = smtp_do_noop,  [SMTP_VRFY] = smtp_do_vrfy,
	[SMTP_EXPN] = smtp_do_expn,  [SMTP_HELP] = smtp_do_help,
	[SMTP_AUTH] = smtp_do_auth,  [SMTP_STARTTLS] = smtp_do_starttls,
	[SMTP_QUIT] = smtp_do_quit,
};

static void do_fault(struct smtp_session *s, enum smtp_fault fault, const struct smtp_command *c)
{
	const struct smtp_fault_info *info = smtp_fault_info(fault);
	const char *help = smtp_verb_help(c->verb);
	char client[ADDR_TEXT_MAX];

	if (fault == SMTP_FAULT_NOT_SMTP) {
		smtp_trace(s, 0, TRACE_CLIENT_REFUSED, STR_EMPTY, STR_EMPTY,
			   "%.*s does not speak SMTP", STR_ARGS(smtp_client(s, client)));
		s->is_closing = true;
	}
	/* How many bytes follow is not known, so the next command cannot be found. */
	if (c->verb == SMTP_BDAT)
		s->is_closing = true;
	if (fault == SMTP_FAULT_ARGUMENT && *help)
		smtp_refuse(s, info->code, info->status, "%s: %s", info->text, help);
	else
		smtp_refuse(s, info->code, info->status, "%s", info->text);
}

static void do_line(struct smtp_session *s, str line)
{
	enum smtp_dialect dialect = smtp_is_lmtp(s) ? SMTP_DIALECT_LMTP : SMTP_DIALECT_SMTP;
	struct smtp_command c;
	enum smtp_fault fault =
		smtp_command_parse(line, dialect, s->txn && s->txn->is_utf8, s->work, &c);

	if (fault) {
		do_fault(s, fault, &c);
		return;
	}
	if (!smtp_is_allowed(c.verb, s->state)) {
		if (c.verb == SMTP_BDAT)
			smtp_discard_chunk(s, c.chunk);
		/* RFC 5321 3.3 allows 554 where all recipients were refused; RFC 2033 4.2 wants
		 * 503. */
		smtp_refuse(s,
			    c.verb == SMTP_DATA && s->state == SMTP_STATE_MAIL && !smtp_is_lmtp(s)
				    ? 554
				    : 503,
			    "5.5.1", "%s", smtp_sequence_text(c.verb, s->state));
		return;
	}
	handlers[c.verb](s, &c);
}

static void after_command(struct smtp_session *s)
{
	char client[ADDR_TEXT_MAX];

	arena_reset(s->work);
	if (s->junk > SMTP_JUNK_LIMIT) {
		s->errors++;
		s->junk = 0;
	}
	if (s->is_closing)
		return;
	if (s->errors >= conf_u64(s->server->conf, CONF_smtpd_hard_error_limit) &&
	    !smtp_is_lmtp(s)) {
		smtp_trace(s, 0, TRACE_CLIENT_REFUSED, STR_EMPTY, STR_EMPTY,
			   "%.*s made too many errors", STR_ARGS(smtp_client(s, client)));
		smtp_reply(s, 421, "4.7.0", "Too many errors");
		s->is_closing = true;
	} else if (s->server->is_stopping) {
		smtp_reply(s, 421, "4.3.2", "The server is shutting down");
		s->is_closing = true;
	}
}

static void park(struct smtp_session *s)
{
	s->is_running = false;
	arena_free(s->work);
	s->work = NULL;
	conn_park(s->conn, on_input, s);
}

/* Commands until there is none, in a fiber. */
static void serve(void *arg)
{
	struct smtp_session *s = arg;
	enum err err = s->line_err;
	str line = s->line;

	while (!err || err == ERR_TOO_LONG) {
		if (err)
			smtp_refuse(s, 500, "5.5.2", "Line too long");
		else
			do_line(s, line);
		after_command(s);
		if (s->is_closing || conn_failed(s->conn)) {
			end(s);
			return;
		}
		smtp_await_client(s);
		if ((err = conn_next_line(s->conn, SMTP_AUTH_LINE_MAX, &line)) == ERR_AGAIN) {
			park(s);
			return;
		}
	}
	end_because(s, err);
}

/* Something came for a parked session. */
static void on_input(void *arg, enum err why)
{
	struct smtp_session *s = arg;

	if (!why)
		why = conn_next_line(s->conn, SMTP_AUTH_LINE_MAX, &s->line);
	if (why == ERR_AGAIN) { /* a part of a line: the time for it goes on */
		conn_park(s->conn, on_input, s);
		return;
	}
	s->line_err = why;
	if (why && why != ERR_TOO_LONG) {
		end_because(s, why);
		return;
	}
	s->work = arena_new(SMTP_COMMAND_MEMORY);
	why = s->work ? fiber_spawn(s->server->loop, serve, s) : ERR_NO_MEMORY;
	if (why)
		end_because(s, why);
	else
		s->is_running = true;
}

/* ---- the beginning ---- */

static void greet(struct smtp_session *s)
{
	str name = conf_str(s->server->conf, CONF_myhostname);

	/* RFC 5321 4.2: the name comes first, then ESMTP says that EHLO is known. */
	conn_printf(s->conn, "220 %.*s %s Posthorn\r\n", STR_ARGS(name),
		    smtp_is_lmtp(s) ? "LMTP" : "ESMTP");
	smtp_await_client(s);
	park(s);
}

/* RFC 8314 3.3: TLS before anything else. */
static void begin_tls(void *arg)
{
	struct smtp_session *s = arg;
	char client[ADDR_TEXT_MAX];
	enum err err;

	conn_set_deadline(s->conn, smtp_deadline(s, SMTP_TLS_SECONDS));
	if ((err = conn_tls_accept(s->conn, s->server->tls))) {
		log_info(s->server->log, "tls-failed", "client=%.*s service=submissions why=%s",
			 STR_ARGS(smtp_client(s, client)), err_name(err));
		smtp_trace(s, 0, TRACE_CLIENT_REFUSED, STR_EMPTY, STR_EMPTY, "%.*s: TLS failed: %s",
			   STR_ARGS(smtp_client(s, client)), err_text(err));
		end(s);
		return;
	}
	greet(s);
}

enum err smtp_session_start(struct smtp_server *server, struct conn *conn,
			    enum smtp_service service)
{
	struct smtp_session *s;
	enum err err;

	if (service == SMTP_SERVICE_SUBMISSIONS && !server->tls)
		return ERR_UNSUPPORTED;
	if (!(s = calloc(1, sizeof(*s))))
		return ERR_NO_MEMORY;
	s->server = server;
	s->conn = conn;
	s->service = service;
	s->state = SMTP_STATE_NEW;
	buf_init(&s->helo, SMTP_HELO_MAX);
	buf_init(&s->login, 512);
	if (service == SMTP_SERVICE_SUBMISSIONS &&
	    (err = fiber_spawn(server->loop, begin_tls, s))) {
		free(s);
		return err;
	}
	s->id = server->next_conn++;
	s->is_running = service == SMTP_SERVICE_SUBMISSIONS;
	s->next = server->first;
	if (s->next)
		s->next->prev = s;
	server->first = s;
	server->sessions++;
	if (!s->is_running)
		greet(s);
	return ERR_OK;
}

/* ---- the whole server ---- */

void smtp_server_stop(struct smtp_server *server)
{
	server->is_stopping = true;
	for (struct smtp_session *s = server->first; s; s = s->next)
		if (!s->is_running)
			conn_cancel(s->conn);
}

void smtp_server_cancel(struct smtp_server *server)
{
	server->is_stopping = true;
	for (struct smtp_session *s = server->first; s; s = s->next)
		conn_cancel(s->conn);
}

void smtp_server_auth_lost(struct smtp_server *server)
{
	server->auth_lives++;
	if (server->known)
		smtp_known_clear(server->known);
}
