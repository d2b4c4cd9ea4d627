/* The account's copies of the store's state; see account.h.
 *
 * Several fibers may want the same copy at once: one loads, the others wait for it and look again.
 * A load takes its MODSEQ from the first answer, so that what changes while later chunks are under
 * way is asked for again.
 */
#include "imap/account.h"

#include "imap/message.h"

#include <stdlib.h>

int64_t imap_account_deadline(const struct imap_account *a)
{
	return a->store_is_gone ? loop_now(a->loop)
				: loop_now(a->loop) + SECONDS(IMAP_STORE_SECONDS);
}

enum err imap_account_new(struct loop *l, struct chan *store, const struct log *log, uint64_t id,
			  const struct imap_config *config, struct imap_account **out)
{
	struct imap_account *a = calloc(1, sizeof(*a));

	if (!a)
		return ERR_NO_MEMORY;
	*a = (struct imap_account){
		.loop = l, .store = store, .log = log, .id = id, .config = *config
	};
	for (size_t i = 0; i < IMAP_SEGMENTS_MAX; i++)
		a->segments[i].fd = -1;
	if (!(a->cipher = body_cipher_new())) {
		free(a);
		return ERR_NO_MEMORY;
	}
	*out = a;
	return ERR_OK;
}

void imap_account_free(struct imap_account *a)
{
	if (!a)
		return;
	loop_timer_cancel(a->loop, &a->recent_timer);
	imap_message_release(a->last);
	for (struct imap_view *v = a->views, *next; v; v = next) {
		next = v->next;
		imap_view_free(v);
	}
	for (size_t i = 0; i < IMAP_SEGMENTS_MAX; i++)
		os_close(a->segments[i].fd);
	for (size_t i = 0; i < KEYWORD_LIMIT; i++)
		free((void *)(uintptr_t)a->keywords[i].p);
	body_cipher_free(a->cipher);
	free(a->mailboxes);
	free(a->names);
	free(a);
}

/* ---- hints ---- */

static struct imap_view *view_by_id(struct imap_account *a, uint32_t mailbox)
{
	struct imap_view *v = a->views;

	while (v && v->mailbox != mailbox)
		v = v->next;
	return v;
}

void imap_account_list_changed(struct imap_account *a)
{
	a->list_changes++;
}

void imap_account_touched(struct imap_account *a, uint32_t mailbox, uint64_t modseq)
{
	struct imap_mailbox *m = imap_account_mailbox_by_id(a, mailbox);
	struct imap_view *v = view_by_id(a, mailbox);

	if (m)
		m->hint = MAX(m->hint, modseq);
	else
		imap_account_list_changed(a);
	if (v && modseq > v->hint) {
		v->hint = modseq;
		if (v->hint > v->modseq && v->first_selected && a->on_change)
			a->on_change(a->arg, v);
	}
}

/* A commit that did nothing has somebody else's MODSEQ: what that one changed is to be asked for.
 */
bool imap_account_follows(struct imap_account *a, uint32_t mailbox,
			  const struct msg_st_commit_reply *reply, struct imap_view **out)
{
	struct imap_mailbox *m = imap_account_mailbox_by_id(a, mailbox);
	struct imap_view *v = view_by_id(a, mailbox);

	*out = v;
	if (!m || !v || !v->is_loaded || v->is_refreshing || !reply->changed ||
	    reply->modseq != v->modseq + 1) {
		imap_account_touched(a, mailbox, reply->modseq);
		return false;
	}
	m->hint = MAX(m->hint, reply->modseq);
	v->modseq = reply->modseq;
	return true;
}

void imap_account_message(struct imap_account *a, struct msg *m)
{
	if (m->type != MSG_st_changed)
		return;
	if (m->u.st_changed.mailbox == 0)
		imap_account_list_changed(a);
	else
		imap_account_touched(a, m->u.st_changed.mailbox, m->u.st_changed.modseq);
}

/* ---- the list of mailboxes ---- */

struct list_load {
	struct buf mailboxes; /* struct imap_mailbox, one after the other; name.p is an offset into
				 names */
	struct buf names;
	uint64_t modseq;
};

static enum err take_keywords(struct imap_account *a, str records)
{
	struct rec_keyword k;
	enum err err;
	char *copy;

