/* Role session: the zygote. It reads no byte of any client. It knows which ticket is which account
 * (from auth), gets connections with tickets (from the fronts), and gives each to its account's
 * process, which it makes by copying itself: warm, sandboxed, and without anything but the two
 * channels it is given.
 *
 * auth's session_open and a front's session_conn come by different ways, so either may be first: a
 * connection whose ticket is not known yet waits a few seconds for it.
 *
 * Connections that have been idle for long are held here, as a descriptor and a flat record, so
 * that an account whose clients all sleep needs no process. Input, or a change that an idling
 * client wants to hear of, makes a process again. auth allows that for accounts that were opened
 * with a login before (session_bind with `again`). What changed between the moment that a record
 * describes and the store's promise to tell us is not missed: the store answers session_wake with
 * the account's MODSEQ, and a record that is older wakes at once.
 *
 * When a process dies, its connections die with it, and nothing else. When the zygote dies, its
 * processes see the channel end.
 */
#include "roles/session_priv.h"

#include "conf/conf.h"
#include "imap/parked.h"
#include "store/body.h"
#include "text/charset.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	TICKETS_MAX = 8192,
	TICKET_SECONDS = 60,
	WAITING_MAX = 1024,
	WAITING_SECONDS = 5,
	BUCKETS = 1024,
	BIND_SECONDS = 30,
};

struct ticket {
	uint8_t ticket[16];
	uint64_t account;
	int64_t until;
};

/* A connection on its way to a process. */
struct waiting {
	struct waiting *next;
	uint8_t ticket[16];
	int64_t until;
	char service[32], client[112];
	bool tls;
	int fd;
	struct buf input, parked;
};

/* A parked connection that no process has. */
struct held {
	struct held *next, **link;
	struct account *account;
	struct waiting *conn;
	struct watch watch;
	struct timer deadline;
	bool is_watching; /* the client is in IDLE with a mailbox selected: it wants to hear of
			     changes */
	uint64_t modseq;  /* up to which it has heard */
};

struct account {
	struct account *next;
	struct zygote *zygote;
	uint64_t id;
	struct chan *chan; /* NULL: no process */
	uint32_t sent;	   /* session_take messages to this process */
	struct held *held;
};

struct zygote {
	struct role *role;
	struct ticket tickets[TICKETS_MAX];
	size_t ticket_count;
	struct waiting *waiting;
	size_t waiting_count;
	struct timer sweep;
	struct account *accounts[BUCKETS];
	uint32_t processes, held;
	uint64_t started;
	struct charset_preload *charsets;
	struct body_cipher *cipher; /* so that copies need not set up OpenSSL */
};

/* `ticket`: the login's; NULL: no login. */
static void start_and_send(struct zygote *z, struct account *a, struct waiting *w,
			   const uint8_t *ticket);

/* ---- connections ---- */

static struct waiting *waiting_new(str service, str client, bool tls, int fd, str input, str parked)
{
	struct waiting *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	snprintf(w->service, sizeof(w->service), "%.*s", STR_ARGS(service));
	snprintf(w->client, sizeof(w->client), "%.*s", STR_ARGS(client));
	w->tls = tls;
	w->fd = fd;
	buf_init(&w->input, 32768);
	buf_init(&w->parked, 16384);
	buf_add(&w->input, input);
	buf_add(&w->parked, parked);
	return w;
}

static void waiting_free(struct waiting *w)
{
	os_close(w->fd);
	buf_free(&w->input);
	buf_free(&w->parked);
	free(w);
}

/* The client is told why if its socket takes it at once. */
static void refuse(struct waiting *w, const char *text)
{
	size_t done;

	if (os_send(w->fd, text, strlen(text), &done))
		done = 0;
	waiting_free(w);
}

/* ---- accounts ---- */

static struct account *account_of(struct zygote *z, uint64_t id, bool create)
{
	struct account **bucket = &z->accounts[id % BUCKETS], *a = *bucket;

	while (a && a->id != id)
		a = a->next;
	if (a || !create || !(a = calloc(1, sizeof(*a))))
		return a;
	*a = (struct account){ .next = *bucket, .zygote = z, .id = id };
	*bucket = a;
	return a;
}

