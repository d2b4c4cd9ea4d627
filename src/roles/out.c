/* Role out: speaks SMTP and LMTP as a client, and decides nothing.
 *
 * Each out_deliver is a job with a fiber and an arena of its own; its answer is one out_result with
 * an answer for each recipient. Who failed for good and when the others are tried again is the
 * queue's to say. It has no files: bodies are read from descriptors that store hands over, opened
 * with the key that comes with them.
 *
 * When the queue process dies, its jobs go on here, for nothing else knows that a message is just
 * being taken by a server somewhere. The next queue process asks first of all what is under way
 * (out_jobs), leaves these recipients alone, and gets their answers when they are there (out_late).
 * What was delivered shortly before is told again then, since the process that was told may have
 * died before store recorded it: to record it twice costs nothing, to send it twice does. So the
 * death of the queue sends nothing twice. (A recipient that asked for NOTIFY=SUCCESS is not told
 * again: it may be recorded as one whose notice is owed, and would lose it.)
 */
#include "base/os.h"
#include "conf/conf.h"
#include "net/tls.h"
#include "queue/outcome.h"
#include "roles/out_priv.h"
#include "store/types.h"

#include <stdlib.h>

enum { RESULTS_MAX = 57344, IDS_MAX = 57344, LEAST_ROOM = 64, RECENT_CHUNK = 256 };

static void job_free(struct out_job *job)
{
	struct out_role *o = job->out;

	link_remove(&job->in_jobs);
	o->job_count--;
	arena_free(job->arena);
	free(job);
	if (o->is_stopping && !o->job_count) {
		loop_timer_cancel(o->role->loop, &o->stop_timer);
		loop_stop(o->role->loop);
	}
}

/* ---- answers ---- */

static void answer_put(struct buf *out, const struct out_rcpt *x, size_t room)
{
	struct rec_out_answer a = {
		.id = x->r.id,
		.state = x->result.state ? x->result.state : QUEUE_DEFERRED,
		.code = x->result.code,
		.status = smtp_result_status(&x->result),
		.remote = x->remote,
		.reply = smtp_result_text(&x->result),
		.tls = x->tls,
		.dsn_passed = x->result.dsn_passed,
	};
	size_t used = LEAST_ROOM + a.status.n + a.remote.n;

	/* All answers of a job share one message. */
	a.reply = str_head(a.reply, room > used ? room - used : 0);
	rec_out_answer_put(out, &a);
}

static void remember(struct out_role *o, const struct out_rcpt *x)
{
	if (x->result.state != QUEUE_SENT ||
	    ((x->r.notify & NOTIFY_SUCCESS) && !x->result.dsn_passed))
		return;
	o->recent[o->recent_count++ % OUT_RECENT_MAX] =
		(struct out_recent){ x->r.id, loop_now(o->role->loop) };
}

static enum err results_send(struct out_job *job)
{
	struct chan *queue = role_peer(job->out->role, ROLE_QUEUE, 0);
	struct buf b;
	enum err err;

	buf_init(&b, RESULTS_MAX);
	for (size_t i = 0; i < job->count; i++)
		answer_put(&b, &job->rcpts[i], RESULTS_MAX / job->count);
	if (buf_failed(&b))
		err = ERR_NO_MEMORY;
	else if (job->is_late)
		err = SEND(queue, out_late, .results = buf_str(&b));
	else
		err = REPLY(queue, job->call, out_result, .results = buf_str(&b));
	buf_free(&b);
	for (size_t i = 0; i < job->count && !err; i++)
		remember(job->out, &job->rcpts[i]);
	return err;
}

static void job_count_results(struct out_job *job)
{
	for (size_t i = 0; i < job->count; i++) {
		uint8_t state = job->rcpts[i].result.state;

		job->out->delivered += state == QUEUE_SENT;
		job->out->failed += state == QUEUE_FAILED;
		job->out->deferred += state != QUEUE_SENT && state != QUEUE_FAILED;
	}
}

static void job_run(void *arg)
{
	struct out_job *job = arg;
	enum err err;

	out_deliver(job);
	job_count_results(job);
	job->is_finished = true;
	/* Nobody to tell yet: out_jobs will come. */
	if (job->is_late && !job->out->queue_knows && !job->out->is_stopping)
		return;
	err = results_send(job);
	if (err == ERR_OK || job->out->is_stopping) {
		job_free(job);
		return;
	}
	log_warn(&job->out->role->log, "results-unsent", "error=%s", err_name(err));
	job->is_late = true;
}

/* ---- jobs ---- */

static str copy(struct arena *a, str s, bool *ok)
{
	str c = arena_str(a, s);

	*ok = *ok && (c.p || !s.n);
	return c;
}

