/* The commit of a transaction: the body once, a row for each local recipient, a record of the queue
 * for each remote one and for each notice that is owed, the records that it replaces ended; all of
 * it or nothing. The reply, and what the history says, hang on it.
 */
#include "store/txn_priv.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	PREFIX_MAX = 9216,
	TOLD_MAX = 16, /* recipients that get an event each; the others are counted in one */
};

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
			txn_trace(s, w->id, TRACE_QUEUED, w->sender, t->recipient,
				  "record %llu of the queue", (unsigned long long)t->number);
		else
			txn_trace(s, w->id, TRACE_STORED, w->sender, t->recipient,
				  "INBOX, UID %llu", (unsigned long long)t->number);
	}
	if (w->rcpt_count > w->told_count)
		txn_trace(s, w->id, TRACE_STORED_MANY, w->sender, STR_EMPTY, "%zu more recipients",
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
		txn_reply_for_error(err, &code, &status, &text);
		txn_trace(p->store, w->id, TRACE_NOT_STORED, w->sender, STR_EMPTY, "%u %.*s %.*s",
			  code, STR_ARGS(status), STR_ARGS(text));
	} else {
		int n = snprintf(bytes, sizeof(bytes), "Ok: %.*s", STR_ARGS(msgid_text(w->id, id)));

		text = str_of(bytes, (size_t)n);
	}
	/* The client first: the history can wait. */
	txn_reply_send(w->done, w->arg, w->id, code, status, text);
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

static enum err deliver_list(struct delivery *d, const struct rcpt_list *l)
{
	str ends = buf_str(&d->txn->ends);
	struct rec_queue_end end;
	enum err err = ERR_OK;

	memcpy(d->key, d->txn->body.key, sizeof(d->key));
	body_commit(d->store, d->pending, &d->txn->body, l->count + l->owed_count, &d->body);
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

enum err txn_commit(struct store *s, struct txn *t)
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
