/* Role queue with its neighbours played by this test over real channels: store with a handful of
 * records, out with an answer for each address, auth and filter that agree to everything. Asserted
 * is what store was told: outcomes, and notices with what they end. */
#include "base/os.h"
#include "base/tap.h"
#include "conf/conf.h"
#include "roles/queue_priv.h"
#include "store/types.h"

#include <stdarg.h>
#include <stdlib.h>

enum { RECORDS = 8, STORE = 0, OUT, AUTH, FILTER, ADMIN, PEERS };

struct record {
	struct rec_queue_record r;
	bool is_leased, is_gone;
};

struct world {
	struct role role;
	struct chan *ours[PEERS], *theirs[PEERS];
	struct record records[RECORDS];
	size_t count;
	uint64_t busy; /* what out says it is still at */
	bool out_is_mute;
	uint16_t refusal; /* of the next notice */
	bool restarts;	  /* store, when it is told the next outcome */
	uint32_t stale;	  /* the call that it answers when it has handed the record out again */
	/* What happened. */
	struct buf notice;
	unsigned deliveries, notices, begun, lates;
	struct msg_q_outcome last;
	char last_reply[512];
	uint64_t ended[RECORDS];
	unsigned ended_count;
	unsigned goal; /* outcomes and ends until the loop stops */
	unsigned done;
	char answer[4096];
	struct timer guard;
};

/* Roles are reached through these; the frame of a real process is not part of this test. */
static struct world *the_world;

struct chan *role_peer(struct role *r, enum role_kind kind, unsigned index)
{
	static const enum role_kind kinds[PEERS] = { ROLE_STORE, ROLE_OUT, ROLE_AUTH, ROLE_FILTER,
						     ROLE_ADMIN };

	(void)r;
	for (unsigned i = 0; i < PEERS; i++)
		if (kinds[i] == kind && index == 0)
			return the_world->ours[i];
	return NULL;
}

unsigned role_peers(struct role *r, enum role_kind kind)
{
	return role_peer(r, kind, 0) ? 1 : 0;
}

void role_trace(struct role *r, uint64_t message, unsigned event, str sender, str recipient,
		const char *fmt, ...)
{
	(void)r, (void)message, (void)event, (void)sender, (void)recipient, (void)fmt;
}

static void step(struct world *w)
{
	if (++w->done == w->goal)
		loop_stop(w->role.loop);
}

static void must(enum err err)
{
	if (err)
		OK(!"a message could not be sent");
}

/* ---- store ---- */

static void lease(struct world *w, struct chan *c, uint32_t id, const struct msg_q_lease *m,
		  bool scan)
{
	struct buf b;
	int64_t next = 0;

	buf_init(&b, 57344);
	for (size_t i = 0; i < w->count; i++) {
		struct record *x = &w->records[i];

		if (x->is_gone || (!scan && (x->is_leased || x->r.state == QUEUE_HELD)))
			continue;
		if (!scan && x->r.due_us > m->now_us) {
			next = next && next < x->r.due_us ? next : x->r.due_us;
			continue;
		}
		if (!scan) {
			x->is_leased = true;
			x->r.token += 100;
		}
		rec_queue_record_put(&b, &x->r);
	}
	must(REPLY(c, id, q_records, .records = buf_str(&b), .next_due_us = next));
	buf_free(&b);
	if (w->stale)
		must(REPLY_FAILED(c, w->stale, ERR_STALE, STR_EMPTY));
	w->stale = 0;
}

static void end(struct world *w, struct record *x)
{
	x->is_gone = true;
	w->ended[w->ended_count++] = x->r.id;
}

