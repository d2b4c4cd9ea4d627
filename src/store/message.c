/* Changes of messages: flags, expunge, copy, move.
 *
 * They act on messages that somebody can have seen, that is on durable rows, and compute from what
 * is pending for them: a message whose removal is under way is not there any more. Rows that are
 * not durable are left alone: no client knows their UIDs yet, and where their cold part lies is not
 * known before their frame is written.
 */
#include "store/store_priv.h"

#include "base/mutant.h"
struct row_walk {
	struct store *store;
	uint64_t account;
	uint32_t mailbox;
	str ranges;	     /* rec_uid_range */
	uint32_t next, last; /* of the current range; next 0: take another */
	struct kv_cursor cursor;
	bool has_cursor;
};

static void row_walk_close(struct row_walk *w)
{
	if (w->has_cursor)
		kv_cursor_close(&w->cursor);
	w->has_cursor = false;
}

/* The next range, ascending and apart from the one before. ERR_EOF. */
static enum err row_walk_range(struct row_walk *w)
{
	struct rec_uid_range r;
	struct key from, prefix;
	uint32_t after = w->last;
	enum err err = rec_uid_range_get(&w->ranges, &r);

	if (err)
		return err;
	if (r.first == 0 || r.first > r.last || r.first <= after)
		return ERR_PROTOCOL;
	row_walk_close(w);
	w->next = r.first;
	w->last = r.last;
	if (r.first == r.last)
		return ERR_OK;
	prefix = key_make2(KIND_ROW, w->account, w->mailbox);
	from = key_make3(KIND_ROW, w->account, w->mailbox, r.first);
	err = kv_cursor_open(w->store->kv, KV_DURABLE, key_str(&prefix), key_str(&from), false,
			     &w->cursor);
	w->has_cursor = !err;
	return err;
}

/* The durable row next in the current range. ERR_EOF: none left in it. */
static enum err row_walk_durable(struct row_walk *w, struct key *key, str *value, uint32_t *uid)
{
	uint64_t numbers[3];
	str found;
	enum err err;

	if (!w->has_cursor) {
		*uid = w->next;
		w->next = 0;
		*key = key_make3(KIND_ROW, w->account, w->mailbox, *uid);
		err = *uid ? kv_get(w->store->kv, KV_DURABLE, key, value) : ERR_EOF;
		return err == ERR_NOT_FOUND ? ERR_EOF : err;
	}
	if ((err = kv_cursor_next(&w->cursor, &found, value)))
		return err;
	if (!key_parse(found, KIND_ROW, 3, numbers))
		return ERR_DAMAGED;
	if (numbers[2] > w->last)
		return ERR_EOF;
	*uid = (uint32_t)numbers[2];
	*key = key_make3(KIND_ROW, w->account, w->mailbox, *uid);
	return ERR_OK;
}

static enum err row_walk_next(struct row_walk *w, struct row *row)
{
	bool is_deleted = false;
	struct key key;
	uint32_t uid;
	str value;
	enum err err;

	for (;;) {
		err = w->last ? row_walk_durable(w, &key, &value, &uid) : ERR_EOF;
		if (err == ERR_EOF) {
			if ((err = row_walk_range(w)))
				return err;
			continue;
		}
		if (err)
			return err;
		if (kv_newer(w->store->kv, &key, &value, &is_deleted) && is_deleted)
			continue;
		return row_get(value, uid, row);
	}
}

static struct row_walk row_walk_of(struct change *c, uint32_t mailbox, str ranges)
{
	return (struct row_walk){
		.store = c->store, .account = c->id, .mailbox = mailbox, .ranges = ranges
	};
}

void row_save(struct change *c, uint32_t mailbox, const struct row *r)
{
	struct key k = key_make3(KIND_ROW, c->id, mailbox, r->uid);

	buf_clear(&c->store->value);
	row_put(&c->store->value, r);
	kv_put(c->store->kv, &k, buf_str(&c->store->value));
	recent_note(c->store, c->id, mailbox, r->modseq, r->uid);
}

