/* The store's side of sessions: tickets from auth, channels bound to one account, hints.
 *
 * A session process never names an account: its channel has one, because auth said which account
 * the ticket is that the zygote attached the channel with. A ticket attaches one channel.
 *
 * Hints coalesce: what changed in a mailbox since the session was last told is one message. A
 * session that does not read them keeps what is outstanding in its table, not in a queue; beyond
 * HINTS_PER_SESSION mailboxes it becomes mailbox 0, 'look at all of them'.
 *
 * What a session changed itself is in the reply to it. Its own hint waits for the next tick: a
 * message less for each change, and still told if the session gave up waiting for the reply.
 */
#include "roles/store_priv.h"

#include <stdlib.h>

static struct watched_account **account_at(struct store_role *s, uint64_t id)
{
	struct watched_account **at = &s->accounts[id * 0x9e3779b97f4a7c15u >> 52];

	while (*at && (*at)->id != id)
		at = &(*at)->next;
	return at;
}

static struct watched_account *account_get(struct store_role *s, uint64_t id)
{
	struct watched_account **at = account_at(s, id);

	if (!*at && (*at = calloc(1, sizeof(**at))))
		(*at)->id = id;
	return *at;
}

static void account_release(struct store_role *s, uint64_t id)
{
	struct watched_account **at = account_at(s, id), *a = *at;

	/* One that waits to be told about is released afterwards. */
	if (!a || a->clients || a->wakes || a->is_dirty)
		return;
	*at = a->next;
	free(a);
}

/* ---- hints ---- */

static void client_hint(struct client *c, uint32_t mailbox, uint64_t modseq)
{
	/* Also when the mailbox is in the table already: its own change there may be waiting for
	 * the next tick, news must not. */
	if (!c->is_dirty) {
		c->is_dirty = true;
		c->next_dirty = c->role->dirty;
		c->role->dirty = c;
	}
	for (unsigned i = 0; i < c->hint_count; i++) {
		if (c->hints[i].mailbox == mailbox) {
			c->hints[i].modseq = modseq;
			c->hints[i].is_own = false;
			return;
		}
	}
	if (c->hint_count == HINTS_PER_SESSION) {
		c->hint_count = 0;
		mailbox = 0;
	}
	c->hints[c->hint_count].mailbox = mailbox;
	c->hints[c->hint_count].is_own = false;
	c->hints[c->hint_count++].modseq = modseq;
}

void store_role_changed(void *arg, uint64_t account, uint32_t mailbox, uint64_t modseq)
{
	struct store_role *s = arg;
	struct watched_account *a = *account_at(s, account);

	store_role_quota_changed(s, account);
	if (!a)
		return;
	for (struct client *c = a->clients; c; c = c->next)
		client_hint(c, mailbox, modseq);
	a->modseq = modseq;
	if (a->wakes && !a->is_dirty) {
		a->is_dirty = true;
		a->next_dirty = s->dirty_accounts;
		s->dirty_accounts = a;
	}
	loop_post(s->role->loop, &s->tell, store_role_tell, s);
}

void store_role_queued(void *arg)
{
	struct store_role *s = arg;

	s->queue_is_dirty = true;
	loop_post(s->role->loop, &s->tell, store_role_tell, s);
}

void store_role_own_change(struct client *c, uint64_t modseq)
{
	for (unsigned i = 0; i < c->hint_count; i++)
		if (c->hints[i].mailbox && c->hints[i].modseq == modseq)
			c->hints[i].is_own = true;
}

/* False: something is left for the next tick, as the channel is full, or it is the client's own. */
static bool client_tell(struct client *c, bool own)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < c->hint_count; i++)
		if ((c->hints[i].is_own && !own) ||
		    SEND(c->chan, st_changed, .mailbox = c->hints[i].mailbox,
			 .modseq = c->hints[i].modseq) == ERR_BUSY)
			c->hints[kept++] = c->hints[i];
	c->hint_count = kept;
	return kept == 0;
}

static void accounts_tell(struct store_role *s)
{
	struct chan *zygote = role_peer(s->role, ROLE_SESSION, 0);
	struct watched_account *a = s->dirty_accounts, *next;

	s->dirty_accounts = NULL;
	for (; a; a = next) {
		next = a->next_dirty;
		a->is_dirty = false;
		if (zygote && a->wakes &&
		    SEND(zygote, session_changed, .account = a->id, .modseq = a->modseq) ==
			    ERR_BUSY) {
			a->is_dirty = true;
			a->next_dirty = s->dirty_accounts;
			s->dirty_accounts = a;
		} else {
			account_release(s, a->id);
		}
	}
}

