/* SMTP, submission and LMTP as a server (RFC 5321, 6409, 8314, 2033).
 *
 * A `struct smtp_server` is what all sessions of one process share; the front makes one. A session
 * takes a connection and owns it to its end:
 *
 *	smtp_server_init(&server, loop, &log, &msgids, conf);
 *	server.auth = ...; server.store = ...; server.filters = ...; server.hooks = ...;
 *	smtp_session_start(&server, conn, SMTP_SERVICE_SUBMISSION);	// conn is the session's now
 *
 * Between commands a session has no fiber: its connection is parked. A message is acknowledged when
 * `store` says that it is durable (txn_reply), and not otherwise; while auth, store or filter is
 * away the answer is a 4xx.
 *
 * Settings are read from `conf` at each use, so replacing the pointer is a reload.
 */
#ifndef SMTP_SESSION_H
#define SMTP_SESSION_H

#include "base/chan.h"
#include "base/log.h"
#include "base/trace.h"
#include "conf/conf.h"
#include "net/conn.h"
#include "net/tls.h"

#include "smtp/known.h"
#include "smtp/message.h"

enum smtp_service {
	SMTP_SERVICE_SMTP,
	SMTP_SERVICE_SUBMISSION,
	SMTP_SERVICE_SUBMISSIONS,
	SMTP_SERVICE_LMTP
};

enum {
	SMTP_SPOOL_MAX =
		512 * 1024 * 1024,	/* bytes of large messages in progress, in one process */
	SMTP_DISCARD_MIN = 1024 * 1024, /* of a refused message so much is read, or
					   message_size_limit if that is more */
	SMTP_AUTH_SECONDS = 60,		/* auth has so long for an answer; then 451 */
	SMTP_COMMIT_SECONDS =
		300, /* and filter and store for theirs. RFC 5321 4.5.3.2.6: clients wait 600 */
	SMTP_TLS_SECONDS = 60, /* a client has so long for its handshake */
	SMTP_STRESS_SECONDS =
		10, /* a client may be silent so long when there are many, as with Postfix */
	SMTP_SOFT_ERROR_LIMIT =
		10,	       /* from then on replies to errors come a second later (Postfix) */
	SMTP_JUNK_LIMIT = 100, /* commands that lead to no mail; more count as errors (Postfix) */
	SMTP_TRANSACTION_MEMORY = 2 * 1024 * 1024, /* recipients of one transaction */
	SMTP_COMMAND_MEMORY = 512 * 1024,
	SMTP_KNOWN_MAX = 8192, /* recipients whose grant is remembered */
};

struct smtp_session;

struct smtp_hooks {
	/* For role_trace. */
	void (*trace)(void *arg, uint64_t message, enum trace_event event, str sender,
		      str recipient, str text);
	/* May this client send another message now? */
	bool (*may_send)(void *arg, const struct addr *client);
	/* A session is over; its connection is about to be freed. */
	void (*ended)(void *arg, const struct addr *client);
	void *arg;
};

struct smtp_server {
	struct loop *loop;
	const struct log *log;
	struct msgid_source *msgids;
	const struct conf *conf;
	struct chan *auth, *store;
	struct chan **filters;
	unsigned filter_count;
	struct tls_context *tls;  /* NULL: none */
	struct smtp_known *known; /* NULL: every recipient is asked for */
	struct smtp_hooks hooks;
	bool offers_scram; /* auth says that every account has SCRAM keys */
	bool is_busy;	   /* many connections: shorter timeouts */
	bool is_stopping;
	uint32_t
		auth_lives; /* how often auth went away; what it knew of connections went with it */
	uint64_t next_conn; /* numbers for auth's `conn` */
	struct smtp_budget spool;
	struct smtp_session *first;
	/* For `posthorn status`. */
	uint32_t sessions;
	uint64_t accepted, refused, deferred;
};

void smtp_server_init(struct smtp_server *server, struct loop *loop, const struct log *log,
		      struct msgid_source *msgids, const struct conf *conf);

/* Takes the connection, greets, serves. On error the connection stays the caller's. */
MUST_USE enum err smtp_session_start(struct smtp_server *server, struct conn *conn,
				     enum smtp_service service);

/* No new commands: idle sessions get 421 at once, the others after what they are doing (RFC
 * 5321 3.8). */
void smtp_server_stop(struct smtp_server *server);
/* Ends the rest: messages under way are cut off, those at the store are answered if it is in time.
 */
void smtp_server_cancel(struct smtp_server *server);

/* auth's process died: transactions and logins it knew are void. */
void smtp_server_auth_lost(struct smtp_server *server);

const char *smtp_service_name(enum smtp_service service);

#endif
