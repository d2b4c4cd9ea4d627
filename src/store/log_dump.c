/* The log in readable form, as the reader of recovery reads it.
 *
 * One line a record: what was done, the kind's letter, the numbers of its key, and what the value
 * says, by name. What is secret is left out: the keys that open bodies. (Passwords are not in the
 * store at all.) A gap between two frames is what recovery would pass over as damage.
 */
#include "store/log_dump.h"

#include "store/kv_priv.h"
#include "store/records_priv.h"
#include "text/date.h"

#include <inttypes.h>

enum { LINE_MAX_SIZE = 256 * 1024 };

struct dump {
	const struct log_dump_options *o;
	struct identity id;
	uint64_t account;  /* 0: all */
	uint64_t expected; /* position of the next frame */
	struct buf line;
};

/* ---- values ---- */

static void add_text(struct buf *b, const char *name, str s)
{
	buf_printf(b, " %s=\"", name);
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c < 0x20 || c == 0x7f || c == '"' || c == '\\')
			buf_printf(b, "\\x%02x", c);
		else
			buf_add_char(b, (char)c);
	}
	buf_add_char(b, '"');
}

static void add_time(struct buf *b, const char *name, int64_t us)
{
	struct date d = { .seconds = us / 1000000 };

	buf_printf(b, " %s=\"", name);
	date_format_rfc5322(d, b);
	buf_add_char(b, '"');
}

static void add_place(struct buf *b, const char *name, struct blob_place p)
{
	buf_printf(b, " %s=%08x:%u", name, p.segment, p.offset);
}

static bool value_counters(struct buf *b, str value)
{
	struct counters c;

	if (counters_get(value, &c))
		return false;
	buf_printf(b, " next_body=%" PRIu64 " next_queue=%" PRIu64 " uidvalidity=%u", c.body,
		   c.queue, c.uidvalidity);
	return true;
}

static bool value_account(struct buf *b, str value)
{
	struct account a;

	if (account_get(value, &a))
		return false;
	add_text(b, "address", a.address);
	buf_printf(b,
		   " modseq=%" PRIu64 " next_email=%" PRIu64 " next_mailbox=%u used=%" PRIu64
		   " quota=%" PRIu64,
		   a.modseq, a.next_email, a.next_mailbox, a.used, a.quota);
	return true;
}

static bool value_mailbox(struct buf *b, str value)
{
	struct mailbox m;

	if (mailbox_get(value, 0, &m))
		return false;
	add_text(b, "name", m.name);
	buf_printf(b,
		   " uidvalidity=%u uidnext=%u modseq=%" PRIu64
		   " messages=%u unseen=%u deleted=%u bytes=%" PRIu64,
		   m.uidvalidity, m.uidnext, m.modseq, m.messages, m.unseen, m.deleted, m.bytes);
	if (m.is_gone)
		buf_add(b, S(" gone"));
	return true;
}

static void add_row(struct buf *b, const struct row *r)
{
	buf_printf(b,
		   " body=%" PRIu64 " email=%" PRIu64 " thread=%" PRIu64 " modseq=%" PRIu64
		   " flags=%" PRIx64 ":%" PRIx64 " size=%" PRIu64,
		   r->body, r->email, r->thread, r->modseq, r->flags.w[1], r->flags.w[0], r->size);
	add_time(b, "received", r->received_us);
	if (r->cold_size) {
		add_place(b, "cold", r->cold);
		buf_printf(b, "+%u", r->cold_size);
	}
}

static bool value_row(struct buf *b, str value)
{
	struct row r;

	if (row_get(value, 0, &r))
		return false;
	add_row(b, &r);
	return true;
}

static bool value_kept(struct buf *b, str value)
{
	struct row r;
	str mailbox;

	if (kept_get(value, &r, &mailbox))
		return false;
	add_text(b, "mailbox", mailbox);
	buf_printf(b, " uid=%u", r.uid);
	add_row(b, &r);
	return true;
}

static bool value_body(struct buf *b, str value)
{
	struct body d;

	if (body_get(value, &d))
		return false;
	if (place_is_file(d.place))
		buf_add(b, S(" place=file"));
	else
		add_place(b, "place", d.place);
	buf_printf(b, " codec=%u stored=%" PRIu64 " size=%" PRIu64 " references=%" PRIu64, d.codec,
		   d.stored, d.size, d.references);
	return true;
}

static bool value_queue(struct buf *b, str value)
{
	struct queue_item q;

	if (queue_item_get(value, 0, &q))
		return false;
	buf_printf(b, " state=%u attempts=%u body=%" PRIu64 " size=%" PRIu64, q.state, q.attempts,
		   q.body, q.size);
	add_text(b, "from", q.sender);
	add_text(b, "to", q.address);
	add_time(b, "due", q.due_us);
	if (q.reply.n)
		add_text(b, "reply", q.reply);
	return true;
}

static bool value_text(struct buf *b, str value)
{
	add_text(b, "name", value);
	return true;
}

static bool value_size(struct buf *b, str value)
{
	buf_printf(b, " bytes=%zu", value.n);
	return true;
}

static const struct {
	enum record_kind kind;
	unsigned account; /* which number of the key it is, from 1; 0: none */
	bool (*value)(struct buf *b, str value);
} kinds[] = {
	{ KIND_COUNTERS, 0, value_counters }, { KIND_ACCOUNT, 1, value_account },
	{ KIND_KEYWORD, 1, value_text },      { KIND_MAILBOX, 1, value_mailbox },
	{ KIND_ROW, 1, value_row },	      { KIND_TOMBSTONE, 1, value_size },
	{ KIND_BODY, 0, value_body },	      { KIND_QUEUE, 0, value_queue },
	{ KIND_DUE, 0, value_size },	      { KIND_KEPT, 1, value_kept },
	{ KIND_KEPT_DAY, 2, value_size },
};

