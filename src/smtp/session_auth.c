/* AUTH (RFC 4954): the exchange is between the client and role `auth`; this process carries it.
 *
 * Passwords are taken under TLS alone, unless disable_plaintext_auth is "no", and on the submission
 * services alone: a server that relays to others for whoever logs in on port 25 is guessed at by
 * every bot that scans it, and no client needs it there.
 *
 * SCRAM's last words are one more challenge, to which the client answers with an empty line (RFC
 * 4954 4): it may still find that the server is not who it claims to be, and cancel.
 */
#include "smtp/session_priv.h"

#include "auth/sasl.h"
#include "store/types.h"
#include "text/base64.h"

enum { AUTH_ROUNDS_MAX = 8 }; /* no mechanism of ours needs more than three */

bool smtp_auth_is_possible(const struct smtp_session *s)
{
	return smtp_is_submission(s) && !s->is_authenticated;
}

bool smtp_auth_is_offered(const struct smtp_session *s)
{
	return smtp_auth_is_possible(s) &&
	       (conn_is_tls(s->conn) || !conf_bool(s->server->conf, CONF_disable_plaintext_auth));
}

/* False when AUTH cannot be had now, which has been answered. */
static bool may_authenticate(struct smtp_session *s, str mechanism)
{
	enum sasl_mechanism known;

	if (s->is_authenticated)
		smtp_refuse(s, 503, "5.5.1", "Authenticated already"); /* RFC 4954 4 */
	else if (!smtp_auth_is_possible(s))
		smtp_refuse(s, 502, "5.5.1", "Authentication is not available on this port");
	else if (!smtp_auth_is_offered(s))
		smtp_refuse(s, 538, "5.7.11", "Must issue a STARTTLS command first");
	else if (sasl_mechanism_find(mechanism, &known))
		smtp_refuse(s, 504, "5.5.4", "Unknown authentication mechanism");
	else
		return true;
	return false;
}

static void write_challenge(struct smtp_session *s, str challenge)
{
	struct buf b;

	buf_init(&b, 2 * SASL_WIRE_MAX);
	base64_encode(challenge, 0, &b);
	conn_printf(s->conn, "334 %.*s\r\n", STR_ARGS(buf_str(&b)));
	buf_free(&b);
}

/* The client's next line, decoded. False: the exchange is over and answered, or the connection
 * gone. */
static bool read_response(struct smtp_session *s, str *response)
{
	str line;
	enum err err;

	smtp_await_client(s);
	err = conn_read_line(s->conn, SMTP_AUTH_LINE_MAX, &line);
	if (err == ERR_TOO_LONG) {
		smtp_refuse(s, 500, "5.5.6", "Authentication exchange line is too long");
		return false;
	}
	if (err) {
		if (err == ERR_TIMEOUT)
			smtp_reply(s, 421, "4.4.2", "Timeout; closing the connection");
		s->is_closing = true;
		return false;
	}
	if (str_eq(line, S("*"))) { /* RFC 4954 4: the client gives up */
		smtp_refuse(s, 501, "5.7.0", "Authentication cancelled");
		return false;
	}
	if (sasl_text_decode(line, false, s->work, response)) {
		smtp_refuse(s, 501, "5.5.2", "Not base64");
		return false;
	}
	return true;
}

void smtp_logout(struct smtp_session *s)
{
	if (s->is_at_auth)
		(void)!SEND(s->server->auth, auth_conn_end, .conn = s->id);
	s->is_at_auth = s->is_authenticated = false;
	buf_clear(&s->login);
}

static enum err ask_first(struct smtp_session *s, const struct smtp_command *c, str initial,
			  struct msg_auth_sasl_reply *r)
{
	char client[ADDR_TEXT_MAX];

	s->is_at_auth = true;
	return CALL(s->server->auth, auth_sasl, auth_sasl_reply, r, s->work,
		    smtp_deadline(s, SMTP_AUTH_SECONDS), .conn = s->id,
		    .service = smtp_session_service(s), .client = smtp_client(s, client),
		    .mechanism = c->argument, .has_initial = c->has_initial, .initial = initial);
}

static void logged_in(struct smtp_session *s, const struct msg_auth_sasl_reply *r)
{
	char client[ADDR_TEXT_MAX];

	s->is_authenticated = true;
	s->auth_life = s->server->auth_lives;
	buf_clear(&s->login);
	buf_add(&s->login, r->address);
	log_info(s->server->log, "smtp-login", "client=%.*s user=<%.*s> tls=%s",
		 STR_ARGS(smtp_client(s, client)), STR_ARGS(r->address),
		 conn_is_tls(s->conn) ? "yes" : "no");
	smtp_reply(s, 235, "2.7.0", "Authentication successful");
}

static void refused(struct smtp_session *s, enum err err, const struct msg_auth_sasl_reply *r)
{
	char client[ADDR_TEXT_MAX];
	str text = r->text.n ? r->text : S("Authentication credentials invalid");

	if (err || r->state != AUTH_SASL_FAILED) {
		smtp_refuse(s, 454, "4.7.0", "Temporary authentication failure");
		return;
	}
	smtp_trace(s, 0, TRACE_LOGIN_REFUSED, r->address, STR_EMPTY, "%.*s on %s: %.*s",
		   STR_ARGS(smtp_client(s, client)), smtp_service_name(s->service), STR_ARGS(text));
	smtp_refuse(s, 535, "5.7.8", "%.*s", STR_ARGS(text));
}

void smtp_do_auth(struct smtp_session *s, const struct smtp_command *c)
{
	struct msg_auth_sasl_reply r = { 0 };
	str response = STR_EMPTY;
	enum err err;

	if (!may_authenticate(s, c->argument))
		return;
	if (c->has_initial && sasl_text_decode(c->initial, true, s->work, &response)) {
		smtp_refuse(s, 501, "5.5.2", "Not base64");
		return;
	}
	err = ask_first(s, c, response, &r);
	for (int round = 0; !err && r.state == AUTH_SASL_CONTINUE && round < AUTH_ROUNDS_MAX;
	     round++) {
		write_challenge(s, r.challenge);
		if (!read_response(s, &response)) {
			smtp_logout(s);
			return;
		}
		err = CALL(s->server->auth, auth_sasl_step, auth_sasl_reply, &r, s->work,
			   smtp_deadline(s, SMTP_AUTH_SECONDS), .conn = s->id,
			   .response = response);
	}
	if (err || r.state != AUTH_SASL_OK) {
		/* After an error auth may still be at it: the next exchange is another one. */
		smtp_logout(s);
		refused(s, err, &r);
		return;
	}
	logged_in(s, &r);
}
