/* Delivering one job: the message, the servers, the connections, and what each recipient is told.
 *
 * A connection that waits from a job before is used first; when it turns out to be dead before
 * anything was said of our message, a new one is made, as if it had never been there. Otherwise the
 * servers of the domain are tried in their order. A server that cannot be reached or does not want
 * to talk leads to the next one, and so does a temporary refusal, but to one other server at most:
 * a second MX often takes what the first cannot, and a third only costs both sides. Permanent
 * answers are final, and so is a break between the dot and its answer (RFC 1047), since asking the
 * next server could deliver the message twice within a second.
 *
 * Limits on recipients (452, 552) are no refusals when others were taken: the rest goes in another
 * transaction at
 * once.
 */
#include "base/os.h"
#include "conf/conf.h"
#include "queue/relay_login.h"
#include "roles/out_priv.h"
#include "smtp/client_hosts.h"
#include "store/types.h"

#include <stdio.h>
#include <stdlib.h>

enum { SESSION_KEY_MAX = 600, BODY_SECONDS = 60, DNS_SECONDS = 60, HEADER_SCAN_MAX = 256 * 1024 };

/* An open connection to a server; everything that the client's config points to. */
struct out_session {
	struct link in_idle;
	struct out_role *out;
	struct smtp_client *client;
	struct smtp_client_config config;
	struct out_logins *logins; /* held, when its config points into it */
	char key[SESSION_KEY_MAX]; /* who may use it: the next hop */
	size_t key_n;
	char hostname[256], tls_name[256], remote[OUT_REMOTE_MAX];
};

/* ---- idle connections ---- */

/* Its client is gone already. */
static void session_dispose(struct out_session *s)
{
	out_logins_drop(s->logins);
	free(s);
}

static void session_free(struct out_session *s)
{
	if (link_is_in(&s->in_idle)) {
		link_remove(&s->in_idle);
		s->out->idle_count--;
	}
	smtp_client_drop(s->client);
	session_dispose(s);
}

/* Nothing is expected of an idle server: whatever it says, or its end, ends it. */
static void session_woke(void *arg, enum err why)
{
	(void)why;
	session_free(arg);
}

void out_drop_idle(struct out_role *o)
{
	while (!list_is_empty(&o->idle))
		session_free(LIST_FIRST(&o->idle, struct out_session, in_idle));
}

static void session_key(const struct out_job *job, char *key, size_t *n)
{
	int written = snprintf(key, SESSION_KEY_MAX, "%d %d %u %.*s %.*s", job->hop.is_lmtp,
			       job->hop.asks_mx, job->hop.port, STR_ARGS(job->hop.host),
			       STR_ARGS(job->hop.path));

	*n = written < 0 ? 0 : MIN((size_t)written, (size_t)SESSION_KEY_MAX - 1);
	/* A host's case means nothing, a path's does. */
	for (size_t i = 0; i < *n - MIN(*n, job->hop.path.n); i++)
		key[i] = ascii_lower(key[i]);
}

static struct out_session *idle_take(struct out_job *job)
{
	struct out_role *o = job->out;
	char key[SESSION_KEY_MAX];
	size_t n;

	session_key(job, key, &n);
	for (struct link *l = o->idle.prev; l != &o->idle; l = l->prev) {
		struct out_session *s = CONTAINER_OF(l, struct out_session, in_idle);

		if (!str_eq(str_of(key, n), str_of(s->key, s->key_n)))
			continue;
		link_remove(&s->in_idle);
		o->idle_count--;
		smtp_client_unpark(s->client);
		return s;
	}
	return NULL;
}

static void session_release(struct out_job *job, struct out_session *s)
{
	struct out_role *o = job->out;

	job->client = NULL;
	if (!smtp_client_is_good(s->client) || job->is_over || o->is_stopping ||
	    smtp_client_transactions(s->client) >= OUT_TRANSACTIONS_MAX) {
		smtp_client_close(s->client);
		session_dispose(s);
		return;
	}
	if (o->idle_count >= OUT_IDLE_MAX)
		session_free(LIST_FIRST(&o->idle, struct out_session, in_idle));
	list_append(&o->idle, &s->in_idle);
	o->idle_count++;
	smtp_client_park(s->client, loop_now(o->role->loop) + SECONDS(OUT_IDLE_SECONDS),
			 session_woke, s);
}