static void client_hints_tell(struct store_role *s, struct client *c, bool own)
{
	if (!c->chan || client_tell(c, own) || c->is_late)
		return;
	c->is_late = true;
	c->next_late = s->late;
	s->late = c;
}

void store_role_tell(void *arg)
{
	struct store_role *s = arg;
	struct chan *queue = role_peer(s->role, ROLE_QUEUE, 0);
	struct client *c = s->dirty, *next;

	s->dirty = NULL;
	for (; c; c = next) {
		next = c->next_dirty;
		c->is_dirty = false;
		client_hints_tell(s, c, false);
	}
	accounts_tell(s);
	if (s->queue_is_dirty && queue && SEND(queue, q_hint, ) != ERR_BUSY)
		s->queue_is_dirty = false;
}

void store_role_tell_all(struct store_role *s)
{
	struct client *c = s->late, *next;

	s->late = NULL;
	for (; c; c = next) {
		next = c->next_late;
		c->is_late = false;
		client_hints_tell(s, c, true);
	}
	store_role_tell(s);
}

/* ---- tickets ---- */

static struct bind **bind_at(struct store_role *s, const uint8_t ticket[16])
{
	struct bind **at = &s->binds;

	while (*at && memcmp((*at)->ticket, ticket, sizeof((*at)->ticket)) != 0)
		at = &(*at)->next;
	return at;
}

static void bind_remove(struct store_role *s, struct bind **at)
{
	struct bind *b = *at;

	*at = b->next;
	s->bind_count--;
	free(b);
}

void store_role_binds_expire(struct store_role *s)
{
	int64_t now = loop_now(s->role->loop);

	for (struct bind **at = &s->binds; *at;) {
		if ((*at)->until < now)
			bind_remove(s, at);
		else
			at = &(*at)->next;
	}
}

static enum err bind_add(struct store_role *s, const uint8_t ticket[16], uint64_t account)
{
	struct bind *b;

	if (s->bind_count >= BINDS_MAX)
		return ERR_BUSY;
	if (*bind_at(s, ticket))
		return ERR_EXISTS;
	if (!(b = calloc(1, sizeof(*b))))
		return ERR_NO_MEMORY;
	memcpy(b->ticket, ticket, sizeof(b->ticket));
	b->account = account;
	b->until = loop_now(s->role->loop) + SECONDS(BIND_SECONDS);
	b->next = s->binds;
	s->binds = b;
	s->bind_count++;
	return ERR_OK;
}

void store_role_bind(struct store_role *s, struct client *auth, struct msg *m)
{
	const struct msg_store_bind *in = &m->u.store_bind;
	struct waiting *w = NULL;
	enum err err = in->account ? bind_add(s, in->ticket, in->account) : ERR_PROTOCOL;

	if (!err && !(w = waiting_new(auth, m->id, true)))
		err = ERR_NO_MEMORY;
	if (!err &&
	    (err = store_bind(s->store, in->account, in->address, in->quota, waiting_done, w)))
		waiting_free(w);
	if (!err)
		return;
	if (w)
		bind_remove(s, bind_at(s, in->ticket));
	store_role_refuse(s, auth->chan, m->id, err);
}

/* ---- channels ---- */

static void on_rows(struct store_role *s, struct client *c, const struct msg *m)
{
	struct msg_st_rows_reply out;
	enum err err = store_rows(s->store, c->account, &m->u.st_rows, &s->reply, &out);

	if (!err)
		err = chan_reply(c->chan, m->id, MSG_st_rows_reply, &out);
	if (err)
		store_role_refuse(s, c->chan, m->id, err);
}

static void on_mailboxes(struct store_role *s, struct client *c, const struct msg *m)
{
	struct msg_st_mailboxes_reply out;
	enum err err = store_mailboxes(s->store, c->account, &m->u.st_mailboxes, &s->reply, &out);

	if (!err)
		err = chan_reply(c->chan, m->id, MSG_st_mailboxes_reply, &out);
	if (err)
		store_role_refuse(s, c->chan, m->id, err);
}

static void on_segment(struct store_role *s, struct client *c, const struct msg *m)
{
	int fd = -1;
	enum err err = store_segment(s->store, m->u.st_segment.segment, m->u.st_segment.body, &fd);

	if (!err)
		err = REPLY(c->chan, m->id, st_segment_reply, .file = fd);
	os_close(fd);
	if (err)
		store_role_refuse(s, c->chan, m->id, err);
}

static void on_change(struct store_role *s, struct client *c, const struct msg *m)
{
	struct waiting *w = waiting_new(c, m->id, false);
	enum err err = ERR_NO_MEMORY;

	if (w)
		w->is_own_change = true;
	if (w && m->type == MSG_st_commit)
		err = store_commit(s->store, c->account, &m->u.st_commit, waiting_done, w);
	else if (w)
		err = store_append(s->store, c->account, &m->u.st_append, waiting_done, w);
	if (err) {
		store_role_refuse(s, c->chan, m->id, err);
		if (w)
			waiting_free(w);
	}
	store_role_flush(s);
}

