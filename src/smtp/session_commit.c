/* The end of data: the message goes to filter and store, the envelope from auth to store, and the
 * client learns what came of it.
 *
 *	front --filter_check--> filter --txn_verdict--> store
 *	front --auth_commit---> auth ---txn_envelope--> store	(auth_mail, if RCPT was not asked)
 *	front --txn_body------> store --txn_reply-----> front
 *
 * Three parties say three things to the store under one number, so that this process, which speaks
 * with the internet, can leave none of them out. What we send is the message as it came, under our
 * Received field.
 *
 * `250` means durable: it is written when txn_reply says so and only then. No answer in time is
 * 451: the message may be stored all the same, and the client will send it again. That window is
 * SMTP's own (RFC 1047), and is told in the trace.
 */
#include "smtp/session_priv.h"

#include "base/mutant.h"
#include <stdio.h>

/* ---- the final replies ---- */

/* RFC 2033 4.2: LMTP answers for each recipient that was accepted, in their order. `own`: for those
 * where the answer differs; NULL, or with NULL entries. */
static void write_final(struct smtp_session *s, struct smtp_answer a,
			struct rec_txn_result *const *own)
{
	unsigned i = 0;

	if (!smtp_is_lmtp(s)) {
		smtp_answer(s, a);
		return;
	}
	for (const struct smtp_accepted *r = s->txn->first; r; r = r->next, i++) {
		if (own && own[i])
			smtp_answer(s, (struct smtp_answer){ own[i]->code, own[i]->status,
							     own[i]->text });
		else
			smtp_answer(s, a);
	}
}

static void tell(struct smtp_session *s, enum trace_event event, struct smtp_answer a)
{
	const struct smtp_transaction *t = s->txn;
	char client[ADDR_TEXT_MAX], id[MSGID_TEXT + 1];
	str from = smtp_client(s, client), rcpt = t->count == 1 ? t->first->address : STR_EMPTY;
	unsigned long long size = t->has_message ? smtp_message_size(&t->message) : 0;

	log_info(s->server->log, event == TRACE_ACCEPTED ? "smtp-accepted" : "smtp-refused",
		 "msg=%.*s client=%.*s helo=%.*s user=%.*s from=<%.*s> rcpts=%u size=%llu code=%u "
		 "status=%.*s",
		 STR_ARGS(msgid_text(t->id, id)), STR_ARGS(from), STR_ARGS(buf_str(&s->helo)),
		 STR_ARGS(buf_str(&s->login)), STR_ARGS(t->sender), t->count, size, a.code,
		 STR_ARGS(a.status));
	smtp_trace(s, t->id, event, t->sender, rcpt,
		   "%u %.*s %.*s (%s, client %.*s, %u recipient%s, %llu bytes)", a.code,
		   STR_ARGS(a.status), STR_ARGS(a.text), smtp_service_name(s->service),
		   STR_ARGS(from), t->count, t->count == 1 ? "" : "s", size);
}

void smtp_refuse_message(struct smtp_session *s, struct smtp_answer a)
{
	bool for_good = a.code >= 500;

	s->server->refused += for_good;
	s->server->deferred += !for_good;
	tell(s, for_good ? TRACE_DATA_REFUSED : TRACE_DEFERRED, a);
	smtp_count_error(s);
	write_final(s, a, NULL);
	smtp_transaction_end(s, true);
}

/* ---- handing over ---- */

/* The transaction's filter, or the next one that works; NULL when none does. */
static struct chan *filter_of(const struct smtp_server *server, uint64_t txn)
{
	for (unsigned i = 0; i < server->filter_count; i++) {
		struct chan *c = server->filters[(txn + i) % server->filter_count];

		if (chan_is_up(c))
			return c;
	}
	return NULL;
}

static enum err send_filter(struct smtp_session *s)
{
	struct smtp_transaction *t = s->txn;
	struct chan *filter = filter_of(s->server, t->id);
	char client[ADDR_TEXT_MAX];
	enum err err;

	if (!filter)
		return ERR_CLOSED;
	if ((err = chan_wait_room(filter, smtp_deadline(s, SMTP_AUTH_SECONDS))))
		return err;
	return SEND(filter, filter_check, .txn = t->id, .client = smtp_client(s, client),
		    .helo = buf_str(&s->helo), .sender = t->sender,
		    .authenticated = s->is_authenticated, .size = smtp_message_size(&t->message),
		    .inline_body = smtp_message_inline(&t->message), .body = MAX(t->message.fd, 0));
}

/* auth has lost what it was told. */
static bool is_void(const struct smtp_session *s)
{
	return !s->txn->is_postponed && !smtp_is_known_to_auth(s);
}

/* The recipients are final: auth tells the store. */
static enum err send_commit(struct smtp_session *s)
{
	struct smtp_transaction *t = s->txn;
	struct chan *auth = s->server->auth;

	if (is_void(s))
		return ERR_CLOSED;
	if (!t->is_postponed)
		return SEND(auth, auth_commit, .txn = t->id);
	t->mail.commit = true;
	t->mail.socket = 0; /* nothing is relayed */
	return chan_send(auth, MSG_auth_mail, 0, &t->mail);
}

/* *asked: the store may have the message, or get it. */
static enum err hand_over(struct smtp_session *s, struct msg_txn_reply *reply, bool *asked)
{
	struct smtp_transaction *t = s->txn;
	struct smtp_server *server = s->server;
	enum err err;

