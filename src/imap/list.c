/* LIST and LSUB (RFC 3501 6.3.8, 6.3.9; CHILDREN 3348; SPECIAL-USE 6154; LIST-STATUS 5819).
 *
 * The account's list is sorted once for the command: INBOX first, then by name, so that a mailbox
 * is followed by its children, which also answers whether it has any.
 */
#include "imap/list.h"

#include "imap/list_match.h"

#include <stdlib.h>

struct entry {
	str name;
	uint32_t id;
	unsigned special;
	bool is_gone, is_subscribed, has_children;
};

struct listing {
	struct entry *entries;
	size_t count;
};

/* '/' sorts before everything else, so that children follow their parent at once. */
static int name_cmp(str a, str b)
{
	for (size_t i = 0; i < a.n && i < b.n; i++) {
		unsigned x = a.p[i] == '/' ? 0 : (unsigned char)a.p[i];
		unsigned y = b.p[i] == '/' ? 0 : (unsigned char)b.p[i];

		if (x != y)
			return x < y ? -1 : 1;
	}
	return (a.n > b.n) - (a.n < b.n);
}

static int entry_cmp(const void *x, const void *y)
{
	const struct entry *a = x, *b = y;
	bool a_inbox = str_eq(a->name, S("INBOX")), b_inbox = str_eq(b->name, S("INBOX"));

	return a_inbox != b_inbox ? b_inbox - a_inbox : name_cmp(a->name, b->name);
}

static bool is_child(str name, str parent)
{
	return name.n > parent.n && name.p[parent.n] == '/' && str_starts(name, parent);
}

static enum err make_listing(struct imap_session *s, struct listing *l)
{
	struct imap_account *a = s->account;
	enum err err;

	if ((err = imap_account_list(a)))
		return err;
	l->count = a->mailbox_count;
	if (!(l->entries = arena_array(s->arena, l->count, sizeof(*l->entries))))
		return ERR_NO_MEMORY;
	for (size_t i = 0; i < l->count; i++) {
		const struct rec_mailbox *r = &a->mailboxes[i].record;

		/* The names are copied: the list may be loaded again while this is sent. */
		l->entries[i] = (struct entry){
			.name = arena_str(s->arena, r->name),
			.id = r->id,
			.special = r->special,
			.is_gone = r->is_gone,
			.is_subscribed = r->subscribed,
		};
		if (!l->entries[i].name.p)
			return ERR_NO_MEMORY;
	}
	if (l->count > 1)
		qsort(l->entries, l->count, sizeof(*l->entries), entry_cmp);
	return ERR_OK;
}

/* Only what exists counts as a child. INBOX is not where it sorts by name, so its children are
 * looked for. */
static void find_children(struct listing *l)
{
	for (size_t i = 0; i < l->count; i++) {
		struct entry *e = &l->entries[i];
		bool is_inbox = str_eq(e->name, S("INBOX"));

		for (size_t k = i + 1; k < l->count && !e->has_children; k++) {
			if (is_child(l->entries[k].name, e->name))
				e->has_children = !l->entries[k].is_gone;
			else if (!is_inbox)
				break;
		}
	}
}

static void write_entry(struct buf *out, const char *command, const struct entry *e, str name,
			bool is_noselect)
{
	str special = imap_special_name(e ? e->special : MAILBOX_PLAIN);
	bool has_children = !e || e->has_children;

	buf_printf(out, "* %s (", command);
	if (is_noselect)
		buf_add(out, S("\\Noselect "));
	buf_add(out, has_children ? S("\\HasChildren") : S("\\HasNoChildren"));
	if (special.n && !is_noselect) {
		buf_add_char(out, ' ');
		buf_add(out, special);
	}
	buf_add(out, S(") \"/\" "));
	imap_write_mailbox(out, name);
	buf_add(out, S("\r\n"));
}

/* RFC 3501 6.3.8: the reference stands before the pattern. There is no root that a pattern could
 * begin at instead. */
static str full_pattern(struct imap_session *s, const struct imap_command *c)
{
	return arena_printf(s->arena, "%.*s%.*s", STR_ARGS(c->reference), STR_ARGS(c->pattern));
}

static enum err list(struct imap_session *s, const struct imap_command *c)
{
	struct listing l;
	str pattern = full_pattern(s, c);
	size_t prefix;
	enum err err;

	if ((err = make_listing(s, &l)))
		return err;
	find_children(&l);
	for (size_t i = 0; i < l.count; i++) {
		const struct entry *e = &l.entries[i];

		/* RFC 3501 6.3.4: a deleted name stays, \Noselect, as long as it has children. */
		if ((e->is_gone && !e->has_children) ||
		    imap_list_match(pattern, e->name, &prefix) != IMAP_LIST_YES)
			continue;
		write_entry(&s->out, "LIST", e, e->name, e->is_gone);
		if (c->returns_status && !e->is_gone) {
			err = imap_write_status(s, e->id, c->status_items, &s->out);
			if (err && err != ERR_NOT_FOUND)
				return err;
		}
		if (buf_len(&s->out) > 32 * 1024 && (err = imap_send(s)))
			return err;
	}
	return imap_send(s);
}

/* RFC 3501 6.3.9: with '%', a level above a subscribed name that matches is told as \Noselect. */
static enum err lsub(struct imap_session *s, const struct imap_command *c)
{
	struct listing l;
	str pattern = full_pattern(s, c), last_parent = STR_EMPTY;
	size_t prefix;
	enum err err;

	if ((err = make_listing(s, &l)))
		return err;
	find_children(&l);
	for (size_t i = 0; i < l.count; i++) {
		const struct entry *e = &l.entries[i];
		enum imap_list_match match = e->is_subscribed
						     ? imap_list_match(pattern, e->name, &prefix)
						     : IMAP_LIST_NO;
		str parent = str_head(e->name, prefix);

		if (match == IMAP_LIST_YES) {
			write_entry(&s->out, "LSUB", e, e->name, e->is_gone);
			last_parent = e->name;
		} else if (match == IMAP_LIST_PARENT && !str_eq(parent, last_parent)) {
			write_entry(&s->out, "LSUB", NULL, parent, true);
			last_parent = parent;
		}
		if (buf_len(&s->out) > 32 * 1024 && (err = imap_send(s)))
			return err;
	}
	return imap_send(s);
}

static void finish(struct imap_session *s, enum err err, const char *command)
{
	buf_clear(&s->out);
	if (err)
		imap_failed(s, err);
	else
		imap_ok(s, "%s completed.", command);
}

void imap_do_list(struct imap_session *s, const struct imap_command *c)
{
	if (c->pattern.n == 0) {
		/* RFC 3501 6.3.8: an empty pattern asks for the separator and the root. */
		conn_write(s->conn, S("* LIST (\\Noselect) \"/\" \"\"\r\n"));
		imap_ok(s, "List completed.");
		return;
	}
	finish(s, list(s, c), "List");
}

void imap_do_lsub(struct imap_session *s, const struct imap_command *c)
{
	finish(s, lsub(s, c), "Lsub");
}