void flags_count(struct mailbox *m, struct msg_flags flags, int by)
{
	if (!(flags.w[0] & MSG_FLAG_SEEN))
		m->unseen += (uint32_t)by;
	if (flags.w[0] & MSG_FLAG_DELETED)
		m->deleted += (uint32_t)by;
}

static void message_count(struct change *c, struct mailbox *m, const struct row *r, int by)
{
	m->messages += (uint32_t)by;
	m->bytes += (uint64_t)(by * (int64_t)r->size);
	if (by > 0 || !MUTANT(quota_not_given_back))
		c->account.used += (uint64_t)(by * (int64_t)r->size);
	flags_count(m, r->flags, by);
}

enum err body_refer(struct store *s, struct pending *p, uint64_t body, int64_t by)
{
	struct key k = key_make1(KIND_BODY, body);
	struct body d;
	str value;
	enum err err = kv_get(s->kv, KV_PENDING, &k, &value);

	if (!err)
		err = body_get(value, &d);
	if (err)
		return err == ERR_NOT_FOUND ? ERR_DAMAGED : err;
	if (by < 0 && d.references <= (uint64_t)-by) {
		kv_delete(s->kv, &k);
		if (place_is_file(d.place))
			pending_drop_body(p, body);
		return ERR_OK;
	}
	/* Its frame is not written: a copy of the record would never learn the place. */
	if (place_is_unknown(d.place))
		return ERR_TEMPORARY;
	d.references += (uint64_t)by;
	buf_clear(&s->value);
	body_put(&s->value, &d);
	kv_put(s->kv, &k, buf_str(&s->value));
	return ERR_OK;
}

static struct msg_flags flags_changed(struct msg_flags old, const struct msg_st_commit *in)
{
	const uint64_t mask[2] = { in->flags0 & ~(uint64_t)(0xffff & ~MSG_FLAG_SYSTEM),
				   in->flags1 };
	struct msg_flags f = old;

	for (int i = 0; i < 2; i++)
		f.w[i] = in->mode == 0	 ? mask[i]
			 : in->mode == 1 ? old.w[i] | mask[i]
					 : old.w[i] & ~mask[i];
	return f;
}

static enum err operation_flags(struct change *c, struct mailbox *m, const struct msg_st_commit *in)
{
	struct row_walk w = row_walk_of(c, m->id, in->uids);
	struct uid_list unchanged = { .out = &c->pending->from };
	bool changed = false;
	struct row r;
	enum err err;

	if (in->mode > 2)
		return ERR_PROTOCOL;
	while (!(err = row_walk_next(&w, &r))) {
		struct msg_flags f = flags_changed(r.flags, in);

		/* RFC 7162 3.1.3 */
		if (in->unchanged_since && r.modseq > in->unchanged_since) {
			uid_list_add(&unchanged, r.uid);
			continue;
		}
		if (f.w[0] == r.flags.w[0] && f.w[1] == r.flags.w[1])
			continue;
		flags_count(m, r.flags, -1);
		flags_count(m, f, 1);
		r.flags = f;
		r.modseq = c->modseq;
		row_save(c, m->id, &r);
		changed = true;
	}
	row_walk_close(&w);
	if (err != ERR_EOF)
		return err;
	if (changed) {
		m->modseq = c->modseq;
		mailbox_save(c, m);
		pending_hint(c->pending, c->id, m->id, c->modseq);
	}
	return uid_list_end(&unchanged);
}

/* Which UIDs went with one commit: as ranges, each number the distance from the one before. */
struct tombstone {
	struct buf ranges;
	uint32_t first, last, before;
};

static void tombstone_flush(struct tombstone *t)
{
	if (!t->first)
		return;
	pack_varint(&t->ranges, t->first - t->before);
	pack_varint(&t->ranges, t->last - t->first);
	t->before = t->last;
}