static void outcome(struct world *w, struct chan *c, uint32_t id, const struct msg_q_outcome *m)
{
	for (size_t i = 0; i < w->count; i++) {
		struct record *x = &w->records[i];

		if (x->r.id != m->id || x->is_gone)
			continue;
		if (w->restarts) {
			w->restarts = x->is_leased = false;
			w->stale = id;
			must(SEND(c, q_hint));
			return;
		}
		if (m->token && m->token != x->r.token) {
			must(REPLY_FAILED(c, id, ERR_STALE, STR_EMPTY));
			return;
		}
		w->last = *m;
		memcpy(w->last_reply, m->reply.n ? m->reply.p : "", m->reply.n);
		w->last.reply = str_of(w->last_reply, m->reply.n);
		x->is_leased = false;
		x->r.state = m->state;
		x->r.due_us = m->due_us;
		/* The test's status alone is kept: it is what a notice that is owed is told by. */
		x->r.status = m->status.n && m->status.p[0] == '2' ? S("2.0.0") : S("5.1.1");
		if (m->state == QUEUE_SENT || m->state == QUEUE_DELETED)
			end(w, x);
		must(REPLY(c, id, done));
		step(w);
		return;
	}
	must(REPLY_FAILED(c, id, ERR_NOT_FOUND, STR_EMPTY));
}

static void store_message(void *arg, struct chan *c, struct msg *m)
{
	struct world *w = arg;

	if (m->type == MSG_q_begin) {
		w->begun++;
		must(REPLY(c, m->id, done));
	} else if (m->type == MSG_q_lease || m->type == MSG_q_scan) {
		lease(w, c, m->id, &m->u.q_lease, m->type == MSG_q_scan);
	} else if (m->type == MSG_q_outcome) {
		outcome(w, c, m->id, &m->u.q_outcome);
	} else if (m->type == MSG_q_body) {
		must(REPLY_FAILED(c, m->id, ERR_IO, STR_EMPTY));
	} else if (m->type == MSG_txn_body) {
		w->notices++;
		buf_clear(&w->notice);
		buf_add(&w->notice, m->u.txn_body.inline_body);
		must(REPLY(c, m->id, txn_reply, .txn = m->u.txn_body.txn,
			   .code = w->refusal ? w->refusal : 250));
		step(w);
	}
}

/* ---- out, auth, filter, admin ---- */

static void deliver(struct world *w, struct chan *c, uint32_t id, const struct msg_out_deliver *m)
{
	struct rec_out_rcpt r;
	struct buf b;

	w->deliveries++;
	if (w->out_is_mute)
		return;
	buf_init(&b, 57344);
	for (str rest = m->rcpts; !rec_out_rcpt_get(&rest, &r);) {
		bool bad = str_starts(r.address, S("bad")),
		     gone = str_find(r.address, S("@gone.")) != STR_NONE,
		     later = gone || str_starts(r.address, S("later"));
		struct rec_out_answer a = {
			.id = r.id,
			.state = bad	 ? QUEUE_FAILED
				 : later ? QUEUE_DEFERRED
					 : QUEUE_SENT,
			.code = bad	? 550
				: gone	? 0
				: later ? 450
					: 250,
			.status = bad	  ? S("5.1.1")
				  : gone  ? S("4.4.1")
				  : later ? S("4.2.0")
					  : S("2.0.0"),
			.remote = S("mx.example.net[192.0.2.1]:25"),
			.reply = bad	 ? S("550 5.1.1 No such user")
				 : later ? S("450 4.2.0 Later")
					 : S("250 2.0.0 Ok"),
		};

		rec_out_answer_put(&b, &a);
	}
	must(REPLY(c, id, out_result, .results = buf_str(&b)));
	buf_free(&b);
}

static void out_message(void *arg, struct chan *c, struct msg *m)
{
	struct world *w = arg;
	char id[8];

	if (m->type == MSG_out_deliver) {
		deliver(w, c, m->id, &m->u.out_deliver);
		return;
	}
	put_le64(id, w->busy);
	must(REPLY(c, m->id, out_jobs_reply, .ids = str_of(id, w->busy ? 8 : 0)));
}

