/* Role front: everything that the internet sees. It accepts connections, does TLS, and speaks the
 * protocols until the end of a message's data, or until a login.
 *
 * It holds no secret and no mail: keys sign in `keys`, passwords are checked in `auth`, recipients
 * are resolved there, messages go to `filter` and `store`, and after login a connection belongs to
 * a `session`. Whoever breaks in here gets the connections that pass through, and nothing else.
 *
 * There is one front for each core, all on the same listening sockets. A wake-up takes a handful of
 * connections and gives the loop back, so that those that are there already are served while many
 * come. A connection is counted once, when it is taken, and let go once, when its session ends.
 */
#include "roles/front_priv.h"

#include "base/os.h"
#include "conf/conf.h"

#include <stdlib.h>

enum { ACCEPT_PAUSE_SECONDS = 1, CANCEL_SECONDS = 2, CHAINS_SECONDS = 10 };

static void on_connections(void *arg, unsigned ready);

/* ---- the services ---- */

static enum err serve_smtp(struct front *f, struct conn *c, const struct front_service *service)
{
	return smtp_session_start(&f->smtp, c, (enum smtp_service)service->kind);
}

static enum err serve_imap(struct front *f, struct conn *c, const struct front_service *service)
{
	return imap_prelogin_start(&f->imap, c, (enum imap_service)service->kind);
}

static const struct front_service services[] = {
	{ "smtp", serve_smtp, SMTP_SERVICE_SMTP,
	  "421 4.3.2 Too many connections; try again later\r\n", true },
	{ "submission", serve_smtp, SMTP_SERVICE_SUBMISSION,
	  "421 4.3.2 Too many connections; try again later\r\n", true },
	{ "submissions", serve_smtp, SMTP_SERVICE_SUBMISSIONS, "", true },
	{ "lmtp", serve_smtp, SMTP_SERVICE_LMTP,
	  "421 4.3.2 Too many connections; try again later\r\n", false },
	{ "imap", serve_imap, IMAP_SERVICE_IMAP, "* BYE Too many connections; try again later\r\n",
	  false },
	{ "imaps", serve_imap, IMAP_SERVICE_IMAPS, "", false },
};

static const struct front_service *service_find(str name)
{
	for (size_t i = 0; i < ARRAY_LEN(services); i++)
		if (str_eq(name, str_from_c(services[i].name)))
			return &services[i];
	return NULL;
}

/* ---- counting ---- */

static void finish_if_done(struct front *f)
{
	if (f->is_stopping && f->connections == 0)
		loop_stop(f->role->loop);
}

static void update_busy(struct front *f)
{
	uint64_t max = conf_u64(f->role->conf, CONF_max_sessions);

	f->smtp.is_busy = f->connections > max - max / 4;
}

static void connection_ended(struct front *f)
{
	f->connections--;
	update_busy(f);
	finish_if_done(f);
}

/* The sessions of IMAP have a limit of their own (mail_max_userip_connections). */
static bool is_counted(const struct front_service *service)
{
	return service->serve == serve_smtp;
}

static void uncount(struct front *f, const struct front_service *service, const struct addr *client)
{
	if (is_counted(service))
		front_clients_end(f->clients, client, loop_now(f->role->loop));
	connection_ended(f);
}

/* Limits are for strangers: not for UNIX sockets, this machine and our own networks. */
static bool is_stranger(const struct front *f, const struct addr *a)
{
	return (a->family == ADDR_IP4 || a->family == ADDR_IP6) && !addr_is_loopback(a) &&
	       !conf_nets_contain(f->role->conf, CONF_mynetworks, a);
}

/* NULL: it may come in. */
static const char *objection(struct front *f, const struct front_service *service,
			     const struct addr *client)
{
	const struct conf *conf = f->role->conf;
	bool limited = service->is_limited && is_stranger(f, client);

	if (f->connections >= conf_u64(conf, CONF_max_sessions))
		return "too many connections in all";
	if (!is_counted(service))
		return NULL;
	switch (front_clients_begin(
		f->clients, client, loop_now(f->role->loop),
		limited ? conf_u64(conf, CONF_smtpd_client_connection_count_limit) : UINT64_MAX,
		limited ? conf_u64(conf, CONF_smtpd_client_connection_rate_limit) : 0)) {
	case FRONT_TOO_MANY:
		return "too many connections of this client";
	case FRONT_TOO_OFTEN:
		return "too many connections of this client in a minute";
	case FRONT_ADMITTED:
		break;
	}
	return NULL;
}