/* ---- results ---- */

static size_t pending(const struct out_job *job)
{
	size_t n = 0;

	for (size_t i = 0; i < job->count; i++)
		n += !job->rcpts[i].is_final;
	return n;
}

/* The same for everybody who has nothing final. */
static void everybody(struct out_job *job, const struct smtp_result *r, str remote, bool is_final)
{
	for (size_t i = 0; i < job->count; i++) {
		if (job->rcpts[i].is_final)
			continue;
		job->rcpts[i].result = *r;
		job->rcpts[i].remote = remote;
		job->rcpts[i].is_final = is_final || r->state != QUEUE_DEFERRED;
	}
}

static void give_up(struct out_job *job, const char *status, const char *words)
{
	struct smtp_result r;

	smtp_result_set(&r, QUEUE_DEFERRED, status, "%s", words);
	everybody(job, &r, STR_EMPTY, true);
}

/* ---- the message ---- */

static enum err message_read(void *arg, char *to, size_t max, size_t *n)
{
	struct out_job *job = arg;
	uint64_t size = job->prefix.n + job->location.size, at = job->read_at;
	enum err err = ERR_OK;

	if (at < job->prefix.n) {
		*n = MIN(max, (size_t)(job->prefix.n - at));
		memcpy(to, job->prefix.p + at, *n);
	} else {
		*n = (size_t)MIN(size - at, (uint64_t)max);
		if (*n)
			err = body_read(job->out->cipher, job->file, &job->location,
					at - job->prefix.n, *n, to);
	}
	job->read_at += *n;
	return err;
}

static bool is_ascii(str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] & (char)0x80)
			return false;
	return true;
}

/* RFC 6531 3.1: a message that came with SMTPUTF8 needs it further on if an address or its header
 * is not ASCII. A client that always asks for it would otherwise have no mail delivered to older
 * servers. */
static enum err find_utf8(struct out_job *job)
{
	char *chunk;
	char last = 0;
	size_t n = 0;
	enum err err = ERR_OK;
	bool in_header = true;

	job->needs_utf8 = false;
	if (!job->m.smtputf8)
		return ERR_OK;
	job->needs_utf8 = !is_ascii(job->m.sender);
	for (size_t i = 0; i < job->count; i++)
		job->needs_utf8 = job->needs_utf8 || !is_ascii(job->rcpts[i].r.address);
	chunk = malloc(SMTP_CLIENT_CHUNK);
	job->read_at = 0;
	while (chunk && in_header && !job->needs_utf8 && job->read_at < HEADER_SCAN_MAX &&
	       !(err = message_read(job, chunk, SMTP_CLIENT_CHUNK, &n)) && n) {
		for (size_t i = 0; i < n && in_header; i++) {
			if (chunk[i] == '\r')
				continue;
			in_header = !(chunk[i] == '\n' && last == '\n');
			last = chunk[i];
			job->needs_utf8 = job->needs_utf8 || (in_header && (chunk[i] & (char)0x80));
		}
	}
	free(chunk);
	return chunk ? err : ERR_NO_MEMORY;
}

/* Asks store for the body; any of the leases will do. */
static enum err message_open(struct out_job *job)
{
	struct role *r = job->out->role;
	struct chan *store = role_peer(r, ROLE_STORE, 0);
	struct msg_q_body_reply reply;
	str rest;
	enum err err;

	if (!store)
		return ERR_CLOSED;
	err = CALL(store, q_body, q_body_reply, &reply, job->arena,
		   loop_now(r->loop) + SECONDS(BODY_SECONDS), .id = job->rcpts[0].r.id,
		   .token = job->rcpts[0].r.token);
	if (err)
		return err;
	job->file = reply.file;
	job->prefix = reply.prefix;
	rest = reply.location;
	err = rec_body_location_get(&rest, &job->location);
	return err ? err : find_utf8(job);
}

/* ---- transactions ---- */

