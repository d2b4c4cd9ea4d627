/* The SMTP and LMTP client: one connection, from its greeting to QUIT (RFC 5321, 2033, 2920, 3207,
 * 1870, 6152, 6531, 3461, 4954).
 *
 *	open = smtp_client_open(conn, &config, &client, &why);
 *	if (open == SMTP_OPEN_OK) {
 *		smtp_client_send(client, &message, rcpts, count);    // each recipient has its
 * result if (smtp_client_is_good(client)) ... keep it for another message
 * smtp_client_close(client);
 *	}
 *
 * In fibers alone. It chooses no hosts and knows no queue: what it says of a recipient is what this
 * one server made of it. The connection is the client's once it is open; when opening fails it is
 * freed as well.
 *
 * Limits: recipients of a transaction SMTP_CLIENT_RCPTS_MAX; replies as in client_answer.h.
 */
#ifndef SMTP_CLIENT_H
#define SMTP_CLIENT_H

#include "net/conn.h"
#include "smtp/client_answer.h"

enum { SMTP_CLIENT_RCPTS_MAX = 100, SMTP_CLIENT_CHUNK = 64 * 1024 };

/* How long to wait, nanoseconds. */
struct smtp_client_times {
	int64_t greeting, helo, mail, rcpt, data, block, end, quit;
};
/* RFC 5321 4.5.3.2 and Postfix: 300 s for commands, 120 s for DATA, 180 s for each block, 600 s for
 * the end. */
struct smtp_client_times smtp_client_times(int64_t helo);

enum smtp_client_tls { SMTP_TLS_NONE, SMTP_TLS_MAY, SMTP_TLS_ENCRYPT };

/* Everything that it points to outlives the client. */
struct smtp_client_config {
	str hostname;	    /* how we say hello */
	str server;	    /* "host[address]:port", for words */
	str tls_name;	    /* the host that its certificate is for */
	str user, password; /* to log in with, under TLS alone; empty: nobody */
	bool is_lmtp;
	bool finds_loops; /* a server that says our name is ourselves */
	enum smtp_client_tls tls;
	struct tls_context *tls_context; /* NULL: as SMTP_TLS_NONE */
	struct smtp_client_times times;
};

/* What became of one thing: a recipient, or the opening. */
struct smtp_result {
	uint8_t state; /* enum queue_state: SENT, DEFERRED, FAILED; 0: nothing was said of it */
	uint16_t code; /* the server's, 0: our own words */
	uint8_t status_n;
	uint16_t text_n;
	bool dsn_passed;       /* RFC 3461: the server took over the duty to notify */
	bool may_have_arrived; /* RFC 1047: it broke between our dot and its answer */
	bool is_rcpt;	       /* the answer to RCPT: it is about this recipient */
	char status[SMTP_ANSWER_STATUS_MAX];
	char text[SMTP_ANSWER_TEXT_MAX];
};
str smtp_result_status(const struct smtp_result *r);
str smtp_result_text(const struct smtp_result *r);
/* Our own words. */
void smtp_result_set(struct smtp_result *r, uint8_t state, const char *status, const char *fmt, ...)
	PRINTF_LIKE(4, 5);

enum smtp_open {
	SMTP_OPEN_OK,
	SMTP_OPEN_NEXT,	  /* not this host, now; *why is a deferral */
	SMTP_OPEN_FAILED, /* RFC 7504, loops: no other host would do better; *why is a failure */
	SMTP_OPEN_NO_TLS, /* the handshake failed: another connection without TLS may work */
};

struct smtp_client;

MUST_USE enum smtp_open smtp_client_open(struct conn *conn, const struct smtp_client_config *config,
					 struct smtp_client **out, struct smtp_result *why);

struct smtp_client_message {
	str sender; /* empty: null */
	str envid;  /* xtext */
	uint8_t ret, body_type;
	bool needs_utf8; /* an address or the header is not ASCII (RFC 6531 3.1) */
	uint64_t size;
	/* The next bytes of the message, at most max; *n == 0 at its end. */
	enum err (*read)(void *arg, char *to, size_t max, size_t *n);
	void *arg;
};

struct smtp_client_rcpt {
	str address, orcpt;
	uint8_t notify;
	struct smtp_result result;
};

/* One transaction. Sets every recipient's result. */
void smtp_client_send(struct smtp_client *c, const struct smtp_client_message *m,
		      struct smtp_client_rcpt *rcpts, size_t count);

/* Can it take another transaction? */
bool smtp_client_is_good(const struct smtp_client *c);
/* It broke, or was closed with 421, before the server answered anything of the last transaction:
 * nothing was said of the message, and another connection may take it. */
bool smtp_client_broke_early(const struct smtp_client *c);
/* Idle: nothing is expected; on input or the end, or when `until` passes, fn is called and the
 * client must be freed. */
void smtp_client_park(struct smtp_client *c, int64_t until, void (*fn)(void *arg, enum err why),
		      void *arg);
void smtp_client_unpark(struct smtp_client *c);
/* What waits in it now, and later, ends as if the connection broke. */
void smtp_client_cancel(struct smtp_client *c);
unsigned smtp_client_transactions(const struct smtp_client *c);
bool smtp_client_has_tls(const struct smtp_client *c);
str smtp_client_tls_text(const struct smtp_client *c);
const struct addr *smtp_client_peer(const struct smtp_client *c);

/* QUIT, and waits a moment for the answer, so that the server does not see a broken connection. */
void smtp_client_close(struct smtp_client *c);
/* At once; needs no fiber. QUIT is sent if it goes without waiting. */
void smtp_client_drop(struct smtp_client *c);

#endif