static void auth_message(void *arg, struct chan *c, struct msg *m)
{
	struct world *w = arg;
	struct rec_queue_end e;

	if (m->type == MSG_auth_mail || m->type == MSG_auth_rcpt)
		must(REPLY(c, m->id, auth_verdict, .code = 250));
	if (m->type == MSG_auth_mail)
		EQ(m->u.auth_mail.sender.n, 0);
	if (m->type != MSG_auth_commit || w->refusal)
		return;
	for (str rest = m->u.auth_commit.ends; !rec_queue_end_get(&rest, &e);)
		for (size_t i = 0; i < w->count; i++)
			if (w->records[i].r.id == e.id && w->records[i].r.token == e.token)
				end(w, &w->records[i]);
}

static void ignore(void *arg, struct chan *c, struct msg *m)
{
	(void)arg, (void)c, (void)m;
}

static void ours_message(void *arg, struct chan *c, struct msg *m)
{
	struct world *w = arg;

	role_queue_ops.message(&w->role, c, m);
}

static void down(void *arg, struct chan *c, enum err why)
{
	(void)arg, (void)c;
	if (why == ERR_PROTOCOL)
		OK(!"a channel was cut off");
}

static const struct chan_ops our_ops = { ours_message, down };
static const struct chan_ops their_ops[PEERS] = { { store_message, down },
						  { out_message, down },
						  { auth_message, down },
						  { ignore, down },
						  { ignore, down } };

/* ---- the world ---- */

static void too_long(void *arg)
{
	OK(!"nothing more happens");
	loop_stop(((struct world *)arg)->role.loop);
}

static struct arena *conf_arena;

static void begin_with(struct world *w, str conf)
{
	static const enum role_kind kinds[PEERS] = { ROLE_STORE, ROLE_OUT, ROLE_AUTH, ROLE_FILTER,
						     ROLE_ADMIN };

	*w = (struct world){ .role = { .ops = &role_queue_ops, .kind = ROLE_QUEUE } };
	the_world = w;
	buf_init(&w->notice, 1024 * 1024);
	log_init(&w->role.log, LOG_TO_STDERR, LOG_LEVEL_ERROR, "queue.0");
	conf_arena = arena_new(CONF_ARENA_SIZE);
	must(conf_parse(conf, S("posthorn.conf"), conf_arena, NULL, &w->role.conf));
	must(loop_new(&w->role.loop));
	for (unsigned i = 0; i < PEERS; i++) {
		int fd[2];

		must(os_socketpair(true, fd));
		must(chan_new(w->role.loop, ROLE_QUEUE, kinds[i], 0, &our_ops, w, &w->ours[i]));
		must(chan_new(w->role.loop, kinds[i], ROLE_QUEUE, 0, &their_ops[i], w,
			      &w->theirs[i]));
		must(chan_attach(w->ours[i], fd[0]));
		must(chan_attach(w->theirs[i], fd[1]));
	}
	must(role_queue_ops.init(&w->role));
}

static void begin(struct world *w)
{
	begin_with(w, S("myhostname = mx.example.org\n"));
}

static void add(struct world *w, uint64_t id, uint64_t message, str sender, str address,
		uint8_t notify)
{
	w->records[w->count++].r = (struct rec_queue_record){ .id = id,
							      .token = id,
							      .message = message,
							      .sender = sender,
							      .address = address,
							      .notify = notify,
							      .size = 10,
							      .created_us = os_wall_us() };
}

static void run(struct world *w, unsigned goal)
{
	w->goal = w->done + goal;
	loop_timer_set(w->role.loop, &w->guard, os_monotonic_ns() + SECONDS(60), too_long, w);
	must(loop_run(w->role.loop));
	loop_timer_cancel(w->role.loop, &w->guard);
}

static void stop_turn(void *arg)
{
	loop_stop(((struct world *)arg)->role.loop);
}

static void turn(struct world *w)
{
	loop_timer_set(w->role.loop, &w->guard, os_monotonic_ns() + MILLISECONDS(1), stop_turn, w);
	must(loop_run(w->role.loop));
}

