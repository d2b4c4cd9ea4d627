/* Role queue: telling senders.
 *
 * Recipients of one message that ask for the same kind of notice within a moment share one. Writing
 * it takes a fiber: the original is read from store, the notice composed (queue/bounce.h) and
 * submitted (queue/submit.h). What failed ends in the very commit that brings its notice; so the
 * order is: first the notice, then nothing, and a crash in between tries the recipient again, which
 * costs the other server a second refusal and loses nothing.
 *
 * Success is different, since trying again would deliver twice: it is recorded first, as
 * QUEUE_FAILED with a status that begins with 2 ("finished, notice owed"), and leased again for its
 * notice. A notice that cannot be submitted for the moment leaves the record in that state too, and
 * comes back with the back-off. What store itself delivered begins there: QUEUE_DELIVERED and
 * QUEUE_EXPANDED came with the delivery's own commit. One that is refused, because its recipient
 * does not exist, is dropped with a line in the log and an event, as with Postfix: it has the null
 * sender, and there is nobody left to tell.
 */
#include "base/os.h"
#include "base/trace.h"
#include "conf/conf.h"
#include "mime/header.h"
#include "queue/submit.h"
#include "roles/queue_priv.h"
#include "store/body.h"

#include <stdlib.h>

enum { NOTICE_BUDGET = 4 * 1024 * 1024 };

struct notice {
	struct link in_notices;
	struct index_node by_message;
	struct queue_role *q;
	uint64_t message;
	enum queue_notice kind;
	struct timer timer;
	bool is_ready, is_running;
	struct arena *arena;
	struct sched_rcpt *rcpts[BOUNCE_RCPTS_MAX];
	int64_t due_us[BOUNCE_RCPTS_MAX]; /* DELAYED: of the next attempt */
	struct bounce_rcpt facts[BOUNCE_RCPTS_MAX];
	size_t count;
};

/* ---- collecting ---- */

static void notice_free(struct notice *n)
{
	link_remove(&n->in_notices);
	index_remove(&n->q->notices_by_message, &n->by_message);
	loop_timer_cancel(n->q->role->loop, &n->timer);
	arena_free(n->arena);
	free(n);
}

static void notice_ready(void *arg)
{
	struct notice *n = arg;

	n->is_ready = true;
	notices_run(n->q);
}

static struct notice *notice_for(struct queue_role *q, uint64_t message, enum queue_notice kind)
{
	struct notice *n;

	for (struct index_node *x = index_first(&q->notices_by_message, message); x;
	     x = index_next(x)) {
		n = CONTAINER_OF(x, struct notice, by_message);
		if (n->message == message && n->kind == kind && !n->is_running &&
		    n->count < BOUNCE_RCPTS_MAX)
			return n;
	}
	n = calloc(1, sizeof(*n));
	if (!n)
		return NULL;
	n->q = q;
	n->message = message;
	n->kind = kind;
	n->arena = arena_new(NOTICE_BUDGET);
	if (!n->arena || index_add(&q->notices_by_message, &n->by_message, message)) {
		arena_free(n->arena);
		free(n);
		return NULL;
	}
	list_append(&q->notices, &n->in_notices);
	loop_timer_set(q->role->loop, &n->timer,
		       loop_now(q->role->loop) + MILLISECONDS(QUEUE_NOTICE_WAIT_MS), notice_ready,
		       n);
	return n;
}

static void kept_recorded(void *arg)
{
	struct sched_rcpt *r = arg;
	struct queue_role *q = r->user;

	sched_free(q->sched, r);
	queue_pump(q);
}

static void kept_record(struct queue_role *q, struct sched_rcpt *r, struct msg_q_outcome m)
{
	m.id = r->r.id;
	m.token = r->r.token;
	r->user = q;
	if (outcome_send(q, &m, kept_recorded, r))
		sched_free(q->sched, r);
}

static void notice_put(struct queue_role *q, struct sched_rcpt *r, enum queue_notice kind,
		       int64_t due_us, struct bounce_rcpt facts)
{
	struct notice *n = notice_for(q, r->r.message, kind);

	if (!n) {
		/* Its lease ends, and it comes back. */
		log_error(&q->role->log, "notice-postponed", "error=NO_MEMORY");
		sched_free(q->sched, r);
		return;
	}
	facts.record = &r->r;
	facts.remote = arena_str(n->arena, facts.remote);
	facts.reply = arena_str(n->arena, facts.reply);
	facts.status = arena_str(n->arena, facts.status);
	n->rcpts[n->count] = r;
	n->due_us[n->count] = due_us;
	n->facts[n->count++] = facts;
}

void notice_add(struct queue_role *q, struct sched_rcpt *r, enum queue_notice kind,
		const struct queue_decision *d, const struct rec_out_answer *answer)
{
	struct bounce_rcpt facts = { .remote = answer->remote,
				     .reply = answer->reply,
				     .status = answer->status,
				     .is_expired = d->is_expired };

	if (kind == NOTICE_RELAYED) {
		kept_record(q, r,
			    (struct msg_q_outcome){ .state = QUEUE_FAILED,
						    .due_us = queue_now(),
						    .attempted = true,
						    .remote = facts.remote,
						    .reply = facts.reply,
						    .status = facts.status });
		return;
	}
	notice_put(q, r, kind, d->due_us, facts);
}

