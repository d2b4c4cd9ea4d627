/* The scheduler over a simulated clock: turns, windows, dead destinations, leases, limits. */
#include "base/tap.h"
#include "queue/scheduler.h"
#include "store/types.h"

#include <stdlib.h>

#define SEC ((int64_t)1000000)

static const struct sched_limits usual = {
	.records_max = 1000,
	.share_max = 500,
	.rcpts_per_job = 50,
	.jobs_max = 100,
	.concurrency_start = 5,
	.concurrency_max = 20,
	.dead_min_us = 300 * SEC,
	.dead_max_us = 4000 * SEC,
	.lease_margin_us = 3600 * SEC,
};

static struct sched *sched_with(struct sched_limits l)
{
	struct sched *s = NULL;

	if (sched_new(&l, 42, &s))
		OK(!"no memory");
	return s;
}

static enum err add(struct sched *s, uint64_t id, uint64_t message, const char *where, int64_t now)
{
	struct rec_queue_record r = { .id = id,
				      .token = id + 1000,
				      .message = message,
				      .sender = S("a@example.org"),
				      .address = S("b@example.net") };

	return sched_add(s, &r, str_from_c(where), now + 4 * 3600 * SEC, now);
}

static void add_many(struct sched *s, uint64_t first, unsigned n, uint64_t message,
		     const char *where, int64_t now)
{
	for (unsigned i = 0; i < n; i++)
		if (add(s, first + i, message, where, now))
			OK(!"a record was not taken");
}

static unsigned drain_refused(struct sched *s)
{
	struct sched_refusal why;
	struct sched_rcpt *r;
	unsigned n = 0;

	for (; (r = sched_refused(s, &why)); n++)
		sched_free(s, r);
	return n;
}

static void test_groups(void)
{
	struct sched *s = sched_with(usual);
	struct sched_job *jobs[4];

	tap_group("groups");
	add_many(s, 1, 120, 7, "example.org", 0);
	add_many(s, 501, 1, 8, "example.org", 0);
	EQ(sched_counts(s, 0).waiting, 121);
	for (unsigned i = 0; i < 4; i++)
		jobs[i] = sched_next(s, 0);
	OK(!sched_next(s, 0));
	/* The small message does not wait for the large one. */
	EQ(jobs[0]->count, 50);
	EQ(jobs[1]->count, 1);
	EQ(jobs[1]->rcpts[0]->r.message, 8);
	EQ(jobs[2]->count, 50);
	EQ(jobs[3]->count, 20);
	STR_EQ(jobs[3]->where, S("example.org"));
	STR_EQ(jobs[3]->rcpts[19]->r.address, S("b@example.net"));
	OK(sched_find(s, 120)->job == jobs[3]);
	OK(!sched_forget(s, 120));
	for (unsigned i = 0; i < 4; i++)
		sched_done(s, jobs[i], SCHED_DELIVERED, NULL, 0);
	EQ(sched_counts(s, 0).records, 0);
	EQ(sched_counts(s, 0).destinations, 0);
	sched_free_all(s);
}

static void test_fair(void)
{
	struct sched *s = sched_with(usual);
	unsigned big = 0, small = 0;

	tap_group("fairness");
	for (unsigned i = 0; i < 400; i++)
		if (add(s, 1 + i, 1000 + i, "big.example", 0))
			OK(!"not taken");
	add_many(s, 901, 1, 1, "small1.example", 0);
	add_many(s, 902, 1, 1, "small2.example", 0);
	for (unsigned i = 0; i < 3; i++) {
		struct sched_job *job = sched_next(s, 0);

		if (str_eq(job->where, S("big.example")))
			big++;
		else
			small++;
		sched_done(s, job, SCHED_DELIVERED, NULL, 0);
	}
	EQ(big, 1);
	EQ(small, 2);
	sched_free_all(s);
}

/* How many jobs can begin now; they go into `jobs`. */
static unsigned begin(struct sched *s, struct sched_job **jobs, unsigned max, int64_t now)
{
	unsigned n = 0;

	while (n < max && (jobs[n] = sched_next(s, now)))
		n++;
	return n;
}

static void test_window(void)
{
	struct sched *s = sched_with(usual);
	struct sched_job *jobs[32];
	unsigned n;

	tap_group("window");
	for (unsigned i = 0; i < 400; i++)
		if (add(s, 1 + i, 1 + i, "a.example", 0))
			OK(!"not taken");
	n = begin(s, jobs, 32, 0);
	EQ(n, 5);
	/* Each success while the window is full opens it by one, to its limit. */
	for (unsigned window = 6; window <= 22; window++) {
		sched_done(s, jobs[--n], SCHED_DELIVERED, NULL, 0);
		n += begin(s, jobs + n, 32 - n, 0);
		EQ(n, MIN(window, 20));
	}
	/* A failed connection closes it by one. */
	sched_done(s, jobs[--n], SCHED_NO_CONNECTION, NULL, 0);
	OK(!sched_next(s, 0));
	sched_done(s, jobs[--n], SCHED_NOTHING, NULL, 0);
	n += begin(s, jobs + n, 32 - n, 0);
	EQ(n, 19);
	while (n)
		sched_done(s, jobs[--n], SCHED_NOTHING, NULL, 0);
	sched_free_all(s);
}

