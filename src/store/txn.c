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
#include "store/store_priv.h"

#include "base/trace.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	TXN_SLOTS = 1024,
	TXN_PART_MAX = 4 * 1024 * 1024,	   /* recipients of one transaction, encoded */
	TXN_BYTES_MAX = 256 * 1024 * 1024, /* of all parts that wait */
	TXN_RCPTS_MAX = 10000,		   /* RCPTs whose number is looked at */
	PREFIX_MAX = 9216,
	TOLD_MAX = 16, /* recipients that get an event each; the others are counted in one */
};

struct txn {
	struct txn *next; /* in its slot */
	uint64_t id;
	int64_t since;
	size_t bytes;
	bool has_envelope, has_body, has_verdict;
	enum err failed; /* a part was wrong: told when there is somebody to tell */
	/* From auth. */
	char *text; /* sender, envid */
	str sender, envid;
	uint64_t submitter;
	bool is_smtputf8;
	uint8_t body_type, ret;
	uint32_t expected, received; /* recipients */
	struct buf rcpts, ends;
	/* From filter. */
	uint8_t hash[32];
	uint16_t code;
	bool has_parse;
	struct buf verdict; /* status, text, headers, envelope, structure */
	str status, reply_text, headers, parsed_envelope, structure;
	/* From front. */
	struct sealed body;
	uint32_t rcpt_count;
	store_txn_done *done;
	void *arg;
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

static void txn_remove(struct store *s, uint64_t id)
{
	struct txn **at = s->txns ? txn_at(s, id) : NULL, *t = at ? *at : NULL;

	if (!t)
		return;
	if (t->done)
		t->done(t->arg, NULL);
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

static void reply_send(store_txn_done *done, void *arg, uint64_t txn, uint16_t code, str status,
		       str text, str rcpts)
{
	struct msg_txn_reply reply = {
		.txn = txn, .code = code, .status = status, .text = text, .rcpts = rcpts
	};

	if (done)
		done(arg, &reply);
}

static void trace(struct store *s, uint64_t message, enum trace_event event, str sender,
		  str recipient, const char *fmt, ...) PRINTF_LIKE(6, 7);

static void trace(struct store *s, uint64_t message, enum trace_event event, str sender,
		  str recipient, const char *fmt, ...)
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
	trace(s, t->id, TRACE_NOT_STORED, t->sender, STR_EMPTY, "%u %.*s %.*s%s", code,
	      STR_ARGS(status), STR_ARGS(text),
	      t->has_verdict && t->code == code ? " (by the filter)" : "");
	reply_send(t->done, t->arg, t->id, code, status, text, STR_EMPTY);
	t->done = NULL;
	txn_remove(s, t->id);
}

/* The one table from errors to replies: what may pass is 4yz. */
static void reply_for_error(enum err err, uint16_t *code, str *status, str *text)
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
	reply_for_error(err, &code, &status, &text);
	txn_refuse(s, t, code, status, text);
}

/* For the history: one recipient. */
struct told {
	uint64_t number; /* UID, or record of the queue */
	str recipient;	 /* in `rcpts` */
	bool is_remote;
};

/* What is left of a transaction while its commit is under way. */
struct txn_wait {
	uint64_t id;
	struct told told[TOLD_MAX];
	size_t told_count, rcpt_count;
	struct buf rcpts;
	char *text; /* the sender is in it */
	str sender;
	store_txn_done *done;
	void *arg;
	struct txn_wait *next;
	size_t ends_n;
	char ends[]; /* RECORD queue_end: their leases go with the records */
};

static void ends_settle(struct store *s, const struct txn_wait *w)
{
	str ends = str_of(w->ends, w->ends_n);
	struct rec_queue_end end;

	while (!rec_queue_end_get(&ends, &end))
		lease_drop(s, end.id);
}

static void txn_told(struct store *s, const struct txn_wait *w)
{
	for (size_t i = 0; i < w->told_count; i++) {
		const struct told *t = &w->told[i];

		if (t->is_remote)
			trace(s, w->id, TRACE_QUEUED, w->sender, t->recipient,
			      "record %llu of the queue", (unsigned long long)t->number);
		else
			trace(s, w->id, TRACE_STORED, w->sender, t->recipient, "INBOX, UID %llu",
			      (unsigned long long)t->number);
	}
	if (w->rcpt_count > w->told_count)
		trace(s, w->id, TRACE_STORED_MANY, w->sender, STR_EMPTY, "%zu more recipients",
		      w->rcpt_count - w->told_count);
}