	while (!(err = rec_keyword_get(&records, &k))) {
		if (k.number < KEYWORD_FIRST || k.number >= KEYWORD_LIMIT ||
		    a->keywords[k.number].n)
			continue;
		if (!(copy = malloc(MAX(k.name.n, (size_t)1))))
			return ERR_NO_MEMORY;
		memcpy(copy, k.name.p, k.name.n);
		a->keywords[k.number] = str_of(copy, k.name.n);
		a->keyword_count++;
		a->keyword_changes++;
	}
	return err == ERR_EOF ? ERR_OK : err;
}

static enum err take_mailboxes(struct imap_account *a, struct list_load *load, str records)
{
	struct imap_mailbox m = { .as_of = load->modseq };
	const struct imap_mailbox *old;
	enum err err;

	while (!(err = rec_mailbox_get(&records, &m.record))) {
		size_t at = buf_len(&load->names);

		buf_add(&load->names, m.record.name);
		old = imap_account_mailbox_by_id(a, m.record.id);
		m.hint = old ? old->hint : 0;
		m.record.name.p = (const char *)(uintptr_t)at;
		buf_add(&load->mailboxes, str_of(&m, sizeof(m)));
	}
	if (buf_failed(&load->mailboxes) || buf_failed(&load->names))
		return ERR_NO_MEMORY;
	return err == ERR_EOF ? ERR_OK : err;
}

static int mailbox_cmp(const void *x, const void *y)
{
	const struct imap_mailbox *a = x, *b = y;

	return (a->record.id > b->record.id) - (a->record.id < b->record.id);
}

/* Views of mailboxes that are gone, and go when nobody uses them any more. */
static void views_check(struct imap_account *a)
{
	for (struct imap_view **at = &a->views, *v; (v = *at);) {
		const struct imap_mailbox *m = imap_account_mailbox_by_id(a, v->mailbox);

		v->is_deleted = !m || m->record.is_gone || m->record.uidvalidity != v->uidvalidity;
		if (v->is_deleted && !v->first_selected && !v->busy) {
			*at = v->next;
			imap_view_free(v);
		} else {
			at = &v->next;
		}
	}
}

/* The new list takes the old one's place. */
static enum err install_list(struct imap_account *a, const struct list_load *load)
{
	str records = buf_str(&load->mailboxes), names = buf_str(&load->names);
	struct imap_mailbox *list = malloc(MAX(records.n, (size_t)1));
	char *text = malloc(MAX(names.n, (size_t)1));

	if (!list || !text) {
		free(list);
		free(text);
		return ERR_NO_MEMORY;
	}
	if (records.n)
		memcpy(list, records.p, records.n);
	if (names.n)
		memcpy(text, names.p, names.n);
	free(a->mailboxes);
	free(a->names);
	a->mailboxes = list;
	a->names = text;
	a->mailbox_count = records.n / sizeof(*list);
	for (size_t i = 0; i < a->mailbox_count; i++)
		list[i].record.name.p = text + (uintptr_t)list[i].record.name.p;
	if (a->mailbox_count > 1)
		qsort(list, a->mailbox_count, sizeof(*list), mailbox_cmp);
	a->list_is_known = true;
	views_check(a);
	return ERR_OK;
}

static enum err load_list(struct imap_account *a)
{
	struct arena *arena = arena_new(IMAP_COMMAND_BUDGET);
	struct list_load load = { 0 };
	struct msg_st_mailboxes_reply reply = { 0 };
	uint64_t changes = a->list_changes;
	enum err err = arena ? ERR_OK : ERR_NO_MEMORY;
	uint32_t from = 0;

	buf_init(&load.mailboxes, MAILBOX_COUNT_MAX * 2 * sizeof(struct imap_mailbox));
	buf_init(&load.names, 64 * 1024 * 1024);
	while (!err) {
		arena_reset(arena);
		err = CALL(a->store, st_mailboxes, st_mailboxes_reply, &reply, arena,
			   imap_account_deadline(a), .from = from);
		if (!err && from == 0) {
			load.modseq = reply.modseq;
			err = take_keywords(a, reply.keywords);
		}
		if (!err)
			err = take_mailboxes(a, &load, reply.mailboxes);
		if (err || reply.next == 0)
			break;
		from = reply.next;
	}
	if (!err && !(err = install_list(a, &load)))
		a->list_as_of = changes;
	buf_free(&load.mailboxes);
	buf_free(&load.names);
	arena_free(arena);
	return err;
}

