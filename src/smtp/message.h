/* A message on its way in: gathered in memory, then in a memfd when it is large, with what its
 * header needs.
 *
 *	smtp_message_init(&m, &budget);
 *	smtp_received_write(..., &m.memory);
 *	smtp_message_begin(&m, fix);		// what stands there now is ours
 *	loop: decode into &m.memory; err = smtp_message_settle(&m);
 *	err = smtp_message_finish(&m);		// m.fd, or smtp_message_inline(&m)
 *	smtp_message_free(&m);			// any time
 *
 * The result of finish is what `txn_body` takes: up to MSG_INLINE_MAX bytes in memory, or a sealed
 * memfd.
 */
#ifndef SMTP_MESSAGE_H
#define SMTP_MESSAGE_H

#include "base/msg.h"
#include "base/os.h"

#include "text/date.h"

enum {
	/* Longer headers are refused. Postfix cuts at 100 KB; mailing lists that carry chains of
	   ARC sets reach 60. */
	SMTP_HEADER_MAX = 256 * 1024,
	/* What one decoding step may add: a connection hands out at most so much. */
	SMTP_PIECE_MAX = 128 * 1024,
	SMTP_MEMORY_MAX = SMTP_HEADER_MAX + SMTP_PIECE_MAX + 64 * 1024,
	/* RFC 5321 6.3: at least 100 is suggested; Postfix's hopcount_limit is 50, and real paths
	   stay below 20. */
	SMTP_HOPS_MAX = 50,
};

/* Bytes in memfds of all messages of a process. */
struct smtp_budget {
	uint64_t used, max;
};

/* What is put in when the header lacks it (RFC 6409 8). NULL in smtp_message.fix: nothing. */
struct smtp_fix {
	struct date date;
	str message_id; /* without brackets */
	str from;	/* the envelope's sender, for a missing From */
};

struct smtp_message {
	struct buf memory;
	int fd;	       /* -1: all is in memory */
	uint64_t size; /* bytes in all */
	struct smtp_budget *budget;
	uint64_t charged;
	const struct smtp_fix *fix;
	size_t ours;	/* our own fields at the front */
	size_t scanned; /* of memory: known to hold no end of the header */
	bool is_header_done;
	unsigned hops; /* Received fields that it came with */
};

void smtp_message_init(struct smtp_message *m, struct smtp_budget *budget);
void smtp_message_free(struct smtp_message *m);
/* `fix` must live as long as the message. */
void smtp_message_begin(struct smtp_message *m, const struct smtp_fix *fix);

/* After something was added to `memory`. ERR_TOO_LONG: the header; ERR_FULL: the budget;
 * ERR_NO_MEMORY, ERR_IO. */
MUST_USE enum err smtp_message_settle(struct smtp_message *m);
MUST_USE enum err smtp_message_finish(struct smtp_message *m);

/* Bytes so far. */
uint64_t smtp_message_size(const struct smtp_message *m);
/* After finish: the bytes, empty when they are in `fd`. */
str smtp_message_inline(const struct smtp_message *m);

#endif
