/* The scheduler: which recipients are tried next, and where. Pure: no input or output, and its
 * clock is a parameter.
 *
 * Leased records go in (sched_add), jobs come out (sched_next): some recipients of one message at
 * one destination, for one transaction. Each job ends with sched_done, which says how the
 * destination fared. A destination is where a connection goes: the recipient's domain, or a next
 * hop that was configured.
 *
 *	while (!sched_add(s, &record, where, lease_until, now)) ...
 *	while ((job = sched_next(s, now))) hand it out;
 *	...
 *	sched_done(s, job, SCHED_DELIVERED, now);
 *	while ((r = sched_refused(s, &why))) { record a deferral; sched_free(s, r); }
 *
 * Rules: destinations take turns, and within one its messages do. A destination has at most
 * `window` jobs at a time; the window begins at concurrency_start, grows with successes up to
 * concurrency_max and shrinks when no connection can be made. After about a window's worth of such
 * failures the destination is dead: all that waits for it is refused until a time that doubles with
 * each death, and then one job probes it.
 *
 * Times are microseconds of the wall clock.
 */
#ifndef QUEUE_SCHEDULER_H
#define QUEUE_SCHEDULER_H

#include "base/msg.h"
#include "queue/list.h"

enum {
	SCHED_RCPTS_MAX = 100,	     /* of one job, at most: what fits into out_deliver */
	SCHED_JOB_BYTES_MAX = 40960, /* of its recipients, encoded */
	SCHED_IDLE_MAX =
		10000, /* destinations remembered without work, for what was learnt of them */
};

struct sched_limits {
	uint32_t records_max;	    /* held in memory: 20,000 */
	uint32_t share_max;	    /* of these, for one destination that is busy */
	uint32_t rcpts_per_job;	    /* at most SCHED_RCPTS_MAX */
	uint32_t jobs_max;	    /* in progress, all together */
	uint32_t concurrency_start; /* jobs of one destination */
	uint32_t concurrency_max;
	int64_t dead_min_us, dead_max_us; /* how long a dead destination rests */
	int64_t lease_margin_us; /* a job begins only when its leases last so long; longer than any
				    job */
};

enum sched_feedback {
	SCHED_DELIVERED,     /* a server was reached */
	SCHED_NO_CONNECTION, /* none was */
	SCHED_NOTHING,	     /* it says nothing about the destination */
};

struct sched;
struct sched_destination;
struct sched_group;

struct sched_rcpt {
	struct rec_queue_record r; /* its slices live as long as this */
	int64_t lease_until_us;
	/* The rest is the scheduler's own. */
	struct link in_group, in_leases;
	struct sched_group *group;
	struct sched_job *job;
	struct sched_destination *destination;
	struct sched_rcpt_private *priv;
	bool is_kept;
	void *user; /* the caller's */
};

struct sched_job {
	struct sched_destination *destination;
	str where; /* the destination, as given to sched_add */
	uint32_t count;
	struct sched_rcpt *rcpts[SCHED_RCPTS_MAX]; /* all of one message */
	void *user;				   /* the caller's */
};

/* Why a record was refused. */
struct sched_refusal {
	bool is_dead;	/* the destination is; otherwise it has more than its share of the memory */
	int64_t due_us; /* dead: until when */
	str reason;	/* what the last attempt at the destination said; may be empty */
	str remote;
	str status;
};

MUST_USE enum err sched_new(const struct sched_limits *l, uint64_t seed, struct sched **out);
void sched_free_all(struct sched *s); /* no job may be in progress */
void sched_set_limits(struct sched *s, const struct sched_limits *l);

/* How many records may be added now. */
uint32_t sched_room(const struct sched *s);

/* Copies the record. ERR_EXISTS: it is held already, and has the newer token and lease now;
 * ERR_BUSY: no room; ERR_NO_MEMORY. */
MUST_USE enum err sched_add(struct sched *s, const struct rec_queue_record *r, str where,
			    int64_t lease_until_us, int64_t now);

/* Holds a record that is not to be tried, until sched_free: one whose notice is being written. The
 * same errors. */
MUST_USE enum err sched_hold(struct sched *s, const struct rec_queue_record *r,
			     int64_t lease_until_us, struct sched_rcpt **out);
/* The same with one out of a job. */
void sched_keep(struct sched_job *job, struct sched_rcpt *r);

/* NULL when nothing can begin now. */
struct sched_job *sched_next(struct sched *s, int64_t now);
/* Frees the job and its recipients. `last`: the answer that a refusal will quote, NULL with
 * SCHED_DELIVERED. */
void sched_done(struct sched *s, struct sched_job *job, enum sched_feedback feedback,
		const struct rec_out_answer *last, int64_t now);

/* The next record to be deferred without an attempt, NULL when there is none: kept, until
 * sched_free. `why` holds until the next call to the scheduler. */
struct sched_rcpt *sched_refused(struct sched *s, struct sched_refusal *why);
/* The next one whose lease became too short to begin: nothing to record, the store hands it out
 * again. */
struct sched_rcpt *sched_lapsed(struct sched *s, int64_t now);
void sched_free(struct sched *s, struct sched_rcpt *r);

/* Held, and perhaps in a job (then r->job is set); NULL when it is not. */
struct sched_rcpt *sched_find(struct sched *s, uint64_t id);
/* Forgets a record that waits; false when it is in a job or kept, or not held at all. */
bool sched_forget(struct sched *s, uint64_t id);
/* All that wait: the store was restarted and their leases are void. */
void sched_forget_waiting(struct sched *s);
/* Dead destinations may be tried at once; those of this name alone unless it is empty. */
void sched_revive(struct sched *s, str where);

struct sched_counts {
	uint32_t records, waiting, refused, jobs, destinations, dead;
};
struct sched_counts sched_counts(const struct sched *s, int64_t now);

#endif