/* ---- accepting ---- */

static void turn_away(struct front *f, const struct front_service *service,
		      const struct addr *client, int fd, const char *why)
{
	char text[ADDR_TEXT_MAX];
	str from = addr_text(client, text), words = str_from_c(service->busy);
	size_t done;

	f->turned_away++;
	/* A socket that was just accepted has room for a line; a client that is gone already needs
	 * none. */
	if (words.n && os_send(fd, words.p, words.n, &done))
		log_debug(&f->role->log, "client-gone", "client=%.*s", STR_ARGS(from));
	os_close(fd);
	log_info(&f->role->log, "client-refused", "client=%.*s service=%s why=\"%s\"",
		 STR_ARGS(from), service->name, why);
	role_trace(f->role, 0, TRACE_CLIENT_REFUSED, STR_EMPTY, STR_EMPTY, "%.*s on %s: %s",
		   STR_ARGS(from), service->name, why);
}

static void take(struct front *f, const struct front_service *service, const struct addr *client,
		 int fd)
{
	const char *why = objection(f, service, client);
	struct conn *c;
	enum err err;

	if (why) {
		turn_away(f, service, client, fd, why);
		return;
	}
	f->connections++;
	f->taken++;
	update_busy(f);
	if ((err = conn_new(f->role->loop, fd, client, &c))) {
		turn_away(f, service, client, fd, err_text(err));
		uncount(f, service, client);
		return;
	}
	if ((err = service->serve(f, c, service))) {
		log_warn(&f->role->log, "client-refused", "service=%s why=\"%s\"", service->name,
			 err_text(err));
		conn_write(c, str_from_c(service->busy));
		conn_free(c);
		uncount(f, service, client);
	}
}

static enum err listener_watch(struct front_listener *l)
{
	enum err err =
		loop_watch_listener(l->front->role->loop, &l->watch, l->fd, on_connections, l);

	l->is_watched = !err;
	return err;
}

static void on_pause_over(void *arg)
{
	struct front_listener *l = arg;

	if (listener_watch(l))
		loop_timer_set(l->front->role->loop, &l->again,
			       loop_now(l->front->role->loop) + SECONDS(ACCEPT_PAUSE_SECONDS),
			       on_pause_over, l);
}

/* accept failed for want of something (descriptors, memory). The socket stays readable, so asking
 * at once would only spin. */
static void listener_pause(struct front_listener *l, enum err why)
{
	struct loop *loop = l->front->role->loop;

	log_error(&l->front->role->log, "accept-failed", "service=%s why=%s", l->service->name,
		  err_name(why));
	loop_unwatch(loop, &l->watch);
	l->is_watched = false;
	loop_timer_set(loop, &l->again, loop_now(loop) + SECONDS(ACCEPT_PAUSE_SECONDS),
		       on_pause_over, l);
}

static void on_connections(void *arg, unsigned ready)
{
	struct front_listener *l = arg;

	(void)ready;
	for (int i = 0; i < FRONT_ACCEPT_BATCH && l->is_watched; i++) {
		struct addr client;
		int fd;
		enum err err = os_accept(l->fd, &client, &fd);

		if (err == ERR_AGAIN)
			return;
		if (err)
			listener_pause(l, err);
		else
			take(l->front, l->service, &client, fd);
	}
}

/* ---- hooks of smtp/session.h ---- */

static void on_trace(void *arg, uint64_t message, enum trace_event event, str sender, str recipient,
		     str text)
{
	struct front *f = arg;

	role_trace(f->role, message, event, sender, recipient, "%.*s", STR_ARGS(text));
}

static bool on_message(void *arg, const struct addr *client)
{
	struct front *f = arg;

	return !is_stranger(f, client) ||
	       front_clients_message(f->clients, client, loop_now(f->role->loop),
				     conf_u64(f->role->conf, CONF_smtpd_client_message_rate_limit));
}

static void on_smtp_ended(void *arg, const struct addr *client)
{
	struct front *f = arg;

	front_clients_end(f->clients, client, loop_now(f->role->loop));
	connection_ended(f);
}

