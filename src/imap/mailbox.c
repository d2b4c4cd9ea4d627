/* CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE, STATUS (RFC 3501 6.3.3 to 6.3.10, RFC 6154 5).
 *
 * The store decides; this is the translation of its answers. Names that cannot exist never reach
 * it.
 */
#include "imap/session_priv.h"
#include "imap/list.h"

enum err imap_commit(struct imap_session *s, const struct msg_st_commit *m,
		     struct msg_st_commit_reply *reply)
{
	return chan_call(s->account->store, MSG_st_commit, m, MSG_st_commit_reply, reply, s->arena,
			 imap_account_deadline(s->account));
}

static enum err find_mailbox(struct imap_session *s, str name, bool is_valid,
			     struct imap_mailbox **m)
{
	enum err err;

	if (!is_valid)
		return ERR_NOT_FOUND;
	if ((err = imap_account_list(s->account)))
		return err;
	return imap_account_mailbox(s->account, name, m);
}

void imap_do_create(struct imap_session *s, const struct imap_command *c)
{
	struct msg_st_commit_reply reply;
	enum err err;

	if (!c->mailbox_is_valid) {
		imap_no(s, "[CANNOT] Invalid mailbox name.");
		return;
	}
	if (c->special_is_unknown) {
		/* RFC 6154 5.2 */
		imap_no(s, "[USEATTR] That special use is not supported.");
		return;
	}
	err = imap_commit(s,
			  &(struct msg_st_commit){ .op = STORE_OP_CREATE,
						   .name = c->mailbox,
						   .special = (uint16_t)c->special },
			  &reply);
	imap_account_list_changed(s->account);
	if (err)
		imap_failed(s, err);
	else
		imap_ok(s, "Create completed.");
}

void imap_do_delete(struct imap_session *s, const struct imap_command *c)
{
	struct msg_st_commit_reply reply;
	struct imap_mailbox *m;
	uint32_t id = 0;
	enum err err;

	if (str_eq(c->mailbox, S("INBOX"))) {
		imap_no(s, "[CANNOT] INBOX can't be deleted.");
		return;
	}
	err = find_mailbox(s, c->mailbox, c->mailbox_is_valid, &m);
	if (!err) {
		id = m->record.id;
		err = imap_commit(s,
				  &(struct msg_st_commit){ .op = STORE_OP_DELETE,
							   .mailbox = id,
							   .expected = m->record.uidvalidity },
				  &reply);
	}
	/* Who deletes the mailbox that it has selected has none selected afterwards; the others are
	 * disconnected. */
	if (!err && s->selected.view && s->selected.view->mailbox == id)
		imap_session_close_mailbox(s);
	imap_account_list_changed(s->account);
	/* So that views of it learn that they are of nothing. */
	if (!err)
		err = imap_account_list(s->account);
	if (err)
		imap_failed(s, err);
	else
		imap_ok(s, "Delete completed.");
}

void imap_do_rename(struct imap_session *s, const struct imap_command *c)
{
	struct msg_st_commit_reply reply;
	struct imap_mailbox *m, *there;
	enum err err = find_mailbox(s, c->mailbox, c->mailbox_is_valid, &m);
	uint32_t id;

	if (!err && !c->target_is_valid) {
		imap_no(s, "[CANNOT] Invalid mailbox name.");
		return;
	}
	if (!err && !imap_account_mailbox(s->account, c->target, &there))
		err = ERR_EXISTS;
	if (err) {
		imap_failed(s, err);
		return;
	}
	id = m->record.id;
	err = imap_commit(
		s,
		&(struct msg_st_commit){ .op = STORE_OP_RENAME, .mailbox = id, .name = c->target },
		&reply);
	imap_account_list_changed(s->account);
	/* RFC 3501 6.3.5: renaming INBOX moves its messages. */
	if (!err)
		imap_account_touched(s->account, id, reply.modseq);
	if (err)
		imap_failed(s, err);
	else
		imap_ok(s, "Rename completed.");
}