/* Takes over what the server said of those who were asked. */
static void results(struct out_job *job, const struct out_session *s,
		    const struct smtp_client_rcpt *rcpts)
{
	str remote = arena_str(job->arena, str_from_c(s->remote));

	for (size_t i = 0, k = 0; i < job->count; i++) {
		struct out_rcpt *x = &job->rcpts[i];

		if (x->is_final)
			continue;
		x->result = rcpts[k++].result;
		x->remote = remote;
		x->tls = smtp_client_has_tls(s->client);
		x->is_final = x->result.state != QUEUE_DEFERRED || x->result.may_have_arrived;
	}
}

/* Did the server take some and say that these are too many at once? */
static bool has_more_turns(const struct smtp_client_rcpt *rcpts, size_t count)
{
	bool some = false, limited = false;

	for (size_t i = 0; i < count; i++) {
		some = some || rcpts[i].result.state == QUEUE_SENT;
		limited = limited || (rcpts[i].result.is_rcpt &&
				      (rcpts[i].result.code == 452 || rcpts[i].result.code == 552));
	}
	return some && limited;
}

/* One transaction for all that are pending. False: it broke before anything was said of them. */
static bool transact(struct out_job *job, struct out_session *s, bool *again)
{
	struct smtp_client_message m = {
		.sender = job->m.sender,
		.envid = job->m.envid,
		.ret = job->m.ret,
		.body_type = job->m.body_type,
		.needs_utf8 = job->needs_utf8,
		.size = job->prefix.n + job->location.size,
		.read = message_read,
		.arg = job,
	};
	size_t n = 0;
	struct smtp_client_rcpt *rcpts = calloc(pending(job), sizeof(*rcpts));

	*again = false;
	if (!rcpts) {
		give_up(job, "4.3.0", "no memory");
		return true;
	}
	for (size_t i = 0; i < job->count; i++) {
		const struct rec_out_rcpt *r = &job->rcpts[i].r;

		if (!job->rcpts[i].is_final)
			rcpts[n++] = (struct smtp_client_rcpt){ .address = r->address,
								.orcpt = r->orcpt,
								.notify = r->notify };
	}
	job->read_at = 0;
	smtp_client_send(s->client, &m, rcpts, n);
	if (smtp_client_broke_early(s->client)) {
		/* Kept in case there is no other connection to be had. */
		everybody(job, &rcpts[0].result, arena_str(job->arena, str_from_c(s->remote)),
			  false);
		free(rcpts);
		return false;
	}
	results(job, s, rcpts);
	*again = has_more_turns(rcpts, n) && smtp_client_is_good(s->client) && pending(job);
	free(rcpts);
	return true;
}

static bool use_session(struct out_job *job, struct out_session *s)
{
	bool again = true, heard = true;

	job->client = s->client;
	while (again && heard)
		heard = transact(job, s, &again);
	session_release(job, s);
	return heard;
}

static void try_idle(struct out_job *job)
{
	struct out_session *s;

	while ((s = idle_take(job))) {
		job->out->reused++;
		if (use_session(job, s))
			return;
	}
}

/* ---- new connections ---- */

static enum err dns_ask(void *arg, enum dns_type type, str name, struct arena *a,
			struct dns_answer *out)
{
	struct out_job *job = arg;
	struct role *r = job->out->role;
	struct chan *dns = role_peer(r, ROLE_DNS, 0);
	int64_t deadline = loop_now(r->loop) + SECONDS(DNS_SECONDS);

	if (!dns)
		return ERR_CLOSED;
	return type == DNS_TYPE_MX  ? dns_mx(dns, name, a, deadline, out)
	       : type == DNS_TYPE_A ? dns_a(dns, name, a, deadline, out)
				    : dns_aaaa(dns, name, a, deadline, out);
}

static void copy_text(char *to, size_t size, str s)
{
	size_t n = MIN(s.n, size - 1);

	if (n)
		memcpy(to, s.p, n);
	to[n] = 0;
}

