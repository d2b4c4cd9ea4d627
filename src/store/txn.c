/* Transactions: a message that three roles speak for.
 *
 * front sends the bytes, auth the sender and the final recipients, filter the verdict on these very
 * bytes. Each speaks for itself, in any order; when all three are here, the hash of the bytes must
 * be the verdict's, and then everything is one commit. A front that was broken into can thus
 * neither skip the filter (no verdict), nor change what it judged (the hash), nor add a recipient
 * (they are auth's), nor answer before it is durable (the reply is ours).
 *
 * Parts that wait are bounded in number, bytes and age; a part that does not fit is refused, and
 * the client gets a 451.
 */
#include "store/txn_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	PARTS_LOST_NS = 500000000, /* front's word of a body may come so much later than the death
				      of who had its other part */
	TXN_SLOTS = 1024,
	TXN_BYTES_MAX = 256 * 1024 * 1024, /* of all parts that wait */
	TXN_RCPTS_MAX = 10000,		   /* RCPTs whose number is looked at */
};

static struct txn **slot_of(struct store *s, uint64_t id)
{
	return &s->txns[id * 0x9e3779b97f4a7c15u >> 54];
}

static struct txn **txn_at(struct store *s, uint64_t id)
{
	struct txn **at = slot_of(s, id);

	while (*at && (*at)->id != id)
		at = &(*at)->next;
	return at;
}

void txn_remove(struct store *s, uint64_t id)
{
	struct txn **at = s->txns ? txn_at(s, id) : NULL, *t = at ? *at : NULL;

	if (!t)
		return;
	if (t->done)
		t->done(t->arg, NULL);
	if (t->job)
		body_job_cancel(t->job);
	*at = t->next;
	s->txn_count--;
	s->txn_bytes -= t->bytes;
	if (s->kv || !t->body.file)
		sealed_drop(s, &t->body);
	buf_free(&t->rcpts);
	buf_free(&t->ends);
	buf_free(&t->verdict);
	free(t->text);
	free(t);
}

void txns_free(struct store *s)
{
	for (size_t i = 0; s->txns && i < TXN_SLOTS; i++)
		while (s->txns[i])
			txn_remove(s, s->txns[i]->id);
	free(s->txns);
	s->txns = NULL;
}

/* The transaction, begun by whichever part comes first. */
static enum err txn_get(struct store *s, uint64_t id, size_t bytes, struct txn **out)
{
	struct txn *t;

	if (!id)
		return ERR_PROTOCOL;
	if (!s->txns && !(s->txns = calloc(TXN_SLOTS, sizeof(struct txn *))))
		return ERR_NO_MEMORY;
	t = *txn_at(s, id);
	if (s->txn_bytes + bytes > TXN_BYTES_MAX)
		return ERR_BUSY;
	if (!t) {
		if (s->txn_count >= TXNS_MAX)
			return ERR_BUSY;
		if (!(t = calloc(1, sizeof(*t))))
			return ERR_NO_MEMORY;
		t->store = s;
		t->id = id;
		t->since = os_monotonic_ns();
		buf_init(&t->rcpts, TXN_PART_MAX);
		buf_init(&t->ends, MSG_MAX);
		buf_init(&t->verdict, MSG_MAX);
		t->next = *slot_of(s, id);
		*slot_of(s, id) = t;
		s->txn_count++;
	}
	t->bytes += bytes;
	s->txn_bytes += bytes;
	*out = t;
	return ERR_OK;
}

void txn_reply_send(store_txn_done *done, void *arg, uint64_t txn, uint16_t code, str status,
		    str text)
{
	struct msg_txn_reply reply = { .txn = txn, .code = code, .status = status, .text = text };

	if (done)
		done(arg, &reply);
}

void txn_trace(struct store *s, uint64_t message, enum trace_event event, str sender, str recipient,
	       const char *fmt, ...)
{
	char text[512];
	va_list ap;
	int n;

	if (!s->options.hooks.traced)
		return;
	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	s->options.hooks.traced(s->options.hooks.arg, message, event, sender, recipient,
				str_of(text, (size_t)MAX(MIN(n, (int)sizeof(text) - 1), 0)));
}

static void txn_refuse(struct store *s, struct txn *t, uint16_t code, str status, str text)
{
	txn_trace(s, t->id, TRACE_NOT_STORED, t->sender, STR_EMPTY, "%u %.*s %.*s%s", code,
		  STR_ARGS(status), STR_ARGS(text),
		  t->has_verdict && t->code == code ? " (by the filter)" : "");
	txn_reply_send(t->done, t->arg, t->id, code, status, text);
	t->done = NULL;
	txn_remove(s, t->id);
}

