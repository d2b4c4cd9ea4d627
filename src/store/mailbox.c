/* The tree of mailboxes: names, creation, removal, renaming, subscriptions, keywords.
 *
 * A mailbox is a record by number; its name is a value in it. There is no index by name: an account
 * has a handful of mailboxes, up to MAILBOX_COUNT_MAX, and operations by name are rare. What is
 * deleted but still has children, or is subscribed, stays as a record that is_gone, with nothing in
 * it (RFC 9051 6.3.5, 6.3.8); a mailbox of that name gets a new number and a new UIDVALIDITY.
 *
 * Names are UTF-8 in NFC, '/' between levels, as the session gives them; checked again here,
 * because what is stored is shown to every client later.
 */
#include "store/store_priv.h"

#include "text/nfc.h"
#include "text/utf8.h"

/* One name, copied: slices of the overlay and the index end with the commit, but sessions' names
 * with their message. */
static enum err name_check(str name)
{
	unsigned depth = 1;
	struct buf normal;
	str rest = name;
	bool is_normal;

	if (name.n == 0 || name.n > MAILBOX_NAME_MAX || !utf8_is_valid(name))
		return ERR_SYNTAX;
	for (size_t i = 0; i < name.n; i++) {
		unsigned char c = (unsigned char)name.p[i];

		if (c < 0x20 || c == 0x7f)
			return ERR_SYNTAX;
		depth += c == '/';
	}
	if (depth > MAILBOX_DEPTH_MAX)
		return ERR_TOO_MANY;
	while (rest.n)
		if (str_cut(&rest, '/').n == 0)
			return ERR_SYNTAX;
	if (name.p[name.n - 1] == '/')
		return ERR_SYNTAX;
	buf_init(&normal, 4 * MAILBOX_NAME_MAX);
	is_normal = nfc_normalise(name, &normal) == ERR_OK && str_eq(buf_str(&normal), name);
	buf_free(&normal);
	return is_normal ? ERR_OK : ERR_SYNTAX;
}

/* RFC 9051 5.1: INBOX in any case is INBOX. */
static bool names_match(str a, str b)
{
	return str_eq(a, b) || (str_case_eq(a, S("INBOX")) && str_case_eq(b, S("INBOX")));
}

static bool is_below(str name, str parent)
{
	return name.n > parent.n && name.p[parent.n] == '/' &&
	       names_match(str_head(name, parent.n), parent);
}

enum err mailbox_load(struct store *s, enum kv_state state, uint64_t account, uint32_t id,
		      struct mailbox *m)
{
	struct key k = key_make2(KIND_MAILBOX, account, id);
	str value;
	enum err err = kv_get(s->kv, state, &k, &value);

	return err ? err : mailbox_get(value, id, m);
}

void mailbox_save(struct change *c, const struct mailbox *m)
{
	struct key k = key_make2(KIND_MAILBOX, c->id, m->id);

	buf_clear(&c->store->value);
	mailbox_put(&c->store->value, m);
	kv_put(c->store->kv, &k, buf_str(&c->store->value));
}

static void mailbox_remove(struct change *c, uint32_t id)
{
	struct key k = key_make2(KIND_MAILBOX, c->id, id);

	kv_delete(c->store->kv, &k);
}

void mailbox_new(struct change *c, str name, enum mailbox_special special, bool is_subscribed,
		 struct mailbox *m)
{
	*m = (struct mailbox){ .id = c->account.next_mailbox++,
			       .name = name,
			       .uidvalidity = next_uidvalidity(c->store),
			       .uidnext = 1,
			       .recent_uid = 1,
			       .modseq = c->modseq,
			       .special = (uint16_t)special,
			       .is_subscribed = is_subscribed };
	mailbox_save(c, m);
	pending_hint(c->pending, c->id, 0, c->modseq);
}

/* Walks the account's mailboxes, pending state. */
struct mailbox_walk {
	struct kv_cursor cursor;
	struct key prefix;
};

static enum err walk_open(struct change *c, struct mailbox_walk *w)
{
	w->prefix = key_make1(KIND_MAILBOX, c->id);
	return kv_cursor_open(c->store->kv, KV_PENDING, key_str(&w->prefix), key_str(&w->prefix),
			      false, &w->cursor);
}