static void tombstone_add(struct tombstone *t, uint32_t uid)
{
	if (t->first && uid == t->last + 1) {
		t->last = uid;
		return;
	}
	tombstone_flush(t);
	t->first = t->last = uid;
}

enum {
	TOMBSTONE_PIECE = 32 * 1024,
	TOMBSTONES_KEPT = 1000, /* of a mailbox, at least: a phone that was off for weeks */
};

/* Pieces of one commit's: their last UID tells them apart. */
static void tombstone_save(struct change *c, struct mailbox *m, struct tombstone *t)
{
	struct key k = key_make3(KIND_TOMBSTONE, c->id, m->id, c->modseq);

	tombstone_flush(t);
	key_number(&k, t->last);
	if (buf_failed(&t->ranges))
		kv_fail(c->store->kv, ERR_NO_MEMORY);
	else
		kv_put(c->store->kv, &k, buf_str(&t->ranges));
	m->tombstones++;
	buf_clear(&t->ranges);
	t->first = t->last = t->before = 0;
}

/* The older ones go when there are too many. Whoever asks for what went since a MODSEQ below the
 * floor is told all UIDs that are not there (RFC 7162 3.2.5.1), which the rows say. */
static enum err tombstones_prune(struct change *c, struct mailbox *m)
{
	struct key prefix = key_make2(KIND_TOMBSTONE, c->id, m->id), k;
	struct kv_cursor cursor;
	str key, value;
	enum err err;

	if (m->tombstones < 2 * TOMBSTONES_KEPT)
		return ERR_OK;
	err = kv_cursor_open(c->store->kv, KV_PENDING, key_str(&prefix), key_str(&prefix), false,
			     &cursor);
	while (!err && m->tombstones > TOMBSTONES_KEPT &&
	       !(err = kv_cursor_next(&cursor, &key, &value))) {
		struct unpack u = { .rest = str_from(key, prefix.n) };
		uint64_t modseq = unpack_key_number(&u);

		if (u.failed || key.n > KEY_MAX) {
			err = ERR_DAMAGED;
			break;
		}
		k.n = (uint8_t)key.n;
		memcpy(k.p, key.p, key.n);
		kv_delete(c->store->kv, &k);
		m->floor = MAX(m->floor, modseq);
		m->tombstones--;
	}
	kv_cursor_close(&cursor);
	if (err != ERR_EOF)
		return err;
	/* From before they were counted. */
	m->tombstones = 0;
	return ERR_OK;
}

static void row_remove(struct change *c, struct mailbox *m, const struct row *r,
		       struct tombstone *t)
{
	struct key k = key_make3(KIND_ROW, c->id, m->id, r->uid);

	kv_delete(c->store->kv, &k);
	message_count(c, m, r, -1);
	tombstone_add(t, r->uid);
	if (buf_len(&t->ranges) > TOMBSTONE_PIECE)
		tombstone_save(c, m, t);
}

static void removed(struct change *c, struct mailbox *m, struct tombstone *t, bool any)
{
	enum err err;

	if (any) {
		if (t->first)
			tombstone_save(c, m, t);
		if ((err = tombstones_prune(c, m)))
			kv_fail(c->store->kv, err);
		m->modseq = c->modseq;
		mailbox_save(c, m);
		pending_hint(c->pending, c->id, m->id, c->modseq);
	}
	buf_free(&t->ranges);
}

/* What it referred to goes, or is kept for a while. A row that is not durable is a delivery of this
 * moment: its place is not known. */
static enum err row_let_go(struct change *c, const struct mailbox *m, const struct row *r)
{
	return messages_are_kept(c) && !place_is_unknown(r->cold)
		       ? message_keep(c, m, r)
		       : body_refer(c->store, c->pending, r->body, -1);
}

