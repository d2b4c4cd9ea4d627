/* What the store and those who ask it have in common: flags, kinds of mailboxes, operations,
 * states. The values are part of the storage format (docs/STORAGE.md) and never change. */
#ifndef STORE_TYPES_H
#define STORE_TYPES_H

#include "base/str.h"

/* Flags of a message: 128 bits. The low 8 of w[0] are the system flags, the next 8 are reserved;
 * bits 16..127 are keywords, numbered from 16 in the account's keyword table. */
struct msg_flags {
	uint64_t w[2];
};

enum msg_flag {
	MSG_FLAG_SEEN = 1,
	MSG_FLAG_ANSWERED = 2,
	MSG_FLAG_FLAGGED = 4,
	MSG_FLAG_DELETED = 8,
	MSG_FLAG_DRAFT = 16,
	MSG_FLAG_SYSTEM = 31,
};
enum { KEYWORD_FIRST = 16, KEYWORD_LIMIT = 128, KEYWORD_NAME_MAX = 100 };

/* RFC 6154. */
enum mailbox_special {
	MAILBOX_PLAIN = 0,
	MAILBOX_INBOX = 1,
	MAILBOX_DRAFTS = 2,
	MAILBOX_SENT = 3,
	MAILBOX_JUNK = 4,
	MAILBOX_TRASH = 5,
	MAILBOX_ARCHIVE = 6,
};

enum { MAILBOX_NAME_MAX = 1000, MAILBOX_DEPTH_MAX = 40, MAILBOX_COUNT_MAX = 20000 };

enum row_columns {
	ROW_HOT = 0, /* always */
	ROW_COLD = 1,
	ROW_LOCATION = 2,
};

/* st_commit: what to do. */
enum store_op {
	STORE_OP_FLAGS = 1,   /* mode, flags0/1, unchanged_since on `uids`; reply.from: those that
				 failed the condition */
	STORE_OP_EXPUNGE = 2, /* `uids` that exist; reply.from: those expunged */
	STORE_OP_COPY = 3,    /* `uids` to `target`; reply.from, to */
	STORE_OP_MOVE = 4,    /* the same, and expunges them here, in one commit */
	STORE_OP_CREATE = 5,  /* `name`; missing parents too; ERR_EXISTS */
	STORE_OP_DELETE = 6,  /* mailbox with all messages; kept as is_gone while it has children.
				 ERR_DENIED for INBOX */
	STORE_OP_RENAME =
		7, /* to `name`, children with it; RFC 3501 6.3.5: INBOX moves its messages only */
	STORE_OP_SUBSCRIBE =
		8, /* `name`, `subscribed`; a name that does not exist may be subscribed */
	STORE_OP_KEYWORD = 9, /* `name`: gives it a number in the account's table (reply.mailbox);
				 ERR_TOO_MANY */
	STORE_OP_RECENT = 10, /* messages are no longer recent; answered before it is durable */
};

/* A queue record's state. */
enum queue_state {
	QUEUE_DUE = 0,	    /* to be tried at due_us */
	QUEUE_SENT = 1,	    /* outcome: the remote has it; the record is gone */
	QUEUE_DEFERRED = 2, /* outcome: again at due_us */
	QUEUE_FAILED =
		3, /* for good; stays until its bounce is committed (queue_end) or none is owed */
	QUEUE_DELETED = 4, /* outcome: by the administrator */
	QUEUE_HELD = 5,	   /* stays until released */
	QUEUE_DELIVERED =
		6, /* to a mailbox here; stays until the notice of it is committed (queue_end) */
	QUEUE_EXPANDED = 7, /* an alias, to those behind it; the same */
};

/* RFC 3461 4.1: what NOTIFY asks for, in auth_rcpt, txn_rcpt and a queue record; 0: not said. */
enum { NOTIFY_NEVER = 1, NOTIFY_SUCCESS = 2, NOTIFY_FAILURE = 4, NOTIFY_DELAY = 8 };

/* SASL exchanges between front and auth (auth_sasl_reply). */
enum auth_sasl_state {
	AUTH_SASL_CONTINUE = 0,
	AUTH_SASL_OK = 1,
	AUTH_SASL_FAILED = 2,
	AUTH_SASL_TEMPORARY = 3
};

#endif
