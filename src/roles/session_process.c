/* The process of one account: all its IMAP connections on a loop of their own.
 *
 * It is a copy of the zygote that keeps two descriptors of it: the channel to the zygote, from
 * which connections come, and the channel to the store, which auth had bound to this account.
 * Everything else is closed first. When either channel ends, the process ends.
 *
 * Without connections it lingers for the next login, then asks to leave (session_leave). The zygote
 * closes the channel unless a connection is on its way; the counts of session_take on both sides
 * decide that, so none is lost in between. With connections that are all parked it asks the same,
 * and if the zygote wants them, gives each back as its flat record.
 */
#include "roles/session_priv.h"

#include "conf/conf.h"
#include "imap/session.h"

#include <stdio.h>
#include <stdlib.h>

struct member {
	struct process *process;
	struct member *next, **link;
	struct imap_session *session;
	char service[32], client[ADDR_TEXT_MAX];
	bool tls;
};

struct process {
	struct role *role;
	struct loop *loop;
	struct log log;
	uint64_t account_id;
	struct chan *zygote, *store; /* no zygote: the store is gone, nothing new is taken */
	struct imap_account *account;
	struct member *members;
	uint32_t member_count, taken;
	bool is_ending;	      /* the store is gone: BYE to all, and to those that still come */
	int64_t park_seconds; /* after which idle connections are offered to the zygote */
	struct timer timer;
	struct task no_more;
};

#define STORE_GONE "[UNAVAILABLE] The mail store was restarted."

static void consider_leaving(void *arg);

/* ---- connections ---- */

static void plan_leave(struct process *p)
{
	int64_t seconds;

	if (p->is_ending)
		return;
	seconds = p->member_count ? p->park_seconds : MIN(p->park_seconds, SESSION_LINGER_SECONDS);

	if (!p->zygote)
		return;
	loop_timer_set(p->loop, &p->timer, loop_now(p->loop) + SECONDS(seconds), consider_leaving,
		       p);
}

static void member_free(struct member *m)
{
	struct process *p = m->process;

	*m->link = m->next;
	if (m->next)
		m->next->link = m->link;
	free(m);
	if (--p->member_count == 0)
		plan_leave(p);
}

static void session_ended(void *arg, struct imap_session *s)
{
	imap_session_free(s);
	member_free(arg);
}

static void copy_text(char *to, size_t size, str s)
{
	snprintf(to, size, "%.*s", STR_ARGS(s));
}

static struct member *member_new(struct process *p, const struct msg_session_take *take)
{
	struct member *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->process = p;
	m->tls = take->tls;
	copy_text(m->service, sizeof(m->service), take->service);
	copy_text(m->client, sizeof(m->client), take->client);
	m->next = p->members;
	m->link = &p->members;
	if (m->next)
		m->next->link = &m->next;
	p->members = m;
	p->member_count++;
	return m;
}

/* The address without its port. */
static str client_ip(const struct member *m)
{
	str client = str_from_c(m->client);
	size_t colon = str_rfind_char(client, ':');

	return colon == STR_NONE ? client : str_head(client, colon);
}

static bool are_too_many(const struct process *p, const struct member *new)
{
	uint64_t n = 0;

	for (const struct member *m = p->members; m; m = m->next)
		n += str_eq(client_ip(m), client_ip(new));
	return n > conf_u64(p->role->conf, CONF_mail_max_userip_connections);
}

static enum err take_connection(struct process *p, struct msg_session_take *take)
{
	struct member *m = member_new(p, take);
	struct conn *conn;
	struct addr client;
	enum err err;

	if (!m)
		return ERR_NO_MEMORY;
	if (addr_parse(take->client, &client))
		client = (struct addr){ 0 };
	if ((err = conn_new(p->loop, take->socket, &client, &conn))) {
		member_free(m);
		return err;
	}
	take->socket = -1;
	/* One that slept was admitted when it logged in. */
	if (!take->parked.n && are_too_many(p, m)) {
		conn_write(conn, S("* BYE [LIMIT] Maximum number of connections from user+IP "
				   "exceeded.\r\n"));
		conn_free(conn);
		member_free(m);
		return ERR_TOO_MANY;
	}
	if ((err = imap_session_new(p->account, conn, session_ended, m, &m->session))) {
		conn_free(conn);
		member_free(m);
		return err;
	}
	if (p->is_ending)
		imap_session_stop(m->session, STORE_GONE);
	if (take->parked.n)
		imap_session_resume(m->session, take->parked, take->input);
	else
		imap_session_start(m->session, take->input);
	return ERR_OK;
}

/* ---- leaving ---- */

static bool all_are_parked(const struct process *p)
{
	int64_t before = loop_now(p->loop) - SECONDS(p->park_seconds - 1);

	for (const struct member *m = p->members; m; m = m->next)
		if (!imap_session_is_parked(m->session) ||
		    imap_session_parked_since(m->session) > before)
			return false;
	return true;
}

static void consider_leaving(void *arg)
{
	struct process *p = arg;

	if (!p->zygote)
		return;
	if ((p->member_count == 0 || all_are_parked(p)) &&
	    SEND(p->zygote, session_leave, .taken = p->taken, .connections = p->member_count))
		log_warn(&p->log, "leave-not-sent", "account=%llu",
			 (unsigned long long)p->account_id);
	plan_leave(p);
}