void txn_reply_for_error(enum err err, uint16_t *code, str *status, str *text)
{
	static const struct {
		enum err err;
		uint16_t code;
		str status, text;
	} table[] = {
		{ ERR_FULL, 452, { "4.3.1", 5 }, { "Insufficient system storage", 27 } },
		{ ERR_TOO_MANY, 452, { "4.5.3", 5 }, { "Too many recipients", 19 } },
		{ ERR_TOO_LONG, 552, { "5.3.4", 5 }, { "Message too big", 15 } },
		{ ERR_STALE, 451, { "4.3.0", 5 }, { "The queue record is another's now", 33 } },
	};

	*code = 451;
	*status = S("4.3.0");
	*text = S("Temporary failure, please try again");
	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		if (table[i].err == err) {
			*code = table[i].code;
			*status = table[i].status;
			*text = table[i].text;
		}
	}
}

static void txn_fail(struct store *s, struct txn *t, enum err err)
{
	uint16_t code;
	str status, text;

	if (s->options.log)
		log_warn(s->options.log, "store-transaction-failed", "txn=%016llx error=%s",
			 (unsigned long long)t->id, err_name(err));
	txn_reply_for_error(err, &code, &status, &text);
	txn_refuse(s, t, code, status, text);
}

/* Commits, or answers, when all parts are here. */
static void txn_try(struct store *s, struct txn *t)
{
	enum err err;

	if (t->failed && t->has_body) {
		txn_fail(s, t, t->failed);
		return;
	}
	if (t->refusal.code && t->has_body) {
		txn_refuse(s, t, t->refusal.code, t->refusal.status, t->refusal.text);
		return;
	}
	if (t->has_verdict && t->code != 250 && t->has_body) {
		txn_refuse(s, t, t->code, t->status, t->reply_text);
		return;
	}
	if (!t->has_envelope || t->received < t->expected || !t->has_body || !t->has_verdict)
		return;
	/* The bytes must be those that were judged. */
	err = memcmp(t->hash, t->body.hash, sizeof(t->hash)) != 0 || t->received > t->expected
		      ? ERR_PROTOCOL
		      : txn_commit(s, t);
	if (err)
		txn_fail(s, t, err);
}

static enum err rcpts_add(struct txn *t, str rcpts)
{
	struct rec_txn_rcpt r;
	str rest = rcpts;
	enum err err;

	while (!(err = rec_txn_rcpt_get(&rest, &r))) {
		if (r.number >= TXN_RCPTS_MAX)
			return ERR_TOO_MANY;
		t->received++;
	}
	buf_add(&t->rcpts, rcpts);
	if (err != ERR_EOF)
		return err;
	return buf_failed(&t->rcpts) ? ERR_TOO_MANY : ERR_OK;
}

/* A part that breaks the rules, or does not fit, ends the transaction for whoever waits. */
static enum err part_result(struct store *s, struct txn *t, enum err err)
{
	if (!t->failed)
		t->failed = err;
	txn_try(s, t);
	return err;
}

/* RCPT was answered from what auth had said before, and that holds no more. */
static enum err refused_by_auth(struct txn *t, const struct msg_txn_envelope *in)
{
	if (in->code < 400 || in->code > 599)
		return ERR_PROTOCOL;
	t->text = malloc(in->status.n + in->text.n + 1);
	if (!t->text)
		return ERR_NO_MEMORY;
	if (in->status.n)
		memcpy(t->text, in->status.p, in->status.n);
	if (in->text.n)
		memcpy(t->text + in->status.n, in->text.p, in->text.n);
	t->refusal.code = in->code;
	t->refusal.status = str_of(t->text, in->status.n);
	t->refusal.text = str_of(t->text + in->status.n, in->text.n);
	return ERR_OK;
}

enum err store_txn_envelope(struct store *s, const struct msg_txn_envelope *in)
{
	struct txn *t;
	enum err err =
		txn_get(s, in->txn, in->rcpts.n + in->ends.n + in->sender.n + in->envid.n, &t);

	if (err)
		return err;
	if (t->has_envelope)
		return part_result(s, t, ERR_PROTOCOL);
	t->has_envelope = true;
	if (in->code)
		return part_result(s, t, refused_by_auth(t, in));
	t->text = malloc(in->sender.n + in->envid.n + 1);
	if (!t->text)
		return part_result(s, t, ERR_NO_MEMORY);
	if (in->sender.n)
		memcpy(t->text, in->sender.p, in->sender.n);
	if (in->envid.n)
		memcpy(t->text + in->sender.n, in->envid.p, in->envid.n);
	t->sender = str_of(t->text, in->sender.n);
	t->envid = str_of(t->text + in->sender.n, in->envid.n);
	t->submitter = in->submitter;
	t->is_smtputf8 = in->smtputf8;
	t->body_type = in->body;
	t->ret = in->ret;
	t->expected = in->count;
	buf_add(&t->ends, in->ends);
	err = in->count == 0 || buf_failed(&t->ends) ? ERR_PROTOCOL : rcpts_add(t, in->rcpts);
	return part_result(s, t, err);
}

enum err store_txn_rcpts(struct store *s, const struct msg_txn_rcpts *in)
{
	struct txn *t;
	enum err err = txn_get(s, in->txn, in->rcpts.n, &t);

