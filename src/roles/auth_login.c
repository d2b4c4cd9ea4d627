/* Logins: SASL exchanges between the clients of the fronts and the directory.
 *
 * One entry for each connection of a front that is logging in, and for those that have, where they
 * send mail: for the rest, a login ends in a ticket, and the connection's session knows the account
 * from then on. The front passes the mechanism's bytes and hears challenges; it never learns what
 * is stored.
 *
 * An exchange goes through at most these steps, the waiting ones marked:
 *	messages (client*) -> penalty (delay*) -> directory -> remembered login, or a worker's hash*
 * -> answer A client whose address failed too often waits before its password is looked at, so that
 * guesses cost the guesser time and us nothing. Every end of an exchange goes through login_end,
 * which wipes it.
 *
 * What a name is told: one text for a wrong name, a wrong password and a disabled account (RFC 5803
 * and RFC 4954 6 leave no reason to tell more); temporary failures are told apart, since the client
 * should try again.
 */
#include "base/os.h"
#include "roles/auth_priv.h"

#include <stdlib.h>

/* Exchanges come and go; a connection that is logged in to send is known until it ends. */
enum { LIST_EXCHANGES, LIST_LOGGED_IN, LISTS };

struct auth_conn {
	struct lru_node node;
	uint8_t key[16]; /* peer's role and index, and its number of the connection */
	struct auth_role *auth;
	struct chan *front;
	struct addr client;
	bool keeps_account; /* a service that sends: the account is asked for at MAIL */
	bool is_gone;	    /* its end came while a worker computed */
	bool is_working;    /* a worker has it */
	struct sasl *sasl;  /* NULL between exchanges */
	struct auth_caller caller;
	struct timer delay;
	uint64_t changes; /* of the directory, when the account was read */
	uint64_t account; /* logged in: its id */
	uint64_t candidate;
	str candidate_hash;
};

static void conn_key(uint8_t key[16], const struct chan *front, uint64_t conn)
{
	memset(key, 0, 16);
	key[0] = (uint8_t)chan_peer(front);
	put_le32(key + 4, chan_peer_index(front));
	put_le64(key + 8, conn);
}

static struct auth_conn *conn_find(const struct auth_role *a, const struct chan *front,
				   uint64_t conn)
{
	uint8_t key[16];
	struct lru_node *n;

	conn_key(key, front, conn);
	n = lru_find(&a->conns, str_of(key, sizeof(key)));
	return n ? CONTAINER_OF(n, struct auth_conn, node) : NULL;
}

static void exchange_clear(struct auth_conn *c)
{
	loop_timer_cancel(c->auth->role->loop, &c->delay);
	sasl_free(c->sasl);
	c->sasl = NULL;
	if (c->candidate_hash.p)
		explicit_bzero((void *)(uintptr_t)c->candidate_hash.p, c->candidate_hash.n);
	free((void *)(uintptr_t)c->candidate_hash.p);
	c->candidate_hash = STR_EMPTY;
	c->candidate = 0;
}

/* Takes it out of the table; frees it unless a worker still has it. */
static void conn_drop(struct auth_conn *c)
{
	if (!c->is_gone)
		(void)lru_remove(&c->auth->conns, &c->node);
	c->is_gone = true;
	if (c->is_working)
		return;
	exchange_clear(c);
	free(c);
}

static struct auth_conn *conn_make(struct auth_role *a, struct chan *front,
				   const struct msg_auth_sasl *m)
{
	struct lru_node *oldest = lru_oldest(&a->conns, LIST_EXCHANGES);
	struct auth_conn *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	/* A front whose word of an end was lost must not use up the table for good: of too many
	 * exchanges the oldest is over. */
	if (lru_is_full(&a->conns) && oldest)
		conn_drop(CONTAINER_OF(oldest, struct auth_conn, node));
	if (lru_is_full(&a->conns)) {
		free(c);
		return NULL;
	}
	c->auth = a;
	c->front = front;
	c->keeps_account = str_starts(m->service, S("s")); /* smtp, submission, submissions */
	conn_key(c->key, front, m->conn);
	lru_insert(&a->conns, &c->node, str_of(c->key, sizeof(c->key)), LIST_EXCHANGES);
	return c;
}

static void answer(const struct auth_caller *caller, const struct msg_auth_sasl_reply *reply)
{
	enum err err = ERR_OK;

	if (auth_caller_is_there(caller))
		err = chan_reply(caller->chan, caller->id, MSG_auth_sasl_reply, reply);
	if (err)
		log_warn(&caller->auth->role->log, "login-answer-lost", "error=%s", err_name(err));
}

