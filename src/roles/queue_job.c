/* Role queue: jobs on their way to `out`, and what becomes of their answers.
 *
 * For each recipient the answer becomes a decision (queue/outcome.h), the decision an outcome in
 * store, and only when that is durable is the recipient forgotten here: until then no lease can
 * bring it back and send it again. Who must be told of it leaves the job and waits for its notice
 * (queue_notice.c), so that the destination does not wait for that.
 */
#include "base/os.h"
#include "base/trace.h"
#include "conf/conf.h"
#include "queue/route.h"
#include "roles/queue_priv.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	RCPTS_BYTES_MAX = 49152,
	SOON_SECONDS = 10,
	LAST_REPLY_MAX = 512,
	LAST_REMOTE_MAX = 256,
	LAST_STATUS_MAX = 16
};

struct job {
	struct queue_role *q;
	struct sched_job *job;
	unsigned out;
	uint32_t unrecorded; /* outcomes on their way, and one while they are made */
	enum sched_feedback feedback;
	struct rec_out_answer last; /* its texts are in `texts` */
	char texts[LAST_REPLY_MAX + LAST_REMOTE_MAX + LAST_STATUS_MAX];
};

/* ---- the end of a job ---- */

static void job_settle(struct job *j)
{
	if (--j->unrecorded)
		return;
	sched_done(j->q->sched, j->job, j->feedback,
		   j->feedback == SCHED_NO_CONNECTION ? &j->last : NULL, queue_now());
	queue_pump(j->q);
	free(j);
}

static void job_recorded(void *arg)
{
	job_settle(arg);
}

/* ---- words ---- */

static void tell(struct queue_role *q, const struct rec_queue_record *r,
		 const struct rec_out_answer *a, const struct queue_decision *d)
{
	struct role *role = q->role;
	char id[MSGID_TEXT + 1];
	bool is_reply = a->code && a->remote.n;
	int64_t wait = (d->due_us - queue_now()) / 1000000;
	str text = msgid_text(r->message, id);

	if (d->state == QUEUE_SENT) {
		log_info(&role->log, "out-sent",
			 "msg=%.*s to=<%.*s> remote=%.*s tls=%d reply=\"%.*s\"", STR_ARGS(text),
			 STR_ARGS(r->address), STR_ARGS(a->remote), a->tls, STR_ARGS(a->reply));
		role_trace(role, r->message, TRACE_OUT_SENT, r->sender, r->address,
			   "delivered to %.*s%s, which said %.*s", STR_ARGS(a->remote),
			   a->tls ? " over TLS" : "", STR_ARGS(a->reply));
	} else if (d->state == QUEUE_DEFERRED) {
		log_info(&role->log, "out-deferred",
			 "msg=%.*s to=<%.*s> remote=%.*s status=%.*s next=%llds reply=\"%.*s\"",
			 STR_ARGS(text), STR_ARGS(r->address), STR_ARGS(a->remote),
			 STR_ARGS(a->status), (long long)wait, STR_ARGS(a->reply));
		role_trace(role, r->message, TRACE_OUT_DEFERRED, r->sender, r->address,
			   "deferred: %.*s%s%.*s; next attempt in %lld seconds",
			   STR_ARGS(is_reply ? a->remote : STR_EMPTY), is_reply ? " said " : "",
			   STR_ARGS(a->reply), (long long)wait);
	} else {
		log_info(&role->log, "out-failed",
			 "msg=%.*s to=<%.*s> remote=%.*s status=%.*s expired=%d reply=\"%.*s\"",
			 STR_ARGS(text), STR_ARGS(r->address), STR_ARGS(a->remote),
			 STR_ARGS(a->status), d->is_expired, STR_ARGS(a->reply));
		role_trace(role, r->message, TRACE_OUT_FAILED, r->sender, r->address,
			   "failed%s: %.*s%s%.*s",
			   d->is_expired ? " after the last attempt that its lifetime allows" : "",
			   STR_ARGS(is_reply ? a->remote : STR_EMPTY), is_reply ? " said " : "",
			   STR_ARGS(a->reply));
	}
}

/* ---- answers ---- */

static struct msg_q_outcome outcome_of(const struct rec_queue_record *r,
				       const struct rec_out_answer *a,
				       const struct queue_decision *d)
{
	struct msg_q_outcome m = {
		.id = r->id,
		.token = r->token,
		.state = d->state,
		.due_us = d->due_us,
		.attempted = true,
		.remote = a->remote,
		.reply = a->reply,
		.status = a->status,
	};

	/* Failed, and nobody is owed a notice: there is nothing left to keep. */
	if (d->state == QUEUE_FAILED)
		m.state = QUEUE_DELETED;
	return m;
}

