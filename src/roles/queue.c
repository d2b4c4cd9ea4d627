/* Role queue: what is sent, when, and to whom.
 *
 * The records are the store's; here are as many of the due ones as fit into memory, leased, so that
 * a restart of this process loses nothing. The decisions are pure code (queue/scheduler.h,
 * queue/outcome.h, queue/route.h); this file and its neighbours act on them: queue_job.c hands jobs
 * to `out` and records what came of them, queue_notice.c tells senders, queue_command.c answers the
 * administrator.
 *
 * All of it turns in queue_pump: record refusals, hand out jobs, lease more. It is posted whenever
 * something changed, and never waits.
 *
 * Starting is careful, so that the death of this process sends nothing twice: first every `out` is
 * asked what it still does for the process before us (out_jobs), those recipients are left alone
 * until their answers come (out_late), and the leases of before are void (q_begin); only then is
 * anything leased.
 */
#include "base/mutant.h"
#include "base/os.h"
#include "conf/conf.h"
#include "queue/route.h"
#include "roles/queue_priv.h"
#include "store/body.h"

#include <stdlib.h>

enum { DECISION_BUDGET = 256 * 1024 };

struct busy {
	struct index_node by_id;
	uint64_t id;
	unsigned out;
};

int64_t queue_now(void)
{
	return os_wall_us();
}

/* ---- outcomes ---- */

static void outcome_try(void *arg);
static void lease_by(struct queue_role *q, int64_t due_us);

/* The store was restarted and our lease with it is gone. If the record was leased anew meanwhile,
 * the outcome is that lease's, which would otherwise last for hours with nobody at it. What was
 * sent must be recorded in any case; anything else is void: the record will be leased anew, or the
 * administrator changed it. */
static bool outcome_renew(struct outcome *o)
{
	const struct sched_rcpt *x = sched_find(o->q->sched, o->m.id);

	if (!o->m.token)
		return false;
	if (x && x->r.token != o->m.token)
		o->m.token = x->r.token;
	else if (o->m.state == QUEUE_SENT)
		o->m.token = 0;
	else
		return false;
	return true;
}

static void outcome_done(void *arg, enum err err, struct msg *reply)
{
	struct outcome *o = arg;
	struct queue_role *q = o->q;

	if (!err && reply->type == MSG_failed)
		err = reply->u.failed.err ? (enum err)reply->u.failed.err : ERR_PROTOCOL;
	if (err == ERR_STALE && outcome_renew(o)) {
		outcome_try(o);
		return;
	}
	if (err && err != ERR_STALE && err != ERR_NOT_FOUND) {
		log_warn(&q->role->log, "outcome-unrecorded", "record=%llu error=%s",
			 (unsigned long long)o->m.id, err_name(err));
		loop_timer_set(q->role->loop, &o->retry,
			       loop_now(q->role->loop) + SECONDS(QUEUE_RETRY_SECONDS), outcome_try,
			       o);
		return;
	}
	if (!err && (o->m.state == QUEUE_DEFERRED || queue_notice_of(o->m.state, o->m.status)))
		lease_by(q, o->m.due_us);
	q->outcomes--;
	o->then(o->arg);
	free(o);
	if (q->is_stopping)
		queue_pump(q);
}

static void outcome_try(void *arg)
{
	struct outcome *o = arg;
	struct role *r = o->q->role;
	struct chan *store = role_peer(r, ROLE_STORE, 0);
	enum err err = store ? chan_call_async(store, MSG_q_outcome, &o->m,
					       loop_now(r->loop) + SECONDS(QUEUE_CALL_SECONDS),
					       outcome_done, o)
			     : ERR_CLOSED;

	if (err)
		loop_timer_set(r->loop, &o->retry, loop_now(r->loop) + SECONDS(QUEUE_RETRY_SECONDS),
			       outcome_try, o);
}

static void keep(str *s, char **at)
{
	if (s->n)
		memcpy(*at, s->p, s->n);
	s->p = *at;
	*at += s->n;
}

enum err outcome_send(struct queue_role *q, const struct msg_q_outcome *m, void (*then)(void *arg),
		      void *arg)
{
	struct outcome *o = calloc(1, sizeof(*o) + m->remote.n + m->reply.n + m->status.n);
	char *at;

	if (!o) {
		log_error(&q->role->log, "outcome-lost", "record=%llu error=NO_MEMORY",
			  (unsigned long long)m->id);
		return ERR_NO_MEMORY;
	}
	q->outcomes++;
	o->q = q;
	o->m = *m;
	o->then = then;
	o->arg = arg;
	at = o->texts;
	keep(&o->m.remote, &at);
	keep(&o->m.reply, &at);
	keep(&o->m.status, &at);
	outcome_try(o);
	return ERR_OK;
}

