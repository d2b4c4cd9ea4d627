/* What out.c, out_deliver.c and out_login.c share. */
#ifndef ROLES_OUT_PRIV_H
#define ROLES_OUT_PRIV_H

#include "queue/list.h"
#include "queue/route.h"
#include "roles/role.h"
#include "smtp/client.h"
#include "store/body.h"

enum {
	OUT_JOBS_MAX = 512,
	OUT_IDLE_MAX = 100,	    /* connections kept, and for how long: */
	OUT_IDLE_SECONDS = 4,	    /* short, since a server's patience is not ours to use up */
	OUT_TRANSACTIONS_MAX = 100, /* over one connection */
	OUT_SESSIONS_MAX = 2, /* servers that may answer one job: a second opinion, not a poll */
	OUT_OWN_MAX = 64,
	OUT_JOB_BUDGET = 4 * 1024 * 1024,
	OUT_JOB_SECONDS = 3000, /* of a whole job: below what its leases are good for (queue.c) */
	OUT_REMOTE_MAX = 256,
	OUT_RECENT_MAX = 2048, /* recipients whose delivery the next queue process is told again */
	OUT_RECENT_SECONDS = 120, /* and how long: more than an outcome takes to be recorded */
};

struct tls_context;
struct relay_logins;

/* Names and passwords for relays, and the roots that a relay must be proven by before it is told
 * one. A reload makes others; connections go on with theirs. */
struct out_logins {
	unsigned holders;
	struct relay_logins *table;
	struct tls_context *tls;
};

/* A recipient that was delivered, and of which a queue process was told. */
struct out_recent {
	uint64_t id;
	int64_t at; /* loop time */
};

struct out_role {
	struct role *role;
	struct tls_context *tls;
	struct out_logins *logins; /* NULL: none */
	struct out_logins *next;   /* handed over, not yet in force */
	struct body_cipher *cipher;
	struct link idle; /* struct out_session, the oldest first */
	unsigned idle_count;
	struct link jobs;
	unsigned job_count;
	bool queue_knows; /* it asked for out_jobs since it came up */
	bool is_stopping;
	struct timer stop_timer;
	struct addr own[OUT_OWN_MAX]; /* where we take mail */
	size_t own_count;
	struct out_recent *recent; /* a ring of OUT_RECENT_MAX */
	uint64_t recent_count;	   /* ever */
	uint64_t connections, reused, delivered, deferred, failed;
};

struct out_rcpt {
	struct rec_out_rcpt r;
	struct smtp_result result;
	str remote;
	bool tls;
	bool is_final; /* no other server is to be asked */
};

struct out_job {
	struct link in_jobs;
	struct out_role *out;
	uint32_t call;
	bool is_late;	  /* the queue process that gave it is gone */
	bool is_finished; /* waits for a queue process that wants to know */
	struct arena *arena;
	struct msg_out_deliver m;
	struct out_rcpt *rcpts;
	size_t count;
	struct route_hop hop;
	/* The message. */
	struct rec_body_location location;
	int file;
	str prefix;
	uint64_t read_at;
	bool needs_utf8;
	/* Its whole time. */
	struct timer timer;
	bool is_over;
	struct conn *conn;	    /* being opened: to be cancelled then */
	struct smtp_client *client; /* being used: the same */
};

/* In a fiber: sets the result of every recipient. */
void out_deliver(struct out_job *job);
/* For processes that hold many roles: everything, when its channels are gone and no job is left. */
void out_free(struct out_role *o);
/* ---- out_login.c ---- */

/* The hook `file`. */
MUST_USE enum err out_login_file(struct role *r, str name, str path, int fd);
/* What was handed over is in force from now on. ERR_CONFIG: it is not what the settings ask for;
 * what was in force stays. */
MUST_USE enum err out_logins_take(struct out_role *o);
void out_logins_drop(struct out_logins *l); /* one holder less; NULL is allowed */

/* Closes idle connections. */
void out_drop_idle(struct out_role *o);

#endif
