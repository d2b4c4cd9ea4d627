/* Submitting a message of our own: the same transaction as a front's (ARCHITECTURE 2), with the
 * null sender.
 *
 * auth resolves the recipient, filter judges the bytes, store commits, and the queue records in
 * `ends` end in that same commit: there is no moment at which a failed recipient has neither a
 * record nor a bounce, nor one with both.
 */
#ifndef QUEUE_SUBMIT_H
#define QUEUE_SUBMIT_H

#include "base/chan.h"

enum { SUBMIT_SECONDS = 120, SUBMIT_ENDS_MAX = 200 };

struct submit {
	struct loop *loop;
	struct chan *auth, *filter, *store;
	uint64_t txn; /* a new message id of this role */
	str hostname;
	str rcpt;
	bool smtputf8;
	uint8_t body_type;
	str message; /* CRLF lines */
	str ends;    /* RECORD queue_end, at most SUBMIT_ENDS_MAX */
};

struct submit_result {
	uint16_t code; /* 250, or who said no: 4yz, 5yz */
	str text;      /* lives in the arena */
};

/* In a fiber. ERR_OK: committed. ERR_DENIED: refused for good (5yz). ERR_TEMPORARY: everything
 * else; it may be tried again, under a new txn. When the connection to store breaks after the body
 * went out, nobody knows: the caller sees at the records whether they ended. */
MUST_USE enum err submit_message(const struct submit *s, struct arena *a,
				 struct submit_result *out);

#endif
