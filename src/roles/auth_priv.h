/* Inside role auth: its state, and how its files divide the work.
 *
 *	auth.c          the role: start, dispatch, figures
 *	auth_login.c    SASL exchanges, one per connection of a front
 *	auth_session.c  tickets: which account a session may open at the store
 *	auth_mail.c     transactions: who may send, to whom, what recipients are in the end
 *	auth_commands.c `posthorn domain|user|alias` while the server runs
 *	auth_accounts.c all accounts together: who is full, whether SCRAM can be offered
 *	auth_lookup.c   the queue before the lookup workers
 */
#ifndef ROLES_AUTH_PRIV_H
#define ROLES_AUTH_PRIV_H

#include "auth/commands.h"
#include "auth/directory.h"
#include "auth/logincache.h"
#include "auth/lru.h"
#include "auth/penalty.h"
#include "auth/resolve.h"
#include "auth/sasl.h"
#include "conf/conf.h"
#include "roles/role.h"
#include "store/types.h"

enum {
	AUTH_CONNS_MAX = 100000,	/* exchanges, and connections that are logged in to send */
	AUTH_TXNS_MAX = 20000,		/* transactions in progress */
	AUTH_TXN_RCPTS_MAX = 10000,	/* final recipients of one */
	AUTH_RCPT_BYTES_MAX = 64 << 20, /* of final recipients in all transactions */
	AUTH_TICKETS_MAX = 16384,	/* logins whose session was not bound yet */
	AUTH_TICKET_SECONDS = 60,
	AUTH_OPENED_MAX = 100000, /* accounts that may be opened again for connections that sleep:
				     100 bytes each */
	AUTH_FULL_MAX = 100000,	  /* accounts over their quota: 100 bytes each */
	AUTH_JOBS_MAX = 2000,	  /* hashes that wait for a worker */
	AUTH_JOB_SECONDS = 20,	  /* how long they may */
	AUTH_LOGIN_SECONDS = 30,  /* the longest that a login may wait for its hash: RFC 4954's
				     clients wait longer */
	AUTH_INDEX_MAX = 256,	  /* of several roles of a kind */
	AUTH_ARENA = 8 << 20,
};

struct auth_role;

/* Who asked, so that a late answer goes to nobody else: a peer that died and came back has another
 * epoch. */
struct auth_caller {
	struct auth_role *auth;
	struct chan *chan;
	uint32_t id, epoch;
};

/* What a worker is asked. `done` is called once, from the loop. */
struct auth_job {
	struct auth_job *next;
	struct auth_role *auth;
	bool is_hash;		      /* make a stored password, instead of checking one */
	str stored, scheme, password; /* copies, wiped and freed with the job */
	int64_t deadline;
	unsigned worker;
	void (*done)(void *arg, enum err err, const struct msg_lookup_hash_reply *made);
	void *arg;
};

struct auth_jobs {
	struct auth_job *first, **end;
	size_t count;
	struct auth_job *running[AUTH_INDEX_MAX]; /* by worker; one hash each at a time */
	uint64_t computed;
};

struct auth_role {
	struct role *role;
	int folder; /* of the directory; SQLite opens what is in it by its path as a descriptor */
	struct directory *directory;
	struct resolver *resolver;
	struct logincache *cache;
	struct penalty *penalty;
	enum password_scheme scheme;
	struct lru conns, txns, tickets, opened, full;
	bool all_have_scram, mechanisms_known; /* as the fronts were told */
	uint64_t mechanisms_changes;	       /* the directory's, when it was found out */
	uint64_t grants_changes;	       /* the same, when fronts were told */
	bool grants_untold;		       /* not all of them */
	size_t rcpt_bytes;
	struct auth_jobs jobs;
	uint32_t epochs[ROLE_COUNT][AUTH_INDEX_MAX];
	struct arena *arena; /* for one message; reset after it */
	struct timer tick;
	uint64_t logins, refused_logins;
};

/* ---- auth.c ---- */

struct auth_caller auth_caller(struct auth_role *a, struct chan *c, uint32_t id);
bool auth_caller_is_there(const struct auth_caller *caller);
/* The folder of a path's file; the directory is there. */
MUST_USE enum err auth_resolver_make(struct auth_role *a);

/* ---- auth_login.c ---- */

void auth_sasl_begin(struct auth_role *a, struct chan *from, uint32_t id,
		     const struct msg_auth_sasl *m);
void auth_sasl_continue(struct auth_role *a, struct chan *from, uint32_t id,
			const struct msg_auth_sasl_step *m);
void auth_conn_forget(struct auth_role *a, struct chan *from, uint64_t conn);
void auth_conns_drop(struct auth_role *a, struct chan *peer);
/* Who is logged in on that connection: 0 nobody. */
uint64_t auth_conn_account(const struct auth_role *a, const struct chan *from, uint64_t conn);

/* ---- auth_session.c ---- */

/* A ticket for a session of this account, told to the zygote. ERR_BUSY, ERR_CLOSED. */
MUST_USE enum err auth_ticket_issue(struct auth_role *a, uint64_t account, str address,
				    uint64_t quota, uint8_t ticket[16]);
void auth_tickets_expire(struct auth_role *a);
void auth_session_bind(struct auth_role *a, struct chan *from, uint32_t id,
		       const struct msg_session_bind *m);
/* The zygote is gone, and with it what it may open without a login. */
void auth_sessions_drop(struct auth_role *a);

/* ---- auth_mail.c ---- */

/* Fronts forget which recipients were granted: at once, or if the directory has changed. */
void auth_grants_end(struct auth_role *a);
void auth_grants_check(struct auth_role *a);
void auth_mail(struct auth_role *a, struct chan *from, uint32_t id, const struct msg_auth_mail *m);
void auth_rcpt(struct auth_role *a, struct chan *from, uint32_t id, const struct msg_auth_rcpt *m);
void auth_commit(struct auth_role *a, struct chan *from, const struct msg_auth_commit *m);
void auth_reset(struct auth_role *a, struct chan *from, uint64_t txn);
void auth_txns_drop(struct auth_role *a, struct chan *peer);

/* ---- auth_commands.c ---- */

void auth_command(struct auth_role *a, struct chan *from, uint32_t id, const struct msg_command *m);

/* ---- auth_accounts.c ---- */

/* The directory may have changed: tells the fronts when that changes what they may offer. */
void auth_mechanisms_check(struct auth_role *a);
void auth_front_up(struct auth_role *a, struct chan *front);
void auth_account_full(struct auth_role *a, const struct msg_account_full *m);
void auth_full_clear(struct auth_role *a);
/* Has it used up its quota (bytes, 0: none)? `account` 0 is remote, and never full. */
bool auth_account_is_full(const struct auth_role *a, uint64_t account, uint64_t quota);

/* ---- auth_lookup.c ---- */

void auth_jobs_init(struct auth_role *a);
/* `stored` empty: nobody's. ERR_BUSY, ERR_NO_MEMORY: `done` is not called. */
MUST_USE enum err auth_job_verify(struct auth_role *a, str stored, str password,
				  void (*done)(void *arg, enum err err,
					       const struct msg_lookup_hash_reply *made),
				  void *arg);
MUST_USE enum err auth_job_hash(struct auth_role *a, str scheme, str password,
				void (*done)(void *arg, enum err err,
					     const struct msg_lookup_hash_reply *made),
				void *arg);
/* A worker came, or time passed: starts what waits, ends what waited too long. */
void auth_jobs_run(struct auth_role *a);

#endif
