/* Which account a session may open: tickets.
 *
 * A ticket is 16 random bytes that stand for "this login may open that account": auth tells the
 * zygote, and the front passes it with the connection. The zygote comes back with it when it needs
 * the store for that account, and auth alone tells the store which account a channel is for. A
 * ticket is good for one binding and a minute; of too many, the oldest go.
 *
 * Connections that have been idle for long are held by the zygote without a process, and when one
 * wakes, its account must be opened again without a login. So the zygote may bind with a ticket of
 * its own (`again`), but only an account that a login's ticket opened before through this same
 * zygote, and that still exists and is enabled. A broken-in zygote thereby reaches those accounts
 * whose connections it had anyway, and never one whose owner did not log in. Who opened what is
 * forgotten with the zygote, or with auth: then the clients of sleeping connections are told to
 * come back, and log in again. (A voucher that outlives auth was turned down: it would outlive the
 * zygote as well, in whoever copied it.)
 */
#include "base/os.h"
#include "roles/auth_priv.h"

#include <stdlib.h>

enum { TICKET_SIZE = 16 };

struct auth_ticket {
	struct lru_node node;
	uint8_t ticket[TICKET_SIZE];
	uint64_t account, quota;
	int64_t until;
	struct buf address;
};

/* An account that was opened with a login's ticket. */
struct auth_opened {
	struct lru_node node;
	uint64_t account;
};

/* ---- tickets ---- */

static void ticket_free(struct auth_role *a, struct auth_ticket *t)
{
	(void)lru_remove(&a->tickets, &t->node);
	buf_free(&t->address);
	free(t);
}

void auth_tickets_expire(struct auth_role *a)
{
	int64_t now = loop_now(a->role->loop);
	struct lru_node *n;

	while ((n = lru_oldest(&a->tickets, 0)) != NULL) {
		struct auth_ticket *t = CONTAINER_OF(n, struct auth_ticket, node);

		if (t->until > now)
			return;
		ticket_free(a, t);
	}
}

enum err auth_ticket_issue(struct auth_role *a, uint64_t account, str address, uint64_t quota,
			   uint8_t ticket[TICKET_SIZE])
{
	struct chan *zygote = role_peer(a->role, ROLE_SESSION, 0);
	struct auth_ticket *t;
	struct msg_session_open open = { .account = account, .address = address };

	auth_tickets_expire(a);
	if (!zygote || !chan_is_up(zygote))
		return ERR_CLOSED;
	t = calloc(1, sizeof(*t));
	if (!t)
		return ERR_NO_MEMORY;
	/* Most tickets are never used: their connection goes to a process that has its store. */
	if (lru_is_full(&a->tickets))
		ticket_free(a, CONTAINER_OF(lru_oldest(&a->tickets, 0), struct auth_ticket, node));
	os_random(t->ticket, sizeof(t->ticket));
	t->account = account;
	t->quota = quota;
	t->until = loop_now(a->role->loop) + SECONDS(AUTH_TICKET_SECONDS);
	buf_init(&t->address, 512);
	buf_add(&t->address, address);
	lru_insert(&a->tickets, &t->node, str_of(t->ticket, sizeof(t->ticket)), 0);
	memcpy(ticket, t->ticket, sizeof(t->ticket));
	memcpy(open.ticket, t->ticket, sizeof(t->ticket));
	return chan_send(zygote, MSG_session_open, 0, &open);
}

/* ---- what was opened ---- */

static void opened_free(struct auth_role *a, struct lru_node *n)
{
	(void)lru_remove(&a->opened, n);
	free(CONTAINER_OF(n, struct auth_opened, node));
}

void auth_sessions_drop(struct auth_role *a)
{
	struct lru_node *n;

	while ((n = lru_oldest(&a->opened, 0)) != NULL)
		opened_free(a, n);
	/* Nobody else was told of these: they would open nothing. */
	while ((n = lru_oldest(&a->tickets, 0)) != NULL)
		ticket_free(a, CONTAINER_OF(n, struct auth_ticket, node));
}