static enum err walk_next(struct mailbox_walk *w, struct mailbox *m)
{
	uint64_t numbers[3];
	str key, value;
	enum err err = kv_cursor_next(&w->cursor, &key, &value);

	if (err)
		return err;
	if (!key_parse(key, KIND_MAILBOX, 2, numbers))
		return ERR_DAMAGED;
	return mailbox_get(value, (uint32_t)numbers[1], m);
}

/* ERR_NOT_FOUND; ones that are gone are found too. */
static enum err find_name(struct change *c, str name, struct mailbox *m)
{
	struct mailbox_walk w;
	enum err err = walk_open(c, &w);

	while (!err && !(err = walk_next(&w, m)))
		if (names_match(m->name, name))
			break;
	kv_cursor_close(&w.cursor);
	return err == ERR_EOF ? ERR_NOT_FOUND : err;
}

static enum err has_children(struct change *c, str name, bool *yes)
{
	struct mailbox_walk w;
	struct mailbox m;
	enum err err = walk_open(c, &w);

	*yes = false;
	while (!err && !*yes && !(err = walk_next(&w, &m)))
		*yes = !m.is_gone && is_below(m.name, name);
	kv_cursor_close(&w.cursor);
	return err == ERR_EOF ? ERR_OK : err;
}

/* Numbers are never given again, so only their count says how many mailboxes there can be at most.
 */
static enum err are_too_many(struct change *c)
{
	struct mailbox_walk w;
	struct mailbox m;
	uint32_t count = 0;
	enum err err;

	if (c->account.next_mailbox < MAILBOX_COUNT_MAX)
		return ERR_OK;
	if (c->account.next_mailbox == UINT32_MAX)
		return ERR_TOO_MANY;
	err = walk_open(c, &w);
	while (!err && !(err = walk_next(&w, &m)))
		count++;
	kv_cursor_close(&w.cursor);
	if (err != ERR_EOF)
		return err;
	return count < MAILBOX_COUNT_MAX ? ERR_OK : ERR_TOO_MANY;
}

/* A mailbox of that name, alive: new, or in place of one that is gone. */
static enum err create_one(struct change *c, str name, enum mailbox_special special,
			   bool is_subscribed, struct mailbox *m)
{
	struct mailbox old;
	enum err err = find_name(c, name, &old);

	if (err && err != ERR_NOT_FOUND)
		return err;
	if (!err && !old.is_gone)
		return ERR_EXISTS;
	if (!err) {
		mailbox_remove(c, old.id);
		is_subscribed |= old.is_subscribed;
	}
	if ((err = are_too_many(c)))
		return err;
	mailbox_new(c, name, special, is_subscribed, m);
	return ERR_OK;
}

/* RFC 9051 6.3.4: superior names are created as well. */
static enum err create_parents(struct change *c, str name)
{
	struct mailbox m;
	enum err err;

	for (size_t i = 1; i < name.n; i++) {
		if (name.p[i] != '/')
			continue;
		err = create_one(c, str_head(name, i), MAILBOX_PLAIN, false, &m);
		if (err && err != ERR_EXISTS)
			return err;
	}
	return ERR_OK;
}

enum err mailbox_obtain(struct change *c, str name, struct mailbox *m)
{
	enum err err = name_check(name);

	if (!err)
		err = find_name(c, name, m);
	if (err != ERR_NOT_FOUND && (err || !m->is_gone))
		return err;
	err = create_parents(c, name);
	return err ? err : create_one(c, name, MAILBOX_PLAIN, true, m);
}

static enum err operation_create(struct change *c, const struct msg_st_commit *in)
{
	struct mailbox m;
	enum err err = name_check(in->name);

	if (!err)
		err = create_parents(c, in->name);
	if (!err)
		err = create_one(c, in->name,
				 in->special <= MAILBOX_ARCHIVE ? in->special : MAILBOX_PLAIN,
				 in->subscribed, &m);
	if (err)
		return err;
	c->pending->reply.mailbox = m.id;
	c->pending->reply.uidvalidity = m.uidvalidity;
	return ERR_OK;
}