/* Until our side knows what store has said. */
static void finish(struct world *w)
{
	const struct queue_role *q = w->role.state;

	while (q->outcomes || q->notices_running)
		turn(w);
	loop_timer_cancel(w->role.loop, &w->guard);
	for (unsigned i = 0; i < PEERS; i++) {
		if (w->theirs[i])
			chan_free(w->theirs[i]);
		chan_free(w->ours[i]);
	}
	queue_free(w->role.state);
	buf_free(&w->notice);
	arena_free(conf_arena);
	loop_free(w->role.loop);
}

static void test_sent_and_bounced(void)
{
	struct world w;

	tap_group("sent and returned");
	begin(&w);
	add(&w, 1, 7, S("a@example.org"), S("good@example.net"), 0);
	add(&w, 2, 7, S("a@example.org"), S("bad1@example.net"), 0);
	add(&w, 3, 7, S("a@example.org"), S("bad2@example.net"), 0);
	add(&w, 4, 8, S(""), S("bad3@example.net"), 0);
	must(role_queue_ops.start(&w.role));
	run(&w, 3);
	EQ(w.begun, 1);
	EQ(w.deliveries, 2);
	EQ(w.notices, 1);
	EQ(w.ended_count, 4);
	/* Both in one. */
	OK(str_find(buf_str(&w.notice), S("bad1@example.net")) != STR_NONE);
	OK(str_find(buf_str(&w.notice), S("bad2@example.net")) != STR_NONE);
	OK(str_find(buf_str(&w.notice), S("good@example.net")) == STR_NONE);
	OK(str_find(buf_str(&w.notice), S("bad3@example.net")) == STR_NONE);
	OK(str_find(buf_str(&w.notice), S("To: <a@example.org>")) != STR_NONE);
	finish(&w);
}

static void test_deferred(void)
{
	struct world w;
	int64_t now = os_wall_us();

	tap_group("deferred");
	begin(&w);
	add(&w, 1, 7, S("a@example.org"), S("later@example.net"), 0);
	must(role_queue_ops.start(&w.role));
	run(&w, 1);
	EQ(w.last.state, QUEUE_DEFERRED);
	OK(w.last.attempted);
	OK(w.last.due_us >= now + 270 * 1000000ll);
	OK(w.last.due_us <= os_wall_us() + 330 * 1000000ll);
	STR_EQ(w.last.reply, S("450 4.2.0 Later"));
	finish(&w);
}

static void test_tried_again(void)
{
	struct world w;

	tap_group("tried again");
	begin_with(&w, S("minimal_backoff_time = 1s\nmaximal_backoff_time = 1s\n"));
	add(&w, 1, 7, S("a@example.org"), S("later@example.net"), 0);
	must(role_queue_ops.start(&w.role));
	run(&w, 2);
	EQ(w.deliveries, 2);
	EQ(w.ended_count, 0);
	finish(&w);
}

/* A destination that cannot be reached: what waits for it is not tried, and its senders hear of the
 * delay all the same. */
static void test_delay_told(void)
{
	struct world w;

	tap_group("the delay of what is not tried is told");
	begin_with(&w, S("myhostname = mx.example.org\ndelay_warning_time = 1h\n"));
	for (uint64_t i = 1; i <= RECORDS; i++) {
		add(&w, i, 6 + i, S("a@example.org"), S("x@gone.example"), 0);
		w.records[i - 1].r.created_us -= 2 * 3600 * 1000000ll;
	}
	must(role_queue_ops.start(&w.role));
	run(&w, 2 * RECORDS); /* a notice and an outcome for each */
	EQ(w.notices, RECORDS);
	OK(w.deliveries < RECORDS);
	OK(str_find(buf_str(&w.notice), S("Action: delayed")) != STR_NONE);
	EQ(w.last.state, QUEUE_DEFERRED);
	OK(w.last.warned_us > 0);
	OK(w.last.due_us > os_wall_us() + 200 * 1000000ll);
	finish(&w);
}

static void test_success_notice(void)
{
	struct world w;

	tap_group("success told");
	begin(&w);
	add(&w, 1, 7, S("a@example.org"), S("good@example.net"), 2);
	must(role_queue_ops.start(&w.role));
	/* Recorded first, then told; delivered once. */
	run(&w, 2);
	EQ(w.deliveries, 1);
	EQ(w.notices, 1);
	EQ(w.ended_count, 1);
	OK(str_find(buf_str(&w.notice), S("Action: relayed")) != STR_NONE);
	finish(&w);
}

