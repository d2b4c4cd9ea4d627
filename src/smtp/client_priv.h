/* What client.c, client_login.c and client_send.c share. */
#ifndef SMTP_CLIENT_PRIV_H
#define SMTP_CLIENT_PRIV_H

#include "smtp/client.h"

/* RFC 5321 4.1.1.1: what the server says it can do. */
enum capability {
	CAN_PIPELINING = 1,
	CAN_SIZE = 2,
	CAN_8BITMIME = 4,
	CAN_SMTPUTF8 = 8,
	CAN_DSN = 16,
	CAN_STARTTLS = 32,
	CAN_AUTH_PLAIN = 64, /* RFC 4954 */
	CAN_AUTH_LOGIN = 128,
};

enum phase {
	PHASE_GREETING,
	PHASE_HELO,
	PHASE_STARTTLS,
	PHASE_AUTH,
	PHASE_MAIL,
	PHASE_RCPT,
	PHASE_DATA,
	PHASE_BODY,
	PHASE_END,
	PHASE_RSET,
	PHASE_QUIT
};

struct smtp_client {
	struct conn *conn;
	struct smtp_client_config config;
	unsigned can;	     /* set of enum capability */
	uint64_t size_limit; /* 0: none said */
	unsigned transactions;
	bool is_broken;	  /* out of step, or gone */
	bool needs_reset; /* a transaction is open at the server */
	bool heard;	  /* an answer since the transaction began, other than 421 */
};

/* Reads one reply. ERR_PROTOCOL and every other error leave the connection broken. `line`, when
 * given, gets the text of each line with its number. */
MUST_USE enum err client_answer(struct smtp_client *c, enum phase phase, struct smtp_answer *a,
				void (*line)(struct smtp_client *c, unsigned number, str text));
/* Logs in, where the config says so. */
enum smtp_open client_login(struct smtp_client *c, struct smtp_result *why);
/* A reply as a result: its class decides. Not for success. */
void client_result(const struct smtp_answer *a, struct smtp_result *r);
/* A refusal that is not to be taken for the last word. */
void client_defer(struct smtp_result *r);
/* The words for an error of client_answer or of writing. */
void client_lost(const struct smtp_client *c, enum phase phase, enum err err,
		 struct smtp_result *r);
/* The deadline of what is done next. */
void client_deadline(struct smtp_client *c, enum phase phase);

#endif
