/* FETCH (RFC 3501 6.4.5, 7.4.2).
 *
 * A message's answer is built in one buffer and sent when it is whole, so that a message that
 * cannot be read leaves nothing half said; only sections of more than IMAP_BODY_KEPT bytes are
 * streamed, and there the connection is closed when reading fails, because a literal that was
 * announced cannot be taken back. What is asked for decides what is read: flags, dates and sizes
 * are in memory, ENVELOPE and BODYSTRUCTURE come from the store as the text they are sent as,
 * sections from the body itself.
 */
#include "imap/cold.h"
#include "imap/message.h"
#include "imap/session_priv.h"
#include "mime/envelope.h"
#include "mime/header.h"
#include "text/date.h"

enum { STREAM_STEP = 64 * 1024 };

struct fetch {
	struct imap_session *s;
	const struct imap_fetch *what;
	struct imap_cold *cold;
	struct arena *arena;	      /* of one message */
	struct imap_message *message; /* opened for this message, or NULL */
	struct imap_set seen;	      /* sequence numbers that this FETCH made \Seen */
	uint32_t seq, uid;
	bool is_first; /* no item of this message was written yet */
	bool is_begun; /* a part of its answer has gone out: it cannot be taken back */
	bool with_uid;
};

static void item(struct fetch *f, str name)
{
	if (!f->is_first)
		buf_add_char(&f->s->out, ' ');
	f->is_first = false;
	buf_add(&f->s->out, name);
}

static void literal(struct fetch *f, str bytes)
{
	buf_add(&f->s->out, S(" {"));
	buf_add_u64(&f->s->out, bytes.n);
	buf_add(&f->s->out, S("}\r\n"));
	buf_add(&f->s->out, bytes);
}

/* ---- what is in memory ---- */

static void write_date(const struct imap_row *row, struct buf *out)
{
	int64_t seconds = row->received_us / 1000000 - (row->received_us % 1000000 < 0);

	buf_add(out, S(" \""));
	date_format_imap((struct date){ .seconds = seconds, .zone = row->zone }, out);
	buf_add_char(out, '"');
}

static void hot_items(struct fetch *f)
{
	struct imap_session *s = f->s;
	const struct imap_row *row = imap_selected_row(&s->selected, f->seq);

	if (f->with_uid || (f->what->items & IMAP_FETCH_UID)) {
		item(f, S("UID "));
		buf_add_u64(&s->out, row->uid);
	}
	/* RFC 3501 6.4.5: flags that the FETCH itself changed are told with it. */
	if ((f->what->items & IMAP_FETCH_FLAGS) || imap_set_has(&f->seen, f->seq)) {
		item(f, S("FLAGS ("));
		imap_account_write_flags(s->account, row->flags,
					 imap_selected_is_recent(&s->selected, row->uid), &s->out);
		buf_add_char(&s->out, ')');
	}
	if (f->what->items & IMAP_FETCH_INTERNALDATE) {
		item(f, S("INTERNALDATE"));
		write_date(row, &s->out);
	}
	if (f->what->items & IMAP_FETCH_SIZE) {
		item(f, S("RFC822.SIZE "));
		buf_add_u64(&s->out, row->size);
	}
}

/* ---- envelope and structure ---- */

static enum err open_tree(struct fetch *f, struct mime_part **root)
{
	enum err err;

	if (!f->message) {
		err = imap_message_open(f->s->account, f->s->selected.view, f->uid, &f->message);
		if (err)
			return err;
	}
	return imap_message_tree(f->message, root);
}

static enum err computed_items(struct fetch *f, unsigned items)
{
	struct buf *out = &f->s->out;
	struct mime_part *root;
	enum err err;