/* Does this server want to know who we are? Then it is told so under TLS that was checked. */
static void session_login(struct out_job *job, struct out_session *s, str host)
{
	struct out_logins *logins = job->out->logins;
	str hop = job->m.nexthop;
	const struct relay_login *row;

	str_cut(&hop, ':');
	row = logins && !job->hop.is_lmtp ? relay_logins_find(logins->table, hop, host) : NULL;
	if (!row)
		return;
	logins->holders++;
	s->logins = logins;
	s->config.user = row->user;
	s->config.password = row->password;
	s->config.tls = SMTP_TLS_ENCRYPT;
	s->config.tls_context = logins->tls;
}

static void remote_text(struct out_session *s, const struct smtp_target *target)
{
	char text[ADDR_TEXT_MAX];

	if (target->address.family == ADDR_UNIX)
		copy_text(s->remote, sizeof(s->remote), target->host);
	else
		snprintf(s->remote, sizeof(s->remote), "%.*s[%.*s]:%u",
			 (int)MIN(target->host.n, (size_t)180), target->host.p,
			 STR_ARGS(addr_ip_text(&target->address, text)), target->address.port);
}

static struct out_session *session_new(struct out_job *job, const struct smtp_target *target)
{
	struct out_role *o = job->out;
	const struct conf *conf = o->role->conf;
	struct out_session *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->out = o;
	session_key(job, s->key, &s->key_n);
	copy_text(s->hostname, sizeof(s->hostname), conf_str(conf, CONF_myhostname));
	copy_text(s->tls_name, sizeof(s->tls_name), target->host);
	remote_text(s, target);
	s->config = (struct smtp_client_config){
		.hostname = str_from_c(s->hostname),
		.server = str_from_c(s->remote),
		.tls_name = str_from_c(s->tls_name),
		.is_lmtp = job->hop.is_lmtp,
		.finds_loops = job->hop.asks_mx,
		.tls = job->hop.is_lmtp ? SMTP_TLS_NONE
					: (enum smtp_client_tls)conf_choice(
						  conf, CONF_smtp_tls_security_level),
		.tls_context = o->tls,
		.times = smtp_client_times(conf_time_ns(conf, CONF_smtp_helo_timeout)),
	};
	session_login(job, s, target->host);
	return s;
}

/* Connected to ourselves, where we take mail: whatever the names said. */
static bool is_ourselves(const struct out_job *job, const struct conn *c)
{
	const struct addr *peer = conn_peer(c);

	if (!job->hop.asks_mx || !addr_ip_eq(conn_local(c), peer))
		return false;
	for (size_t i = 0; i < job->out->own_count; i++)
		if (job->out->own[i].port == peer->port)
			return true;
	return false;
}

/* A socket of this machine: the supervisor opens it, since files are not ours to reach. */
static enum err unix_connect(struct out_job *job, const struct addr *to, int64_t deadline,
			     struct conn **out)
{
	struct role *r = job->out->role;
	struct chan *supervisor = role_peer(r, ROLE_SUPERVISOR, 0);
	struct msg_sup_connected reply;
	enum err err = supervisor ? CALL(supervisor, sup_connect, sup_connected, &reply, job->arena,
					 deadline, .path = str_from_c(to->path))
				  : ERR_CLOSED;

	if (err)
		return err;
	if (reply.socket <= 0)
		return ERR_PROTOCOL;
	if ((err = conn_new(r->loop, reply.socket, to, out)))
		os_close(reply.socket);
	return err;
}

static enum smtp_open session_connect(struct out_job *job, struct out_session *s,
				      const struct addr *to, struct smtp_result *why)
{
	struct out_role *o = job->out;
	int64_t until =
		loop_now(o->role->loop) + conf_time_ns(o->role->conf, CONF_smtp_connect_timeout);
	struct conn *c;
	enum smtp_open open;
	enum err err = to->family == ADDR_UNIX ? unix_connect(job, to, until, &c)
					       : conn_connect(o->role->loop, to, NULL, until, &c);

	if (err) {
		smtp_result_set(why, QUEUE_DEFERRED, "4.4.1", "connecting to %s failed: %s",
				s->remote,
				err == ERR_TIMEOUT
					? "it does not answer"
					: "it cannot be reached, or nobody listens there");
		return SMTP_OPEN_NEXT;
	}
	o->connections++;
	if (is_ourselves(job, c)) {
		conn_free(c);
		smtp_result_set(why, QUEUE_FAILED, "5.4.6", "mail for %.*s loops back to ourselves",
				STR_ARGS(job->m.domain));
		return SMTP_OPEN_FAILED;
	}
	job->conn = c;
	open = smtp_client_open(c, &s->config, &s->client, why);
	job->conn = NULL;
	return open;
}