/* Nothing of it is left: `a` is gone afterwards. */
static void account_forget_unused(struct account *a)
{
	struct account **at = &a->zygote->accounts[a->id % BUCKETS];

	if (a->chan || a->held)
		return;
	while (*at != a)
		at = &(*at)->next;
	*at = a->next;
	free(a);
}

/* ---- held connections ---- */

static void tell_store(struct zygote *z, uint64_t account, bool on)
{
	struct chan *store = role_peer(z->role, ROLE_STORE, 0);

	if (!store || SEND(store, session_wake, .account = account, .on = on))
		log_debug(&z->role->log, "wake-not-asked", "account=%llu",
			  (unsigned long long)account);
}

/* The connection leaves the hold; the caller has it now. */
static struct waiting *held_release(struct held *h)
{
	struct waiting *w = h->conn;
	struct zygote *z = h->account->zygote;

	loop_unwatch(z->role->loop, &h->watch);
	loop_timer_cancel(z->role->loop, &h->deadline);
	*h->link = h->next;
	if (h->next)
		h->next->link = h->link;
	z->held--;
	if (!h->account->held)
		tell_store(z, h->account->id, false);
	free(h);
	return w;
}

/* Something wants a process: all connections of the account go there. */
static void wake_account(struct account *a)
{
	struct zygote *z = a->zygote;

	while (a->held)
		start_and_send(z, a, held_release(a->held), NULL);
	account_forget_unused(a);
}

static void held_ready(void *arg, unsigned ready)
{
	struct held *h = arg;
	struct account *a = h->account;

	if (ready & OS_READY_CLOSED) {
		waiting_free(held_release(h));
		account_forget_unused(a);
	} else if (ready & OS_READY_READ) {
		wake_account(a);
	}
}

static void held_expired(void *arg)
{
	struct held *h = arg;
	struct account *a = h->account;

	refuse(held_release(h), "* BYE Disconnected for inactivity.\r\n");
	account_forget_unused(a);
}

static void hold(struct account *a, struct waiting *w)
{
	struct zygote *z = a->zygote;
	struct held *h = calloc(1, sizeof(*h));
	struct imap_parked record;
	int64_t until =
		loop_now(z->role->loop) + conf_time_ns(z->role->conf, CONF_imap_idle_timeout);

	if (!h || imap_parked_read(buf_str(&w->parked), &record)) {
		free(h);
		refuse(w, "* BYE [UNAVAILABLE] Out of memory.\r\n");
		return;
	}
	*h = (struct held){
		.next = a->held, .link = &a->held, .account = a, .conn = w, .modseq = record.modseq
	};
	h->is_watching = record.is_idle && record.mailbox;
	if (h->next)
		h->next->link = &h->next;
	else
		tell_store(z, a->id, true);
	a->held = h;
	z->held++;
	loop_timer_set(z->role->loop, &h->deadline, until, held_expired, h);
	if (loop_watch(z->role->loop, &h->watch, w->fd, held_ready, h) || buf_len(&w->input))
		wake_account(a);
}

/* ---- processes ---- */

static void reap(struct zygote *z)
{
	int pid, status;

	while (!os_reap(&pid, &status))
		if (status != 0)
			log_warn(&z->role->log, "session-died", "pid=%d status=%d", pid, status);
}

static void process_close(struct account *a)
{
	struct zygote *z = a->zygote;

	chan_free(a->chan);
	a->chan = NULL;
	a->sent = 0;
	z->processes--;
	reap(z);
}

static void process_ended(struct account *a)
{
	process_close(a);
	account_forget_unused(a);
}

static void process_down(void *arg, struct chan *c, enum err why)
{
	(void)c, (void)why;
	process_ended(arg);
}

/* It says that it could end; `taken` tells whether something is still on its way to it. */
static void process_leaves(struct account *a, const struct msg_session_leave *m)
{
	if (m->taken != a->sent)
		return;
	if (m->connections == 0)
		process_ended(a);
	else if (SEND(a->chan, session_leave, .taken = m->taken))
		log_debug(&a->zygote->role->log, "leave-not-sent", "account=%llu",
			  (unsigned long long)a->id);
}

