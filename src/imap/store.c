/* STORE, EXPUNGE, CLOSE (RFC 3501 6.4.2, 6.4.3, 6.4.6, RFC 4315), and what they share with COPY.
 *
 * Each is one commit in the store (a set of very many ranges: a few), answered when it is durable.
 * The view follows: when the store's MODSEQ went on by exactly this change, it is applied to the
 * rows in memory, which saves a message; otherwise something else changed as well and the rows are
 * asked for again.
 */
#include "imap/session_priv.h"

/* ---- UIDs for the store ---- */

void imap_uids_begin(struct imap_uids *u)
{
	*u = (struct imap_uids){ 0 };
	buf_init(&u->records, (IMAP_RANGES_MAX + 1) * 8);
}

static void close_range(struct imap_uids *u)
{
	if (u->first)
		rec_uid_range_put(&u->records,
				  &(struct rec_uid_range){ .first = u->first, .last = u->last });
}

void imap_uids_add(struct imap_uids *u, uint32_t uid)
{
	u->count++;
	if (u->first && uid == u->last + 1) {
		u->last = uid;
		return;
	}
	close_range(u);
	u->ranges++;
	u->first = u->last = uid;
}

str imap_uids_done(struct imap_uids *u)
{
	close_range(u);
	u->first = 0;
	return buf_str(&u->records);
}

bool imap_uids_are_full(const struct imap_uids *u)
{
	return u->ranges >= IMAP_RANGES_MAX || u->count >= IMAP_UIDS_MAX;
}

void imap_uids_clear(struct imap_uids *u)
{
	buf_clear(&u->records);
	u->ranges = u->count = 0;
	u->first = u->last = 0;
}

void imap_uids_free(struct imap_uids *u)
{
	buf_free(&u->records);
}

enum err imap_for_pieces(struct imap_session *s, const struct imap_set *set, uint64_t wanted_flag,
			 imap_piece_fn act, void *arg)
{
	struct imap_uids uids;
	enum err err = ERR_OK;

	imap_uids_begin(&uids);
	for (size_t i = 0; i < set->count && !err; i++) {
		for (uint32_t seq = set->ranges[i].first; seq <= set->ranges[i].last && !err;
		     seq++) {
			const struct imap_row *row = imap_selected_row(&s->selected, seq);

			if (row->is_gone || (row->flags[0] & wanted_flag) != wanted_flag)
				continue;
			imap_uids_add(&uids, row->uid);
			if (imap_uids_are_full(&uids)) {
				err = act(s, arg, imap_uids_done(&uids));
				imap_uids_clear(&uids);
			}
		}
	}
	if (!err && uids.ranges)
		err = act(s, arg, imap_uids_done(&uids));
	imap_uids_free(&uids);
	return err;
}

/* ---- the view follows ---- */

bool imap_follows(struct imap_session *s, const struct msg_st_commit_reply *reply)
{
	struct imap_view *v;

	return imap_account_follows(s->account, s->selected.view->mailbox, reply, &v);
}

static void apply_flags(struct imap_view *v, str uids, enum imap_flags_mode mode,
			const uint64_t flags[2], uint64_t modseq)
{
	struct rec_uid_range range;

	while (!rec_uid_range_get(&uids, &range)) {
		for (size_t i = imap_view_find(v, range.first);
		     i < v->count && v->rows[i].uid <= range.last; i++) {
			uint64_t new[2];

			for (size_t w = 0; w < 2; w++) {
				uint64_t old = v->rows[i].flags[w];

				new[w] = mode == IMAP_FLAGS_ADD	     ? old | flags[w]
					 : mode == IMAP_FLAGS_REMOVE ? old & ~flags[w]
								     : flags[w];
			}
			imap_view_set_flags(v, i, new, modseq);
		}
	}
}

/* The other connections that watch this mailbox in IDLE. */
static void tell_others(struct imap_session *s)
{
	if (s->account->on_change)
		s->account->on_change(s->account->arg, s->selected.view);
}

void imap_apply_expunge(struct imap_session *s, str uids)
{
	struct rec_uid_range range;

	while (!rec_uid_range_get(&uids, &range))
		imap_view_expunge(s->selected.view, range.first, range.last);
	tell_others(s);
}

enum err imap_commit_flags(struct imap_session *s, str uids, enum imap_flags_mode mode,
			   const uint64_t flags[2])
{
	struct imap_view *v = s->selected.view;
	struct msg_st_commit_reply reply;
	enum err err;

	err = imap_commit(s,
			  &(struct msg_st_commit){ .op = STORE_OP_FLAGS,
						   .mailbox = v->mailbox,
						   .uids = uids,
						   .mode = (uint8_t)mode,
						   .flags0 = flags[0],
						   .flags1 = flags[1],
						   .expected = v->uidvalidity },
			  &reply);
	if (err)
		return err;
	s->own = reply.modseq;
	if (!imap_follows(s, &reply))
		return imap_account_refresh(s->account, v);
	apply_flags(v, uids, mode, flags, reply.modseq);
	tell_others(s);
	return ERR_OK;
}

