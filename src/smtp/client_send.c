/* A transaction: MAIL, RCPT, DATA, the message, its answers.
 *
 * With PIPELINING (RFC 2920) MAIL, all RCPTs and DATA go out at once and their answers are read in
 * order; without it each waits for the one before. The reading is the same code, so that an answer
 * means the same either way. When pipelining, DATA can be accepted though no recipient was: then an
 * empty message is ended at once, which the server must refuse (RFC 2920 3.1).
 *
 * Who gets which answer: MAIL's refusal all of them, RCPT's its own, DATA's and the dot's those
 * whose RCPT was taken; with LMTP the dot has an answer for each of those (RFC 2033 4.2). When the
 * connection breaks, those without an answer are deferred. Between the dot and its answer nobody
 * can know whether the message arrived (RFC 1047): it is deferred too and may arrive twice, which
 * is better than never.
 *
 * The message is read, encoded and sent in chunks; when reading it fails, the connection is cut off
 * without a dot, so that no half message is taken for a whole one.
 */
#include "smtp/client_priv.h"

#include "smtp/client_wire.h"
#include "store/types.h"

#include <stdlib.h>

struct transaction {
	struct smtp_client *c;
	const struct smtp_client_message *m;
	struct smtp_client_rcpt *rcpts;
	size_t count;
	size_t accepted;
	bool mail_refused;
};

enum { RCPT_ACCEPTED = 255 }; /* smtp_result.state while the dot is to come */

/* Everybody who has no answer yet, or everybody whose RCPT was taken, gets this one. */
static void all(struct transaction *t, uint8_t state, const struct smtp_result *r)
{
	for (size_t i = 0; i < t->count; i++)
		if (t->rcpts[i].result.state == state)
			t->rcpts[i].result = *r;
}

static void everybody(struct transaction *t, const struct smtp_result *r)
{
	all(t, 0, r);
	all(t, RCPT_ACCEPTED, r);
}

static void lost(struct transaction *t, enum phase phase, enum err err)
{
	struct smtp_result r;

	client_lost(t->c, phase, err, &r);
	t->c->is_broken = true;
	everybody(t, &r);
}

/* Addresses and xtext come from parsers; this is the last place where a line end could become a
 * command. */
static bool is_clean(str s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f)
			return false;
	return true;
}

static bool is_ready(struct transaction *t)
{
	struct smtp_client *c = t->c;
	struct smtp_result r = { 0 };
	bool clean = is_clean(t->m->sender) && is_clean(t->m->envid);

	for (size_t i = 0; i < t->count; i++)
		clean = clean && is_clean(t->rcpts[i].address) && is_clean(t->rcpts[i].orcpt) &&
			t->rcpts[i].address.n;
	if (!clean)
		smtp_result_set(&r, QUEUE_FAILED, "5.1.3",
				"an address has characters that cannot be sent");
	/* RFC 1870 6.1: a message that is too large need not be tried. */
	else if (c->size_limit && t->m->size > c->size_limit)
		smtp_result_set(&r, QUEUE_FAILED, "5.3.4",
				"the message has %llu bytes, and %.*s takes %llu at most",
				(unsigned long long)t->m->size, STR_ARGS(c->config.server),
				(unsigned long long)c->size_limit);
	/* RFC 6531 3.5: it must not be sent. */
	else if (t->m->needs_utf8 && !(c->can & CAN_SMTPUTF8))
		smtp_result_set(&r, QUEUE_FAILED, "5.6.7",
				"the message needs SMTPUTF8, and %.*s does not offer it",
				STR_ARGS(c->config.server));
	else
		return true;
	everybody(t, &r);
	c->heard = true;
	return false;
}

/* ---- commands ---- */

static void write_mail(struct transaction *t)
{
	struct smtp_client *c = t->c;

	conn_printf(c->conn, "MAIL FROM:<%.*s>", STR_ARGS(t->m->sender));
	if (c->can & CAN_SIZE)
		conn_printf(c->conn, " SIZE=%llu", (unsigned long long)t->m->size);
	if ((c->can & CAN_8BITMIME) && t->m->body_type)
		conn_write(c->conn, S(" BODY=8BITMIME"));
	if (t->m->needs_utf8)
		conn_write(c->conn, S(" SMTPUTF8"));
	if ((c->can & CAN_DSN) && t->m->ret)
		conn_printf(c->conn, " RET=%s", t->m->ret == 1 ? "FULL" : "HDRS");
	if ((c->can & CAN_DSN) && t->m->envid.n)
		conn_printf(c->conn, " ENVID=%.*s", STR_ARGS(t->m->envid));
	conn_write(c->conn, S("\r\n"));
}