	if (!items)
		return ERR_OK;
	if ((err = open_tree(f, &root)))
		return err;
	if (items & IMAP_FETCH_ENVELOPE) {
		item(f, S("ENVELOPE "));
		mime_write_envelope(root->envelope, out);
	}
	if (items & IMAP_FETCH_BODY) {
		item(f, S("BODY "));
		mime_write_structure(root, false, out);
	}
	if (items & IMAP_FETCH_BODYSTRUCTURE) {
		item(f, S("BODYSTRUCTURE "));
		mime_write_structure(root, true, out);
	}
	return ERR_OK;
}

/* The stored text where there is one, in the order of the items. */
static enum err parsed_items(struct fetch *f)
{
	unsigned items =
		f->what->items & (IMAP_FETCH_ENVELOPE | IMAP_FETCH_BODY | IMAP_FETCH_BODYSTRUCTURE);
	struct rec_row_cold cold;
	enum err err;

	if (!f->cold)
		return computed_items(f, items);
	if ((err = imap_cold_get(f->cold, f->uid, &cold)))
		return err;
	if (!cold.has_parse)
		return computed_items(f, items);
	if (items & IMAP_FETCH_ENVELOPE) {
		item(f, S("ENVELOPE "));
		buf_add(&f->s->out, cold.envelope);
	}
	if (items & IMAP_FETCH_BODYSTRUCTURE) {
		item(f, S("BODYSTRUCTURE "));
		buf_add(&f->s->out, cold.structure);
	}
	/* The structure without extensions is not stored: few ask for it. */
	return computed_items(f, items & IMAP_FETCH_BODY);
}

/* ---- sections ---- */

/* The part of [0, size) that a partial fetch asks for. */
static void clip(const struct imap_section *section, uint64_t size, uint64_t *from, uint64_t *n)
{
	*from = section->is_partial ? MIN((uint64_t)section->from, size) : 0;
	*n = size - *from;
	if (section->is_partial)
		*n = MIN(*n, (uint64_t)section->count);
}

/* A literal that is too large to be held: bytes [from, from + n) of the message. */
static enum err stream(struct fetch *f, uint64_t from, uint64_t n)
{
	struct imap_session *s = f->s;
	char *step = arena_alloc(f->arena, STREAM_STEP);
	size_t now = STREAM_STEP;
	enum err err;

	if (!step)
		return ERR_NO_MEMORY;
	/* The first piece is read before the literal is announced. */
	if ((err = imap_message_read(s->account, s->selected.view, f->uid, from, now, step)))
		return err;
	buf_printf(&s->out, " {%llu}\r\n", (unsigned long long)n);
	f->is_begun = true;
	if ((err = imap_send(s)))
		return err;
	for (;;) {
		if ((err = imap_write_wait(s, str_of(step, now))))
			return err;
		from += now;
		n -= now;
		if (n == 0)
			return ERR_OK;
		now = n < STREAM_STEP ? (size_t)n : STREAM_STEP;
		if ((err = imap_message_read(s->account, s->selected.view, f->uid, from, now,
					     step)))
			return err;
	}
}

/* Bytes [at, at + size) of the message, as a literal. */
static enum err message_range(struct fetch *f, const struct imap_section *section, uint64_t at,
			      uint64_t size)
{
	struct imap_session *s = f->s;
	struct imap_account *a = s->account;
	uint64_t from, n;
	enum err err;
	char *p;

	clip(section, size, &from, &n);
	if (n > IMAP_BODY_KEPT) {
		item(f, section->label);
		return stream(f, at + from, n);
	}
	item(f, section->label);
	buf_printf(&s->out, " {%llu}\r\n", (unsigned long long)n);
	if (n == 0)
		return ERR_OK;
	if (!(p = buf_reserve(&s->out, (size_t)n)))
		return ERR_NO_MEMORY;
	if ((err = imap_message_read(a, s->selected.view, f->uid, at + from, (size_t)n, p)))
		return err;
	buf_added(&s->out, (size_t)n);
	return ERR_OK;
}