/* The one end of an exchange that did not succeed. */
static void login_end(struct auth_conn *c, enum auth_sasl_state state, str text)
{
	struct auth_caller caller = c->caller;

	if (state == AUTH_SASL_FAILED)
		c->auth->refused_logins++;
	conn_drop(c);
	answer(&caller, &(struct msg_auth_sasl_reply){ .state = (uint8_t)state, .text = text });
}

static void login_failed(struct auth_conn *c, enum err err)
{
	struct auth_role *a = c->auth;
	char client[ADDR_TEXT_MAX];

	if (err == ERR_TEMPORARY || err == ERR_NO_MEMORY || err == ERR_BUSY || err == ERR_TIMEOUT) {
		log_warn(&a->role->log, "login-temporary-failure", "name=%.*s client=%.*s error=%s",
			 STR_ARGS(sasl_name(c->sasl)), STR_ARGS(addr_ip_text(&c->client, client)),
			 err_name(err));
		login_end(c, AUTH_SASL_TEMPORARY, S("Temporary authentication failure"));
		return;
	}
	if (err == ERR_AUTH)
		penalty_failure(a->penalty, os_monotonic_ns(), &c->client, sasl_name(c->sasl),
				sasl_password(c->sasl));
	log_info(&a->role->log, "login-refused", "name=%.*s client=%.*s error=%s",
		 STR_ARGS(sasl_name(c->sasl)), STR_ARGS(addr_ip_text(&c->client, client)),
		 err_name(err));
	login_end(c, AUTH_SASL_FAILED, S("Authentication credentials invalid"));
}

static void login_succeeded(struct auth_conn *c, const struct directory_account *account)
{
	struct auth_role *a = c->auth;
	struct msg_auth_sasl_reply reply = { .state = AUTH_SASL_OK,
					     .account = account->id,
					     .address = account->address };
	struct auth_caller caller = c->caller;
	char client[ADDR_TEXT_MAX];
	enum err err = ERR_OK;

	if (!c->keeps_account)
		err = auth_ticket_issue(a, account->id, account->address, account->quota,
					reply.ticket);
	if (err) {
		login_failed(c, ERR_TEMPORARY);
		return;
	}
	penalty_success(a->penalty, os_monotonic_ns(), &c->client, sasl_name(c->sasl));
	log_info(&a->role->log, "login", "account=%.*s client=%.*s", STR_ARGS(account->address),
		 STR_ARGS(addr_ip_text(&c->client, client)));
	a->logins++;
	if (c->keeps_account) {
		c->account = account->id;
		lru_touch(&a->conns, &c->node, LIST_LOGGED_IN);
		exchange_clear(c);
	} else {
		conn_drop(c);
	}
	answer(&caller, &reply);
}

/* Once the password is right: the account as it is now, for it may have been disabled while a
 * worker computed. */
static void password_right(struct auth_conn *c)
{
	struct directory_account account;
	enum err err = directory_account_find_id(c->auth->directory, c->candidate, c->auth->arena,
						 &account);

	if (err == ERR_NOT_FOUND ||
	    (!err && (!account.enabled || !str_eq(account.hash, c->candidate_hash))))
		err = ERR_DENIED;
	if (err)
		login_failed(c, err);
	else
		login_succeeded(c, &account);
}

static void verified(void *arg, enum err err, const struct msg_lookup_hash_reply *made UNUSED)
{
	struct auth_conn *c = arg;
	struct auth_role *a = c->auth;

	c->is_working = false;
	if (c->is_gone) {
		conn_drop(c);
		return;
	}
	if (err == ERR_UNSUPPORTED || err == ERR_SYNTAX || err == ERR_RANGE ||
	    err == ERR_TOO_LONG) {
		log_error(&a->role->log, "stored-password-unusable", "name=%.*s error=%s",
			  STR_ARGS(sasl_name(c->sasl)), err_name(err));
		err = ERR_TEMPORARY;
	}
	if (!err && c->candidate == 0)
		err = ERR_AUTH;
	if (!err && conf_bool(a->role->conf, CONF_login_cache))
		logincache_add(a->cache, os_monotonic_ns(), c->changes, c->candidate,
			       c->candidate_hash, sasl_password(c->sasl));
	if (err)
		login_failed(c, err);
	else
		password_right(c);
	arena_reset(a->arena);
}

/* The stored hash is kept with the exchange: the arena's copy is gone by the time the worker
 * answers. */
static bool keep_candidate(struct auth_conn *c, const struct directory_account *account)
{
	char *p = malloc(account->hash.n + 1);

	if (!p)
		return false;
	memcpy(p, account->hash.p, account->hash.n);
	c->candidate_hash = str_of(p, account->hash.n);
	c->candidate = account->id;
	c->changes = directory_changes(c->auth->directory);
	return true;
}

