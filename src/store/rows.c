/* Reading: the mailboxes of an account, the rows of a mailbox; durable state, in bounded pieces.
 *
 * `since` (RFC 7162): what changed after a MODSEQ is found by walking the rows, but mostly not all
 * of them: a session asks after each hint for what changed a moment ago. Those rows are known by
 * UID (recent.c); where they are not, but the mailbox's record in the index is not newer than
 * `since`, everything newer is in the overlay, and only that is walked.
 */
#include "store/store_priv.h"

#include <stdlib.h>

enum { GONE_MAX = 500, MAILBOXES_ROOM = 55 * 1024, ROW_ROOM = 512 };

void store_reply_init(struct store_reply *r)
{
	buf_init(&r->a, MSG_MAX);
	buf_init(&r->b, MSG_MAX);
}

void store_reply_free(struct store_reply *r)
{
	buf_free(&r->a);
	buf_free(&r->b);
}

static void mailbox_put_record(struct buf *out, const struct mailbox *m)
{
	struct rec_mailbox r = { .id = m->id,
				 .name = m->name,
				 .uidvalidity = m->uidvalidity,
				 .uidnext = m->uidnext,
				 .recent_uid = m->recent_uid,
				 .modseq = m->modseq,
				 .messages = m->messages,
				 .unseen = m->unseen,
				 .deleted = m->deleted,
				 .bytes = m->bytes,
				 .special = m->special,
				 .subscribed = m->is_subscribed,
				 .is_gone = m->is_gone };

	rec_mailbox_put(out, &r);
}

static enum err keywords_put(struct store *s, uint64_t account, struct buf *out)
{
	struct key prefix = key_make1(KIND_KEYWORD, account);
	struct kv_cursor c;
	uint64_t numbers[3];
	str key, value;
	enum err err =
		kv_cursor_open(s->kv, KV_DURABLE, key_str(&prefix), key_str(&prefix), false, &c);

	while (!err && !(err = kv_cursor_next(&c, &key, &value))) {
		struct rec_keyword k = { .name = value };

		if (!key_parse(key, KIND_KEYWORD, 2, numbers)) {
			err = ERR_DAMAGED;
			break;
		}
		k.number = (uint8_t)numbers[1];
		rec_keyword_put(out, &k);
	}
	kv_cursor_close(&c);
	return err == ERR_EOF ? ERR_OK : err;
}

/* `max`: 0 as many as fit, 1 the one that was asked for alone. */
static enum err mailboxes_put(struct store *s, uint64_t account, const struct msg_st_mailboxes *in,
			      struct buf *out, uint32_t *next)
{
	struct key prefix = key_make1(KIND_MAILBOX, account),
		   first = key_make2(KIND_MAILBOX, account, in->from);
	struct kv_cursor c;
	struct mailbox m;
	uint64_t numbers[3];
	str key, value;
	enum err err =
		kv_cursor_open(s->kv, KV_DURABLE, key_str(&prefix), key_str(&first), false, &c);

	*next = 0;
	while (!err && !(err = kv_cursor_next(&c, &key, &value))) {
		if (!key_parse(key, KIND_MAILBOX, 2, numbers)) {
			err = ERR_DAMAGED;
			break;
		}
		if (in->max == 1 && numbers[1] != in->from)
			break;
		if ((err = mailbox_get(value, (uint32_t)numbers[1], &m)))
			break;
		if (buf_len(out) + m.name.n + ROW_ROOM > MAILBOXES_ROOM) {
			*next = m.id;
			break;
		}
		mailbox_put_record(out, &m);
	}
	kv_cursor_close(&c);
	return err == ERR_EOF ? ERR_OK : err;
}

enum err store_mailboxes(struct store *s, uint64_t account, const struct msg_st_mailboxes *in,
			 struct store_reply *r, struct msg_st_mailboxes_reply *out)
{
	struct key k = key_make1(KIND_ACCOUNT, account);
	struct account a;
	str value;
	enum err err;