static void write_notify(struct conn *conn, unsigned notify)
{
	static const char *const words[] = { "NEVER", "SUCCESS", "FAILURE", "DELAY" };
	const char *before = " NOTIFY=";

	/* RFC 3461 4.1: NEVER stands alone. */
	if (notify & 1)
		notify = 1;
	for (unsigned i = 0; i < 4; i++) {
		if (!(notify & 1u << i))
			continue;
		conn_printf(conn, "%s%s", before, words[i]);
		before = ",";
	}
}

static void write_rcpt(struct transaction *t, const struct smtp_client_rcpt *r)
{
	struct smtp_client *c = t->c;

	conn_printf(c->conn, "RCPT TO:<%.*s>", STR_ARGS(r->address));
	if (c->can & CAN_DSN) {
		write_notify(c->conn, r->notify);
		if (r->orcpt.n)
			conn_printf(c->conn, " ORCPT=%.*s", STR_ARGS(r->orcpt));
	}
	conn_write(c->conn, S("\r\n"));
}

/* ---- answers; false when the connection is out of step ---- */

static bool read_mail(struct transaction *t)
{
	struct smtp_answer a;
	struct smtp_result r;
	enum err err = client_answer(t->c, PHASE_MAIL, &a, NULL);

	if (err) {
		lost(t, PHASE_MAIL, err);
		return false;
	}
	t->c->needs_reset = true;
	if (smtp_answer_class(&a) == 2)
		return true;
	t->mail_refused = true;
	client_result(&a, &r);
	everybody(t, &r);
	return true;
}

static bool read_rcpt(struct transaction *t, struct smtp_client_rcpt *rcpt)
{
	struct smtp_answer a;
	enum err err = client_answer(t->c, PHASE_RCPT, &a, NULL);

	if (err) {
		lost(t, PHASE_RCPT, err);
		return false;
	}
	if (t->mail_refused)
		return true;
	client_result(&a, &rcpt->result);
	rcpt->result.is_rcpt = true;
	/* RFC 5321 4.5.3.1.10: "too many recipients" was once 552; to be taken as 452. */
	if (a.code == 552)
		client_defer(&rcpt->result);
	if (rcpt->result.state == QUEUE_SENT) {
		rcpt->result.state = RCPT_ACCEPTED;
		t->accepted++;
	}
	return true;
}

/* *go: the server waits for the message. */
static bool read_data(struct transaction *t, bool *go)
{
	struct smtp_answer a;
	struct smtp_result r;
	enum err err = client_answer(t->c, PHASE_DATA, &a, NULL);

	*go = false;
	if (err) {
		lost(t, PHASE_DATA, err);
		return false;
	}
	*go = a.code == 354;
	if (*go)
		return true;
	/* Success is no answer to DATA: we would not know where we are. */
	if (smtp_answer_class(&a) < 4) {
		lost(t, PHASE_DATA, ERR_PROTOCOL);
		return false;
	}
	client_result(&a, &r);
	all(t, RCPT_ACCEPTED, &r);
	return true;
}

/* ---- the message ---- */

static enum err send_body(struct transaction *t)
{
	struct smtp_wire wire;
	struct buf out;
	char *chunk = malloc(SMTP_CLIENT_CHUNK);
	size_t n = 0;
	enum err err = ERR_NO_MEMORY;

	buf_init(&out, SMTP_WIRE_OUT_MAX(SMTP_CLIENT_CHUNK));
	/* RFC 6152 3: without 8BITMIME the message must be converted. */
	if (!chunk || smtp_wire_begin(&wire, !(t->c->can & CAN_8BITMIME)))
		goto out;
	do {
		err = t->m->read(t->m->arg, chunk, SMTP_CLIENT_CHUNK, &n);
		if (err) {
			err = ERR_IO;
			break;
		}
		if (n)
			smtp_wire_add(&wire, str_of(chunk, n), &out);
		else
			smtp_wire_end(&wire, &out);
		if (buf_failed(&out)) {
			err = ERR_NO_MEMORY;
			break;
		}
		client_deadline(t->c, PHASE_BODY);
		err = conn_write_wait(t->c->conn, buf_str(&out));
		buf_clear(&out);
	} while (!err && n);
	smtp_wire_free(&wire);
out:
	free(chunk);
	buf_free(&out);
	return err;
}