static void count(struct queue_role *q, uint8_t state)
{
	q->sent += state == QUEUE_SENT;
	q->deferred += state == QUEUE_DEFERRED;
	q->failed += state == QUEUE_FAILED;
}

static void answer_take(struct job *j, struct sched_rcpt *x, const struct rec_out_answer *a)
{
	struct queue_role *q = j->q;
	struct queue_decision d = queue_decide(&q->limits, &x->r, a->state, a->dsn_passed,
					       queue_now(), os_random_u64());
	struct msg_q_outcome m;

	count(q, d.state);
	tell(q, &x->r, a, &d);
	if (d.state == QUEUE_FAILED && !d.notice)
		role_trace(q->role, x->r.message, TRACE_NOTICE_DROPPED, x->r.sender, x->r.address,
			   "%s",
			   x->r.sender.n ? "the sender did not ask for it"
					 : "it was a notification itself");
	if (d.notice) {
		sched_keep(j->job, x);
		notice_add(q, x, d.notice, &d, a);
		return;
	}
	m = outcome_of(&x->r, a, &d);
	j->unrecorded++;
	if (outcome_send(q, &m, job_recorded, j))
		j->unrecorded--;
}

static void text_keep(char **at, str s, str *kept)
{
	*kept = str_of(*at, s.n);
	if (s.n)
		memcpy(*at, s.p, s.n);
	*at += s.n;
}

/* What the answers say of the destination: it is reachable if anybody answered for it. */
static enum sched_feedback feedback_of(struct job *j, str results)
{
	enum sched_feedback feedback = SCHED_NOTHING;
	struct rec_out_answer a;
	char *at;

	while (!rec_out_answer_get(&results, &a)) {
		if (a.state == QUEUE_SENT || (a.code && a.remote.n))
			return SCHED_DELIVERED;
		if (!str_starts(a.status, S("4.4.")))
			continue;
		feedback = SCHED_NO_CONNECTION;
		j->last = (struct rec_out_answer){ 0 };
		at = j->texts;
		text_keep(&at, str_head(a.reply, LAST_REPLY_MAX), &j->last.reply);
		text_keep(&at, str_head(a.remote, LAST_REMOTE_MAX), &j->last.remote);
		text_keep(&at, str_head(a.status, LAST_STATUS_MAX), &j->last.status);
	}
	return feedback;
}

static struct sched_rcpt *rcpt_of(struct job *j, uint64_t id)
{
	for (uint32_t i = 0; i < j->job->count; i++)
		if (j->job->rcpts[i]->r.id == id)
			return j->job->rcpts[i];
	return NULL;
}

/* `out` could not be asked, or is gone: nobody failed for it. */
static void job_unanswered(struct job *j, enum err err)
{
	const struct rec_out_answer a = {
		.state = QUEUE_DEFERRED,
		.status = S("4.3.0"),
		.reply = S("the delivering process was not there, or died")
	};

	log_warn(&j->q->role->log, "job-unanswered", "out=%u error=%s", j->out, err_name(err));
	for (uint32_t i = 0; i < j->job->count; i++) {
		struct sched_rcpt *x = j->job->rcpts[i];
		struct msg_q_outcome m = { .id = x->r.id,
					   .token = x->r.token,
					   .state = QUEUE_DEFERRED };

		/* Busy or not yet there: soon. Otherwise it may have been sent: not at once. */
		m.due_us = queue_now() +
			   (err == ERR_BUSY ? SOON_SECONDS * 1000000ll : q_backoff_min(j->q));
		m.attempted = err != ERR_BUSY;
		m.reply = a.reply;
		m.status = a.status;
		j->unrecorded++;
		if (outcome_send(j->q, &m, job_recorded, j))
			j->unrecorded--;
	}
}

static void job_answered(void *arg, enum err err, struct msg *reply)
{
	struct job *j = arg;
	struct rec_out_answer a;
	str rest;

	if (!err && reply->type == MSG_failed)
		err = reply->u.failed.err ? (enum err)reply->u.failed.err : ERR_PROTOCOL;
	if (!err && reply->type != MSG_out_result)
		err = ERR_PROTOCOL;
	j->unrecorded = 1;
	if (err) {
		job_unanswered(j, err);
		job_settle(j);
		return;
	}
	rest = reply->u.out_result.results;
	j->feedback = feedback_of(j, rest);
	while (!rec_out_answer_get(&rest, &a)) {
		struct sched_rcpt *x = rcpt_of(j, a.id);

		if (x)
			answer_take(j, x, &a);
	}
	job_settle(j);
}

/* ---- handing out ---- */

/* The same destination to the same process, where its idle connections are; another one when that
 * is not there. */
static struct chan *out_choose(struct queue_role *q, str where, unsigned *number)
{
	unsigned n = role_peers(q->role, ROLE_OUT),
		 first = n ? (unsigned)(str_hash(where, 0) % n) : 0;