	buf_clear(&r->a);
	buf_clear(&r->b);
	*out = (struct msg_st_mailboxes_reply){ .modseq = 0 };
	err = kv_get(s->kv, KV_DURABLE, &k, &value);
	if (!err)
		err = account_get(value, &a);
	if (!err)
		err = mailboxes_put(s, account, in, &r->a, &out->next);
	if (!err)
		err = keywords_put(s, account, &r->b);
	if (!err) {
		out->mailboxes = buf_str(&r->a);
		out->keywords = buf_str(&r->b);
		out->modseq = a.modseq;
		out->quota = a.quota;
		out->used = a.used;
	}
	kv_release(s->kv);
	return err;
}

/* Expunged ranges, gathered to be sorted. */
struct gone {
	struct rec_uid_range *ranges;
	size_t count, room;
};

static enum err gone_add(struct gone *g, uint32_t first, uint32_t last)
{
	if (g->count == g->room) {
		size_t room = g->room ? g->room * 2 : 64;
		struct rec_uid_range *ranges = realloc(g->ranges, room * sizeof(*ranges));

		if (!ranges)
			return ERR_NO_MEMORY;
		g->ranges = ranges;
		g->room = room;
	}
	g->ranges[g->count++] = (struct rec_uid_range){ .first = first, .last = last };
	return ERR_OK;
}