/* ---- recipients of the process before us ---- */

static struct busy *busy_find(struct queue_role *q, uint64_t id)
{
	for (struct index_node *n = index_first(&q->busy, id); n; n = index_next(n))
		if (CONTAINER_OF(n, struct busy, by_id)->id == id)
			return CONTAINER_OF(n, struct busy, by_id);
	return NULL;
}

void busy_end(struct queue_role *q, uint64_t id)
{
	struct busy *b = busy_find(q, id);

	if (!b)
		return;
	index_remove(&q->busy, &b->by_id);
	free(b);
}

static void busy_add(struct queue_role *q, unsigned out, uint64_t id)
{
	struct busy *b = busy_find(q, id) ? NULL : calloc(1, sizeof(*b));

	if (!b)
		return;
	b->id = id;
	b->out = out;
	if (index_add(&q->busy, &b->by_id, id))
		free(b);
}

/* An `out` died with jobs of the process before us: they may have been sent, so not at once. */
static void busy_lost(struct queue_role *q, unsigned out)
{
	for (size_t i = 0; i < q->busy.size; i++) {
		struct index_node *next;

		for (struct index_node *n = q->busy.buckets[i]; n; n = next) {
			struct busy *b = CONTAINER_OF(n, struct busy, by_id);

			next = n->next;
			if (b->out != out)
				continue;
			/* It stays until that is recorded, and is not lost twice. */
			b->out = QUEUE_OUTS_MAX;
			job_lost(q, b->id);
		}
	}
}

/* ---- leases ---- */

enum err queue_route(struct queue_role *q, str address, str *hop)
{
	const struct conf *conf = q->role->conf;
	size_t n;
	const struct conf_pair *pairs = conf_table(conf, CONF_transport_maps, &n);
	struct route_pair *rows = arena_array(q->arena, n, sizeof(*rows));
	struct route_table table = { .pairs = rows,
				     .count = n,
				     .relayhost = conf_str(conf, CONF_relayhost) };

	if (n && !rows)
		return ERR_NO_MEMORY;
	for (size_t i = 0; i < n; i++)
		rows[i] = (struct route_pair){ pairs[i].key, pairs[i].value };
	return route_find(&table, address, q->arena, hop);
}

/* What is one destination: a next hop that names a host, or else the domain. */
static enum err destination(struct queue_role *q, str address, str *where)
{
	str hop, host, domain = route_domain(address);
	char *lower;
	enum err err = queue_route(q, address, &hop);

	if (err)
		return err;
	host = hop;
	str_cut(&host, ':');
	if (host.n) {
		*where = hop;
		return ERR_OK;
	}
	lower = arena_alloc(q->arena, domain.n + 1);
	if (!lower)
		return ERR_NO_MEMORY;
	for (size_t i = 0; i < domain.n; i++)
		lower[i] = ascii_lower(domain.p[i]);
	*where = str_of(lower, domain.n);
	return ERR_OK;
}

static void record_take(struct queue_role *q, const struct rec_queue_record *r, int64_t until_us)
{
	struct sched_rcpt *x = NULL;
	str where;
	enum err err;

	/* Its answer is still to come from the process before us; the record waits for it. */
	if (busy_find(q, r->id))
		return;
	arena_reset(q->arena);
	if (queue_notice_of(r->state, r->status)) {
		err = sched_hold(q->sched, r, until_us, &x);
		if (!err)
			notice_resume(q, x);
	} else {
		err = destination(q, r->address, &where);
		if (!err)
			err = sched_add(q->sched, r, where, until_us, queue_now());
	}
	if (err && err != ERR_EXISTS)
		log_warn(&q->role->log, "lease-lost", "record=%llu error=%s",
			 (unsigned long long)r->id, err_name(err));
}

static void lease_again(void *arg)
{
	struct queue_role *q = arg;

	q->wants_lease = true;
	queue_pump(q);
}

static void lease_later(struct queue_role *q, int64_t wait_ns)
{
	loop_timer_set(q->role->loop, &q->lease_timer, loop_now(q->role->loop) + MAX(wait_ns, 0),
		       lease_again, q);
}

/* Something is due then: not later than that. */
static void lease_by(struct queue_role *q, int64_t due_us)
{
	int64_t wait = MAX((due_us - queue_now()) * 1000, MILLISECONDS(1));

	if (!q->lease_timer.position || q->lease_timer.at > loop_now(q->role->loop) + wait)
		lease_later(q, wait);
}