static enum err operation_expunge(struct change *c, struct mailbox *m,
				  const struct msg_st_commit *in)
{
	struct row_walk w = row_walk_of(c, m->id, in->uids);
	struct uid_list gone = { .out = &c->pending->from };
	struct tombstone t = { .first = 0 };
	struct row r;
	enum err err;

	buf_init(&t.ranges, 2 * TOMBSTONE_PIECE);
	while (!(err = row_walk_next(&w, &r))) {
		row_remove(c, m, &r, &t);
		uid_list_add(&gone, r.uid);
		if ((err = row_let_go(c, m, &r)))
			break;
	}
	row_walk_close(&w);
	if (MUTANT(uid_given_again) && gone.count)
		m->uidnext = MIN(m->uidnext, gone.last + 1 == m->uidnext ? gone.last : m->uidnext);
	removed(c, m, &t, gone.count > 0);
	return err == ERR_EOF ? uid_list_end(&gone) : err;
}

void row_copy(struct change *c, struct mailbox *to, struct row *r)
{
	r->uid = to->uidnext++;
	r->modseq = c->modseq;
	message_count(c, to, r, 1);
	row_save(c, to->id, r);
}

/* Copies or moves; within one account, so that the email keeps its id. */
static enum err operation_copy(struct change *c, struct mailbox *m, const struct msg_st_commit *in,
			       uint64_t quota)
{
	bool moves = in->op == STORE_OP_MOVE;
	struct row_walk w = row_walk_of(c, m->id, in->uids);
	struct uid_list from = { .out = &c->pending->from }, to = { .out = &c->pending->to };
	struct tombstone t = { .first = 0 };
	struct mailbox target;
	struct row r;
	enum err err = mailbox_load(c->store, KV_PENDING, c->id, in->target, &target);

	if (err || target.is_gone)
		return err ? err : ERR_NOT_FOUND;
	/* RFC 6851 3.3: the source may be the target, as with COPY; the messages get new UIDs. */
	buf_init(&t.ranges, 2 * TOMBSTONE_PIECE);
	while (!(err = row_walk_next(&w, &r))) {
		uid_list_add(&from, r.uid);
		if (moves)
			row_remove(c, m, &r, &t);
		else if ((err = body_refer(c->store, c->pending, r.body, 1)))
			break;
		row_copy(c, m->id == target.id ? m : &target, &r);
		uid_list_add(&to, r.uid);
	}
	row_walk_close(&w);
	removed(c, m, &t, from.count > 0 && moves);
	if (err != ERR_EOF)
		return err;
	if (!moves && quota && c->account.used > quota && from.count)
		return ERR_QUOTA;
	if (from.count) {
		struct mailbox *into = m->id == target.id ? m : &target;

		into->modseq = c->modseq;
		mailbox_save(c, into);
		pending_hint(c->pending, c->id, into->id, c->modseq);
	}
	c->pending->reply.uidvalidity = target.uidvalidity;
	err = uid_list_end(&from);
	return err ? err : uid_list_end(&to);
}

static enum err tombstones_remove(struct change *c, uint32_t mailbox)
{
	struct key prefix = key_make2(KIND_TOMBSTONE, c->id, mailbox), k;
	struct kv_cursor cursor;
	str key, value;
	enum err err = kv_cursor_open(c->store->kv, KV_PENDING, key_str(&prefix), key_str(&prefix),
				      false, &cursor);

	while (!err && !(err = kv_cursor_next(&cursor, &key, &value))) {
		k.n = (uint8_t)MIN(key.n, (size_t)KEY_MAX);
		memcpy(k.p, key.p, k.n);
		kv_delete(c->store->kv, &k);
	}
	kv_cursor_close(&cursor);
	return err == ERR_EOF ? ERR_OK : err;
}

/* Here the pending rows count too, as nothing may be left behind in a mailbox that goes; one whose
 * place is not known yet cannot be moved, and the client is asked to come again. */
enum err messages_move_all(struct change *c, uint32_t from, struct mailbox *to)
{
	struct key prefix = key_make2(KIND_ROW, c->id, from);
	struct tombstone t = { .first = 0 };
	struct kv_cursor cursor;
	struct mailbox m;
	uint64_t numbers[3];
	bool any = false;
	str key, value;
	struct row r;
	enum err err = mailbox_load(c->store, KV_PENDING, c->id, from, &m);

