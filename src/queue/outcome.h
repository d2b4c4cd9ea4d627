/* What follows from an attempt at a recipient: done, again later, or given up, and who must be
 * told.
 *
 * Pure: the clock and the chance are parameters. Times are microseconds of the wall clock.
 */
#ifndef QUEUE_OUTCOME_H
#define QUEUE_OUTCOME_H

#include "base/msg.h"
#include "store/types.h"

struct queue_limits {
	int64_t backoff_min_us, backoff_max_us; /* between two attempts */
	int64_t lifetime_us;			/* of mail; 0: one attempt */
	int64_t bounce_lifetime_us;		/* of mail with the null sender */
	int64_t warning_us;			/* when the sender hears of a delay; 0: never */
};

enum queue_notice {
	NOTICE_NONE,
	NOTICE_FAILED,	  /* RFC 3464 2.3.3: action "failed" */
	NOTICE_DELAYED,	  /* "delayed" */
	NOTICE_RELAYED,	  /* "relayed": to a server that cannot tell of success itself */
	NOTICE_DELIVERED, /* "delivered": to a mailbox here */
	NOTICE_EXPANDED,  /* "expanded": an alias, to those behind it */
};

struct queue_decision {
	uint8_t state;	/* enum queue_state: SENT, DEFERRED, FAILED */
	int64_t due_us; /* DEFERRED: the next attempt */
	enum queue_notice notice;
	bool is_expired; /* given up because of its age */
};

/* `answer`: enum queue_state as `out` saw it. `dsn_passed`: the remote server took over the duty to
 * notify. */
struct queue_decision queue_decide(const struct queue_limits *l, const struct rec_queue_record *r,
				   uint8_t answer, bool dsn_passed, int64_t now_us,
				   uint64_t chance);

/* The time between attempt number `attempts` (from 1) and the next: doubling, give or take a tenth.
 */
int64_t queue_backoff(const struct queue_limits *l, uint32_t attempts, uint64_t chance);

/* The notice that a record of this state waits for, NOTICE_NONE: it waits for something else.
 * `status` tells a failure from what was handed on and recorded before it was told. */
enum queue_notice queue_notice_of(uint8_t state, str status);

/* Is the sender to be told, and of this? */
bool queue_owes(const struct rec_queue_record *r, enum queue_notice what);

#endif
