/* fsck's look at what the store would serve: accounts, mailboxes and messages are of one piece.
 *
 * Each message's body and cold part are opened, and whatever is a sum of something else (messages
 * and bytes of a mailbox, use of an account) or an end of it (UIDNEXT, MODSEQ, the next ids) is
 * counted again. What is not as it should be is told, and the record that would make it so is
 * noted (check_fix); only a repair writes it.
 *
 * What a repair does to messages keeps the rules that clients rely on:
 *
 *  - A message whose body cannot be read is expunged (RFC 7162: with its UID among those that
 *    vanished), and what is left of it put aside, with its row.
 *  - One that lost the header lines which delivery put before it is not the same message for a
 *    client that has seen it: it is expunged, and comes again under a new UID.
 *  - Where records of an account are lost for good, its mailboxes get a new UIDVALIDITY (RFC 9051
 *    2.3.1.1): nobody can say which UIDs and flags clients have been told of. Ids and MODSEQ go on
 *    behind a gap.
 */
#include "store/check_priv.h"

#include <stdio.h>
#include <stdlib.h>

enum { NAME_SIZE = 96, NOTE_MAX = 8192 };

struct account_walk {
	struct check *c;
	uint64_t id;
	struct account a;
	struct counters *counters;
	uint64_t used, modseq, email; /* counted; the highest there are */
	uint32_t mailbox;
	bool is_suspect, is_changed;
};

struct mailbox_walk {
	struct account_walk *of;
	struct mailbox m, counted;
	uint32_t uid; /* the highest */
	uint64_t modseq;
	struct buf gone; /* of the tombstone */
	uint32_t gone_last;
	struct row *again; /* to come under new UIDs */
	size_t again_count, again_room;
};

static struct check_finding finding(const struct mailbox_walk *w, enum check_level level,
				    const char *what, uint32_t uid)
{
	return (struct check_finding){ .level = level,
				       .what = what,
				       .account = w->of->id,
				       .address = w->of->a.address,
				       .mailbox = w->m.name,
				       .uid = uid };
}

void check_fix_number(struct check *c, uint8_t op, const struct key *k, struct buf *value)
{
	if (buf_failed(value))
		panic("fsck: no memory for a record");
	check_fix(c, op, key_str(k), buf_str(value));
	buf_clear(value);
}

/* ---- messages ---- */

static void fix_row(struct mailbox_walk *w, uint8_t op, const struct row *r)
{
	struct key k = key_make3(KIND_ROW, w->of->id, w->m.id, r->uid);
	struct buf value;

	buf_init(&value, RECORD_VALUE_MAX);
	if (op == RECORD_PUT)
		row_put(&value, r);
	check_fix_number(w->of->c, op, &k, &value);
	buf_free(&value);
}

static void expunge(struct mailbox_walk *w, const struct row *r)
{
	fix_row(w, RECORD_DELETE, r);
	pack_varint(&w->gone, r->uid - w->gone_last);
	pack_varint(&w->gone, 0);
	w->gone_last = r->uid;
	w->of->is_changed = true;
}

static void count(struct mailbox_walk *w, const struct row *r)
{
	struct mailbox *m = &w->counted;

	m->messages++;
	m->bytes += r->size;
	m->unseen += !(r->flags.w[0] & MSG_FLAG_SEEN);
	m->deleted += (r->flags.w[0] & MSG_FLAG_DELETED) != 0;
	w->of->used += r->size;
}

/* All that is known of a message which cannot be kept. */
static enum err message_aside(struct mailbox_walk *w, const struct row *r, const struct body *d,
			      str prefix, str value)
{
	char name[NAME_SIZE];
	struct buf note;
	enum err err;

	snprintf(name, sizeof(name), "message-%llu-%u-%u", (unsigned long long)w->of->id, w->m.id,
		 r->uid);
	buf_init(&note, NOTE_MAX);
	buf_printf(&note, "account %llu %.*s\nmailbox %u %.*s\nuid %u\nbody %llu\nrow ",
		   (unsigned long long)w->of->id, STR_ARGS(str_head(w->of->a.address, 320)),
		   w->m.id, STR_ARGS(str_head(w->m.name, MAILBOX_NAME_MAX)), r->uid,
		   (unsigned long long)r->body);
	for (size_t i = 0; i < value.n; i++)
		buf_printf(&note, "%02x", (unsigned char)value.p[i]);
	buf_add_char(&note, '\n');
	err = check_body_aside(w->of->c, name, prefix, d, r->body, r->key, buf_str(&note));
	buf_free(&note);
	return err;
}

