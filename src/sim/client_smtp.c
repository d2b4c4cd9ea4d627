/* Those who send mail: over SMTP to mailboxes here, over LMTP, and over submission with a login, to
 * mailboxes here, to the remote host, and to both.
 *
 * They behave as clients do on a bad day: they leave in the middle of a message, do not wait for
 * the answer to their final dot, and send again what they had no answer for (RFC 1047). Each
 * transaction is entered in the ledger before its first byte goes out, and its state is set before
 * the byte that completes it: whatever the server does with it, the ledger knew first.
 */
#include "net/conn.h"
#include "sim/world.h"
#include "text/base64.h"

#include <stdio.h>
#include <stdlib.h>

enum { SMTP_LINE = 2000, BODY_MAX = 4 * 1024 * 1024 };

enum service { SERVICE_SMTP, SERVICE_LMTP, SERVICE_SUBMISSION };

struct smtp {
	struct client *client;
	struct conn *conn;
	enum service service;
	struct account_model *login; /* submission's */
	struct buf text, wire;
	char last[200];	    /* the last reply's last line */
	const char *notify; /* behind the address; RFC 3461 4.1 */
};

/* The code of one reply, 0 when the connection is gone. */
static unsigned reply_read(struct smtp *s)
{
	uint64_t code;
	str line;

	do {
		if (conn_read_line(s->conn, SMTP_LINE, &line))
			return 0;
		if (line.n < 3 || str_to_u64(str_head(line, 3), 599, &code) || code < 200) {
			world_violation(s->client->world, "%s: a reply that is none: %.*s",
					s->client->name, STR_ARGS(line));
			return 0;
		}
	} while (line.n > 3 && line.p[3] == '-');
	snprintf(s->last, sizeof(s->last), "%.*s", STR_ARGS(line));
	return (unsigned)code;
}

static unsigned ask(struct smtp *s, const char *fmt, const char *arg)
{
	/* Only formats of this file come here. */
	if (arg)
		conn_printf(s->conn, "%s<%s>%s\r\n", fmt, arg, s->notify);
	else
		conn_printf(s->conn, "%s\r\n", fmt);
	return reply_read(s);
}

/* What must not be refused, was. */
static void refused(struct smtp *s, const char *what, unsigned code)
{
	struct world *w = s->client->world;

	if (code >= 500 || (code >= 400 && world_is_calm(w, loop_now(s->client->loop))))
		world_violation(w, "%s: %s was refused for no reason: %s", s->client->name, what,
				s->last);
}

/* Sends the RCPT. False: it was not taken. */
static bool rcpt_ask(struct smtp *s, struct send *m, const char *address, bool asks)
{
	unsigned code;

	s->notify = asks ? " NOTIFY=SUCCESS,FAILURE" : "";
	code = ask(s, "RCPT TO:", address);
	s->notify = "";
	if (code / 100 == 2)
		m->commands++;
	else if (code)
		refused(s, address, code);
	return code / 100 == 2;
}

/* Who sends may ask to be told: the notice comes to a mailbox here. */
static bool asks(struct smtp *s)
{
	return s->login && chance_in(&s->client->chance, 4);
}

static void local_add(struct send *m, const struct world *w, unsigned account, unsigned command)
{
	struct send_rcpt *r = &m->rcpts[m->n++];

	*r = (struct send_rcpt){ .is_local = true, .account = account, .command = command };
	snprintf(r->address, sizeof(r->address), "%s", w->accounts[account].address);
}

static bool has_account(const struct send *m, unsigned account)
{
	for (unsigned i = 0; i < m->n; i++)
		if (m->rcpts[i].is_local && m->rcpts[i].account == account)
			return true;
	return false;
}

/* One of ours. One that is there already is named again: it must get the message once. */
static void rcpt_local(struct smtp *s, struct send *m, unsigned account)
{
	struct world *w = s->client->world;
	bool is_new = !has_account(m, account), will_ask = is_new && asks(s);

	if (!is_new && chance_in(&s->client->chance, 2))
		return;
	if (!rcpt_ask(s, m, w->accounts[account].address, will_ask) || !is_new)
		return;
	local_add(m, w, account, m->commands - 1);
	m->rcpts[m->n - 1].asks = will_ask;
}

static void rcpt_remote(struct smtp *s, struct send *m)
{
	struct client *c = s->client;
	struct send_rcpt *r = &m->rcpts[m->n];

	*r = (struct send_rcpt){ .asks = asks(s), .command = m->commands };
	snprintf(r->address, sizeof(r->address), "r-%llu-%u@%s.remote.example",
		 (unsigned long long)m->id, m->n, chance_in(&c->chance, 2) ? "a" : "b");
	m->n += rcpt_ask(s, m, r->address, r->asks);
}

