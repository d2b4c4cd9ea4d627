/* Channels at their limits and in awkward moments: calls without a fiber, late replies, queues that
 * are full, windows that are closed on both sides, channels freed inside their own callbacks. */
#include "base/chan.h"
#include "base/tap.h"

#include <stdlib.h>

struct end {
	struct chan *c;
	int messages, downs, answers, errors;
	enum err why, last_err;
	bool mute, free_on_message, free_on_down;
	uint32_t call_id; /* of the last call that was not answered */
};

struct test {
	struct loop *loop;
	struct end a, b; /* a calls, b answers */
	struct arena *arena;
	struct timer timer;
	int done, wanted;
	enum err err;
};

static void on_message(void *arg, struct chan *c, struct msg *m)
{
	struct end *e = arg;
	enum err err = ERR_OK;
	size_t n;

	e->messages++;
	e->call_id = m->id;
	if (e->free_on_message) {
		e->c = NULL;
		chan_free(c);
		return;
	}
	if (m->type == MSG_auth_mail && m->u.auth_mail.socket > 0)
		err = os_send(m->u.auth_mail.socket, "via fd", 6, &n);
	if (m->type == MSG_auth_rcpt && !e->mute)
		err = REPLY(c, m->id, auth_verdict, .code = 250, .text = m->u.auth_rcpt.address);
	if (err)
		EQ(err, ERR_OK);
}

static void on_down(void *arg, struct chan *c, enum err why)
{
	struct end *e = arg;

	e->downs++;
	e->why = why;
	if (e->free_on_down) {
		e->c = NULL;
		chan_free(c);
	}
}

static const struct chan_ops ops = { .on_message = on_message, .on_down = on_down };

static void connect_ends(struct test *t)
{
	int fd[2];

	EQ(os_socketpair(true, fd), ERR_OK);
	EQ(chan_attach(t->a.c, fd[0]), ERR_OK);
	EQ(chan_attach(t->b.c, fd[1]), ERR_OK);
}

static void set_up_as(struct test *t, enum role_kind a, enum role_kind b)
{
	*t = (struct test){ 0 };
	EQ(loop_new(&t->loop), ERR_OK);
	t->arena = arena_new(1 << 20);
	EQ(chan_new(t->loop, a, b, 0, &ops, &t->a, &t->a.c), ERR_OK);
	EQ(chan_new(t->loop, b, a, 0, &ops, &t->b, &t->b.c), ERR_OK);
	connect_ends(t);
}

static void set_up(struct test *t)
{
	set_up_as(t, ROLE_FRONT, ROLE_AUTH);
}

static void tear_down(struct test *t)
{
	chan_free(t->a.c);
	chan_free(t->b.c);
	EQ(loop_run(t->loop), ERR_OK);
	loop_free(t->loop);
	arena_free(t->arena);
}

static void stop(void *arg)
{
	struct test *t = arg;

	loop_stop(t->loop);
}

/* Runs the loop until `stop` or, where nothing stops it, a while. */
static void run_for(struct test *t, int64_t ns)
{
	loop_timer_set(t->loop, &t->timer, loop_now(t->loop) + ns, stop, t);
	EQ(loop_run(t->loop), ERR_OK);
	loop_timer_cancel(t->loop, &t->timer);
}

static void answered(void *arg, enum err err, struct msg *reply)
{
	struct test *t = arg;

	t->a.last_err = err;
	t->a.answers += !err && reply && reply->type == MSG_auth_verdict;
	t->a.errors += err && !reply;
	if (t->a.answers + t->a.errors == t->wanted)
		loop_stop(t->loop);
}

static enum err ask(struct test *t, int64_t deadline)
{
	return chan_call_async(t->a.c, MSG_auth_rcpt,
			       &(struct msg_auth_rcpt){ .txn = 1, .address = S("x@y") }, deadline,
			       answered, t);
}

