/* DATA (RFC 5321 4.1.1.4) and BDAT (RFC 3030): the bytes of a message.
 *
 * A message that will be refused is read to its end all the same, into nothing: the client is told
 * then, and the next command is found where it is. What is read so is bounded; past that the
 * connection is closed.
 *
 * With BDAT a chunk's bytes follow the command whatever we think of it, so every refusal of BDAT
 * first reads them. A chunk that fails ends the transaction; chunks that were pipelined behind it
 * then get 503.
 */
#include "smtp/received.h"
#include "smtp/session_priv.h"

enum { CHUNK_PIECE = 64 * 1024 };

/* ---- gathering ---- */

static struct date date_now(void)
{
	int64_t now = os_wall_us();

	return (struct date){ .seconds = now / 1000000, .zone = (int16_t)os_zone_minutes(now) };
}

static void begin_message(struct smtp_session *s, bool dots)
{
	struct smtp_transaction *t = s->txn;
	str myhostname = conf_str(s->server->conf, CONF_myhostname);
	char id[MSGID_TEXT + 1];
	struct smtp_received r = { .helo = buf_str(&s->helo),
				   .client = conn_peer(s->conn),
				   .myhostname = myhostname,
				   .is_lmtp = smtp_is_lmtp(s),
				   .is_extended = s->is_extended,
				   .is_utf8 = t->is_utf8,
				   .is_tls = conn_is_tls(s->conn),
				   .is_authenticated = s->is_authenticated,
				   .tls = conn_tls_text(s->conn),
				   .id = msgid_text(t->id, id),
				   .recipient = t->count == 1 ? t->first->address : STR_EMPTY,
				   .date = date_now() };

	smtp_data_init(&t->data, dots);
	smtp_message_init(&t->message, &s->server->spool);
	t->has_message = true;
	smtp_received_write(&r, &t->message.memory);
	if (smtp_is_submission(s))
		t->fix = (struct smtp_fix){ .date = r.date,
					    .message_id = arena_printf(t->arena, "%s.%08x@%.*s", id,
								       (unsigned)os_random_u64(),
								       STR_ARGS(myhostname)),
					    .from = t->sender };
	smtp_message_begin(&t->message, smtp_is_submission(s) ? &t->fix : NULL);
}

static void refuse_rest(struct smtp_transaction *t, uint16_t code, str status, str text)
{
	if (!t->refusal.code)
		t->refusal = (struct smtp_answer){ code, status, text };
}

static void check_faults(struct smtp_transaction *t)
{
	const char *status, *text;
	uint16_t code;

	if ((text = smtp_data_fault_text(&t->data, &code, &status)))
		refuse_rest(t, code, str_from_c(status), str_from_c(text));
}

static void settle(struct smtp_session *s)
{
	struct smtp_transaction *t = s->txn;
	struct smtp_message *m = &t->message;
	enum err err = smtp_message_settle(m);

	if (err == ERR_TOO_LONG)
		refuse_rest(t, 552, S("5.3.4"), S("The message's header is too large"));
	else if (err == ERR_FULL || err == ERR_NO_MEMORY)
		refuse_rest(t, 452, S("4.3.1"),
			    S("Too many large messages at once; try again later"));
	else if (err)
		refuse_rest(t, 451, S("4.3.0"), S("Cannot take the message now; try again later"));
	else if (smtp_message_size(m) - m->ours >
		 conf_size(s->server->conf, CONF_message_size_limit))
		refuse_rest(t, 552, S("5.3.4"), S("The message is larger than the limit"));
}

/* Takes input; how much of it. */
static size_t feed(struct smtp_session *s, str in)
{
	struct smtp_transaction *t = s->txn;
	size_t used = smtp_data_decode(&t->data, in, &t->message.memory);

	check_faults(t);
	if (!t->refusal.code)
		settle(s);
	if (t->refusal.code) {
		t->discarded += used;
		buf_clear(&t->message.memory);
	}
	return used;
}

static uint64_t discard_limit(const struct smtp_session *s)
{
	return MAX(conf_size(s->server->conf, CONF_message_size_limit), SMTP_DISCARD_MIN);
}

/* More than anybody sends who has seen our SIZE: false, and the connection is being closed. */
static bool goes_on(struct smtp_session *s)
{
	if (s->txn->discarded <= discard_limit(s))
		return true;
	smtp_refuse_message(s, s->txn->refusal);
	s->is_closing = true;
	return false;
}