static void process_message(void *arg, struct chan *c, struct msg *m)
{
	struct account *a = arg;
	struct waiting *w;

	(void)c;
	if (m->type == MSG_session_leave) {
		process_leaves(a, &m->u.session_leave);
	} else if (m->type == MSG_session_take) {
		struct msg_session_take *t = &m->u.session_take;

		w = waiting_new(t->service, t->client, t->tls, t->socket, t->input, t->parked);
		if (!w)
			return;
		t->socket = -1;
		hold(a, w);
	}
}

/* The answers of auth and store go by account number: the account may be gone when they come. */
struct binding {
	struct zygote *zygote;
	uint64_t account;
	int store_end;
	uint8_t ticket[16];
};

static void binding_end(struct binding *b, enum err err)
{
	if (err)
		log_warn(&b->zygote->role->log, "session-not-bound", "account=%llu error=%s",
			 (unsigned long long)b->account, err_name(err));
	/* The process sees its store channel end, and tells its clients. */
	os_close(b->store_end);
	reap(b->zygote);
	free(b);
}

/* How a call ended: `failed` is an answer too. */
static enum err err_of(enum err err, const struct msg *reply)
{
	if (!err && reply->type == MSG_failed)
		err = reply->u.failed.err > 0 && reply->u.failed.err < ERR_COUNT
			      ? (enum err)reply->u.failed.err
			      : ERR_TEMPORARY;
	return err;
}

static enum err ask_auth(struct zygote *z, uint64_t account, const uint8_t ticket[16], bool again,
			 void (*done)(void *, enum err, struct msg *), void *arg)
{
	struct msg_session_bind m = { .account = account, .again = again };
	struct role *r = z->role;

	memcpy(m.ticket, ticket, sizeof(m.ticket));
	return chan_call_async(role_peer(r, ROLE_AUTH, 0), MSG_session_bind, &m,
			       loop_now(r->loop) + SECONDS(BIND_SECONDS), done, arg);
}

static void attached(void *arg, enum err err, struct msg *reply)
{
	binding_end(arg, err_of(err, reply));
}

static void bound(void *arg, enum err err, struct msg *reply)
{
	struct binding *b = arg;
	struct role *r = b->zygote->role;
	struct msg_store_attach m = { .socket = b->store_end };

	memcpy(m.ticket, b->ticket, sizeof(m.ticket));
	if (!(err = err_of(err, reply)))
		err = chan_call_async(role_peer(r, ROLE_STORE, 0), MSG_store_attach, &m,
				      loop_now(r->loop) + SECONDS(BIND_SECONDS), attached, b);
	if (err)
		binding_end(b, err);
}

static void bind_process(struct account *a, const uint8_t *ticket, int store_end)
{
	struct binding *b = calloc(1, sizeof(*b));
	enum err err;

	if (!b) {
		os_close(store_end);
		return;
	}
	*b = (struct binding){ .zygote = a->zygote, .account = a->id, .store_end = store_end };
	if (ticket)
		memcpy(b->ticket, ticket, sizeof(b->ticket));
	else
		os_random(b->ticket, sizeof(b->ticket));
	if ((err = ask_auth(a->zygote, a->id, b->ticket, !ticket, bound, b)))
		binding_end(b, err);
}

/* In the copy: what it does not need of other accounts. Their descriptors are closed by
 * session_process_main. */
static void forget_others(struct zygote *z)
{
	os_wipe_copied(z->tickets, z->ticket_count * sizeof(*z->tickets));
	for (struct waiting *w = z->waiting; w; w = w->next) {
		os_wipe_copied(w->ticket, sizeof(w->ticket));
		if (buf_len(&w->input))
			os_wipe_copied(w->input.p, w->input.size);
	}
}

struct copied {
	struct account *account;
	int zygote, store; /* its ends */
};