static void on_imap_ended(void *arg, const struct addr *client UNUSED)
{
	connection_ended(arg);
}

static void on_login_refused(void *arg, const struct addr *client, str user, str why)
{
	struct front *f = arg;
	char text[ADDR_TEXT_MAX];

	role_trace(f->role, 0, TRACE_LOGIN_REFUSED, user, STR_EMPTY, "%.*s on imap: %.*s",
		   STR_ARGS(addr_text(client, text)), STR_ARGS(why));
}

/* ---- hooks of roles/role.h ---- */

static enum err front_init(struct role *r)
{
	struct front *f = calloc(1, sizeof(*f));
	enum err err;

	if (!f)
		return ERR_NO_MEMORY;
	r->state = f;
	f->role = r;
	smtp_server_init(&f->smtp, r->loop, &r->log, &r->msgids, r->conf);
	if ((err = smtp_known_new(SMTP_KNOWN_MAX, &f->smtp.known)))
		return err;
	f->smtp.hooks = (struct smtp_hooks){
		.trace = on_trace, .may_send = on_message, .ended = on_smtp_ended, .arg = f
	};
	f->imap = (struct imap_front){ .loop = r->loop,
				       .log = &r->log,
				       .conf = r->conf,
				       .next_conn = FRONT_IMAP_CONN,
				       .ended = on_imap_ended,
				       .refused = on_login_refused,
				       .arg = f };
	return front_clients_new(MAX(conf_u64(r->conf, CONF_max_sessions), 1024), &f->clients);
}

static enum err front_file(struct role *r, str name, str path UNUSED, int fd)
{
	struct front *f = r->state;

	if (str_eq(name, S("clients")))
		return front_clients_share(f->clients, fd, r->index);
	os_close(fd);
	return ERR_UNSUPPORTED;
}

static enum err front_listener(struct role *r, str service, str address, int fd)
{
	struct front *f = r->state;
	const struct front_service *s = service_find(service);
	struct front_listener *l;

	if (!s || f->listener_count == FRONT_LISTENERS_MAX) {
		log_error(&r->log, "bad-listener", "service=%.*s address=%.*s", STR_ARGS(service),
			  STR_ARGS(address));
		os_close(fd);
		return s ? ERR_TOO_MANY : ERR_UNSUPPORTED;
	}
	l = &f->listeners[f->listener_count++];
	*l = (struct front_listener){ .front = f, .service = s, .fd = fd };
	return ERR_OK;
}

/* The peers are known, and libcrypto may still read what it reads when it begins. */
static enum err front_prepare(struct role *r)
{
	struct front *f = r->state;
	struct chan *keys = role_peer(r, ROLE_KEYS, 0);
	enum err err;

	f->smtp.auth = role_peer(r, ROLE_AUTH, 0);
	f->smtp.store = role_peer(r, ROLE_STORE, 0);
	f->imap.auth = f->smtp.auth;
	f->imap.session = role_peer(r, ROLE_SESSION, 0);
	f->smtp.filters = f->filters;
	f->smtp.filter_count = MIN(role_peers(r, ROLE_FILTER), FRONT_FILTERS_MAX);
	for (unsigned i = 0; i < f->smtp.filter_count; i++)
		f->filters[i] = role_peer(r, ROLE_FILTER, i);
	if (!f->smtp.auth || !f->smtp.store || !f->smtp.filter_count || !f->imap.session || !keys)
		return ERR_NOT_FOUND;
	if ((err = tls_server_new(r->loop, &r->log, keys, &f->tls)))
		return err;
	f->smtp.tls = f->imap.tls = f->tls;
	return ERR_OK;
}

/* The first connection is taken when it is known whether there is TLS: until then clients wait in
 * the kernel's queue, where the first would otherwise meet a server without STARTTLS, or no
 * handshake. Should keys not come, plain services begin without. */
static void begin(void *arg)
{
	struct front *f = arg;
	struct loop *l = f->role->loop;
	enum err err = tls_server_load(f->tls, loop_now(l) + SECONDS(CHAINS_SECONDS));

	if (err)
		tls_server_reload(f->tls);
	else
		log_info(&f->role->log, "tls-loaded", "at=start");
	for (unsigned i = 0; i < f->listener_count && !f->is_stopping; i++)
		on_pause_over(&f->listeners[i]);
}