static void txn_wait_free(struct txn_wait *w)
{
	if (!w)
		return;
	buf_free(&w->rcpts);
	free(w->text);
	free(w);
}

static void txn_committed(struct pending *p, enum err err)
{
	struct txn_wait *w = p->finish_arg;
	char id[MSGID_TEXT + 1], bytes[64];
	uint16_t code = 250;
	str status = S("2.0.0"), text;

	if (!err)
		ends_settle(p->store, w);
	if (err) {
		reply_for_error(err, &code, &status, &text);
		trace(p->store, w->id, TRACE_NOT_STORED, w->sender, STR_EMPTY, "%u %.*s %.*s", code,
		      STR_ARGS(status), STR_ARGS(text));
	} else {
		int n = snprintf(bytes, sizeof(bytes), "Ok: %.*s", STR_ARGS(msgid_text(w->id, id)));

		text = str_of(bytes, (size_t)n);
	}
	/* The client first: the history can wait. */
	reply_send(w->done, w->arg, w->id, code, status, text, STR_EMPTY);
	if (!err)
		txn_told(p->store, w);
	txn_wait_free(w);
}

/* RFC 5321 4.4: Return-Path at final delivery. */
static enum err prefix_make(const struct txn *t, const struct rec_txn_rcpt *rcpt, struct buf *out)
{
	buf_clear(out);
	buf_printf(out, "Return-Path: <%.*s>\r\nDelivered-To: %.*s\r\n", STR_ARGS(t->sender),
		   STR_ARGS(rcpt->address));
	buf_add(out, t->headers);
	return buf_failed(out) ? ERR_TOO_LONG : ERR_OK;
}

/* Everything one commit needs. */
struct delivery {
	struct store *store;
	struct txn *txn;
	struct pending *pending;
	uint64_t body;
	int64_t now_us;
	uint8_t key[BODY_KEY_SIZE];
	struct buf prefix, cold;
	struct txn_wait *wait;
};

static void tell(struct delivery *d, str recipient, uint64_t number, bool is_remote)
{
	struct txn_wait *w = d->wait;

	w->rcpt_count++;
	if (w->told_count < TOLD_MAX)
		w->told[w->told_count++] = (struct told){ number, recipient, is_remote };
}

static enum err deliver_local(struct delivery *d, const struct rec_txn_rcpt *rcpt)
{
	struct store *s = d->store;
	const struct txn *t = d->txn;
	struct rec_row_cold cold = { .has_parse = t->has_parse,
				     .envelope = t->parsed_envelope,
				     .structure = t->structure };
	struct new_row n = { .body = d->body,
			     .size = t->body.size,
			     .key = d->key,
			     .received_us = d->now_us,
			     .zone = os_zone_minutes(d->now_us) };
	struct mailbox inbox;
	struct change c;
	struct row row;
	enum err err = prefix_make(t, rcpt, &d->prefix);

	if (err || (err = change_begin(s, d->pending, rcpt->account, true, &c)) ||
	    (err = mailbox_load(s, KV_PENDING, rcpt->account, INBOX_ID, &inbox)))
		return err;
	if (c.is_new)
		c.account.address = rcpt->address;
	c.account.quota = rcpt->quota;
	cold.prefix = buf_str(&d->prefix);
	buf_clear(&d->cold);
	rec_row_cold_put(&d->cold, &cold);
	n.cold = buf_str(&d->cold);
	n.prefix_size = cold.prefix.n;
	if ((err = message_add(&c, &inbox, &n, &row)))
		return err;
	mailbox_save(&c, &inbox);
	change_end(&c);
	tell(d, rcpt->address, row.uid, false);
	return ERR_OK;
}

static enum err record_add(struct delivery *d, const struct rec_txn_rcpt *rcpt, str address,
			   enum queue_state state)
{
	const struct txn *t = d->txn;
	struct queue_item q = { .message = t->id,
				.body = d->body,
				.state = (uint8_t)state,
				.sender = t->sender,
				.address = address,
				.original = rcpt->original,
				.orcpt = rcpt->orcpt,
				.envid = t->envid,
				.notify = rcpt->notify,
				.ret = t->ret,
				.body_type = t->body_type,
				.is_smtputf8 = t->is_smtputf8,
				.size = t->body.size,
				.created_us = d->now_us,
				.due_us = d->now_us };

	enum err err;

	memcpy(q.key, d->key, sizeof(q.key));
	d->pending->wakes_queue = true;
	err = queue_add(d->store, &q);
	if (!err && state == QUEUE_DUE)
		tell(d, rcpt->address, q.id, true);
	return err;
}

