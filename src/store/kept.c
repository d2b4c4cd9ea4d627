/* Expunged messages, kept for a while: what `posthorn undelete` gives back.
 *
 * A message that is expunged, or goes with its mailbox, leaves its mailbox at once and for every
 * client. Its row goes on as a record of the account, under a stamp: microseconds since 1970 when
 * it went, made unique. That record holds the reference to the body now, so the body stays, and is
 * moved and compressed like any other. It counts towards no quota: whoever expunges has the room
 * back. What is moved to another mailbox is not gone, and leaves nothing here.
 *
 * Recovering makes rows of these again, with new UIDs, in a mailbox of its own name: the mailbox
 * they were in may be gone, renamed, or another one of the same name. It is the administrator's
 * doing and asks for no quota, but counts towards it.
 *
 * After the configured time, and first of all when the disk is full, they go for good. To find them
 * without looking at all accounts, an empty record for each day and account says that there are
 * some.
 */
#include "store/store_priv.h"

enum {
	KEPT_AT_ONCE_MAX = 100000, /* of a mailbox that goes whole: one commit must hold them */
	EXPIRE_MAX = 500,	   /* in one commit */
	RECOVER_MAX = 500,
	EXPIRE_SECONDS = 60,
};

#define DAY_US ((uint64_t)86400 * 1000000)

static uint64_t wall(void)
{
	int64_t now = os_wall_us();

	return now > 0 ? (uint64_t)now : 0;
}

bool messages_are_kept(const struct change *c)
{
	return c->store->options.limits.keep_us > 0 && !c->store->kv->is_full &&
	       c->kept < KEPT_AT_ONCE_MAX;
}

/* The clock may have been set back: what is there is not overwritten. */
static enum err stamp_make(struct store *s, uint64_t account, struct key *k)
{
	uint64_t stamp = MAX(wall(), s->kept_stamp + 1);
	str value;
	enum err err;

	do
		*k = key_make2(KIND_KEPT, account, stamp++);
	while (!(err = kv_get(s->kv, KV_PENDING, k, &value)));
	s->kept_stamp = stamp - 1;
	return err == ERR_NOT_FOUND ? ERR_OK : err;
}

static void day_mark(struct store *s, uint64_t account)
{
	struct key k = key_make2(KIND_KEPT_DAY, s->kept_stamp / DAY_US, account);
	str value;
	enum err err = kv_get(s->kv, KV_PENDING, &k, &value);

	if (err == ERR_NOT_FOUND)
		kv_put(s->kv, &k, STR_EMPTY);
	else if (err)
		kv_fail(s->kv, err);
}

enum err message_keep(struct change *c, const struct mailbox *m, const struct row *r)
{
	struct store *s = c->store;
	struct key k;
	enum err err = stamp_make(s, c->id, &k);

	if (err)
		return err;
	buf_clear(&s->value);
	kept_put(&s->value, r, m->name);
	c->kept++;
	kv_put(s->kv, &k, buf_str(&s->value));
	day_mark(s, c->id);
	return ERR_OK;
}

/* ---- going for good ---- */

/* Up to `max` of an account's, with stamps in [from, to]. *left: there are more. */
static enum err account_expire(struct store *s, struct pending *p, uint64_t account, uint64_t from,
			       uint64_t to, unsigned max, unsigned *count, bool *left)
{
	struct key prefix = key_make1(KIND_KEPT, account),
		   first = key_make2(KIND_KEPT, account, from);
	struct kv_cursor cursor;
	uint64_t numbers[3];
	struct row r;
	str key, value, mailbox;
	enum err err = kv_cursor_open(s->kv, KV_PENDING, key_str(&prefix), key_str(&first), false,
				      &cursor);

	*left = false;
	while (!err && !(err = kv_cursor_next(&cursor, &key, &value))) {
		struct key k;

		if (!key_parse(key, KIND_KEPT, 2, numbers)) {
			err = ERR_DAMAGED;
			break;
		}
		if (numbers[1] > to)
			break;
		if (*count >= max) {
			*left = true;
			break;
		}
		/* One whose place is not known yet is a moment old: the next round. */
		if ((err = kept_get(value, &r, &mailbox)))
			break;
		k = key_make2(KIND_KEPT, account, numbers[1]);
		kv_delete(s->kv, &k);
		err = body_refer(s, p, r.body, -1);
		++*count;
	}
	kv_cursor_close(&cursor);
	return err == ERR_EOF ? ERR_OK : err;
}

static enum err days_expire(struct store *s, struct pending *p, uint64_t limit, unsigned *count)
{
	struct key prefix = key_make(KIND_KEPT_DAY);
	struct kv_cursor cursor;
	uint64_t numbers[3];
	bool left = false;
	str key, value;
	enum err err = kv_cursor_open(s->kv, KV_PENDING, key_str(&prefix), key_str(&prefix), false,
				      &cursor);

	while (!err && !left && *count < EXPIRE_MAX &&
	       !(err = kv_cursor_next(&cursor, &key, &value))) {
		struct key k;
		uint64_t end;

		if (!key_parse(key, KIND_KEPT_DAY, 2, numbers)) {
			err = ERR_DAMAGED;
			break;
		}
		end = numbers[0] * DAY_US + DAY_US - 1;
		if (numbers[0] > limit / DAY_US)
			break;
		err = account_expire(s, p, numbers[1], numbers[0] * DAY_US, MIN(end, limit),
				     EXPIRE_MAX, count, &left);
		k = key_make2(KIND_KEPT_DAY, numbers[0], numbers[1]);
		if (!err && !left && end <= limit)
			kv_delete(s->kv, &k);
	}
	kv_cursor_close(&cursor);
	return err == ERR_EOF ? ERR_OK : err;
}