static void copy_main(void *arg)
{
	const struct copied *c = arg;

	forget_others(c->account->zygote);
	session_process_main(c->account->zygote->role, c->account->id, c->zygote, c->store);
}

static enum err process_start(struct account *a, const uint8_t *ticket)
{
	static const struct chan_ops ops = { process_message, process_down };
	struct role *r = a->zygote->role;
	int ours[2] = { -1, -1 }, stores[2] = { -1, -1 }, pid;
	struct copied copied = { .account = a };
	enum err err;

	if ((err = os_socketpair(true, ours)) || (err = os_socketpair(true, stores)))
		goto out;
	if ((err = chan_new(r->loop, ROLE_SESSION, ROLE_SESSION, 0, &ops, a, &a->chan)))
		goto out;
	copied.zygote = ours[1];
	copied.store = stores[1];
	if ((err = os_fork(copy_main, &copied, &pid)))
		goto out;
	a->zygote->processes++;
	a->zygote->started++;
	err = chan_attach(a->chan, ours[0]);
	ours[0] = -1;
	if (err) {
		process_close(a);
		goto out;
	}
	bind_process(a, ticket, stores[0]);
	stores[0] = -1;
out:
	if (err && a->chan) {
		chan_free(a->chan);
		a->chan = NULL;
	}
	os_close(ours[0]);
	os_close(ours[1]);
	os_close(stores[0]);
	os_close(stores[1]);
	return err;
}

static void start_and_send(struct zygote *z, struct account *a, struct waiting *w,
			   const uint8_t *ticket)
{
	enum err err = ERR_OK;

	if (!a->chan && z->processes >= SESSION_PROCESSES_MAX) {
		refuse(w, "* BYE [LIMIT] Too many accounts are active; try again later.\r\n");
		return;
	}
	if (!a->chan)
		err = process_start(a, ticket);
	if (!err) {
		err = SEND(a->chan, session_take, .service = str_from_c(w->service),
			   .client = str_from_c(w->client), .tls = w->tls, .socket = w->fd,
			   .input = buf_str(&w->input), .parked = buf_str(&w->parked));
		a->sent += !err;
	}
	if (err) {
		log_warn(&z->role->log, "session-not-started", "account=%llu error=%s",
			 (unsigned long long)a->id, err_name(err));
		refuse(w, "* BYE [UNAVAILABLE] Temporary failure; try again later.\r\n");
	} else {
		waiting_free(w);
	}
}

/* ---- tickets ---- */

/* The account of a ticket, which is used up; 0: not known. */
static uint64_t ticket_use(struct zygote *z, const uint8_t ticket[16])
{
	for (size_t i = z->ticket_count; i > 0; i--) {
		struct ticket *t = &z->tickets[i - 1];
		uint64_t account = t->account;

		if (memcmp(t->ticket, ticket, sizeof(t->ticket)) != 0)
			continue;
		*t = z->tickets[--z->ticket_count];
		return account;
	}
	return 0;
}

static void dispatch(struct zygote *z, struct waiting *w, uint64_t id)
{
	struct account *a = account_of(z, id, true);

	if (!a) {
		refuse(w, "* BYE [UNAVAILABLE] Out of memory.\r\n");
		return;
	}
	start_and_send(z, a, w, w->ticket);
	account_forget_unused(a);
}

static void sweep(void *arg)
{
	struct zygote *z = arg;
	int64_t now = loop_now(z->role->loop);
	size_t kept = 0;

	for (size_t i = 0; i < z->ticket_count; i++)
		if (z->tickets[i].until > now)
			z->tickets[kept++] = z->tickets[i];
	z->ticket_count = kept;
	for (struct waiting **at = &z->waiting, *w; (w = *at);) {
		if (w->until > now) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		z->waiting_count--;
		refuse(w, "* BYE [UNAVAILABLE] The login expired.\r\n");
	}
	reap(z);
	loop_timer_set(z->role->loop, &z->sweep, now + SECONDS(WAITING_SECONDS), sweep, z);
}

