/* IMAP before login, in the front (RFC 3501 6.1 and 6.2).
 *
 * It greets, negotiates TLS, carries SASL exchanges between the client and role `auth`, and hands a
 * connection that is logged in to role `session`: the socket itself, or under TLS one end of a
 * socket pair that it relays. It names no user to anybody but auth and knows no mailbox. Between two
 * commands a connection is parked.
 *
 *	struct imap_front front = { .loop = ..., .auth = ..., .session = ..., ... };
 *	imap_prelogin_start(&front, conn, IMAP_SERVICE_IMAPS);	// conn is its own now
 *
 * Settings are read from `conf` at each use, so replacing the pointer is a reload.
 */
#ifndef IMAP_PRELOGIN_H
#define IMAP_PRELOGIN_H

#include "base/chan.h"
#include "base/log.h"
#include "conf/conf.h"
#include "net/conn.h"
#include "net/tls.h"

enum imap_service { IMAP_SERVICE_IMAP, IMAP_SERVICE_IMAPS };

enum {
	IMAP_LOGIN_SECONDS = 180,     /* a client has so long to log in, as with Dovecot */
	IMAP_TLS_SECONDS = 60,	      /* and for its handshake */
	IMAP_AUTH_SECONDS = 60,	      /* auth has so long for an answer */
	IMAP_SASL_ROUNDS_MAX = 8,     /* no mechanism of ours needs more than three */
	IMAP_LOGIN_FAILURES_MAX = 10, /* then the connection is closed */
};

struct imap_prelogin;

struct imap_front {
	struct loop *loop;
	const struct log *log;
	const struct conf *conf;
	struct chan *auth, *session;
	struct tls_context *tls; /* NULL: none */
	/* The connection left this process: closed, or handed over; its memory is gone. */
	void (*ended)(void *arg, const struct addr *client);
	/* A login was refused: for the trace. May be NULL. */
	void (*refused)(void *arg, const struct addr *client, str user, str why);
	void *arg;
	bool offers_scram; /* auth says that every account has SCRAM keys */
	bool is_stopping;
	uint64_t next_conn; /* numbers for auth's `conn`; their top bit says IMAP, SMTP's have none
			     */
	struct imap_prelogin *first; /* not logged in yet */
	uint32_t connections, relayed;
};

/* Takes the connection and greets. On error it stays the caller's, and `ended` is not called. */
MUST_USE enum err imap_prelogin_start(struct imap_front *front, struct conn *conn,
				      enum imap_service service);
/* Closes those that are not logged in, with BYE. Relayed ones go on. */
void imap_front_stop(struct imap_front *front);

#endif