	*asked = false;
	if (is_void(s))
		return ERR_CLOSED;
	if ((err = send_filter(s)) ||
	    (err = chan_wait_room(server->store, smtp_deadline(s, SMTP_AUTH_SECONDS))) ||
	    (err = send_commit(s)))
		return err;
	*asked = true;
	return CALL(server->store, txn_body, txn_reply, reply, s->work,
		    smtp_deadline(s, SMTP_COMMIT_SECONDS), .txn = t->id,
		    .size = smtp_message_size(&t->message),
		    .inline_body = smtp_message_inline(&t->message), .body = MAX(t->message.fd, 0),
		    .rcpts = t->count);
}

/* ---- the answer ---- */

/* The results that differ, by number; NULL without any, or without memory. */
static struct rec_txn_result **results_by_number(struct smtp_session *s, str records, enum err *err)
{
	struct rec_txn_result **by_number, r;

	*err = ERR_OK;
	if (!records.n)
		return NULL;
	by_number = arena_array(s->work, s->txn->count, sizeof(struct rec_txn_result *));
	while (by_number && !(*err = rec_txn_result_get(&records, &r))) {
		struct rec_txn_result *kept = arena_alloc(s->work, sizeof(*kept));

		if (!kept || r.number >= s->txn->count)
			break;
		*kept = r;
		by_number[r.number] = kept;
	}
	*err = *err == ERR_EOF ? ERR_OK : ERR_PROTOCOL;
	return by_number;
}

static struct smtp_answer away(void)
{
	return (struct smtp_answer){ 451, S("4.3.0"),
				     S("Cannot take the message now; try again later") };
}

/* The one answer of SMTP. A recipient that failed alone can only be told with the others: being
 * sent twice is the lesser evil than being lost. */
static struct smtp_answer worst_of(const struct smtp_session *s, struct smtp_answer a,
				   struct rec_txn_result *const *own)
{
	for (unsigned i = 0; own && i < s->txn->count && a.code == 250; i++)
		if (own[i] && own[i]->code != 250)
			a = (struct smtp_answer){ own[i]->code, own[i]->status, own[i]->text };
	return a;
}

static void unanswered(struct smtp_session *s, enum err err, bool asked)
{
	struct smtp_transaction *t = s->txn;
	char id[MSGID_TEXT + 1];

	log_error(s->server->log, "commit-failed", "msg=%.*s why=%s asked=%s",
		  STR_ARGS(msgid_text(t->id, id)), err_name(err), asked ? "yes" : "no");
	if (asked)
		smtp_trace(s, t->id, TRACE_OUTCOME_UNKNOWN, t->sender, STR_EMPTY, "%s",
			   err_text(err));
	/* What the others have told the store under this number waits for nothing now. */
	(void)!SEND(s->server->store, txn_cancel, .txn = t->id);
	smtp_refuse_message(s, away());
}

/* The reply is written: did it get out? RFC 1047: the client that has not read it will send the
 * message again. */
static void deliver_reply(struct smtp_session *s)
{
	struct smtp_transaction *t = s->txn;
	char client[ADDR_TEXT_MAX], id[MSGID_TEXT + 1];

	smtp_await_client(s);
	if (!conn_flush(s->conn))
		return;
	log_warn(s->server->log, "smtp-reply-lost", "msg=%.*s client=%.*s",
		 STR_ARGS(msgid_text(t->id, id)), STR_ARGS(smtp_client(s, client)));
	smtp_trace(s, t->id, TRACE_REPLY_LOST, t->sender, STR_EMPTY, "client %.*s",
		   STR_ARGS(smtp_client(s, client)));
}

static void accepted(struct smtp_session *s, struct rec_txn_result *const *own)
{
	char id[MSGID_TEXT + 1], text[64];
	int n = snprintf(text, sizeof(text), "Ok: queued as %.*s",
			 STR_ARGS(msgid_text(s->txn->id, id)));
	struct smtp_answer a = { 250, S("2.0.0"), str_of(text, (size_t)n) };

	s->server->accepted++;
	s->errors = 0; /* who sends mail is no guesser: as with Postfix, each message begins anew */
	tell(s, TRACE_ACCEPTED, a);
	write_final(s, a, own);
	deliver_reply(s);
	smtp_transaction_end(s, false);
}

void smtp_commit(struct smtp_session *s)
{
	struct msg_txn_reply reply = { 0 };
	struct rec_txn_result **own;
	struct smtp_answer a;
	bool asked;
	enum err err = hand_over(s, &reply, &asked);

	if (err && asked && MUTANT(lost_answer_is_250)) {
		accepted(s, NULL);
		return;
	}
	if (err) {
		unanswered(s, err, asked);
		return;
	}
	own = results_by_number(s, reply.rcpts, &err);
	a = (struct smtp_answer){ reply.code, reply.status, reply.text };
	if (err || reply.code < 200 || reply.code > 599) {
		unanswered(s, ERR_PROTOCOL, true);
		return;
	}
	if (!smtp_is_lmtp(s))
		a = worst_of(s, a, own);
	if (a.code == 250) {
		accepted(s, own);
		return;
	}
	s->server->refused += a.code >= 500;
	s->server->deferred += a.code < 500;
	tell(s, a.code >= 500 ? TRACE_DATA_REFUSED : TRACE_DEFERRED, a);
	write_final(s, a, own);
	smtp_transaction_end(s, false);
}