enum err imap_account_list(struct imap_account *a)
{
	enum err err = ERR_OK;

	while (!err && (!a->list_is_known || a->list_as_of != a->list_changes)) {
		if (a->list_is_loading) {
			err = waiters_wait(a->loop, &a->list_loaded, imap_account_deadline(a));
			continue;
		}
		a->list_is_loading = true;
		err = load_list(a);
		a->list_is_loading = false;
		waiters_wake_all(a->loop, &a->list_loaded);
	}
	return err;
}

struct imap_mailbox *imap_account_mailbox_by_id(struct imap_account *a, uint32_t id)
{
	struct imap_mailbox key = { .record.id = id };

	if (a->mailbox_count == 0)
		return NULL;
	return bsearch(&key, a->mailboxes, a->mailbox_count, sizeof(key), mailbox_cmp);
}

enum err imap_account_mailbox(struct imap_account *a, str name, struct imap_mailbox **out)
{
	for (size_t i = 0; i < a->mailbox_count; i++) {
		*out = &a->mailboxes[i];
		if (!(*out)->record.is_gone && str_eq((*out)->record.name, name))
			return ERR_OK;
	}
	return ERR_NOT_FOUND;
}

enum err imap_account_counters(struct imap_account *a, uint32_t id)
{
	struct imap_mailbox *m = imap_account_mailbox_by_id(a, id);
	struct msg_st_mailboxes_reply reply;
	struct rec_mailbox record;
	struct arena *arena;
	uint64_t hint;
	enum err err;
	str name;

	if (!m)
		return ERR_NOT_FOUND;
	if ((hint = m->hint) <= m->as_of)
		return ERR_OK;
	if (!(arena = arena_new(IMAP_COMMAND_BUDGET)))
		return ERR_NO_MEMORY;
	err = CALL(a->store, st_mailboxes, st_mailboxes_reply, &reply, arena,
		   imap_account_deadline(a), .from = id, .max = 1);
	if (!err)
		err = take_keywords(a, reply.keywords);
	if (!err && (err = rec_mailbox_get(&reply.mailboxes, &record)) == ERR_EOF)
		err = ERR_NOT_FOUND;
	if (!err && !(m = imap_account_mailbox_by_id(a, id)))
		err = ERR_NOT_FOUND;
	if (!err && record.id != id) {
		imap_account_list_changed(a);
		err = ERR_NOT_FOUND;
	}
	if (!err) {
		name = m->record.name;
		if (!str_eq(name, record.name) || record.is_gone != m->record.is_gone)
			imap_account_list_changed(a);
		m->record = record;
		m->record.name = name;
		/* A hint that came while we waited may be of something newer than the answer. */
		m->as_of = MAX(hint, reply.modseq);
	}
	arena_free(arena);
	return err;
}

/* ---- views ---- */

static enum err take_rows(struct imap_view *v, str records)
{
	struct rec_row r;
	enum err err;

	while (!(err = rec_row_get(&records, &r))) {
		struct imap_row row = {
			.uid = r.uid,
			.modseq = r.modseq,
			.flags = { r.flags0, r.flags1 },
			.body = r.body,
			.size = r.size,
			.received_us = r.received_us,
			.zone = (int16_t)r.zone,
		};

		if ((err = imap_view_put(v, &row)))
			return err;
	}
	return err == ERR_EOF ? ERR_OK : err;
}

static enum err take_gone(struct imap_view *v, str records)
{
	struct rec_uid_range range;
	enum err err;

	while (!(err = rec_uid_range_get(&records, &range))) {
		imap_view_expunge(v, range.first, range.last);
		/* RFC 3501 2.3.1.1: it may have come and gone without being seen. */
		if (range.last < UINT32_MAX)
			v->uidnext = MAX(v->uidnext, range.last + 1);
	}
	return err == ERR_EOF ? ERR_OK : err;
}