void notice_resume(struct queue_role *q, struct sched_rcpt *r)
{
	struct bounce_rcpt facts = { .remote = r->r.remote,
				     .reply = r->r.reply,
				     .status = r->r.status,
				     .is_expired = str_starts(r->r.status, S("4.")) };

	notice_put(q, r, queue_notice_of(r->r.state, r->r.status), 0, facts);
}

/* ---- the original ---- */

static enum err original_read(struct notice *n, const struct msg_q_body_reply *body, bool whole,
			      str *out)
{
	struct rec_body_location at;
	str rest = body->location;
	size_t size, from;
	char *text;
	enum err err = rec_body_location_get(&rest, &at);

	if (err)
		return err;
	size = (size_t)MIN(at.size, (uint64_t)BOUNCE_ORIGINAL_MAX);
	from = body->prefix.n;
	text = arena_alloc(n->arena, from + size);
	if (!text)
		return ERR_NO_MEMORY;
	memcpy(text, from ? body->prefix.p : "", from);
	if (size && (err = body_read(n->q->cipher, body->file, &at, 0, size, text + from)))
		return err;
	*out = str_of(text, from + size);
	if (!whole)
		*out = str_head(*out, header_block_length(*out));
	return ERR_OK;
}

/* ERR_STALE: our lease is void, and so is this notice. Other errors: it goes without the original.
 */
static enum err original(struct notice *n, struct bounce *b)
{
	struct role *role = n->q->role;
	const struct rec_queue_record *r = n->facts[0].record;
	struct msg_q_body_reply body;
	enum err err;

	/* RFC 3461 4.3: RET is about failures; the other notices bring the header alone. */
	b->is_whole = n->kind == NOTICE_FAILED && r->ret != 2 && r->size <= BOUNCE_ORIGINAL_MAX;
	err = CALL(role_peer(role, ROLE_STORE, 0), q_body, q_body_reply, &body, n->arena,
		   loop_now(role->loop) + SECONDS(QUEUE_CALL_SECONDS), .id = r->id,
		   .token = r->token);
	if (err)
		return err;
	err = original_read(n, &body, b->is_whole, &b->original);
	if (err)
		b->original = STR_EMPTY;
	if (body.file > 0)
		os_close(body.file);
	return err;
}

/* ---- writing ---- */

static void facts_of(struct notice *n, struct bounce *b)
{
	const struct rec_queue_record *r = n->facts[0].record;
	const struct conf *conf = n->q->role->conf;
	char *id = arena_alloc(n->arena, MSGID_TEXT + 1);

	*b = (struct bounce){
		.notice = n->kind,
		.hostname = arena_str(n->arena, conf_str(conf, CONF_myhostname)),
		.origin = arena_str(n->arena, conf_str(conf, CONF_myorigin)),
		.now_us = queue_now(),
		.message = id ? msgid_text(n->message, id) : STR_EMPTY,
		.sender = r->sender,
		.envid = r->envid,
		.arrived_us = r->created_us,
		.gives_up_us = r->created_us + n->q->limits.lifetime_us,
		.rcpts = n->facts,
		.count = n->count,
	};
	b->zone = (int16_t)os_zone_minutes(b->now_us);
	os_random(b->random, sizeof(b->random));
}

static enum err notice_submit(struct notice *n, const struct bounce *b,
			      struct submit_result *result)
{
	struct role *role = n->q->role;
	unsigned filters = role_peers(role, ROLE_FILTER);
	struct buf text, ends;
	enum err err;
	struct submit s = {
		.loop = role->loop,
		.auth = role_peer(role, ROLE_AUTH, 0),
		.store = role_peer(role, ROLE_STORE, 0),
		.txn = msgid_next(&role->msgids, os_wall_us()),
		.hostname = b->hostname,
		.rcpt = b->sender,
	};

	s.filter = filters ? role_peer(role, ROLE_FILTER, (unsigned)(s.txn % filters)) : NULL;
	buf_init(&text, BOUNCE_SIZE_MAX);
	buf_init(&ends, 32768);
	bounce_compose(b, &text);
	for (size_t i = 0; i < n->count && n->kind != NOTICE_DELAYED; i++) {
		const struct rec_queue_end end = { .id = n->rcpts[i]->r.id,
						   .token = n->rcpts[i]->r.token };

		rec_queue_end_put(&ends, &end);
	}
	s.message = buf_str(&text);
	s.ends = buf_str(&ends);
	s.body_type = bounce_is_8bit(s.message);
	s.smtputf8 = bounce_is_8bit(b->sender);
	if (!s.auth || !s.store || !s.filter || buf_failed(&text) || buf_failed(&ends)) {
		*result = (struct submit_result){
			.code = 451, .text = S("not everything is there that it takes")
		};
		err = ERR_TEMPORARY;
	} else {
		err = submit_message(&s, n->arena, result);
	}
	buf_free(&text);
	buf_free(&ends);
	return err;
}