static void test_async(void)
{
	struct test t;

	tap_group("calls without a fiber");
	set_up(&t);
	t.wanted = 1;
	EQ(ask(&t, LOOP_NEVER), ERR_OK);
	run_for(&t, SECONDS(20));
	EQ(t.a.answers, 1);
	t.b.mute = true;
	t.wanted = 2;
	EQ(ask(&t, loop_now(t.loop) + MILLISECONDS(2)), ERR_OK);
	EQ(chan_counts(t.a.c).calls, 1);
	run_for(&t, SECONDS(20));
	EQ(t.a.last_err, ERR_TIMEOUT);
	EQ(chan_counts(t.a.c).calls, 0);
	t.wanted = 3;
	EQ(ask(&t, LOOP_NEVER), ERR_OK);
	chan_free(t.b.c);
	t.b.c = NULL;
	run_for(&t, SECONDS(20));
	EQ(t.a.last_err, ERR_CLOSED);
	EQ(t.a.downs, 1);
	EQ(ask(&t, LOOP_NEVER), ERR_CLOSED); /* no waiting without a fiber */
	EQ(chan_counts(t.a.c).calls, 0);
	tear_down(&t);
}

static void free_in_answer(void *arg, enum err err, struct msg *reply)
{
	struct test *t = arg;

	(void)reply;
	t->a.last_err = err;
	chan_free(t->a.c);
	t->a.c = NULL;
	loop_stop(t->loop);
}

static void test_free_inside(void)
{
	const struct msg_auth_rcpt m = { .txn = 1, .address = S("x@y") };
	struct test t;
	int fd[2];

	tap_group("freed in on_message");
	set_up(&t);
	t.b.free_on_message = true;
	EQ(SEND(t.a.c, auth_reset, .txn = 1), ERR_OK);
	EQ(SEND(t.a.c, auth_reset, .txn = 2), ERR_OK);
	run_for(&t, MILLISECONDS(20));
	EQ(t.b.messages, 1);
	EQ(t.b.downs, 0);
	EQ(t.a.downs, 1);
	tear_down(&t);
	tap_group("freed in on_down");
	set_up(&t);
	t.a.free_on_down = true;
	chan_free(t.b.c);
	t.b.c = NULL;
	run_for(&t, MILLISECONDS(20));
	EQ(t.a.downs, 1);
	tear_down(&t);
	tap_group("freed in on_down while a new socket is attached");
	set_up(&t);
	t.a.free_on_down = true;
	EQ(os_socketpair(true, fd), ERR_OK);
	EQ(chan_attach(t.a.c, fd[0]), ERR_CLOSED);
	OK(t.a.c == NULL);
	os_close(fd[0]);
	os_close(fd[1]);
	tear_down(&t);
	tap_group("freed when a call is answered");
	set_up(&t);
	EQ(chan_call_async(t.a.c, MSG_auth_rcpt, &m, LOOP_NEVER, free_in_answer, &t), ERR_OK);
	run_for(&t, SECONDS(20));
	EQ(t.a.last_err, ERR_OK);
	tear_down(&t);
	tap_group("freed when a call is too late");
	set_up(&t);
	t.b.mute = true;
	EQ(chan_call_async(t.a.c, MSG_auth_rcpt, &m, loop_now(t.loop) + MILLISECONDS(1),
			   free_in_answer, &t),
	   ERR_OK);
	run_for(&t, SECONDS(20));
	EQ(t.a.last_err, ERR_TIMEOUT);
	tear_down(&t);
}

/* More calls at once than both windows hold: acknowledgements must pass what waits. */
static void test_many_calls(void)
{
	struct test t;

	tap_group("many calls at once");
	set_up(&t);
	t.wanted = 6 * CHAN_WINDOW;
	for (int i = 0; i < t.wanted; i++) {
		enum err err = ask(&t, loop_now(t.loop) + SECONDS(20));

		if (err)
			EQ(err, ERR_OK);
	}
	run_for(&t, SECONDS(60));
	EQ(t.a.answers, t.wanted);
	EQ(chan_counts(t.a.c).queued_bytes, 0);
	EQ(chan_counts(t.b.c).queued_bytes, 0);
	tear_down(&t);
	tap_group("both sides at once");
	set_up(&t);
	/* Neither reads before both have filled window and queue. */
	for (int i = 0; i < 3 * CHAN_WINDOW; i++)
		if (SEND(t.a.c, auth_reset, .txn = 1) || SEND(t.b.c, auth_verdict, .code = 250))
			OK(!"taken");
	run_for(&t, MILLISECONDS(500));
	EQ(t.a.messages, 3 * CHAN_WINDOW);
	EQ(t.b.messages, 3 * CHAN_WINDOW);
	tear_down(&t);
	tap_group("calls at their limit");
	set_up(&t);
	t.b.mute = true;
	for (int i = 0; i < CHAN_CALLS_MAX; i++)
		if (ask(&t, LOOP_NEVER))
			OK(!"below the limit");
	EQ(ask(&t, LOOP_NEVER), ERR_BUSY);
	tear_down(&t);
}