	if (!err)
		err = kv_cursor_open(c->store->kv, KV_PENDING, key_str(&prefix), key_str(&prefix),
				     false, &cursor);
	if (err)
		return err;
	buf_init(&t.ranges, 2 * TOMBSTONE_PIECE);
	while (!err && !(err = kv_cursor_next(&cursor, &key, &value))) {
		if (!key_parse(key, KIND_ROW, 3, numbers) ||
		    row_get(value, (uint32_t)numbers[2], &r)) {
			err = ERR_DAMAGED;
			break;
		}
		if (to && place_is_unknown(r.cold)) {
			err = ERR_TEMPORARY;
			break;
		}
		any = true;
		row_remove(c, &m, &r, &t);
		if (to)
			row_copy(c, to, &r);
		else
			err = row_let_go(c, &m, &r);
	}
	kv_cursor_close(&cursor);
	removed(c, &m, &t, any);
	if (err != ERR_EOF)
		return err;
	return to ? ERR_OK : tombstones_remove(c, from);
}

static enum err operation_recent(struct change *c, struct mailbox *m)
{
	struct mailbox durable;
	enum err err = mailbox_load(c->store, KV_DURABLE, c->id, m->id, &durable);

	if (err || m->recent_uid >= durable.uidnext)
		return err;
	m->recent_uid = durable.uidnext;
	mailbox_save(c, m);
	return ERR_OK;
}

enum err message_operation(struct change *c, const struct msg_st_commit *in, uint64_t quota)
{
	struct mailbox m;
	enum err err = mailbox_load(c->store, KV_PENDING, c->id, in->mailbox, &m);

	if (err || m.is_gone)
		return err ? err : ERR_NOT_FOUND;
	if (in->expected && in->expected != m.uidvalidity)
		return ERR_CONFLICT;
	c->pending->reply.uidvalidity = m.uidvalidity;
	switch (in->op) {
	case STORE_OP_FLAGS:
		return operation_flags(c, &m, in);
	case STORE_OP_EXPUNGE:
		return operation_expunge(c, &m, in);
	case STORE_OP_COPY:
	case STORE_OP_MOVE:
		return operation_copy(c, &m, in, quota);
	case STORE_OP_RECENT:
		return operation_recent(c, &m);
	default:
		return ERR_PROTOCOL;
	}
}

enum err message_add(struct change *c, struct mailbox *m, const struct new_row *n, struct row *out)
{
	struct key k;
	unsigned blob = 0;
	char *cold = NULL;
	enum err err;

	*out = (struct row){ .uid = m->uidnext++,
			     .modseq = c->modseq,
			     .flags = n->flags,
			     .body = n->body,
			     .email = c->account.next_email++,
			     .size = n->prefix_size + n->size,
			     .received_us = n->received_us,
			     .zone = n->zone };
	out->thread = out->email;
	memcpy(out->key, n->key, sizeof(out->key));
	if (n->cold.n) {
		out->cold = PLACE_UNKNOWN;
		if ((err = cold_seal(c->store, n->cold, &cold, &out->cold_size)))
			return err;
		blob = kv_blob(c->store->kv, cold, out->cold_size);
	}
	m->modseq = c->modseq;
	recent_note(c->store, c->id, m->id, c->modseq, out->uid);
	message_count(c, m, out, 1);
	k = key_make3(KIND_ROW, c->id, m->id, out->uid);
	buf_clear(&c->store->value);
	row_put(&c->store->value, out);
	if (n->cold.n)
		kv_put_placed(c->store->kv, &k, buf_str(&c->store->value), blob);
	else
		kv_put(c->store->kv, &k, buf_str(&c->store->value));
	pending_hint(c->pending, c->id, m->id, c->modseq);
	return ERR_OK;
}