static int64_t lease_end(int64_t now_us)
{
	return now_us + (int64_t)QUEUE_LEASE_SECONDS * 1000000;
}

static void leased(void *arg, enum err err, struct msg *reply)
{
	struct queue_role *q = arg;
	struct rec_queue_record r;
	int64_t now = queue_now();
	uint32_t n = 0;
	str rest;

	q->is_leasing = false;
	if (!err && reply->type == MSG_failed)
		err = reply->u.failed.err ? (enum err)reply->u.failed.err : ERR_PROTOCOL;
	if (err || reply->type != MSG_q_records) {
		log_warn(&q->role->log, "lease-failed", "error=%s",
			 err_name(err ? err : ERR_PROTOCOL));
		lease_later(q, SECONDS(QUEUE_RETRY_SECONDS));
		return;
	}
	/* The lease is older than its answer by the time that passed: the margin is for more than
	 * that. */
	for (rest = reply->u.q_records.records; !rec_queue_record_get(&rest, &r); n++)
		record_take(q, &r, lease_end(now));
	if (n && reply->u.q_records.next_due_us && reply->u.q_records.next_due_us <= now)
		q->wants_lease = true;
	else if (reply->u.q_records.next_due_us)
		lease_by(q, MAX(reply->u.q_records.next_due_us, now + 100000));
	queue_pump(q);
}

static bool outs_are_told(struct queue_role *q)
{
	for (unsigned i = 0; i < role_peers(q->role, ROLE_OUT) && i < QUEUE_OUTS_MAX; i++)
		if (!q->out_told[i])
			return false;
	return true;
}

static bool any_out(struct queue_role *q)
{
	for (unsigned i = 0; i < role_peers(q->role, ROLE_OUT) && i < QUEUE_OUTS_MAX; i++)
		if (q->out_told[i] && chan_is_up(role_peer(q->role, ROLE_OUT, i)))
			return true;
	return false;
}

static void lease(struct queue_role *q)
{
	struct chan *store = role_peer(q->role, ROLE_STORE, 0);
	int64_t now = queue_now();
	uint32_t room = MIN(sched_room(q->sched), (uint32_t)QUEUE_LEASE_BATCH);
	struct msg_q_lease m = { .now_us = now, .until_us = lease_end(now), .max = room };

	if (!q->wants_lease || q->is_leasing || q->is_stopping || !q->has_begun || !room ||
	    !store || !outs_are_told(q))
		return;
	q->wants_lease = false;
	q->is_leasing = true;
	if (chan_call_async(store, MSG_q_lease, &m,
			    loop_now(q->role->loop) + SECONDS(QUEUE_CALL_SECONDS), leased, q)) {
		q->is_leasing = false;
		lease_later(q, SECONDS(QUEUE_RETRY_SECONDS));
	}
}

/* ---- the pump ---- */

static void refusal_recorded(void *arg)
{
	struct sched_rcpt *x = arg;
	struct queue_role *q = x->user;

	sched_free(q->sched, x);
	queue_pump(q);
}

/* Not tried: its destination is dead, or holds too much. */
static void refuse(struct queue_role *q, struct sched_rcpt *x, const struct sched_refusal *why)
{
	const struct rec_queue_record *r = &x->r;
	int64_t now = queue_now(),
		jitter = (int64_t)(os_random_u64() % (uint64_t)(q->limits.backoff_min_us / 10 + 1));
	struct queue_decision d = queue_decide(&q->limits, r, QUEUE_DEFERRED, false, now, 0);
	struct rec_out_answer a = { .state = QUEUE_DEFERRED,
				    .remote = why->remote,
				    .reply = why->reason,
				    .status = why->status };
	struct msg_q_outcome m = { .id = r->id, .token = r->token, .state = QUEUE_DEFERRED };

	m.due_us = (why->is_dead ? why->due_us : now + q->limits.backoff_min_us) + jitter;
	/* Its time is over, or its sender is to hear of the delay, though its turn did not come:
	 * what is known of the destination is the reason. */
	if (why->is_dead && d.notice) {
		d.due_us = m.due_us;
		notice_add(q, x, d.notice, &d, &a);
		return;
	}
	if (why->is_dead && d.state == QUEUE_FAILED)
		m.state = QUEUE_DELETED;
	log_debug(&q->role->log, "out-postponed", "record=%llu to=<%.*s> dead=%d",
		  (unsigned long long)r->id, STR_ARGS(r->address), why->is_dead);
	x->user = q;
	if (outcome_send(q, &m, refusal_recorded, x))
		sched_free(q->sched, x);
}