/* One RCPT, several recipients, here and there. */
static void rcpt_alias(struct smtp *s, struct send *m)
{
	bool will_ask = asks(s);

	if (!rcpt_ask(s, m, WORLD_ALIAS, will_ask))
		return;
	m->alias_asks = will_ask;
	for (unsigned i = 0; i < WORLD_TEAM; i++)
		local_add(m, s->client->world, i, m->commands - 1);
	m->rcpts[m->n] = (struct send_rcpt){ .command = m->commands - 1 };
	snprintf(m->rcpts[m->n].address, sizeof(m->rcpts[m->n].address), "%s", WORLD_LIST);
	m->n++;
}

static void rcpt_add(struct smtp *s, struct send *m)
{
	struct chance *c = &s->client->chance;

	if (s->service == SERVICE_SUBMISSION && chance_in(c, 2))
		rcpt_remote(s, m);
	else
		rcpt_local(s, m, chance_below(c, WORLD_ACCOUNTS));
}

/* An address that does not exist is refused, whatever else is going on, and never for good when
 * the server cannot know. */
static void rcpt_unknown(struct smtp *s)
{
	unsigned code = ask(s, "RCPT TO:", "nobody-here@example.test");

	if (code / 100 == 2)
		world_violation(s->client->world, "%s: mail for nobody is taken", s->client->name);
}

static struct send *envelope(struct smtp *s, uint64_t again)
{
	struct client *c = s->client;
	struct send *m = world_send_new(c->world);
	const struct send *before = world_send(c->world, again);
	unsigned code, tries = 1 + chance_below(&c->chance, 4);

	m->again = again;
	m->is_lmtp = s->service == SERVICE_LMTP;
	m->size = chance_in(&c->chance, 80)  ? 60000 + chance_below(&c->chance, 90000)
		  : chance_in(&c->chance, 4) ? 8000
					     : 300 + chance_below(&c->chance, 1500);
	if (s->login)
		snprintf(m->sender, sizeof(m->sender), "%s", s->login->address);
	else if (!chance_in(&c->chance, 8))
		snprintf(m->sender, sizeof(m->sender), "ext%llu@remote.example",
			 (unsigned long long)m->id);
	code = ask(s, "MAIL FROM:", m->sender);
	if (code / 100 != 2) {
		refused(s, "MAIL", code);
		return NULL;
	}
	if (chance_in(&c->chance, 10))
		rcpt_unknown(s);
	for (unsigned i = 0; before && i < before->n; i++)
		if (before->rcpts[i].is_local && !conn_failed(s->conn))
			rcpt_local(s, m, before->rcpts[i].account);
	if (!before && s->login && chance_in(&c->chance, 6))
		rcpt_alias(s, m);
	while (!before && tries-- && m->n < WORLD_RCPTS && !conn_failed(s->conn))
		rcpt_add(s, m);
	if (!m->n)
		(void)ask(s, "RSET", NULL);
	return m->n ? m : NULL;
}

/* RFC 5321 4.5.2. */
static void dot_stuff(struct buf *out, str text)
{
	while (text.n) {
		str line = str_cut_line(&text);

		if (line.n && line.p[0] == '.')
			buf_add_char(out, '.');
		buf_add(out, line);
		buf_add(out, S("\r\n"));
	}
}

static void state_set(struct send *m, enum send_state state)
{
	m->state = state;
	for (unsigned i = 0; i < m->n; i++)
		m->rcpts[i].state = state;
}

/* Everything up to the final byte; false when the client left before it, or DATA was refused. */
static bool content_send(struct smtp *s, struct send *m)
{
	struct client *c = s->client;
	bool by_bdat = chance_in(&c->chance, 5); /* RFC 3030 */
	str last = S(".\r\n");
	unsigned code;

	text_send(c->world, &s->text, m);
	buf_clear(&s->wire);
	if (by_bdat) {
		str text = buf_str(&s->text);

		last = str_from(text, text.n - 1);
		buf_printf(&s->wire, "BDAT %zu LAST\r\n", text.n);
		buf_add(&s->wire, str_head(text, text.n - 1));
	} else {
		code = ask(s, "DATA", NULL);
		if (code != 354) {
			refused(s, "DATA", code);
			return false;
		}
		dot_stuff(&s->wire, buf_str(&s->text));
	}
	if (chance_in(&c->chance, 25)) {
		str part = str_head(buf_str(&s->wire),
				    chance_below(&c->chance, (unsigned)buf_len(&s->wire)));

		world_note(c->world, c->name, "s%llu: leaves after %zu bytes",
			   (unsigned long long)m->id, part.n);
		if (conn_write_wait(s->conn, part) || conn_flush(s->conn))
			return false;
		conn_cancel(s->conn);
		return false;
	}
	if (conn_write_wait(s->conn, buf_str(&s->wire)))
		return false;
	if (chance_in(&c->chance, 2) && conn_flush(s->conn))
		return false;
	state_set(m, SEND_WAITING);
	conn_write(s->conn, last);
	return true;
}