static void give_back(struct process *p, struct member *m)
{
	struct buf record, input;
	enum err err;
	int fd;

	buf_init(&record, 16384);
	buf_init(&input, 32768);
	err = imap_session_export(m->session, &record, &fd, &input);
	if (!err) {
		if (!p->zygote || SEND(p->zygote, session_take, .service = str_from_c(m->service),
				       .client = str_from_c(m->client), .tls = m->tls, .socket = fd,
				       .input = buf_str(&input), .parked = buf_str(&record)))
			log_warn(&p->log, "connection-lost", "client=%s", m->client);
		os_close(fd);
		member_free(m);
	}
	buf_free(&record);
	buf_free(&input);
}

/* In a fiber: conn_detach may wait. */
static void give_all_back(void *arg)
{
	struct process *p = arg;
	struct member *next;

	for (struct member *m = p->members; m; m = next) {
		next = m->next;
		if (imap_session_is_parked(m->session))
			give_back(p, m);
	}
	if (p->member_count == 0)
		consider_leaving(p);
}

/* ---- the channels ---- */

static void zygote_message(void *arg, struct chan *c, struct msg *m)
{
	struct process *p = arg;
	enum err err;

	(void)c;
	if (m->type == MSG_session_take) {
		p->taken++;
		if ((err = take_connection(p, &m->u.session_take)))
			log_warn(&p->log, "connection-refused", "error=%s", err_name(err));
		plan_leave(p);
	} else if (m->type == MSG_session_leave && m->u.session_leave.taken == p->taken &&
		   all_are_parked(p)) {
		if (fiber_spawn(p->loop, give_all_back, p))
			log_warn(&p->log, "leave-failed", "account=%llu",
				 (unsigned long long)p->account_id);
	}
}

static void zygote_down(void *arg, struct chan *c, enum err why)
{
	struct process *p = arg;

	(void)c, (void)why;
	loop_stop(p->loop);
}

static void store_message(void *arg, struct chan *c, struct msg *m)
{
	struct process *p = arg;

	(void)c;
	imap_account_message(p->account, m);
}

static void take_no_more(void *arg)
{
	struct process *p = arg;

	chan_free(p->zygote);
	p->zygote = NULL;
}

/* The store was restarted, or did not let us in: what we know may be old. Clients come back and log
 * in again. The zygote sees our channel end and makes another process for them; to this one, nobody
 * could come who is ever answered. */
static void store_down(void *arg, struct chan *c, enum err why)
{
	struct process *p = arg;
	struct member *next;

	(void)c, (void)why;
	log_info(&p->log, "session-store-down", "connections=%u", p->member_count);
	p->is_ending = p->account->store_is_gone = true;
	for (struct member *m = p->members; m; m = next) {
		next = m->next;
		imap_session_stop(m->session, STORE_GONE);
	}
	/* What the zygote sent before it knew is in the channel, and is told the same. */
	loop_post(p->loop, &p->no_more, take_no_more, p);
	loop_timer_set(p->loop, &p->timer, loop_now(p->loop) + SECONDS(1),
		       (void (*)(void *))loop_stop, p->loop);
}

static void view_changed(void *arg, struct imap_view *v)
{
	(void)arg;
	imap_session_view_changed(v);
}

static enum err process_begin(struct process *p, int zygote, int store)
{
	static const struct chan_ops zygote_ops = { zygote_message, zygote_down };
	static const struct chan_ops store_ops = { store_message, store_down };
	struct imap_config config = {
		.message_size_limit = conf_size(p->role->conf, CONF_message_size_limit),
		.idle_ns = MAX(conf_time_ns(p->role->conf, CONF_imap_idle_timeout), SECONDS(1)),
	};
	enum err err;

	if ((err = loop_new(&p->loop)))
		return err;
	if ((err = chan_new(p->loop, ROLE_SESSION, ROLE_SESSION, 0, &zygote_ops, p, &p->zygote)))
		return err;
	if ((err = chan_new(p->loop, ROLE_SESSION, ROLE_STORE, 0, &store_ops, p, &p->store)))
		return err;
	if ((err = imap_account_new(p->loop, p->store, &p->log, p->account_id, &config,
				    &p->account)))
		return err;
	p->account->on_change = view_changed;
	/* In this order, so that a connection that was sent is there when the store says no. */
	if ((err = chan_attach(p->zygote, zygote)))
		return err;
	if ((err = chan_attach(p->store, store)))
		return err;
	plan_leave(p);
	return ERR_OK;
}

_Noreturn void session_process_main(struct role *role, uint64_t account, int zygote, int store)
{
	const int keep[] = { role->log.fd, zygote, store };
	struct process p = { .role = role, .log = role->log, .account_id = account };
	enum err err;

	os_close_others(keep, ARRAY_LEN(keep));
	snprintf(p.log.who, sizeof(p.log.who), "session.%llu", (unsigned long long)account);
	p.park_seconds =
		role_has_test_hooks(role) ? SESSION_PARK_SECONDS_TESTED : SESSION_PARK_SECONDS;
	/* It forks nothing and makes no sockets. Large messages of APPEND go to the store as
	 * memfds. */
	if (!(err = sandbox_narrow(role->ops->sandbox, SANDBOX_MEMFD)) &&
	    !(err = process_begin(&p, zygote, store)))
		err = loop_run(p.loop);
	if (err)
		log_error(&p.log, "session-failed", "error=%s", err_name(err));
	os_exit(err ? 1 : 0);
}
