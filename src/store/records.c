/* Encoding and decoding of the values.
 *
 * Rows dominate: a mailbox of 10,000 messages is 10,000 of them, read at each SELECT, so numbers
 * are varints, and what usually equals something else (thread and email id) is stored as the
 * difference: 60 to 70 bytes with the body's key of 32. The place of the cold part comes first and
 * has a fixed size, as in a body's record: it is filled in when the frame is laid out.
 *
 * Values may grow at the end in later versions: what a decoder does not know there, it ignores.
 */
#include "store/records_priv.h"

bool key_parse(str key, enum record_kind kind, unsigned count, uint64_t numbers[3])
{
	struct unpack u = { .rest = str_from(key, 1) };

	if (key.n == 0 || key.p[0] != (char)kind)
		return false;
	for (unsigned i = 0; i < count; i++)
		numbers[i] = unpack_key_number(&u);
	return !u.failed && u.rest.n == 0;
}

static enum err unpack_result(const struct unpack *u)
{
	return u->failed ? ERR_DAMAGED : ERR_OK;
}

static void place_put(struct buf *b, struct blob_place place)
{
	buf_add_le32(b, place.segment);
	buf_add_le32(b, place.offset);
}

static struct blob_place place_get(struct unpack *u)
{
	str s = unpack_bytes(u, BLOB_PLACE_SIZE);

	return (struct blob_place){ s.n ? get_le32(s.p) : 0, s.n ? get_le32(s.p + 4) : 0 };
}

void counters_put(struct buf *b, const struct counters *c)
{
	pack_varint(b, c->body);
	pack_varint(b, c->queue);
	pack_varint(b, c->uidvalidity);
}

enum err counters_get(str value, struct counters *c)
{
	struct unpack u = { .rest = value };

	*c = (struct counters){ 0 };
	c->body = unpack_varint(&u);
	c->queue = unpack_varint(&u);
	c->uidvalidity = unpack_u32(&u);
	return unpack_result(&u);
}

void account_put(struct buf *b, const struct account *a)
{
	pack_varint(b, a->modseq);
	pack_varint(b, a->next_email);
	pack_varint(b, a->next_mailbox);
	pack_varint(b, a->quota);
	pack_varint(b, a->used);
	pack_str(b, a->address);
}

enum err account_get(str value, struct account *a)
{
	struct unpack u = { .rest = value };

	*a = (struct account){ 0 };
	a->modseq = unpack_varint(&u);
	a->next_email = unpack_varint(&u);
	a->next_mailbox = unpack_u32(&u);
	a->quota = unpack_varint(&u);
	a->used = unpack_varint(&u);
	a->address = unpack_str(&u);
	return unpack_result(&u);
}

enum { MAILBOX_IS_SUBSCRIBED = 1, MAILBOX_IS_GONE = 2 };

void mailbox_put(struct buf *b, const struct mailbox *m)
{
	pack_varint(b, m->uidvalidity);
	pack_varint(b, m->uidnext);
	pack_varint(b, m->recent_uid);
	pack_varint(b, m->modseq);
	pack_varint(b, m->bytes);
	pack_varint(b, m->messages);
	pack_varint(b, m->unseen);
	pack_varint(b, m->deleted);
	pack_varint(b, m->special);
	pack_varint(b, (m->is_subscribed ? MAILBOX_IS_SUBSCRIBED : 0u) |
			       (m->is_gone ? MAILBOX_IS_GONE : 0u));
	pack_str(b, m->name);
	pack_varint(b, m->floor);
	pack_varint(b, m->tombstones);
}

enum err mailbox_get(str value, uint32_t id, struct mailbox *m)
{
	struct unpack u = { .rest = value };
	uint64_t bits;

	*m = (struct mailbox){ 0 };
	m->id = id;
	m->uidvalidity = unpack_u32(&u);
	m->uidnext = unpack_u32(&u);
	m->recent_uid = unpack_u32(&u);
	m->modseq = unpack_varint(&u);
	m->bytes = unpack_varint(&u);
	m->messages = unpack_u32(&u);
	m->unseen = unpack_u32(&u);
	m->deleted = unpack_u32(&u);
	m->special = (uint16_t)unpack_u32(&u);
	bits = unpack_varint(&u);
	m->is_subscribed = bits & MAILBOX_IS_SUBSCRIBED;
	m->is_gone = bits & MAILBOX_IS_GONE;
	m->name = unpack_str(&u);
	if (u.rest.n) {
		m->floor = unpack_varint(&u);
		m->tombstones = unpack_u32(&u);
	}
	return unpack_result(&u);
}

void row_put(struct buf *b, const struct row *r)
{
	place_put(b, r->cold);
	pack_varint(b, r->cold_size);
	pack_varint(b, r->modseq);
	pack_varint(b, r->flags.w[0]);
	pack_varint(b, r->flags.w[1]);
	pack_varint(b, r->body);
	pack_varint(b, r->email);
	pack_signed(b, (int64_t)(r->thread - r->email));
	pack_varint(b, r->size);
	pack_signed(b, r->received_us);
	pack_signed(b, r->zone);
	buf_add(b, str_of(r->key, sizeof(r->key)));
}

static enum err row_unpack(struct unpack *u, uint32_t uid, struct row *r)
{
	str key;