	return err ? err : part_result(s, t, rcpts_add(t, in->rcpts));
}

static str keep(struct buf *b, str s)
{
	size_t at = buf_len(b);

	buf_add(b, s);
	return str_of((const char *)(uintptr_t)at, s.n);
}

static void settle(const struct buf *b, str *s)
{
	*s = str_sub(buf_str(b), (size_t)(uintptr_t)s->p, s->n);
}

enum err store_txn_verdict(struct store *s, const struct msg_txn_verdict *in)
{
	struct txn *t;
	enum err err = txn_get(s, in->txn,
			       in->headers.n + in->envelope.n + in->structure.n + in->text.n, &t);

	if (err)
		return err;
	if (t->has_verdict)
		return part_result(s, t, ERR_PROTOCOL);
	memcpy(t->hash, in->hash, sizeof(t->hash));
	t->code = in->code;
	t->has_parse = in->has_parse;
	/* The buffer may move while it grows: positions first, slices when all is in it. */
	t->status = keep(&t->verdict, in->status);
	t->reply_text = keep(&t->verdict, in->text);
	t->headers = keep(&t->verdict, in->headers);
	t->parsed_envelope = keep(&t->verdict, in->envelope);
	t->structure = keep(&t->verdict, in->structure);
	settle(&t->verdict, &t->status);
	settle(&t->verdict, &t->reply_text);
	settle(&t->verdict, &t->headers);
	settle(&t->verdict, &t->parsed_envelope);
	settle(&t->verdict, &t->structure);
	t->has_verdict = true;
	return part_result(s, t, buf_failed(&t->verdict) ? ERR_NO_MEMORY : ERR_OK);
}

static void body_sealed(void *arg, enum err err, struct sealed *b)
{
	struct txn *t = arg;

	t->job = NULL;
	if (!err) {
		t->body = *b;
		*b = (struct sealed){ .blob = NULL };
	}
	if (!t->failed)
		t->failed = err;
	t->has_body = true;
	txn_try(t->store, t);
}

enum err store_txn_body(struct store *s, const struct msg_txn_body *in, store_txn_done *done,
			void *arg)
{
	const struct body_source from = { in->inline_body, in->body, in->size };
	size_t bytes = in->size < TXN_BYTES_MAX ? (size_t)in->size : TXN_BYTES_MAX;
	struct txn *t;
	bool is_large = body_is_large(s, in->size);
	enum err err = txn_get(s, in->txn, bytes, &t);

	if (err)
		return err;
	if (t->has_body || t->job)
		return ERR_PROTOCOL;
	err = is_large ? body_job_start(s, &from, true, body_sealed, t, &t->job)
		       : body_take(s, &from, true, &t->body);
	if (err) {
		t->body = (struct sealed){ .blob = NULL };
		txn_remove(s, in->txn);
		return err;
	}
	t->rcpt_count = in->rcpts;
	t->done = done;
	t->arg = arg;
	t->has_body = !is_large;
	txn_try(s, t);
	return ERR_OK;
}

void store_txn_cancel(struct store *s, uint64_t txn)
{
	txn_remove(s, txn);
}

void store_txn_cancel_instance(struct store *s, unsigned instance)
{
	for (size_t i = 0; s->txns && i < TXN_SLOTS; i++) {
		struct txn *next;

		for (struct txn *t = s->txns[i]; t; t = next) {
			next = t->next;
			if (msgid_instance(t->id) == instance)
				txn_remove(s, t->id);
		}
	}
}

/* Those that began before that lack a part which nobody will bring. */
static void parts_give_up(struct store *s, bool is_verdict, int64_t before)
{
	for (size_t i = 0; s->txns && i < TXN_SLOTS; i++) {
		struct txn *next;

		for (struct txn *t = s->txns[i]; t; t = next) {
			next = t->next;
			if (t->since < before &&
			    (is_verdict ? !t->has_verdict
					: !t->has_envelope || t->received < t->expected))
				part_result(s, t, ERR_TEMPORARY);
		}
	}
}

void store_txn_part_lost(struct store *s, bool is_verdict)
{
	s->parts_lost[is_verdict] = os_monotonic_ns() + PARTS_LOST_NS;
	parts_give_up(s, is_verdict, INT64_MAX);
}

void store_txn_expire(struct store *s)
{
	int64_t now = os_monotonic_ns();
	int64_t before = now - (int64_t)s->options.txn_seconds * 1000000000;

	for (int i = 0; i < 2; i++) {
		if (!s->parts_lost[i] || now < s->parts_lost[i])
			continue;
		parts_give_up(s, i, s->parts_lost[i]);
		s->parts_lost[i] = 0;
	}
	for (size_t i = 0; s->txns && i < TXN_SLOTS; i++) {
		struct txn *next;

		for (struct txn *t = s->txns[i]; t; t = next) {
			next = t->next;
			if (t->since >= before)
				continue;
			if (t->done)
				txn_fail(s, t, ERR_TIMEOUT);
			else
				txn_remove(s, t->id);
		}
	}
}
