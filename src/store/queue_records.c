/* The queue's records: one for each recipient that is not ours, or of whom the sender must be told,
 * by number, and again by the time when it is due.
 *
 * A lease is memory alone: it is for so long that a delivery can take, and a restart of the store
 * ends it, as it should: the queue asks again. An outcome must carry the lease's token, so that a
 * scheduler that was thought dead cannot undo what its successor learnt. Outcomes are commits: a
 * recipient that was recorded as sent is never sent again.
 *
 * What failed for good stays, due, until the bounce for it is committed, in the same frame that
 * ends it (queue_end). So does what was delivered here for a sender who asked to be told: its
 * record comes with the delivery's own commit, and ends with the notice.
 */
#include "store/store_priv.h"

#include "base/mutant.h"
#include <stdlib.h>

enum { RECORDS_ROOM = 52 * 1024, RECORD_ROOM = 512 };

static struct lease **lease_slot(struct store *s, uint64_t id)
{
	return &s->leases[id * 0x9e3779b97f4a7c15u >> 52];
}

static struct lease *lease_find(struct store *s, uint64_t id)
{
	struct lease *l = *lease_slot(s, id);

	while (l && l->id != id)
		l = l->next;
	return l;
}

void lease_drop(struct store *s, uint64_t id)
{
	struct lease **at = lease_slot(s, id), *l;

	while (*at && (*at)->id != id)
		at = &(*at)->next;
	if (!(l = *at))
		return;
	*at = l->next;
	s->lease_count--;
	free(l);
}

void leases_free(struct store *s)
{
	for (size_t i = 0; i < LEASE_SLOTS; i++)
		while (s->leases[i])
			lease_drop(s, s->leases[i]->id);
}

void store_q_begin(struct store *s)
{
	for (size_t i = 0; i < LEASE_SLOTS; i++) {
		struct lease *next;

		for (struct lease *l = s->leases[i]; l; l = next) {
			next = l->next;
			/* An outcome that is on its way to the disk is still the truth. */
			l->token = 0;
			if (!l->is_settling)
				lease_drop(s, l->id);
		}
	}
}

static struct lease *lease_take(struct store *s, uint64_t id, int64_t until_us)
{
	struct lease *l = lease_find(s, id);

	if (!l) {
		if (s->lease_count >= LEASES_MAX || !(l = calloc(1, sizeof(*l))))
			return NULL;
		l->id = id;
		l->next = *lease_slot(s, id);
		*lease_slot(s, id) = l;
		s->lease_count++;
	}
	/* 0 is 'whoever holds it' in an outcome. */
	l->token = os_random_u64() | 1;
	l->until_us = until_us;
	return l;
}

static enum err item_load(struct store *s, enum kv_state state, uint64_t id, struct queue_item *q)
{
	struct key k = key_make1(KIND_QUEUE, id);
	str value;
	enum err err = kv_get(s->kv, state, &k, &value);

	return err ? err : queue_item_get(value, id, q);
}

static bool is_due_state(uint8_t state)
{
	return state == QUEUE_DUE || state == QUEUE_DEFERRED || state == QUEUE_FAILED ||
	       state == QUEUE_DELIVERED || state == QUEUE_EXPANDED;
}

static struct key due_key(const struct queue_item *q)
{
	return key_make2(KIND_DUE, (uint64_t)MAX(q->due_us, (int64_t)0), q->id);
}

static void item_save(struct store *s, const struct queue_item *q)
{
	struct key k = key_make1(KIND_QUEUE, q->id), due = due_key(q);

	buf_clear(&s->value);
	queue_item_put(&s->value, q);
	if (buf_failed(&s->value))
		kv_fail(s->kv, ERR_TOO_LONG);
	kv_put(s->kv, &k, buf_str(&s->value));
	if (is_due_state(q->state))
		kv_put(s->kv, &due, STR_EMPTY);
}

static void item_remove_due(struct store *s, const struct queue_item *q)
{
	struct key due = due_key(q);

	if (is_due_state(q->state))
		kv_delete(s->kv, &due);
}

