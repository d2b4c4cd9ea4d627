/* A connection: bytes in, bytes out, lines, TLS; on fibers.
 *
 * Functions that wait must be called in a fiber; they yield, and return ERR_TIMEOUT at the
 * connection's deadline, ERR_EOF / ERR_CLOSED when the other side is gone (ERR_EOF: it said so in
 * order), ERR_CANCELLED after conn_cancel or fiber_cancel. One fiber reads and one may write at a
 * time. Output is collected and sent by conn_flush, by conn_read_* before they wait, and when
 * CONN_OUT_FLUSH bytes have gathered.
 *
 *	while (!(err = conn_read_line(c, SMTP_LINE_MAX, &line))) {
 *		conn_printf(c, "250 2.0.0 Ok\r\n");
 *	}
 *
 * Parking: between two commands there is no fiber. The handler returns, and conn_park arms a
 * callback for the next input, the end of the connection or the deadline; buffers that are empty
 * are given back.
 *
 * Lines end in CRLF or LF as the protocol decides (conn_read_line takes both and tells in
 * conn_line_had_crlf); a line that is too long is ERR_TOO_LONG after it was read to its end within
 * CONN_DISCARD_MAX bytes, and the connection is still good; beyond that ERR_PROTOCOL. A last line
 * without an end is dropped: ERR_EOF.
 *
 * Lifetime: the connection is its owner's alone. conn_free may be called in any callback or fiber,
 * but not while a fiber waits in one of these functions: to end such a connection, conn_cancel it,
 * and let the fiber that comes back with ERR_CANCELLED free it. Reading and writing after the
 * connection has died are safe and say so.
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
	CONN_DISCARD_MAX =
		1024 * 1024, /* bytes read to be thrown away, in the life of a connection */
};

struct conn;
struct tls_context;

/* Takes the (non-blocking) socket, which stays the caller's on error. TCP_NODELAY is set. `peer` is
 * copied. */
MUST_USE enum err conn_new(struct loop *l, int fd, const struct addr *peer, struct conn **out);
/* Sends what is left if it can be sent without waiting, closes (TLS close_notify), frees. NULL is
 * allowed. */
void conn_free(struct conn *c);
/* Connects and waits until it is done or the deadline. `from`: our own address, or NULL. */
MUST_USE enum err conn_connect(struct loop *l, const struct addr *to, const struct addr *from,
			       int64_t deadline, struct conn **out);

const struct addr *conn_peer(const struct conn *c);
const struct addr *conn_local(const struct conn *c);
int conn_fd(const struct conn *c);
struct loop *conn_loop(const struct conn *c);
/* When any wait ends with ERR_TIMEOUT; loop time, LOOP_NEVER for none. At first none. Not for a
 * parked connection: park again. */
void conn_set_deadline(struct conn *c, int64_t at);
int64_t conn_deadline(const struct conn *c);
/* Every wait, now and later, ends with ERR_CANCELLED; a parked connection's fn is called with it.
 */
void conn_cancel(struct conn *c);

/* Reading. The slice lives until the next read on this connection, or until it is parked. */
MUST_USE enum err conn_read_line(struct conn *c, size_t max,
				 str *line); /* without its end; max < CONN_IN_MAX - 1 */
/* The same without waiting: ERR_AGAIN while no whole line is there. Sends nothing. */
MUST_USE enum err conn_next_line(struct conn *c, size_t max, str *line);
bool conn_line_had_crlf(const struct conn *c);
/* Whatever is there, at least one byte, at most `max`. */
MUST_USE enum err conn_read_some(struct conn *c, size_t max, str *bytes);
/* Exactly n bytes, n <= CONN_IN_MAX. */
MUST_USE enum err conn_read_exact(struct conn *c, size_t n, str *bytes);
/* What was read from the socket and not yet handed out, without waiting or taking it. */
str conn_pending(const struct conn *c);
void conn_take(struct conn *c, size_t n);
/* Reads what the socket has, without waiting: ERR_AGAIN when nothing, ERR_FULL when CONN_IN_MAX
 * bytes wait already. */
MUST_USE enum err conn_fill(struct conn *c);
/* Throws away everything received and not yet handled: after STARTTLS (RFC 3207 4.2). */
void conn_discard_input(struct conn *c);

/* Writing. conn_write fails only when the connection is dead or CONN_OUT_MAX would be passed. */
void conn_write(struct conn *c, str s);
void conn_printf(struct conn *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Large output: waits in between, so that the buffer stays small. */
MUST_USE enum err conn_write_wait(struct conn *c, str s);
/* Waits until everything was given to the kernel. */
MUST_USE enum err conn_flush(struct conn *c);
bool conn_failed(const struct conn *c);

/* No fiber is needed until something happens: fn is called once, from the loop, and then the
 * connection is no longer parked. why: ERR_OK: input that conn_park had not seen; ERR_EOF,
 * ERR_CLOSED; ERR_TIMEOUT; ERR_CANCELLED. fn may free the connection. Output that is left goes out
 * meanwhile. */
void conn_park(struct conn *c, void (*fn)(void *arg, enum err why), void *arg);
void conn_unpark(struct conn *c);

/* TLS. Both wait for the handshake, and send what was written before it. Both drop input that came
 * before (RFC 3207 4.2): what a man in the middle put there in clear must not count as sent under
 * TLS. After an error the connection is good for conn_free alone (a client opens another one to go
 * on without TLS). The context must outlive the connection. */
MUST_USE enum err conn_tls_accept(struct conn *c, struct tls_context *t);
MUST_USE enum err conn_tls_connect(struct conn *c, struct tls_context *t, str server_name);
bool conn_is_tls(const struct conn *c);
/* "TLSv1.3 TLS_AES_256_GCM_SHA384", for Received and the log; empty without TLS. */
str conn_tls_text(const struct conn *c);
/* A client's: the first name in the server's certificate (printable ASCII, or empty), and whether
 * the certificate was verified for the name that was asked for (with a verifying context alone). */
str conn_tls_peer_name(const struct conn *c);
bool conn_tls_is_verified(const struct conn *c);

/* Gives up the socket (not TLS): the caller owns the descriptor; `input` gets what was read
 * already. Waits until the output is sent. The conn is freed, but on error it stays the caller's.
 */
MUST_USE enum err conn_detach(struct conn *c, int *fd, struct buf *input);
/* Relays between the connection and `fd` (our end of a socket pair) until both directions have
 * ended or one has failed, with `first` (input already read) going first. Frees the conn and
 * closes fd. Needs no fiber and, while nothing moves, no buffer; `done` is called from the loop at
 * the end, NULL: nobody asks. The connection's deadline no longer counts: whoever holds the other
 * end has one. */
void conn_relay_start(struct conn *c, int fd, str first, void (*done)(void *arg), void *arg);
/* The same, and waits for its end, in a fiber. */
void conn_relay(struct conn *c, int fd, str first);

/* The key of TLS lives in `keys`; see net/tls.h. */
#endif
