/* The client's connection: greeting, hello, STARTTLS, login (client_login.c), and its end.
 *
 * A host that does not greet, or does not take our hello, is a host that does not serve us now: the
 * caller tries the next one, and defers when there is none. That holds for 5yz greetings too, as
 * with Postfix (smtp_skip_5xx_greeting): they mostly mean "you, now", and 521 alone says "this host
 * never takes mail" (RFC 7504 3).
 *
 * TLS is opportunistic (RFC 3207, RFC 7435): a server that offers it and then refuses the command
 * is talked to in the clear; when the handshake fails, the connection is of no more use and the
 * caller may come again without TLS. What the server sent before the handshake is dropped by
 * conn_tls_connect, and what it said it can do is forgotten (RFC 3207 4.2).
 *
 * A server that says our own name is ourselves, whatever DNS said, unless the caller knows better:
 * the mail would go round until its Received lines stop it.
 */
#include "smtp/client_priv.h"

#include "store/types.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static const struct {
	const char *words; /* what we wait for */
	size_t time;	   /* in struct smtp_client_times */
} phases[] = {
	[PHASE_GREETING] = { "its greeting", offsetof(struct smtp_client_times, greeting) },
	[PHASE_HELO] = { "its answer to our hello", offsetof(struct smtp_client_times, helo) },
	[PHASE_STARTTLS] = { "its answer to STARTTLS", offsetof(struct smtp_client_times, helo) },
	[PHASE_AUTH] = { "its answer to our login", offsetof(struct smtp_client_times, helo) },
	[PHASE_MAIL] = { "its answer to MAIL", offsetof(struct smtp_client_times, mail) },
	[PHASE_RCPT] = { "its answer to RCPT", offsetof(struct smtp_client_times, rcpt) },
	[PHASE_DATA] = { "its answer to DATA", offsetof(struct smtp_client_times, data) },
	[PHASE_BODY] = { "it to take the message", offsetof(struct smtp_client_times, block) },
	[PHASE_END] = { "its answer to the end of the message",
			offsetof(struct smtp_client_times, end) },
	[PHASE_RSET] = { "its answer to RSET", offsetof(struct smtp_client_times, mail) },
	[PHASE_QUIT] = { "its answer to QUIT", offsetof(struct smtp_client_times, quit) },
};

struct smtp_client_times smtp_client_times(int64_t helo)
{
	return (struct smtp_client_times){
		.greeting = helo, /* RFC 5321 4.5.3.2.1 */
		.helo = helo,
		.mail = SECONDS(300),  /* 4.5.3.2.2 */
		.rcpt = SECONDS(300),  /* 4.5.3.2.3 */
		.data = SECONDS(120),  /* 4.5.3.2.4 */
		.block = SECONDS(180), /* 4.5.3.2.5 */
		.end = SECONDS(600),   /* 4.5.3.2.6 */
		.quit = SECONDS(5),
	};
}

/* ---- results ---- */

str smtp_result_status(const struct smtp_result *r)
{
	return str_of(r->status, r->status_n);
}

str smtp_result_text(const struct smtp_result *r)
{
	return str_of(r->text, r->text_n);
}

static void result_status(struct smtp_result *r, str status)
{
	r->status_n = (uint8_t)MIN(status.n, sizeof(r->status));
	if (r->status_n)
		memcpy(r->status, status.p, r->status_n);
}

void smtp_result_set(struct smtp_result *r, uint8_t state, const char *status, const char *fmt, ...)
{
	char text[SMTP_ANSWER_TEXT_MAX + 1];
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	*r = (struct smtp_result){ .state = state };
	result_status(r, str_from_c(status));
	r->text_n = (uint16_t)smtp_text_clean(str_of(text,
						     n < 0 ? 0 : MIN((size_t)n, sizeof(text) - 1)),
					      r->text, sizeof(r->text));
}