static enum err again_note(struct mailbox_walk *w, const struct row *r, const struct body *d)
{
	if (w->again_count == w->again_room) {
		size_t room = w->again_room ? w->again_room * 2 : 16;
		struct row *rows = realloc(w->again, room * sizeof(*rows));

		if (!rows)
			return ERR_NO_MEMORY;
		w->again = rows;
		w->again_room = room;
	}
	w->again[w->again_count] = *r;
	w->again[w->again_count].cold = (struct blob_place){ 0 };
	w->again[w->again_count].cold_size = 0;
	w->again[w->again_count++].size = d->size;
	return ERR_OK;
}

static enum err message_check(struct mailbox_walk *w, uint32_t uid, str value)
{
	struct check *c = w->of->c;
	struct body d = { 0 };
	enum body_state state;
	struct row r;
	str prefix;
	enum err err, cold;

	c->result->messages++;
	w->uid = MAX(w->uid, uid);
	if (row_get(value, uid, &r)) {
		check_tell(c, finding(w, CHECK_LOSS, "record", uid), "its row cannot be read");
		expunge(w, &(struct row){ .uid = uid });
		return ERR_OK;
	}
	w->modseq = MAX(w->modseq, r.modseq);
	w->of->email = MAX(w->of->email, r.email);
	if ((err = check_body(c, r.body, r.key, &d, &state)))
		return err;
	cold = check_cold(c, &r, &prefix);
	if (cold && cold != ERR_DAMAGED)
		return cold;
	if (state != BODY_GOOD) {
		struct check_finding f = finding(w, CHECK_LOSS, "message", uid);

		f.body = r.body;
		check_tell(c, f, "%s",
			   state == BODY_BAD ? "its text is damaged"
					     : "where its text lies is not known");
		if (check_repairs(c))
			err = message_aside(w, &r, state == BODY_BAD ? &d : NULL, prefix, value);
		expunge(w, &r);
		return err;
	}
	if (cold && r.size == d.size) {
		check_tell(c, finding(w, CHECK_DAMAGE, "message-parse", uid),
			   "what was kept of its headers for a quick answer is damaged");
		r.cold = (struct blob_place){ 0 };
		r.cold_size = 0;
		fix_row(w, RECORD_PUT, &r);
	} else if (cold) {
		check_tell(c, finding(w, CHECK_LOSS, "message-prefix", uid),
			   "the header lines that delivery put before it are damaged");
		expunge(w, &r);
		return again_note(w, &r, &d);
	} else if (r.size != d.size + prefix.n)
		check_tell(c, finding(w, CHECK_LOSS, "message-size", uid),
			   "its row says %llu bytes, and there are %llu",
			   (unsigned long long)r.size, (unsigned long long)(d.size + prefix.n));
	count(w, &r);
	return ERR_OK;
}

/* ---- mailboxes ---- */

static void again_add(struct mailbox_walk *w, uint64_t modseq)
{
	for (size_t i = 0; i < w->again_count; i++) {
		struct row *r = &w->again[i];

		r->uid = w->counted.uidnext++;
		r->modseq = modseq;
		fix_row(w, RECORD_PUT, r);
		count(w, r);
	}
}

static void mailbox_fix(struct mailbox_walk *w)
{
	uint64_t modseq = w->of->modseq;
	struct key k = key_make2(KIND_MAILBOX, w->of->id, w->m.id), t;
	struct buf value;

	buf_init(&value, RECORD_VALUE_MAX);
	again_add(w, modseq);
	if (w->gone_last) {
		t = key_make3(KIND_TOMBSTONE, w->of->id, w->m.id, modseq);
		key_number(&t, w->gone_last);
		buf_add(&value, buf_str(&w->gone));
		check_fix_number(w->of->c, RECORD_PUT, &t, &value);
		w->counted.tombstones++;
	}
	w->counted.modseq = modseq;
	mailbox_put(&value, &w->counted);
	check_fix_number(w->of->c, RECORD_PUT, &k, &value);
	w->of->is_changed = true;
	buf_free(&value);
}