enum err queue_add(struct store *s, struct queue_item *q)
{
	q->id = next_queue(s);
	item_save(s, q);
	return ERR_OK;
}

static enum err item_end(struct store *s, struct pending *p, const struct queue_item *q)
{
	struct key k = key_make1(KIND_QUEUE, q->id);

	item_remove_due(s, q);
	kv_delete(s->kv, &k);
	return body_refer(s, p, q->body, -1);
}

static enum err token_check(struct store *s, uint64_t id, uint64_t token)
{
	const struct lease *l = lease_find(s, id);

	if (!token)
		return ERR_OK;
	return l && l->token == token ? ERR_OK : ERR_STALE;
}

enum err queue_end(struct store *s, struct pending *p, uint64_t id, uint64_t token)
{
	struct queue_item q;
	enum err err = item_load(s, KV_PENDING, id, &q);

	if (!err)
		err = token_check(s, id, token);
	return err ? err : item_end(s, p, &q);
}

static void record_encode(struct buf *out, const struct queue_item *q, uint64_t token)
{
	struct rec_queue_record r = { .id = q->id,
				      .token = token,
				      .message = q->message,
				      .sender = q->sender,
				      .address = q->address,
				      .original = q->original,
				      .orcpt = q->orcpt,
				      .notify = q->notify,
				      .ret = q->ret,
				      .envid = q->envid,
				      .smtputf8 = q->is_smtputf8,
				      .body_type = q->body_type,
				      .size = q->size,
				      .created_us = q->created_us,
				      .due_us = q->due_us,
				      .warned_us = q->warned_us,
				      .attempts = q->attempts,
				      .state = q->state,
				      .remote = q->remote,
				      .reply = q->reply,
				      .status = q->status };

	rec_queue_record_put(out, &r);
}

static bool fits(const struct buf *out)
{
	return buf_len(out) + RECORD_ROOM < RECORDS_ROOM;
}

static bool is_leased(struct store *s, uint64_t id, int64_t now_us)
{
	const struct lease *l = lease_find(s, id);

	return l && (l->is_settling || l->until_us > now_us);
}

static enum err lease_one(struct store *s, uint64_t id, const struct msg_q_lease *in,
			  struct buf *out)
{
	struct queue_item q;
	struct lease *l;
	enum err err = item_load(s, KV_DURABLE, id, &q);

	if (err)
		return err == ERR_NOT_FOUND ? ERR_DAMAGED : err;
	l = lease_take(s, id, in->until_us);
	if (!l)
		return ERR_BUSY;
	record_encode(out, &q, l->token);
	return ERR_OK;
}

enum err store_q_lease(struct store *s, const struct msg_q_lease *in, struct store_reply *r,
		       struct msg_q_records *out)
{
	struct key prefix = key_make(KIND_DUE);
	struct kv_cursor c;
	uint64_t numbers[3];
	uint32_t count = 0;
	str key, value;
	enum err err =
		kv_cursor_open(s->kv, KV_DURABLE, key_str(&prefix), key_str(&prefix), false, &c);

	buf_clear(&r->a);
	*out = (struct msg_q_records){ .next = 0 };
	while (!err && !(err = kv_cursor_next(&c, &key, &value))) {
		if (!key_parse(key, KIND_DUE, 2, numbers)) {
			err = ERR_DAMAGED;
			break;
		}
		if (is_leased(s, numbers[1], in->now_us))
			continue;
		if ((int64_t)numbers[0] > in->now_us || count >= in->max || !fits(&r->a)) {
			out->next_due_us = (int64_t)numbers[0];
			break;
		}
		err = lease_one(s, numbers[1], in, &r->a);
		count += !err;
	}
	kv_cursor_close(&c);
	kv_release(s->kv);
	/* More than can be leased at once: what there is goes first. */
	if (err == ERR_BUSY && count)
		err = ERR_OK;
	out->records = buf_str(&r->a);
	return err == ERR_EOF ? ERR_OK : err;
}