void client_result(const struct smtp_answer *a, struct smtp_result *r)
{
	str text = smtp_answer_text(a);

	*r = (struct smtp_result){ .code = a->code, .text_n = (uint16_t)text.n };
	r->state = smtp_answer_class(a) == 5   ? QUEUE_FAILED
		   : smtp_answer_class(a) == 2 ? QUEUE_SENT
					       : QUEUE_DEFERRED;
	memcpy(r->text, text.p, text.n);
	/* RFC 3463 3: X.0.0 where the server gave none. */
	result_status(r, a->status_n		    ? smtp_answer_status(a)
			 : r->state == QUEUE_FAILED ? S("5.0.0")
			 : r->state == QUEUE_SENT   ? S("2.0.0")
						    : S("4.0.0"));
}

void client_defer(struct smtp_result *r)
{
	r->state = QUEUE_DEFERRED;
	if (r->status_n)
		r->status[0] = '4';
}

void client_lost(const struct smtp_client *c, enum phase phase, enum err err, struct smtp_result *r)
{
	const char *words = phases[phase].words;

	if (err == ERR_TIMEOUT)
		smtp_result_set(r, QUEUE_DEFERRED, "4.4.2", "%.*s took too long: waited for %s",
				STR_ARGS(c->config.server), words);
	else if (err == ERR_PROTOCOL || err == ERR_TOO_LONG)
		smtp_result_set(r, QUEUE_DEFERRED, "4.5.0",
				"what %.*s sent is not SMTP: waited for %s",
				STR_ARGS(c->config.server), words);
	else
		smtp_result_set(r, QUEUE_DEFERRED, "4.4.2",
				"the connection with %.*s broke: waited for %s",
				STR_ARGS(c->config.server), words);
}

/* ---- replies ---- */

void client_deadline(struct smtp_client *c, enum phase phase)
{
	const char *times = (const char *)&c->config.times;
	int64_t time;

	memcpy(&time, times + phases[phase].time, sizeof(time));
	conn_set_deadline(c->conn, loop_now(conn_loop(c->conn)) + time);
}

enum err client_answer(struct smtp_client *c, enum phase phase, struct smtp_answer *a,
		       void (*line)(struct smtp_client *c, unsigned number, str text))
{
	str bytes, text;
	enum err err;

	if (c->is_broken)
		return ERR_CLOSED;
	client_deadline(c, phase);
	smtp_answer_begin(a);
	do {
		err = conn_read_line(c->conn, SMTP_ANSWER_LINE_MAX, &bytes);
		if (!err)
			err = smtp_answer_add(a, bytes, &text);
		if (line && (err == ERR_OK || err == ERR_AGAIN))
			line(c, a->lines - 1u, text);
	} while (err == ERR_AGAIN);
	/* RFC 5321 4.2.1: 3yz asks for more, which only DATA and AUTH can. After it we would be out
	 * of step. */
	if (!err && smtp_answer_class(a) == 3 && phase != PHASE_DATA && phase != PHASE_AUTH)
		err = ERR_PROTOCOL;
	/* RFC 5321 3.8: after 421 the server closes. */
	c->is_broken = err || a->code == 421;
	c->heard = c->heard || !c->is_broken;
	return err;
}

/* ---- opening ---- */

static bool is_our_name(const struct smtp_client *c, str text)
{
	str rest = text, name = str_cut(&rest, ' ');

	return c->config.finds_loops && str_case_eq(name, c->config.hostname);
}

/* RFC 4954 3: AUTH and the mechanisms. */
static void auth_capability(struct smtp_client *c, str mechanisms)
{
	while (mechanisms.n) {
		str one = str_cut(&mechanisms, ' ');

		if (str_case_eq(one, S("PLAIN")))
			c->can |= CAN_AUTH_PLAIN;
		else if (str_case_eq(one, S("LOGIN")))
			c->can |= CAN_AUTH_LOGIN;
	}
}

