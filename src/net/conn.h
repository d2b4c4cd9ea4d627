/* A connection: bytes in, bytes out, lines, TLS; on fibers.
 *
 * Functions that wait must be called in a fiber; they yield, and return ERR_TIMEOUT at the
 * connection's deadline, ERR_EOF / ERR_CLOSED when the other side is gone. One fiber reads and one may
 * write at a time. Output is collected and sent by conn_flush, by conn_read_* before they wait, and when
 * CONN_OUT_FLUSH bytes have gathered.
 *
 *	while (!(err = conn_read_line(c, SMTP_LINE_MAX, &line))) {
 *		conn_printf(c, "250 2.0.0 Ok\r\n");
 *	}
 *
 * Parking: between two commands there is no fiber. The handler returns, and conn_park arms a callback for
 * the next input, the end of the connection or the deadline; buffers that are empty are given back.
 *
 * Lines end in CRLF or LF as the protocol decides (conn_read_line takes both and tells in
 * conn_line_had_crlf); a line that is too long is ERR_TOO_LONG after it was read to its end within
 * CONN_DISCARD_MAX bytes, and the connection is still good; beyond that ERR_PROTOCOL.
 */
#ifndef NET_CONN_H
#define NET_CONN_H

#include "base/addr.h"
#include "base/buf.h"
#include "base/loop.h"

enum {
	CONN_IN_MAX = 128 * 1024,
	CONN_OUT_FLUSH = 64 * 1024,
	CONN_OUT_MAX = 1024 * 1024,
	CONN_DISCARD_MAX = 1024 * 1024, /* bytes read to be thrown away, in the life of a connection */
};

struct conn;
struct tls_context;

/* Takes the (non-blocking) socket. TCP_NODELAY is set. */
MUST_USE enum err conn_new(struct loop *l, int fd, const struct addr *peer, struct conn **out);
/* Sends what is left if it can be sent without waiting, closes (TLS close_notify), frees. */
void conn_free(struct conn *c);

const struct addr *conn_peer(const struct conn *c);
const struct addr *conn_local(const struct conn *c);
int conn_fd(const struct conn *c);
/* When any wait ends with ERR_TIMEOUT; loop time, LOOP_NEVER for none. */
void conn_set_deadline(struct conn *c, int64_t at);

/* Reading. The slice lives until the next read on this connection. */
MUST_USE enum err conn_read_line(struct conn *c, size_t max, str *line); /* without its end */
bool conn_line_had_crlf(const struct conn *c);
/* Whatever is there, at least one byte, at most `max`. */
MUST_USE enum err conn_read_some(struct conn *c, size_t max, str *bytes);
/* Exactly n bytes, n <= CONN_IN_MAX. */
MUST_USE enum err conn_read_exact(struct conn *c, size_t n, str *bytes);
/* What was read from the socket and not yet handed out, without waiting or taking it. */
str conn_pending(const struct conn *c);
void conn_take(struct conn *c, size_t n);
/* Reads what the socket has, without waiting: ERR_AGAIN when nothing. */
MUST_USE enum err conn_fill(struct conn *c);
/* Throws away everything received and not yet handled: after STARTTLS (RFC 3207 4.2). */
void conn_discard_input(struct conn *c);

/* Writing. conn_write fails only when the connection is dead or CONN_OUT_MAX would be passed. */
void conn_write(struct conn *c, str s);
void conn_printf(struct conn *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Large output: waits in between, so that the buffer stays small. */
MUST_USE enum err conn_write_wait(struct conn *c, str s);
MUST_USE enum err conn_flush(struct conn *c);
bool conn_failed(const struct conn *c);

/* No fiber is needed until something happens: fn is called once, from the loop. */
void conn_park(struct conn *c, void (*fn)(void *arg, enum err why), void *arg);
void conn_unpark(struct conn *c);

/* TLS. Both wait for the handshake. The server's drops input that came before (RFC 3207 4.2), the client's too. */
MUST_USE enum err conn_tls_accept(struct conn *c, struct tls_context *t);
MUST_USE enum err conn_tls_connect(struct conn *c, struct tls_context *t, str server_name);
bool conn_is_tls(const struct conn *c);
/* "TLSv1.3 TLS_AES_256_GCM_SHA384", for Received and the log; empty without TLS. */
str conn_tls_text(const struct conn *c);

/* Gives up the socket (not TLS): the caller owns the descriptor; `input` gets what was read already. The conn is freed. */
MUST_USE enum err conn_detach(struct conn *c, int *fd, struct buf *input);
/* TLS: relays between the connection and `fd` (our end of a socket pair) until either side ends, with
 * `first` (input already read) going first. Frees the conn and closes fd. In a fiber; needs two. */
void conn_relay(struct conn *c, int fd, str first);

/* The key of TLS lives in `keys`; see net/tls.h. */
#endif