static enum err load_rows(struct imap_account *a, struct imap_view *v)
{
	struct arena *arena = arena_new(IMAP_COMMAND_BUDGET);
	struct msg_st_rows_reply reply;
	uint64_t since = v->is_loaded ? v->modseq : 0, modseq = 0, hint = v->hint;
	enum err err = arena ? ERR_OK : ERR_NO_MEMORY;
	uint32_t from = 1;

	while (!err && from) {
		arena_reset(arena);
		err = CALL(a->store, st_rows, st_rows_reply, &reply, arena,
			   imap_account_deadline(a), .mailbox = v->mailbox, .uid_from = from,
			   .uid_to = UINT32_MAX, .since = since);
		if (err)
			break;
		modseq = modseq ? modseq : reply.modseq;
		from = reply.next_uid;
		err = take_gone(v, reply.gone);
		if (!err)
			err = take_rows(v, reply.rows);
	}
	arena_free(arena);
	if (err)
		return err;
	v->is_loaded = true;
	v->modseq = MAX(v->modseq, modseq);
	/* What a hint announced before we asked is in the answer; one that came meanwhile stays. */
	if (v->hint == hint)
		v->hint = MIN(hint, v->modseq);
	return ERR_OK;
}

/* New messages may carry keywords that the account got since. */
static enum err check_keywords(struct imap_account *a, const struct imap_view *v)
{
	uint64_t known[2] = { (1u << KEYWORD_FIRST) - 1, 0 };

	for (unsigned i = KEYWORD_FIRST; i < KEYWORD_LIMIT; i++)
		if (a->keywords[i].n)
			known[i / 64] |= (uint64_t)1 << (i % 64);
	for (size_t i = 0; i < v->count; i++)
		if ((v->rows[i].flags[0] & ~known[0]) || (v->rows[i].flags[1] & ~known[1])) {
			imap_account_list_changed(a);
			return imap_account_list(a);
		}
	return ERR_OK;
}

enum err imap_account_refresh(struct imap_account *a, struct imap_view *v)
{
	enum err err = ERR_OK;

	v->busy++;
	while (!err && !v->is_deleted && (!v->is_loaded || v->hint > v->modseq)) {
		if (v->is_refreshing) {
			err = waiters_wait(a->loop, &v->refreshed, imap_account_deadline(a));
			continue;
		}
		v->is_refreshing = true;
		err = load_rows(a, v);
		v->is_refreshing = false;
		waiters_wake_all(a->loop, &v->refreshed);
		if (!err)
			err = check_keywords(a, v);
	}
	v->busy--;
	if (err == ERR_NOT_FOUND) {
		v->is_deleted = true;
		err = ERR_OK;
	}
	return err;
}

enum err imap_account_view(struct imap_account *a, uint32_t mailbox, struct imap_view **out)
{
	const struct imap_mailbox *m = imap_account_mailbox_by_id(a, mailbox);
	struct imap_view *v = view_by_id(a, mailbox);
	enum err err;

	if (!m)
		return ERR_NOT_FOUND;
	if (!v) {
		if (!(v = imap_view_new(mailbox)))
			return ERR_NO_MEMORY;
		v->uidvalidity = m->record.uidvalidity;
		v->recent_from = m->record.recent_uid;
		v->uidnext = m->record.uidnext;
		v->next = a->views;
		a->views = v;
	}
	if ((err = imap_account_refresh(a, v)))
		return err;
	if (v->is_deleted)
		return ERR_NOT_FOUND;
	*out = v;
	return ERR_OK;
}

static void ignore(void *arg, enum err err, struct msg *reply)
{
	(void)arg, (void)err, (void)reply;
}

static void save_recent(void *arg)
{
	struct imap_account *a = arg;

	for (struct imap_view *v = a->views; v; v = v->next) {
		struct msg_st_commit m = { .op = STORE_OP_RECENT, .mailbox = v->mailbox };

		if (!v->recent_is_unsaved)
			continue;
		v->recent_is_unsaved = false;
		if (chan_call_async(a->store, MSG_st_commit, &m, imap_account_deadline(a), ignore,
				    NULL))
			log_debug(a->log, "imap-recent-lost", "account=%llu mailbox=%u",
				  (unsigned long long)a->id, v->mailbox);
	}
}