static void capability_line(struct smtp_client *c, unsigned number, str text)
{
	static const struct {
		str keyword;
		enum capability can;
	} known[] = {
		{ { "PIPELINING", 10 }, CAN_PIPELINING },
		{ { "SIZE", 4 }, CAN_SIZE },
		{ { "8BITMIME", 8 }, CAN_8BITMIME },
		{ { "SMTPUTF8", 8 }, CAN_SMTPUTF8 },
		{ { "DSN", 3 }, CAN_DSN },
		{ { "STARTTLS", 8 }, CAN_STARTTLS },
	};
	str rest = text, keyword = str_cut(&rest, ' ');

	if (!number)
		return;
	if (str_case_eq(keyword, S("AUTH")))
		auth_capability(c, str_trim(rest));
	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		if (!str_case_eq(keyword, known[i].keyword))
			continue;
		c->can |= known[i].can;
		/* RFC 1870 4: SIZE without a number, or with 0, sets no limit. */
		if (known[i].can == CAN_SIZE &&
		    str_to_u64(str_trim(rest), UINT64_MAX, &c->size_limit))
			c->size_limit = 0;
	}
}

/* Our hello. *name_is_ours: the server introduced itself as us. */
static enum err hello(struct smtp_client *c, struct smtp_answer *a, bool *name_is_ours)
{
	enum err err;

	c->can = 0;
	c->size_limit = 0;
	conn_printf(c->conn, "%s %.*s\r\n", c->config.is_lmtp ? "LHLO" : "EHLO",
		    STR_ARGS(c->config.hostname));
	err = client_answer(c, PHASE_HELO, a, capability_line);
	/* RFC 5321 3.2: a server that does not know EHLO is asked with HELO. */
	if (!err && smtp_answer_class(a) == 5 && !c->config.is_lmtp && !c->is_broken) {
		c->can = 0;
		conn_printf(c->conn, "HELO %.*s\r\n", STR_ARGS(c->config.hostname));
		err = client_answer(c, PHASE_HELO, a, NULL);
	}
	*name_is_ours = !err && is_our_name(c, str_from(smtp_answer_text(a), 4));
	return err;
}

/* Everything up to the first MAIL; the hellos before and after TLS alike. */
static enum smtp_open say_hello(struct smtp_client *c, struct smtp_result *why)
{
	struct smtp_answer a;
	bool name_is_ours;
	enum err err = hello(c, &a, &name_is_ours);

	if (err) {
		client_lost(c, PHASE_HELO, err, why);
		return SMTP_OPEN_NEXT;
	}
	if (smtp_answer_class(&a) != 2) {
		client_result(&a, why);
		client_defer(why);
		return SMTP_OPEN_NEXT;
	}
	if (name_is_ours) {
		smtp_result_set(why, QUEUE_FAILED, "5.4.6",
				"the mail loops back to ourselves: %.*s says it is %.*s",
				STR_ARGS(c->config.server), STR_ARGS(c->config.hostname));
		return SMTP_OPEN_FAILED;
	}
	return SMTP_OPEN_OK;
}

static enum smtp_open greeting(struct smtp_client *c, struct smtp_result *why)
{
	struct smtp_answer a;
	enum err err = client_answer(c, PHASE_GREETING, &a, NULL);

	if (err) {
		client_lost(c, PHASE_GREETING, err, why);
		return SMTP_OPEN_NEXT;
	}
	if (smtp_answer_class(&a) == 2)
		return SMTP_OPEN_OK;
	client_result(&a, why);
	/* RFC 7504 3: 521 is "never mail here". */
	if (a.code == 521) {
		if (!a.status_n)
			result_status(why, S("5.1.10"));
		return SMTP_OPEN_FAILED;
	}
	client_defer(why);
	return SMTP_OPEN_NEXT;
}

static enum smtp_open no_tls(struct smtp_client *c, struct smtp_result *why, const char *words)
{
	if (c->config.tls == SMTP_TLS_MAY)
		return SMTP_OPEN_OK;
	smtp_result_set(why, QUEUE_DEFERRED, "4.7.4", "TLS is required, and %.*s %s",
			STR_ARGS(c->config.server), words);
	return SMTP_OPEN_NEXT;
}

static enum smtp_open starttls(struct smtp_client *c, struct smtp_result *why)
{
	struct smtp_answer a;
	enum err err;