static void test_jobs_max(void)
{
	struct sched_limits l = usual;
	struct sched_job *jobs[10];
	struct sched *s;

	tap_group("all jobs");
	for (uint32_t max = 2; max <= 4; max++) {
		unsigned n;

		l.jobs_max = max;
		s = sched_with(l);
		add_many(s, 1, 1, 1, "a", 0);
		add_many(s, 2, 1, 1, "b", 0);
		add_many(s, 3, 1, 1, "c", 0);
		n = begin(s, jobs, 10, 0);
		EQ(n, MIN(max, 3));
		while (n)
			sched_done(s, jobs[--n], SCHED_NOTHING, NULL, 0);
		sched_free_all(s);
	}
}

static void test_dead(void)
{
	const struct rec_out_answer last = { .reply = S("connection refused"),
					     .remote = S("mx[192.0.2.1]:25"),
					     .status = S("4.4.1") };
	struct sched *s = sched_with(usual);
	struct sched_refusal why;
	struct sched_job *jobs[8];
	int64_t now = 0, rest = 300 * SEC;

	tap_group("dead");
	for (unsigned i = 0; i < 30; i++)
		if (add(s, 1 + i, 1 + i, "dead.example", now))
			OK(!"not taken");
	EQ(begin(s, jobs, 8, now), 5);
	for (unsigned i = 0; i < 3; i++)
		sched_done(s, jobs[i], SCHED_NO_CONNECTION, &last, now);
	EQ(sched_counts(s, now).dead, 0);
	sched_done(s, jobs[3], SCHED_NO_CONNECTION, &last, now);
	EQ(sched_counts(s, now).dead, 1);
	OK(!sched_next(s, now));
	sched_free(s, sched_refused(s, &why));
	OK(why.is_dead);
	EQ(why.due_us, 300 * SEC);
	STR_EQ(why.reason, S("connection refused"));
	STR_EQ(why.remote, S("mx[192.0.2.1]:25"));
	STR_EQ(why.status, S("4.4.1"));
	EQ(drain_refused(s), 24);
	/* One that was under way when it died changes nothing. */
	sched_done(s, jobs[4], SCHED_NO_CONNECTION, &last, now);
	/* While dead, what comes is refused; after that one probe at a time, and the rest doubles
	 * to its limit. */
	for (unsigned i = 0; i < 6; i++) {
		EQ(add(s, 100, 100, "dead.example", now + rest - 1), ERR_OK);
		EQ(drain_refused(s), 1);
		now += rest;
		EQ(add(s, 100, 100, "dead.example", now), ERR_OK);
		EQ(add(s, 101, 101, "dead.example", now), ERR_OK);
		EQ(begin(s, jobs, 8, now), 1);
		sched_done(s, jobs[0], SCHED_NO_CONNECTION, &last, now);
		EQ(drain_refused(s), 1);
		rest = MIN(rest * 2, 4000 * SEC);
	}
	/* Others were never touched, and a success heals at once. */
	EQ(add(s, 200, 1, "alive.example", now), ERR_OK);
	EQ(begin(s, jobs, 8, now), 1);
	sched_done(s, jobs[0], SCHED_DELIVERED, NULL, now);
	now += rest;
	add_many(s, 300, 1, 1, "dead.example", now);
	EQ(begin(s, jobs, 8, now), 1);
	sched_done(s, jobs[0], SCHED_DELIVERED, NULL, now);
	for (unsigned i = 0; i < 10; i++)
		add_many(s, 400 + i, 1, 400 + i, "dead.example", now);
	EQ(begin(s, jobs, 8, now), 5);
	for (unsigned i = 0; i < 5; i++)
		sched_done(s, jobs[i], SCHED_NOTHING, NULL, now);
	sched_free_all(s);
}

static void test_revive(void)
{
	struct sched_limits l = usual;
	struct sched_job *jobs[2];
	struct sched *s;

	tap_group("flush");
	l.concurrency_start = 1;
	s = sched_with(l);
	add_many(s, 1, 1, 1, "x.example", 0);
	EQ(begin(s, jobs, 2, 0), 1);
	sched_done(s, jobs[0], SCHED_NO_CONNECTION, NULL, 0);
	EQ(sched_counts(s, 1).dead, 1);
	sched_revive(s, S("other.example"));
	EQ(sched_counts(s, 1).dead, 1);
	sched_revive(s, STR_EMPTY);
	EQ(sched_counts(s, 1).dead, 0);
	add_many(s, 2, 1, 1, "x.example", 1);
	EQ(begin(s, jobs, 2, 1), 1);
	sched_done(s, jobs[0], SCHED_NOTHING, NULL, 1);
	sched_free_all(s);
}