/* PLAIN and LOGIN. A name that does not exist costs as long as a wrong password (auth/password.h).
 */
static void login_verify(struct auth_conn *c)
{
	struct auth_role *a = c->auth;
	struct directory_account account;
	enum err err = directory_refresh(a->directory);

	if (!err)
		err = directory_account_find(a->directory, sasl_name(c->sasl), a->arena, &account);
	if (err == ERR_TEMPORARY || err == ERR_NO_MEMORY) {
		login_failed(c, err);
		return;
	}
	if (!err && account.enabled) {
		if (!keep_candidate(c, &account)) {
			login_failed(c, ERR_NO_MEMORY);
			return;
		}
		if (conf_bool(a->role->conf, CONF_login_cache) &&
		    logincache_has(a->cache, os_monotonic_ns(), c->changes, account.id,
				   account.hash, sasl_password(c->sasl))) {
			login_succeeded(c, &account);
			return;
		}
	}
	c->is_working = true;
	err = auth_job_verify(a, c->candidate_hash, sasl_password(c->sasl), verified, c);
	if (err) {
		c->is_working = false;
		login_failed(c, err);
	}
}

static void exchange_step(struct auth_conn *c, enum err err, enum sasl_next next,
			  struct buf *reply);

/* SCRAM: what is stored, after any delay. */
static void login_lookup(struct auth_conn *c)
{
	struct auth_role *a = c->auth;
	struct directory_account account = { .id = 0 };
	enum sasl_next next = SASL_DONE;
	struct buf reply;
	enum err err = directory_refresh(a->directory);

	if (!err)
		err = directory_account_find(a->directory, sasl_name(c->sasl), a->arena, &account);
	if (err == ERR_TEMPORARY || err == ERR_NO_MEMORY) {
		login_failed(c, err);
		return;
	}
	if (err || !account.enabled)
		account = (struct directory_account){
			.id = 0
		}; /* an exchange that looks like any other */
	else if (!keep_candidate(c, &account)) {
		login_failed(c, ERR_NO_MEMORY);
		return;
	}
	buf_init(&reply, SASL_MESSAGE_MAX);
	err = sasl_stored(c->sasl, account.scram, &reply, &next);
	exchange_step(c, err, next, &reply);
	buf_free(&reply);
}

static void delay_over(void *arg)
{
	struct auth_conn *c = arg;
	struct auth_role *a = c->auth;

	if (sasl_password(c->sasl).n > 0)
		login_verify(c);
	else
		login_lookup(c);
	arena_reset(a->arena);
}

/* The name is known: what this address and this name have done lately decides how it goes on. */
static void login_penalty(struct auth_conn *c)
{
	struct auth_role *a = c->auth;
	struct penalty_verdict v =
		penalty_check(a->penalty, os_monotonic_ns(), &c->client, sasl_name(c->sasl));
	char text[PENALTY_TEXT_SIZE], client[ADDR_TEXT_MAX];

	if (v.refused_ns > 0) {
		log_info(&a->role->log, "login-refused-address", "client=%.*s name=%.*s",
			 STR_ARGS(addr_ip_text(&c->client, client)), STR_ARGS(sasl_name(c->sasl)));
		login_end(c, AUTH_SASL_FAILED, penalty_text(&v, text));
	} else if (v.delay_ns > 0) {
		loop_timer_set(a->role->loop, &c->delay, loop_now(a->role->loop) + v.delay_ns,
			       delay_over, c);
	} else {
		delay_over(c);
	}
}

/* SCRAM's end: the proof was right, and the client has seen ours. */
static void scram_done(struct auth_conn *c)
{
	struct directory_account account;
	enum err err = directory_account_find_id(c->auth->directory, c->candidate, c->auth->arena,
						 &account);

	if (!err && !account.enabled)
		err = ERR_DENIED;
	if (err)
		login_failed(c, err == ERR_NOT_FOUND ? ERR_DENIED : err);
	else
		login_succeeded(c, &account);
}

static void exchange_step(struct auth_conn *c, enum err err, enum sasl_next next, struct buf *reply)
{
	if (err) {
		login_failed(c, err);
		return;
	}
	switch (next) {
	case SASL_CHALLENGE:
		answer(&c->caller, &(struct msg_auth_sasl_reply){ .state = AUTH_SASL_CONTINUE,
								  .challenge = buf_str(reply) });
		break;
	case SASL_LOOKUP:
	case SASL_VERIFY:
		login_penalty(c);
		break;
	case SASL_DONE:
		scram_done(c);
		break;
	}
}