/* What was counted, against what the record says. */
static void mailbox_judge(struct mailbox_walk *w)
{
	struct check *c = w->of->c;
	struct mailbox *m = &w->m, *n = &w->counted;
	bool differs = m->messages != n->messages || m->bytes != n->bytes ||
		       m->unseen != n->unseen || m->deleted != n->deleted;

	if (differs && !w->gone_last)
		check_tell(c, finding(w, CHECK_DAMAGE, "mailbox-counters", 0),
			   "says %u messages of %llu bytes, %u unseen, %u deleted; there are %u of "
			   "%llu, "
			   "%u, %u",
			   m->messages, (unsigned long long)m->bytes, m->unseen, m->deleted,
			   n->messages, (unsigned long long)n->bytes, n->unseen, n->deleted);
	if (m->uidnext <= w->uid) {
		check_tell(c, finding(w, CHECK_DAMAGE, "mailbox-uidnext", w->uid),
			   "UIDNEXT is %u, and there is a message with that UID", m->uidnext);
		n->uidnext = w->uid + 1;
		differs = true;
	}
	if (m->modseq < w->modseq) {
		check_tell(c, finding(w, CHECK_DAMAGE, "mailbox-modseq", 0),
			   "MODSEQ is %llu, and a message has %llu", (unsigned long long)m->modseq,
			   (unsigned long long)w->modseq);
		differs = true;
	}
	if (w->of->is_suspect && !m->is_gone) {
		check_tell(c, finding(w, CHECK_NOTE, "uidvalidity", 0),
			   "gets a new UIDVALIDITY by a repair, as changes of it may be lost");
		n->uidvalidity = ++w->of->counters->uidvalidity;
		differs = true;
	}
	if (differs || w->gone_last)
		mailbox_fix(w);
}

static enum err messages_check(struct mailbox_walk *w)
{
	struct key prefix = key_make2(KIND_ROW, w->of->id, w->m.id);
	struct kv_cursor cursor;
	uint64_t numbers[3];
	str key, value;
	enum err err = kv_cursor_open(w->of->c->view, KV_DURABLE, key_str(&prefix),
				      key_str(&prefix), false, &cursor);

	while (!err && !(err = kv_cursor_next(&cursor, &key, &value)))
		if (key_parse(key, KIND_ROW, 3, numbers) && numbers[2] <= UINT32_MAX)
			err = message_check(w, (uint32_t)numbers[2], value);
	kv_cursor_close(&cursor);
	return err == ERR_EOF ? ERR_OK : err;
}

static enum err mailbox_check(struct account_walk *of, uint32_t id, str value)
{
	struct mailbox_walk w = { .of = of };
	enum err err;

	of->mailbox = MAX(of->mailbox, id);
	of->c->result->mailboxes++;
	if (mailbox_get(value, id, &w.m)) {
		check_tell(of->c,
			   (struct check_finding){ .level = CHECK_LOSS,
						   .what = "record",
						   .account = of->id,
						   .address = of->a.address },
			   "the record of mailbox %u cannot be read", id);
		return ERR_OK;
	}
	w.counted = w.m;
	w.counted.messages = w.counted.unseen = w.counted.deleted = 0;
	w.counted.bytes = 0;
	buf_init(&w.gone, RECORD_VALUE_MAX);
	err = messages_check(&w);
	if (!err && buf_failed(&w.gone))
		err = ERR_TOO_MANY;
	if (!err)
		mailbox_judge(&w);
	of->counters->uidvalidity = MAX(of->counters->uidvalidity, w.m.uidvalidity);
	if (w.m.modseq > of->a.modseq && w.m.modseq >= of->modseq)
		of->modseq = w.m.modseq + 1;
	buf_free(&w.gone);
	free(w.again);
	return err;
}

/* ---- accounts ---- */

static enum err mailboxes_check(struct account_walk *w)
{
	struct key prefix = key_make1(KIND_MAILBOX, w->id);
	struct kv_cursor cursor;
	uint64_t numbers[3];
	str key, value;
	enum err err = kv_cursor_open(w->c->view, KV_DURABLE, key_str(&prefix), key_str(&prefix),
				      false, &cursor);

	while (!err && !(err = kv_cursor_next(&cursor, &key, &value)))
		if (key_parse(key, KIND_MAILBOX, 2, numbers) && numbers[1] <= UINT32_MAX)
			err = mailbox_check(w, (uint32_t)numbers[1], value);
	kv_cursor_close(&cursor);
	return err == ERR_EOF ? ERR_OK : err;
}

static enum err kept_check(struct account_walk *w)
{
	struct key prefix = key_make1(KIND_KEPT, w->id);
	struct kv_cursor cursor;
	str key, value, mailbox;
	enum err err = kv_cursor_open(w->c->view, KV_DURABLE, key_str(&prefix), key_str(&prefix),
				      false, &cursor);