/* What is left to be recorded of one recipient after its notice. False: it ended with the notice.
 */
static bool rest_of(struct notice *n, size_t i, enum err err, struct msg_q_outcome *m)
{
	const struct rec_queue_record *r = n->facts[i].record;
	const struct queue_limits *l = &n->q->limits;
	int64_t now = queue_now();
	bool is_too_old = now > r->created_us + l->lifetime_us + l->bounce_lifetime_us;

	*m = (struct msg_q_outcome){ .attempted = true,
				     .remote = n->facts[i].remote,
				     .reply = n->facts[i].reply,
				     .status = n->facts[i].status };
	if (n->kind == NOTICE_DELAYED) {
		m->state = QUEUE_DEFERRED;
		m->due_us = n->due_us[i];
		/* Refused for good counts as told: asking again changes nothing. */
		m->warned_us = err && err != ERR_DENIED ? 0 : now;
		return true;
	}
	if (!err)
		return false;
	if (err == ERR_DENIED || is_too_old)
		m->state = QUEUE_DELETED;
	else if (n->kind == NOTICE_DELIVERED || n->kind == NOTICE_EXPANDED)
		m->state = r->state;
	else
		m->state = QUEUE_FAILED;
	m->due_us = now + queue_backoff(l, r->attempts + 1, os_random_u64());
	return true;
}

static void notice_tell(struct notice *n, size_t i, enum err err, bool is_dropped,
			const struct submit_result *result)
{
	static const char *const words[] = { [NOTICE_NONE] = "nothing",
					     [NOTICE_FAILED] = "it failed",
					     [NOTICE_DELAYED] = "it is late",
					     [NOTICE_RELAYED] = "it was handed on",
					     [NOTICE_DELIVERED] = "it was delivered",
					     [NOTICE_EXPANDED] =
						     "it went to those behind an alias" };
	const struct rec_queue_record *r = n->facts[i].record;
	struct role *role = n->q->role;
	char id[MSGID_TEXT + 1];
	str text = msgid_text(n->message, id);

	n->q->noticed += !err;
	if (!err) {
		log_info(&role->log, "notice-sent", "msg=%.*s to=<%.*s> about=<%.*s> what=\"%s\"",
			 STR_ARGS(text), STR_ARGS(r->sender), STR_ARGS(r->address), words[n->kind]);
		role_trace(role, n->message, TRACE_NOTICE_SENT, r->sender, r->address, "%s",
			   words[n->kind]);
		return;
	}
	log_warn(&role->log, is_dropped ? "notice-dropped" : "notice-postponed",
		 "msg=%.*s to=<%.*s> about=<%.*s> code=%u text=\"%.*s\"", STR_ARGS(text),
		 STR_ARGS(r->sender), STR_ARGS(r->address), result->code, STR_ARGS(result->text));
	if (is_dropped)
		role_trace(role, n->message, TRACE_NOTICE_DROPPED, r->sender, r->address,
			   "the notice was refused: %u %.*s", result->code, STR_ARGS(result->text));
}

static void notice_end(struct notice *n, enum err err, const struct submit_result *result)
{
	struct queue_role *q = n->q;

	for (size_t i = 0; i < n->count; i++) {
		struct msg_q_outcome m;
		bool has_rest = rest_of(n, i, err, &m);

		notice_tell(n, i, err, err == ERR_DENIED || (has_rest && m.state == QUEUE_DELETED),
			    result);
		if (has_rest)
			kept_record(q, n->rcpts[i], m);
		else
			sched_free(q->sched, n->rcpts[i]);
	}
}

static void notice_write(void *arg)
{
	struct notice *n = arg;
	struct queue_role *q = n->q;
	struct submit_result result = { 0 };
	struct bounce b;
	enum err err;

	facts_of(n, &b);
	err = original(n, &b);
	if (err == ERR_STALE || err == ERR_NOT_FOUND) {
		/* Leased by nobody, or ended by the administrator: whatever it is, it comes back or
		 * is gone. */
		for (size_t i = 0; i < n->count; i++)
			sched_free(q->sched, n->rcpts[i]);
	} else {
		notice_end(n, notice_submit(n, &b, &result), &result);
	}
	q->notices_running--;
	notice_free(n);
	notices_run(q);
	queue_pump(q);
}

void notices_run(struct queue_role *q)
{
	for (struct link *l = q->notices.next;
	     l != &q->notices && q->notices_running < QUEUE_NOTICES_MAX; l = l->next) {
		struct notice *n = CONTAINER_OF(l, struct notice, in_notices);

		if (!n->is_ready || n->is_running || q->is_stopping)
			continue;
		/* Without a fiber it waits for the next one that ends. */
		if (fiber_spawn(q->role->loop, notice_write, n))
			return;
		n->is_running = true;
		q->notices_running++;
	}
}

void notices_free(struct queue_role *q)
{
	while (!list_is_empty(&q->notices)) {
		struct notice *n = LIST_FIRST(&q->notices, struct notice, in_notices);

		for (size_t i = 0; i < n->count; i++)
			sched_free(q->sched, n->rcpts[i]);
		notice_free(n);
	}
	index_free(&q->notices_by_message);
}