void imap_account_seen_recent(struct imap_account *a, struct imap_view *v)
{
	v->recent_is_unsaved = true;
	if (!a->recent_timer.position)
		loop_timer_set(a->loop, &a->recent_timer,
			       loop_now(a->loop) + SECONDS(IMAP_RECENT_SECONDS), save_recent, a);
}

enum err imap_account_gone(struct imap_account *a, const struct imap_view *v, uint64_t since,
			   uint32_t below, struct arena *kept, struct imap_set *out)
{
	struct arena *arena = arena_new(IMAP_COMMAND_BUDGET);
	struct imap_set_builder gone = { .arena = kept };
	struct msg_st_rows_reply reply;
	struct rec_uid_range range;
	enum err err = arena ? ERR_OK : ERR_NO_MEMORY;
	uint32_t from = 1;

	while (!err && from && from < below) {
		arena_reset(arena);
		err = CALL(a->store, st_rows, st_rows_reply, &reply, arena,
			   imap_account_deadline(a), .mailbox = v->mailbox, .uid_from = from,
			   .uid_to = UINT32_MAX, .since = since);
		if (err)
			break;
		from = reply.next_uid;
		while (!(err = rec_uid_range_get(&reply.gone, &range)))
			imap_set_add(&gone, range.first, range.last);
		err = err == ERR_EOF ? ERR_OK : err;
	}
	arena_free(arena);
	*out = gone.set;
	imap_set_resolve(out, UINT32_MAX);
	return !err && gone.failed ? ERR_NO_MEMORY : err;
}

/* ---- keywords and flags ---- */

static bool keyword_find(const struct imap_account *a, str name, unsigned *number)
{
	for (unsigned i = KEYWORD_FIRST; i < KEYWORD_LIMIT; i++) {
		if (a->keywords[i].n && str_case_eq(a->keywords[i], name)) {
			*number = i;
			return true;
		}
	}
	return false;
}

enum err imap_account_keyword(struct imap_account *a, str name, bool create, unsigned *number)
{
	struct msg_st_commit_reply reply;
	struct arena *arena;
	enum err err;

	if (keyword_find(a, name, number))
		return ERR_OK;
	if (!create)
		return ERR_NOT_FOUND;
	if (!(arena = arena_new(IMAP_COMMAND_BUDGET)))
		return ERR_NO_MEMORY;
	err = CALL(a->store, st_commit, st_commit_reply, &reply, arena, imap_account_deadline(a),
		   .op = STORE_OP_KEYWORD, .name = name);
	arena_free(arena);
	if (err)
		return err;
	imap_account_list_changed(a);
	if ((err = imap_account_list(a)))
		return err;
	return keyword_find(a, name, number) ? ERR_OK : ERR_TEMPORARY;
}

static const struct {
	uint64_t flag;
	const char *name;
} system_flags[] = {
	{ MSG_FLAG_ANSWERED, "\\Answered" }, { MSG_FLAG_FLAGGED, "\\Flagged" },
	{ MSG_FLAG_DELETED, "\\Deleted" },   { MSG_FLAG_SEEN, "\\Seen" },
	{ MSG_FLAG_DRAFT, "\\Draft" },
};

static void add_flag(struct buf *out, str name, bool *is_first)
{
	if (!*is_first)
		buf_add_char(out, ' ');
	*is_first = false;
	buf_add(out, name);
}

void imap_account_write_flags(const struct imap_account *a, const uint64_t flags[2], bool is_recent,
			      struct buf *out)
{
	bool is_first = true;

	for (size_t i = 0; i < ARRAY_LEN(system_flags); i++)
		if (flags[0] & system_flags[i].flag)
			add_flag(out, str_from_c(system_flags[i].name), &is_first);
	if ((flags[0] >> KEYWORD_FIRST) || flags[1])
		for (unsigned i = KEYWORD_FIRST; i < KEYWORD_LIMIT; i++)
			if ((flags[i / 64] >> (i % 64) & 1) && a->keywords[i].n)
				add_flag(out, a->keywords[i], &is_first);
	if (is_recent)
		add_flag(out, S("\\Recent"), &is_first);
}