static enum err rcpts_read(struct out_job *job)
{
	struct rec_out_rcpt r;
	str rest = job->m.rcpts;
	enum err err;

	while (!(err = rec_out_rcpt_get(&rest, &r)))
		job->count++;
	if (err != ERR_EOF || !job->count || job->count > SMTP_CLIENT_RCPTS_MAX)
		return ERR_PROTOCOL;
	job->rcpts = arena_array(job->arena, job->count, sizeof(*job->rcpts));
	if (!job->rcpts)
		return ERR_NO_MEMORY;
	rest = job->m.rcpts;
	for (size_t i = 0; i < job->count; i++)
		if ((err = rec_out_rcpt_get(&rest, &job->rcpts[i].r)))
			return err;
	return ERR_OK;
}

static enum err job_fill(struct out_job *job, const struct msg_out_deliver *m)
{
	bool ok = true;

	job->m = *m;
	job->m.sender = copy(job->arena, m->sender, &ok);
	job->m.rcpts = copy(job->arena, m->rcpts, &ok);
	job->m.domain = copy(job->arena, m->domain, &ok);
	job->m.nexthop = copy(job->arena, m->nexthop, &ok);
	job->m.envid = copy(job->arena, m->envid, &ok);
	return ok ? rcpts_read(job) : ERR_NO_MEMORY;
}

static enum err job_start(struct out_role *o, uint32_t call, const struct msg_out_deliver *m)
{
	struct out_job *job;
	enum err err;

	if (o->job_count >= OUT_JOBS_MAX || o->is_stopping)
		return ERR_BUSY;
	job = calloc(1, sizeof(*job));
	if (!job)
		return ERR_NO_MEMORY;
	job->out = o;
	job->call = call;
	job->file = -1;
	job->arena = arena_new(OUT_JOB_BUDGET);
	err = job->arena ? job_fill(job, m) : ERR_NO_MEMORY;
	if (!err)
		err = fiber_spawn(o->role->loop, job_run, job);
	if (err) {
		arena_free(job->arena);
		free(job);
		return err;
	}
	list_append(&o->jobs, &job->in_jobs);
	o->job_count++;
	return ERR_OK;
}

/* Those delivered shortly before, the oldest first; `from` is where to begin, 0 at first. */
static const struct out_recent *recent_next(const struct out_role *o, uint64_t *from)
{
	int64_t least = loop_now(o->role->loop) - SECONDS(OUT_RECENT_SECONDS);

	if (o->recent_count > OUT_RECENT_MAX)
		*from = MAX(*from, o->recent_count - OUT_RECENT_MAX);
	for (; *from < o->recent_count; (*from)++)
		if (o->recent[*from % OUT_RECENT_MAX].at >= least)
			return &o->recent[(*from)++ % OUT_RECENT_MAX];
	return NULL;
}

/* Their answers have no code: the queue sees that they are told again. */
static void tell_recent(struct out_role *o, struct chan *queue)
{
	const struct out_recent *r;
	uint64_t at = 0;
	struct buf b;

	buf_init(&b, RESULTS_MAX);
	do {
		unsigned n = 0;

		buf_clear(&b);
		while (n < RECENT_CHUNK && (r = recent_next(o, &at))) {
			const struct rec_out_answer a = { .id = r->id,
							  .state = QUEUE_SENT,
							  .status = S("2.0.0"),
							  .reply = S("delivered shortly before") };

			rec_out_answer_put(&b, &a);
			n++;
		}
		if (n && SEND(queue, out_late, .results = buf_str(&b))) {
			log_warn(&o->role->log, "results-unsent", "recipients=%u", n);
			break;
		}
	} while (r);
	buf_free(&b);
}

/* A new queue process: what is under way, and then the answers that wait for it. */
static void tell_jobs(struct out_role *o, struct chan *queue, uint32_t call)
{
	const struct out_recent *recent;
	uint64_t at = 0;
	struct buf b;
	struct link *next;

	buf_init(&b, IDS_MAX);
	for (struct link *l = o->jobs.next; l != &o->jobs; l = l->next) {
		struct out_job *job = CONTAINER_OF(l, struct out_job, in_jobs);

		job->is_late = true;
		for (size_t i = 0; i < job->count; i++)
			buf_add_le64(&b, job->rcpts[i].r.id);
	}
	while ((recent = recent_next(o, &at)))
		buf_add_le64(&b, recent->id);
	if (buf_failed(&b))
		log_warn(&o->role->log, "jobs-untold", "jobs=%u", o->job_count);
	if (REPLY(queue, call, out_jobs_reply, .ids = buf_str(&b)) == ERR_OK)
		o->queue_knows = true;
	buf_free(&b);
	if (o->queue_knows)
		tell_recent(o, queue);
	for (struct link *l = o->jobs.next; o->queue_knows && l != &o->jobs; l = next) {
		struct out_job *job = CONTAINER_OF(l, struct out_job, in_jobs);

		next = l->next;
		if (job->is_late && job->is_finished && results_send(job) == ERR_OK)
			job_free(job);
	}
}

