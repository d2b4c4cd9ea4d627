/* COPY and MOVE (RFC 3501 6.4.7, RFC 4315, RFC 6851), and undoing what half a command has made.
 *
 * A set that one commit of the store takes is copied whole or not at all by the store itself. Of a
 * larger one the pieces that were copied are expunged again when a later one fails, since a COPY
 * leaves the target as it was or has done everything; a MOVE that fails half way has moved what it
 * says.
 */
#include "imap/session_priv.h"

struct copy_command {
	uint32_t target, target_uidvalidity;
	enum store_op op;
	struct imap_set_builder from, to;
};

static enum err collect_uids(struct imap_set_builder *b, str records)
{
	struct rec_uid_range range;
	enum err err;

	while (!(err = rec_uid_range_get(&records, &range)))
		imap_set_add(b, range.first, range.last);
	return err == ERR_EOF && !b->failed ? ERR_OK : ERR_PROTOCOL;
}

static enum err copy_piece(struct imap_session *s, void *arg, str uids)
{
	struct copy_command *copy = arg;
	struct imap_view *v = s->selected.view;
	struct msg_st_commit_reply reply;
	enum err err;

	err = imap_commit(s,
			  &(struct msg_st_commit){ .op = (uint8_t)copy->op,
						   .mailbox = v->mailbox,
						   .target = copy->target,
						   .uids = uids,
						   .expected = v->uidvalidity },
			  &reply);
	if (err)
		return err;
	if ((err = collect_uids(&copy->from, reply.from)) ||
	    (err = collect_uids(&copy->to, reply.to)))
		return err;
	copy->target_uidvalidity = reply.uidvalidity;
	imap_account_touched(s->account, copy->target, reply.modseq);
	if (copy->op == STORE_OP_MOVE && copy->target != v->mailbox && imap_follows(s, &reply)) {
		imap_apply_expunge(s, reply.from);
	} else if (copy->op == STORE_OP_MOVE || copy->target == v->mailbox ||
		   !imap_follows(s, &reply)) {
		/* A copy to elsewhere changes nothing here but the MODSEQ that the view is as of.
		 */
		imap_account_touched(s->account, v->mailbox, reply.modseq);
	}
	return ERR_OK;
}

static enum err undo_piece(struct imap_session *s, uint32_t mailbox, str uids)
{
	struct msg_st_commit_reply reply;
	enum err err = imap_commit(
		s,
		&(struct msg_st_commit){ .op = STORE_OP_EXPUNGE, .mailbox = mailbox, .uids = uids },
		&reply);

	if (!err)
		imap_account_touched(s->account, mailbox, reply.modseq);
	return err;
}

void imap_undo(struct imap_session *s, uint32_t mailbox, const struct imap_set *uids)
{
	struct imap_uids piece;
	enum err err = ERR_OK;

	imap_uids_begin(&piece);
	for (size_t i = 0; i < uids->count; i++) {
		for (uint64_t uid = uids->ranges[i].first; uid <= uids->ranges[i].last && !err;
		     uid++) {
			imap_uids_add(&piece, (uint32_t)uid);
			if (imap_uids_are_full(&piece)) {
				err = undo_piece(s, mailbox, imap_uids_done(&piece));
				imap_uids_clear(&piece);
			}
		}
	}
	if (!err && piece.ranges)
		err = undo_piece(s, mailbox, imap_uids_done(&piece));
	imap_uids_free(&piece);
	if (err)
		log_error(s->account->log, "imap-not-undone", "account=%llu mailbox=%u error=%s",
			  (unsigned long long)s->account->id, mailbox, err_name(err));
}

static enum err find_target(struct imap_session *s, const struct imap_command *c, uint32_t *id)
{
	struct imap_mailbox *m;
	enum err err;

	if (!c->mailbox_is_valid)
		return ERR_SYNTAX;
	if ((err = imap_account_list(s->account)) ||
	    (err = imap_account_mailbox(s->account, c->mailbox, &m)))
		return err;
	*id = m->record.id;
	return ERR_OK;
}

/* RFC 4315 3: "[COPYUID 38505 304,319:320 3956:3958] " */
static void write_copyuid(const struct copy_command *copy, struct buf *out)
{
	buf_printf(out, "[COPYUID %u ", copy->target_uidvalidity);
	imap_set_write(&copy->from.set, out);
	buf_add_char(out, ' ');
	imap_set_write(&copy->to.set, out);
	buf_add(out, S("] "));
}

static void finish_copy(struct imap_session *s, const struct copy_command *copy, enum err err)
{
	if (err) {
		/* RFC 3501 6.4.7: the target is as it was before. */
		imap_undo(s, copy->target, &copy->to.set);
		imap_failed(s, err);
		return;
	}
	if (copy->from.set.count)
		write_copyuid(copy, &s->out);
	buf_add(&s->out, S("Copy completed."));
	s->result = "OK";
	s->text = arena_str(s->arena, buf_str(&s->out));
	/* RFC 4315 3: UIDs that would take too much memory need not be told. */
	if (!s->text.p)
		s->text = S("Copy completed.");
	buf_clear(&s->out);
}

static void finish_move(struct imap_session *s, const struct copy_command *copy, enum err err)
{
	enum err sent;

	/* RFC 6851 4.3: untagged, before the expunges; of those that were moved, if not all were.
	 */
	if (copy->from.set.count) {
		buf_add(&s->out, S("* OK "));
		write_copyuid(copy, &s->out);
		buf_add(&s->out, S("Moved UIDs.\r\n"));
		sent = imap_send(s);
		err = err ? err : sent;
	}
	if (err)
		imap_failed(s, err);
	else
		imap_ok(s, "Move completed.");
}

static void copy_or_move(struct imap_session *s, const struct imap_command *c, enum store_op op)
{
	struct copy_command copy = { .op = op, .from.arena = s->arena, .to.arena = s->arena };
	struct imap_set set;
	enum err err;

	if (!imap_resolve_set(s, c, &set))
		return;
	if ((err = find_target(s, c, &copy.target)) == ERR_NOT_FOUND) {
		/* RFC 3501 6.4.7 */
		imap_no(s, "[TRYCREATE] Mailbox doesn't exist.");
		return;
	}
	if (!err)
		err = imap_for_pieces(s, &set, 0, copy_piece, &copy);
	if (op == STORE_OP_MOVE)
		finish_move(s, &copy, err);
	else
		finish_copy(s, &copy, err);
}

void imap_do_copy(struct imap_session *s, const struct imap_command *c)
{
	copy_or_move(s, c, STORE_OP_COPY);
}

void imap_do_move(struct imap_session *s, const struct imap_command *c)
{
	if (!imap_refuse_read_only(s))
		copy_or_move(s, c, STORE_OP_MOVE);
}
