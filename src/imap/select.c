/* SELECT, EXAMINE, CLOSE, UNSELECT (RFC 3501 6.3.1, 6.3.2, 6.4.2; RFC 3691). */
#include "imap/session_priv.h"

/* The first message that is not \Seen, 0 when all are. The view remembers how far it looked. */
static uint32_t first_unseen(const struct imap_selected *sel)
{
	struct imap_view *v = sel->view;

	while (v->seen_below < v->count && (v->rows[v->seen_below].is_gone ||
					    (v->rows[v->seen_below].flags[0] & MSG_FLAG_SEEN)))
		v->seen_below++;
	if (v->seen_below == v->count)
		return 0;
	return imap_selected_find(sel, v->rows[v->seen_below].uid);
}

static void tell_mailbox(struct imap_session *s, uint32_t uidnext, uint32_t recent_from)
{
	const struct imap_selected *sel = &s->selected;
	uint32_t unseen = first_unseen(sel);

	imap_write_flag_list(s);
	buf_printf(&s->out, "* %u EXISTS\r\n* %u RECENT\r\n", sel->exists,
		   imap_selected_recent(sel));
	if (unseen && unseen <= sel->exists)
		buf_printf(&s->out, "* OK [UNSEEN %u] First unseen.\r\n", unseen);
	buf_printf(&s->out,
		   "* OK [UIDVALIDITY %u] UIDs valid\r\n* OK [UIDNEXT %u] Predicted next UID\r\n",
		   sel->view->uidvalidity, MAX(uidnext, sel->view->uidnext));
	if (sel->view->recent_from != recent_from)
		imap_account_seen_recent(s->account, sel->view);
}

static enum err open_mailbox(struct imap_session *s, str name, bool read_only)
{
	struct imap_account *a = s->account;
	struct imap_mailbox *m;
	struct imap_view *v;
	uint32_t id, uidnext, recent_from;
	enum err err;

	if ((err = imap_account_list(a)) || (err = imap_account_mailbox(a, name, &m)))
		return err;
	id = m->record.id;
	if ((err = imap_account_view(a, id, &v)))
		return err;
	m = imap_account_mailbox_by_id(a, id);
	uidnext = m ? m->record.uidnext : 0;
	recent_from = v->recent_from;
	if ((err = imap_selected_begin(&s->selected, v, read_only)))
		return err;
	s->state = IMAP_SELECTED;
	tell_mailbox(s, uidnext, recent_from);
	return imap_send(s);
}

static void select_mailbox(struct imap_session *s, const struct imap_command *c, bool read_only)
{
	enum err err;

	/* RFC 3501 6.3.1: whatever comes of it, the old mailbox is no longer selected. */
	imap_session_close_mailbox(s);
	err = c->mailbox_is_valid ? open_mailbox(s, c->mailbox, read_only) : ERR_NOT_FOUND;
	if (err) {
		imap_session_close_mailbox(s);
		imap_failed(s, err);
		return;
	}
	imap_ok(s, "[READ-%s] %s completed.", read_only ? "ONLY" : "WRITE",
		read_only ? "Examine" : "Select");
}

void imap_do_select(struct imap_session *s, const struct imap_command *c)
{
	select_mailbox(s, c, false);
}

void imap_do_examine(struct imap_session *s, const struct imap_command *c)
{
	select_mailbox(s, c, true);
}

void imap_do_unselect(struct imap_session *s, const struct imap_command *c)
{
	(void)c;
	imap_session_close_mailbox(s);
	imap_ok(s, "Unselect completed.");
}