/* The message did not go out whole. A server that cut us off may have said why. */
static void body_failed(struct transaction *t, enum err err)
{
	struct smtp_answer a;
	struct smtp_result r;

	if (err == ERR_IO || err == ERR_NO_MEMORY) {
		smtp_result_set(&r, QUEUE_DEFERRED, "4.3.0",
				"the stored message could not be read");
		everybody(t, &r);
		t->c->is_broken = true;
		return;
	}
	if (err != ERR_TIMEOUT && !client_answer(t->c, PHASE_QUIT, &a, NULL) &&
	    smtp_answer_class(&a) >= 4) {
		client_result(&a, &r);
		everybody(t, &r);
		t->c->is_broken = true;
		return;
	}
	lost(t, PHASE_BODY, err);
}

static void end_lost(struct transaction *t, enum err err)
{
	struct smtp_result r;

	client_lost(t->c, PHASE_END, err, &r);
	/* RFC 1047 */
	r.may_have_arrived = true;
	everybody(t, &r);
	t->c->is_broken = true;
}

static void end_result(struct transaction *t, const struct smtp_answer *a, struct smtp_result *r)
{
	client_result(a, r);
	r->dsn_passed = r->state == QUEUE_SENT && (t->c->can & CAN_DSN);
	/* RFC 5321 4.1.1.4: the dot ends the transaction, whatever comes of it. */
	t->c->needs_reset = false;
}

static void read_end(struct transaction *t)
{
	struct smtp_answer a;
	struct smtp_result r;
	enum err err = ERR_OK;

	for (size_t i = 0; i < t->count; i++) {
		if (t->rcpts[i].result.state != RCPT_ACCEPTED)
			continue;
		err = client_answer(t->c, PHASE_END, &a, NULL);
		if (err) {
			end_lost(t, err);
			return;
		}
		end_result(t, &a, &r);
		/* RFC 2033 4.2: LMTP answers for each recipient; SMTP once. */
		if (!t->c->config.is_lmtp) {
			all(t, RCPT_ACCEPTED, &r);
			return;
		}
		t->rcpts[i].result = r;
	}
}

/* DATA was taken though there is nobody to send to. */
static void end_empty(struct transaction *t)
{
	struct smtp_answer a;

	conn_write(t->c->conn, S(".\r\n"));
	/* RFC 2033 4.2: with LMTP there are as many answers as recipients: none. */
	if (!t->c->config.is_lmtp && client_answer(t->c, PHASE_END, &a, NULL))
		t->c->is_broken = true;
}

static void data(struct transaction *t, bool was_pipelined)
{
	enum err err;
	bool go;

	if (!was_pipelined) {
		if (!t->accepted || t->c->is_broken)
			return;
		conn_write(t->c->conn, S("DATA\r\n"));
	}
	if (!read_data(t, &go) || !go)
		return;
	if (!t->accepted) {
		end_empty(t);
		return;
	}
	err = send_body(t);
	if (err)
		body_failed(t, err);
	else
		read_end(t);
}

static void commands(struct transaction *t)
{
	bool pipelining = t->c->can & CAN_PIPELINING;

	write_mail(t);
	if (!pipelining && (!read_mail(t) || t->mail_refused || t->c->is_broken))
		return;
	for (size_t i = 0; i < t->count; i++) {
		write_rcpt(t, &t->rcpts[i]);
		if (!pipelining && (!read_rcpt(t, &t->rcpts[i]) || t->c->is_broken))
			return;
	}
	if (pipelining) {
		conn_write(t->c->conn, S("DATA\r\n"));
		if (!read_mail(t))
			return;
		for (size_t i = 0; i < t->count; i++)
			if (!read_rcpt(t, &t->rcpts[i]))
				return;
	}
	data(t, pipelining);
}

/* What the transaction before left open is closed before this one begins. */
static bool reset(struct transaction *t)
{
	struct smtp_answer a;
	enum err err;

	if (!t->c->needs_reset)
		return true;
	conn_write(t->c->conn, S("RSET\r\n"));
	err = client_answer(t->c, PHASE_RSET, &a, NULL);
	t->c->heard = false;
	if (!err && smtp_answer_class(&a) == 2) {
		t->c->needs_reset = false;
		return true;
	}
	lost(t, PHASE_RSET, err ? err : ERR_CLOSED);
	return false;
}

void smtp_client_send(struct smtp_client *c, const struct smtp_client_message *m,
		      struct smtp_client_rcpt *rcpts, size_t count)
{
	struct transaction t = { .c = c, .m = m, .rcpts = rcpts, .count = count };

	for (size_t i = 0; i < count; i++)
		rcpts[i].result = (struct smtp_result){ 0 };
	c->heard = false;
	if (is_ready(&t) && reset(&t))
		commands(&t);
	c->transactions++;
	/* An early end (421, no more commands) leaves some without an answer of their own. */
	if (c->is_broken)
		lost(&t, PHASE_RCPT, ERR_CLOSED);
}