/* ---- records ---- */

static size_t kind_find(str key)
{
	size_t i = 0;

	while (i < ARRAY_LEN(kinds) && key.p[0] != (char)kinds[i].kind)
		i++;
	return i;
}

static bool is_wanted(const struct dump *d, str key, size_t kind)
{
	struct unpack u = { .rest = str_from(key, 1) };
	uint64_t number = 0;

	if (d->o->kinds.n && str_find_char(d->o->kinds, key.p[0]) == STR_NONE)
		return false;
	if (!d->account)
		return true;
	if (kind == ARRAY_LEN(kinds) || !kinds[kind].account)
		return false;
	for (unsigned i = 0; i < kinds[kind].account; i++)
		number = unpack_key_number(&u);
	return number == d->account;
}

static void record_show(struct dump *d, const struct record *r)
{
	size_t kind = kind_find(r->key);
	struct unpack u = { .rest = str_from(r->key, 1) };

	if (!is_wanted(d, r->key, kind))
		return;
	buf_clear(&d->line);
	buf_printf(&d->line, "  %s %c",
		   r->op == RECORD_PUT	    ? "put"
		   : r->op == RECORD_DELETE ? "delete"
					    : "other",
		   r->key.p[0] > 0x20 && r->key.p[0] < 0x7f ? r->key.p[0] : '?');
	while (u.rest.n && !u.failed)
		buf_printf(&d->line, " %" PRIu64, unpack_key_number(&u));
	if (u.failed || (r->op == RECORD_PUT &&
			 (kind == ARRAY_LEN(kinds) || !kinds[kind].value(&d->line, r->value))))
		buf_printf(&d->line, " not understood, %zu bytes", r->value.n);
	buf_add_char(&d->line, '\n');
	d->o->out(d->o->arg, buf_str(&d->line));
}

static enum err records_show(struct dump *d, str records)
{
	struct record r;
	enum err err;

	while (!(err = record_get(&records, &r)))
		record_show(d, &r);
	return err == ERR_EOF ? ERR_OK : err;
}

/* ---- frames ---- */

static void gap_show(struct dump *d, const struct frame_header *h)
{
	buf_clear(&d->line);
	if (position_segment(d->expected) != position_segment(h->position)) {
		buf_printf(&d->line, "segment log/%08x.seg\n", position_segment(h->position));
		d->expected = position_of(position_segment(h->position), SEGMENT_HEADER_SIZE);
	}
	if (d->expected != h->position)
		buf_printf(&d->line, "damaged %08x:%u to %u\n", position_segment(h->position),
			   position_offset(d->expected), position_offset(h->position));
	if (buf_len(&d->line))
		d->o->out(d->o->arg, buf_str(&d->line));
}

static void frame_show(struct dump *d, const struct log_frame *f)
{
	const struct frame_header *h = &f->header;

	gap_show(d, h);
	d->expected = f->end;
	buf_clear(&d->line);
	buf_printf(&d->line, "frame %08x:%u number=%" PRIu64, position_segment(h->position),
		   position_offset(h->position), h->number);
	add_time(&d->line, "time", h->time_us);
	buf_printf(&d->line, " records=%u bytes=%u blobs=%u durable=%08x:%u crc=%08x%s\n",
		   h->record_count, h->records_size, h->blobs_size, position_segment(h->durable),
		   position_offset(h->durable), h->crc,
		   h->flags & FRAME_REPAIRED ? " repaired" : "");
	d->o->out(d->o->arg, buf_str(&d->line));
}

static enum err frames_each(struct dump *d, uint32_t segment,
			    enum err (*each)(struct dump *d, const struct log_frame *f))
{
	struct log_place from = { 0 };
	struct log_reader *r = NULL;
	struct log_frame f;
	enum err err;

	if (segment)
		from.position = position_of(segment, SEGMENT_HEADER_SIZE);
	err = log_reader_new(d->o->dir, &d->id, NULL, &from,
			     segment ? position_of(segment, UINT32_MAX) : UINT64_MAX, &r);
	while (!err && !(err = log_reader_next(r, &f)))
		err = each(d, &f);
	log_reader_free(r);
	return err == ERR_EOF ? ERR_OK : err;
}

static enum err on_frame(struct dump *d, const struct log_frame *f)
{
	if (position_segment(f->header.position) != d->o->segment && d->o->segment)
		return ERR_EOF;
	frame_show(d, f);
	return d->o->frames_only ? ERR_OK : records_show(d, f->records);
}

static enum err on_address(struct dump *d, const struct log_frame *f)
{
	str records = f->records;
	uint64_t numbers[3];
	struct account a;
	struct record r;

	while (!record_get(&records, &r))
		if (r.op == RECORD_PUT && key_parse(r.key, KIND_ACCOUNT, 1, numbers) &&
		    !account_get(r.value, &a) && str_case_eq(a.address, d->o->address))
			d->account = numbers[0];
	return ERR_OK;
}

enum err store_log_dump(const struct log_dump_options *o)
{
	struct dump d = { .o = o, .account = o->account };
	enum err err = kv_identity(o->dir, &d.id);

	buf_init(&d.line, LINE_MAX_SIZE);
	if (!err && o->address.n) {
		err = frames_each(&d, 0, on_address);
		if (!err && !d.account)
			err = ERR_NOT_FOUND;
	}
	if (!err)
		err = frames_each(&d, o->segment, on_frame);
	buf_free(&d.line);
	return err;
}