	if (c->config.tls == SMTP_TLS_NONE)
		return SMTP_OPEN_OK;
	if (!c->config.tls_context)
		return no_tls(c, why, "cannot be asked for it");
	if (!(c->can & CAN_STARTTLS))
		return no_tls(c, why, "does not offer it");
	conn_write(c->conn, S("STARTTLS\r\n"));
	err = client_answer(c, PHASE_STARTTLS, &a, NULL);
	if (err || c->is_broken) {
		client_lost(c, PHASE_STARTTLS, err, why);
		return c->config.tls == SMTP_TLS_MAY ? SMTP_OPEN_NO_TLS : SMTP_OPEN_NEXT;
	}
	/* RFC 3207 4: 220, or TLS is not to be had. */
	if (a.code != 220)
		return no_tls(c, why, "refuses it");
	client_deadline(c, PHASE_STARTTLS);
	err = conn_tls_connect(c->conn, c->config.tls_context, c->config.tls_name);
	if (err) {
		smtp_result_set(why, QUEUE_DEFERRED, "4.7.5",
				"the TLS handshake with %.*s failed: %s",
				STR_ARGS(c->config.server), err_text(err));
		c->is_broken = true;
		return c->config.tls == SMTP_TLS_MAY ? SMTP_OPEN_NO_TLS : SMTP_OPEN_NEXT;
	}
	/* RFC 3207 4.2: hello again, and nothing from before counts. */
	return say_hello(c, why);
}

enum smtp_open smtp_client_open(struct conn *conn, const struct smtp_client_config *config,
				struct smtp_client **out, struct smtp_result *why)
{
	struct smtp_client *c = calloc(1, sizeof(*c));
	enum smtp_open open;

	if (!c) {
		conn_free(conn);
		smtp_result_set(why, QUEUE_DEFERRED, "4.3.0", "no memory");
		return SMTP_OPEN_NEXT;
	}
	c->conn = conn;
	c->config = *config;
	open = greeting(c, why);
	open = open ? open : say_hello(c, why);
	open = open ? open : starttls(c, why);
	open = open ? open : client_login(c, why);
	if (open) {
		smtp_client_close(c);
		return open;
	}
	*out = c;
	return SMTP_OPEN_OK;
}

/* ---- between transactions, and the end ---- */

bool smtp_client_is_good(const struct smtp_client *c)
{
	return !c->is_broken && !conn_failed(c->conn);
}

bool smtp_client_broke_early(const struct smtp_client *c)
{
	return !c->heard;
}

unsigned smtp_client_transactions(const struct smtp_client *c)
{
	return c->transactions;
}

bool smtp_client_has_tls(const struct smtp_client *c)
{
	return conn_is_tls(c->conn);
}

str smtp_client_tls_text(const struct smtp_client *c)
{
	return conn_tls_text(c->conn);
}

const struct addr *smtp_client_peer(const struct smtp_client *c)
{
	return conn_peer(c->conn);
}

void smtp_client_park(struct smtp_client *c, int64_t until, void (*fn)(void *arg, enum err why),
		      void *arg)
{
	conn_set_deadline(c->conn, until);
	conn_park(c->conn, fn, arg);
}

void smtp_client_unpark(struct smtp_client *c)
{
	conn_unpark(c->conn);
}

void smtp_client_cancel(struct smtp_client *c)
{
	conn_cancel(c->conn);
}

void smtp_client_drop(struct smtp_client *c)
{
	if (smtp_client_is_good(c))
		conn_write(c->conn, S("QUIT\r\n"));
	conn_free(c->conn);
	free(c);
}

void smtp_client_close(struct smtp_client *c)
{
	struct smtp_answer a;

	/* RFC 5321 4.1.1.10: the server answers, then closes. Whatever it says, it is over. */
	if (smtp_client_is_good(c)) {
		conn_write(c->conn, S("QUIT\r\n"));
		if (client_answer(c, PHASE_QUIT, &a, NULL))
			c->is_broken = true;
	}
	c->is_broken = true;
	smtp_client_drop(c);
}