static void test_limits(void)
{
	struct sched_limits l = usual;
	struct sched_refusal why;
	struct sched_job *jobs[8];
	struct sched *s;

	tap_group("limits");
	l.records_max = 10;
	s = sched_with(l);
	add_many(s, 1, 9, 1, "a", 0);
	EQ(sched_room(s), 1);
	EQ(add(s, 10, 1, "a", 0), ERR_OK);
	EQ(sched_room(s), 0);
	EQ(add(s, 11, 1, "a", 0), ERR_BUSY);
	EQ(add(s, 10, 1, "a", 0), ERR_EXISTS);
	OK(sched_forget(s, 10));
	OK(!sched_find(s, 10));
	EQ(add(s, 11, 1, "a", 0), ERR_OK);
	sched_forget_waiting(s);
	EQ(sched_counts(s, 0).records, 0);
	sched_free_all(s);

	tap_group("share");
	l = usual;
	l.share_max = 3;
	l.concurrency_start = l.concurrency_max = 1;
	s = sched_with(l);
	add_many(s, 1, 1, 1, "busy", 0);
	EQ(begin(s, jobs, 8, 0), 1);
	add_many(s, 2, 4, 2, "busy", 0);
	EQ(sched_counts(s, 0).waiting, 3);
	sched_free(s, sched_refused(s, &why));
	OK(!why.is_dead);
	EQ(drain_refused(s), 0);
	sched_done(s, jobs[0], SCHED_DELIVERED, NULL, 0);
	sched_free_all(s);
}

static void test_leases(void)
{
	struct sched *s = sched_with(usual);
	int64_t last = 3 * 3600 * SEC; /* 4 h of lease, 1 h of margin */
	struct sched_job *job;

	tap_group("leases");
	add_many(s, 1, 2, 1, "a", 0);
	add_many(s, 3, 1, 1, "a", 2);
	OK(!sched_lapsed(s, last));
	OK(sched_lapsed(s, last + 1) != NULL);
	job = sched_next(s, last + 3);
	OK(!job);
	while (sched_lapsed(s, last + 1))
		sched_free(s, sched_lapsed(s, last + 1));
	EQ(sched_counts(s, 0).waiting, 1);
	/* A record that is leased again has the newer token, in a job as well. */
	job = sched_next(s, last + 1);
	EQ(job->count, 1);
	{
		struct rec_queue_record r = { .id = 3, .token = 77, .message = 1 };

		EQ(sched_add(s, &r, S("a"), last * 2, last), ERR_EXISTS);
	}
	EQ(job->rcpts[0]->r.token, 77);
	sched_done(s, job, SCHED_DELIVERED, NULL, 0);
	sched_free_all(s);
}

static void test_kept(void)
{
	struct sched *s = sched_with(usual);
	const struct rec_queue_record failed = { .id = 9, .token = 1, .message = 1 };
	struct sched_rcpt *kept, *held;
	struct sched_job *job;

	tap_group("kept");
	add_many(s, 1, 3, 1, "a", 0);
	job = sched_next(s, 0);
	kept = job->rcpts[1];
	sched_keep(job, kept);
	EQ(job->count, 2);
	sched_done(s, job, SCHED_DELIVERED, NULL, 0);
	EQ(sched_counts(s, 0).records, 1);
	OK(!sched_forget(s, kept->r.id));
	EQ(add(s, kept->r.id, 1, "a", 0), ERR_EXISTS);
	OK(!sched_next(s, 0));
	EQ(sched_hold(s, &failed, 1, &held), ERR_OK);
	EQ(sched_hold(s, &failed, 1, &held), ERR_EXISTS);
	OK(!sched_next(s, 0));
	sched_free(s, kept);
	sched_free(s, held);
	EQ(sched_counts(s, 0).records, 0);
	EQ(sched_counts(s, 0).destinations, 0);
	sched_free_all(s);
}

/* A day with many destinations, some of them dead: everything is tried or refused, and nothing is
 * held twice or lost. */
static void test_day(void)
{
	struct sched *s = sched_with(usual);
	const struct rec_out_answer last = { .reply = S("no") };
	uint64_t random = 88172645463325252u, id = 1;
	unsigned long added = 0, ended = 0;

	tap_group("a day");
	for (int64_t now = 0; now < 86400 * SEC; now += 60 * SEC) {
		struct sched_job *job;
		char where[16];

		for (unsigned i = 0; i < 20; i++) {
			random ^= random << 13;
			random ^= random >> 7;
			random ^= random << 17;
			snprintf(where, sizeof(where), "d%u", (unsigned)(random % 50));
			if (!add(s, id, id / 3, where, now)) {
				id++;
				added++;
			}
		}
		while ((job = sched_next(s, now))) {
			unsigned number = (unsigned)strtoul(job->where.p + 1, NULL, 10);

			ended += job->count;
			sched_done(s, job, number < 10 ? SCHED_NO_CONNECTION : SCHED_DELIVERED,
				   &last, now);
		}
		ended += drain_refused(s);
	}
	EQ(added, ended);
	EQ(sched_counts(s, 0).records, 0);
	OK(sched_counts(s, 0).destinations <= 10);
	sched_free_all(s);
}

int main(void)
{
	test_groups();
	test_fair();
	test_window();
	test_jobs_max();
	test_dead();
	test_revive();
	test_limits();
	test_leases();
	test_kept();
	test_day();
	return tap_done();
}