/* The connection ended within a message, which is thereby gone (RFC 5321 4.1.1.4). */
static void lost(struct smtp_session *s, enum err why)
{
	struct smtp_transaction *t = s->txn;
	char client[ADDR_TEXT_MAX];

	smtp_trace(s, t->id, TRACE_CLIENT_LOST, t->sender, STR_EMPTY,
		   "client %.*s, in the message: %s", STR_ARGS(smtp_client(s, client)),
		   err_text(why));
	smtp_transaction_end(s, true);
	if (why == ERR_TIMEOUT)
		smtp_reply(s, 421, "4.4.2", "Timeout; closing the connection");
	else if (why == ERR_CANCELLED)
		smtp_reply(s, 421, "4.3.2", "The server is shutting down");
	s->is_closing = true;
}

static void message_is_whole(struct smtp_session *s)
{
	struct smtp_transaction *t = s->txn;

	if (!t->refusal.code && smtp_message_finish(&t->message))
		refuse_rest(t, 451, S("4.3.0"), S("Cannot take the message now; try again later"));
	if (!t->refusal.code && t->message.hops > SMTP_HOPS_MAX)
		refuse_rest(t, 554, S("5.4.6"), S("Too many hops: the message goes in a circle"));
	if (t->refusal.code)
		smtp_refuse_message(s, t->refusal);
	else
		smtp_commit(s);
}

/* ---- DATA ---- */

void smtp_do_data(struct smtp_session *s, const struct smtp_command *c)
{
	struct smtp_transaction *t = s->txn;
	enum err err;

	(void)c;
	s->junk = 0;
	begin_message(s, true);
	conn_write(s->conn, S("354 End data with <CR><LF>.<CR><LF>\r\n"));
	while (!t->data.is_done) {
		str in = conn_pending(s->conn);

		smtp_await_client(s);
		if (in.n) {
			conn_take(s->conn, feed(s, in));
		} else if ((err = conn_read_some(s->conn, 1, &in))) {
			lost(s, err);
			return;
		} else {
			/* Where the message ends is not known before it is read, and what follows
			 * is the next command's: so one byte is waited for, and the rest is looked
			 * at where it lies. */
			(void)feed(s, in);
		}
		if (!goes_on(s))
			return;
	}
	message_is_whole(s);
}

/* ---- BDAT ---- */

void smtp_discard_chunk(struct smtp_session *s, uint64_t n)
{
	str in;

	if (n > discard_limit(s)) {
		s->is_closing = true;
		return;
	}
	while (n && !s->is_closing) {
		smtp_await_client(s);
		if (conn_read_some(s->conn, (size_t)MIN(n, CHUNK_PIECE), &in))
			s->is_closing = true;
		n -= in.n;
	}
}

/* The chunk's bytes into the message: false when the connection is done for. */
static bool read_chunk(struct smtp_session *s, uint64_t n)
{
	enum err err;
	str in;

	while (n) {
		smtp_await_client(s);
		if ((err = conn_read_some(s->conn, (size_t)MIN(n, CHUNK_PIECE), &in))) {
			lost(s, err);
			return false;
		}
		n -= in.n;
		(void)feed(s, in);
		if (!goes_on(s))
			return false;
	}
	return true;
}

void smtp_do_bdat(struct smtp_session *s, const struct smtp_command *c)
{
	struct smtp_transaction *t = s->txn;

	s->junk = 0;
	if (!t->has_message)
		begin_message(s, false);
	s->state = SMTP_STATE_BDAT;
	if (!read_chunk(s, c->chunk))
		return;
	if (c->is_last) {
		smtp_data_end(&t->data, &t->message.memory);
		check_faults(t);
		message_is_whole(s);
	} else if (t->refusal.code) {
		/* RFC 3030 2: after a refused chunk the transaction has failed. */
		struct smtp_answer a = t->refusal;

		smtp_trace(s, t->id, TRACE_DATA_REFUSED, t->sender, STR_EMPTY, "%u %.*s", a.code,
			   STR_ARGS(a.text));
		smtp_transaction_end(s, true);
		smtp_count_error(s);
		smtp_answer(s, a);
	} else {
		smtp_reply(s, 250, "2.0.0", "%llu octets received", (unsigned long long)c->chunk);
	}
}
