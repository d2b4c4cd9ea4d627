/* Decisions about recipients after an attempt.
 *
 * Back-off is Postfix's in effect: the time between attempts doubles from the least to the
 * greatest, with a tenth of jitter so that what failed together does not come again together. The
 * last attempt falls on the end of the lifetime rather than before it, so that a message is tried
 * for as long as the setting says.
 *
 * Notices follow RFC 3461 5.2: NEVER is never; without NOTIFY, failures and delays are told and
 * success is not; and there is no notice about mail with the null sender (RFC 3464 2), which is
 * what ends bounce loops.
 */
#include "queue/outcome.h"

int64_t queue_backoff(const struct queue_limits *l, uint32_t attempts, uint64_t chance)
{
	int64_t wait = l->backoff_min_us;
	int64_t tenth;

	for (uint32_t i = 1; i < attempts && wait < l->backoff_max_us; i++)
		wait = wait > l->backoff_max_us / 2 ? l->backoff_max_us : wait * 2;
	wait = MIN(wait, MAX(l->backoff_max_us, l->backoff_min_us));
	tenth = wait / 10;
	return wait - tenth + (int64_t)(chance % (uint64_t)(2 * tenth + 1));
}

bool queue_owes(const struct rec_queue_record *r, enum queue_notice what)
{
	/* RFC 3461 4.1: these are what the parameter's absence means. */
	unsigned notify = r->notify ? r->notify : NOTIFY_FAILURE | NOTIFY_DELAY;

	if (!r->sender.n || (notify & NOTIFY_NEVER))
		return false;
	switch (what) {
	case NOTICE_FAILED:
		return notify & NOTIFY_FAILURE;
	case NOTICE_DELAYED:
		return notify & NOTIFY_DELAY;
	case NOTICE_RELAYED:
	case NOTICE_DELIVERED:
	case NOTICE_EXPANDED:
		return notify & NOTIFY_SUCCESS;
	case NOTICE_NONE:
		break;
	}
	return false;
}

enum queue_notice queue_notice_of(uint8_t state, str status)
{
	switch (state) {
	case QUEUE_FAILED:
		return str_starts(status, S("2.")) ? NOTICE_RELAYED : NOTICE_FAILED;
	case QUEUE_DELIVERED:
		return NOTICE_DELIVERED;
	case QUEUE_EXPANDED:
		return NOTICE_EXPANDED;
	default:
		return NOTICE_NONE;
	}
}

static struct queue_decision final(const struct rec_queue_record *r, uint8_t state,
				   enum queue_notice what)
{
	return (struct queue_decision){ .state = state,
					.notice = queue_owes(r, what) ? what : NOTICE_NONE };
}

struct queue_decision queue_decide(const struct queue_limits *l, const struct rec_queue_record *r,
				   uint8_t answer, bool dsn_passed, int64_t now_us, uint64_t chance)
{
	int64_t end = r->created_us + (r->sender.n ? l->lifetime_us : l->bounce_lifetime_us);
	struct queue_decision d;

	if (answer == QUEUE_SENT)
		return final(r, QUEUE_SENT, dsn_passed ? NOTICE_NONE : NOTICE_RELAYED);
	if (answer == QUEUE_FAILED || now_us >= end) {
		d = final(r, QUEUE_FAILED, NOTICE_FAILED);
		d.is_expired = answer != QUEUE_FAILED;
		return d;
	}
	d = (struct queue_decision){ .state = QUEUE_DEFERRED };
	d.due_us = MIN(now_us + queue_backoff(l, r->attempts + 1, chance), end);
	if (l->warning_us && !r->warned_us && now_us >= r->created_us + l->warning_us &&
	    queue_owes(r, NOTICE_DELAYED))
		d.notice = NOTICE_DELAYED;
	return d;
}