/* What store delivered by itself: nothing to send, and both recipients in one notice that ends
 * them. */
static void test_delivered_here(void)
{
	struct world w;

	tap_group("delivered here");
	begin_with(&w, S("minimal_backoff_time = 1s\nmaximal_backoff_time = 1s\n"));
	add(&w, 1, 7, S("a@example.org"), S("bob@example.org"), 2);
	add(&w, 2, 7, S("a@example.org"), S("carol@example.org"), 2);
	w.records[0].r.state = w.records[1].r.state = QUEUE_DELIVERED;
	w.refusal = 451;
	must(role_queue_ops.start(&w.role));
	/* Refused for the moment: both stay what they are, and are due again. */
	run(&w, 3);
	EQ(w.ended_count, 0);
	EQ(w.last.state, QUEUE_DELIVERED);
	EQ(w.records[0].r.state, QUEUE_DELIVERED);
	w.refusal = 0;
	run(&w, 1);
	EQ(w.ended_count, 2);
	EQ(w.notices, 2);
	OK(str_find(buf_str(&w.notice),
		    S("Final-Recipient: rfc822; bob@example.org\r\nAction: delivered")) !=
	   STR_NONE);
	OK(str_find(buf_str(&w.notice),
		    S("Final-Recipient: rfc822; carol@example.org\r\nAction: delivered")) !=
	   STR_NONE);
	EQ(w.deliveries, 0);
	finish(&w);

	tap_group("an alias of several");
	begin(&w);
	add(&w, 3, 8, S("a@example.org"), S("team@example.org"), 2);
	w.records[0].r.state = QUEUE_EXPANDED;
	must(role_queue_ops.start(&w.role));
	run(&w, 1);
	EQ(w.ended_count, 1);
	EQ(w.deliveries, 0);
	OK(str_find(buf_str(&w.notice),
		    S("Final-Recipient: rfc822; team@example.org\r\nAction: expanded")) !=
	   STR_NONE);
	finish(&w);
}

static void late(void *arg)
{
	struct world *w = arg;
	const struct rec_out_answer a = { .id = 1,
					  .state = QUEUE_SENT,
					  .code = 250,
					  .status = S("2.0.0"),
					  .reply = S("250 ok") };
	struct buf b;

	buf_init(&b, 1024);
	rec_out_answer_put(&b, &a);
	must(SEND(w->theirs[OUT], out_late, .results = buf_str(&b)));
	buf_free(&b);
}

static void test_restarted(void)
{
	struct timer soon = { 0 };
	struct world w;

	tap_group("after the death of a queue process");
	begin(&w);
	w.busy = 1;
	add(&w, 1, 7, S("a@example.org"), S("good@example.net"), 0);
	add(&w, 2, 8, S("a@example.org"), S("good@example.com"), 0);
	must(role_queue_ops.start(&w.role));
	run(&w, 1);
	/* The one that out is still at is not sent again; its answer is recorded when it comes. */
	EQ(w.deliveries, 1);
	EQ(w.ended[0], 2);
	loop_timer_set(w.role.loop, &soon, os_monotonic_ns(), late, &w);
	run(&w, 1);
	EQ(w.deliveries, 1);
	EQ(w.ended_count, 2);
	EQ(w.ended[1], 1);
	finish(&w);
}

static void test_out_dies(void)
{
	struct world w;

	tap_group("out dies");
	begin(&w);
	w.out_is_mute = true;
	add(&w, 1, 7, S("a@example.org"), S("good@example.net"), 0);
	must(role_queue_ops.start(&w.role));
	w.goal = 0;
	while (!w.deliveries)
		turn(&w);
	chan_free(w.theirs[OUT]);
	run(&w, 1);
	w.theirs[OUT] = NULL;
	EQ(w.last.state, QUEUE_DEFERRED);
	OK(w.last.due_us > os_wall_us());
	finish(&w);
}