/* A RCPT whose sender must be told that it was delivered, or that it was an alias of several. */
struct owed {
	struct rec_txn_rcpt rcpt;
	enum queue_state state;
};

/* Two RCPTs, or an alias and its target, may end in one account: it gets the message once. The list
 * of who gets it, each once; found by a table, as lists of thousands are real. Notices are owed to
 * each RCPT that asked. */
struct rcpt_list {
	struct rec_txn_rcpt *items;
	uint32_t *slots; /* index + 1 */
	size_t count, slot_mask;
	struct owed *owed; /* NULL while there is none */
	size_t owed_count;
};

static void rcpt_list_free(struct rcpt_list *l)
{
	free(l->items);
	free(l->slots);
	free(l->owed);
}

static bool same_rcpt(const struct rec_txn_rcpt *a, const struct rec_txn_rcpt *b)
{
	return a->account == b->account && (a->account || str_eq(a->address, b->address));
}

static void rcpt_list_add(struct rcpt_list *l, const struct rec_txn_rcpt *r)
{
	uint64_t hash =
		r->account ? r->account * 0x9e3779b97f4a7c15u >> 20 : str_hash(r->address, 0);

	for (size_t at = hash & l->slot_mask;; at = (at + 1) & l->slot_mask) {
		if (!l->slots[at]) {
			l->items[l->count] = *r;
			l->slots[at] = (uint32_t)++l->count;
			return;
		}
		if (same_rcpt(&l->items[l->slots[at] - 1], r))
			return;
	}
}

static enum err owed_add(const struct txn *t, struct rcpt_list *l, const struct rec_txn_rcpt *r,
			 enum queue_state state)
{
	if (!l->owed && !(l->owed = calloc(t->received, sizeof(*l->owed))))
		return ERR_NO_MEMORY;
	l->owed[l->owed_count++] = (struct owed){ *r, state };
	return ERR_OK;
}

/* What the sender is to hear of *r when it is delivered. `last` is the number of the RCPT before,
 * `rest` what follows: those behind one RCPT stand together. */
static enum err owed_find(const struct txn *t, struct rcpt_list *l, struct rec_txn_rcpt *r,
			  uint32_t last, str rest)
{
	struct rec_txn_rcpt next;
	enum err err = ERR_OK;

	/* RFC 3464 2: nobody is told of mail with the null sender. */
	if (!t->sender.n || (r->notify & (NOTIFY_SUCCESS | NOTIFY_NEVER)) != NOTIFY_SUCCESS)
		return ERR_OK;
	if (r->number != last && (rec_txn_rcpt_get(&rest, &next) || next.number != r->number))
		return r->account ? owed_add(t, l, r, QUEUE_DELIVERED) : ERR_OK;
	/* RFC 3461 5.2.7.3 (c): of an alias of several it is told that it was one; those behind it
	 * do not tell of success. */
	if (r->number != last)
		err = owed_add(t, l, r, QUEUE_EXPANDED);
	r->notify &= (uint8_t)~NOTIFY_SUCCESS;
	if (!r->notify)
		r->notify = NOTIFY_NEVER;
	return err;
}

static enum err rcpt_list_make(const struct txn *t, struct rcpt_list *l)
{
	size_t slots = 16;
	struct rec_txn_rcpt r;
	str rest = buf_str(&t->rcpts);
	uint32_t last = UINT32_MAX;
	enum err err;

	while (slots < 2 * (size_t)t->received)
		slots *= 2;
	*l = (struct rcpt_list){ .items = calloc(t->received, sizeof(*l->items)),
				 .slots = calloc(slots, sizeof(*l->slots)),
				 .slot_mask = slots - 1 };
	if (!l->items || !l->slots)
		return ERR_NO_MEMORY;
	while (!(err = rec_txn_rcpt_get(&rest, &r))) {
		if (r.number >= t->rcpt_count)
			return ERR_PROTOCOL;
		if ((err = owed_find(t, l, &r, last, rest)))
			return err;
		last = r.number;
		rcpt_list_add(l, &r);
	}
	return err == ERR_EOF ? ERR_OK : err;
}

static enum err deliver_list(struct delivery *d, const struct rcpt_list *l)
{
	str ends = buf_str(&d->txn->ends);
	struct rec_queue_end end;
	enum err err;