static void pump(void *arg)
{
	struct queue_role *q = arg;
	struct sched_refusal why;
	struct sched_rcpt *x;
	struct sched_job *job;

	while ((x = sched_lapsed(q->sched, queue_now())))
		sched_free(q->sched, x);
	if (!q->is_stopping && any_out(q))
		while ((job = sched_next(q->sched, queue_now())))
			job_send(q, job);
	while ((x = sched_refused(q->sched, &why)))
		refuse(q, x, &why);
	lease(q);
	if (q->is_stopping && !sched_counts(q->sched, 0).jobs && !q->notices_running &&
	    !q->outcomes)
		loop_stop(q->role->loop);
}

void queue_pump(struct queue_role *q)
{
	loop_post(q->role->loop, &q->pump, pump, q);
}

/* ---- beginning, and peers ---- */

static void begun(void *arg, enum err err, struct msg *reply)
{
	struct queue_role *q = arg;

	if (!err && reply->type == MSG_failed)
		err = reply->u.failed.err ? (enum err)reply->u.failed.err : ERR_PROTOCOL;
	if (err)
		log_warn(&q->role->log, "begin-failed", "error=%s", err_name(err));
	/* Old leases end by themselves in hours; waiting for this for ever would be worse than
	 * that. */
	q->has_begun = true;
	q->wants_lease = true;
	queue_pump(q);
}

static void begin(struct queue_role *q)
{
	struct chan *store = role_peer(q->role, ROLE_STORE, 0);
	const struct msg_q_begin m = {};

	if (!store ||
	    chan_call_async(store, MSG_q_begin, &m,
			    loop_now(q->role->loop) + SECONDS(QUEUE_CALL_SECONDS), begun, q))
		begun(q, ERR_CLOSED, NULL);
}

struct out_question {
	struct queue_role *q;
	unsigned out;
};

static void out_ask(struct queue_role *q, unsigned out);

static void out_told(void *arg, enum err err, struct msg *reply)
{
	struct out_question *question = arg;
	struct queue_role *q = question->q;
	unsigned out = question->out;
	str ids;

	free(question);
	q->out_asked[out] = false;
	if (err || reply->type != MSG_out_jobs_reply) {
		/* It went down: peer_up asks again. */
		if (err != ERR_CLOSED)
			out_ask(q, out);
		return;
	}
	ids = MUTANT(lease_not_kept) ? STR_EMPTY : reply->u.out_jobs_reply.ids;
	for (; ids.n >= 8; ids = str_from(ids, 8))
		busy_add(q, out, get_le64(ids.p));
	q->out_told[out] = true;
	queue_pump(q);
}

static void out_ask(struct queue_role *q, unsigned out)
{
	struct chan *c = role_peer(q->role, ROLE_OUT, out);
	struct out_question *question =
		c && !q->out_asked[out] ? calloc(1, sizeof(*question)) : NULL;
	const struct msg_out_jobs m = {};

	q->out_told[out] = false;
	if (!question)
		return;
	question->q = q;
	question->out = out;
	q->out_asked[out] = true;
	if (chan_call_async(c, MSG_out_jobs, &m,
			    loop_now(q->role->loop) + SECONDS(QUEUE_CALL_SECONDS), out_told,
			    question)) {
		q->out_asked[out] = false;
		free(question);
	}
}

static void queue_peer_up(struct role *r, struct chan *peer)
{
	struct queue_role *q = r->state;

	if (chan_peer(peer) == ROLE_OUT && chan_peer_index(peer) < QUEUE_OUTS_MAX)
		out_ask(q, chan_peer_index(peer));
	if (chan_peer(peer) == ROLE_STORE)
		lease_again(q);
}

static void queue_peer_down(struct role *r, struct chan *peer)
{
	struct queue_role *q = r->state;

	if (chan_peer(peer) == ROLE_OUT && chan_peer_index(peer) < QUEUE_OUTS_MAX) {
		q->out_told[chan_peer_index(peer)] = false;
		busy_lost(q, chan_peer_index(peer));
	}
	/* Its leases went with it. */
	if (chan_peer(peer) == ROLE_STORE)
		sched_forget_waiting(q->sched);
}

/* ---- the role ---- */

static struct sched_limits limits_read(struct queue_role *q)
{
	const struct conf *c = q->role->conf;
	uint32_t concurrency = (uint32_t)conf_u64(c, CONF_default_destination_concurrency_limit);