	*r = (struct row){ 0 };
	r->uid = uid;
	r->cold = place_get(u);
	r->cold_size = unpack_u32(u);
	r->modseq = unpack_varint(u);
	r->flags.w[0] = unpack_varint(u);
	r->flags.w[1] = unpack_varint(u);
	r->body = unpack_varint(u);
	r->email = unpack_varint(u);
	r->thread = r->email + (uint64_t)unpack_signed(u);
	r->size = unpack_varint(u);
	r->received_us = unpack_signed(u);
	r->zone = (int32_t)unpack_signed(u);
	key = unpack_bytes(u, sizeof(r->key));
	if (u->failed)
		return ERR_DAMAGED;
	memcpy(r->key, key.p, sizeof(r->key));
	return ERR_OK;
}

enum err row_get(str value, uint32_t uid, struct row *r)
{
	struct unpack u = { .rest = value };

	return row_unpack(&u, uid, r);
}

void kept_put(struct buf *b, const struct row *r, str mailbox)
{
	row_put(b, r);
	pack_varint(b, r->uid);
	pack_str(b, mailbox);
}

enum err kept_get(str value, struct row *r, str *mailbox)
{
	struct unpack u = { .rest = value };
	enum err err = row_unpack(&u, 0, r);

	r->uid = unpack_u32(&u);
	*mailbox = unpack_str(&u);
	return err ? err : unpack_result(&u);
}

void body_put(struct buf *b, const struct body *d)
{
	place_put(b, d->place);
	buf_add_char(b, (char)d->codec);
	pack_varint(b, d->stored);
	pack_varint(b, d->size);
	pack_varint(b, d->references);
}

void body_more_put(char out[BODY_MORE], const struct body *d)
{
	out[0] = (char)d->codec;
	out[1] = (char)(d->stored | 0x80);
	out[2] = (char)(d->stored >> 7 | 0x80);
	out[3] = (char)(d->stored >> 14 & 0x7f);
}

void body_put_wide(struct buf *b, const struct body *d)
{
	char more[BODY_MORE];

	body_more_put(more, d);
	place_put(b, d->place);
	buf_add(b, str_of(more, sizeof(more)));
	pack_varint(b, d->size);
	pack_varint(b, d->references);
}

enum err body_get(str value, struct body *d)
{
	struct unpack u = { .rest = value };

	*d = (struct body){ 0 };
	d->place = place_get(&u);
	d->codec = unpack_u8(&u);
	d->stored = unpack_varint(&u);
	d->size = unpack_varint(&u);
	d->references = unpack_varint(&u);
	return unpack_result(&u);
}

enum { QUEUE_IS_SMTPUTF8 = 1, QUEUE_REQUIRES_TLS = 2 };

void queue_item_put(struct buf *b, const struct queue_item *q)
{
	pack_varint(b, (q->is_smtputf8 ? QUEUE_IS_SMTPUTF8 : 0u) |
			       (q->requires_tls ? QUEUE_REQUIRES_TLS : 0u));
	buf_add_char(b, (char)q->state);
	buf_add_char(b, (char)q->notify);
	buf_add_char(b, (char)q->ret);
	buf_add_char(b, (char)q->body_type);
	pack_varint(b, q->message);
	pack_varint(b, q->body);
	pack_varint(b, q->size);
	pack_signed(b, q->created_us);
	pack_signed(b, q->due_us);
	pack_signed(b, q->warned_us);
	pack_varint(b, q->attempts);
	buf_add(b, str_of(q->key, sizeof(q->key)));
	pack_str(b, q->sender);
	pack_str(b, q->address);
	pack_str(b, q->original);
	pack_str(b, q->orcpt);
	pack_str(b, q->envid);
	pack_str(b, q->remote);
	pack_str(b, q->reply);
	pack_str(b, q->status);
}

enum err queue_item_get(str value, uint64_t id, struct queue_item *q)
{
	struct unpack u = { .rest = value };
	uint64_t bits = unpack_varint(&u);
	str key;

	*q = (struct queue_item){ .id = id };
	q->is_smtputf8 = bits & QUEUE_IS_SMTPUTF8;
	q->requires_tls = bits & QUEUE_REQUIRES_TLS;
	q->state = unpack_u8(&u);
	q->notify = unpack_u8(&u);
	q->ret = unpack_u8(&u);
	q->body_type = unpack_u8(&u);
	q->message = unpack_varint(&u);
	q->body = unpack_varint(&u);
	q->size = unpack_varint(&u);
	q->created_us = unpack_signed(&u);
	q->due_us = unpack_signed(&u);
	q->warned_us = unpack_signed(&u);
	q->attempts = unpack_u32(&u);
	key = unpack_bytes(&u, sizeof(q->key));
	if (u.failed)
		return ERR_DAMAGED;
	memcpy(q->key, key.p, sizeof(q->key));
	q->sender = unpack_str(&u);
	q->address = unpack_str(&u);
	q->original = unpack_str(&u);
	q->orcpt = unpack_str(&u);
	q->envid = unpack_str(&u);
	q->remote = unpack_str(&u);
	q->reply = unpack_str(&u);
	q->status = unpack_str(&u);
	return unpack_result(&u);
}

bool body_is_plain(str key, str value)
{
	struct body d;

	return key.n && key.p[0] == (char)KIND_BODY && body_get(value, &d) == ERR_OK &&
	       d.codec == 0;
}

bool record_refers(str key, str value, uint32_t *segment, uint64_t *bytes)
{
	struct body d;
	struct unpack u = { .rest = value };

	if (key.n && (key.p[0] == (char)KIND_ROW || key.p[0] == (char)KIND_KEPT)) {
		*segment = place_get(&u).segment;
		*bytes = unpack_u32(&u);
		return !u.failed && *bytes != 0;
	}
	if (key.n && key.p[0] == (char)KIND_BODY && body_get(value, &d) == ERR_OK) {
		*segment = d.place.segment;
		*bytes = d.stored;
		return d.place.segment != 0;
	}
	return false;
}