	memcpy(d->key, d->txn->body.key, sizeof(d->key));
	err = body_commit(d->store, d->pending, &d->txn->body, l->count + l->owed_count, &d->body);
	for (size_t i = 0; i < l->count && !err; i++)
		err = l->items[i].account
			      ? deliver_local(d, &l->items[i])
			      : record_add(d, &l->items[i], l->items[i].address, QUEUE_DUE);
	/* RFC 3464 2.3.2: the recipient is told by the address that we took, not by whose mailbox
	 * is behind it. */
	for (size_t i = 0; i < l->owed_count && !err; i++)
		err = record_add(d, &l->owed[i].rcpt, l->owed[i].rcpt.original, l->owed[i].state);
	while (!err && !(err = rec_queue_end_get(&ends, &end)))
		err = queue_end(d->store, d->pending, end.id, end.token);
	return err == ERR_EOF ? ERR_OK : err;
}

static enum err deliver_all(struct delivery *d)
{
	struct rcpt_list l;
	enum err err = rcpt_list_make(d->txn, &l);

	if (!err)
		err = deliver_list(d, &l);
	rcpt_list_free(&l);
	return err;
}

static enum err txn_commit(struct store *s, struct txn *t)
{
	str ends = buf_str(&t->ends);
	struct txn_wait *w = calloc(1, sizeof(*w) + ends.n);
	struct delivery d = { .store = s, .txn = t, .now_us = os_wall_us(), .wait = w };
	enum err err;

	d.pending = w ? pending_new(s, NULL, NULL) : NULL;
	if (!d.pending) {
		free(w);
		return ERR_NO_MEMORY;
	}
	buf_init(&d.prefix, PREFIX_MAX);
	buf_init(&d.cold, MSG_MAX);
	/* A bounce ends records: it needs room, but refusing it for ever would keep them. */
	err = kv_begin(s->kv, buf_len(&t->ends) != 0);
	if (!err && (err = deliver_all(&d)))
		kv_cancel(s->kv);
	buf_free(&d.prefix);
	buf_free(&d.cold);
	if (err) {
		txn_wait_free(w);
		pending_free(d.pending);
		return err;
	}
	w->id = t->id;
	w->done = t->done;
	w->arg = t->arg;
	w->ends_n = ends.n;
	if (ends.n)
		memcpy(w->ends, ends.p, ends.n);
	d.pending->finish = txn_committed;
	d.pending->finish_arg = w;
	/* The recipients' names, for the history. */
	w->rcpts = t->rcpts;
	w->text = t->text;
	w->sender = t->sender;
	buf_init(&t->rcpts, TXN_PART_MAX);
	t->text = NULL;
	t->sender = STR_EMPTY;
	err = pending_end(d.pending);
	if (err) {
		txn_wait_free(w);
		return err;
	}
	t->done = NULL;
	txn_remove(s, t->id);
	return ERR_OK;
}

/* Commits, or answers, when all parts are here. */
static void txn_try(struct store *s, struct txn *t)
{
	enum err err;

	if (t->failed && t->has_body) {
		txn_fail(s, t, t->failed);
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

enum err store_txn_envelope(struct store *s, const struct msg_txn_envelope *in)
{
	struct txn *t;
	enum err err =
		txn_get(s, in->txn, in->rcpts.n + in->ends.n + in->sender.n + in->envid.n, &t);

	if (err)
		return err;
	if (t->has_envelope)
		return part_result(s, t, ERR_PROTOCOL);
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
	t->has_envelope = true;
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

enum err store_txn_body(struct store *s, const struct msg_txn_body *in, store_txn_done *done,
			void *arg)
{
	size_t bytes = in->size < TXN_BYTES_MAX ? (size_t)in->size : TXN_BYTES_MAX;
	struct txn *t;
	enum err err = txn_get(s, in->txn, bytes, &t);

	if (err)
		return err;
	if (t->has_body)
		return ERR_PROTOCOL;
	err = body_take(s, in->inline_body, in->body, in->size, true, &t->body);
	if (err) {
		t->body = (struct sealed){ .blob = NULL };
		txn_remove(s, in->txn);
		return err;
	}
	t->rcpt_count = in->rcpts;
	t->done = done;
	t->arg = arg;
	t->has_body = true;
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

void store_txn_expire(struct store *s)
{
	int64_t before = os_monotonic_ns() - (int64_t)s->options.txn_seconds * 1000000000;

	for (size_t i = 0; s->txns && i < TXN_SLOTS; i++) {
		struct txn *next;

		for (struct txn *t = s->txns[i]; t; t = next) {
			next = t->next;
			if (t->since >= before)
				continue;
			if (t->has_body)
				txn_fail(s, t, ERR_TIMEOUT);
			else
				txn_remove(s, t->id);
		}
	}
}