/* HEADER, HEADER.FIELDS and TEXT of the message itself need no more than its header. */
static enum err header_section(struct fetch *f, const struct imap_section *section)
{
	struct imap_session *s = f->s;
	struct imap_view *v = s->selected.view;
	const struct section *what = &section->section;
	uint64_t size = imap_selected_row(&s->selected, f->seq)->size, from, n;
	struct buf chosen;
	enum err err;
	str header;

	if ((err = imap_message_header(s->account, v, f->uid, f->arena, &header)))
		return err;
	if (what->what == SECTION_TEXT)
		return message_range(f, section, header.n, size - header.n);
	buf_init(&chosen, header.n + 2);
	if (what->what != SECTION_HEADER) {
		section_select(header, what, &chosen);
		header = buf_str(&chosen);
	}
	clip(section, header.n, &from, &n);
	item(f, section->label);
	literal(f, str_sub(header, from, n));
	buf_free(&chosen);
	return ERR_OK;
}

static enum err part_section(struct fetch *f, const struct imap_section *section)
{
	struct mime_part *root;
	struct buf built;
	uint64_t from, n;
	enum err err;
	str bytes;

	if ((err = open_tree(f, &root)))
		return err;
	buf_init(&built, f->message->bytes.n + 2);
	err = section_find(root, f->message->bytes, &section->section, &built, &bytes);
	if (err == ERR_NOT_FOUND) {
		item(f, section->label);
		buf_add(&f->s->out, S(" NIL"));
		err = ERR_OK;
	} else if (!err) {
		clip(section, bytes.n, &from, &n);
		item(f, section->label);
		literal(f, str_sub(bytes, from, n));
	}
	buf_free(&built);
	return err;
}

static enum err sections(struct fetch *f)
{
	enum err err = ERR_OK;

	for (const struct imap_section *x = f->what->sections; x && !err; x = x->next) {
		if (x->section.depth)
			err = part_section(f, x);
		else if (x->section.what == SECTION_ALL)
			err = message_range(f, x, 0,
					    imap_selected_row(&f->s->selected, f->seq)->size);
		else
			err = header_section(f, x);
	}
	return err;
}

/* ---- messages ---- */

static enum err fetch_message(struct fetch *f)
{
	struct buf *out = &f->s->out;
	size_t begin = buf_len(out);
	enum err err;

	f->is_first = true;
	f->is_begun = false;
	buf_add(out, S("* "));
	buf_add_u64(out, f->seq);
	buf_add(out, S(" FETCH ("));
	hot_items(f);
	err = parsed_items(f);
	if (!err)
		err = sections(f);
	buf_add(out, S(")\r\n"));
	if (!err && buf_failed(out))
		err = ERR_NO_MEMORY;
	if (err && f->is_begun) {
		f->s->is_ending = true;
		err = ERR_CLOSED;
	} else if (err) {
		buf_truncate(out, begin);
		out->failed = false;
	}
	imap_message_release(f->message);
	f->message = NULL;
	arena_reset(f->arena);
	return err;
}

static bool needs_cold(const struct imap_fetch *what)
{
	return what->items & (IMAP_FETCH_ENVELOPE | IMAP_FETCH_BODYSTRUCTURE);
}

/* One run of sequence numbers. *worst: the last message that failed; the others are sent all the
 * same. */
static enum err fetch_range(struct fetch *f, struct imap_range range, enum err *worst)
{
	struct imap_session *s = f->s;
	enum err err = ERR_OK;