/* The store hands a record out again while the outcome of its last life's lease is on the way: that
 * is the new lease's too, for nobody else would end it. */
static void test_store_restarts(void)
{
	struct world w;

	tap_group("store is restarted");
	begin(&w);
	w.restarts = true;
	add(&w, 1, 7, S("a@example.org"), S("later@example.net"), 0);
	must(role_queue_ops.start(&w.role));
	run(&w, 1);
	EQ(w.deliveries, 1);
	EQ(w.last.state, QUEUE_DEFERRED);
	EQ(w.last.token, w.records[0].r.token);
	OK(!w.records[0].is_leased);
	finish(&w);
}

/* ---- commands ---- */

static void answered(void *arg, enum err err, struct msg *reply)
{
	struct world *w = arg;

	EQ(err, ERR_OK);
	if (!err && reply->type == MSG_command_output)
		snprintf(w->answer, sizeof(w->answer), "%d|%.*s|%.*s", reply->u.command_output.exit,
			 STR_ARGS(reply->u.command_output.out),
			 STR_ARGS(reply->u.command_output.err));
	loop_stop(w->role.loop);
}

static str command(struct world *w, str args)
{
	struct msg_command m = { .args = args };

	must(chan_call_async(w->theirs[ADMIN], MSG_command, &m,
			     loop_now(w->role.loop) + SECONDS(30), answered, w));
	w->goal = 0;
	must(loop_run(w->role.loop));
	return str_from_c(w->answer);
}

static void test_commands(void)
{
	char id[MSGID_TEXT + 1], args[64];
	struct world w;
	str list, text = msgid_text(7, id);
	int n;

	tap_group("commands");
	begin(&w);
	STR_EQ(command(&w, S("queue\0list\0")), S("0|The queue is empty.\n|"));
	STR_EQ(command(&w, S("queue\0list\0--json\0")), S("0||"));
	OK(str_starts(command(&w, S("queue\0nonsense\0")), S("2||usage: ")));
	OK(str_starts(command(&w, S("queue\0delete\0")), S("2||usage: ")));
	add(&w, 1, 7, S("a@example.org"), S("good@\"\x1b.net"), 0);
	w.records[0].r.due_us = os_wall_us() + 1000000000ll;
	list = command(&w, S("queue\0list\0"));
	OK(str_find(list, text) != STR_NONE);
	OK(str_find(list, S("<good@\"?.net>")) != STR_NONE);
	list = command(&w, S("queue\0list\0--json\0"));
	OK(str_find(list, S("\"recipient\":\"good@\\\"\\u001b.net\"")) != STR_NONE);
	n = snprintf(args, sizeof(args), "queue%chold%c%.*s%c", 0, 0, STR_ARGS(text), 0);
	STR_EQ(command(&w, str_of(args, (size_t)n)), S("0|1 recipients held\n|"));
	EQ(w.records[0].r.state, QUEUE_HELD);
	STR_EQ(command(&w, S("queue\0flush\0")), S("0||"));
	EQ(w.records[0].r.state, QUEUE_HELD);
	STR_EQ(command(&w, S("queue\0release\0ALL\0")), S("0|1 recipients released\n|"));
	EQ(w.records[0].r.state, QUEUE_DUE);
	n = snprintf(args, sizeof(args), "queue%cdelete%c%.*s%c", 0, 0, STR_ARGS(text), 0);
	STR_EQ(command(&w, str_of(args, (size_t)n)), S("0|1 recipients deleted\n|"));
	OK(w.records[0].is_gone);
	STR_EQ(command(&w, str_of(args, (size_t)n)),
	       S("1||There is no such message in the queue.\n"));
	finish(&w);
}

int main(void)
{
	test_sent_and_bounced();
	test_deferred();
	test_tried_again();
	test_delay_told();
	test_success_notice();
	test_delivered_here();
	test_restarted();
	test_out_dies();
	test_store_restarts();
	test_commands();
	return tap_done();
}