/* On a full disk nothing is kept; the oldest go first. */
static uint64_t limit_of(const struct store *s)
{
	uint64_t now = wall(), keep = (uint64_t)MAX(s->options.limits.keep_us, (int64_t)0);

	return s->kv->is_full ? now : now - MIN(keep, now);
}

enum err store_kept_expire(struct store *s)
{
	int64_t now = os_monotonic_ns();
	unsigned count = 0;
	struct pending *p;
	enum err err;

	if (now < s->kept_next && !s->kv->is_full)
		return ERR_OK;
	s->kept_next = now + (int64_t)EXPIRE_SECONDS * 1000000000;
	if (!(p = pending_new(s, NULL, NULL)))
		return ERR_NO_MEMORY;
	err = kv_begin(s->kv, true);
	if (!err && (err = days_expire(s, p, limit_of(s), &count)))
		kv_cancel(s->kv);
	if (err) {
		pending_free(p);
		return err;
	}
	if (count >= EXPIRE_MAX)
		s->kept_next = now;
	s->expired += count;
	return pending_end(p);
}

/* ---- looking and recovering ---- */

enum err store_account_find(struct store *s, str address, uint64_t *account)
{
	struct key prefix = key_make(KIND_ACCOUNT);
	struct kv_cursor cursor;
	struct account a;
	uint64_t numbers[3];
	str key, value;
	enum err err = kv_cursor_open(s->kv, KV_DURABLE, key_str(&prefix), key_str(&prefix), false,
				      &cursor);

	while (!err && !(err = kv_cursor_next(&cursor, &key, &value))) {
		if (!key_parse(key, KIND_ACCOUNT, 1, numbers))
			err = ERR_DAMAGED;
		else
			err = account_get(value, &a);
		if (!err && str_case_eq(a.address, address)) {
			*account = numbers[0];
			break;
		}
	}
	kv_cursor_close(&cursor);
	kv_release(s->kv);
	return err == ERR_EOF ? ERR_NOT_FOUND : err;
}

enum err store_kept_each(struct store *s, uint64_t account, uint64_t from,
			 bool (*each)(void *arg, const struct store_kept *k), void *arg)
{
	struct key prefix = key_make1(KIND_KEPT, account),
		   first = key_make2(KIND_KEPT, account, from);
	struct kv_cursor cursor;
	struct store_kept k;
	uint64_t numbers[3];
	struct row r;
	str key, value;
	enum err err = kv_cursor_open(s->kv, KV_DURABLE, key_str(&prefix), key_str(&first), false,
				      &cursor);

	while (!err && !(err = kv_cursor_next(&cursor, &key, &value))) {
		if (!key_parse(key, KIND_KEPT, 2, numbers))
			err = ERR_DAMAGED;
		else
			err = kept_get(value, &r, &k.mailbox);
		if (err)
			break;
		k.stamp = numbers[1];
		k.uid = r.uid;
		k.size = r.size;
		k.received_us = r.received_us;
		if (!each(arg, &k))
			break;
	}
	kv_cursor_close(&cursor);
	kv_release(s->kv);
	return err == ERR_EOF ? ERR_OK : err;
}

/* The oldest first, so that the new UIDs are in the order in which they went. */
static enum err recover(struct change *c, uint64_t from, str name, struct store_recovered *out)
{
	struct store *s = c->store;
	struct key prefix = key_make1(KIND_KEPT, c->id), first = key_make2(KIND_KEPT, c->id, from);
	struct kv_cursor cursor;
	uint64_t numbers[3];
	struct mailbox m;
	struct row r;
	str key, value, mailbox;
	enum err err = mailbox_obtain(c, name, &m);

	if (!err)
		err = kv_cursor_open(s->kv, KV_PENDING, key_str(&prefix), key_str(&first), false,
				     &cursor);
	if (err)
		return err;
	while (!(err = kv_cursor_next(&cursor, &key, &value))) {
		struct key k;

		if (!key_parse(key, KIND_KEPT, 2, numbers)) {
			err = ERR_DAMAGED;
			break;
		}
		if (out->count == RECOVER_MAX) {
			out->next = numbers[1];
			break;
		}
		if ((err = kept_get(value, &r, &mailbox)))
			break;
		k = key_make2(KIND_KEPT, c->id, numbers[1]);
		kv_delete(s->kv, &k);
		/* Or the client would take it away again. */
		r.flags.w[0] &= ~(uint64_t)MSG_FLAG_DELETED;
		row_copy(c, &m, &r);
		out->count++;
	}
	kv_cursor_close(&cursor);
	if (err && err != ERR_EOF)
		return err;
	m.modseq = c->modseq;
	mailbox_save(c, &m);
	pending_hint(c->pending, c->id, m.id, c->modseq);
	return ERR_OK;
}

static bool is_there(void *arg, const struct store_kept *k UNUSED)
{
	*(bool *)arg = true;
	return false;
}

enum err store_undelete(struct store *s, uint64_t account, uint64_t from, str mailbox,
			struct store_recovered *out, store_done *done, void *arg)
{
	struct pending *p;
	struct change c;
	bool any = false;
	enum err err = store_kept_each(s, account, from, is_there, &any);

	*out = (struct store_recovered){ .count = 0 };
	if (err || !any)
		return err ? err : ERR_NOT_FOUND;
	if (!(p = pending_new(s, done, arg)))
		return ERR_NO_MEMORY;
	err = kv_begin(s->kv, false);
	if (!err) {
		err = change_begin(s, p, account, false, &c);
		if (!err)
			err = recover(&c, from, mailbox, out);
		if (err)
			kv_cancel(s->kv);
	}
	if (err) {
		pending_free(p);
		return err;
	}
	change_end(&c);
	return pending_end(p);
}
