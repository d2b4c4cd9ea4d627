/* Delivery status notifications (RFC 3464, RFC 3461 6, RFC 6533): what the sender gets to read when
 * mail failed, is late, or arrived, or went to where nobody tells of success.
 *
 * `bounce_compose` makes the whole message, of CRLF lines, from facts that the caller gathered. It
 * reads no clock and makes no random numbers. The envelope is the caller's: from the null sender to
 * `sender`.
 */
#ifndef QUEUE_BOUNCE_H
#define QUEUE_BOUNCE_H

#include "queue/outcome.h"

enum {
	BOUNCE_RANDOM = 16,
	BOUNCE_RCPTS_MAX = 100,		 /* in one notice */
	BOUNCE_ORIGINAL_MAX = 50 * 1024, /* a larger message is returned as its header, as Postfix's
					    bounce_size_limit */
	BOUNCE_SIZE_MAX = 1024 * 1024,	 /* a good maximum for the buffer */
};

struct bounce_rcpt {
	const struct rec_queue_record *record;
	str remote; /* "host[address]:port" of the server that answered or could not be reached; may
		       be empty */
	str reply;  /* "550 5.1.1 No such user", or our own words where no server said anything */
	str status; /* RFC 3463; may be empty */
	bool is_expired; /* given up after maximal_queue_lifetime */
};

struct bounce {
	enum queue_notice notice; /* one kind for all recipients */
	str hostname;		  /* myhostname */
	str origin;		  /* myorigin */
	int64_t now_us;
	int16_t zone; /* minutes east */
	unsigned char random[2][BOUNCE_RANDOM];
	str message; /* our id of it, as text */
	str sender;
	str envid; /* xtext, may be empty */
	int64_t arrived_us;
	int64_t gives_up_us; /* NOTICE_DELAYED: when we do */
	const struct bounce_rcpt *rcpts;
	size_t count;
	str original;  /* the message or its header; p NULL when it could not be read */
	bool is_whole; /* it is the message */
};

/* Fails as buf does, with buf_failed. */
void bounce_compose(const struct bounce *b, struct buf *out);

/* Does any byte need 8BITMIME? Any address SMTPUTF8? */
bool bounce_is_8bit(str s);

/* RFC 3461 4: xtext decoded; what is not xtext stays as it is. */
void bounce_xtext_decode(str s, struct buf *out);

#endif
