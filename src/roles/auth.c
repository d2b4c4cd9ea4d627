/* Role auth: decides. Logins, who may send as whom, what an address resolves to, limits and
 * penalties.
 *
 * It answers fronts and queue on who may send and to whom (auth_mail.c), fronts on logins
 * (auth_login.c), the session zygote on which account a ticket opens, and the posthorn command on
 * domains, accounts and aliases. It reads no mail and has no network: its one file is the
 * directory. Only hashes take long, and they are computed by the lookup workers (auth_lookup.c), so
 * that nothing here ever waits for one.
 */
#include "base/os.h"
#include "roles/auth_priv.h"

#include <stdlib.h>

enum { TICK_SECONDS = 1 };

/* ---- callers ---- */

static uint32_t *epoch_of(struct auth_role *a, const struct chan *c)
{
	return &a->epochs[chan_peer(c)][MIN(chan_peer_index(c), (unsigned)AUTH_INDEX_MAX - 1)];
}

struct auth_caller auth_caller(struct auth_role *a, struct chan *c, uint32_t id)
{
	return (struct auth_caller){ .auth = a, .chan = c, .id = id, .epoch = *epoch_of(a, c) };
}

bool auth_caller_is_there(const struct auth_caller *caller)
{
	return caller->chan && chan_is_up(caller->chan) &&
	       *epoch_of(caller->auth, caller->chan) == caller->epoch;
}

/* ---- the role ---- */

static void tick(void *arg)
{
	struct auth_role *a = arg;

	auth_tickets_expire(a);
	auth_mechanisms_check(a);
	auth_grants_check(a);
	auth_jobs_run(a);
	loop_timer_set(a->role->loop, &a->tick, loop_now(a->role->loop) + SECONDS(TICK_SECONDS),
		       tick, a);
}

enum err auth_resolver_make(struct auth_role *a)
{
	struct resolver_options options = { .delimiters = conf_str(a->role->conf,
								   CONF_recipient_delimiter),
					    .postmaster = conf_str(a->role->conf, CONF_postmaster),
					    .cache_max = RESOLVE_CACHE_MAX };
	uint8_t seed[RESOLVE_SEED_SIZE];
	struct resolver *resolver;
	enum err err;

	os_random(seed, sizeof(seed));
	if ((err = resolver_new(a->directory, &options, seed, &resolver)))
		return err;
	resolver_free(a->resolver);
	a->resolver = resolver;
	return password_scheme_find(conf_str(a->role->conf, CONF_password_scheme), &a->scheme);
}

static enum err auth_init(struct role *r)
{
	struct auth_role *a = calloc(1, sizeof(*a));
	uint8_t seeds[6][LRU_SEED_SIZE], key[LOGINCACHE_KEY_SIZE];
	enum err err;

	if (!a)
		return ERR_NO_MEMORY;
	r->state = a;
	a->role = r;
	a->folder = -1;
	auth_jobs_init(a);
	os_random(seeds, sizeof(seeds));
	os_random(key, sizeof(key));
	a->arena = arena_new(AUTH_ARENA);
	a->cache = logincache_new(LOGINCACHE_MAX, key);
	explicit_bzero(key, sizeof(key));
	a->penalty = penalty_new(PENALTY_MAX, seeds[3]);
	if (!a->arena || !a->cache || !a->penalty)
		return ERR_NO_MEMORY;
	if ((err = lru_init(&a->conns, AUTH_CONNS_MAX, seeds[0])) ||
	    (err = lru_init(&a->txns, AUTH_TXNS_MAX, seeds[1])))
		return err;
	if ((err = lru_init(&a->tickets, AUTH_TICKETS_MAX, seeds[2])))
		return err;
	if ((err = lru_init(&a->full, AUTH_FULL_MAX, seeds[5])))
		return err;
	return lru_init(&a->opened, AUTH_OPENED_MAX, seeds[4]);
}

static enum err auth_file(struct role *r, str name, str path UNUSED, int fd)
{
	struct auth_role *a = r->state;

	if (!str_eq(name, S("directory")) || a->folder >= 0) {
		os_close(fd);
		return ERR_UNSUPPORTED;
	}
	a->folder = fd;
	return ERR_OK;
}

static enum err auth_prepare(struct role *r)
{
	struct auth_role *a = r->state;
	struct directory_options options = { .create = true };
	char folder[OS_FD_PATH_SIZE], why[DIRECTORY_WHY_SIZE];
	str path;
	enum err err;

