/* A session from inside: session.c (life and dispatch), session_commands.c (the commands),
 * session_auth.c (AUTH), session_data.c (DATA and BDAT), session_commit.c (handing over and the
 * answer). */
#ifndef SMTP_SESSION_PRIV_H
#define SMTP_SESSION_PRIV_H

#include "smtp/command.h"
#include "smtp/data.h"
#include "smtp/session.h"

/* A reply, decided in one place and written in another. */
struct smtp_answer {
	uint16_t code;
	str status, text;
};

struct smtp_accepted {
	str address;
	struct smtp_accepted *next;
};

/* From MAIL to its end; everything lives in its arena. */
struct smtp_transaction {
	struct arena *arena;
	uint64_t id;	    /* the message id */
	uint32_t auth_life; /* server->auth_lives when auth was asked: it knows it only in that life
			     */
	str sender;
	bool is_utf8;
	bool is_begun;		   /* auth was asked about it, and may have it */
	struct msg_auth_mail mail; /* the question; its slices are the transaction's */
	bool is_postponed; /* with its recipient, which was granted; asked with the end of data */
	unsigned refused;  /* RCPTs that were */
	unsigned count;	   /* RCPTs that were accepted */
	struct smtp_accepted *first, *last;
	/* DATA or BDAT has begun. */
	bool has_message;
	struct smtp_data data;
	struct smtp_message message;
	struct smtp_fix fix;
	struct smtp_answer refusal; /* code 0: none so far */
	uint64_t discarded;	    /* bytes read after it */
};

struct smtp_session {
	struct smtp_server *server;
	struct smtp_session *prev, *next;
	struct conn *conn;
	uint64_t id; /* auth knows the connection by it */
	enum smtp_service service;
	enum smtp_state state;
	bool is_extended; /* EHLO or LHLO */
	bool is_closing;  /* after what is written */
	bool is_running;  /* has a fiber */
	bool is_authenticated;
	bool is_at_auth;    /* an exchange was begun there: it is to be forgotten some time */
	uint32_t auth_life; /* server->auth_lives at login */
	uint32_t errors, junk;
	struct buf helo, login;
	struct arena *work;	      /* of the command; while running */
	struct smtp_transaction *txn; /* from an accepted MAIL on */
	str line;		      /* read by the loop, for the fiber to begin with */
	enum err line_err;
};

static inline bool smtp_is_lmtp(const struct smtp_session *s)
{
	return s->service == SMTP_SERVICE_LMTP;
}

static inline bool smtp_is_submission(const struct smtp_session *s)
{
	return s->service == SMTP_SERVICE_SUBMISSION || s->service == SMTP_SERVICE_SUBMISSIONS;
}

/* ---- session.c ---- */

void smtp_reply(struct smtp_session *s, unsigned code, const char *status, const char *fmt, ...)
	PRINTF_LIKE(4, 5);
/* A reply whose words come from another role. */
void smtp_answer(struct smtp_session *s, struct smtp_answer a);
/* A reply that counts as an error: beyond the soft limit it is late. */
void smtp_refuse(struct smtp_session *s, unsigned code, const char *status, const char *fmt, ...)
	PRINTF_LIKE(4, 5);
void smtp_count_error(struct smtp_session *s);
void smtp_trace(struct smtp_session *s, uint64_t message, enum trace_event event, str sender,
		str recipient, const char *fmt, ...) PRINTF_LIKE(6, 7);
/* The time when the client has been silent for too long. */
void smtp_await_client(struct smtp_session *s);
int64_t smtp_deadline(const struct smtp_session *s, int seconds);
str smtp_client(const struct smtp_session *s, char text[ADDR_TEXT_MAX]);
str smtp_session_service(const struct smtp_session *s);

/* Does auth still know this transaction (and this login)? */
static inline bool smtp_is_known_to_auth(const struct smtp_session *s)
{
	return s->txn->auth_life == s->server->auth_lives;
}

/* The one end of a transaction: every way out of it, good or bad, comes here. `tell_auth`: it has
 * not been told by auth_commit. No transaction: nothing happens. The state becomes IDLE (or stays
 * NEW). */
void smtp_transaction_end(struct smtp_session *s, bool tell_auth);

/* ---- session_commands.c, session_auth.c, session_data.c ---- */

typedef void smtp_handler(struct smtp_session *s, const struct smtp_command *c);
smtp_handler smtp_do_hello, smtp_do_mail, smtp_do_rcpt, smtp_do_rset, smtp_do_noop, smtp_do_vrfy,
	smtp_do_expn, smtp_do_help, smtp_do_quit, smtp_do_starttls, smtp_do_auth, smtp_do_data,
	smtp_do_bdat;

/* May AUTH be used on this connection now? */
bool smtp_auth_is_offered(const struct smtp_session *s);
bool smtp_auth_is_possible(const struct smtp_session *s); /* now, or after STARTTLS */
bool smtp_starttls_is_offered(const struct smtp_session *s);

/* Nobody is logged in, and auth forgets whatever it knew of this connection. */
void smtp_logout(struct smtp_session *s);

/* Reads the bytes of a chunk that nobody wants, so that the next command is found; closes when they
 * are too many. */
void smtp_discard_chunk(struct smtp_session *s, uint64_t n);

/* ---- session_commit.c ---- */

/* The message is whole and good: hand it over, wait, answer, end the transaction. */
void smtp_commit(struct smtp_session *s);
/* The message was read to its end and is refused: answer, end the transaction. */
void smtp_refuse_message(struct smtp_session *s, struct smtp_answer a);

#endif