static void refuse_at_once(struct auth_role *a, struct chan *from, uint32_t id,
			   enum auth_sasl_state state, str text)
{
	struct auth_caller caller = auth_caller(a, from, id);

	answer(&caller, &(struct msg_auth_sasl_reply){ .state = (uint8_t)state, .text = text });
}

static enum err exchange_begin(struct auth_conn *c, const struct msg_auth_sasl *m,
			       struct buf *reply, enum sasl_next *next)
{
	struct sasl_secrets secrets;
	enum sasl_mechanism mechanism;
	enum err err = sasl_mechanism_find(m->mechanism, &mechanism);

	if (err)
		return err;
	os_random(secrets.nonce, sizeof(secrets.nonce));
	memcpy(secrets.fake, directory_secret(c->auth->directory), sizeof(secrets.fake));
	c->sasl = sasl_new(mechanism, &secrets);
	explicit_bzero(&secrets, sizeof(secrets));
	if (!c->sasl)
		return ERR_NO_MEMORY;
	/* An initial response that is empty is not the same as none (RFC 4954 4). */
	return sasl_start(c->sasl,
			  m->has_initial ? str_of(m->initial.n ? m->initial.p : "", m->initial.n)
					 : STR_EMPTY,
			  reply, next);
}

void auth_sasl_begin(struct auth_role *a, struct chan *from, uint32_t id,
		     const struct msg_auth_sasl *m)
{
	struct auth_conn *c = conn_find(a, from, m->conn);
	enum sasl_next next = SASL_DONE;
	struct buf reply;
	enum err err;

	if (c && (c->account > 0 || c->is_working)) {
		refuse_at_once(a, from, id, AUTH_SASL_FAILED, S("Already authenticated"));
		return;
	}
	if (c)
		conn_drop(c); /* an exchange that the client gave up */
	c = conn_make(a, from, m);
	if (!c) {
		refuse_at_once(a, from, id, AUTH_SASL_TEMPORARY,
			       S("Too many logins at the moment"));
		return;
	}
	c->caller = auth_caller(a, from, id);
	if (addr_parse(m->client, &c->client) && addr_parse_ip(m->client, &c->client))
		c->client = (struct addr){ .family = ADDR_NONE };
	buf_init(&reply, SASL_MESSAGE_MAX);
	err = exchange_begin(c, m, &reply, &next);
	if (err == ERR_UNSUPPORTED && !c->sasl)
		login_end(c, AUTH_SASL_FAILED, S("Unsupported authentication mechanism"));
	else if (err && !c->sasl)
		login_end(c, AUTH_SASL_TEMPORARY, S("Temporary authentication failure"));
	else
		exchange_step(c, err, next, &reply);
	buf_free(&reply);
}

void auth_sasl_continue(struct auth_role *a, struct chan *from, uint32_t id,
			const struct msg_auth_sasl_step *m)
{
	struct auth_conn *c = conn_find(a, from, m->conn);
	enum sasl_next next = SASL_DONE;
	struct buf reply;
	enum err err;

	/* It began with a process before this one. The password is not wrong. */
	if (!c || !c->sasl) {
		refuse_at_once(a, from, id, AUTH_SASL_TEMPORARY,
			       S("The authentication was interrupted"));
		return;
	}
	if (c->is_working || c->delay.position > 0) {
		refuse_at_once(a, from, id, AUTH_SASL_FAILED, S("Not now"));
		return;
	}
	c->caller = auth_caller(a, from, id);
	buf_init(&reply, SASL_MESSAGE_MAX);
	err = sasl_input(c->sasl, m->response, &reply, &next);
	exchange_step(c, err, next, &reply);
	buf_free(&reply);
}

void auth_conn_forget(struct auth_role *a, struct chan *from, uint64_t conn)
{
	struct auth_conn *c = conn_find(a, from, conn);

	if (c)
		conn_drop(c);
}

void auth_conns_drop(struct auth_role *a, struct chan *peer)
{
	for (unsigned list = 0; list < LISTS; list++) {
		struct lru_node *n = lru_oldest(&a->conns, list);

		while (n) {
			struct auth_conn *c = CONTAINER_OF(n, struct auth_conn, node);

			n = n->newer;
			if (!peer || c->front == peer)
				conn_drop(c);
		}
	}
}

uint64_t auth_conn_account(const struct auth_role *a, const struct chan *from, uint64_t conn)
{
	const struct auth_conn *c = conn > 0 ? conn_find(a, from, conn) : NULL;

	return c ? c->account : 0;
}