	while (!err && !(err = kv_cursor_next(&cursor, &key, &value))) {
		enum body_state state = BODY_MISSING;
		struct body d;
		struct row r;

		if (!kept_get(value, &r, &mailbox))
			err = check_body(w->c, r.body, r.key, &d, &state);
		if (err || state == BODY_GOOD)
			continue;
		check_tell(w->c,
			   (struct check_finding){ .level = CHECK_LOSS,
						   .what = "expunged-message",
						   .account = w->id,
						   .address = w->a.address,
						   .body = r.body },
			   "a message that was expunged can no longer be recovered");
		check_fix(w->c, RECORD_DELETE, key, STR_EMPTY);
	}
	kv_cursor_close(&cursor);
	return err == ERR_EOF ? ERR_OK : err;
}

static void account_judge(struct account_walk *w)
{
	struct check_finding f = { .level = CHECK_DAMAGE,
				   .what = "account-counters",
				   .account = w->id,
				   .address = w->a.address };
	struct key k = key_make1(KIND_ACCOUNT, w->id);
	bool differs = w->is_changed || w->is_suspect;
	struct account a = w->a;
	struct buf value;

	a.used = w->used;
	if (a.used != w->a.used && !w->is_changed)
		check_tell(w->c, f, "says %llu bytes in use, and there are %llu",
			   (unsigned long long)w->a.used, (unsigned long long)a.used);
	if (a.next_email <= w->email || a.next_mailbox <= w->mailbox) {
		check_tell(w->c, f, "its next id is in use");
		differs = true;
	}
	a.next_email = MAX(a.next_email, w->email + 1) + (w->is_suspect ? CHECK_GAP : 0);
	a.next_mailbox = MAX(a.next_mailbox, w->mailbox + 1) + (w->is_suspect ? CHECK_GAP : 0);
	a.modseq = MAX(a.modseq, w->modseq);
	if (!differs && a.used == w->a.used)
		return;
	buf_init(&value, RECORD_VALUE_MAX);
	account_put(&value, &a);
	check_fix_number(w->c, RECORD_PUT, &k, &value);
	buf_free(&value);
}

static enum err account_check(struct check *c, uint64_t id, str value, struct counters *counters)
{
	struct account_walk w = { .c = c, .id = id, .counters = counters };
	enum err err;

	c->result->accounts++;
	if (account_get(value, &w.a)) {
		check_tell(c,
			   (struct check_finding){
				   .level = CHECK_LOSS, .what = "record", .account = id },
			   "the record of the account cannot be read");
		return ERR_OK;
	}
	w.is_suspect = check_is_suspect(c, id);
	w.modseq = w.a.modseq + (w.is_suspect ? CHECK_GAP : 1);
	err = mailboxes_check(&w);
	if (!err)
		err = kept_check(&w);
	if (!err)
		account_judge(&w);
	return err;
}

/* ---- what nothing leads to ---- */

/* A record that is lost is made anew in the view, so that what hangs on it is found and counted. */
static void make_up(struct check *c, const struct key *k, struct buf *value)
{
	struct entry *e;
	struct version *v;

	if (buf_failed(value) ||
	    overlay_push(c->view->young, key_str(k), c->view->durable_serial,
			 c->view->durable_serial, false, buf_str(value), &e, &v))
		panic("fsck: no memory for a record");
	check_fix_number(c, RECORD_PUT, k, value);
}

static enum err account_make_up(struct check *c, uint64_t id)
{
	struct key k = key_make1(KIND_ACCOUNT, id);
	struct buf value;
	str found;
	enum err err = kv_get(c->view, KV_DURABLE, &k, &found);

	if (err != ERR_NOT_FOUND)
		return err;
	check_tell(c,
		   (struct check_finding){
			   .level = CHECK_LOSS, .what = "account-lost", .account = id },
		   "its record is lost, its mail is there");
	buf_init(&value, RECORD_VALUE_MAX);
	account_put(&value, &(struct account){ .modseq = 1, .next_email = 1, .next_mailbox = 1 });
	make_up(c, &k, &value);
	buf_free(&value);
	return ERR_OK;
}

static enum err mailbox_make_up(struct check *c, uint64_t account, uint32_t id,
				struct counters *counters)
{
	struct key k = key_make2(KIND_MAILBOX, account, id);
	struct mailbox m = { .id = id, .uidnext = 1, .modseq = 1, .is_subscribed = true };
	char name[NAME_SIZE];
	struct buf value;
	str found;
	enum err err = kv_get(c->view, KV_DURABLE, &k, &found);