	for (unsigned i = 0; i < n; i++) {
		struct chan *c = role_peer(q->role, ROLE_OUT, (first + i) % n);

		*number = (first + i) % n;
		if (c && chan_is_up(c) && *number < QUEUE_OUTS_MAX && q->out_told[*number])
			return c;
	}
	return NULL;
}

static enum err job_call(struct job *j, struct chan *out)
{
	struct role *role = j->q->role;
	const struct rec_queue_record *first = &j->job->rcpts[0]->r;
	struct msg_out_deliver m = {
		.message = first->message,
		.sender = first->sender,
		.domain = route_domain(first->address),
		.smtputf8 = first->smtputf8,
		.body_type = first->body_type,
		.ret = first->ret,
		.envid = first->envid,
		.size = first->size,
	};
	struct buf rcpts;
	enum err err;

	buf_init(&rcpts, RCPTS_BYTES_MAX);
	for (uint32_t i = 0; i < j->job->count; i++) {
		const struct rec_queue_record *r = &j->job->rcpts[i]->r;
		const struct rec_out_rcpt x = { .id = r->id,
						.token = r->token,
						.address = r->address,
						.orcpt = r->orcpt,
						.notify = r->notify };

		rec_out_rcpt_put(&rcpts, &x);
	}
	m.rcpts = buf_str(&rcpts);
	err = queue_route(j->q, first->address, &m.nexthop);
	if (!err)
		err = buf_failed(&rcpts)
			      ? ERR_TOO_LONG
			      : chan_call_async(out, MSG_out_deliver, &m,
						loop_now(role->loop) + SECONDS(QUEUE_JOB_SECONDS),
						job_answered, j);
	buf_free(&rcpts);
	return err;
}

void job_send(struct queue_role *q, struct sched_job *job)
{
	struct job *j = calloc(1, sizeof(*j));
	struct chan *out;
	enum err err;

	arena_reset(q->arena);
	if (!j) {
		/* Nothing is recorded: their leases end, and they are leased again. */
		sched_done(q->sched, job, SCHED_NOTHING, NULL, queue_now());
		return;
	}
	j->q = q;
	j->job = job;
	j->feedback = SCHED_NOTHING;
	out = out_choose(q, job->where, &j->out);
	err = out ? job_call(j, out) : ERR_BUSY;
	if (!err)
		return;
	j->unrecorded = 1;
	job_unanswered(j, err);
	job_settle(j);
}

/* ---- jobs of the queue process before us ---- */

/* An outcome of one of these on its way. */
struct late {
	struct queue_role *q;
	uint64_t id;
};

/* Not before it is recorded: a lease that store gave meanwhile is of the state before, and its
 * answer comes first. */
static void late_recorded(void *arg)
{
	struct late *l = arg;

	busy_end(l->q, l->id);
	free(l);
}

static void late_send(struct queue_role *q, const struct msg_q_outcome *m)
{
	struct late *l = calloc(1, sizeof(*l));

	if (l) {
		*l = (struct late){ q, m->id };
		if (!outcome_send(q, m, late_recorded, l))
			return;
	}
	log_warn(&q->role->log, "outcome-lost", "record=%llu", (unsigned long long)m->id);
	free(l);
	busy_end(q, m->id);
}

void job_lost(struct queue_role *q, uint64_t id)
{
	struct msg_q_outcome m = {
		.id = id,
		.state = QUEUE_DEFERRED,
		.due_us = queue_now() + q_backoff_min(q),
		.attempted = true,
		.reply = S("the delivering process died"),
		.status = S("4.3.0"),
	};

	late_send(q, &m);
}

/* We never saw the record, so only what needs no more than the answer is decided: sent is sent. All
 * else is tried again soon, and then decided with everything at hand. */
void late_answers(struct queue_role *q, str results)
{
	struct rec_out_answer a;

	while (!rec_out_answer_get(&results, &a)) {
		struct msg_q_outcome m = {
			.id = a.id,
			.state = a.state == QUEUE_SENT ? QUEUE_SENT : QUEUE_DEFERRED,
			.due_us = queue_now() + (a.state == QUEUE_FAILED ? 0 : q_backoff_min(q)),
			.attempted = true,
			.remote = a.remote,
			.reply = a.reply,
			.status = a.status,
		};

		/* Without a code: told again of what the process before us may have recorded. */
		if (a.code || a.state != QUEUE_SENT) {
			count(q, a.state);
			log_info(&q->role->log, a.state == QUEUE_SENT ? "out-sent" : "out-deferred",
				 "record=%llu remote=%.*s reply=\"%.*s\"", (unsigned long long)a.id,
				 STR_ARGS(a.remote), STR_ARGS(a.reply));
		}
		late_send(q, &m);
	}
}