	if (a->folder < 0)
		return ERR_CONFIG;
	os_fd_path(a->folder, folder);
	path = arena_printf(a->arena, "%s/directory.db", folder);
	if (!path.p)
		return ERR_NO_MEMORY;
	os_random(options.secret, sizeof(options.secret));
	err = directory_open(path.p, &options, &a->directory, why);
	if (err) {
		log_error(&r->log, "directory-failed", "data_dir=%.*s reason=\"%s\"",
			  STR_ARGS(conf_str(r->conf, CONF_data_dir)), why);
		return err;
	}
	arena_reset(a->arena);
	return auth_resolver_make(a);
}

static enum err auth_start(struct role *r)
{
	tick(r->state);
	return ERR_OK;
}

static void auth_message(struct role *r, struct chan *from, struct msg *m)
{
	struct auth_role *a = r->state;

	switch (m->type) {
	case MSG_auth_sasl:
		auth_sasl_begin(a, from, m->id, &m->u.auth_sasl);
		break;
	case MSG_auth_sasl_step:
		auth_sasl_continue(a, from, m->id, &m->u.auth_sasl_step);
		break;
	case MSG_auth_conn_end:
		auth_conn_forget(a, from, m->u.auth_conn_end.conn);
		break;
	case MSG_auth_mail:
		auth_mail(a, from, m->id, &m->u.auth_mail);
		break;
	case MSG_auth_rcpt:
		auth_rcpt(a, from, m->id, &m->u.auth_rcpt);
		break;
	case MSG_auth_commit:
		auth_commit(a, from, &m->u.auth_commit);
		break;
	case MSG_auth_reset:
		auth_reset(a, from, m->u.auth_reset.txn);
		break;
	case MSG_account_full:
		auth_account_full(a, &m->u.account_full);
		break;
	case MSG_session_bind:
		auth_session_bind(a, from, m->id, &m->u.session_bind);
		break;
	case MSG_command:
		auth_command(a, from, m->id, &m->u.command);
		break;
	default:
		log_error(&r->log, "unexpected-message", "type=%s", msg_name(m->type));
	}
	arena_reset(a->arena);
}

static void auth_peer_up(struct role *r, struct chan *peer)
{
	if (chan_peer(peer) == ROLE_LOOKUP)
		auth_jobs_run(r->state);
	if (chan_peer(peer) == ROLE_FRONT)
		auth_front_up(r->state, peer);
}

/* What came from a peer that is gone is gone with it: nobody waits for it any more. */
static void auth_peer_down(struct role *r, struct chan *peer)
{
	struct auth_role *a = r->state;

	++*epoch_of(a, peer);
	if (chan_peer(peer) == ROLE_FRONT)
		auth_conns_drop(a, peer);
	if (chan_peer(peer) == ROLE_FRONT || chan_peer(peer) == ROLE_QUEUE)
		auth_txns_drop(a, peer);
	if (chan_peer(peer) == ROLE_SESSION)
		auth_sessions_drop(a);
	if (chan_peer(peer) == ROLE_STORE)
		auth_full_clear(a);
}

static void auth_reload(struct role *r)
{
	enum err err = auth_resolver_make(r->state);

	auth_grants_end(r->state);
	if (err)
		log_error(&r->log, "reload-failed", "error=%s", err_name(err));
}

static void auth_status(struct role *r, struct buf *out)
{
	const struct auth_role *a = r->state;

	buf_printf(out,
		   "\"logins\":%llu,\"logins_refused\":%llu,\"hashes\":%llu,\"hashes_waiting\":%zu,"
		   "\"logins_remembered\":%zu,"
		   "\"addresses_penalized\":%zu,\"connections\":%zu,\"transactions\":%zu,"
		   "\"addresses_remembered\":%zu,"
		   "\"accounts_full\":%zu,\"scram\":%s",
		   (unsigned long long)a->logins, (unsigned long long)a->refused_logins,
		   (unsigned long long)a->jobs.computed, a->jobs.count, logincache_count(a->cache),
		   penalty_addresses(a->penalty), a->conns.count, a->txns.count,
		   resolver_cached(a->resolver), a->full.count,
		   a->all_have_scram ? "true" : "false");
}

const struct role_ops role_auth_ops = {
	.kind = ROLE_AUTH,
	.sandbox = SANDBOX_FILES | SANDBOX_SYNC,
	.init = auth_init,
	.file = auth_file,
	.prepare = auth_prepare,
	.start = auth_start,
	.message = auth_message,
	.peer_up = auth_peer_up,
	.peer_down = auth_peer_down,
	.reload = auth_reload,
	.status = auth_status,
};