enum { STEP_HEAD = MSG_HEADER + 8 + 4, STEP_MAX = 12288 };

static enum err send_sized(struct chan *c, size_t n)
{
	static char bytes[STEP_MAX];

	return SEND(c, auth_sasl_step, .conn = 1, .response = str_of(bytes, n - STEP_HEAD));
}

static size_t queue_room(const struct test *t)
{
	return CHAN_QUEUE_MAX - chan_counts(t->a.c).queued_bytes;
}

/* Until less than one more of the largest messages has room. */
static void fill(struct test *t)
{
	while (queue_room(t) >= 2 * STEP_MAX)
		if (send_sized(t->a.c, STEP_HEAD + STEP_MAX)) {
			OK(!"taken");
			return;
		}
}

static void wait_room(void *arg)
{
	struct test *t = arg;

	t->err = chan_wait_room(t->a.c, loop_now(t->loop) + MILLISECONDS(30));
	loop_stop(t->loop);
}

static void wait_room_long(void *arg)
{
	struct test *t = arg;

	t->err = chan_wait_room(t->a.c, LOOP_NEVER);
	t->done = t->err ? 0 : chan_counts(t->a.c).queued_bytes < CHAN_QUEUE_MAX / 2;
	loop_stop(t->loop);
}

static void test_queue_limit(void)
{
	struct test t;
	size_t room;

	tap_group("a full queue");
	set_up(&t);
	EQ(send_sized(t.a.c, STEP_HEAD + 100), ERR_OK);
	EQ(chan_counts(t.a.c).queued_bytes, 0);
	fill(&t);
	EQ(send_sized(t.a.c, 5000), ERR_OK);
	while ((room = queue_room(&t)) > STEP_HEAD + STEP_MAX)
		EQ(send_sized(t.a.c, room - STEP_MAX), ERR_OK);
	EQ(send_sized(t.a.c, room + 1), ERR_BUSY);
	EQ(send_sized(t.a.c, room - 100), ERR_OK);
	EQ(send_sized(t.a.c, 101), ERR_BUSY);
	EQ(send_sized(t.a.c, 100), ERR_OK);
	EQ(queue_room(&t), 0);
	EQ(SEND(t.a.c, auth_reset, .txn = 1), ERR_BUSY);
	/* Whoever waits for an answer gets it all the same. */
	EQ(REPLY(t.a.c, 1, done), ERR_OK);
	tap_group("room again");
	EQ(fiber_spawn(t.loop, wait_room_long, &t), ERR_OK);
	EQ(loop_run(t.loop), ERR_OK);
	EQ(t.err, ERR_OK);
	EQ(t.done, 1);
	EQ(send_sized(t.a.c, 5000), ERR_OK);
	tear_down(&t);
}

static void drop_a(void *arg)
{
	struct test *t = arg;

	chan_free(t->b.c);
	t->b.c = NULL;
}

static void test_wait_room(void)
{
	struct test t;
	int fd[2];

	tap_group("no room in time");
	set_up(&t);
	EQ(os_socketpair(true, fd), ERR_OK);
	EQ(chan_attach(t.a.c, fd[0]), ERR_OK); /* nobody reads the other end */
	t.a.downs = 0;
	EQ(fiber_spawn(t.loop, wait_room, &t), ERR_OK);
	EQ(loop_run(t.loop), ERR_OK);
	EQ(t.err, ERR_OK);
	fill(&t);
	EQ(fiber_spawn(t.loop, wait_room, &t), ERR_OK);
	EQ(loop_run(t.loop), ERR_OK);
	EQ(t.err, ERR_TIMEOUT);
	tap_group("gone while waiting for room");
	EQ(fiber_spawn(t.loop, wait_room_long, &t), ERR_OK);
	loop_timer_set(t.loop, &t.timer, loop_now(t.loop) + MILLISECONDS(1), drop_a, &t);
	os_close(fd[1]);
	EQ(loop_run(t.loop), ERR_OK);
	EQ(t.err, ERR_CLOSED);
	loop_timer_cancel(t.loop, &t.timer);
	tear_down(&t);
}