/* One address. True: this server took part, and its answers count. */
static bool try_target(struct out_job *job, const struct smtp_target *target)
{
	struct out_session *s = session_new(job, target);
	struct smtp_result why;
	enum smtp_open open;

	if (!s) {
		give_up(job, "4.3.0", "no memory");
		return true;
	}
	open = session_connect(job, s, &target->address, &why);
	if (open == SMTP_OPEN_NO_TLS && !job->is_over) {
		log_info(&job->out->role->log, "tls-failed", "remote=%s text=\"%.*s\"", s->remote,
			 STR_ARGS(smtp_result_text(&why)));
		s->config.tls = SMTP_TLS_NONE;
		open = session_connect(job, s, &target->address, &why);
	}
	if (open == SMTP_OPEN_OK) {
		log_debug(&job->out->role->log, "connected", "remote=%s tls=\"%.*s\"", s->remote,
			  STR_ARGS(smtp_client_tls_text(s->client)));
		(void)use_session(job, s);
		return true;
	}
	everybody(job, &why, arena_str(job->arena, str_from_c(s->remote)), false);
	session_dispose(s);
	return false;
}

static void try_socket(struct out_job *job)
{
	struct smtp_target target = { .address = { .family = ADDR_UNIX }, .host = job->hop.path };

	memcpy(target.address.path, job->hop.path.p, job->hop.path.n);
	(void)try_target(job, &target);
}

static void try_servers(struct out_job *job)
{
	struct out_role *o = job->out;
	struct smtp_target targets[SMTP_ADDRESSES_MAX];
	struct smtp_result why;
	unsigned sessions = 0;
	size_t count;
	struct smtp_hosts_question q = {
		.host = job->hop.host,
		.asks_mx = job->hop.asks_mx,
		.port = job->hop.port ? job->hop.port
				      : (uint16_t)conf_u64(o->role->conf, CONF_smtp_client_port),
		.own = o->own,
		.own_count = o->own_count,
		.chance = os_random_u64(),
		.ask = dns_ask,
		.arg = job,
	};

	/* The configuration may be replaced while we wait. */
	q.own_name = arena_str(job->arena, conf_str(o->role->conf, CONF_myhostname));
	if (smtp_hosts_find(&q, job->arena, targets, &count, &why)) {
		everybody(job, &why, STR_EMPTY, true);
		return;
	}
	for (size_t i = 0;
	     i < count && pending(job) && sessions < OUT_SESSIONS_MAX && !job->is_over; i++)
		sessions += try_target(job, &targets[i]);
}

static void time_is_over(void *arg)
{
	struct out_job *job = arg;

	job->is_over = true;
	if (job->conn)
		conn_cancel(job->conn);
	if (job->client)
		smtp_client_cancel(job->client);
}

void out_deliver(struct out_job *job)
{
	struct loop *loop = job->out->role->loop;

	loop_timer_set(loop, &job->timer, loop_now(loop) + SECONDS(OUT_JOB_SECONDS), time_is_over,
		       job);
	if (route_parse(job->m.nexthop, job->m.domain, &job->hop))
		give_up(job, "4.3.5",
			"the transport for this domain (transport_maps, relayhost) is not one that "
			"we have");
	else if (message_open(job))
		give_up(job, "4.3.0", "the stored message could not be read");
	if (pending(job))
		try_idle(job);
	if (pending(job) && !job->is_over && job->hop.path.n)
		try_socket(job);
	else if (pending(job) && !job->is_over)
		try_servers(job);
	loop_timer_cancel(loop, &job->timer);
	if (job->file > 0)
		os_close(job->file);
	job->file = -1;
}