enum err store_q_scan(struct store *s, const struct msg_q_scan *in, struct store_reply *r,
		      struct msg_q_records *out)
{
	struct key prefix = key_make(KIND_QUEUE), from = key_make1(KIND_QUEUE, in->from);
	struct kv_cursor c;
	struct queue_item q;
	uint64_t numbers[3];
	uint32_t count = 0;
	str key, value;
	enum err err =
		kv_cursor_open(s->kv, KV_DURABLE, key_str(&prefix), key_str(&from), false, &c);

	buf_clear(&r->a);
	*out = (struct msg_q_records){ .next = 0 };
	while (!err && !(err = kv_cursor_next(&c, &key, &value))) {
		if (!key_parse(key, KIND_QUEUE, 1, numbers)) {
			err = ERR_DAMAGED;
			break;
		}
		if ((err = queue_item_get(value, numbers[0], &q)))
			break;
		if (count++ >= in->max || buf_len(&r->a) + value.n + RECORD_ROOM > RECORDS_ROOM) {
			out->next = q.id;
			break;
		}
		record_encode(&r->a, &q, 0);
	}
	kv_cursor_close(&c);
	kv_release(s->kv);
	out->records = buf_str(&r->a);
	return err == ERR_EOF ? ERR_OK : err;
}

static void outcome_finish(struct pending *p, enum err err)
{
	struct lease *l = lease_find(p->store, p->finish_id);

	if (l && err)
		l->is_settling = false;
	else if (l)
		lease_drop(p->store, p->finish_id);
}

static enum err outcome_apply(struct store *s, struct pending *p, const struct msg_q_outcome *in)
{
	struct queue_item q;
	enum err err = item_load(s, KV_PENDING, in->id, &q);

	if (!err)
		err = token_check(s, in->id, in->token);
	if (err)
		return err;
	if (in->state == QUEUE_SENT || in->state == QUEUE_DELETED)
		return item_end(s, p, &q);
	if (!is_due_state(in->state) && in->state != QUEUE_HELD)
		return ERR_PROTOCOL;
	item_remove_due(s, &q);
	q.state = in->state;
	q.due_us = in->due_us;
	if (in->warned_us)
		q.warned_us = in->warned_us;
	if (in->attempted) {
		q.attempts++;
		q.remote = in->remote;
		q.reply = in->reply;
		q.status = in->status;
	}
	item_save(s, &q);
	p->wakes_queue = !in->token;
	return ERR_OK;
}

enum err store_q_outcome(struct store *s, const struct msg_q_outcome *in, store_done *done,
			 void *arg)
{
	struct pending *p = pending_new(s, done, arg);
	struct lease *l;
	enum err err = p ? kv_begin(s->kv, true) : ERR_NO_MEMORY;

	if (!err && !(MUTANT(outcome_not_kept) && in->state == QUEUE_SENT) &&
	    (err = outcome_apply(s, p, in)))
		kv_cancel(s->kv);
	if (err) {
		pending_free(p);
		return err;
	}
	/* Until it is durable nobody may be given the record as it was, leased before or not. */
	if ((l = lease_find(s, in->id)) || (l = lease_take(s, in->id, 0)))
		l->is_settling = true;
	p->finish = outcome_finish;
	p->finish_id = in->id;
	err = pending_end(p);
	if (err && l)
		l->is_settling = false;
	return err;
}

enum err store_q_body(struct store *s, const struct msg_q_body *in, struct store_reply *r,
		      struct msg_q_body_reply *out)
{
	struct rec_body_location at;
	struct queue_item q;
	str rest;
	enum err err = item_load(s, KV_DURABLE, in->id, &q);

	buf_clear(&r->a);
	*out = (struct msg_q_body_reply){ .file = -1 };
	if (!err)
		err = token_check(s, in->id, in->token);
	if (!err && !in->token)
		err = ERR_STALE;
	if (!err)
		err = location_put(s, &r->a, q.body, q.key);
	if (!err) {
		rest = buf_str(&r->a);
		err = rec_body_location_get(&rest, &at);
	}
	if (!err)
		err = store_segment(s, at.segment, q.body, &out->file);
	out->location = buf_str(&r->a);
	kv_release(s->kv);
	return err;
}