static void test_queued_descriptors(void)
{
	struct test t;
	int fd[2];
	char got[16];
	size_t n;

	tap_group("a descriptor that waits");
	set_up(&t);
	for (int i = 0; i < CHAN_WINDOW; i++)
		if (SEND(t.a.c, auth_reset, .txn = 1))
			OK(!"within the window");
	EQ(chan_counts(t.a.c).queued_bytes, 0);
	EQ(os_socketpair(false, fd), ERR_OK);
	EQ(SEND(t.a.c, auth_mail, .txn = 1, .socket = fd[1]), ERR_OK);
	OK(chan_counts(t.a.c).queued_bytes > 0);
	os_close(fd[1]);
	EQ(os_recv(fd[0], got, sizeof(got), &n), ERR_AGAIN); /* the queue's copy is open */
	run_for(&t, MILLISECONDS(100));
	EQ(os_recv(fd[0], got, sizeof(got), &n), ERR_OK);
	STR_EQ(str_of(got, n), S("via fd"));
	EQ(os_recv(fd[0], got, sizeof(got), &n), ERR_EOF);
	os_close(fd[0]);
	tap_group("a descriptor that waits in a queue that is dropped");
	EQ(t.b.messages, CHAN_WINDOW + 1);
	for (int i = 0; i < CHAN_WINDOW; i++)
		if (SEND(t.a.c, auth_reset, .txn = 1))
			OK(!"within the window");
	EQ(os_socketpair(false, fd), ERR_OK);
	EQ(SEND(t.a.c, auth_mail, .txn = 1, .socket = fd[1]), ERR_OK);
	os_close(fd[1]);
	chan_free(t.a.c);
	t.a.c = NULL;
	EQ(os_recv(fd[0], got, sizeof(got), &n), ERR_EOF);
	os_close(fd[0]);
	tear_down(&t);
}

static void call_segment(void *arg)
{
	struct test *t = arg;
	struct msg_st_segment_reply m;
	struct msg_done done;
	struct arena *tiny = arena_new(4);

	t->err = CALL(t->a.c, st_segment, st_segment_reply, &m, t->arena,
		      loop_now(t->loop) + MILLISECONDS(2), .segment = 1);
	t->done++;
	while (t->done == 1)
		fiber_yield(t->loop);
	t->b.mute = true;
	EQ(CALL(t->a.c, st_segment, done, &done, t->arena, LOOP_NEVER, .segment = 2), ERR_PROTOCOL);
	t->done++;
	EQ(CALL(t->a.c, st_segment, st_segment_reply, &m, tiny, LOOP_NEVER, .segment = 2),
	   ERR_NO_MEMORY);
	arena_free(tiny);
	t->done++;
}

/* Turns of the loop until b has got one more message. */
static void until_message(struct test *t, int messages)
{
	for (int i = 0; i < 1000 && t->b.messages < messages; i++)
		run_for(t, MILLISECONDS(1));
	EQ(t->b.messages, messages);
}

static void reply_with_fd(struct test *t, int fd[2])
{
	EQ(os_socketpair(false, fd), ERR_OK);
	EQ(REPLY(t->b.c, t->b.call_id, st_segment_reply, .file = fd[1]), ERR_OK);
	os_close(fd[1]);
}

static void expect_eof(int fd)
{
	char got[4];
	size_t n;

	EQ(os_recv(fd, got, sizeof(got), &n), ERR_EOF);
	os_close(fd);
}