static int compare_ranges(const void *a, const void *b)
{
	const struct rec_uid_range *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

static enum err tombstone_read(struct gone *g, str value, uint32_t from, uint32_t to)
{
	struct unpack u = { .rest = value };
	uint32_t before = 0;
	enum err err = ERR_OK;

	while (u.rest.n && !u.failed && !err) {
		uint32_t first = before + unpack_u32(&u), last = first + unpack_u32(&u);

		before = last;
		if (last >= from && first <= to)
			err = gone_add(g, MAX(first, from), MIN(last, to));
	}
	return u.failed ? ERR_DAMAGED : err;
}

/* A range of those, or false with *to before it: enough for one reply. */
static bool gone_range(struct buf *out, size_t *put, uint32_t first, uint32_t last, uint32_t *to)
{
	if ((*put)++ == GONE_MAX) {
		*to = first - 1;
		return false;
	}
	rec_uid_range_put(out, &(struct rec_uid_range){ .first = first, .last = last });
	return true;
}

/* RFC 7162 3.2.5.1: a MODSEQ from before what is remembered. All that were given and are not there.
 */
static enum err gone_all_put(struct store *s, uint64_t account, const struct msg_st_rows *in,
			     uint32_t uidnext, uint32_t *to, struct buf *out)
{
	struct key prefix = key_make2(KIND_ROW, account, in->mailbox);
	struct key from = key_make3(KIND_ROW, account, in->mailbox, in->uid_from);
	uint32_t next = MAX(in->uid_from, 1u), last = MIN(*to, uidnext - 1);
	uint64_t numbers[3];
	struct kv_cursor c;
	size_t put = 0;
	bool fits = true;
	str key, value;
	enum err err =
		kv_cursor_open(s->kv, KV_DURABLE, key_str(&prefix), key_str(&from), false, &c);

	while (!err && fits && next <= last && !(err = kv_cursor_next(&c, &key, &value))) {
		if (!key_parse(key, KIND_ROW, 3, numbers)) {
			err = ERR_DAMAGED;
			break;
		}
		if (numbers[2] > last)
			break;
		if (numbers[2] > next)
			fits = gone_range(out, &put, next, (uint32_t)numbers[2] - 1, to);
		next = (uint32_t)numbers[2] + 1;
	}
	kv_cursor_close(&c);
	if (err && err != ERR_EOF)
		return err;
	if (fits && next <= last)
		(void)gone_range(out, &put, next, last, to);
	return ERR_OK;
}

/* What went after `since` among [from, *to]; where that is more than a reply holds, *to becomes
 * less. */
static enum err gone_put(struct store *s, uint64_t account, const struct msg_st_rows *in,
			 const struct mailbox *m, uint32_t *to, struct buf *out)
{
	struct key prefix = key_make2(KIND_TOMBSTONE, account, in->mailbox);
	struct key first = key_make3(KIND_TOMBSTONE, account, in->mailbox, in->since + 1);
	struct gone g = { .count = 0 };
	struct kv_cursor c;
	size_t put = 0;
	str key, value;
	enum err err;

	if (in->since < m->floor)
		return gone_all_put(s, account, in, m->uidnext, to, out);
	err = kv_cursor_open(s->kv, KV_DURABLE, key_str(&prefix), key_str(&first), false, &c);
	while (!err && !(err = kv_cursor_next(&c, &key, &value)))
		err = tombstone_read(&g, value, in->uid_from, *to);
	kv_cursor_close(&c);
	if (err == ERR_EOF) {
		err = ERR_OK;
		if (g.count)
			qsort(g.ranges, g.count, sizeof(*g.ranges), compare_ranges);
		for (size_t i = 0; i < g.count; i++) {
			struct rec_uid_range r = g.ranges[i];

			for (; i + 1 < g.count && g.ranges[i + 1].first <= r.last + 1; i++)
				r.last = MAX(r.last, g.ranges[i + 1].last);
			if (!gone_range(out, &put, r.first, r.last, to))
				break;
		}
	}
	free(g.ranges);
	return err;
}

static enum err row_encode(struct store *s, const struct row *row, uint8_t columns,
			   struct buf *scratch, struct buf *out)
{
	struct rec_row r = { .uid = row->uid,
			     .modseq = row->modseq,
			     .flags0 = row->flags.w[0],
			     .flags1 = row->flags.w[1],
			     .body = row->body,
			     .email = row->email,
			     .thread = row->thread,
			     .size = row->size,
			     .received_us = row->received_us,
			     .zone = row->zone };
	size_t cold = row->cold_size > COLD_HEADER_SIZE ? row->cold_size - COLD_HEADER_SIZE : 0;
	char *p;
	enum err err;

	buf_clear(scratch);
	if (columns & ROW_COLD && cold) {
		if (!(p = buf_reserve(scratch, cold)))
			return ERR_NO_MEMORY;
		if ((err = cold_read(s, row, p)))
			return err;
		buf_added(scratch, cold);
	}
	if (columns & ROW_LOCATION && (err = location_put(s, scratch, row->body, row->key)))
		return err;
	if (columns & ROW_COLD)
		r.cold = str_head(buf_str(scratch), cold);
	if (columns & ROW_LOCATION)
		r.location = str_from(buf_str(scratch), columns & ROW_COLD ? cold : 0);
	rec_row_put(out, &r);
	return ERR_OK;
}

static bool row_fits(const struct buf *out, const struct row *row, uint8_t columns)
{
	size_t need = ROW_ROOM + (columns & ROW_COLD ? row->cold_size : 0);

	return buf_len(out) == 0 || buf_len(out) + need <= REPLY_ROWS_MAX;
}

static enum err rows_put(struct store *s, uint64_t account, const struct msg_st_rows *in,
			 uint32_t to, bool overlay_only, struct store_reply *r, uint32_t *next)
{
	struct key prefix = key_make2(KIND_ROW, account, in->mailbox);
	struct key first = key_make3(KIND_ROW, account, in->mailbox, in->uid_from);
	struct kv_cursor c;
	uint64_t numbers[3];
	struct row row;
	str key, value;
	enum err err = kv_cursor_open(s->kv, KV_DURABLE, key_str(&prefix), key_str(&first),
				      overlay_only, &c);

	*next = 0;
	while (!err && !(err = kv_cursor_next(&c, &key, &value))) {
		if (!key_parse(key, KIND_ROW, 3, numbers))
			err = ERR_DAMAGED;
		else if (numbers[2] > to)
			break;
		else
			err = row_get(value, (uint32_t)numbers[2], &row);
		if (err || (in->since && row.modseq <= in->since))
			continue;
		if (!row_fits(&r->a, &row, in->columns)) {
			*next = row.uid;
			break;
		}
		err = row_encode(s, &row, in->columns, &s->scratch, &r->a);
	}
	kv_cursor_close(&c);
	return err == ERR_EOF ? ERR_OK : err;
}

/* The same for UIDs that are known: few, so they are looked up. */
static enum err recent_put(struct store *s, uint64_t account, const struct msg_st_rows *in,
			   uint32_t to, const uint32_t *uids, unsigned count, struct store_reply *r,
			   uint32_t *next)
{
	enum err err = ERR_OK;

	*next = 0;
	for (unsigned i = 0; i < count && !err; i++) {
		struct key k = key_make3(KIND_ROW, account, in->mailbox, uids[i]);
		struct row row;
		str value;

		if (uids[i] < in->uid_from || uids[i] > to)
			continue;
		if ((err = kv_get(s->kv, KV_DURABLE, &k, &value)) == ERR_NOT_FOUND) {
			err = ERR_OK;
			continue;
		}
		if (!err)
			err = row_get(value, uids[i], &row);
		if (err || row.modseq <= in->since)
			continue;
		if (!row_fits(&r->a, &row, in->columns)) {
			*next = row.uid;
			break;
		}
		err = row_encode(s, &row, in->columns, &s->scratch, &r->a);
	}
	return err;
}

/* Is everything newer than `since` in the overlay? */
static bool index_is_older(struct store *s, uint64_t account, uint32_t mailbox, uint64_t since)
{
	struct key k = key_make2(KIND_MAILBOX, account, mailbox);
	struct mailbox m;
	str value;
	enum err err = index_get(s->kv->index, key_str(&k), &value);

	if (err == ERR_NOT_FOUND)
		return true;
	return !err && mailbox_get(value, mailbox, &m) == ERR_OK && m.modseq <= since;
}

static enum err rows_since(struct store *s, uint64_t account, const struct msg_st_rows *in,
			   uint32_t to, struct store_reply *r, uint32_t *next)
{
	uint32_t uids[RECENT_UIDS_MAX];
	unsigned count;

	if (!in->since)
		return rows_put(s, account, in, to, false, r, next);
	if (recent_uids(s, account, in->mailbox, in->since, uids, &count))
		return recent_put(s, account, in, to, uids, count, r, next);
	return rows_put(s, account, in, to, index_is_older(s, account, in->mailbox, in->since), r,
			next);
}

enum err store_rows(struct store *s, uint64_t account, const struct msg_st_rows *in,
		    struct store_reply *r, struct msg_st_rows_reply *out)
{
	struct key k = key_make1(KIND_ACCOUNT, account);
	uint32_t to = in->uid_to;
	struct account a;
	struct mailbox m;
	str value;
	enum err err;

	buf_clear(&r->a);
	buf_clear(&r->b);
	*out = (struct msg_st_rows_reply){ .modseq = 0 };
	err = kv_get(s->kv, KV_DURABLE, &k, &value);
	if (!err)
		err = account_get(value, &a);
	if (!err)
		err = mailbox_load(s, KV_DURABLE, account, in->mailbox, &m);
	if (!err && in->since && m.modseq > in->since)
		err = gone_put(s, account, in, &m, &to, &r->b);
	if (!err && (!in->since || m.modseq > in->since))
		err = rows_since(s, account, in, to, r, &out->next_uid);
	if (!err && out->next_uid && buf_len(&r->b)) {
		/* Fewer rows fitted than asked for: what went behind them belongs to the next
		 * answer. */
		buf_clear(&r->b);
		to = out->next_uid - 1;
		err = gone_put(s, account, in, &m, &to, &r->b);
	}
	if (!err) {
		if (!out->next_uid && to < in->uid_to)
			out->next_uid = to + 1;
		out->rows = buf_str(&r->a);
		out->gone = buf_str(&r->b);
		out->modseq = a.modseq;
	}
	kv_release(s->kv);
	return err;
}