static void on_open(struct zygote *z, const struct msg_session_open *m)
{
	struct ticket *t;

	for (struct waiting **at = &z->waiting, *w; (w = *at); at = &w->next) {
		if (memcmp(w->ticket, m->ticket, sizeof(w->ticket)) != 0)
			continue;
		*at = w->next;
		z->waiting_count--;
		dispatch(z, w, m->account);
		return;
	}
	if (z->ticket_count == TICKETS_MAX)
		memmove(z->tickets, z->tickets + 1, --z->ticket_count * sizeof(*z->tickets));
	t = &z->tickets[z->ticket_count++];
	*t = (struct ticket){ .account = m->account,
			      .until = loop_now(z->role->loop) + SECONDS(TICKET_SECONDS) };
	memcpy(t->ticket, m->ticket, sizeof(t->ticket));
}

static void on_conn(struct zygote *z, struct msg_session_conn *m)
{
	struct waiting *w =
		waiting_new(m->service, m->client, m->tls, m->socket, m->input, STR_EMPTY);
	uint64_t account;

	if (!w)
		return;
	m->socket = -1;
	memcpy(w->ticket, m->ticket, sizeof(w->ticket));
	if ((account = ticket_use(z, m->ticket))) {
		dispatch(z, w, account);
	} else if (z->waiting_count == WAITING_MAX) {
		refuse(w, "* BYE [UNAVAILABLE] Too many logins at once.\r\n");
	} else {
		w->until = loop_now(z->role->loop) + SECONDS(WAITING_SECONDS);
		w->next = z->waiting;
		z->waiting = w;
		z->waiting_count++;
	}
}

static void on_changed(struct zygote *z, const struct msg_session_changed *m)
{
	struct account *a = account_of(z, m->account, false);

	for (struct held *h = a ? a->held : NULL; h; h = h->next) {
		if (h->is_watching && h->modseq < m->modseq) {
			wake_account(a);
			return;
		}
	}
}

/* ---- the role ---- */

static enum err session_init(struct role *r)
{
	struct zygote *z = calloc(1, sizeof(*z));

	if (!z)
		return ERR_NO_MEMORY;
	z->role = r;
	r->state = z;
	return ERR_OK;
}

static enum err session_prepare(struct role *r)
{
	struct zygote *z = r->state;

	/* What libraries load from files must be there before the sandbox is; copies inherit it. */
	z->charsets = charset_preload();
	z->cipher = body_cipher_new();
	return z->charsets && z->cipher ? ERR_OK : ERR_NO_MEMORY;
}

static enum err session_start(struct role *r)
{
	struct zygote *z = r->state;

	loop_timer_set(r->loop, &z->sweep, loop_now(r->loop) + SECONDS(WAITING_SECONDS), sweep, z);
	return ERR_OK;
}

static void session_message(struct role *r, struct chan *from, struct msg *m)
{
	struct zygote *z = r->state;

	(void)from;
	if (m->type == MSG_session_open)
		on_open(z, &m->u.session_open);
	else if (m->type == MSG_session_conn)
		on_conn(z, &m->u.session_conn);
	else if (m->type == MSG_session_changed)
		on_changed(z, &m->u.session_changed);
}

/* The store forgot whom to tell when it died; its answer tells whether something changed meanwhile.
 */
static void session_peer_up(struct role *r, struct chan *peer)
{
	struct zygote *z = r->state;

	if (chan_peer(peer) != ROLE_STORE)
		return;
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct account *a = z->accounts[i]; a; a = a->next)
			if (a->held)
				tell_store(z, a->id, true);
}

static void session_status(struct role *r, struct buf *out)
{
	const struct zygote *z = r->state;

	buf_printf(out, "\"processes\":%u,\"parked\":%u,\"started\":%llu", z->processes, z->held,
		   (unsigned long long)z->started);
}

const struct role_ops role_session_ops = {
	.kind = ROLE_SESSION,
	.sandbox = SANDBOX_FORK | SANDBOX_PEERS | SANDBOX_MEMFD,
	.init = session_init,
	.prepare = session_prepare,
	.start = session_start,
	.message = session_message,
	.peer_up = session_peer_up,
	.status = session_status,
};