static void test_late_reply(void)
{
	struct test t;
	int fd[2];

	tap_group("a reply after its time");
	set_up_as(&t, ROLE_SESSION, ROLE_STORE);
	EQ(fiber_spawn(t.loop, call_segment, &t), ERR_OK);
	run_for(&t, MILLISECONDS(1));
	for (int i = 0; i < 1000 && t.done == 0; i++)
		run_for(&t, MILLISECONDS(1));
	EQ(t.err, ERR_TIMEOUT);
	reply_with_fd(&t, fd);
	run_for(&t, MILLISECONDS(10));
	EQ(t.a.downs, 0);
	EQ(t.a.messages, 0);
	expect_eof(fd[0]); /* its descriptor was closed */
	tap_group("a reply of another type");
	t.done = 2;
	until_message(&t, 2);
	reply_with_fd(&t, fd);
	run_for(&t, MILLISECONDS(10));
	EQ(t.done, 3);
	expect_eof(fd[0]);
	tap_group("no memory for a reply");
	until_message(&t, 3);
	reply_with_fd(&t, fd);
	run_for(&t, MILLISECONDS(10));
	EQ(t.done, 4);
	EQ(t.a.downs, 0);
	expect_eof(fd[0]);
	tear_down(&t);
}

static void call_and_note(void *arg)
{
	struct test *t = arg;
	struct msg_auth_verdict v;

	t->err = CALL(t->a.c, auth_rcpt, auth_verdict, &v, t->arena, LOOP_NEVER, .txn = 1,
		      .address = S("x"));
	t->done++;
}

/* Replies obey the table of permissions like everything else. */
static void one_bad_reply(enum msg_type type, const void *m, size_t cut, const char *what)
{
	struct test t;
	struct buf b;
	struct iovec iov;
	int fd[2];
	unsigned nfds;

	tap_group(what);
	set_up(&t);
	EQ(os_socketpair(true, fd), ERR_OK);
	EQ(chan_attach(t.a.c, fd[0]), ERR_OK);
	t.a.downs = 0;
	buf_init(&b, MSG_MAX);
	EQ(fiber_spawn(t.loop, call_and_note, &t), ERR_OK);
	run_for(&t, MILLISECONDS(1));
	EQ(msg_encode(&b, type, 1, true, 0, m, NULL, &nfds), ERR_OK);
	iov = (struct iovec){ .iov_base = b.p, .iov_len = buf_len(&b) - cut };
	EQ(os_send_fds(fd[1], &iov, 1, NULL, 0), ERR_OK);
	run_for(&t, MILLISECONDS(10));
	EQ(t.done, 1);
	EQ(t.err, ERR_PROTOCOL);
	EQ(t.a.downs, 1);
	EQ(t.a.why, ERR_PROTOCOL);
	buf_free(&b);
	os_close(fd[1]);
	tear_down(&t);
}

/* With a pace, the first message wakes, and those that come in the pause are taken at its end. */
static void test_pace(void)
{
	struct test t;

	tap_group("pace");
	set_up(&t);
	chan_set_pace(t.b.c, SECONDS(3600));
	EQ(SEND(t.a.c, auth_reset, .txn = 1), ERR_OK);
	run_for(&t, MILLISECONDS(20));
	EQ(t.b.messages, 1);
	EQ(SEND(t.a.c, auth_reset, .txn = 2), ERR_OK);
	EQ(SEND(t.a.c, auth_reset, .txn = 3), ERR_OK);
	run_for(&t, MILLISECONDS(20));
	EQ(t.b.messages, 1);
	tap_group("the pause ends");
	connect_ends(&t);
	chan_set_pace(t.b.c, MILLISECONDS(1));
	for (uint64_t i = 1; i <= 3; i++) {
		EQ(SEND(t.a.c, auth_reset, .txn = i), ERR_OK);
		run_for(&t, MILLISECONDS(i * 10));
		EQ(t.b.messages, 1 + i);
	}
	tap_group("the peer goes in a pause");
	EQ(SEND(t.a.c, auth_reset, .txn = 4), ERR_OK);
	run_for(&t, 0);
	chan_free(t.a.c);
	t.a.c = NULL;
	run_for(&t, MILLISECONDS(30));
	EQ(t.b.messages, 5);
	EQ(t.b.downs, 2);
	tear_down(&t);
}

int main(void)
{
	test_pace();
	test_async();
	test_free_inside();
	test_many_calls();
	test_queue_limit();
	test_wait_room();
	test_queued_descriptors();
	test_late_reply();
	one_bad_reply(MSG_auth_verdict, &(struct msg_auth_verdict){ .code = 250 }, 1,
		      "a reply that does not decode");
	one_bad_reply(MSG_txn_reply, &(struct msg_txn_reply){ .txn = 1 }, 0,
		      "a reply that auth may not send");
	return tap_done();
}
