/* What the files of role queue share. */
#ifndef ROLES_QUEUE_PRIV_H
#define ROLES_QUEUE_PRIV_H

#include "queue/bounce.h"
#include "queue/index.h"
#include "queue/outcome.h"
#include "queue/scheduler.h"
#include "store/types.h"
#include "roles/role.h"

enum {
	QUEUE_RECORDS_MAX = 20000, /* in memory: Postfix's qmgr_message_active_limit */
	QUEUE_LEASE_SECONDS = 4 * 3600,
	QUEUE_MARGIN_SECONDS = 3600 + 1200, /* longer than `out` lets a job be, and its outcome */
	QUEUE_JOB_SECONDS = 3600,
	QUEUE_RCPTS_PER_JOB = 50,    /* Postfix: default_destination_recipient_limit */
	QUEUE_JOBS_MAX = 100,	     /* Postfix: default_process_limit */
	QUEUE_CONCURRENCY_START = 5, /* Postfix: initial_destination_concurrency */
	QUEUE_LEASE_BATCH = 1000,
	QUEUE_CALL_SECONDS = 60,
	QUEUE_RETRY_SECONDS = 2,     /* after the store said no or nothing */
	QUEUE_NOTICE_WAIT_MS = 1000, /* other recipients of the same message may fail as well */
	QUEUE_NOTICES_MAX = 16,	     /* being written at a time */
	QUEUE_OUTS_MAX = 64,
};

struct body_cipher;

struct queue_role {
	struct role *role;
	struct sched *sched;
	struct queue_limits limits;
	struct arena *arena; /* of one decision */
	struct body_cipher *cipher;
	struct task pump;
	struct timer lease_timer, stop_timer;
	bool has_begun; /* store voided the leases of the process before us */
	bool is_leasing, wants_lease, is_stopping;
	bool out_asked[QUEUE_OUTS_MAX]; /* out_jobs is under way */
	bool out_told[QUEUE_OUTS_MAX];	/* its old jobs are in `busy` */
	struct index busy;   /* struct busy: recipients in jobs of the process before us */
	struct link notices; /* struct notice: collecting, or waiting for their turn */
	struct index notices_by_message;
	unsigned notices_running;
	unsigned outcomes; /* on their way to store */
	uint64_t sent, deferred, failed, noticed;
};

/* An outcome on its way to store; sent again until it is recorded. */
struct outcome {
	struct queue_role *q;
	struct timer retry;
	struct msg_q_outcome m; /* its texts are in this block */
	/* Recorded, or made void by somebody else. */
	void (*then)(void *arg);
	void *arg;
	char texts[];
};

/* ---- queue.c ---- */
int64_t queue_now(void);
/* For processes that hold many roles: everything, when its channels are gone and no fiber of it is
 * left. */
void queue_free(struct queue_role *q);
/* Soon: hands out jobs, leases, records refusals. */
void queue_pump(struct queue_role *q);
/* Borrows from the arena of one decision. */
MUST_USE enum err queue_route(struct queue_role *q, str address, str *hop);
static inline int64_t q_backoff_min(const struct queue_role *q)
{
	return q->limits.backoff_min_us;
}
/* A recipient of the process before us is settled. */
void busy_end(struct queue_role *q, uint64_t id);
/* ERR_NO_MEMORY, after a line in the log: nothing is recorded, and the lease's end brings the
 * record back. `then` may be called before it returns, never after an error. */
MUST_USE enum err outcome_send(struct queue_role *q, const struct msg_q_outcome *m,
			       void (*then)(void *arg), void *arg);

/* ---- queue_job.c ---- */
void job_send(struct queue_role *q, struct sched_job *job);
void late_answers(struct queue_role *q, str results);
/* A recipient of an `out` that died with its jobs. */
void job_lost(struct queue_role *q, uint64_t id);

/* ---- queue_notice.c ---- */
/* Takes a kept recipient: tells the sender, then records the outcome, then sched_free. The texts
 * are copied. */
void notice_add(struct queue_role *q, struct sched_rcpt *r, enum queue_notice kind,
		const struct queue_decision *d, const struct rec_out_answer *answer);
/* One that was leased in state FAILED: the notice is all that is left to do. */
void notice_resume(struct queue_role *q, struct sched_rcpt *r);
void notices_run(struct queue_role *q);
void notices_free(struct queue_role *q);

/* ---- queue_command.c ---- */
void queue_command(struct queue_role *q, struct chan *from, uint32_t call,
		   const struct msg_command *m);

#endif