/* Removed, or kept as a name: while something is below it, or it is subscribed. */
static enum err retire(struct change *c, struct mailbox *m)
{
	bool keep;
	enum err err = has_children(c, m->name, &keep);

	if (err)
		return err;
	pending_hint(c->pending, c->id, 0, c->modseq);
	if (!keep && !m->is_subscribed) {
		mailbox_remove(c, m->id);
		return ERR_OK;
	}
	*m = (struct mailbox){ .id = m->id,
			       .name = m->name,
			       .uidvalidity = m->uidvalidity,
			       .uidnext = 1,
			       .recent_uid = 1,
			       .modseq = c->modseq,
			       .is_subscribed = m->is_subscribed,
			       .is_gone = true };
	mailbox_save(c, m);
	return ERR_OK;
}

/* Names kept for children alone go with the last of them. */
static enum err prune_parents(struct change *c, str name)
{
	struct mailbox m;
	bool keep;
	enum err err = ERR_OK;

	for (size_t i = name.n; i-- > 1 && !err;) {
		if (name.p[i] != '/')
			continue;
		err = find_name(c, str_head(name, i), &m);
		if (err == ERR_NOT_FOUND) {
			err = ERR_OK;
			continue;
		}
		if (err || !m.is_gone || m.is_subscribed)
			return err;
		err = has_children(c, m.name, &keep);
		if (!err && !keep)
			mailbox_remove(c, m.id);
	}
	return err;
}

static enum err operation_delete(struct change *c, const struct msg_st_commit *in)
{
	struct mailbox m;
	enum err err = mailbox_load(c->store, KV_PENDING, c->id, in->mailbox, &m);

	if (err)
		return err;
	if (m.is_gone)
		return ERR_NOT_FOUND;
	/* RFC 9051 6.3.5: it is an error to delete INBOX. */
	if (m.id == INBOX_ID)
		return ERR_DENIED;
	if (in->expected && in->expected != m.uidvalidity)
		return ERR_CONFLICT;
	if ((err = messages_move_all(c, m.id, NULL)) || (err = retire(c, &m)))
		return err;
	return prune_parents(c, m.name);
}

static enum err rename_one(struct change *c, const struct mailbox *m, str old_name, str new_name)
{
	char bytes[MAILBOX_NAME_MAX + 1];
	struct mailbox renamed = *m;
	size_t tail = m->name.n - old_name.n;

	if (new_name.n + tail > MAILBOX_NAME_MAX)
		return ERR_TOO_LONG;
	memcpy(bytes, new_name.p, new_name.n);
	memcpy(bytes + new_name.n, m->name.p + old_name.n, tail);
	renamed.name = str_of(bytes, new_name.n + tail);
	mailbox_save(c, &renamed);
	pending_hint(c->pending, c->id, 0, c->modseq);
	return ERR_OK;
}

static enum err rename_children(struct change *c, str old_name, str new_name)
{
	struct mailbox_walk w;
	struct mailbox m;
	enum err err = walk_open(c, &w);

	/* A record that was renamed is met again only if its new name is below the old one, which
	 * is refused before. */
	while (!err && !(err = walk_next(&w, &m)))
		if (is_below(m.name, old_name))
			err = rename_one(c, &m, old_name, new_name);
	kv_cursor_close(&w.cursor);
	return err == ERR_EOF ? ERR_OK : err;
}

/* RFC 9051 6.3.6: renaming INBOX moves its messages, and leaves it and what is below it. */
static enum err rename_inbox(struct change *c, const struct mailbox *inbox, str name)
{
	struct mailbox m;
	enum err err = create_one(c, name, MAILBOX_PLAIN, false, &m);

	if (!err)
		err = messages_move_all(c, inbox->id, &m);
	if (!err)
		mailbox_save(c, &m);
	c->pending->reply.mailbox = m.id;
	return err;
}

static enum err operation_rename(struct change *c, const struct msg_st_commit *in)
{
	struct mailbox m, other;
	enum err err = name_check(in->name);