	if (err != ERR_NOT_FOUND)
		return err;
	check_tell(c,
		   (struct check_finding){
			   .level = CHECK_LOSS, .what = "mailbox-lost", .account = account },
		   "the record of mailbox %u is lost, its mail is there", id);
	snprintf(name, sizeof(name), "Recovered %u", id);
	m.name = str_from_c(name);
	m.uidvalidity = ++counters->uidvalidity;
	buf_init(&value, RECORD_VALUE_MAX);
	mailbox_put(&value, &m);
	make_up(c, &k, &value);
	buf_free(&value);
	return ERR_OK;
}

/* Rows of mailboxes, and mailboxes of accounts, whose record is not there. */
static enum err orphans_check(struct check *c, enum record_kind kind, struct counters *counters)
{
	unsigned count = kind == KIND_ROW ? 3 : 2;
	struct key prefix = key_make(kind);
	struct kv_cursor cursor;
	uint64_t numbers[3], account = 0, mailbox = 0;
	str key, value;
	enum err err = kv_cursor_open(c->view, KV_DURABLE, key_str(&prefix), key_str(&prefix),
				      false, &cursor);

	while (!err && !(err = kv_cursor_next(&cursor, &key, &value))) {
		if (!key_parse(key, kind, count, numbers) || numbers[1] > UINT32_MAX ||
		    (numbers[0] == account && (kind != KIND_ROW || numbers[1] == mailbox)))
			continue;
		account = numbers[0];
		mailbox = numbers[1];
		err = account_make_up(c, account);
		if (!err && kind == KIND_ROW)
			err = mailbox_make_up(c, account, (uint32_t)mailbox, counters);
	}
	kv_cursor_close(&cursor);
	return err == ERR_EOF ? ERR_OK : err;
}

/* ---- all ---- */

static enum err accounts_check(struct check *c, struct counters *counters)
{
	struct key prefix = key_make(KIND_ACCOUNT);
	struct kv_cursor cursor;
	uint64_t numbers[3];
	str key, value;
	enum err err = kv_cursor_open(c->view, KV_DURABLE, key_str(&prefix), key_str(&prefix),
				      false, &cursor);

	while (!err && !(err = kv_cursor_next(&cursor, &key, &value)))
		if (key_parse(key, KIND_ACCOUNT, 1, numbers))
			err = account_check(c, numbers[0], value, counters);
	kv_cursor_close(&cursor);
	return err == ERR_EOF ? ERR_OK : err;
}

static void counters_judge(struct check *c, const struct counters *said, struct counters *found)
{
	struct key k = key_make(KIND_COUNTERS);
	struct buf value;

	if (check_lost_records(c)) {
		found->body += CHECK_GAP;
		found->queue += CHECK_GAP;
		found->uidvalidity = MAX(found->uidvalidity, (uint32_t)(os_wall_us() / 1000000));
	} else if (found->body > said->body || found->queue > said->queue ||
		   found->uidvalidity > said->uidvalidity) {
		check_tell(c,
			   (struct check_finding){ .level = CHECK_DAMAGE,
						   .what = "store-counters" },
			   "a number that would be given next is in use");
	} else {
		return;
	}
	buf_init(&value, RECORD_VALUE_MAX);
	counters_put(&value, found);
	check_fix_number(c, RECORD_PUT, &k, &value);
	buf_free(&value);
}

enum err check_state(struct check *c)
{
	struct key k = key_make(KIND_COUNTERS);
	struct counters said = { .body = 1, .queue = 1 }, found;
	str value;
	enum err err = kv_get(c->view, KV_DURABLE, &k, &value);

	if (!err)
		err = counters_get(value, &said);
	if (err && err != ERR_NOT_FOUND)
		return err;
	found = said;
	/* What is given anew must not be what was given and lost. */
	if (check_lost_records(c))
		found.uidvalidity = MAX(found.uidvalidity, (uint32_t)(os_wall_us() / 1000000));
	err = orphans_check(c, KIND_MAILBOX, &found);
	if (!err)
		err = orphans_check(c, KIND_ROW, &found);
	if (!err)
		err = accounts_check(c, &found);
	if (!err)
		err = check_queue(c, &found.queue);
	if (!err)
		err = check_body_records(c, &found.body);
	if (!err)
		counters_judge(c, &said, &found);
	return err;
}
