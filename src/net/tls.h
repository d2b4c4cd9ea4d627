/* TLS contexts: what all connections of a kind have in common. The connection's side is in
 * net/conn.h (conn_tls_accept, conn_tls_connect).
 *
 * A server context holds the certificate chains, and no key: a signature of the handshake is asked
 * of role `keys` over the channel (messages keys_chains, keys_sign), while the handshake's fiber
 * waits.
 *
 *	tls_server_new(loop, &log, keys_channel, &t);
 *	tls_server_reload(t);         // at start, and at each keys_changed message
 *	...
 *	conn_tls_accept(conn, t);     // ERR_TEMPORARY until the first chains are there
 *
 * TLS 1.2 with ECDHE and an AEAD, and TLS 1.3 (RFC 8996, RFC 9325). No session tickets, no session
 * cache: a mail connection lives long against its handshake, a ticket's key would be a secret in
 * the process that meets the internet, and the fronts share no memory, so a ticket would seldom
 * meet its maker.
 *
 * A context outlives the connections made with it.
 */
#ifndef NET_TLS_H
#define NET_TLS_H

#include "base/chan.h"
#include "base/log.h"

enum {
	TLS_CHAINS_MAX = 64,   /* certificate chains in one context */
	TLS_SIGN_SECONDS = 10, /* keys has so long for a signature */
	TLS_LOAD_SECONDS = 30, /* and for the chains */
	TLS_RETRY_SECONDS = 5, /* until they are asked for again after a failure */
};

struct tls_context;

/* `log` and `keys` outlive the context. ERR_NO_MEMORY, ERR_UNSUPPORTED (OpenSSL refuses). */
MUST_USE enum err tls_server_new(struct loop *l, const struct log *log, struct chan *keys,
				 struct tls_context **out);
/* In a fiber: asks keys for the chains and takes them, if they are good, for later handshakes;
 * those that exist go on with theirs. ERR_NOT_FOUND: keys has none (TLS is off then). */
MUST_USE enum err tls_server_load(struct tls_context *t, int64_t deadline);
/* The same in a fiber of its own, outcome in the log, and again after a failure until it succeeds.
 * Another call meanwhile makes it ask once more. */
void tls_server_reload(struct tls_context *t);
/* Whether there is a certificate: STARTTLS can be offered. */
bool tls_server_is_ready(const struct tls_context *t);

/* A client. roots empty: opportunistic (RFC 7435), any certificate will do. Otherwise PEM
 * certificates that a server's chain must lead to, and its name must be the one asked for. */
MUST_USE enum err tls_client_new(struct loop *l, const struct log *log, str roots,
				 struct tls_context **out);

void tls_free(struct tls_context *t);

#endif