static enum err front_start(struct role *r)
{
	return fiber_spawn(r->loop, begin, r->state);
}

static void front_message(struct role *r, struct chan *from, struct msg *m)
{
	struct front *f = r->state;

	if (m->type == MSG_keys_changed)
		tls_server_reload(f->tls);
	else if (m->type == MSG_auth_changed)
		smtp_known_clear(f->smtp.known);
	else if (m->type == MSG_auth_mechanisms)
		f->smtp.offers_scram = f->imap.offers_scram = m->u.auth_mechanisms.scram;
	else
		log_error(&r->log, "unexpected-message", "type=%s peer=%s", msg_name(m->type),
			  role_name(chan_peer(from)));
}

static void front_peer_up(struct role *r, struct chan *peer)
{
	struct front *f = r->state;

	if (chan_peer(peer) == ROLE_KEYS)
		tls_server_reload(f->tls);
}

static void front_peer_down(struct role *r, struct chan *peer)
{
	struct front *f = r->state;

	if (chan_peer(peer) != ROLE_AUTH)
		return;
	f->smtp.offers_scram = f->imap.offers_scram = false; /* until the next one says so */
	smtp_server_auth_lost(&f->smtp);
}

static void front_reload(struct role *r)
{
	struct front *f = r->state;

	f->smtp.conf = f->imap.conf = r->conf;
	update_busy(f);
}

/* ---- stopping ---- */

static void on_cancelled(void *arg)
{
	struct front *f = arg;

	log_warn(&f->role->log, "stopped-early", "connections=%u", f->connections);
	loop_stop(f->role->loop);
}

static void on_patience_over(void *arg)
{
	struct front *f = arg;
	struct loop *l = f->role->loop;

	loop_timer_set(l, &f->give_up, loop_now(l) + SECONDS(CANCEL_SECONDS), on_cancelled, f);
	smtp_server_cancel(&f->smtp);
}

/* No new connections; idle ones are told; what is in progress may end, for so long. */
static void front_stop(struct role *r, unsigned seconds)
{
	struct front *f = r->state;

	f->is_stopping = true;
	for (unsigned i = 0; i < f->listener_count; i++) {
		struct front_listener *l = &f->listeners[i];

		if (l->is_watched)
			loop_unwatch(r->loop, &l->watch);
		l->is_watched = false;
		loop_timer_cancel(r->loop, &l->again);
		os_close(l->fd);
		l->fd = -1;
	}
	loop_timer_set(r->loop, &f->give_up, loop_now(r->loop) + SECONDS(seconds), on_patience_over,
		       f);
	f->imap.is_stopping = true;
	smtp_server_stop(&f->smtp);
	imap_front_stop(&f->imap);
	finish_if_done(f);
}

static void front_status(struct role *r, struct buf *out)
{
	const struct front *f = r->state;
	struct loop_counts counts = loop_counts(r->loop);

	buf_printf(out, "\"connections\":%u,\"taken\":%llu,\"turned_away\":%llu,\"fibers\":%u,",
		   f->connections, (unsigned long long)f->taken, (unsigned long long)f->turned_away,
		   counts.fibers);
	buf_printf(out,
		   "\"smtp\":{\"sessions\":%u,\"accepted\":%llu,\"refused\":%llu,\"deferred\":%llu,"
		   "\"spooled_bytes\":%llu},",
		   f->smtp.sessions, (unsigned long long)f->smtp.accepted,
		   (unsigned long long)f->smtp.refused, (unsigned long long)f->smtp.deferred,
		   (unsigned long long)f->smtp.spool.used);
	buf_printf(out, "\"imap\":{\"connections\":%u,\"relayed\":%u}", f->imap.connections,
		   f->imap.relayed);
}

const struct role_ops role_front_ops = {
	.kind = ROLE_FRONT,
	/* Sockets it was given, memfds for large messages, and socket pairs for the relay of TLS to
	   a session. */
	.sandbox = SANDBOX_ACCEPT | SANDBOX_MEMFD | SANDBOX_PEERS,
	.init = front_init,
	.file = front_file,
	.listener = front_listener,
	.prepare = front_prepare,
	.start = front_start,
	.message = front_message,
	.peer_up = front_peer_up,
	.peer_down = front_peer_down,
	.reload = front_reload,
	.stop = front_stop,
	.status = front_status,
};
