/* Back-off, lifetime at -1, 0 and +1, and who is told of what. */
#include "base/tap.h"
#include "queue/outcome.h"

#define SEC ((int64_t)1000000)

static const struct queue_limits limits = {
	.backoff_min_us = 300 * SEC,
	.backoff_max_us = 4000 * SEC,
	.lifetime_us = 432000 * SEC,
	.bounce_lifetime_us = 1000 * SEC,
	.warning_us = 14400 * SEC,
};

static void test_backoff(void)
{
	static const int64_t want[] = { 300, 600, 1200, 2400, 4000, 4000, 4000 };
	struct queue_limits odd = limits;

	tap_group("back-off");
	for (uint32_t i = 0; i < ARRAY_LEN(want); i++) {
		int64_t lowest = queue_backoff(&limits, i + 1, 0);
		int64_t highest = queue_backoff(&limits, i + 1, (uint64_t)(want[i] * SEC / 5));

		EQ(lowest, want[i] * SEC * 9 / 10);
		EQ(highest, want[i] * SEC * 11 / 10);
	}
	EQ(queue_backoff(&limits, UINT32_MAX, 0), 3600 * SEC);
	/* A greatest below the least: the least. */
	odd.backoff_max_us = SEC;
	EQ(queue_backoff(&odd, 3, 0), 270 * SEC);
	odd.backoff_min_us = odd.backoff_max_us = 1;
	EQ(queue_backoff(&odd, 3, 12345), 1);
}

static void test_lifetime(void)
{
	struct rec_queue_record r = { .sender = S("a@example.org"), .created_us = 1000 * SEC };
	int64_t end = r.created_us + limits.lifetime_us;
	struct queue_decision d;

	tap_group("lifetime");
	d = queue_decide(&limits, &r, QUEUE_DEFERRED, false, end - 1, 0);
	EQ(d.state, QUEUE_DEFERRED);
	EQ(d.due_us, end);
	for (int64_t at = end; at <= end + 1; at++) {
		d = queue_decide(&limits, &r, QUEUE_DEFERRED, false, at, 0);
		EQ(d.state, QUEUE_FAILED);
		OK(d.is_expired);
		EQ(d.notice, NOTICE_FAILED);
	}
	d = queue_decide(&limits, &r, QUEUE_SENT, false, end + 1, 0);
	EQ(d.state, QUEUE_SENT);
	/* Bounces have a lifetime of their own, and nobody is told. */
	r.sender = STR_EMPTY;
	EQ(queue_decide(&limits, &r, QUEUE_DEFERRED, false, 1999 * SEC, 0).state, QUEUE_DEFERRED);
	d = queue_decide(&limits, &r, QUEUE_DEFERRED, false, 2000 * SEC, 0);
	EQ(d.state, QUEUE_FAILED);
	EQ(d.notice, NOTICE_NONE);
}

static void test_notify(void)
{
	static const struct {
		uint8_t notify, answer;
		enum queue_notice notice;
	} cases[] = {
		{ 0, QUEUE_FAILED, NOTICE_FAILED },
		{ 0, QUEUE_SENT, NOTICE_NONE },
		{ 0, QUEUE_DEFERRED, NOTICE_DELAYED },
		{ NOTIFY_NEVER, QUEUE_FAILED, NOTICE_NONE },
		{ NOTIFY_NEVER, QUEUE_DEFERRED, NOTICE_NONE },
		{ NOTIFY_NEVER | NOTIFY_FAILURE, QUEUE_FAILED, NOTICE_NONE },
		{ NOTIFY_SUCCESS, QUEUE_FAILED, NOTICE_NONE },
		{ NOTIFY_SUCCESS, QUEUE_DEFERRED, NOTICE_NONE },
		{ NOTIFY_SUCCESS, QUEUE_SENT, NOTICE_RELAYED },
		{ NOTIFY_FAILURE, QUEUE_FAILED, NOTICE_FAILED },
		{ NOTIFY_FAILURE, QUEUE_DEFERRED, NOTICE_NONE },
		{ NOTIFY_DELAY, QUEUE_DEFERRED, NOTICE_DELAYED },
	};
	struct rec_queue_record r = { .sender = S("a@example.org"), .created_us = SEC };
	int64_t late = r.created_us + limits.warning_us;

	tap_group("notices");
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		r.notify = cases[i].notify;
		EQ(queue_decide(&limits, &r, cases[i].answer, false, late, 7).notice,
		   cases[i].notice);
	}
	r.notify = NOTIFY_SUCCESS;
	EQ(queue_decide(&limits, &r, QUEUE_SENT, true, late, 7).notice, NOTICE_NONE);
	r.notify = 0;
	EQ(queue_decide(&limits, &r, QUEUE_DEFERRED, false, late - 1, 7).notice, NOTICE_NONE);
	r.warned_us = late;
	EQ(queue_decide(&limits, &r, QUEUE_DEFERRED, false, late + 1, 7).notice, NOTICE_NONE);
}

static void test_waiting(void)
{
	tap_group("what a record waits for");
	EQ(queue_notice_of(QUEUE_DUE, STR_EMPTY), NOTICE_NONE);
	EQ(queue_notice_of(QUEUE_DEFERRED, S("4.0.0")), NOTICE_NONE);
	EQ(queue_notice_of(QUEUE_HELD, S("2.0.0")), NOTICE_NONE);
	EQ(queue_notice_of(QUEUE_FAILED, STR_EMPTY), NOTICE_FAILED);
	EQ(queue_notice_of(QUEUE_FAILED, S("4.4.1")), NOTICE_FAILED);
	EQ(queue_notice_of(QUEUE_FAILED, S("2.0.0")), NOTICE_RELAYED);
	EQ(queue_notice_of(QUEUE_DELIVERED, STR_EMPTY), NOTICE_DELIVERED);
	EQ(queue_notice_of(QUEUE_EXPANDED, S("2.0.0")), NOTICE_EXPANDED);
}

int main(void)
{
	test_waiting();
	test_backoff();
	test_lifetime();
	test_notify();
	return tap_done();
}