/* ---- STORE ---- */

struct store_command {
	enum imap_flags_mode mode;
	uint64_t flags[2];
};

static enum err store_piece(struct imap_session *s, void *arg, str uids)
{
	struct store_command *store = arg;

	return imap_commit_flags(s, uids, store->mode, store->flags);
}

static enum err keywords_to_flags(struct imap_session *s, const struct imap_command *c,
				  uint64_t flags[2])
{
	flags[0] = c->set_flags.system;
	flags[1] = 0;
	for (size_t i = 0; i < c->set_flags.count; i++) {
		unsigned number;
		enum err err = imap_account_keyword(s->account, c->set_flags.keywords[i],
						    c->mode != IMAP_FLAGS_REMOVE, &number);

		if (err == ERR_NOT_FOUND)
			continue; /* nobody has it: there is nothing to remove */
		if (err)
			return err;
		flags[number / 64] |= (uint64_t)1 << (number % 64);
	}
	return ERR_OK;
}

/* RFC 3501 6.4.6: the new flags of every message, asked for or not changed at all. */
static enum err tell_flags(struct imap_session *s, const struct imap_set *set, bool with_uid)
{
	enum err err;

	if (s->keywords_told != s->account->keyword_changes)
		imap_write_flag_list(s);
	for (size_t i = 0; i < set->count; i++) {
		for (uint32_t seq = set->ranges[i].first; seq <= set->ranges[i].last; seq++) {
			if (imap_selected_row(&s->selected, seq)->is_gone)
				continue;
			imap_write_fetch_flags(s, seq, with_uid, &s->out);
			if (buf_len(&s->out) > 32 * 1024 && (err = imap_send(s)))
				return err;
		}
	}
	return imap_send(s);
}

bool imap_resolve_set(struct imap_session *s, const struct imap_command *c, struct imap_set *set)
{
	enum err err = imap_selected_set(&s->selected, &c->set, c->is_uid, s->arena, set);

	if (err == ERR_RANGE)
		imap_bad(s, "Invalid message set: there is no such message.");
	else if (err)
		imap_failed(s, err);
	return !err;
}

bool imap_refuse_read_only(struct imap_session *s)
{
	if (!s->selected.is_read_only)
		return false;
	imap_no(s, "[READ-ONLY] Mailbox is read-only.");
	return true;
}

void imap_do_store(struct imap_session *s, const struct imap_command *c)
{
	struct store_command store = { .mode = c->mode };
	struct imap_set set;
	enum err err;

	if (imap_refuse_read_only(s) || !imap_resolve_set(s, c, &set))
		return;
	err = keywords_to_flags(s, c, store.flags);
	if (!err)
		err = imap_for_pieces(s, &set, 0, store_piece, &store);
	if (!err && !c->is_silent)
		err = tell_flags(s, &set, c->is_uid);
	if (err)
		imap_failed(s, err);
	else
		imap_ok(s, "Store completed.");
}

/* ---- EXPUNGE, CLOSE ---- */

static enum err expunge_piece(struct imap_session *s, void *arg, str uids)
{
	struct imap_view *v = s->selected.view;
	struct msg_st_commit_reply reply;
	enum err err;

	(void)arg;
	err = imap_commit(s,
			  &(struct msg_st_commit){ .op = STORE_OP_EXPUNGE,
						   .mailbox = v->mailbox,
						   .uids = uids,
						   .expected = v->uidvalidity },
			  &reply);
	if (err || !imap_follows(s, &reply))
		return err;
	imap_apply_expunge(s, uids);
	return ERR_OK;
}

static enum err expunge(struct imap_session *s, const struct imap_set *set)
{
	enum err err;

	/* Flags that others set since are part of the decision. */
	if ((err = imap_account_refresh(s->account, s->selected.view)))
		return err;
	return imap_for_pieces(s, set, MSG_FLAG_DELETED, expunge_piece, NULL);
}

static struct imap_set all_messages(struct imap_session *s, struct imap_range *range)
{
	*range = (struct imap_range){ 1, s->selected.exists };
	return (struct imap_set){ .ranges = range, .count = s->selected.exists ? 1 : 0 };
}

void imap_do_expunge(struct imap_session *s, const struct imap_command *c)
{
	struct imap_range range;
	struct imap_set set = all_messages(s, &range);
	enum err err;

	if (imap_refuse_read_only(s) || (c->has_set && !imap_resolve_set(s, c, &set)))
		return;
	if ((err = expunge(s, &set)))
		imap_failed(s, err);
	else
		imap_ok(s, "Expunge completed.");
}

void imap_do_close(struct imap_session *s, const struct imap_command *c)
{
	struct imap_range range;
	struct imap_set set = all_messages(s, &range);
	/* RFC 3501 6.4.2: no expunge, and no error, where it was opened with EXAMINE. */
	enum err err = s->selected.is_read_only ? ERR_OK : expunge(s, &set);

	(void)c;
	if (err) {
		imap_failed(s, err);
		return;
	}
	imap_session_close_mailbox(s);
	imap_ok(s, "Close completed.");
}