	if (needs_cold(f->what) &&
	    !(f->cold = imap_cold_new(s->account, s->selected.view->mailbox,
				      imap_selected_row(&s->selected, range.first)->uid,
				      imap_selected_row(&s->selected, range.last)->uid)))
		return ERR_NO_MEMORY;
	for (f->seq = range.first; f->seq <= range.last && !err; f->seq++) {
		f->uid = imap_selected_row(&s->selected, f->seq)->uid;
		if (imap_selected_row(&s->selected, f->seq)->is_gone)
			err = ERR_NOT_FOUND;
		else
			err = fetch_message(f);
		/* ERR_NO_MEMORY: its own answer is too large; no other message's is for that. */
		if (err == ERR_NOT_FOUND || err == ERR_DAMAGED || err == ERR_IO || err == ERR_EOF ||
		    err == ERR_RANGE || err == ERR_NO_MEMORY) {
			*worst = err;
			err = ERR_OK;
		}
		if (!err && buf_len(&s->out) > 32 * 1024)
			err = imap_send(s);
	}
	imap_cold_free(f->cold);
	f->cold = NULL;
	return err ? err : imap_send(s);
}

static bool marks_seen(const struct imap_session *s, const struct imap_fetch *what)
{
	for (const struct imap_section *x = what->sections; x; x = x->next)
		if (!x->is_peek && !s->selected.is_read_only)
			return true;
	return false;
}

/* RFC 3501 6.4.5: BODY[] without PEEK sets \Seen: one commit for all messages, before any is sent.
 */
static enum err mark_seen(struct fetch *f, const struct imap_set *set)
{
	static const uint64_t seen[2] = { MSG_FLAG_SEEN, 0 };
	struct imap_set_builder marked = { .arena = f->s->arena };
	struct imap_uids uids;
	enum err err = ERR_OK;

	imap_uids_begin(&uids);
	for (size_t i = 0; i < set->count && !err; i++) {
		for (uint32_t seq = set->ranges[i].first; seq <= set->ranges[i].last && !err;
		     seq++) {
			const struct imap_row *row = imap_selected_row(&f->s->selected, seq);

			if (row->is_gone || (row->flags[0] & MSG_FLAG_SEEN))
				continue;
			imap_set_add(&marked, seq, seq);
			imap_uids_add(&uids, row->uid);
			if (imap_uids_are_full(&uids)) {
				err = imap_commit_flags(f->s, imap_uids_done(&uids), IMAP_FLAGS_ADD,
							seen);
				imap_uids_clear(&uids);
			}
		}
	}
	if (!err && uids.ranges)
		err = imap_commit_flags(f->s, imap_uids_done(&uids), IMAP_FLAGS_ADD, seen);
	imap_uids_free(&uids);
	f->seen = marked.set;
	return err;
}

static void conclude(struct imap_session *s, enum err err, enum err worst)
{
	if (err == ERR_CLOSED && s->is_ending)
		return;
	if (!err && worst == ERR_NOT_FOUND)
		/* RFC 5530 3: EXPUNGEISSUED */
		imap_no(s, "[EXPUNGEISSUED] Some of the requested messages no longer exist.");
	else if (err || worst)
		imap_failed(s, err					   ? err
			       : worst == ERR_IO || worst == ERR_NO_MEMORY ? worst
									   : ERR_DAMAGED);
	else
		imap_ok(s, "Fetch completed.");
}

void imap_do_fetch(struct imap_session *s, const struct imap_command *c)
{
	struct fetch f = { .s = s, .what = &c->fetch, .with_uid = c->is_uid };
	enum err err, worst = ERR_OK;
	struct imap_set set;

	if ((err = imap_selected_set(&s->selected, &c->set, c->is_uid, s->arena, &set)) ==
	    ERR_RANGE) {
		imap_bad(s, "Invalid message set: there is no such message.");
		return;
	}
	if (!(f.arena = arena_new(imap_message_header_budget(s->account))))
		err = ERR_NO_MEMORY;
	if (!err && s->keywords_told != s->account->keyword_changes &&
	    (c->fetch.items & IMAP_FETCH_FLAGS))
		imap_write_flag_list(s);
	if (!err && marks_seen(s, &c->fetch))
		err = mark_seen(&f, &set);
	for (size_t i = 0; i < set.count && !err; i++)
		err = fetch_range(&f, set.ranges[i], &worst);
	buf_clear(&s->out);
	arena_free(f.arena);
	conclude(s, err, worst);
}