/* The answer to the nth RCPT that was taken (LMTP), or to all. False: the connection went before
 * it.
 */
static bool answer_read(struct smtp *s, struct send *m, unsigned n)
{
	struct client *c = s->client;
	unsigned code = reply_read(s);
	enum send_state state = code / 100 == 2	  ? SEND_ACKED
				: code / 100 == 4 ? SEND_DEFERRED
				: code		  ? SEND_REFUSED
						  : SEND_UNKNOWN;

	for (unsigned i = 0; i < m->n; i++)
		if (!m->is_lmtp || m->rcpts[i].command == n || (!code && m->rcpts[i].command > n))
			world_answered(c->world, m, i, state, loop_now(c->loop));
	m->state = state;
	world_note(c->world, c->name, "s%llu: %s", (unsigned long long)m->id,
		   code ? s->last : "no answer");
	if (code >= 400)
		refused(s, "a message", code);
	return code != 0;
}

/* One message. True when the connection goes on. *again: what had no answer. */
static bool transaction(struct smtp *s, uint64_t *again)
{
	struct client *c = s->client;
	struct send *m = envelope(s, *again);

	if (conn_failed(s->conn))
		return false;
	if (!m)
		return true;
	world_note(c->world, c->name, "s%llu from <%s> to %u, first %s, %u bytes",
		   (unsigned long long)m->id, m->sender, m->n, m->rcpts[0].address, m->size);
	m->kills = c->world->kills;
	c->world->counts.operations++;
	if (!content_send(s, m))
		return false;
	if (chance_in(&c->chance, 30)) {
		/* Leaves without the answer. */
		state_set(m, SEND_UNKNOWN);
		if (conn_flush(s->conn) == ERR_OK)
			*again = m->id;
		return false;
	}
	*again = 0;
	for (unsigned i = 0; i < (m->is_lmtp ? m->commands : 1); i++)
		if (!answer_read(s, m, i)) {
			*again = m->id;
			return false;
		}
	return true;
}

static void base64_add(struct smtp *s, const char *text)
{
	buf_clear(&s->wire);
	base64_encode(str_from_c(text), 0, &s->wire);
	conn_write(s->conn, buf_str(&s->wire));
}

static bool login(struct smtp *s)
{
	struct client *c = s->client;
	unsigned code;

	s->login = &c->world->accounts[chance_below(&c->chance, WORLD_ACCOUNTS)];
	code = ask(s, "AUTH LOGIN", NULL);
	if (code == 334) {
		base64_add(s, s->login->address);
		code = ask(s, "", NULL);
	}
	if (code == 334) {
		base64_add(s, s->login->password);
		code = ask(s, "", NULL);
	}
	c->world->counts.logins += code == 235;
	if (code && code != 235)
		refused(s, "a login", code);
	return code == 235;
}

static void connection(struct smtp *s, uint64_t *again)
{
	struct client *c = s->client;
	unsigned n = 1 + chance_below(&c->chance, 5), code = reply_read(s);

	s->login = NULL;
	if (code != 220) {
		refused(s, "a connection", code);
		return;
	}
	code = ask(s,
		   s->service == SERVICE_LMTP ? "LHLO client.sim.example"
					      : "EHLO client.sim.example",
		   NULL);
	if (code != 250) {
		refused(s, "EHLO", code);
		return;
	}
	if (s->service == SERVICE_SUBMISSION && !login(s))
		return;
	while (n-- && !c->world->is_kind)
		if (!transaction(s, again))
			return;
	if (!chance_in(&c->chance, 4))
		(void)ask(s, "QUIT", NULL);
}

void client_smtp_run(struct client *c)
{
	struct smtp s = { .client = c, .notify = "" };
	const struct addr *to;
	uint64_t again = 0;

	buf_init(&s.text, BODY_MAX);
	buf_init(&s.wire, BODY_MAX);
	while (client_sleep(c, chance_below(&c->chance, 400))) {
		if (c->world->is_kind)
			continue;
		s.service = (enum service)chance_below(&c->chance, 3);
		to = s.service == SERVICE_SMTP	 ? &c->world->at.smtp
		     : s.service == SERVICE_LMTP ? &c->world->at.lmtp
						 : &c->world->at.submission;
		if (!(s.conn = client_connect(c, to)))
			continue;
		if (!chance_in(&c->chance, 2))
			again = 0;
		connection(&s, &again);
		conn_free(s.conn);
	}
	buf_free(&s.text);
	buf_free(&s.wire);
}