static struct lru_node *opened_find(struct auth_role *a, uint64_t account)
{
	return lru_find(&a->opened, str_of(&account, sizeof(account)));
}

/* One that does not fit the memory is not remembered: its sleeping connections will have to log in
 * again. */
static void opened_note(struct auth_role *a, uint64_t account)
{
	struct lru_node *n = opened_find(a, account);
	struct auth_opened *o;

	if (n) {
		lru_touch(&a->opened, n, 0);
		return;
	}
	if (lru_is_full(&a->opened))
		opened_free(a, lru_oldest(&a->opened, 0));
	if (!(o = calloc(1, sizeof(*o))))
		return;
	o->account = account;
	lru_insert(&a->opened, &o->node, str_of(&o->account, sizeof(o->account)), 0);
}

/* ---- binding ---- */

static void bound(void *arg, enum err err, struct msg *reply UNUSED)
{
	struct auth_caller *caller = arg;

	if (auth_caller_is_there(caller)) {
		if (err)
			err = REPLY_FAILED(caller->chan, caller->id, err, STR_EMPTY);
		else
			err = REPLY(caller->chan, caller->id, done);
		if (err)
			log_warn(&caller->auth->role->log, "bind-answer-lost", "error=%s",
				 err_name(err));
	}
	free(caller);
}

/* The store is told; its answer goes to the zygote. */
static enum err tell_store(struct auth_role *a, struct chan *from, uint32_t id,
			   const struct msg_store_bind *bind)
{
	struct auth_caller *caller = malloc(sizeof(*caller));
	enum err err;

	if (!caller)
		return ERR_NO_MEMORY;
	*caller = auth_caller(a, from, id);
	err = chan_call_async(role_peer(a->role, ROLE_STORE, 0), MSG_store_bind, bind,
			      loop_now(a->role->loop) + SECONDS(AUTH_TICKET_SECONDS), bound,
			      caller);
	if (err)
		free(caller);
	return err;
}

/* A login's ticket, which is used up. */
static enum err bind_login(struct auth_role *a, struct chan *from, uint32_t id,
			   const struct msg_session_bind *m)
{
	struct lru_node *n = lru_find(&a->tickets, str_of(m->ticket, sizeof(m->ticket)));
	struct auth_ticket *t = n ? CONTAINER_OF(n, struct auth_ticket, node) : NULL;
	struct msg_store_bind bind = { .account = m->account };
	enum err err;

	if (!t || t->account != m->account || t->until <= loop_now(a->role->loop))
		return ERR_DENIED;
	bind.address = buf_str(&t->address);
	bind.quota = t->quota;
	memcpy(bind.ticket, t->ticket, sizeof(t->ticket));
	if (!(err = tell_store(a, from, id, &bind)))
		opened_note(a, m->account);
	ticket_free(a, t);
	return err;
}

/* No login, but there was one. */
static enum err bind_again(struct auth_role *a, struct chan *from, uint32_t id,
			   const struct msg_session_bind *m)
{
	struct directory_account account;
	struct msg_store_bind bind = { .account = m->account };
	enum err err;

	if (!opened_find(a, m->account))
		return ERR_DENIED;
	err = directory_account_find_id(a->directory, m->account, a->arena, &account);
	if (err == ERR_NOT_FOUND || (!err && !account.enabled))
		err = ERR_DENIED;
	if (err)
		return err;
	opened_note(a, m->account);
	bind.address = account.address;
	bind.quota = account.quota;
	memcpy(bind.ticket, m->ticket, sizeof(bind.ticket));
	return tell_store(a, from, id, &bind);
}

void auth_session_bind(struct auth_role *a, struct chan *from, uint32_t id,
		       const struct msg_session_bind *m)
{
	enum err err = m->again ? bind_again(a, from, id, m) : bind_login(a, from, id, m);

	if (err && (err = REPLY_FAILED(from, id, err, S("no such ticket"))))
		log_warn(&a->role->log, "bind-answer-lost", "error=%s", err_name(err));
}