	if (!err)
		err = mailbox_load(c->store, KV_PENDING, c->id, in->mailbox, &m);
	if (err)
		return err;
	if (names_match(m.name, in->name))
		return ERR_EXISTS;
	if (is_below(in->name, m.name) && m.id != INBOX_ID)
		return ERR_DENIED;
	err = find_name(c, in->name, &other);
	if (!err && !other.is_gone)
		return ERR_EXISTS;
	if (err && err != ERR_NOT_FOUND)
		return err;
	if (!err)
		mailbox_remove(c, other.id);
	if ((err = create_parents(c, in->name)))
		return err;
	if (m.id == INBOX_ID)
		return rename_inbox(c, &m, in->name);
	c->pending->reply.mailbox = m.id;
	c->pending->reply.uidvalidity = m.uidvalidity;
	if ((err = rename_children(c, m.name, in->name)) ||
	    (err = rename_one(c, &m, m.name, in->name)))
		return err;
	return prune_parents(c, m.name);
}

static enum err operation_subscribe(struct change *c, const struct msg_st_commit *in)
{
	struct mailbox m;
	enum err err = name_check(in->name);

	if (err)
		return err;
	err = find_name(c, in->name, &m);
	if (err == ERR_NOT_FOUND) {
		if (!in->subscribed)
			return ERR_OK;
		/* RFC 9051 6.3.7: a name may be subscribed that is no mailbox. */
		mailbox_new(c, in->name, MAILBOX_PLAIN, true, &m);
		m.is_gone = true;
		mailbox_save(c, &m);
		return ERR_OK;
	}
	if (err || m.is_subscribed == in->subscribed)
		return err;
	m.is_subscribed = in->subscribed;
	if (m.is_gone)
		return retire(c, &m);
	mailbox_save(c, &m);
	pending_hint(c->pending, c->id, 0, c->modseq);
	return ERR_OK;
}

/* RFC 9051 2.3.2: keywords are compared without regard to case. */
static enum err operation_keyword(struct change *c, const struct msg_st_commit *in)
{
	struct key prefix = key_make1(KIND_KEYWORD, c->id), k;
	struct kv_cursor cursor;
	uint64_t numbers[3];
	uint64_t next = KEYWORD_FIRST;
	str key, value;
	enum err err;

	if (in->name.n == 0 || in->name.n > KEYWORD_NAME_MAX)
		return ERR_SYNTAX;
	for (size_t i = 0; i < in->name.n; i++)
		if (in->name.p[i] <= ' ' || in->name.p[i] == 0x7f)
			return ERR_SYNTAX;
	err = kv_cursor_open(c->store->kv, KV_PENDING, key_str(&prefix), key_str(&prefix), false,
			     &cursor);
	while (!err && !(err = kv_cursor_next(&cursor, &key, &value))) {
		if (!key_parse(key, KIND_KEYWORD, 2, numbers)) {
			err = ERR_DAMAGED;
		} else if (str_case_eq(value, in->name)) {
			c->pending->reply.mailbox = (uint32_t)numbers[1];
			break;
		} else {
			next = numbers[1] + 1;
		}
	}
	kv_cursor_close(&cursor);
	if (err != ERR_EOF)
		return err;
	if (next >= KEYWORD_LIMIT)
		return ERR_TOO_MANY;
	k = key_make2(KIND_KEYWORD, c->id, next);
	kv_put(c->store->kv, &k, in->name);
	c->pending->reply.mailbox = (uint32_t)next;
	pending_hint(c->pending, c->id, 0, c->modseq);
	return ERR_OK;
}

enum err mailbox_operation(struct change *c, const struct msg_st_commit *in)
{
	switch (in->op) {
	case STORE_OP_CREATE:
		return operation_create(c, in);
	case STORE_OP_DELETE:
		return operation_delete(c, in);
	case STORE_OP_RENAME:
		return operation_rename(c, in);
	case STORE_OP_SUBSCRIBE:
		return operation_subscribe(c, in);
	case STORE_OP_KEYWORD:
		return operation_keyword(c, in);
	default:
		return ERR_PROTOCOL;
	}
}
