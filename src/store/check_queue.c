/* fsck's look at the queue: each record can be read, its body too, and each one that is due is
 * found by its time.
 *
 * A record whose body is damaged cannot be sent any more. A repair takes it out and puts what is
 * left of it aside, with its sender and recipient: whom to tell is a human's decision.
 */
#include "store/check_priv.h"

#include <stdio.h>

enum { NAME_SIZE = 96, NOTE_MAX = 8192 };

static bool is_due(const struct queue_item *q)
{
	return q->state != QUEUE_HELD;
}

static struct key due_key(const struct queue_item *q)
{
	return key_make2(KIND_DUE, (uint64_t)MAX(q->due_us, (int64_t)0), q->id);
}

static enum err item_aside(struct check *c, const struct queue_item *q, const struct body *d)
{
	char name[NAME_SIZE];
	struct buf note;
	enum err err;

	snprintf(name, sizeof(name), "queue-%llu", (unsigned long long)q->id);
	buf_init(&note, NOTE_MAX);
	buf_printf(&note, "queue %llu\nfrom %.*s\nto %.*s\nbody %llu\n", (unsigned long long)q->id,
		   STR_ARGS(str_head(q->sender, 1000)), STR_ARGS(str_head(q->address, 1000)),
		   (unsigned long long)q->body);
	err = check_body_aside(c, name, STR_EMPTY, d, q->body, q->key, buf_str(&note));
	buf_free(&note);
	return err;
}

static enum err item_lost(struct check *c, str key, const struct queue_item *q,
			  enum body_state state, const struct body *d)
{
	struct key due = due_key(q);

	check_tell(c,
		   (struct check_finding){ .level = CHECK_LOSS,
					   .what = "queue-message",
					   .queue = q->id,
					   .body = q->body,
					   .address = q->address },
		   "its text is damaged, and it cannot be sent (from %.*s)",
		   STR_ARGS(str_head(q->sender, 320)));
	check_fix(c, RECORD_DELETE, key, STR_EMPTY);
	check_fix(c, RECORD_DELETE, key_str(&due), STR_EMPTY);
	return check_repairs(c) ? item_aside(c, q, state == BODY_BAD ? d : NULL) : ERR_OK;
}

static enum err item_check(struct check *c, str key, uint64_t id, str value)
{
	struct check_finding f = { .level = CHECK_LOSS, .what = "record", .queue = id };
	struct queue_item q;
	struct body d = { 0 };
	enum body_state state;
	struct key due;
	str empty;
	enum err err;

	c->result->queue++;
	if (queue_item_get(value, id, &q)) {
		check_tell(c, f, "the queue's record cannot be read");
		return ERR_OK;
	}
	if ((err = check_body(c, q.body, q.key, &d, &state)))
		return err;
	if (state != BODY_GOOD)
		return item_lost(c, key, &q, state, &d);
	due = due_key(&q);
	err = is_due(&q) ? kv_get(c->view, KV_DURABLE, &due, &empty) : ERR_OK;
	if (err == ERR_NOT_FOUND) {
		f.level = CHECK_DAMAGE;
		f.what = "queue-due";
		f.address = q.address;
		check_tell(c, f, "nobody would have sent it: it is not among those that are due");
		check_fix(c, RECORD_PUT, key_str(&due), STR_EMPTY);
		err = ERR_OK;
	}
	return err;
}

static enum err due_check(struct check *c)
{
	struct key prefix = key_make(KIND_DUE), k;
	struct kv_cursor cursor;
	struct queue_item q;
	uint64_t numbers[3];
	str key, value;
	enum err err = kv_cursor_open(c->view, KV_DURABLE, key_str(&prefix), key_str(&prefix),
				      false, &cursor);

	while (!err && !(err = kv_cursor_next(&cursor, &key, &value))) {
		if (!key_parse(key, KIND_DUE, 2, numbers))
			continue;
		k = key_make1(KIND_QUEUE, numbers[1]);
		err = kv_get(c->view, KV_DURABLE, &k, &value);
		if (!err && !queue_item_get(value, numbers[1], &q) && is_due(&q) &&
		    (uint64_t)MAX(q.due_us, (int64_t)0) == numbers[0])
			continue;
		if (err && err != ERR_NOT_FOUND)
			break;
		err = ERR_OK;
		check_tell(c,
			   (struct check_finding){ .level = CHECK_DAMAGE,
						   .what = "queue-due",
						   .queue = numbers[1] },
			   "is among those that are due, and is not");
		check_fix(c, RECORD_DELETE, key, STR_EMPTY);
	}
	kv_cursor_close(&cursor);
	return err == ERR_EOF ? ERR_OK : err;
}

enum err check_queue(struct check *c, uint64_t *next)
{
	struct key prefix = key_make(KIND_QUEUE);
	struct kv_cursor cursor;
	uint64_t numbers[3];
	str key, value;
	enum err err = kv_cursor_open(c->view, KV_DURABLE, key_str(&prefix), key_str(&prefix),
				      false, &cursor);

	while (!err && !(err = kv_cursor_next(&cursor, &key, &value))) {
		if (!key_parse(key, KIND_QUEUE, 1, numbers))
			continue;
		*next = MAX(*next, numbers[0] + 1);
		err = item_check(c, key, numbers[0], value);
	}
	kv_cursor_close(&cursor);
	return err == ERR_EOF ? due_check(c) : err;
}