static void set_subscription(struct imap_session *s, const struct imap_command *c, bool on)
{
	struct msg_st_commit_reply reply;
	struct imap_mailbox *m;
	enum err err = c->mailbox_is_valid ? ERR_OK : ERR_NOT_FOUND;

	/* RFC 3501 6.3.6: SUBSCRIBE may check that the name exists; it may be removed later all the
	 * same. */
	if (on && !err)
		err = find_mailbox(s, c->mailbox, true, &m);
	if (!err)
		err = imap_commit(s,
				  &(struct msg_st_commit){ .op = STORE_OP_SUBSCRIBE,
							   .name = c->mailbox,
							   .subscribed = on },
				  &reply);
	imap_account_list_changed(s->account);
	if (err)
		imap_failed(s, err);
	else
		imap_ok(s, "%s completed.", on ? "Subscribe" : "Unsubscribe");
}

void imap_do_subscribe(struct imap_session *s, const struct imap_command *c)
{
	set_subscription(s, c, true);
}

void imap_do_unsubscribe(struct imap_session *s, const struct imap_command *c)
{
	set_subscription(s, c, false);
}

/* Messages that no connection was told of. */
static enum err count_recent(struct imap_session *s, uint32_t id, uint32_t *out)
{
	struct imap_view *v;
	enum err err;

	if ((err = imap_account_view(s->account, id, &v)))
		return err;
	*out = 0;
	for (size_t i = imap_view_find(v, v->recent_from); i < v->count; i++)
		*out += !v->rows[i].is_gone;
	return ERR_OK;
}

static void write_status(const struct rec_mailbox *r, uint32_t recent, unsigned items,
			 struct buf *out)
{
	const struct {
		const char *name;
		unsigned item;
		uint32_t value;
	} values[] = {
		{ "MESSAGES", IMAP_STATUS_MESSAGES, r->messages },
		{ "RECENT", IMAP_STATUS_RECENT, recent },
		{ "UIDNEXT", IMAP_STATUS_UIDNEXT, r->uidnext },
		{ "UIDVALIDITY", IMAP_STATUS_UIDVALIDITY, r->uidvalidity },
		{ "UNSEEN", IMAP_STATUS_UNSEEN, r->unseen },
	};
	const char *before = "";

	buf_add(out, S("* STATUS "));
	imap_write_mailbox(out, r->name);
	buf_add(out, S(" ("));
	for (size_t i = 0; i < ARRAY_LEN(values); i++) {
		if (!(items & values[i].item))
			continue;
		buf_printf(out, "%s%s %u", before, values[i].name, values[i].value);
		before = " ";
	}
	buf_add(out, S(")\r\n"));
}

enum err imap_write_status(struct imap_session *s, uint32_t id, unsigned items, struct buf *out)
{
	const struct imap_mailbox *m;
	uint32_t recent = 0;
	enum err err;

	if ((err = imap_account_counters(s->account, id)))
		return err;
	m = imap_account_mailbox_by_id(s->account, id);
	if ((items & IMAP_STATUS_RECENT) && m && m->record.messages &&
	    (err = count_recent(s, id, &recent)))
		return err;
	if (!(m = imap_account_mailbox_by_id(s->account, id)))
		return ERR_NOT_FOUND;
	write_status(&m->record, recent, items, out);
	return ERR_OK;
}

void imap_do_status(struct imap_session *s, const struct imap_command *c)
{
	struct imap_mailbox *m;
	enum err err = find_mailbox(s, c->mailbox, c->mailbox_is_valid, &m);

	if (!err)
		err = imap_write_status(s, m->record.id, c->status_items, &s->out);
	if (!err)
		err = imap_send(s);
	if (err)
		imap_failed(s, err);
	else
		imap_ok(s, "Status completed.");
}