	q->limits = (struct queue_limits){
		.backoff_min_us = conf_time_ns(c, CONF_minimal_backoff_time) / 1000,
		.backoff_max_us = conf_time_ns(c, CONF_maximal_backoff_time) / 1000,
		.lifetime_us = conf_time_ns(c, CONF_maximal_queue_lifetime) / 1000,
		.bounce_lifetime_us = conf_time_ns(c, CONF_bounce_queue_lifetime) / 1000,
		.warning_us = conf_time_ns(c, CONF_delay_warning_time) / 1000,
	};
	return (struct sched_limits){
		.records_max = QUEUE_RECORDS_MAX,
		.share_max = QUEUE_RECORDS_MAX / 4,
		.rcpts_per_job = QUEUE_RCPTS_PER_JOB,
		.jobs_max = QUEUE_JOBS_MAX,
		.concurrency_start = QUEUE_CONCURRENCY_START,
		.concurrency_max = concurrency,
		.dead_min_us = q->limits.backoff_min_us,
		.dead_max_us = q->limits.backoff_max_us,
		.lease_margin_us = (int64_t)QUEUE_MARGIN_SECONDS * 1000000,
	};
}

static enum err queue_init(struct role *r)
{
	struct queue_role *q = calloc(1, sizeof(*q));
	struct sched_limits limits;

	if (!q)
		return ERR_NO_MEMORY;
	q->role = r;
	r->state = q;
	list_init(&q->notices);
	q->arena = arena_new(DECISION_BUDGET);
	q->cipher = body_cipher_new();
	limits = limits_read(q);
	return q->arena && q->cipher ? sched_new(&limits, os_random_u64(), &q->sched)
				     : ERR_NO_MEMORY;
}

void queue_free(struct queue_role *q)
{
	loop_timer_cancel(q->role->loop, &q->lease_timer);
	loop_timer_cancel(q->role->loop, &q->stop_timer);
	loop_unpost(q->role->loop, &q->pump);
	notices_free(q);
	sched_free_all(q->sched);
	for (size_t i = 0; i < q->busy.size; i++)
		while (q->busy.buckets[i])
			busy_end(q, CONTAINER_OF(q->busy.buckets[i], struct busy, by_id)->id);
	index_free(&q->busy);
	body_cipher_free(q->cipher);
	arena_free(q->arena);
	free(q);
}

static enum err queue_start(struct role *r)
{
	struct queue_role *q = r->state;

	for (unsigned i = 0; i < role_peers(r, ROLE_OUT) && i < QUEUE_OUTS_MAX; i++)
		out_ask(q, i);
	begin(q);
	return ERR_OK;
}

static void queue_message(struct role *r, struct chan *from, struct msg *m)
{
	struct queue_role *q = r->state;

	if (m->type == MSG_q_hint)
		lease_again(q);
	else if (m->type == MSG_out_late)
		late_answers(q, m->u.out_late.results);
	else if (m->type == MSG_command)
		queue_command(q, from, m->id, &m->u.command);
	else
		log_error(&r->log, "unexpected-message", "type=%s", msg_name(m->type));
}

static void queue_reload(struct role *r)
{
	struct queue_role *q = r->state;
	struct sched_limits limits = limits_read(q);

	sched_set_limits(q->sched, &limits);
	queue_pump(q);
}

static void stop_now(void *arg)
{
	loop_stop(((struct queue_role *)arg)->role->loop);
}

static void queue_stop(struct role *r, unsigned seconds)
{
	struct queue_role *q = r->state;

	q->is_stopping = true;
	loop_timer_set(r->loop, &q->stop_timer, loop_now(r->loop) + SECONDS(seconds), stop_now, q);
	queue_pump(q);
}

static void queue_status(struct role *r, struct buf *out)
{
	const struct queue_role *q = r->state;
	struct sched_counts c = sched_counts(q->sched, queue_now());

	buf_printf(out,
		   "\"in_memory\":%u,\"waiting\":%u,\"jobs\":%u,\"destinations\":%u,\"dead_"
		   "destinations\":%u,"
		   "\"sent\":%llu,\"deferred\":%llu,\"failed\":%llu,\"notices\":%llu",
		   c.records, c.waiting, c.jobs, c.destinations, c.dead,
		   (unsigned long long)q->sent, (unsigned long long)q->deferred,
		   (unsigned long long)q->failed, (unsigned long long)q->noticed);
}

const struct role_ops role_queue_ops = {
	.kind = ROLE_QUEUE,
	.sandbox = SANDBOX_MEMFD,
	.init = queue_init,
	.start = queue_start,
	.message = queue_message,
	.peer_up = queue_peer_up,
	.peer_down = queue_peer_down,
	.reload = queue_reload,
	.stop = queue_stop,
	.status = queue_status,
};