static void session_message(void *arg, struct chan *chan, struct msg *m)
{
	struct client *c = arg;
	struct store_role *s = c->role;

	(void)chan;
	switch ((unsigned)m->type) {
	case MSG_st_rows:
		on_rows(s, c, m);
		break;
	case MSG_st_mailboxes:
		on_mailboxes(s, c, m);
		break;
	case MSG_st_segment:
		on_segment(s, c, m);
		break;
	case MSG_st_commit:
	case MSG_st_append:
		on_change(s, c, m);
		break;
	default:
		store_role_refuse(s, c->chan, m->id, ERR_DENIED);
	}
}

/* The client leaves its account; what waits for commits keeps it until they are done. */
static void session_end(struct client *c)
{
	struct store_role *s = c->role;
	struct watched_account *a = *account_at(s, c->account);

	for (struct client **at = &a->clients; *at; at = &(*at)->next) {
		if (*at == c) {
			*at = c->next;
			break;
		}
	}
	for (struct client **at = &s->dirty; *at; at = &(*at)->next_dirty) {
		if (*at == c) {
			*at = c->next_dirty;
			break;
		}
	}
	for (struct client **at = &s->late; *at; at = &(*at)->next_late) {
		if (*at == c) {
			*at = c->next_late;
			break;
		}
	}
	account_release(s, c->account);
	chan_free(c->chan);
	c->chan = NULL;
	s->sessions--;
	if (!c->waiting)
		free(c);
}

static void session_down(void *arg, struct chan *chan, enum err why)
{
	struct client *c = arg;

	(void)chan;
	if (why == ERR_PROTOCOL)
		log_error(&c->role->role->log, "peer-cut-off", "peer=session account=%llu",
			  (unsigned long long)c->account);
	session_end(c);
}

static const struct chan_ops session_ops = { .on_message = session_message,
					     .on_down = session_down };

static enum err attach(struct store_role *s, uint64_t account, int *socket)
{
	struct watched_account *a = account_get(s, account);
	struct client *c = a ? calloc(1, sizeof(*c)) : NULL;
	enum err err;

	if (!c)
		return ERR_NO_MEMORY;
	*c = (struct client){ .role = s, .account = account };
	err = chan_new(s->role->loop, ROLE_STORE, ROLE_SESSION, 0, &session_ops, c, &c->chan);
	if (err) {
		free(c);
		account_release(s, account);
		return err;
	}
	c->next = a->clients;
	a->clients = c;
	s->sessions++;
	err = chan_attach(c->chan, *socket);
	if (err)
		session_end(c);
	else
		*socket = -1;
	return err;
}

void store_role_attach(struct store_role *s, struct chan *from, struct msg *m)
{
	struct bind **at = bind_at(s, m->u.store_attach.ticket);
	uint64_t account = *at ? (*at)->account : 0;
	enum err err = ERR_AUTH;

	if (account) {
		bind_remove(s, at);
		err = attach(s, account, &m->u.store_attach.socket);
	}
	if (!err)
		err = REPLY(from, m->id, done, );
	if (err)
		store_role_refuse(s, from, m->id, err);
}

/* The account's MODSEQ goes back at once: what the zygote's records do not know of yet may have
 * been told to the processes that gave them up. */
void store_role_wake(struct store_role *s, const struct msg_session_wake *m)
{
	const struct msg_st_mailboxes first = { .max = 1 };
	struct chan *zygote = role_peer(s->role, ROLE_SESSION, 0);
	struct watched_account *a = m->on ? account_get(s, m->account) : *account_at(s, m->account);
	struct msg_st_mailboxes_reply now;

	if (!a)
		return;
	a->wakes = m->on;
	if (m->on && !store_mailboxes(s->store, m->account, &first, &s->reply, &now) &&
	    SEND(zygote, session_changed, .account = m->account, .modseq = now.modseq))
		log_debug(&s->role->log, "change-untold", "account=%llu",
			  (unsigned long long)m->account);
	account_release(s, m->account);
}

void store_role_sessions_free(struct store_role *s)
{
	for (size_t i = 0; i < ACCOUNT_SLOTS; i++) {
		struct watched_account *a;

		while ((a = s->accounts[i])) {
			struct client *c = a->clients;

			a->wakes = a->is_dirty = false;
			if (c)
				session_end(c);
			else
				account_release(s, a->id);
		}
	}
	while (s->binds)
		bind_remove(s, &s->binds);
}