/* ---- the role ---- */

static void own_addresses(struct out_role *o)
{
	size_t n;
	const struct conf_listen *l = conf_listens(o->role->conf, &n);

	o->own_count = 0;
	for (size_t i = 0; i < n && o->own_count < OUT_OWN_MAX; i++)
		if (str_eq(l[i].service, S("smtp")) &&
		    (l[i].address.family == ADDR_IP4 || l[i].address.family == ADDR_IP6))
			o->own[o->own_count++] = l[i].address;
}

static enum err out_init(struct role *r)
{
	struct out_role *o = calloc(1, sizeof(*o));

	if (!o)
		return ERR_NO_MEMORY;
	o->role = r;
	list_init(&o->idle);
	list_init(&o->jobs);
	o->cipher = body_cipher_new();
	o->recent = calloc(OUT_RECENT_MAX, sizeof(*o->recent));
	own_addresses(o);
	r->state = o;
	return o->cipher && o->recent ? tls_client_new(r->loop, &r->log, STR_EMPTY, &o->tls)
				      : ERR_NO_MEMORY;
}

void out_free(struct out_role *o)
{
	out_drop_idle(o);
	loop_timer_cancel(o->role->loop, &o->stop_timer);
	out_logins_drop(o->logins);
	out_logins_drop(o->next);
	tls_free(o->tls);
	body_cipher_free(o->cipher);
	free(o->recent);
	o->role->state = NULL;
	free(o);
}

static void out_message(struct role *r, struct chan *from, struct msg *m)
{
	struct out_role *o = r->state;
	enum err err = ERR_OK;

	if (m->type == MSG_out_deliver)
		err = job_start(o, m->id, &m->u.out_deliver);
	else if (m->type == MSG_out_jobs)
		tell_jobs(o, from, m->id);
	else
		err = ERR_UNSUPPORTED;
	if (err && m->id && REPLY_FAILED(from, m->id, err, str_from_c(err_text(err))))
		log_warn(&r->log, "reply-unsent", "type=%s", msg_name(m->type));
}

static void out_peer_down(struct role *r, struct chan *peer)
{
	struct out_role *o = r->state;

	if (chan_peer(peer) != ROLE_QUEUE)
		return;
	o->queue_knows = false;
	for (struct link *l = o->jobs.next; l != &o->jobs; l = l->next)
		CONTAINER_OF(l, struct out_job, in_jobs)->is_late = true;
}

static enum err out_prepare(struct role *r)
{
	return out_logins_take(r->state);
}

static void out_reload(struct role *r)
{
	own_addresses(r->state);
	if (out_logins_take(r->state))
		log_error(&r->log, "reload-failed", "what=relay-logins kept=old");
	/* Their names and TLS rules are those of before. */
	out_drop_idle(r->state);
}

static void stop_now(void *arg)
{
	loop_stop(((struct out_role *)arg)->role->loop);
}

static void out_stop(struct role *r, unsigned seconds)
{
	struct out_role *o = r->state;

	o->is_stopping = true;
	out_drop_idle(o);
	if (o->job_count)
		loop_timer_set(r->loop, &o->stop_timer, loop_now(r->loop) + SECONDS(seconds),
			       stop_now, o);
	else
		loop_stop(r->loop);
}

static void out_status(struct role *r, struct buf *out)
{
	const struct out_role *o = r->state;

	buf_printf(out,
		   "\"jobs\":%u,\"idle_connections\":%u,\"connections\":%llu,\"reused\":%llu,"
		   "\"delivered\":%llu,"
		   "\"deferred\":%llu,\"failed\":%llu",
		   o->job_count, o->idle_count, (unsigned long long)o->connections,
		   (unsigned long long)o->reused, (unsigned long long)o->delivered,
		   (unsigned long long)o->deferred, (unsigned long long)o->failed);
}

const struct role_ops role_out_ops = {
	.kind = ROLE_OUT,
	.sandbox = SANDBOX_CONNECT,
	.init = out_init,
	.file = out_login_file,
	.prepare = out_prepare,
	.message = out_message,
	.peer_down = out_peer_down,
	.reload = out_reload,
	.stop = out_stop,
	.status = out_status,
};
